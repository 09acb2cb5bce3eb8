"""How the weight's gradient of a depthwise convolution is cut, and what it costs.

No compiler is imported.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo, dense_binding

from ..common.specs import extent_reasons, operand_bytes
from ..machine.seconds import call_seconds, profile
from ..window.row_costs import phase_overlap, row_phases

__all__ = [
    "MOST_SUMMED",
    "TAPS",
    "Cut",
    "cut",
    "depthwise_reasons",
    "depthwise_seconds",
    "reads_rows_in_place",
    "rows_at_once",
]

#: Taps of a row whose sums are in registers at once.
TAPS = 8
#: Products that are summed in one lane before they are added to the totals.
MOST_SUMMED = 256
#: Registers beside the sums of taps that are held, and the largest step between outputs of a row.
_OTHERS, _MOST_STEP = 7, 2
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
    rows = min((1, *problem.out_size)[-2], max(1, MOST_SUMMED // -(-columns // lanes)))
    depths = math.prod(problem.kernel_size[:-2])
    while rows > 1 and depths * _rows(problem, rows) * phases * length * size > _MOST_BYTES:
        rows = -(-rows // 2)
    return Cut(rows, columns, _rows(problem, rows), length)


def rows_at_once(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the kernel rows whose sums stay in registers; what is left over is one row, or none.

    0 where rows have to be copied: of steps or holes along them, or of too many taps.
    """
    kh, taps = (1, *problem.kernel_size)[-2:]
    step, lanes = problem.stride[-1], device.lanes(problem.compute_itemsize)
    most = (device.registers - _OTHERS) // taps
    holes = problem.dilation[-1] > 1 and taps > 1
    if holes or step > _MOST_STEP or most == 0 or (taps - 1) // step > lanes:
        return 0
    return max(rows for rows in range(1, min(most, kh) + 1) if kh % rows in (0, 1))


def reads_rows_in_place(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> bool:
    """Tell whether rows of samples and of gradients are read where they lie."""
    item = problem.itemsize
    contiguous = binding.x_strides[-1] == binding.out_strides[-1] == item
    return contiguous and rows_at_once(problem, device) > 0


def depthwise_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return why a problem is not for lanes of pixels of one channel."""
    if not problem.is_depthwise:
        channels = problem.in_channels // problem.groups
        return [f"takes one input channel a group; this one has {channels}"]
    return extent_reasons(problem)


def _cycles_in_place(problem: ConvProblem, device: DeviceInfo) -> float:
    """Count the loads, shuffles and products of rows, the sums of a plane, and their lanes."""
    core, lanes = profile(device).core, device.lanes(problem.compute_itemsize)
    taps, kw, step = math.prod(problem.kernel_size), problem.kernel_size[-1], problem.stride[-1]
    planes = problem.batch * problem.out_channels * math.prod(problem.out_size[:-2])
    rows = (1, *problem.out_size)[-2] * -(-problem.out_size[-1] // lanes)
    groups = 2 if kw > step else 1
    loads = 1 + 1.5 * groups * step * (taps // kw)  # a vector that crosses a line is two
    shuffles = (kw - 1 + (groups * step if step > 1 else 0)) * (taps // kw)
    row = (loads + shuffles) / core.loads + taps / core.multiply_adds
    plane = rows * row + taps * (2 + core.latency)
    return planes * plane + problem.out_channels * taps * 4 * core.latency


def depthwise_seconds(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the time of the variant that arrays in the problem's memory order get."""
    machine, tasks = profile(device), problem.groups
    if reads_rows_in_place(problem, dense_binding(problem), device):
        cycles = _cycles_in_place(problem, device)
    else:
        cycles = _cycles_of_copies(problem, device)
    rounds = -(-tasks // device.threads) * device.threads / tasks
    return call_seconds(
        cycles * rounds / device.threads, operand_bytes(problem), clock=machine.core.sustained,
        bandwidth=machine.memory.operands, start=machine.calls.start,
    )  # fmt: skip


def _cycles_of_copies(problem: ConvProblem, device: DeviceInfo) -> float:
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
    return rows * row + problem.out_channels * taps * lanes * core.latency
