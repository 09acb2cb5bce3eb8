"""Gradients of norms for the input that statistics are taken from, elements in the lanes.

With g the gradient of the output, w the weight and x' the normalised input::

    grad = (w * g - mean(w * g) - x' * mean(w * g * x')) / deviation

over the elements of each statistic. Wins where those are contiguous. The loop nest is that of
runs.py, with two operands::

    task = some statistics
      for channel or image of one, for run, for vector: sums of d, d * d, g and d * g in float64
      mean, 1 / sqrt(variance + eps), and the two means above
      for channel or image of one, for run, for vector: grad = g * slope + (x - mean) * back + shift
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

from ..common.collapse import name_loops
from ..common.runs import make_run_access
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.arithmetic import fma, mul, reduce_add, sub, to_double
from ..simd.intrinsics import add, load_masked, load_scalar, range_mask, splat
from ..simd.ir import F64, ITEMSIZE, compute_code, storage_code
from .moments import finish_moments
from .parameters import GradientPlan
from .runs import statistic_axes, statistic_fields

__all__ = ["plan", "workspace"]

FIELDS = (
    *"p q r s xp xq xr xs gp gq gr gs yp yq yr ys".split(),  # axes of one statistic's elements
    "inner",  # statistics along the inner of their two axes
    "statistics",
    "each",  # of a task
    "xi",  # bytes between statistics along the outer axis,
    "gi",
    "yi",
    "xj",  # and along the inner one
    "gj",
    "yj",
    "own",  # weights of one statistic
    "stepped",  # whether those of successive steps of p are next to each other
    "length",  # of the weight
    "told",  # none are
)
_REALS = ("eps", "share")  # and one over the elements of one statistic
view = as_record(FIELDS, _REALS)


@functools.cache
def _make_sums(rows: int, unit: int, lanes: int, storage: int) -> Any:
    """Return a function that sums a step of p: d, d * d, g and d * g."""
    read, _, read_end, _ = make_run_access(unit, lanes, storage)
    compute = compute_code(storage)
    as_compute, size = np.float64 if compute == F64 else np.float32, ITEMSIZE[compute]

    @numba.njit
    def take(at: int, step: int, count: int, fill: float) -> Any:
        if count >= lanes:
            return read(at, step)
        return read_end(at, step, count, fill)

    @numba.njit
    def sums(g: Any, x: int, grads: int, k: float, weight: int) -> Any:
        centre, fill = splat(np.float64(k), lanes), as_compute(k)
        sum1, sum2 = splat(0.0, lanes), splat(0.0, lanes)
        sum3, sum4 = splat(0.0, lanes), splat(0.0, lanes)
        for q in range(g.q):
            for r in range(g.r):
                source = x + q * g.xq + r * g.xr
                other = grads + q * g.gq + r * g.gr
                for i in range(0, g.s, lanes):
                    count = min(lanes, g.s - i)
                    d = sub(to_double(take(source + i * g.xs, g.xs, count, fill)), centre)
                    value = take(other + i * g.gs, g.gs, count, as_compute(0.0))
                    if rows:
                        mask = range_mask(0, count)
                        value = mul(value, load_masked(weight + i * size, mask, compute, lanes))
                    wide = to_double(value)
                    sum1, sum2 = add(sum1, d), fma(d, d, sum2)
                    sum3, sum4 = add(sum3, wide), fma(d, wide, sum4)
        return reduce_add(sum1), reduce_add(sum2), reduce_add(sum3), reduce_add(sum4)

    return sums


@functools.cache
def _make_apply(rows: int, unit: int, lanes: int, storage: int) -> Any:
    """Return a function for the results of a step of p."""
    read, write, read_end, write_end = make_run_access(unit, lanes, storage)
    compute = compute_code(storage)
    as_compute, size = np.float64 if compute == F64 else np.float32, ITEMSIZE[compute]

    @numba.njit
    def apply(
        g: Any, x: int, grads: int, out: int, weight: int,
        centre: float, slope: float, back: float, shift: float,
    ) -> None:  # fmt: skip
        low, factor = splat(centre, lanes), splat(slope, lanes)
        turn, high, zero = splat(back, lanes), splat(shift, lanes), as_compute(0.0)
        for q in range(g.q):
            for r in range(g.r):
                source, other = x + q * g.xq + r * g.xr, grads + q * g.gq + r * g.gr
                target = out + q * g.yq + r * g.yr
                for i in range(0, g.s, lanes):
                    count = min(lanes, g.s - i)
                    if count == lanes:
                        d = sub(read(source + i * g.xs, g.xs), low)
                        value = read(other + i * g.gs, g.gs)
                    else:
                        d = sub(read_end(source + i * g.xs, g.xs, count, zero), low)
                        value = read_end(other + i * g.gs, g.gs, count, zero)
                    if rows:
                        mask = range_mask(0, count)
                        value = mul(value, load_masked(weight + i * size, mask, compute, lanes))
                    value = fma(value, factor, fma(d, turn, high))
                    if count == lanes:
                        write(target + i * g.ys, g.ys, value)
                    else:
                        write_end(target + i * g.ys, g.ys, count, value)

    return apply


@functools.cache
def _make_kernel(rows: int, unit: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    sums = _make_sums(rows, unit, lanes, storage)
    apply = _make_apply(rows, unit, lanes, storage)
    compute = compute_code(storage)
    as_compute, size = np.float64 if compute == F64 else np.float32, ITEMSIZE[compute]

    @numba.njit
    def weight_of(g: Any, weight: int, p: int) -> float:
        if rows:
            return 1.0
        return np.float64(load_scalar(weight + p * g.stepped * size, compute))

    @numba.njit
    def differentiate(g: Any, x: int, grads: int, out: int, weight: int) -> None:
        k = np.float64(load_scalar(x, storage))
        first, second, whole, along = 0.0, 0.0, 0.0, 0.0
        for p in range(g.p):
            one, two, three, four = sums(g, x + p * g.xp, grads + p * g.gp, k, weight)
            own = weight_of(g, weight, p)
            first, second = first + one, second + two
            whole, along = whole + own * three, along + own * four
        mean, variance = finish_moments(k, first, second, g.share)
        factor = 1.0 / math.sqrt(variance + g.eps)
        along = (along - (mean - k) * whole) * factor * g.share
        centre, back = as_compute(mean), -factor * factor * along
        shift = -factor * whole * g.share - back * (mean - np.float64(centre))
        for p in range(g.p):
            slope = factor * weight_of(g, weight, p)
            apply(
                g, x + p * g.xp, grads + p * g.gp, out + p * g.yp, weight, centre,
                as_compute(slope), as_compute(back), as_compute(shift),
            )  # fmt: skip

    def task(
        geometry: int, x: int, weights: int, grads: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        for index in range(number * g.each, min(g.statistics, (number + 1) * g.each)):
            i, j = index // g.inner, index % g.inner
            differentiate(
                g, x + i * g.xi + j * g.xj, grads + i * g.gi + j * g.gj,
                out + i * g.yi + j * g.yj, weights + j * g.own * size,
            )  # fmt: skip

    return task


def workspace(problem: NormProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: none."""
    return 0


def plan(problem: NormProblem, binding: ArrayBinding, device: DeviceInfo) -> GradientPlan:
    """Prepare the kernel for one problem."""
    last = len(problem.inputs)
    strides = (binding.strides[0], binding.strides[last - 1], binding.strides[last])
    axes, item = statistic_axes(problem, *strides), problem.itemsize
    values = name_loops("pqrs", axes, "xgy") | statistic_fields(problem, "xgy", *strides)
    key = (
        int(problem.kind == "layer_norm"), int(axes[-1][1] == (item,) * 3),
        device.lanes(problem.compute_itemsize), storage_code(problem.dtype),
    )  # fmt: skip
    kernel = compile_kernel(_make_kernel(*key), "norm_grad_runs", *key)
    reals = {"eps": problem.eps, "share": 1.0 / problem.sampled}
    made = ArrayPlan(
        record=array_record(FIELDS, values | reals, _REALS),
        stages=(ArrayStage(kernel, -(-values["statistics"] // values["each"])),),
        workers=worth_helpers(problem.flops, device.threads),
        flush=binding.flush,
    )
    return GradientPlan(made, problem)
