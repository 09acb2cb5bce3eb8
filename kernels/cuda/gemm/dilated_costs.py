"""How pixels of a dilated convolution are put into tiles that see few taps, and what that saves.

Pixels are taken region by region (see `kernels.reach`), each region over the whole batch, so that
those of a tile mostly see the same taps; one that lies across regions sees the taps of all of them.
Regions with most taps come first: the tiles that take longest then start first.

    order       pixel of each place of the grid        regions one after another
    schedule    a word a tile: where its list begins   then lists: panels, END

A list holds the panels in which any of the tile's taps has a step, so a panel of steps of two taps
is in the lists of both; tiles of the same taps share a list. A tile that sees nothing but padding
has one panel, whose samples are all zero.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import CudaInfo

from ...taps import dilated_reasons, regions
from ..common import roofline
from ..common.roofline import LaunchCost
from . import blocking
from .blocking import Split
from .tile import BlockTile, tiles_for

__all__ = [
    "choose_tile",
    "launches",
    "panels_of",
    "pixel_order",
    "reasons",
    "schedule",
    "tile_taps",
    "whole_split",
]

#: What stands behind the last panel of a list.
END = 2**32 - 1

Box = tuple[tuple[int, ...], ...]

#: Most taps, and most panels of a tile: the lists of each set of taps are written out.
_MOST_TAPS, _MOST_PANELS = 512, 1 << 16


def reasons(problem: ConvProblem) -> list[str]:
    """Return why tiles that see few taps are not for a problem."""
    if sentences := dilated_reasons(problem):
        return sentences
    if (taps := math.prod(problem.kernel_size)) > _MOST_TAPS:
        return [f"lists at most {_MOST_TAPS} taps for each tile; this has {taps}"]
    steps = math.prod(problem.weight_shape[1:])
    if (panels := steps // min(tile.bk for tile in tiles_for(problem.dtype))) > _MOST_PANELS:
        return [f"lists at most {_MOST_PANELS} panels for a tile; this has {panels}"]
    return []


def _taps(problem: ConvProblem, box: Box) -> frozenset[int]:
    """Return the taps that a region sees, by their number in the kernel."""
    _, _, firsts, ends = box
    axes = (range(first, end) for first, end in zip(firsts, ends, strict=True))
    strides = [math.prod(problem.kernel_size[axis + 1 :]) for axis in range(problem.ndim)]
    places = itertools.product(*axes)
    return frozenset(sum(p * s for p, s in zip(at, strides, strict=True)) for at in places)


def _ordered_regions(problem: ConvProblem) -> list[tuple[Box, frozenset[int]]]:
    """Return the regions and their taps, most taps first."""
    regions_and_taps = [(box, _taps(problem, box)) for box in regions(problem)]
    return sorted(regions_and_taps, key=lambda region_and_taps: -len(region_and_taps[1]))


def pixel_order(problem: ConvProblem, bn: int) -> NDArray[np.uint32]:
    """Return the pixel of each place of the grid; places beyond the last pixel have pixel 0.

    Examples
    --------
    The middle of five pixels sees all three taps, those beside it two.

    >>> from fastconv.contract.problem_line import parse_line
    >>> pixel_order(parse_line("ic8iw5oc8kw3pw2dw1")[0], 4)
    array([2, 0, 1, 3, 4, 0, 0, 0], dtype=uint32)
    """
    pixels = math.prod(problem.out_size)
    numbers = np.arange(problem.batch * pixels, dtype=np.uint32)
    numbers = numbers.reshape(problem.batch, *problem.out_size)
    order = np.zeros(-(-numbers.size // bn) * bn, np.uint32)
    at = 0
    for (starts, sizes, _, _), _ in _ordered_regions(problem):
        part = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        region_pixels = numbers[(slice(None), *part)].ravel()
        order[at : at + region_pixels.size] = region_pixels
        at += region_pixels.size
    return order


@functools.lru_cache(256)
def tile_taps(problem: ConvProblem, bn: int) -> Sequence[tuple[int, frozenset[int]]]:
    """Return how many tiles in a row see which taps.

    Examples
    --------
    >>> from fastconv.contract.problem_line import parse_line
    >>> [(n, sorted(taps)) for n, taps in tile_taps(parse_line("ic8iw5oc8kw3pw2dw1")[0], 2)]
    [(1, [0, 1, 2]), (1, [0, 1, 2]), (1, [0, 1])]
    """
    tiles_and_taps: list[tuple[int, frozenset[int]]] = []
    filled, seen = 0, frozenset[int]()  # of the tile that is not full yet
    for (_, sizes, _, _), taps in _ordered_regions(problem):
        pixels = problem.batch * math.prod(sizes)
        if filled:
            taken = min(bn - filled, pixels)
            filled, pixels, seen = filled + taken, pixels - taken, seen | taps
            if filled < bn:
                continue
            tiles_and_taps.append((1, seen))
        whole, filled = divmod(pixels, bn)
        seen = taps
        if whole:
            tiles_and_taps.append((whole, taps))
    if filled:
        tiles_and_taps.append((1, seen))
    return tiles_and_taps


def _panel_ranges(problem: ConvProblem, taps: frozenset[int], bk: int) -> list[range]:
    """Return the panels that hold a step of some taps, in order; at least one."""
    channels = problem.in_channels // problem.groups
    ranges: list[range] = []
    for tap in sorted(taps):
        first, end = tap * channels // bk, ((tap + 1) * channels - 1) // bk + 1
        if ranges and first <= ranges[-1].stop:
            ranges[-1] = range(ranges[-1].start, end)
        else:
            ranges.append(range(first, end))
    return ranges or [range(1)]


def panels_of(problem: ConvProblem, taps: frozenset[int], bk: int) -> list[int]:
    """Return those panels one by one."""
    return list(itertools.chain.from_iterable(_panel_ranges(problem, taps, bk)))


def schedule(problem: ConvProblem, tile: BlockTile) -> NDArray[np.uint32]:
    """Return where each tile's list of panels begins, and the lists."""
    tiles_and_taps = tile_taps(problem, tile.bn)
    words = sum(tiles for tiles, _ in tiles_and_taps)
    starts: list[int] = []
    lists: list[int] = []
    places: dict[frozenset[int], int] = {}
    for _, taps in tiles_and_taps:
        if taps not in places:
            places[taps] = words + len(lists)
            lists += [*panels_of(problem, taps, tile.bk), END]
        starts.append(places[taps])
    starts_of_tiles = np.repeat(np.array(starts, np.uint32), [tiles for tiles, _ in tiles_and_taps])
    return np.concatenate([starts_of_tiles, np.array(lists, np.uint32)])


