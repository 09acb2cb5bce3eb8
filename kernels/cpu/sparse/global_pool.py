"""Pools over all sites of each grid of a batch: one output row a grid.

Rows of a batch may come in any order, so every row is added to its grid's sums, which stay in
cache; a task owns some channels of all rows, and every sum takes its rows in rising order whatever
the number of threads::

    task = some vectors of channels
      for row: sums[batches[row]] += x[row]        float64, whatever the element type
      divide by the number of rows, round, store

Sums in float64 cost nothing here (one row of 64 float32 channels is 256 bytes from memory and 8
vectors of sums from L1), and the mean of a million rows is as good as that of ten. A grid without a
site gets 0 from both pools.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import DeviceInfo, SparseBinding

from ..machine.lines import LINE, whole_lines
from ..rulebook.stage import get_int
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import add, get_word, load, range_mask, set_word, splat, store
from ..simd.ir import (
    DOUBLE,
    F64,
    FLOAT,
    I8,
    ITEMSIZE,
    VectorType,
    lane_mask,
    literal,
    load_vector,
    pointer,
    storage_code,
    store_vector,
)
from .row_plan import RowPlan, RowStage

__all__ = ["plan_avg", "plan_max", "workspace"]

FIELDS = (
    "rows",
    "batches",  # output rows
    "channels",
    "x_pitch",  # bytes between rows of input and output
    "chunk",  # channels of one task
    "counts_at",  # where a task's numbers of rows lie behind its sums
    "task_bytes",
)
view = as_record(FIELDS)


@intrinsic(prefer_literal=True)
def _load_double(typingctx: Any, address: Any, bits: Any, storage: Any, lanes: Any) -> Any:
    """Load the lanes whose bit is set and widen them to float64; the others are zero."""
    code, count = literal(storage), literal(lanes)
    if code is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = lane_mask(builder, args[1], count)
        value = load_vector(builder, pointer(builder, args[0], I8), count, code, mask)
        return value if code == F64 else builder.fpext(value, ir.VectorType(DOUBLE, count))

    kind = VectorType(types.float64, count)
    return kind(types.intp, types.intp, storage, lanes), codegen


@intrinsic(prefer_literal=True)
def _store_double(typingctx: Any, address: Any, vector: Any, bits: Any, storage: Any) -> Any:
    """Round float64 to stored elements; store the lanes whose bit is set."""
    code = literal(storage)
    if code is None or not isinstance(vector, VectorType):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask, value = lane_mask(builder, args[2], vector.lanes), args[1]
        if code != F64:
            value = builder.fptrunc(value, ir.VectorType(FLOAT, vector.lanes))
        store_vector(builder, pointer(builder, args[0], I8), value, code, mask)
        return context.get_dummy_value()

    return types.void(types.intp, vector, types.intp, storage), codegen


@intrinsic
def _divide(typingctx: Any, a: Any, b: Any) -> Any:
    """Return ``a / b``."""
    return a(a, a), lambda context, builder, signature, args: builder.fdiv(*args)


@intrinsic
def _larger(typingctx: Any, a: Any, b: Any) -> Any:
    """Return the larger; a NaN in either is kept."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first, second = args
        larger = builder.fcmp_ordered("<", first, second)
        is_nan = builder.fcmp_unordered("uno", second, second)
        return builder.select(builder.or_(larger, is_nan), second, first)

    return a(a, a), codegen


@functools.cache
def _make_kernel(largest: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    item, start = ITEMSIZE[storage], -math.inf if largest else 0.0

    @numba.njit
    def clear(g: Any, sums: int, counts: int) -> None:
        for batch in range(g.batches):
            set_word(counts, batch, 0)
            for c in range(0, g.chunk, lanes):
                store(sums + (batch * g.chunk + c) * 8, splat(np.float64(start), lanes), F64)

    @numba.njit
    def collect(g: Any, x: int, batches: int, sums: int, counts: int, channels: int) -> None:
        for row in range(g.rows):
            batch = get_int(batches, row)
            set_word(counts, batch, get_word(counts, batch) + 1)
            source, total = x + row * g.x_pitch, sums + batch * g.chunk * 8
            for c in range(0, channels, lanes):
                mask = range_mask(0, min(lanes, channels - c))
                value = _load_double(source + c * item, mask, storage, lanes)
                before = load(total + c * 8, F64, lanes)
                after = _larger(before, value) if largest else add(before, value)
                store(total + c * 8, after, F64)

    @numba.njit
    def store_grids(g: Any, sums: int, counts: int, out: int, channels: int) -> None:
        for batch in range(g.batches):
            count = get_word(counts, batch)
            for c in range(0, channels, lanes):
                mask = range_mask(0, min(lanes, channels - c))
                value = load(sums + (batch * g.chunk + c) * 8, F64, lanes)
                if count == 0:
                    value = splat(np.float64(0.0), lanes)
                elif not largest:
                    value = _divide(value, splat(np.float64(count), lanes))
                _store_double(out + batch * g.x_pitch + c * item, value, mask, storage)

    def task(
        geometry: int, x: int, batches: int, bias: int, unused: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        first = number * g.chunk
        channels = min(g.chunk, g.channels - first)
        sums = workspace + number * g.task_bytes
        counts = sums + g.counts_at
        clear(g, sums, counts)
        collect(g, x + first * item, batches, sums, counts, channels)
        store_grids(g, sums, counts, out + first * item, channels)

    return task


def _split(problem: SparseProblem, device: DeviceInfo) -> tuple[int, int]:
    """Return the channels of a task, and the number of tasks; no two own parts of a line."""
    line = LINE // problem.itemsize
    lines = -(-problem.in_channels // line)
    chunk = -(-lines // device.threads) * line
    return chunk, -(-problem.in_channels // chunk)


def _task_bytes(problem: SparseProblem, chunk: int) -> tuple[int, int]:
    """Return the bytes of a task's sums, and of these and its numbers of rows."""
    sums, counts = problem.out_rows * chunk * 8, problem.out_rows * 8
    return sums, sums + whole_lines(counts)


def workspace(problem: SparseProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call."""
    chunk, tasks = _split(problem, device)
    return tasks * _task_bytes(problem, chunk)[1]


def _plan(
    largest: int, problem: SparseProblem, binding: SparseBinding, device: DeviceInfo
) -> RowPlan:
    storage, lanes = storage_code(problem.dtype), device.lanes(8)
    chunk, tasks = _split(problem, device)
    counts_at, task_bytes = _task_bytes(problem, chunk)
    values = {
        "rows": problem.in_rows,
        "batches": problem.out_rows,
        "channels": problem.in_channels,
        "x_pitch": problem.in_channels * problem.itemsize,
        "chunk": chunk,
        "counts_at": counts_at,
        "task_bytes": task_bytes,
    }
    kernel = compile_kernel(
        _make_kernel(largest, lanes, storage), "sparse_global_pool", largest, lanes, storage
    )
    return RowPlan(
        fields=FIELDS,
        stages=(RowStage(kernel, tasks, values, lambda rulebook: {}),),
        workers=worth_helpers(problem.in_rows * problem.in_channels, device.threads),
        workspace_bytes=workspace(problem, device),
        flush=binding.flush,
    )


def plan_max(problem: SparseProblem, binding: SparseBinding, device: DeviceInfo) -> RowPlan:
    """Prepare the maximum for one problem."""
    return _plan(1, problem, binding, device)


def plan_avg(problem: SparseProblem, binding: SparseBinding, device: DeviceInfo) -> RowPlan:
    """Prepare the average for one problem."""
    return _plan(0, problem, binding, device)
