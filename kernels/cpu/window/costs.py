"""What kernels of windows can run, and what they cost: depthwise and direct convolution.

No compiler is imported here.
"""

from __future__ import annotations

import math

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo, dense_binding

from ...sums import sum_reasons
from ..common.specs import MOST_PLANES, cpu_spec, extent_reasons, plain_pack_cost
from ..gemm.split import LONGEST_SUM
from ..machine.seconds import copy_seconds, profile
from . import rows_copied_layout
from .row_costs import row_blocking
from .variants import Variant, depthwise_variant, row_variant

__all__ = ["SPECS"]

#: Most taps of a kernel row, whose places in a copy are listed, and positions of an output row.
_MOST_ROW_TAPS, _MOST_ROW = 1 << 20, 1 << 32


def _row_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return what stands against a window over rows of a size."""
    taps, row = problem.kernel_size[-1], problem.out_size[-1]
    if taps > _MOST_ROW_TAPS:
        return [f"lists the places of at most {_MOST_ROW_TAPS} taps of a row; this has {taps}"]
    if row > _MOST_ROW:
        return [f"cuts rows of at most {_MOST_ROW} outputs into strips; this has {row}"]
    return rows_copied_layout.copy_reasons(problem, device)


def _vector_seconds(cycles: float, device: DeviceInfo) -> float:
    """Return the time of multiply-adds of full vectors, counted as one a cycle."""
    vectors = profile(device).core.multiply_adds * (1.0 if device.fma else 0.5)
    return cycles / (profile(device).core.sustained * vectors) / device.threads


def _seconds(problem: ConvProblem, device: DeviceInfo, variant: Variant) -> float:
    """Count the cycles of the cut, and bytes where operands do not fit the cores' L2."""
    size, machine = problem.itemsize, profile(device)
    costs, cycles = machine.window, variant.cycles
    channels = problem.in_channels // problem.groups
    outputs_at_once = row_blocking(problem, device, problem.compute_itemsize).block
    again = 1 - outputs_at_once * problem.groups / problem.out_channels
    if channels > costs.few_planes:  # what is read again comes from L2, or from beyond
        cycles *= 1 + again * min(1.0, channels * math.prod(problem.in_size) * size / device.l2)
    inputs, outputs = math.prod(problem.x_shape), math.prod(problem.out_shape)
    if size < 4 and variant.name == "rows_in_place":
        lanes = device.lanes(problem.compute_itemsize)
        cycles += costs.rounded * outputs / lanes / max(problem.batch, 1)
    elif size < 4 or (problem.layout != "channels_first" and not variant.keeps_channels_last):
        # Elements are gathered into a copy and scattered from one, one by one or converted.
        moved = costs.gathered * inputs + costs.scattered * outputs
        cycles += moved / max(problem.batch, 1) / (1 if size > 2 else costs.halves)
    traffic = size * (inputs + 2 * outputs)  # the output is also read before it is written
    if traffic > device.l3 // 2:
        memory = traffic / machine.memory.window_memory
    elif traffic > device.l2 * device.threads:
        memory = traffic / machine.memory.window_l3
    else:
        memory = 0.0
    seconds = max(_vector_seconds(cycles * problem.batch, device), memory)
    # With a kernel's depth there is more arithmetic for each place in an output, and no loss.
    many = problem.out_channels // problem.groups > costs.few_outputs and problem.ndim < 3
    seconds *= costs.reread if many else 1.0
    return seconds + costs.start + min(costs.late_start, seconds)


def _depthwise_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    return _seconds(problem, device, depthwise_variant(problem, dense_binding(problem), device))


def _depthwise_pack_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    """Count the copy of a weight that is brought into lanes with the channels."""
    variant = depthwise_variant(problem, dense_binding(problem), device)
    if variant.name in ("rows_in_place", "rows_copied"):
        return plain_pack_cost(problem, device)
    return copy_seconds(problem, device)


def _direct_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    return _seconds(problem, device, row_variant(problem, dense_binding(problem), device))


def _depthwise_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    reasons = extent_reasons(problem) + sum_reasons(problem, LONGEST_SUM)
    if not problem.is_depthwise:
        channels = problem.in_channels // problem.groups
        reasons.append(f"wants one input channel a group; this has {channels}")
    return reasons or _row_reasons(problem, device)


def _direct_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    reasons = extent_reasons(problem) + sum_reasons(problem, LONGEST_SUM)
    planes = problem.in_channels // problem.groups * math.prod(problem.kernel_size[:-2])
    if planes > MOST_PLANES:
        reasons.append(
            f"copies {planes} planes (input channels x kernel depth) a group, more than "
            f"{MOST_PLANES}"
        )
    if problem.is_depthwise and problem.groups > 1:
        reasons.append("leaves depthwise problems to cpu.depthwise")
    return reasons or _row_reasons(problem, device)


SPECS = (
    cpu_spec(
        "depthwise", "window.depthwise", _depthwise_reasons, _depthwise_cost,
        pack_cost=_depthwise_pack_cost,
    ),
    cpu_spec(
        "direct", "window.direct", _direct_reasons, _direct_cost, pack_cost=plain_pack_cost
    ),
)  # fmt: skip
