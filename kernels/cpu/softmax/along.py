"""Softmax with the axis of the sum along the lanes: it is contiguous, or gathered.

Wins where the axis is contiguous. A task takes some thousand elements, whole sums of them::

    task = block of sums
      for sum
        for vector: largest = max(largest, x)
        for vector: e = exp(x - largest); total += e; store e       log_softmax does not store
        for vector: out = e / total                                 or x - largest - log(total)

The three passes are over one row, which lies in L1 up to eight thousand numbers. In float32 an
exponential takes 20 of a vector's 28 cycles (AVX-512 on Zen 4); memory is waited for where a thread
has less than 16 GB/s of 64 bytes in 28 cycles. Totals are float64: their error does not grow with
a row. Where elements are stored rounded, or apart, the exponential is taken a second time, so that
each result is rounded once.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.softmax_problem import SoftmaxProblem
from fastconv.contract.spec import DeviceInfo

from ..common.collapse import collapse, name_loops
from ..common.runs import make_run_access
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.arithmetic import larger, mul, reduce_add, reduce_larger, sub, to_double
from ..simd.exponentials import exp_negative
from ..simd.intrinsics import add, splat
from ..simd.ir import F64, compute_code, storage_code
from .costs import run_tasks

__all__ = ["plan", "workspace"]

FIELDS = (
    *"p q r s xp xq xr xs yp yq yr ys".split(),  # axes of the sums
    "sums",
    "each",  # of a task
    "step",  # bytes between elements, of input and output
    "out_step",
)
view = as_record(FIELDS)


def _keeps(log: int, unit: int, storage: int) -> bool:
    """Return whether exponentials are stored where results will be."""
    return bool(unit and compute_code(storage) == storage and not log)


@functools.cache
def _make_sums(log: int, unit: int, lanes: int, storage: int) -> tuple[Any, Any]:
    """Return functions for a row's largest value and its sum of exponentials."""
    as_compute = np.float64 if compute_code(storage) == F64 else np.float32
    keep = _keeps(log, unit, storage)
    read, write, read_end, write_end = make_run_access(unit, lanes, storage)

    @numba.njit
    def find_largest(x: int, step: int, n: int) -> Any:
        least = as_compute(-np.inf)
        top, other = splat(least, lanes), splat(least, lanes)
        i = 0
        while i + 2 * lanes <= n:
            top = larger(top, read(x + i * step, step))
            other = larger(other, read(x + (i + lanes) * step, step))
            i += 2 * lanes
        while i < n:
            top = larger(top, read_end(x + i * step, step, min(lanes, n - i), least))
            i += lanes
        return reduce_larger(larger(top, other))

    @numba.njit
    def add_up(x: int, step: int, n: int, top: float, out: int, out_step: int) -> float:
        shift, least, sums = splat(top, lanes), as_compute(-np.inf), splat(0.0, lanes)
        i = 0
        while i + lanes <= n:
            e = exp_negative(sub(read(x + i * step, step), shift))
            if keep:
                write(out + i * out_step, out_step, e)
            sums = add(sums, to_double(e))
            i += lanes
        if i < n:
            e = exp_negative(sub(read_end(x + i * step, step, n - i, least), shift))
            if keep:
                write_end(out + i * out_step, out_step, n - i, e)
            sums = add(sums, to_double(e))
        return reduce_add(sums)

    return find_largest, add_up


@functools.cache
def _make_scale(log: int, unit: int, lanes: int, storage: int) -> Any:
    """Return a function for the results of a row."""
    as_compute = np.float64 if compute_code(storage) == F64 else np.float32
    keep = _keeps(log, unit, storage)
    read, write, read_end, write_end = make_run_access(unit, lanes, storage)

    @numba.njit
    def finish(x: Any, shift: Any, factor: Any) -> Any:
        if log:
            return sub(sub(x, shift), factor)
        if keep:
            return mul(x, factor)
        return mul(exp_negative(sub(x, shift)), factor)

    @numba.njit
    def scale(x: int, step: int, n: int, top: float, total: float, out: int, out_step: int) -> None:
        word = math.log(total) if log else 1.0 / total
        shift, factor = splat(top, lanes), splat(as_compute(word), lanes)
        source, source_step = (out, out_step) if keep else (x, step)
        i = 0
        while i + lanes <= n:
            value = finish(read(source + i * source_step, source_step), shift, factor)
            write(out + i * out_step, out_step, value)
            i += lanes
        if i < n:
            value = read_end(source + i * source_step, source_step, n - i, as_compute(0.0))
            write_end(out + i * out_step, out_step, n - i, finish(value, shift, factor))

    return scale


@functools.cache
def _make_kernel(log: int, unit: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    find_largest, add_up = _make_sums(log, unit, lanes, storage)
    scale = _make_scale(log, unit, lanes, storage)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        for row in range(number * g.each, min(g.sums, (number + 1) * g.each)):
            s, rest = row % g.s, row // g.s
            source, target = x + s * g.xs, out + s * g.ys
            if rest > 0:
                r, rest = rest % g.r, rest // g.r
                q, p = rest % g.q, rest // g.q
                source += p * g.xp + q * g.xq + r * g.xr
                target += p * g.yp + q * g.yq + r * g.yr
            top = find_largest(source, g.step, g.c)
            total = add_up(source, g.step, g.c, top, target, g.out_step)
            scale(source, g.step, g.c, top, total, target, g.out_step)

    return task


def workspace(problem: SoftmaxProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: none."""
    return 0


def plan(problem: SoftmaxProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    x, y = binding.strides
    shape, item = problem.x_shape, problem.itemsize
    axes = collapse((shape[0], *shape[2:]), (x[0], *x[2:]), (y[0], *y[2:]))
    tasks = run_tasks(problem)
    sums = math.prod((shape[0], *shape[2:]))
    values = name_loops("pqrs", axes, "xy") | {
        "c": problem.channels, "sums": sums, "each": -(-sums // tasks), "step": x[1],
        "out_step": y[1],
    }  # fmt: skip
    unit = int(problem.channels == 1 or (x[1] == item and y[1] == item))
    storage, lanes = storage_code(problem.dtype), device.lanes(problem.compute_itemsize)
    key = (int(problem.op == "log_softmax"), unit, lanes, storage)
    kernel = compile_kernel(_make_kernel(*key), "softmax_along", *key)
    return ArrayPlan(
        record=array_record(FIELDS, values),
        stages=(ArrayStage(kernel, tasks),),
        workers=worth_helpers(problem.flops, device.threads),
        flush=binding.flush,
    )
