"""Pools over all sites of each grid of the batch: two steps, each in a fixed order, no atomics.

    partial   grid: chunks of rows, channels / 32, batch
      block = 4 threads along rows x 32 channels
        for row of the chunk, every fourth:  if it is of this grid:  take x[row, channel]
        through shared memory: the four threads, one after another
    finish    a thread an output: the chunks, one after another; 0 for a grid without sites

Rows may come in any order of the batch: a block reads all numbers of its chunk, 4 bytes a row, and
the features of its own grid's rows only. Chunks are cut by the number of rows, not by the device,
so results are the same bits on all devices.

Budget: 1 KiB of shared memory (1.5 in float64), under 32 registers; the parts are 1/256 of the
features or less for each grid of the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda, int32, uint32
from numba.cuda import types

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import CudaInfo, SparseBinding

from ..common.launch import Kernel, empty, flat, launch
from ..common.plan import ELEMENT_THREADS, blocks_of
from ..common.vector import access, compute_type, storage_type
from .pool import PoolPlan, constants
from .row_costs import GLOBAL_LANES, global_chunks

__all__ = ["global_kernels", "plan_avg", "plan_max"]

_LANES = GLOBAL_LANES
_ROW_THREADS = 4
_THREADS = _LANES * _ROW_THREADS


@functools.cache
def _combine(largest: bool) -> Any:
    """Return the device function that puts two values together."""

    @cuda.jit(device=True)
    def larger(before: Any, value: Any) -> Any:
        # A NaN is not below anything, and nothing replaces it.
        return value if before == before and not value <= before else before

    @cuda.jit(device=True)
    def total(before: Any, value: Any) -> Any:
        return before + value

    return larger if largest else total


@functools.cache
def _partial_function(storage: str, largest: bool) -> Callable[..., None]:
    load1, combine, real = access(storage).load1, _combine(largest), compute_type(storage)
    start = constants(storage)[int(largest)]

    def global_partial(
        x: Any, batches: Any, partial: Any, counts: Any, rows: Any, channels: Any, chunk: Any
    ) -> None:
        values = cuda.shared.array(_THREADS, real)
        numbers = cuda.shared.array(_THREADS, types.int32)
        tid = uint32(cuda.threadIdx.x)
        lane, row_thread = uint32(tid % uint32(_LANES)), uint32(tid // uint32(_LANES))
        channel = uint32(uint32(cuda.blockIdx.y) * uint32(_LANES) + lane)
        grid = int32(cuda.blockIdx.z)
        first = uint32(uint32(cuda.blockIdx.x) * chunk)
        last = min(uint32(first + chunk), rows)
        value, count = start, int32(0)
        for row in range(uint32(first + row_thread), last, uint32(_ROW_THREADS)):
            if batches[uint32(row)] == grid:
                count = int32(count + int32(1))
                if channel < channels:
                    value = combine(value, load1(x, uint32(uint32(row) * channels + channel)))
        values[tid], numbers[tid] = value, count
        cuda.syncthreads()
        if row_thread == uint32(0):
            for other in range(uint32(1), uint32(_ROW_THREADS)):
                place = uint32(uint32(other) * uint32(_LANES) + lane)
                value = combine(value, values[place])
                count = int32(count + numbers[place])
            part = uint32(uint32(cuda.blockIdx.x) * uint32(cuda.gridDim.z) + uint32(grid))
            if channel < channels:
                partial[uint32(part * channels + channel)] = value
            if channel == uint32(0):
                counts[part] = count

    return global_partial


@functools.cache
def _finish_function(storage: str, largest: bool) -> Callable[..., None]:
    store1, combine, real = access(storage).store1, _combine(largest), compute_type(storage)
    zero, start = constants(storage)[0], constants(storage)[int(largest)]

    def global_finish(
        partial: Any, counts: Any, out: Any, grids: Any, channels: Any, chunks: Any
    ) -> None:
        at = uint32(cuda.grid(1))
        grid, channel = uint32(at // channels), uint32(at % channels)
        if grid < grids:
            value, count = start, int32(0)
            for chunk in range(chunks):
                part = uint32(uint32(chunk) * grids + grid)
                value = combine(value, partial[uint32(part * channels + channel)])
                count = int32(count + counts[part])
            if count == int32(0):
                value = zero
            elif not largest:
                value = value / real(count)
            store1(out, at, value)

    return global_finish


@functools.cache
def global_kernels(storage: str, largest: bool) -> tuple[Kernel, Kernel]:
    """Return the kernels of both steps."""
    stored, summed = storage_type(storage)[::1], compute_type(storage)[::1]
    table, word = types.int32[::1], types.uint32
    name = f"{'max' if largest else 'avg'} {storage}"
    size = 8 if storage == "float64" else 4
    return (
        Kernel(
            f"sparse_global_partial {name}",
            _partial_function(storage, largest),
            (stored, table, summed, table, word, word, word),
            _THREADS,
            8,
            _THREADS * (size + 4),
        ),
        Kernel(
            f"sparse_global_finish {name}",
            _finish_function(storage, largest),
            (summed, table, stored, word, word, word),
            ELEMENT_THREADS,
            4,
        ),
    )


def _pool(
    largest: bool, problem: SparseProblem, rulebook: None, x: Any, batches: Any, out: Any
) -> None:
    (rows, channels), grids = x.shape, out.shape[0]
    if grids * channels == 0:
        return
    chunk, chunks = global_chunks(rows)
    summed = np.dtype("float64" if problem.dtype == "float64" else "float32")
    partial = flat(empty(x, max(1, chunks * grids * channels), summed))
    counts = flat(empty(x, max(1, chunks * grids), "int32"))
    first, second = global_kernels(problem.dtype, largest)
    if rows:
        arrays = (flat(x), flat(batches), partial, counts)
        blocks = (chunks, blocks_of(channels, _LANES), grids)
        launch(first, blocks, x, (*arrays, *map(uint32, (rows, channels, chunk))))
    across = blocks_of(grids * channels, ELEMENT_THREADS)
    numbers = map(uint32, (grids, channels, chunks))
    launch(second, (across, 1, 1), out, (partial, counts, flat(out), *numbers))


def plan_max(problem: SparseProblem, binding: SparseBinding, device: CudaInfo) -> PoolPlan:
    """Return the plan of "sparse_global_max_pool"."""
    return PoolPlan(problem, functools.partial(_pool, True))


def plan_avg(problem: SparseProblem, binding: SparseBinding, device: CudaInfo) -> PoolPlan:
    """Return the plan of "sparse_global_avg_pool"."""
    return PoolPlan(problem, functools.partial(_pool, False))
