"""How a pool is cut into tasks, and what a worker's memory holds. No compiler is imported."""

from __future__ import annotations

import math
from typing import NamedTuple

from fastconv.contract.spec import DeviceInfo

from ..common.workspace import Workspace
from .geometry import AnyPool, windows_of

__all__ = [
    "LONGEST_STEP", "VECTORS", "Split", "row_pad", "split", "split_spread", "spread_memory",
    "worker_bytes", "worker_memory",
]  # fmt: skip

#: The largest stride whose taps are loaded by shuffles.
LONGEST_STEP = 4
#: Vectors of a block of channels: more chains than the latency of what joins them asks for.
VECTORS = 4
#: Samples that a task meets: some ten times what it takes to take a task.
_TASK_VECTORS = 4096
#: Tasks that there should be if units allow.
_SOME_TASKS = 16


class Split(NamedTuple):
    """Units, one behind the other, and how many of them are a task.

    Parameters
    ----------
    units, block, tasks : int
        Units, those of a task, and tasks.
    pieces, piece : int
        Parts of an output row or of a pixel's channels, and the outputs or channels of one.
    """

    units: int
    block: int
    pieces: int
    piece: int

    @property
    def tasks(self) -> int:
        """Tasks that hold all units."""
        return -(-self.units // self.block)


def _block(units: int, vectors: int) -> int:
    """Return the units of a task, each of so many vectors."""
    return max(1, min(-(-_TASK_VECTORS // (vectors + 8)), -(-units // _SOME_TASKS)))


def _row_piece(problem: AnyPool, device: DeviceInfo) -> int:
    """Return the outputs of a row whose samples fill half of L1."""
    windows, lanes = windows_of(problem), device.lanes(problem.compute_itemsize)
    if windows.unequal:
        return problem.out_size[-1]
    room = device.l1 // 2 // problem.compute_itemsize
    reach = (windows.kernel[-1] - 1) * windows.dilation[-1] + 1
    outputs = max(room - reach, 0) // windows.stride[-1] // lanes * lanes
    return min(problem.out_size[-1], max(outputs, lanes))


def split(problem: AnyPool, along: str, device: DeviceInfo) -> Split:
    """Return the units and tasks of a pool whose lanes lie along channels, rows or planes."""
    lanes, windows = device.lanes(problem.compute_itemsize), windows_of(problem)
    taps, images = math.prod(windows.kernel), max(problem.batch, 1)
    if along == "plane":
        units, piece, pieces = images * problem.channels, 1, 1
        vectors = -(-taps // lanes)
    elif along == "channels":
        piece = VECTORS * lanes
        pieces = -(-problem.channels // piece)
        units = images * math.prod(problem.out_size) * pieces
        vectors = taps * -(-min(piece, problem.channels) // lanes)
    else:
        piece = problem.out_size[-1] if problem.return_indices else _row_piece(problem, device)
        pieces = -(-problem.out_size[-1] // piece)
        units = images * problem.channels * math.prod(problem.out_size[:-1]) * pieces
        step = 1 if problem.return_indices else windows.stride[-1]
        vectors = taps * -(-piece * step // lanes)
    return Split(units, _block(units, vectors), pieces, piece)


def worker_memory(problem: AnyPool, device: DeviceInfo) -> Workspace:
    """Return the parts of a worker's memory where lanes lie along rows."""
    windows, lanes = windows_of(problem), device.lanes(problem.compute_itemsize)
    piece, step = _row_piece(problem, device), windows.stride[-1]
    span = (piece - 1) * step + (windows.kernel[-1] - 1) * windows.dilation[-1] + 1
    if windows.unequal:
        span, step = problem.in_size[-1], 1
    size = problem.compute_itemsize
    parts = Workspace()
    # A vector of outputs reads as many vectors as its stride has steps, all but lanes in use.
    parts.add("row", (span + (min(step, LONGEST_STEP) + 2) * lanes) * size)
    parts.add("shares", (piece + lanes) * size)
    parts.add("joined", (piece + lanes) * size if windows.unequal else 0)
    return parts


def worker_bytes(problem: AnyPool, device: DeviceInfo) -> int:
    """Return the bytes of a worker's memory where lanes lie along rows."""
    if problem.return_indices:
        return 0
    return worker_memory(problem, device).fields["worker_bytes"]


def split_spread(problem: AnyPool, along: str, device: DeviceInfo) -> Split:
    """Return the units and tasks of a mean's gradient: pixels or rows of the input."""
    lanes, windows = device.lanes(problem.compute_itemsize), windows_of(problem)
    seen = math.prod(
        -(-kernel // step) for kernel, step in zip(windows.kernel, windows.stride, strict=True)
    )
    images, row = max(problem.batch, 1), problem.in_size[-1]
    if along == "channels":
        piece = VECTORS * lanes
        pieces = -(-problem.channels // piece)
        units = images * math.prod(problem.in_size) * pieces
        return Split(units, _block(units, seen * VECTORS), pieces, piece)
    units = images * problem.channels * math.prod(problem.in_size[:-1])
    return Split(units, _block(units, (seen + 2) * -(-row // lanes)), 1, row)


def row_pad(problem: AnyPool, device: DeviceInfo) -> int:
    """Return the zeros on each side of a row of shares: whole vectors that windows reach over."""
    lanes, windows = device.lanes(problem.compute_itemsize), windows_of(problem)
    return -(-(windows.kernel[-1] // windows.stride[-1] + 2) // lanes) * lanes


def spread_memory(problem: AnyPool, device: DeviceInfo) -> Workspace:
    """Return the parts of a worker's memory for a mean's gradient along rows."""
    lanes, step = device.lanes(problem.compute_itemsize), windows_of(problem).stride[-1]
    size, pad = problem.compute_itemsize, row_pad(problem, device)
    outputs, samples = problem.out_size[-1], problem.in_size[-1]
    longest = max(outputs, -(-samples // step) + pad)
    parts = Workspace()
    parts.add("row", (longest + 2 * pad + 3 * lanes) * size)
    parts.add("shares", (outputs + lanes) * size)
    # Up to two vectors are stored at once; phases of a longer stride end with the row.
    parts.add("joined", (samples + 3 * lanes) * size)
    return parts
