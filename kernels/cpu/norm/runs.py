"""Norms by statistics of the input, elements of one statistic in the lanes.

Wins where the elements of a statistic are contiguous. A task takes whole statistics, so that what
was read for them is scaled out of the cache::

    task = some statistics
      for channel or image of one, for run, for vector: sums (moments.py)
      mean, 1 / sqrt(variance + eps)
      for channel or image of one, for run, for vector: out = (x - mean) * factor + bias

==============  =====================  ======================  ==========================
operator        one statistic          axes p, then q, r, s    weight and bias
==============  =====================  ======================  ==========================
batch norm      channel                images, pixels          one for all
group norm      group of an image      channels, pixels        one for each step of p
instance norm   channel of an image    none, pixels            one for all
layer norm      row                    none, the row           along the row, as vectors
==============  =====================  ======================  ==========================

Memory is read once and written once where a statistic's elements fit in L2, which is 256 K float32.
Sums take 8 of a vector's 12 cycles, as float64 is twice as wide.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.norm_problem import NormProblem
from fastconv.contract.spec import DeviceInfo

from ..common.collapse import Axis, collapse, name_loops
from ..common.runs import make_run_access
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.arithmetic import fma, sub
from ..simd.intrinsics import load, load_masked, load_scalar, range_mask, splat, store_scalar
from ..simd.ir import F64, ITEMSIZE, compute_code, storage_code
from .moments import finish_moments, make_moments
from .parameters import FoldedPlan, fold_taken
from .rules import AFFINE
from .scale_pixels import make_scale

__all__ = ["plan", "statistic_axes", "statistic_fields", "workspace"]

#: Elements of a task, at least, where a statistic has fewer.
_ELEMENTS = 1 << 14

FIELDS = (
    *"p q r s xp xq xr xs yp yq yr ys".split(),  # axes of one statistic's elements
    "inner",  # statistics along the inner of their two axes
    "statistics",
    "each",  # of a task
    "xi",  # bytes between statistics along the outer axis,
    "yi",
    "xj",  # and along the inner one
    "yj",
    "own",  # weights and biases of one statistic
    "stepped",  # whether those of successive steps of p are next to each other
    "length",  # of the weight
    "told",  # whether statistics are an output
)
_REALS = ("eps", "share")  # and one over the elements of one statistic
view = as_record(FIELDS, _REALS)


@functools.cache
def _make_scale_rows(unit: int, lanes: int, storage: int) -> Any:
    """Return a function that scales a run whose weights and biases lie along it."""
    read, write, read_end, write_end = make_run_access(unit, lanes, storage)
    compute = compute_code(storage)
    size = ITEMSIZE[compute]

    @numba.njit
    def scale_row(
        x: int, step: int, out: int, out_step: int, count: int, weight: int, bias: int,
        centre: float, factor: float, shift: float,
    ) -> None:  # fmt: skip
        low, slope, high = splat(centre, lanes), splat(factor, lanes), splat(shift, lanes)
        i = 0
        while i + lanes <= count:
            value = fma(sub(read(x + i * step, step), low), slope, high)
            weights = load(weight + i * size, compute, lanes)
            value = fma(value, weights, load(bias + i * size, compute, lanes))
            write(out + i * out_step, out_step, value)
            i += lanes
        if i < count:
            mask = range_mask(0, count - i)
            value = read_end(x + i * step, step, count - i, centre)
            value = fma(sub(value, low), slope, high)
            weights = load_masked(weight + i * size, mask, compute, lanes)
            value = fma(value, weights, load_masked(bias + i * size, mask, compute, lanes))
            write_end(out + i * out_step, out_step, count - i, value)

    return scale_row


@functools.cache
def _make_apply(rows: int, unit: int, lanes: int, storage: int) -> Any:
    """Return a function that scales all elements of a statistic."""
    compute = compute_code(storage)
    as_compute, size = np.float64 if compute == F64 else np.float32, ITEMSIZE[compute]
    scale, scale_row = (
        make_scale(AFFINE, unit, lanes, storage),
        _make_scale_rows(unit, lanes, storage),
    )

    @numba.njit
    def apply(g: Any, x: int, out: int, folded: int, mean: float, factor: float) -> None:
        centre = as_compute(mean)
        # What the mean lost by being rounded.
        left = (mean - np.float64(centre)) * factor
        for p in range(g.p):
            weight = folded + p * g.stepped * size
            bias = weight + g.length * size
            own = np.float64(load_scalar(weight, compute))
            shift = np.float64(load_scalar(bias, compute)) - left * own
            slope = own * factor
            for row in range(g.q * g.r):
                q, r = (row // g.r, row % g.r) if row else (0, 0)
                source = x + p * g.xp + q * g.xq + r * g.xr
                target = out + p * g.yp + q * g.yq + r * g.yr
                if rows:
                    scale_row(
                        source, g.xs, target, g.ys, g.s, weight, bias, centre,
                        as_compute(factor), as_compute(-left),
                    )  # fmt: skip
                else:
                    scale(
                        source, g.xs, target, g.ys, g.s, centre, as_compute(slope),
                        as_compute(shift),
                    )  # fmt: skip

    return apply


@functools.cache
def _make_kernel(rows: int, unit: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    moments = make_moments(unit, lanes, storage)
    apply = _make_apply(rows, unit, lanes, storage)
    size = ITEMSIZE[compute_code(storage)]

    def task(
        geometry: int, x: int, folded: int, statistics: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        for index in range(number * g.each, min(g.statistics, (number + 1) * g.each)):
            i, j = index // g.inner, index % g.inner
            source, target = x + i * g.xi + j * g.xj, out + i * g.yi + j * g.yj
            k = np.float64(load_scalar(source, storage))
            first, second = moments(g, source, k)
            mean, variance = finish_moments(k, first, second, g.share)
            if g.told:
                store_scalar(statistics + index * 8, mean, F64)
                store_scalar(statistics + (g.statistics + index) * 8, variance, F64)
            own = folded + j * g.own * size
            apply(g, source, target, own, mean, 1.0 / math.sqrt(variance + g.eps))

    return task


def workspace(problem: NormProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: none."""
    return 0


