"""Sparse pools and their gradients: every channel by itself, channels in the lanes.

The walk over the pairs of a row is that of row_walk.py. A gradient is computed by *input* row,
over the reversed lists, so nothing is scattered and no two tasks write to one place::

    max pool        out[o]    = largest x[i]                    pairs of o
    average         out[o]    = sum x[i] / pairs of o           pairs of o
    its gradient    grad_x[i] = sum grad_out[o] / pairs of o    reversed pairs of i
    max gradient    winner[o] = first offset with x[i] == out[o]        pairs of o
                    grad_x[i] = sum grad_out[o] where winner[o] == k    reversed pairs of i

Bound by memory: a pair reads a row of its operand, 4 bytes a channel, and 8 bytes of the list; the
gradient of a maximum reads two rows. Its winners are numbers in compute precision, one for each
output, in the workspace: looking for earlier offsets again in each pair would read half the rows of
an output for each of them, 13 at 3 x 3 x 3 of full occupancy.
"""

from __future__ import annotations

import functools
from typing import Any

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import DeviceInfo, SparseBinding

from ..runtime.plan import compile_kernel, worth_helpers
from ..simd.ir import compute_code, storage_code
from .row_plan import RowPlan, RowStage, reversed_lists, row_blocks, row_lists
from .row_walk import CHOSEN, FIELDS, FIRST, LARGEST, MEAN, SHARES, make_row, view

__all__ = ["plan_avg", "plan_avg_grad", "plan_max", "plan_max_grad", "workspace"]


@functools.cache
def _make_pool(rule: int, lanes: int, storage: int) -> Any:
    """Return the task of a pool, or of the gradient of an average."""
    compute_row = make_row(rule, lanes, storage, storage)

    def task(
        geometry: int, x: int, weight: int, bias: int, unused: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        for row in range(number * g.block, min(g.rows, (number + 1) * g.block)):
            compute_row(g, x, g.starts, 0, out + row * g.out_pitch, row)

    return task


@functools.cache
def _make_winners(lanes: int, storage: int) -> Any:
    """Return the task that finds which offset gave each maximum."""
    compute_row = make_row(FIRST, lanes, storage, compute_code(storage))

    def task(
        geometry: int, x: int, largest: int, grad_out: int, unused: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        for row in range(number * g.block, min(g.rows, (number + 1) * g.block)):
            compute_row(g, x, largest, 0, workspace + row * g.out_pitch, row)

    return task


@functools.cache
def _make_chosen(lanes: int, storage: int) -> Any:
    """Return the task that adds up the gradients of the outputs which an input row has won."""
    compute_row = make_row(CHOSEN, lanes, storage, storage)

    def task(
        geometry: int, x: int, largest: int, grad_out: int, unused: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        for row in range(number * g.block, min(g.rows, (number + 1) * g.block)):
            compute_row(g, grad_out, workspace, 0, out + row * g.out_pitch, row)

    return task


def workspace(problem: SparseProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: the winners of a maximum's gradient."""
    if problem.op != "sparse_max_pool_grad":
        return 0
    return problem.out_rows * problem.in_channels * problem.compute_itemsize


def _values(problem: SparseProblem, rows: int, block: int) -> dict[str, int]:
    """Return the fields of a stage that reads and writes stored elements."""
    pitch = problem.in_channels * problem.itemsize
    return {
        "rows": rows,
        "block": block,
        "pairs": problem.pairs,
        "channels": problem.in_channels,
        "x_pitch": pitch,
        "out_pitch": pitch,
    }


def _averaged_lists(rulebook: Any) -> dict[str, Any]:
    """Return the reversed lists, and the starts of the lists that they reverse."""
    return {**reversed_lists(rulebook), "starts": row_lists(rulebook)["row_start"]}


def _plan(
    problem: SparseProblem, binding: SparseBinding, device: DeviceInfo, *stages: RowStage
) -> RowPlan:
    return RowPlan(
        fields=FIELDS,
        stages=stages,
        workers=worth_helpers(problem.pairs * problem.in_channels, device.threads),
        workspace_bytes=workspace(problem, device),
        flush=binding.flush,
    )


def _pool_stage(
    problem: SparseProblem, device: DeviceInfo, rule: int, rows: int, lists: Any
) -> RowStage:
    storage, lanes = storage_code(problem.dtype), device.lanes(problem.compute_itemsize)
    block, tasks = row_blocks(rows, device)
    kernel = compile_kernel(_make_pool(rule, lanes, storage), "sparse_pool", rule, lanes, storage)
    return RowStage(kernel, tasks, _values(problem, rows, block), lists)


def plan_max(problem: SparseProblem, binding: SparseBinding, device: DeviceInfo) -> RowPlan:
    """Prepare the maximum for one problem."""
    stage = _pool_stage(problem, device, LARGEST, problem.out_rows, row_lists)
    return _plan(problem, binding, device, stage)


def plan_avg(problem: SparseProblem, binding: SparseBinding, device: DeviceInfo) -> RowPlan:
    """Prepare the average for one problem."""
    stage = _pool_stage(problem, device, MEAN, problem.out_rows, row_lists)
    return _plan(problem, binding, device, stage)


def plan_avg_grad(problem: SparseProblem, binding: SparseBinding, device: DeviceInfo) -> RowPlan:
    """Prepare the gradient of an average for one problem."""
    stage = _pool_stage(problem, device, SHARES, problem.in_rows, _averaged_lists)
    return _plan(problem, binding, device, stage)


def plan_max_grad(problem: SparseProblem, binding: SparseBinding, device: DeviceInfo) -> RowPlan:
    """Prepare the gradient of a maximum for one problem."""
    storage, size = storage_code(problem.dtype), problem.compute_itemsize
    lanes, winners = device.lanes(size), problem.in_channels * size
    block, tasks = row_blocks(problem.out_rows, device)
    values = _values(problem, problem.out_rows, block)
    values |= {"own_pitch": values["x_pitch"], "other_size": problem.itemsize, "out_pitch": winners}
    find = compile_kernel(_make_winners(lanes, storage), "sparse_winners", lanes, storage)
    first = RowStage(find, tasks, values, row_lists)
    block, tasks = row_blocks(problem.in_rows, device)
    values = _values(problem, problem.in_rows, block)
    values |= {"other_pitch": winners, "other_size": size}
    choose = compile_kernel(_make_chosen(lanes, storage), "sparse_chosen", lanes, storage)
    second = RowStage(choose, tasks, values, reversed_lists)
    return _plan(problem, binding, device, first, second)
