"""Softmax with the axis of the sum across the lanes: pixels next to each other are in the lanes.

Wins where pixels are contiguous, or channels are few. Each block of pixels is copied into the
worker's scratch memory, where its channels lie one behind the other, and stays there, in L1 or L2,
until its results are stored::

    task = block of pixels of an image
      copy: scratch[channel][pixel] = x              runs of pixels, or squares transposed
      for channel, for vector: largest = max(largest, scratch)
      for channel, for vector: e = exp(scratch - largest); totals += e
      for channel, for vector: scratch = e / total          or x - largest - log(total)
      copy back

So memory is read once and written once, in runs, also where planes lie a power of two apart and
would fall into the same sets of a cache. Two orders are its case: channels first, and channels last
with few channels, which would not fill the lanes of along.py: squares of as many pixels as lanes
are transposed in registers. Elements of other orders are gathered. Arithmetic and rounding are
those of along.py.
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
from ..machine.lines import LINE, whole_lines
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.arithmetic import divide, larger, mul, sub, to_compute, to_double
from ..simd.exponentials import exp_negative, log_positive
from ..simd.intrinsics import add, load, splat, store
from ..simd.ir import F64, ITEMSIZE, compute_code, storage_code
from ..simd.transposes import transpose_masked
from .costs import across_block

__all__ = ["plan", "workspace"]

#: How a block is read and stored: by runs of pixels, by gathering, by transposing channels.
RUNS, GATHERED, TRANSPOSED = range(3)

FIELDS = (
    *"p q r s xp xq xr xs yp yq yr ys".split(),  # axes of the pixels, the last one in the lanes
    "block",  # pixels of a task
    "blocks",  # along the last axis
    "pitch",  # bytes between channels of the scratch memory
    "worker_bytes",
)
view = as_record(FIELDS)


@functools.cache
def _make_copies(order: int, lanes: int, storage: int) -> tuple[Any, Any]:
    """Return functions that bring a block into the scratch memory and back."""
    compute = compute_code(storage)
    as_compute = np.float64 if compute == F64 else np.float32
    size, item = ITEMSIZE[compute], ITEMSIZE[storage]
    read, write, read_end, write_end = make_run_access(int(order == RUNS), lanes, storage)

    @numba.njit
    def copy_in(g: Any, x: int, pixels: int, to: int) -> None:
        if order == TRANSPOSED:
            for i in range(0, pixels, lanes):
                for c in range(0, g.c, lanes):
                    transpose_masked(
                        x + i * g.xs + c * item, g.xs, min(lanes, pixels - i),
                        min(lanes, g.c - c), to + c * g.pitch + i * size, g.pitch, storage,
                        compute, lanes,
                    )  # fmt: skip
            return
        for c in range(g.c):
            source, target = x + c * g.xc, to + c * g.pitch
            i = 0
            while i + lanes <= pixels:
                store(target + i * size, read(source + i * g.xs, g.xs), compute)
                i += lanes
            if i < pixels:
                value = read_end(source + i * g.xs, g.xs, pixels - i, as_compute(0.0))
                store(target + i * size, value, compute)

    @numba.njit
    def copy_out(g: Any, source: int, pixels: int, out: int) -> None:
        if order == TRANSPOSED:
            for i in range(0, pixels, lanes):
                for c in range(0, g.c, lanes):
                    transpose_masked(
                        source + c * g.pitch + i * size, g.pitch, min(lanes, g.c - c),
                        min(lanes, pixels - i), out + i * g.ys + c * item, g.ys, compute, storage,
                        lanes,
                    )  # fmt: skip
            return
        for c in range(g.c):
            row, target = source + c * g.pitch, out + c * g.yc
            i = 0
            while i + lanes <= pixels:
                write(target + i * g.ys, g.ys, load(row + i * size, compute, lanes))
                i += lanes
            if i < pixels:
                value = load(row + i * size, compute, lanes)
                write_end(target + i * g.ys, g.ys, pixels - i, value)

    return copy_in, copy_out


@functools.cache
def _make_sums(log: int, lanes: int, compute: int) -> tuple[Any, Any]:
    """Return functions for a block's largest values and its sums of exponentials."""
    as_compute, size = np.float64 if compute == F64 else np.float32, ITEMSIZE[compute]

    @numba.njit
    def find_largest(g: Any, memory: int, i: int) -> Any:
        at = memory + i * size
        top, other = load(at, compute, lanes), splat(as_compute(-np.inf), lanes)
        c = 1
        while c + 2 <= g.c:
            top = larger(top, load(at + c * g.pitch, compute, lanes))
            other = larger(other, load(at + (c + 1) * g.pitch, compute, lanes))
            c += 2
        if c < g.c:
            top = larger(top, load(at + c * g.pitch, compute, lanes))
        return larger(other, top)

    @numba.njit
    def add_up(g: Any, memory: int, i: int, top: Any) -> Any:
        total, at = splat(0.0, lanes), memory + i * size
        for c in range(g.c):
            e = exp_negative(sub(load(at + c * g.pitch, compute, lanes), top))
            if not log:
                store(at + c * g.pitch, e, compute)
            total = add(total, to_double(e))
        return total

    return find_largest, add_up


