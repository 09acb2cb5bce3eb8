"""How a depthwise output is cut into strips and tiles of pixels: by counting cycles.

The strips are those of pixel_strip.py.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ..machine.seconds import profile
from .row_costs import rows_met, singleton_flags
from .row_parts import Parts

__all__ = [
    "BlockShape",
    "PixelBlocking",
    "block_cycles",
    "block_shape",
    "map_cycles",
    "met_columns",
    "pixel_blocking",
    "side_places",
    "strips",
]

#: Most multiply-adds of a step that are written out.
_UNROLLED_WORK = 700
#: Most functions that the strips of a row are compiled to, some 0.3 seconds each. A dilated kernel
#: in a wide padding would have one for each of its columns that comes to meet the input.
_MOST_FUNCTIONS = 24


class PixelBlocking(NamedTuple):
    """How rows are cut.

    Parameters
    ----------
    pixels : int
        Output pixels of a strip or tile.
    rows : int
        Output rows of a tile; 0 for strips that roll.
    row_step, row_interleave : int
        As in `row_costs.RowBlocking`.
    in_registers : bool
        Whether all weights stay in registers.
    cycles : float
        Cycles for a map of one vector of channels.
    """

    pixels: int
    rows: int
    row_step: int
    row_interleave: int
    in_registers: bool
    cycles: float


def strips(problem: ConvProblem, pixels: int) -> Parts:
    """Cut a row into strips of about equal width, of at most so many pixels."""
    return Parts(problem.out_size[-1], -(-problem.out_size[-1] // pixels))


def _offsets(problem: ConvProblem, pixels: int) -> list[int]:
    """Return the column of each tap of each pixel of a strip, from its first tap's first one on."""
    sw, dw = problem.stride[-1], problem.dilation[-1]
    return sorted(j * sw + s * dw for j in range(pixels) for s in range(problem.kernel_size[-1]))


