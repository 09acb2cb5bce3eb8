"""What the gradient for a weight costs: cycles, counted. No compiler is imported."""

from __future__ import annotations

import functools
import math

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import cpu_spec, operand_bytes
from ..gemm.costs import pack_cycles, transpose_cycles
from ..gemm.split import product
from ..machine.seconds import call_seconds, profile
from ..simd.register_tiles import sized_tile
from .depthwise_costs import depthwise_reasons, depthwise_seconds

__all__ = ["SPECS", "blocks"]

#: Rows of a task, a tap of a channel each, and its output channels.
_ROWS, _COLUMNS = 256, 128
#: Taps of a channel, whose samples are copied at once: 256 MiB in float32.
_MOST_TAPS = 1 << 18


def _groups(problem: ConvProblem) -> tuple[int, int, int]:
    """Return input and output channels of a group, and taps."""
    groups = problem.groups
    return (
        problem.in_channels // groups,
        problem.out_channels // groups,
        math.prod(problem.kernel_size),
    )


def _task_cycles(problem: ConvProblem, device: DeviceInfo, channels: int, columns: int) -> float:
    """Count a task of so many channels: products, copies of samples and gradients, the store."""
    machine, tile = profile(device), sized_tile(device, problem.compute_itemsize)
    core, (_, _, taps) = machine.core, _groups(problem)
    pixels = problem.batch * math.prod(problem.out_size)
    vectors, transposed = -(-columns // tile.lanes), transpose_cycles(problem, device)
    step, _ = product(channels * taps, columns, tile, core.multiply_adds, core.latency)
    pixel = step + channels * taps * pack_cycles(problem, device) + vectors * transposed
    stored = channels * taps * vectors * transposed
    return pixels * pixel + stored + machine.calls.task


def _rounds(problem: ConvProblem, device: DeviceInfo, channels: int, columns: int) -> int:
    """Return how many tasks the busiest thread takes."""
    c, k, _ = _groups(problem)
    return -(-problem.groups * -(-c // channels) * -(-k // columns) // device.threads)


@functools.lru_cache(1024)
def blocks(problem: ConvProblem, device: DeviceInfo) -> tuple[int, int]:
    """Return the input and the output channels of one task: those by which a call ends first.

    No sum depends on them.
    """
    tile = sized_tile(device, problem.compute_itemsize)
    c, k, taps = _groups(problem)
    least, parts = min(c, -(-c * taps // _ROWS)), -(-k // _COLUMNS)
    best = (math.inf, 0, 0)
    for cut in range(least, min(c, least + 2 * device.threads) + 1):
        for part in range(parts, min(-(-k // tile.nr), parts + 2 * device.threads) + 1):
            channels, columns = -(-c // cut), min(k, -(-k // (part * tile.nr)) * tile.nr)
            rounds = _rounds(problem, device, channels, columns)
            cycles = rounds * _task_cycles(problem, device, channels, columns)
            best = min(best, (cycles, channels, columns))
    return best[1:]


def _seconds(problem: ConvProblem, device: DeviceInfo) -> float:
    machine = profile(device)
    channels, columns = blocks(problem, device)
    cycles = _task_cycles(problem, device, channels, columns)
    return call_seconds(
        _rounds(problem, device, channels, columns) * cycles, operand_bytes(problem),
        clock=machine.core.sustained, bandwidth=machine.memory.operands,
        start=machine.calls.start,
    )  # fmt: skip


def _reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return why a problem has no workspace: a row of samples for each tap."""
    taps = math.prod(problem.kernel_size)
    if taps > _MOST_TAPS:
        return [f"copies samples for at most {_MOST_TAPS} taps of a channel at once; here {taps}"]
    return []


SPECS = (
    cpu_spec("weight_grad", "weight_grad.plan", _reasons, _seconds, op="conv_weight_grad"),
    cpu_spec(
        "depthwise_weight_grad", "weight_grad.depthwise", depthwise_reasons, depthwise_seconds,
        op="conv_weight_grad",
    ),
)  # fmt: skip
