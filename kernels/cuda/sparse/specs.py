"""The CUDA kernels of sparse operators: what each can run, what it costs, where its code is.

Like `specs`, this table imports no compiler.
"""

from __future__ import annotations

from collections.abc import Callable

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import CudaInfo, KernelSpec

from ...tolerance import TOLERANCE
from ..common import roofline
from ..common.params import MOST_BLOCKS, MOST_ELEMENTS
from ..common.roofline import LaunchCost
from . import gemm_costs, row_costs

__all__ = ["SPECS"]


def _index_reasons(problem: SparseProblem) -> list[str]:
    """Return what stands against kernels that count elements in 32 bits."""
    arrays = {
        "input": problem.in_rows * problem.in_channels,
        "output": problem.out_rows * problem.out_channels,
        "table of neighbours": problem.out_rows * problem.volume,
    }
    return [
        f"indexes in 32 bits; the {name} has {count} elements"
        for name, count in arrays.items()
        if count > MOST_ELEMENTS
    ]


def _gemm_reasons(problem: SparseProblem, device: CudaInfo) -> list[str]:
    reasons = _index_reasons(problem)
    if problem.groups > MOST_BLOCKS:
        reasons.append(
            f"runs a group in each layer of the grid, at most {MOST_BLOCKS}; "
            f"this has {problem.groups} groups"
        )
    packed = gemm_costs.packed_elements(problem, gemm_costs.choose_tile(problem, device))
    if packed > MOST_ELEMENTS:
        reasons.append(f"indexes in 32 bits; the packed weight has {packed} elements")
    return reasons


def _depthwise_reasons(problem: SparseProblem, device: CudaInfo) -> list[str]:
    reasons = _index_reasons(problem)
    if not problem.is_depthwise:
        reasons.append(
            f"wants one input and one output channel a group; this has {problem.in_channels} and "
            f"{problem.out_channels} in {problem.groups} groups"
        )
    return reasons


def _gemm_workspace(problem: SparseProblem, device: CudaInfo) -> int:
    return gemm_costs.lists_bytes(problem, gemm_costs.choose_tile(problem, device))


def _table_reasons(problem: SparseProblem, device: CudaInfo) -> list[str]:
    """Return what stands against kernels that read the reversed table too."""
    reasons = _index_reasons(problem)
    if (count := problem.in_rows * problem.volume) > MOST_ELEMENTS:
        reasons.append(f"indexes in 32 bits; the reversed table has {count} elements")
    if problem.volume > MOST_BLOCKS:
        reasons.append(
            f"runs an offset in each row of the grid, at most {MOST_BLOCKS}; "
            f"this has {problem.volume} offsets"
        )
    return reasons


def _global_reasons(problem: SparseProblem, device: CudaInfo) -> list[str]:
    reasons = _index_reasons(problem)
    if problem.out_rows > MOST_BLOCKS:
        reasons.append(
            f"runs an entry of the batch in each layer of the grid, at most {MOST_BLOCKS}; "
            f"this has {problem.out_rows}"
        )
    return reasons


def _grad_reasons(problem: SparseProblem, device: CudaInfo) -> list[str]:
    reasons = _table_reasons(problem, device)
    parts = row_costs.grad_workspace(problem, device) // problem.compute_itemsize
    if parts > MOST_ELEMENTS:
        reasons.append(f"indexes in 32 bits; the parts of the gradient have {parts} elements")
    if problem.is_depthwise and problem.groups > 1:
        reasons.append("leaves depthwise problems to cuda.sparse_depthwise_weight_grad")
    return reasons


def _depthwise_grad_reasons(problem: SparseProblem, device: CudaInfo) -> list[str]:
    return _table_reasons(problem, device) + _depthwise_reasons(problem, device)


def _spec(
    op: str,
    target: str,
    launches: Callable[[SparseProblem, CudaInfo], tuple[LaunchCost, ...]],
    reasons: Callable[[SparseProblem, CudaInfo], list[str]] = _table_reasons,
    workspace: Callable[[SparseProblem, CudaInfo], int] = lambda problem, device: 0,
    name: str = "",
) -> KernelSpec:
    """Return the spec of a kernel that is named after its operator, where no name is given."""
    return KernelSpec(
        name=f"cuda.{name or op}",
        op=op,
        device="cuda",
        reasons=reasons,
        cost=lambda problem, device: roofline.seconds(launches(problem, device), device),
        target=f"fastconv.kernels.cuda.sparse.{target}",
        workspace=workspace,
        tolerance=TOLERANCE,
        pack_cost=roofline.copy_seconds,
    )


def _pool_launches(operands: int) -> Callable[[SparseProblem, CudaInfo], tuple[LaunchCost, ...]]:
    return lambda problem, device: row_costs.pool_launches(problem, operands)


SPECS = (
    _spec("sparse_max_pool", "pool:plan_max", _pool_launches(1)),
    _spec("sparse_max_pool_grad", "pool:plan_max_grad", _pool_launches(3)),
    _spec("sparse_avg_pool", "pool:plan_avg", _pool_launches(1)),
    _spec("sparse_avg_pool_grad", "pool:plan_avg_grad", _pool_launches(1)),
    *(
        _spec(
            f"sparse_global_{kind}_pool", f"global_pool:plan_{kind}",
            row_costs.global_launches, _global_reasons, row_costs.global_workspace,
        )
        for kind in ("max", "avg")
    ),
    _spec(
        "sparse_weight_grad", "weight_grad:plan", row_costs.grad_launches, _grad_reasons,
        row_costs.grad_workspace,
    ),
    _spec(
        "sparse_weight_grad", "depthwise_grad:plan", row_costs.depthwise_launches,
        _depthwise_grad_reasons, row_costs.depthwise_workspace, "sparse_depthwise_weight_grad",
    ),
    _spec(
        "sparse_conv", "gemm:plan", gemm_costs.gemm_launches, _gemm_reasons,
        _gemm_workspace, "sparse_gemm",
    ),
    _spec(
        "sparse_conv", "depthwise:plan", gemm_costs.depthwise_launches,
        _depthwise_reasons, name="sparse_depthwise",
    ),
)  # fmt: skip
