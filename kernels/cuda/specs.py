"""The CUDA kernels: what each can run, what it is thought to cost, where its code is.

This table imports no compiler, so that explaining and choosing are cheap, and need no CUDA package.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import CudaInfo, KernelSpec

from ..sums import sum_reasons
from ..tolerance import TOLERANCE
from .common import roofline
from .common.params import MOST_BLOCKS, MOST_ELEMENTS, index_reasons
from .common.roofline import LaunchCost
from .gemm import blocking, dilated_costs
from .winograd import costs as winograd_costs

__all__ = ["LAUNCHES", "SPECS"]

#: Output channels of a group beyond which `direct` reads each sample too often.
_MOST_OUTPUTS = 64


def _common_reasons(problem: ConvProblem) -> list[str]:
    """Return what stands against every kernel that finds samples by 32-bit offsets and bits."""
    reasons = index_reasons(problem)
    arrays = {"input": problem.x_shape, "output": problem.out_shape, "weight": problem.weight_shape}
    for name, shape in arrays.items():
        if (count := math.prod(shape)) > MOST_ELEMENTS:
            reasons.append(f"indexes in 32 bits; the {name} has {count} elements")
    if blocking.mask_words(problem) is None:
        taps = sum(problem.kernel_size)
        reasons.append(f"has bits for 220 taps over all axes; the kernel's sizes add up to {taps}")
    return reasons


def _grid_reasons(problem: ConvProblem) -> list[str]:
    if problem.groups <= MOST_BLOCKS:
        return []
    return [
        f"runs a group in each layer of the grid, at most {MOST_BLOCKS}; "
        f"this has {problem.groups} groups"
    ]


def _panel_reasons(problem: ConvProblem, split: blocking.Split) -> list[str]:
    """Return what stands against panels of a tile, which may be far larger than the weight."""
    tile = split.tile
    sizes = {
        "packed weight": problem.groups * split.channel_blocks * tile.bm * split.panels * tile.bk,
        "workspace of all parts": split.splits * math.prod(problem.out_shape),
    }
    return [
        f"indexes in 32 bits; the {name} would hold {count} elements"
        for name, count in sizes.items()
        if count > MOST_ELEMENTS
    ]


def _implicit_gemm_reasons(problem: ConvProblem, device: CudaInfo) -> list[str]:
    reasons = _common_reasons(problem) + _grid_reasons(problem)
    parts = -(-math.prod(problem.weight_shape[1:]) // blocking.LONGEST_SUM)
    if not reasons and parts > 1 and 2 * parts * problem.groups > MOST_BLOCKS:
        reasons.append(f"splits long sums into layers of the grid, of which {parts} are too many")
    return reasons or _panel_reasons(problem, blocking.choose_split(problem, device))


def _implicit_gemm_workspace(problem: ConvProblem, device: CudaInfo) -> int:
    splits = blocking.choose_split(problem, device).splits
    size = 8 if problem.dtype == "float64" else 4
    return splits * math.prod(problem.out_shape) * size if splits > 1 else 0


def _direct_reasons(problem: ConvProblem, device: CudaInfo) -> list[str]:
    reasons = (
        _common_reasons(problem)
        + _grid_reasons(problem)
        + sum_reasons(problem, blocking.LONGEST_SUM)
    )
    channels = problem.out_channels // problem.groups
    if channels > _MOST_OUTPUTS:
        reasons.append(
            f"reads the samples again for every 16 output channels of a group; {channels} are "
            f"more than {_MOST_OUTPUTS}"
        )
    if problem.is_depthwise and problem.groups > 1:
        reasons.append("leaves depthwise problems to cuda.depthwise")
    return reasons


def _depthwise_reasons(problem: ConvProblem, device: CudaInfo) -> list[str]:
    reasons = _common_reasons(problem) + sum_reasons(problem, blocking.LONGEST_SUM)
    if not problem.is_depthwise:
        channels = problem.in_channels // problem.groups
        reasons.append(f"wants one input channel a group; this has {channels}")
    if problem.out_channels > MOST_BLOCKS:
        reasons.append(
            f"runs a channel in each row of the grid, at most {MOST_BLOCKS}; "
            f"this has {problem.out_channels} output channels"
        )
    return reasons


def _dilated_reasons(problem: ConvProblem, device: CudaInfo) -> list[str]:
    reasons = dilated_costs.reasons(problem) + _common_reasons(problem)
    reasons += _grid_reasons(problem) + sum_reasons(problem, blocking.LONGEST_SUM)
    if reasons:
        return reasons
    tile = dilated_costs.choose_tile(problem, device)
    return _panel_reasons(problem, dilated_costs.whole_split(problem, tile))


def _no_workspace(problem: ConvProblem, device: CudaInfo) -> int:
    return 0


#: The launches of a call of each kernel whose weight is packed, as counted.
LAUNCHES: dict[str, Callable[[ConvProblem, CudaInfo], tuple[LaunchCost, ...]]] = {
    "cuda.implicit_gemm": blocking.gemm_launches,
    "cuda.direct": blocking.direct_launches,
    "cuda.depthwise": blocking.depthwise_launches,
    "cuda.dilated": dilated_costs.launches,
    "cuda.winograd_f2": functools.partial(winograd_costs.launches, 2),
    "cuda.winograd_f4": functools.partial(winograd_costs.launches, 4),
}


def _cost_of(kernel: str) -> Callable[[ConvProblem, CudaInfo], float]:
    launches = LAUNCHES[kernel]
    return lambda problem, device: roofline.seconds(launches(problem, device), device)


def _winograd_spec(m: int) -> KernelSpec:
    return KernelSpec(
        name=f"cuda.winograd_f{m}",
        op="conv",
        device="cuda",
        reasons=lambda problem, device: winograd_costs.reasons(m, problem),
        cost=_cost_of(f"cuda.winograd_f{m}"),
        target=f"fastconv.kernels.cuda.winograd.plan:plan_f{m}",
        workspace=lambda problem, device: winograd_costs.workspace(m, problem, device),
        tolerance=winograd_costs.TOLERANCE,
        pack_cost=roofline.copy_seconds,
        exact=False,
    )


SPECS = (
    KernelSpec(
        name="cuda.implicit_gemm",
        op="conv",
        device="cuda",
        reasons=_implicit_gemm_reasons,
        cost=_cost_of("cuda.implicit_gemm"),
        target="fastconv.kernels.cuda.gemm.plan:plan",
        workspace=_implicit_gemm_workspace,
        tolerance=TOLERANCE,
        pack_cost=roofline.copy_seconds,
    ),
    KernelSpec(
        name="cuda.direct",
        op="conv",
        device="cuda",
        reasons=_direct_reasons,
        cost=_cost_of("cuda.direct"),
        target="fastconv.kernels.cuda.window.plan:plan_direct",
        workspace=_no_workspace,
        tolerance=TOLERANCE,
        pack_cost=roofline.copy_seconds,
    ),
    KernelSpec(
        name="cuda.depthwise",
        op="conv",
        device="cuda",
        reasons=_depthwise_reasons,
        cost=_cost_of("cuda.depthwise"),
        target="fastconv.kernels.cuda.window.plan:plan_depthwise",
        workspace=_no_workspace,
        tolerance=TOLERANCE,
        pack_cost=roofline.copy_seconds,
    ),
    KernelSpec(
        name="cuda.dilated",
        op="conv",
        device="cuda",
        reasons=_dilated_reasons,
        cost=_cost_of("cuda.dilated"),
        target="fastconv.kernels.cuda.gemm.dilated:plan",
        workspace=_no_workspace,
        tolerance=TOLERANCE,
        pack_cost=roofline.copy_seconds,
    ),
    *(_winograd_spec(m) for m in (2, 4)),
)
