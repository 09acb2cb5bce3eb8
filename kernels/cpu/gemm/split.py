"""How a matrix product is cut into tasks, and what it costs: cycles, counted.

A kernel multiplies rows by columns; one of the two is pixels and the other output channels. A task
is a block of pixels times a part of the channels. The split is the one whose busiest thread ends
first, and its cycles are the kernel's predicted cost, so that choosing a kernel and running it rest
on one count. Nothing here loads the compiler.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections import Counter
from typing import Any, NamedTuple

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ..machine.seconds import profile
from ..simd.register_tiles import RegisterTile

__all__ = [
    "LONGEST_SUM",
    "REDUCTION",
    "RESIDENT_SHARE",
    "Split",
    "TaskCosts",
    "channel_block",
    "choose_split",
    "halvings",
    "product",
    "spread",
    "sums_at_once",
]

#: Steps of one reduction block: the A panel of mr x 512 floats fits L1 beside a panel's stream.
#: Each block is summed from zero, then blocks are added up. A rounding error grows with the length
#: of a sum, most where all products are alike, so that each rounding falls the same way. Largest
#: relative error of 400 sums in float32, of like products and of random ones of one sign: of 512
#: 7.6e-6 and 1.2e-6, of 4096 6.1e-5 and 2.4e-6, of 65536 9.6e-4 and 9.5e-6; of 65536 in blocks of
#: 512 8.3e-6 and 4.8e-7.
REDUCTION = 512
#: Most products of one running sum in a kernel that has no blocks: 1.5e-5 and 1.4e-6 there.
LONGEST_SUM = 1024
#: Bytes of pixels that one task works on, as a part of L2.
_BLOCK_SHARE = 2
#: Part of L2 that weights and pixels share, and stay in from task to task, if they fit.
RESIDENT_SHARE = 0.75
#: Split among so many tasks exactly, beyond by an estimate.
_FEW_TASKS = 64
#: Blocks a thread from which on threads work far apart.
_MANY_BLOCKS = 8
_PANELS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_MOST_PARTS = 8


class TaskCosts(NamedTuple):
    """What a kernel's task takes, in cycles.

    Parameters
    ----------
    tile : RegisterTile
        Register tile.
    rows_are_pixels : bool
        Whether the tile's rows are pixels and its lanes are output channels.
    pack : float
        For one step of the reduction and one pixel, to bring it into a panel; zero where pixels
        are read in place.
    epilogue : float
        For one output, behind the tiles.
    sum_bytes : int
        Bytes of a task's own sums for one output; zero where they lie in the output.
    """

    tile: RegisterTile
    rows_are_pixels: bool
    pack: float
    epilogue: float
    sum_bytes: int


class Split(NamedTuple):
    """Panels of pixels and parts of the channels; cycles of the busiest thread."""

    panels: int
    parts: int
    cycles: float


def channel_block(problem: ConvProblem, depth: int) -> int:
    """Return the input channels of one reduction block: equal blocks of at most `REDUCTION` steps.

    A step takes `depth` channels, and only the last block may fill its last step in part. Where one
    channel has more taps than that, those are multiplied in parts.
    """
    steps = -(-(problem.in_channels // problem.groups) // depth)
    most = max(1, REDUCTION // math.prod(problem.kernel_size))
    return depth * -(-steps // -(-steps // most))


def sums_at_once(problem: ConvProblem, depth: int) -> bool:
    """Return whether one reduction block holds all input channels and taps."""
    at_once = channel_block(problem, depth) >= problem.in_channels // problem.groups
    return at_once and math.prod(problem.kernel_size) <= REDUCTION


def _pieces(rows: int, mr: int) -> dict[int, int]:
    """Return how many tiles of each height `rows` rows are made of, see `gemm.tile_address`."""
    counts = Counter({mr: rows // mr})
    counts.update(bit for bit in (8, 4, 2, 1) if rows % mr & bit)
    return counts


@functools.lru_cache(4096)
def product(
    rows: int, columns: int, tile: RegisterTile, speed: float, latency: float
) -> tuple[float, int]:
    """Return (cycles of one step, tiles) of rows by columns, `speed` vectors a cycle."""
    last = columns % tile.nr
    vectors = Counter({tile.nv: columns // tile.nr})
    if last:
        vectors[tile.nv if last > tile.lanes else 1] += 1
    heights = _pieces(rows, tile.mr)
    total = sum(
        max(height * count / speed, latency) * tall * across
        for height, tall in heights.items()
        for count, across in vectors.items()
    )
    return total, sum(heights.values()) * sum(vectors.values())


def _cut(length: int, piece: int) -> list[tuple[int, int]]:
    """Cut a length into (size, how many) of pieces, the last of which may be shorter."""
    whole, rest = divmod(length, piece)
    return [(size, many) for size, many in ((piece, whole), (rest, 1)) if size and many]


def spread(blocks: int, threads: int) -> int:
    """Return how many stretches of blocks, far apart, are worked on side by side.

    Threads that write to neighbouring blocks share cache lines and pages; few blocks are taken in
    order, so that the short one comes last.
    """
    return threads if blocks >= _MANY_BLOCKS * threads else 1


#: Sizes along one axis, and how many of each, in order.
_Sizes = list[tuple[int, int]]


def _makespan(
    blocks: list[tuple[int, int, int]], parts: _Sizes, copies: int, threads: int, task: Any
) -> float:
    """Return when the last thread ends: ``task(pixels, taps, rows)`` cycles, taken in order."""
    number = sum(many for *_, many in blocks) * sum(many for _, many in parts) * copies
    if number > _FEW_TASKS:
        cycles = [
            (task(pixels, taps, rows), many * times * copies)
            for rows, times in parts
            for pixels, taps, many in blocks
        ]
        total = sum(duration * many for duration, many in cycles)
        longest, many = max(cycles)
        return float(max(total / threads, -(-many // threads) * longest))
    free = [0.0] * threads
    for _ in range(copies):
        for rows in (rows for rows, times in parts for _ in range(times)):
            for pixels, taps, many in blocks:
                for _ in range(many):
                    heapq.heapreplace(free, free[0] + task(pixels, taps, rows))
    return max(free)


def _parts(rows: int, row_bytes: int, device: DeviceInfo) -> list[int]:
    """Return the numbers of parts to try of channels in so many tiles' rows.

    More than a few only where the sums of a part, `row_bytes` a row, would outgrow L2.
    """
    counts = list(range(1, min(_MOST_PARTS, rows) + 1))
    while -(-rows // counts[-1]) > 1 and -(-rows // counts[-1]) * row_bytes > device.l2 // 2:
        counts.append(min(2 * counts[-1], rows))
    return counts


@functools.lru_cache(4096)
def choose_split(
    problem: ConvProblem, device: DeviceInfo, task: TaskCosts, pixels: tuple[tuple[int, int], ...]
) -> Split:
    """Return the split whose busiest thread ends first.

    Parameters
    ----------
    problem, device
        As for every kernel.
    task : TaskCosts
        What a task takes.
    pixels : tuple of (int, int)
        Pixels and taps of each region of the output.
    """
    tile, size = task.tile, problem.compute_itemsize
    rows = problem.out_channels // problem.groups
    channels = problem.in_channels // problem.groups
    copies = problem.batch * problem.groups
    width, height = (tile.mr, tile.nr) if task.rows_are_pixels else (tile.nr, tile.mr)
    words = -(-channels // tile.depth)
    block = channel_block(problem, tile.depth) // tile.depth
    most_taps = max(taps for _, taps in pixels) or 1
    most_panels = max(1, device.l2 // _BLOCK_SHARE // (block * most_taps * width * size))
    machine = profile(device)
    speed = machine.core.multiply_adds
    costs, total = machine.gemm, sum(pixel_count for pixel_count, _ in pixels)

    @functools.cache
    def task_cycles(block_pixels: int, taps: int, part_rows: int) -> float:
        shape = (block_pixels, part_rows) if task.rows_are_pixels else (part_rows, block_pixels)
        step, tiles = product(*shape, tile, speed, machine.core.latency)
        steps = words * taps
        weights = part_rows * steps * size
        panels = block_pixels * min(steps, block * taps) * size
        resident = weights + panels <= device.l2 * RESIDENT_SHARE
        return (
            steps * (step + block_pixels * task.pack)
            + tiles * costs.tile * -(-words // block)
            + block_pixels * part_rows * task.epilogue
            + (part_rows * costs.row if block_pixels < total and device.threads > 1 else 0.0)
            + (0.0 if resident else weights / costs.weights)
            + machine.calls.task
        )

    best = Split(1, 1, math.inf)
    for panels in sorted({*(p for p in _PANELS if p < most_panels), most_panels}):
        blocks = [(n, taps, many) for total, taps in pixels
                  for n, many in _cut(total, panels * width)]  # fmt: skip
        row_bytes = height * width * task.sum_bytes if panels == 1 else 0
        for parts in _parts(-(-rows // height), row_bytes, device):
            part = -(-rows // (height * parts)) * height
            if part * panels * width * task.sum_bytes > device.l2 // 2 and panels > 1:
                continue
            cycles = _makespan(blocks, _cut(rows, part), copies, device.threads, task_cycles)
            if cycles < best.cycles:
                best = Split(panels, -(-rows // part), cycles)
    return best


def halvings(number: int) -> list[int]:
    """Return `number`, half of it, and so on down to 1."""
    halves = [number]
    while halves[-1] > 1:
        halves.append(-(-halves[-1] // 2))
    return halves
