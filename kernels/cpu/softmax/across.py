"""Softmax with the axis of the sum across the lanes: another axis is contiguous, or gathered.

Images of channels first are the case it is for: neighbouring pixels in the lanes, channels planes
apart. A block of pixels is so wide that its channels stay in L2::

    task = block of pixels of an image
      for channel, for vector: largest = max(largest, x)
      for channel, for vector: e = exp(x - largest); totals += e; store e
      for channel, for vector: out = e / total

Largest values and totals of a block are in the worker's scratch memory, in L1. A channel of a block
is read as one piece, so that memory is read in runs however far apart planes lie. Arithmetic and
rounding are those of along.py.
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

from ..common.collapse import Axis, collapse, name_loops
from ..common.runs import make_run_access
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.arithmetic import (
    divide,
    larger,
    mul,
    sub,
    to_compute,
    to_double,
)
from ..simd.exponentials import exp_negative, log_positive
from ..simd.intrinsics import add, load, splat, store
from ..simd.ir import F64, ITEMSIZE, compute_code, storage_code
from .along import keeps

__all__ = ["plan", "workspace"]

#: Most pixels of a block, and the bytes that its channels may take.
_PIXELS, _BYTES = 512, 1 << 18

FIELDS = (
    *"p q r s xp xq xr xs yp yq yr ys".split(),  # axes of the pixels, the last one in the lanes
    "block",  # pixels of a task
    "blocks",  # along the last axis
    "worker_bytes",
)
view = as_record(FIELDS)


@functools.cache
def _make_access(unit: int, lanes: int, storage: int) -> tuple[Any, Any]:
    """Return functions that read and write one vector, `count` elements of a run being left."""
    as_compute = np.float64 if compute_code(storage) == F64 else np.float32
    read, write, read_end, write_end = make_run_access(unit, lanes, storage)

    @numba.njit
    def take(at: int, step: int, count: int) -> Any:
        if count >= lanes:
            return read(at, step)
        return read_end(at, step, count, as_compute(0.0))

    @numba.njit
    def put(at: int, step: int, count: int, value: Any) -> None:
        if count >= lanes:
            write(at, step, value)
        else:
            write_end(at, step, count, value)

    return take, put


@functools.cache
def _make_sums(log: int, unit: int, lanes: int, storage: int) -> tuple[Any, Any]:
    """Return functions for a block's largest values and its sums of exponentials."""
    compute, keep = compute_code(storage), keeps(log, unit, storage)
    as_compute, size = np.float64 if compute == F64 else np.float32, ITEMSIZE[compute]
    take, put = _make_access(unit, lanes, storage)

    @numba.njit
    def find_largest(g: Any, x: int, pixels: int, tops: int) -> None:
        for i in range(0, pixels, lanes):
            store(tops + i * size, splat(as_compute(-np.inf), lanes), compute)
        for c in range(g.c):
            for i in range(0, pixels, lanes):
                value = take(x + c * g.xc + i * g.xs, g.xs, pixels - i)
                at = tops + i * size
                store(at, larger(load(at, compute, lanes), value), compute)

    @numba.njit
    def add_up(g: Any, x: int, pixels: int, tops: int, sums: int, out: int) -> None:
        for i in range(0, pixels, lanes):
            store(sums + i * 8, splat(0.0, lanes), F64)
        for c in range(g.c):
            for i in range(0, pixels, lanes):
                value = take(x + c * g.xc + i * g.xs, g.xs, pixels - i)
                e = exp_negative(sub(value, load(tops + i * size, compute, lanes)))
                if keep:
                    put(out + c * g.yc + i * g.ys, g.ys, pixels - i, e)
                at = sums + i * 8
                store(at, add(load(at, F64, lanes), to_double(e)), F64)

    return find_largest, add_up


