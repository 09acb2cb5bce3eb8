"""The CPU's sparse kernels: what each can run, what it costs, where its code is.

This table imports no compiler, as that of dense kernels (specs.py) does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import DeviceInfo, KernelSpec

from ..common.specs import cpu_spec
from ..machine.lines import LINE
from ..machine.seconds import call_seconds, peak_flops, profile
from . import gemm_costs

__all__ = ["SPECS"]


def _no_reasons(problem: SparseProblem, device: DeviceInfo) -> list[str]:
    return []


def _row_seconds(problem: SparseProblem, device: DeviceInfo, pairs: int, rows: float) -> float:
    """Return the time of a walk over pairs that moves `rows` rows in all.

    Rows that are written are read before, so they count twice.
    """
    machine = profile(device)
    memory, costs = machine.memory, machine.sparse
    vectors = -(-problem.in_channels // device.lanes(problem.compute_itemsize))
    moved = rows * problem.in_channels * problem.itemsize + 8 * pairs
    resident = moved < device.l2 * device.threads  # what fits the cores' caches is there already
    return call_seconds(
        pairs * (vectors * costs.pair_vector + costs.pair) / device.threads,
        0 if resident else moved,
        clock=machine.core.sustained,
        bandwidth=min(memory.rows, memory.row_core * device.threads),
        start=machine.calls.start,
    )


def _depthwise_reasons(problem: SparseProblem, device: DeviceInfo) -> list[str]:
    if problem.is_depthwise:
        return []
    channels = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    return [f"wants one input and one output channel a group; this has {channels}"]


def _row_cost(problem: SparseProblem, device: DeviceInfo) -> float:
    """Predict a kernel that reads rows of one array and writes those of another."""
    written = problem.in_rows if problem.op.endswith("grad") else problem.out_rows
    rows = problem.in_rows + problem.out_rows + written
    return _row_seconds(problem, device, problem.pairs, rows)


def _max_grad_cost(problem: SparseProblem, device: DeviceInfo) -> float:
    """Predict two walks: winners, which are written and read, then gradients."""
    winners = problem.out_rows * problem.compute_itemsize / problem.itemsize
    first = _row_seconds(
        problem, device, problem.pairs, problem.in_rows + problem.out_rows + 2 * winners
    )
    second = _row_seconds(
        problem, device, problem.pairs, 2 * problem.in_rows + problem.out_rows + winners
    )
    return first + second


def _global_cost(problem: SparseProblem, device: DeviceInfo) -> float:
    # Tasks own lines of channels; the sums of a row are read and written in L1.
    lines = -(-problem.in_channels * problem.itemsize // LINE)
    busy = replace(device, threads=min(device.threads, lines))
    return _row_seconds(problem, busy, problem.in_rows, problem.in_rows)


def _weight_grad_cost(problem: SparseProblem, device: DeviceInfo) -> float:
    """Predict the search for pairs, the copies of their rows, products, and the weight's order."""
    size, machine = problem.compute_itemsize, profile(device)
    lanes, costs = device.lanes(size), machine.sparse.weight_grad
    if problem.is_depthwise:
        channels = costs.depthwise_vector * -(-problem.in_channels // lanes)
    else:
        channels = costs.vector * (problem.in_channels + problem.out_channels) / lanes
    elements = problem.volume * problem.in_channels * problem.out_channels / problem.groups
    cycles = problem.pairs * (costs.pair + channels)
    cycles += costs.row * problem.volume * problem.out_rows
    cycles += costs.element * elements
    seconds = cycles / machine.core.sustained / device.threads + machine.sparse.start
    if problem.is_depthwise:
        return seconds
    return seconds + problem.flops / (costs.share * peak_flops(device, size))


def _spec(
    op: str, module: str, cost: Callable[[SparseProblem, DeviceInfo], float], plan: str = "plan"
) -> KernelSpec:
    """Return the spec of the one kernel of an operator, which is named after it."""
    return cpu_spec(op, f"sparse.{module}", _no_reasons, cost, op=op, plan=plan)


# A sum of sparse_gemm is a chain of at most 64 products, then one addition an offset.
SPECS = (
    cpu_spec("sparse_gemm", "sparse.gemm", _no_reasons, gemm_costs.cost, op="sparse_conv"),
    cpu_spec(
        "sparse_depthwise", "sparse.depthwise", _depthwise_reasons, _row_cost, op="sparse_conv"
    ),
    _spec("sparse_weight_grad", "weight_grad", _weight_grad_cost),
    _spec("sparse_max_pool", "pool", _row_cost, "plan_max"),
    _spec("sparse_max_pool_grad", "pool", _max_grad_cost, "plan_max_grad"),
    _spec("sparse_avg_pool", "pool", _row_cost, "plan_avg"),
    _spec("sparse_avg_pool_grad", "pool", _row_cost, "plan_avg_grad"),
    _spec("sparse_global_max_pool", "global_pool", _global_cost, "plan_max"),
    _spec("sparse_global_avg_pool", "global_pool", _global_cost, "plan_avg"),
)  # fmt: skip