def side_places(problem: ConvProblem, pixels: int) -> set[int]:
    """Return the places before which strips meet other columns of the input than behind."""
    sw, left, size = problem.stride[-1], problem.padding[-1][0], problem.in_size[-1]
    columns, total = set(_offsets(problem, pixels)), problem.out_size[-1]
    places = {-(-(edge - p) // sw) for p in columns for edge in (left, left + size)}
    return {place for place in places if 0 < place < total}


def _met(problem: ConvProblem, offsets: Iterable[int], begin: int) -> list[int]:
    """Return those offsets of a strip that lie in the input's row."""
    first = problem.padding[-1][0] - begin * problem.stride[-1]
    end = first + problem.in_size[-1]
    return [p for p in offsets if first <= p < end]


def met_columns(problem: ConvProblem, begin: int, pixels: int) -> tuple[int, int]:
    """Return the range of a strip's columns that meet the input, from its first tap's on."""
    met = _met(problem, _offsets(problem, pixels), begin)
    return (met[0], met[-1] + 1) if met else (0, 0)


def _rolling(problem: ConvProblem, device: DeviceInfo, aligned: bool) -> Iterator[PixelBlocking]:
    """Yield the ways of cutting rows into strips that fit the registers."""
    kh, kw = (1, *problem.kernel_size)[-2:]
    sh, dh = (1, *problem.stride)[-2], (1, *problem.dilation)[-2] if kh > 1 else 1
    common = math.gcd(sh, dh)
    row_step, row_interleave = sh // common, dh // common
    height, taps = -(-kh // row_step), kh * kw
    planes = math.prod(problem.kernel_size[:-2]) * math.prod(problem.out_size[:-1])
    step = profile(device).window.pixel_step
    for nv in range(1, min(12, problem.out_size[-1]) + 1):
        used = height * nv + nv + 1
        if used >= device.registers or taps * nv > _UNROLLED_WORK:
            continue
        in_registers = singleton_flags(problem) == 3 and used + taps < device.registers
        cycles, parts, functions = 0.0, strips(problem, nv), 0
        offsets = {n: _offsets(problem, n) for n in (parts.width, parts.width + 1)}
        for stretch in parts.stretches(side_places(problem, nv)):
            functions += len(stretch.kinds)
            if functions > _MOST_FUNCTIONS:
                break
            for n, begin, many in stretch.kinds:
                met = _met(problem, offsets[n], begin)
                loads = len(set(met)) * min(row_step, kh) * (1 if aligned else 2)
                loads += 0 if in_registers else taps
                cycles += many * (max(len(met) * kh, loads) + step)
        else:
            yield PixelBlocking(nv, 0, row_step, row_interleave, in_registers, cycles * planes)


def _tap_columns(problem: ConvProblem, pixels: int) -> int:
    """Return how many tap columns meet the input from some pixel of a strip, over all strips.

    Strips are walked: only of a row that fits a block in L2.
    """
    parts, kw = strips(problem, pixels), problem.kernel_size[-1]
    sw, dw = problem.stride[-1], problem.dilation[-1]
    left, size, total = problem.padding[-1][0], problem.in_size[-1], 0
    for start, end in itertools.pairwise(map(parts.begin, range(parts.count + 1))):
        first = min(max(-(((end - 1) * sw - left) // dw), 0), kw)
        total += max(min((size - 1 + left - start * sw) // dw + 1, kw) - first, 0)
    return total


def _tiles(problem: ConvProblem, device: DeviceInfo) -> Iterator[PixelBlocking]:
    """Yield the ways of cutting rows into tiles that fit the registers."""
    kh = (1, *problem.kernel_size)[-2]
    sh, dh = (1, *problem.stride)[-2], (1, *problem.dilation)[-2]
    row_interleave, height = (dh, (1, *problem.out_size)[-2]) if sh == 1 else (1, 1)
    rows = (1, *problem.out_size)[-2] / height
    met, tap = rows_met(problem), profile(device).window.pixel_tap
    planes = math.prod(problem.kernel_size[:-2]) * math.prod(problem.out_size[:-2])
    for nv in range(1, min(12, problem.out_size[-1]) + 1):
        taps = _tap_columns(problem, nv)
        for rh in range(1, min(kh, -(-height // row_interleave), 12) + 1):
            if rh * nv + nv + 1 >= device.registers:
                continue
            cycles = taps * kh * met * (max(rh * nv, rh + nv) + tap) * -(-height // rh) * rows
            yield PixelBlocking(nv, rh, 1, row_interleave, False, cycles * planes)


@functools.lru_cache(maxsize=256)
def pixel_blocking(problem: ConvProblem, device: DeviceInfo, block: bool) -> PixelBlocking | None:
    """Choose the cut of fewest cycles; tiles only in a padded block. None where nothing fits.

    Of a block that has no room in L2 nobody asks it: see `block_cycles`.
    """
    blockings = list(_rolling(problem, device, block))
    if not blockings and block:
        blockings = list(_tiles(problem, device))
    return min(blockings, key=lambda blocking: blocking.cycles, default=None)


class BlockShape(NamedTuple):
    """A vector of channels transposed into pixels, input and output, in one worker's memory.

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
    blocking = pixel_blocking(problem, device, True)
    if blocking is None:
        return None
    vector = device.vector_bytes
    lanes = device.lanes(problem.compute_itemsize)
    left, right = problem.padding[-1] if blocking.rows else (0, 0)
    pitch = (left + problem.in_size[-1] + right) * vector
    return BlockShape(
        pitch,
        left * vector,
        math.prod(problem.in_size[:-1]) * pitch + lanes * vector,
        (math.prod(problem.out_size) + lanes) * vector,
    )


def block_cycles(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the cycles of one image by blocks, infinite where they do not fit L2."""
    if problem.out_channels != problem.groups or problem.in_channels != problem.groups:
        return math.inf
    pixels = math.prod(problem.in_size) + math.prod(problem.out_size)
    if pixels * device.vector_bytes > device.l2:
        return math.inf
    blocking, shape = pixel_blocking(problem, device, True), block_shape(problem, device)
    if blocking is None or shape is None or shape.block + shape.sums > device.l2:
        return math.inf
    lanes, square = device.lanes(problem.compute_itemsize), profile(device).window.transposed
    return -(-problem.groups // lanes) * (blocking.cycles + square * -(-pixels // lanes))


def map_cycles(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the cycles of one channels-last image read in place, infinite if no strip fits."""
    blocking = pixel_blocking(problem, device, False)
    lanes = device.lanes(problem.compute_itemsize)
    return math.inf if blocking is None else blocking.cycles * -(-problem.groups // lanes)
