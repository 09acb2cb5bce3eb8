"""Batch norm by given statistics, and PReLU: pixels of a channel in the lanes, or gathered.

::

    task = some channels of images, or a piece of one
      for channel: mean, factor and bias in registers
        for vector: out = (x - mean) * factor + bias     or what rules.py says of PReLU

Wins where the pixels of a channel are contiguous. Bound by memory: 8 bytes of each float32 for two
instructions. The mean is subtracted and not folded into the bias, so that a mean far from zero
costs no accuracy.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.norm_problem import NormProblem
from fastconv.contract.pointwise_problem import PReluProblem
from fastconv.contract.spec import DeviceInfo

from ..common.collapse import collapse, name_loops
from ..common.runs import make_run_access
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import load_scalar, splat
from ..simd.ir import ITEMSIZE, compute_code, storage_code
from .parameters import FoldedPlan, fold_channels
from .rules import make_rule

__all__ = ["make_scale", "plan", "workspace"]

#: Elements of a piece, and of the channels that a task takes at least.
_PIECE = 1 << 14

FIELDS = (
    *"q r s xq xr xs yq yr ys".split(),  # axes of a channel's pixels, the last one in the lanes
    "planes",  # channels of all images
    "each",  # of a task
    "piece",  # pixels of a task along the last axis
    "pieces",
)
view = as_record(FIELDS)


@functools.cache
def make_scale(rule: int, unit: int, lanes: int, storage: int) -> Any:
    """Return a function that scales a run, see rules.py."""
    read, write, read_end, write_end = make_run_access(unit, lanes, storage)
    apply = make_rule(rule)

    @numba.njit
    def scale(
        x: int, step: int, out: int, out_step: int, count: int,
        centre: float, factor: float, shift: float,
    ) -> None:  # fmt: skip
        low, slope, high = splat(centre, lanes), splat(factor, lanes), splat(shift, lanes)
        i = 0
        while i + lanes <= count:
            value = apply(read(x + i * step, step), low, slope, high)
            write(out + i * out_step, out_step, value)
            i += lanes
        if i < count:
            value = read_end(x + i * step, step, count - i, centre)
            write_end(out + i * out_step, out_step, count - i, apply(value, low, slope, high))

    return scale


@functools.cache
def _make_kernel(rule: int, unit: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    scale = make_scale(rule, unit, lanes, storage)
    compute = compute_code(storage)
    size = ITEMSIZE[compute]

    def task(
        geometry: int, x: int, folded: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        first, block = number % g.pieces * g.piece, number // g.pieces
        count = min(g.piece, g.s - first)
        begin = block * g.each
        image, c = begin // g.c, begin % g.c - 1
        for _ in range(begin, min(g.planes, begin + g.each)):
            c += 1
            if c == g.c:
                image, c = image + 1, 0
            centre = load_scalar(folded + c * size, compute)
            factor = load_scalar(folded + (g.c + c) * size, compute)
            shift = load_scalar(folded + (2 * g.c + c) * size, compute)
            source = x + image * g.xn + c * g.xc + first * g.xs
            target = out + image * g.yn + c * g.yc + first * g.ys
            for q in range(g.q):
                for r in range(g.r):
                    scale(
                        source + q * g.xq + r * g.xr, g.xs, target + q * g.yq + r * g.yr, g.ys,
                        count, centre, factor, shift,
                    )  # fmt: skip

    return task


def workspace(problem: NormProblem | PReluProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: none."""
    return 0


def plan(
    problem: NormProblem | PReluProblem, binding: ArrayBinding, device: DeviceInfo
) -> FoldedPlan:
    """Prepare the kernel for one problem."""
    rule, fold = fold_channels(problem)
    x, y = binding.strides[0], binding.strides[-1]
    item = problem.itemsize
    axes = collapse(problem.x_shape[2:], x[2:], y[2:]) or [(1, (item, item))]
    last, steps = axes[-1]
    planes, piece = problem.batch * problem.channels, min(last, _PIECE)
    each = max(1, _PIECE // math.prod(size for size, _ in axes))
    values = name_loops("qrs", axes, "xy") | {
        "c": problem.channels, "xn": x[0], "xc": x[1], "yn": y[0], "yc": y[1], "planes": planes,
        "each": each, "piece": piece, "pieces": -(-last // piece),
    }  # fmt: skip
    key = (
        rule, int(steps == (item, item)), device.lanes(problem.compute_itemsize),
        storage_code(problem.dtype),
    )  # fmt: skip
    kernel = compile_kernel(_make_kernel(*key), "norm_scale_pixels", *key)
    made = ArrayPlan(
        record=array_record(FIELDS, values),
        stages=(ArrayStage(kernel, -(-planes // each) * values["pieces"]),),
        workers=worth_helpers(problem.flops, device.threads),
        flush=binding.flush,
    )
    names = tuple(operand.name for operand in problem.inputs[1:])
    return FoldedPlan(made, names, fold)