def whole_split(problem: ConvProblem, tile: BlockTile) -> Split:
    """Return the blocks of a tile; what is left of the reduction is not split."""
    return Split(
        tile,
        -(-problem.batch * math.prod(problem.out_size) // tile.bn),
        -(-(problem.out_channels // problem.groups) // tile.bm),
        -(-math.prod(problem.weight_shape[1:]) // tile.bk),
        1,
    )


def _tile_work(problem: ConvProblem, tile: BlockTile, device: CudaInfo) -> LaunchCost:
    """Return the launch with one tile: that of the dense product, by the part of its panels."""
    split = whole_split(problem, tile)
    (dense,) = blocking.split_launches(problem, split, device)
    panels = sum(
        tiles * sum(map(len, _panel_ranges(problem, taps, tile.bk)))
        for tiles, taps in tile_taps(problem, tile.bn)
    )
    part = panels / (split.panels * split.pixel_blocks)
    return replace(
        dense,
        requested=round(dense.requested * part),
        macs=round(dense.macs * part),
        shared=round(dense.shared * part),
    )


@functools.lru_cache(4096)
def choose_tile(problem: ConvProblem, device: CudaInfo) -> BlockTile:
    """Return the tile of the lowest counted time."""

    def seconds(tile: BlockTile) -> float:
        return roofline.seconds((_tile_work(problem, tile, device),), device)

    return min(tiles_for(problem.dtype), key=seconds)


def launches(problem: ConvProblem, device: CudaInfo) -> tuple[LaunchCost, ...]:
    """Return the launch of a call."""
    return (_tile_work(problem, choose_tile(problem, device), device),)
