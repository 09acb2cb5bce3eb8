"""The CPU's sparse kernels: what each can run, what it costs, where its code is.

This table imports no compiler, as that of dense kernels (specs.py) does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import DeviceInfo, KernelSpec

from ...tolerance import TOLERANCE
from ..common.specs import ask_workspace
from . import gemm_costs

__all__ = ["SPECS"]


def _no_reasons(problem: SparseProblem, device: DeviceInfo) -> list[str]:
    return []


#: Cycles that a vector of a pair takes with its row in L2, and bytes a second of one core from
#: memory and of all: 64 channels depthwise take 6.0 ms on one thread and 3.3 on two for 88 MB.
_PAIR_CYCLES = 2.5
_CORE_BANDWIDTH, _BANDWIDTH = 14e9, 25e9
_HERTZ = 3.5e9


def _row_seconds(problem: SparseProblem, device: DeviceInfo, pairs: int, rows: float) -> float:
    """Return the time of a walk over pairs that moves `rows` rows in all.

    Rows that are written are read before, so they count twice.
    """
    vectors = -(-problem.in_channels // device.lanes(problem.compute_itemsize))
    cycles = pairs * (vectors * _PAIR_CYCLES + 4) / device.threads
    moved = rows * problem.in_channels * problem.itemsize + 8 * pairs
    memory = moved / min(_BANDWIDTH, _CORE_BANDWIDTH * device.threads)
    # What fits in the caches of the cores is there already.
    if moved < device.l2 * device.threads:
        memory = 0.0
    return max(cycles / _HERTZ, memory) + 2e-6


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
    lines = -(-problem.in_channels * problem.itemsize // 64)
    busy = replace(device, threads=min(device.threads, lines))
    return _row_seconds(problem, busy, problem.in_rows, problem.in_rows)


def _weight_grad_cost(problem: SparseProblem, device: DeviceInfo) -> float:
    """Predict the search for pairs, the copies of their rows, products, and the weight's order."""
    lanes = device.lanes(problem.compute_itemsize)
    per_pair: float
    if problem.is_depthwise:
        # Every offset asks for both rows of its pairs again, from L2 or L3.
        per_pair = 10 + 10 * -(-problem.in_channels // lanes)
    else:
        per_pair = 10 + 4 * (problem.in_channels + problem.out_channels) / lanes
    elements = problem.volume * problem.in_channels * problem.out_channels / problem.groups
    cycles = problem.pairs * per_pair + 3 * problem.volume * problem.out_rows + 2 * elements
    seconds = cycles / _HERTZ / device.threads + 4e-6
    if problem.is_depthwise:
        return seconds
    return seconds + problem.flops / (0.85 * device.flops(problem.compute_itemsize))


def _spec(
    op: str,
    target: str,
    cost: Callable[[SparseProblem, DeviceInfo], float],
    name: str = "",
    reasons: Callable[[SparseProblem, DeviceInfo], list[str]] = _no_reasons,
) -> KernelSpec:
    """Return the spec of a kernel that is named after its operator, where no name is given."""
    return KernelSpec(
        name=f"cpu.{name or op}",
        op=op,
        device="cpu",
        reasons=reasons,
        cost=cost,
        target=f"fastconv.kernels.cpu.{target}",
        workspace=ask_workspace(target.partition(":")[0]),
        tolerance=TOLERANCE,
    )


# A sum of sparse_gemm is a chain of at most 64 products, then one addition an offset.
SPECS = (
    _spec(
        "sparse_conv", "sparse.gemm:plan", gemm_costs.cost, name="sparse_gemm"
    ),
    _spec(
        "sparse_conv", "sparse.depthwise:plan", _row_cost,
        name="sparse_depthwise", reasons=_depthwise_reasons,
    ),
    _spec("sparse_weight_grad", "sparse.weight_grad:plan", _weight_grad_cost),
    _spec("sparse_max_pool", "sparse.pool:plan_max", _row_cost),
    _spec("sparse_max_pool_grad", "sparse.pool:plan_max_grad", _max_grad_cost),
    _spec("sparse_avg_pool", "sparse.pool:plan_avg", _row_cost),
    _spec("sparse_avg_pool_grad", "sparse.pool:plan_avg_grad", _row_cost),
    _spec("sparse_global_max_pool", "sparse.global_pool:plan_max", _global_cost),
    _spec("sparse_global_avg_pool", "sparse.global_pool:plan_avg", _global_cost),
)  # fmt: skip
