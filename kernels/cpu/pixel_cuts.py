"""How a depthwise output is cut into strips and tiles of pixels (pixels.py): by counting cycles."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from fastconv.problem import ConvProblem
from fastconv.spec import DeviceInfo

from .cuts import alone, rows_met

__all__ = [
    "BlockShape",
    "PixelCut",
    "block_cycles",
    "block_shape",
    "columns",
    "map_cycles",
    "pixel_cut",
    "starts",
    "tap_range",
]

#: Cycles that a step of a strip costs beside its arithmetic.
_STEP = 10
#: Cycles that a tap of a tile costs beside its arithmetic.
_TAP = 3
#: Cycles to transpose a square of vectors into or out of a block.
_TURN = 220
#: Most multiply-adds of a step that are written out.
_UNROLLED_WORK = 700


@dataclass(frozen=True, slots=True)
class PixelCut:
    """How rows are cut.

    Parameters
    ----------
    pixels : int
        Output pixels of a strip or tile.
    rows : int
        Output rows of a tile; 0 for strips that roll.
    down, share : int
        As in `strips.Cut`.
    kept : bool
        Whether all weights stay in registers.
    cycles : float
        Cycles for a map of one vector of channels.
    """

    pixels: int
    rows: int
    down: int
    share: int
    kept: bool
    cycles: float


def tap_range(problem: ConvProblem, start: int, end: int) -> tuple[int, int]:
    """Return the range of tap columns that meet the input from some output column of a strip."""
    sw, dw, left = problem.stride[-1], problem.dilation[-1], problem.padding[-1][0]
    first = -(-(left - (end - 1) * sw) // dw)
    last = (problem.in_size[-1] - 1 + left - start * sw) // dw
    first = min(max(first, 0), problem.kernel_size[-1])
    return first, max(first, min(last + 1, problem.kernel_size[-1]))


def starts(problem: ConvProblem, pixels: int) -> list[int]:
    """Return where strips of about equal width begin, and the end."""
    count = -(-problem.out_size[-1] // pixels)
    return [problem.out_size[-1] * i // count for i in range(count + 1)]


def columns(problem: ConvProblem, start: int, end: int) -> tuple[int, int]:
    """Return the columns of the input that a strip reads, from its first tap's first one on."""
    col0 = start * problem.stride[-1] - problem.padding[-1][0]
    reach = (end - start - 1) * problem.stride[-1]
    reach += (problem.kernel_size[-1] - 1) * problem.dilation[-1]
    low = min(max(0, -col0), reach + 1)
    return low, max(min(reach + 1, problem.in_size[-1] - col0), low)


def _rolling(problem: ConvProblem, device: DeviceInfo, aligned: bool) -> Iterator[PixelCut]:
    """Yield the ways of cutting rows into strips that fit the registers."""
    kh, kw = (1, *problem.kernel_size)[-2:]
    sw, dw = problem.stride[-1], problem.dilation[-1]
    sh, dh = (1, *problem.stride)[-2], (1, *problem.dilation)[-2] if kh > 1 else 1
    common = math.gcd(sh, dh)
    down, share = sh // common, dh // common
    height, taps = -(-kh // down), kh * kw
    planes = math.prod(problem.kernel_size[:-2]) * math.prod(problem.out_size[:-1])
    for nv in range(1, min(12, problem.out_size[-1]) + 1):
        used = height * nv + nv + 1
        if used >= device.registers or taps * nv > _UNROLLED_WORK:
            continue
        kept = alone(problem) == 3 and used + taps < device.registers
        cycles = 0.0
        for start, end in itertools.pairwise(starts(problem, nv)):
            low, high = columns(problem, start, end)
            met = [j * sw + s * dw for j in range(end - start) for s in range(kw)]
            met = [p for p in met if low <= p < high]
            loads = len(set(met)) * min(down, kh) * (1 if aligned else 2) + (0 if kept else taps)
            cycles += max(len(met) * kh, loads) + _STEP
        yield PixelCut(nv, 0, down, share, kept, cycles * planes)


def _tiles(problem: ConvProblem, device: DeviceInfo) -> Iterator[PixelCut]:
    """Yield the ways of cutting rows into tiles that fit the registers."""
    kh = (1, *problem.kernel_size)[-2]
    sh, dh = (1, *problem.stride)[-2], (1, *problem.dilation)[-2]
    share, height = (dh, (1, *problem.out_size)[-2]) if sh == 1 else (1, 1)
    rows = (1, *problem.out_size)[-2] / height
    met = rows_met(problem)
    planes = math.prod(problem.kernel_size[:-2]) * math.prod(problem.out_size[:-2])
    for nv in range(1, min(12, problem.out_size[-1]) + 1):
        for rh in range(1, min(kh, -(-height // share), 12) + 1):
            if rh * nv + nv + 1 >= device.registers:
                continue
            ends = itertools.pairwise(starts(problem, nv))
            met_taps = (tap_range(problem, *pair) for pair in ends)
            taps = sum(end - first for first, end in met_taps)
            cycles = taps * kh * met * (max(rh * nv, rh + nv) + _TAP) * -(-height // rh) * rows
            yield PixelCut(nv, rh, 1, share, False, cycles * planes)


@functools.lru_cache(maxsize=256)
def pixel_cut(problem: ConvProblem, device: DeviceInfo, block: bool) -> PixelCut | None:
    """Choose the cut of fewest cycles; tiles only in a padded block. None where nothing fits."""
    ways = list(_rolling(problem, device, block)) or (list(_tiles(problem, device)) * block)
    return min(ways, key=lambda way: way.cycles, default=None)


@dataclass(frozen=True, slots=True)
class BlockShape:
    """A vector of channels turned into pixels, input and output, in one worker's memory.

    Parameters
    ----------
    pitch : int
        Bytes of a row of the input.
    left : int
        Bytes of zeros in front of it: a tile reads them, a strip leaves out what lies outside.
    block, sums : int
        Bytes of input and output. A square's last columns may run over the end.
    """

    pitch: int
    left: int
    block: int
    sums: int


def block_shape(problem: ConvProblem, device: DeviceInfo) -> BlockShape | None:
    """Return how a block lies in memory; None where nothing fits the registers."""
    way = pixel_cut(problem, device, True)
    if way is None:
        return None
    vector = device.vector_bytes
    lanes = device.lanes(problem.compute_itemsize)
    left, right = problem.padding[-1] if way.rows else (0, 0)
    pitch = (left + problem.in_size[-1] + right) * vector
    return BlockShape(
        pitch,
        left * vector,
        math.prod(problem.in_size[:-1]) * pitch + lanes * vector,
        (math.prod(problem.out_size) + lanes) * vector,
    )


def block_cycles(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the cycles of one image by blocks, infinite where they do not fit L2."""
    way, shape = pixel_cut(problem, device, True), block_shape(problem, device)
    if problem.out_channels != problem.groups or problem.in_channels != problem.groups:
        return math.inf
    if way is None or shape is None or shape.block + shape.sums > device.l2:
        return math.inf
    lanes = device.lanes(problem.compute_itemsize)
    pixels = math.prod(problem.in_size) + math.prod(problem.out_size)
    return -(-problem.groups // lanes) * (way.cycles + _TURN * -(-pixels // lanes))


def map_cycles(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the cycles of one channels-last image read in place, 0 where no strip fits."""
    way = pixel_cut(problem, device, False)
    lanes = device.lanes(problem.compute_itemsize)
    return 0.0 if way is None else way.cycles * -(-problem.groups // lanes)
