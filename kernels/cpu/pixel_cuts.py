"""How a depthwise output is cut into strips and tiles of pixels (pixels.py): by counting cycles."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastconv.problem import ConvProblem
from fastconv.spec import DeviceInfo

from .pixels import strip_loop_address, tile_loop_address
from .vectors import F64

__all__ = ["PixelCut", "pixel_cut", "pixel_table"]

#: Cycles that a step of a strip costs beside its arithmetic.
_STEP = 10
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


def _single(problem: ConvProblem) -> bool:
    """Return whether every output is a sum over one plane that is always there."""
    depth = zip(problem.kernel_size[:-2], problem.padding[:-2], strict=True)
    return all(k == 1 and not any(pads) for k, pads in depth)


def _met(problem: ConvProblem, start: int, end: int) -> tuple[int, int]:
    """Return the range of tap columns that meet the input from some output column of a strip."""
    sw, dw, left = problem.stride[-1], problem.dilation[-1], problem.padding[-1][0]
    first = -(-(left - (end - 1) * sw) // dw)
    last = (problem.in_size[-1] - 1 + left - start * sw) // dw
    first = min(max(first, 0), problem.kernel_size[-1])
    return first, max(first, min(last + 1, problem.kernel_size[-1]))


def _starts(problem: ConvProblem, pixels: int) -> list[int]:
    """Return where strips of about equal width begin, and the end."""
    count = -(-problem.out_size[-1] // pixels)
    return [problem.out_size[-1] * i // count for i in range(count + 1)]


def _loads(aligned: bool) -> int:
    """Return the cycles of a load: twice as many across a cache line."""
    return 1 if aligned else 2


def _rolling(problem: ConvProblem, device: DeviceInfo, aligned: bool) -> Iterator[PixelCut]:
    """Yield the ways of cutting rows into strips that fit the registers."""
    kh, kw = (1, *problem.kernel_size)[-2:]
    sw, dw = problem.stride[-1], problem.dilation[-1]
    sh, dh = (1, *problem.stride)[-2], (1, *problem.dilation)[-2] if kh > 1 else 1
    common = math.gcd(sh, dh)
    down, share = sh // common, dh // common
    height, taps = -(-kh // down), kh * kw
    planes = math.prod(problem.kernel_size[:-2]) * math.prod(problem.out_size[:-2])
    for nv in range(1, min(12, problem.out_size[-1]) + 1):
        used = height * nv + nv + 1
        if used >= device.registers or taps * nv > _UNROLLED_WORK:
            continue
        kept = _single(problem) and used + taps < device.registers
        pixels = {j * sw + s * dw for j in range(nv) for s in range(kw)}
        loads = _loads(aligned) * len(pixels) * min(down, kh) + (0 if kept else taps)
        strips = -(-problem.out_size[-1] // nv)
        cycles = strips * (max(taps * nv, loads) + _STEP) * (1, *problem.out_size)[-2]
        yield PixelCut(nv, 0, down, share, kept, cycles * planes)


def _tiles(problem: ConvProblem, device: DeviceInfo) -> Iterator[PixelCut]:
    """Yield the ways of cutting rows into tiles that fit the registers."""
    kh = (1, *problem.kernel_size)[-2]
    sh, dh = (1, *problem.stride)[-2], (1, *problem.dilation)[-2]
    share, height = (dh, (1, *problem.out_size)[-2]) if sh == 1 else (1, 1)
    rows = (1, *problem.out_size)[-2] / height
    met = min(1.0, ((1, *problem.in_size)[-2] / 2 + height / 4) / (kh * dh / 2 + height / 2))
    planes = math.prod(problem.kernel_size[:-2]) * math.prod(problem.out_size[:-2])
    for nv in range(1, min(12, problem.out_size[-1]) + 1):
        for rh in range(1, min(kh, -(-height // share), 12) + 1):
            if rh * nv + nv + 1 >= device.registers:
                continue
            starts = _starts(problem, nv)
            met_taps = (_met(problem, *ends) for ends in itertools.pairwise(starts))
            taps = sum(end - first for first, end in met_taps)
            cycles = taps * kh * met * max(rh * nv, rh + nv) * -(-height // rh) * rows
            yield PixelCut(nv, rh, 1, share, False, cycles * planes)


@functools.lru_cache(maxsize=256)
def pixel_cut(problem: ConvProblem, device: DeviceInfo, block: bool) -> PixelCut | None:
    """Choose the cut of fewest cycles; tiles only in a padded block. None where nothing fits."""
    ways = list(_rolling(problem, device, block)) or (list(_tiles(problem, device)) * block)
    return min(ways, key=lambda way: way.cycles, default=None)


def pixel_table(
    problem: ConvProblem, device: DeviceInfo, way: PixelCut, storage: int
) -> NDArray[np.int64]:
    """Compile the strips or tiles of a row; return function and first output column of each."""
    lanes = device.lanes(8 if storage == F64 else 4)
    rest = problem.groups % lanes
    rest = max(4, 1 << (rest - 1).bit_length()) if rest else 0
    kh, kw = (1, *problem.kernel_size)[-2:]
    sw, dw = problem.stride[-1], problem.dilation[-1]
    table = []
    for start, end in itertools.pairwise(_starts(problem, way.pixels)):
        if way.rows:
            function = tile_loop_address(
                (way.rows, end - start, lanes, sw, *_met(problem, start, end), storage)
            )
        else:
            col0 = start * sw - problem.padding[-1][0]
            reach = (end - start - 1) * sw + (kw - 1) * dw
            low = min(max(0, -col0), reach + 1)
            high = max(min(reach + 1, problem.in_size[-1] - col0), low)
            shape = (kh, kw, way.down, end - start, lanes, sw, dw, low, high,
                     int(_single(problem)), int(way.kept), storage)  # fmt: skip
            function = strip_loop_address(shape, rest)
        table.append((function, start))
    return np.array(table, np.int64)