@functools.cache
def _make_scale(log: int, unit: int, lanes: int, storage: int) -> Any:
    """Return a function for a block's results."""
    compute, keep = compute_code(storage), keeps(log, unit, storage)
    size = ITEMSIZE[compute]
    take, put = _make_access(unit, lanes, storage)

    @numba.njit
    def make_factors(pixels: int, sums: int) -> None:
        for i in range(0, pixels, lanes):
            total = load(sums + i * 8, F64, lanes)
            word = log_positive(total) if log else divide(splat(1.0, lanes), total)
            # A factor is no wider than a sum: it overwrites none that is still to be read.
            store(sums + i * size, to_compute(word, compute), compute)

    @numba.njit
    def scale(g: Any, x: int, pixels: int, tops: int, sums: int, out: int) -> None:
        make_factors(pixels, sums)
        for c in range(g.c):
            for i in range(0, pixels, lanes):
                place = out + c * g.yc + i * g.ys
                factor = load(sums + i * size, compute, lanes)
                if keep:
                    put(place, g.ys, pixels - i, mul(take(place, g.ys, pixels - i), factor))
                    continue
                value = take(x + c * g.xc + i * g.xs, g.xs, pixels - i)
                value = sub(value, load(tops + i * size, compute, lanes))
                value = sub(value, factor) if log else mul(exp_negative(value), factor)
                put(place, g.ys, pixels - i, value)

    return scale


@functools.cache
def _make_kernel(log: int, unit: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    find_largest, add_up = _make_sums(log, unit, lanes, storage)
    scale = _make_scale(log, unit, lanes, storage)
    room = _PIXELS * ITEMSIZE[compute_code(storage)]

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        first, rest = number % g.blocks * g.block, number // g.blocks
        r, rest = rest % g.r, rest // g.r
        q, p = rest % g.q, rest // g.q
        source = x + p * g.xp + q * g.xq + r * g.xr + first * g.xs
        target = out + p * g.yp + q * g.yq + r * g.yr + first * g.ys
        pixels = min(g.block, g.s - first)
        tops = workspace + worker * g.worker_bytes
        find_largest(g, source, pixels, tops)
        add_up(g, source, pixels, tops, tops + room, target)
        scale(g, source, pixels, tops, tops + room, target)

    return task


def _block(problem: SoftmaxProblem, device: DeviceInfo, pixels: int) -> int:
    """Return the pixels of a block: whole vectors."""
    lanes = device.lanes(problem.compute_itemsize)
    fitting = _BYTES // (2 * problem.channels * problem.itemsize)
    return max(1, min(_PIXELS, fitting, pixels + lanes - 1) // lanes) * lanes


def _worker_bytes(problem: SoftmaxProblem) -> int:
    return _PIXELS * (problem.compute_itemsize + 8)


def workspace(problem: SoftmaxProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: largest values and sums of each thread."""
    return _worker_bytes(problem) * worth_helpers(problem.flops, device.threads)


def _loops(problem: SoftmaxProblem, x: tuple[int, ...], y: tuple[int, ...]) -> list[Axis]:
    """Return the axes of the pixels: at least one."""
    shape = problem.x_shape
    axes = collapse((shape[0], *shape[2:]), (x[0], *x[2:]), (y[0], *y[2:]))
    return axes or [(1, (problem.itemsize, problem.itemsize))]


def plan(problem: SoftmaxProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    x, y = binding.strides
    axes, item = _loops(problem, x, y), problem.itemsize
    pixels, steps = axes[-1]
    block = _block(problem, device, pixels)
    blocks = -(-pixels // block)
    values = name_loops("pqrs", axes, "xy") | {
        "c": problem.channels, "xc": x[1], "yc": y[1], "block": block, "blocks": blocks,
        "worker_bytes": _worker_bytes(problem),
    }  # fmt: skip
    storage, lanes = storage_code(problem.dtype), device.lanes(problem.compute_itemsize)
    key = (int(problem.op == "log_softmax"), int(steps == (item, item)), lanes, storage)
    kernel = compile_kernel(_make_kernel(*key), "softmax_across", *key)
    return ArrayPlan(
        record=array_record(FIELDS, values),
        stages=(ArrayStage(kernel, blocks * math.prod(size for size, _ in axes[:-1])),),
        workers=worth_helpers(problem.flops, device.threads),
        workspace_bytes=workspace(problem, device),
        flush=binding.flush,
    )
