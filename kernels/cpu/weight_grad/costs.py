"""What the gradient for a weight costs: cycles, counted. No compiler is imported."""

from __future__ import annotations

import math

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import cpu_spec, operand_bytes
from ..gemm.costs import pack_cycles, transpose_cycles
from ..gemm.split import product
from ..machine.seconds import call_seconds, profile
from ..simd.register_tiles import sized_tile

__all__ = ["SPECS", "blocks"]

#: Rows of a task, a tap of a channel each, and its output channels.
_ROWS, _COLUMNS = 256, 128
#: Taps of a channel, whose samples are copied at once: 256 MiB in float32.
_MOST_TAPS = 1 << 18


def blocks(problem: ConvProblem, device: DeviceInfo) -> tuple[int, int]:
    """Return the input and the output channels of one task: as many tasks as there are threads."""
    tile = sized_tile(device, problem.compute_itemsize)
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    taps = math.prod(problem.kernel_size)
    parts = -(-k // _COLUMNS)
    columns = -(-k // (parts * tile.nr)) * tile.nr
    channels = -(-c // -(-c * taps // _ROWS))
    tasks = problem.groups * -(-c // channels) * -(-k // columns)
    if tasks < device.threads:
        if k > tile.nr:
            columns = -(-k // (tile.nr * min(device.threads, -(-k // tile.nr)))) * tile.nr
        elif c > 1:
            channels = -(-c // min(device.threads, c))
    return channels, min(columns, k)


def _seconds(problem: ConvProblem, device: DeviceInfo) -> float:
    """Count products, the copies of samples and gradients for them, and the store."""
    machine = profile(device)
    core = machine.core
    tile = sized_tile(device, problem.compute_itemsize)
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    channels, columns = blocks(problem, device)
    taps, pixels = math.prod(problem.kernel_size), problem.batch * math.prod(problem.out_size)
    vectors, transposed = -(-columns // tile.lanes), transpose_cycles(problem, device)
    step, _ = product(channels, columns, tile, core.multiply_adds, core.latency)
    copied = channels * taps * pack_cycles(problem, device)
    tasks = problem.groups * -(-c // channels) * -(-k // columns)
    pixel = taps * step + copied + vectors * transposed
    stored = channels * taps * vectors * transposed
    cycles = tasks * (pixels * pixel + stored + machine.calls.task)
    rounds = -(-tasks // device.threads) * device.threads / tasks
    return call_seconds(
        cycles * rounds / device.threads, operand_bytes(problem), clock=core.sustained,
        bandwidth=machine.memory.operands, start=machine.calls.start,
    )  # fmt: skip


def _reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return why a problem has no workspace: a row of samples for each tap."""
    taps = math.prod(problem.kernel_size)
    if taps > _MOST_TAPS:
        return [f"copies samples for at most {_MOST_TAPS} taps of a channel at once; here {taps}"]
    return []


SPECS = (cpu_spec("weight_grad", "weight_grad.plan", _reasons, _seconds, op="conv_weight_grad"),)