def statistic_axes(problem: NormProblem, *strides: tuple[int, ...]) -> list[Axis]:
    """Return the axes of one statistic's elements in arrays of these strides, p by itself."""
    shape, item = problem.x_shape, problem.itemsize
    sizes, none, units = shape[2:], (0,) * len(strides), (item,) * len(strides)
    pixels = collapse(sizes, *(steps[2:] for steps in strides)) or [(1, units)]
    if problem.kind == "batch_norm":
        every = [(steps[0], *steps[2:]) for steps in strides]
        return collapse((shape[0], *sizes), *every) or [(1, units)]
    channels = problem.channels // problem.groups if problem.kind == "group_norm" else 1
    first = (channels, tuple(steps[1] for steps in strides))
    return [first, *[(1, none)] * (3 - len(pixels)), *pixels]


def statistic_fields(
    problem: NormProblem, letters: str, *strides: tuple[int, ...]
) -> dict[str, int]:
    """Return how statistics lie, and what belongs to them, by field."""
    channels, images = problem.channels, problem.batch
    step = channels // problem.groups if problem.kind == "group_norm" else 1
    inner, own = channels // step, step
    if problem.kind == "batch_norm":
        images = 1
    if problem.kind == "layer_norm":
        own = 0
    places: dict[str, int] = {}
    for letter, steps in zip(letters, strides, strict=True):
        places |= {f"{letter}i": steps[0], f"{letter}j": step * steps[1]}
    return places | {
        "inner": inner, "statistics": images * inner, "own": own,
        "stepped": int(problem.kind == "group_norm"),
        "length": problem.parameters,
        "each": max(1, _ELEMENTS // problem.sampled), "told": len(problem.outputs) - 1,
    }  # fmt: skip


def plan(problem: NormProblem, binding: ArrayBinding, device: DeviceInfo) -> FoldedPlan:
    """Prepare the kernel for one problem."""
    x, y = binding.strides[0], binding.strides[len(problem.inputs)]
    axes, item = statistic_axes(problem, x, y), problem.itemsize
    values = name_loops("pqrs", axes, "xy") | statistic_fields(problem, "xy", x, y)
    key = (
        int(problem.op == "layer_norm"), int(axes[-1][1] == (item, item)),
        device.lanes(problem.compute_itemsize), storage_code(problem.dtype),
    )  # fmt: skip
    reals = {"eps": problem.eps, "share": 1.0 / problem.sampled}
    kernel = compile_kernel(_make_kernel(*key), "norm_runs", *key)
    tasks = -(-values["statistics"] // values["each"])
    made = ArrayPlan(
        record=array_record(FIELDS, values | reals, _REALS),
        stages=(ArrayStage(kernel, tasks),),
        workers=worth_helpers(problem.flops, device.threads),
        flush=binding.flush,
    )
    names = tuple(operand.name for operand in problem.inputs[1:])
    return FoldedPlan(made, names, fold_taken(problem))
