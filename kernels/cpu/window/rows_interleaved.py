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

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..runtime.plan import CpuPlan
from . import rows_in_place
from .variants import as_row

__all__ = ["plan"]


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding of interleaved channels."""
    row = as_row(problem, binding, device)
    assert row is not None
    return rows_in_place.plan(*row, device, problem.groups)