@functools.cache
def _make_kernel(log: int, order: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    compute = compute_code(storage)
    size = ITEMSIZE[compute]
    find_largest, add_up = _make_sums(log, lanes, compute)
    copy_in, copy_out = _make_copies(order, lanes, storage)

    @numba.njit
    def scale(g: Any, memory: int, i: int, top: Any, total: Any) -> None:
        at = memory + i * size
        word = log_positive(total) if log else divide(splat(1.0, lanes), total)
        factor = to_compute(word, compute)
        for c in range(g.c):
            value = load(at + c * g.pitch, compute, lanes)
            value = sub(sub(value, top), factor) if log else mul(value, factor)
            store(at + c * g.pitch, value, compute)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        first, rest = number % g.blocks * g.block, number // g.blocks
        r, rest = rest % g.r, rest // g.r
        q, p = rest % g.q, rest // g.q
        pixels = min(g.block, g.s - first)
        memory = workspace + worker * g.worker_bytes
        copy_in(g, x + p * g.xp + q * g.xq + r * g.xr + first * g.xs, pixels, memory)
        for i in range(0, pixels, lanes):
            top = find_largest(g, memory, i)
            scale(g, memory, i, top, add_up(g, memory, i, top))
        target = out + p * g.yp + q * g.yq + r * g.yr + first * g.ys
        copy_out(g, memory, pixels, target)

    return task


def _pitch(problem: SoftmaxProblem, device: DeviceInfo) -> int:
    """Return the bytes between channels of the scratch memory, no power of two."""
    return whole_lines(across_block(problem, device) * problem.compute_itemsize) + LINE


def _worker_bytes(problem: SoftmaxProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a thread; a square that is transposed has whole vectors."""
    lanes = device.lanes(problem.compute_itemsize)
    return -(-problem.channels // lanes) * lanes * _pitch(problem, device)


def workspace(problem: SoftmaxProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: a block for each thread."""
    return _worker_bytes(problem, device) * worth_helpers(problem.flops, device.threads)


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
    block = across_block(problem, device)
    blocks = -(-pixels // block)
    values = name_loops("pqrs", axes, "xy") | {
        "c": problem.channels, "xc": x[1], "yc": y[1], "block": block, "blocks": blocks,
        "pitch": _pitch(problem, device), "worker_bytes": _worker_bytes(problem, device),
    }  # fmt: skip
    order = GATHERED
    if steps == (item, item):
        order = RUNS
    elif x[1] == item and y[1] == item:
        order = TRANSPOSED
    storage, lanes = storage_code(problem.dtype), device.lanes(problem.compute_itemsize)
    key = (int(problem.op == "log_softmax"), order, lanes, storage)
    kernel = compile_kernel(_make_kernel(*key), "softmax_across", *key)
    return ArrayPlan(
        record=array_record(FIELDS, values),
        stages=(ArrayStage(kernel, blocks * math.prod(size for size, _ in axes[:-1])),),
        workers=worth_helpers(problem.flops, device.threads),
        workspace_bytes=workspace(problem, device),
        flush=binding.flush,
    )
