"""How the weight's gradient of a depthwise convolution is cut, and what it costs.

No compiler is imported.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import extent_reasons, operand_bytes
from ..machine.seconds import call_seconds, profile
from ..window.row_costs import phase_overlap, row_phases

__all__ = ["Cut", "cut", "depthwise_reasons", "depthwise_seconds"]

#: Taps of a row whose sums are in registers at once.
TAPS = 8
#: Products that are summed in one lane before they are added to the totals.
_MOST_SUMMED = 256
#: Columns of outputs whose samples are copied at once.
_MOST_COLUMNS = 4096
#: Bytes of a band's samples.
_MOST_BYTES = 64 << 10


class Cut(NamedTuple):
    """Bands of output rows, and spans of their columns.

    Parameters
    ----------
    rows, columns : int
        Output rows of a band and columns of a span.
    copied : int
        Input rows under a band.
    length : int
        Columns of one phase of a copied row.
    """

    rows: int
    columns: int
    copied: int
    length: int


def _rows(problem: ConvProblem, rows: int) -> int:
    """Return the input rows under so many output rows."""
    kh, sh, dh = ((1, *axis)[-2] for axis in (problem.kernel_size, problem.stride,
                                              problem.dilation))  # fmt: skip
    return (rows - 1) * sh + (kh - 1) * dh + 1


def cut(problem: ConvProblem, device: DeviceInfo) -> Cut:
    """Cut the output so that the samples under a part stay in L1 or close to it."""
    size = problem.compute_itemsize
    lanes, phases = device.lanes(size), row_phases(problem)
    columns = min(problem.out_size[-1], _MOST_COLUMNS)
    length = -(-(columns + phase_overlap(problem)) // lanes) * lanes
    rows = min((1, *problem.out_size)[-2], max(1, _MOST_SUMMED // -(-columns // lanes)))
    depths = math.prod(problem.kernel_size[:-2])
    while rows > 1 and depths * _rows(problem, rows) * phases * length * size > _MOST_BYTES:
        rows = -(-rows // 2)
    return Cut(rows, columns, _rows(problem, rows), length)


def depthwise_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return why a problem is not for lanes of pixels of one channel."""
    if not problem.is_depthwise:
        channels = problem.in_channels // problem.groups
        return [f"takes one input channel a group; this one has {channels}"]
    return extent_reasons(problem)


def depthwise_seconds(problem: ConvProblem, device: DeviceInfo) -> float:
    """Count the loads of products, the copies of samples and gradients, and the sums."""
    machine = profile(device)
    core, parts = machine.core, cut(problem, device)
    lanes = device.lanes(problem.compute_itemsize)
    taps, kw = math.prod(problem.kernel_size), problem.kernel_size[-1]
    rows = problem.batch * problem.out_channels * math.prod(problem.out_size[:-1])
    vectors = -(-problem.out_size[-1] // lanes)
    blocks = taps // kw * -(-kw // TAPS)
    loads = taps + blocks
    # Sums that begin and end with each row of taps: a load, an addition and a store each.
    row = vectors * loads / core.loads + taps * core.latency / 2 + blocks * machine.calls.task / 8
    copied = row_phases(problem) * parts.copied / parts.rows * parts.length / lanes
    strided = machine.gemm.gathered if problem.stride[-1] > 2 else 0.0
    copied *= math.prod(problem.kernel_size[:-2]) * (machine.gemm.copied + strided)
    row += copied + vectors * machine.gemm.copied
    if problem.layout != "channels_first":
        row += (vectors + copied) * (machine.gemm.gathered + lanes * machine.gemm.gathered_element)
    tasks = problem.groups
    rounds = -(-tasks // device.threads) * device.threads / tasks
    cycles = rows * row + problem.out_channels * taps * lanes * core.latency
    return call_seconds(
        cycles * rounds / device.threads, operand_bytes(problem), clock=core.sustained,
        bandwidth=machine.memory.operands, start=machine.calls.start,
    )  # fmt: skip
