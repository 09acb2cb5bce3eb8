"""Depthwise convolution of channels-last arrays with few channels: images with interleaved colours.

Wins where a pixel has fewer channels than a vector has lanes (pixels_in_place.py would
leave the others empty): its rows are read as rows of one channel, ``C`` times as long, and the taps
lie ``C`` elements apart, so that all lanes are full::

    row      r g b r g b r g b r g b ...          taps of an output: every third element
    weights  r g b r g b r g b r g b r | g b r ...          a vector of them for each tap

This is rows_in_place.py with vectors of weights in the place of single numbers. With 16 lanes and
three channels the pattern comes back after three vectors, which three vectors of weights serve
wherever the row's strip begins.

Budget (AVX-512, float32, 5x5): 4 vectors x 5 rows of sums, 4 vectors of a row, 3 of weights: 27 of
32 registers; a step makes 100 multiply-adds out of 75 loads of weights and 40 cycles of loads of
the row, most of which cross a cache line. One vector of pixels in 5.3 times fewer steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..runtime.plan import CpuPlan
from . import row_costs, rows_in_place

__all__ = ["fits", "plan"]


def _as_row(
    problem: ConvProblem, binding: Binding, device: DeviceInfo
) -> tuple[ConvProblem, Binding] | None:
    """Return the problem and the binding of one channel, None where memory lies otherwise."""
    row, item = row_costs.interleaved(problem, device), problem.itemsize
    if row is None:
        return None
    bound: dict[str, Any] = {}
    for name in ("x_strides", "out_strides", "residual_strides"):
        strides = getattr(binding, name)
        if strides is None:
            continue
        if strides[1] != item or strides[-1] != problem.groups * item:
            return None
        bound[name] = (*strides[:-1], item)
    return row, replace(binding, **bound)


def fits(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> bool:
    """Return whether a problem and a binding can be computed here."""
    found = _as_row(problem, binding, device)
    return found is not None and rows_in_place.fits(*found, device)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding that `fits`."""
    found = _as_row(problem, binding, device)
    assert found is not None
    return rows_in_place.plan(*found, device, problem.groups)
