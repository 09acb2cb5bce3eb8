"""Batch norm by given statistics, and PReLU: channels in the lanes: contiguous, or gathered.

::

    task = some pixels
      for four pixels
        for vector of channels: mean, factor and bias from L1
          for pixel: out = (x - mean) * factor + bias

Wins where channels are contiguous. Four pixels share the loads of the three vectors. Bound by
memory, as scale_pixels.py is.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.norm_problem import NormProblem
from fastconv.contract.pointwise_problem import PReluProblem
from fastconv.contract.spec import DeviceInfo

from ..common.collapse import Axis, collapse, name_loops
from ..common.runs import make_run_access
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import load, load_masked, range_mask
from ..simd.ir import F64, ITEMSIZE, compute_code, storage_code
from .parameters import FoldedPlan, fold_channels
from .rules import make_rule

__all__ = ["make_scale_pixels", "pixel_axes", "plan", "workspace"]

#: Elements of a task, at least.
_ELEMENTS = 1 << 14

FIELDS = (
    *"p q r s xp xq xr xs yp yq yr ys".split(),  # axes of the pixels
    "block",  # pixels of a task along the last axis
    "blocks",
)
view = as_record(FIELDS)


@functools.cache
def make_scale_pixels(rule: int, unit: int, lanes: int, storage: int) -> Any:
    """Return a function that scales pixels one step apart, all channels of each."""
    read, write, read_end, write_end = make_run_access(unit, lanes, storage)
    apply = make_rule(rule)
    compute = compute_code(storage)
    size = ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32

    @numba.njit
    def scale_row(g: Any, x: int, out: int, folded: int) -> None:
        for c in range(0, g.c, lanes):
            count = min(lanes, g.c - c)
            mask, at = range_mask(0, count), folded + c * size
            centre = load_masked(at, mask, compute, lanes)
            factor = load_masked(at + g.c * size, mask, compute, lanes)
            shift = load_masked(at + 2 * g.c * size, mask, compute, lanes)
            value = read_end(x + c * g.xc, g.xc, count, as_compute(0.0))
            write_end(out + c * g.yc, g.yc, count, apply(value, centre, factor, shift))

    @numba.njit
    def scale_pixels(g: Any, x: int, out: int, pixels: int, folded: int) -> None:
        whole = g.c - g.c % lanes
        i = 0
        while i + 4 <= pixels:
            for c in range(0, whole, lanes):
                at = folded + c * size
                centre = load(at, compute, lanes)
                factor = load(at + g.c * size, compute, lanes)
                shift = load(at + 2 * g.c * size, compute, lanes)
                for j in range(4):
                    value = read(x + (i + j) * g.xs + c * g.xc, g.xc)
                    place = out + (i + j) * g.ys + c * g.yc
                    write(place, g.yc, apply(value, centre, factor, shift))
            if whole < g.c:
                count = g.c - whole
                mask, at = range_mask(0, count), folded + whole * size
                centre = load_masked(at, mask, compute, lanes)
                factor = load_masked(at + g.c * size, mask, compute, lanes)
                shift = load_masked(at + 2 * g.c * size, mask, compute, lanes)
                for j in range(4):
                    from_ = x + (i + j) * g.xs + whole * g.xc
                    value = read_end(from_, g.xc, count, as_compute(0.0))
                    place = out + (i + j) * g.ys + whole * g.yc
                    write_end(place, g.yc, count, apply(value, centre, factor, shift))
            i += 4
        while i < pixels:
            scale_row(g, x + i * g.xs, out + i * g.ys, folded)
            i += 1

    return scale_pixels


@functools.cache
def _make_kernel(rule: int, unit: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    scale_pixels = make_scale_pixels(rule, unit, lanes, storage)

    def task(
        geometry: int, x: int, folded: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        first, rest = number % g.blocks * g.block, number // g.blocks
        r, rest = rest % g.r, rest // g.r
        q, p = rest % g.q, rest // g.q
        source = x + p * g.xp + q * g.xq + r * g.xr + first * g.xs
        target = out + p * g.yp + q * g.yq + r * g.yr + first * g.ys
        scale_pixels(g, source, target, min(g.block, g.s - first), folded)

    return task


def workspace(problem: NormProblem | PReluProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: none."""
    return 0


def pixel_axes(shape: tuple[int, ...], x: tuple[int, ...], y: tuple[int, ...]) -> list[Axis]:
    """Return the axes of the pixels of all images: at least one."""
    axes = collapse((shape[0], *shape[2:]), (x[0], *x[2:]), (y[0], *y[2:]))
    return axes or [(1, (0, 0))]


def plan(
    problem: NormProblem | PReluProblem, binding: ArrayBinding, device: DeviceInfo
) -> FoldedPlan:
    """Prepare the kernel for one problem."""
    rule, fold = fold_channels(problem)
    x, y = binding.strides[0], binding.strides[-1]
    item = problem.itemsize
    axes = pixel_axes(problem.x_shape, x, y)
    block = max(4, _ELEMENTS // problem.channels)
    blocks = -(-axes[-1][0] // block)
    values = name_loops("pqrs", axes, "xy") | {
        "c": problem.channels, "xc": x[1], "yc": y[1], "block": block, "blocks": blocks,
    }  # fmt: skip
    unit = int(problem.channels == 1 or (x[1] == item and y[1] == item))
    key = (rule, unit, device.lanes(problem.compute_itemsize), storage_code(problem.dtype))
    kernel = compile_kernel(_make_kernel(*key), "norm_scale_channels", *key)
    made = ArrayPlan(
        record=array_record(FIELDS, values),
        stages=(ArrayStage(kernel, blocks * math.prod(size for size, _ in axes[:-1])),),
        workers=worth_helpers(problem.flops, device.threads),
        flush=binding.flush,
    )
    names = tuple(operand.name for operand in problem.inputs[1:])
    return FoldedPlan(made, names, fold)
