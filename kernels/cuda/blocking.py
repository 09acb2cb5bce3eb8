"""How a problem is cut into blocks: the tile, and the parts of a split reduction.

Counted, not measured: no machine of the project has a GPU. A multiprocessor is thought to run its
blocks at the part of the multiply-add peak that the main loop's instruction mix allows (see
`audit`); what is lost to idle multiprocessors in the last round of blocks, and the traffic of a
split reduction, is added to it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from fastconv.problem import ConvProblem
from fastconv.spec import CudaInfo

from .tile import Tile, tiles_for

__all__ = ["Split", "choose_split", "direct_width", "mask_words", "seconds", "window_seconds"]

#: Words of bits that kernels are compiled for.
_WORDS = (1, 3, 7)
#: Panels that a part of a split reduction should hold at least: less does not fill the pipeline.
_FEWEST_PANELS = 16
#: What the hardware takes along grid y and z.
MOST_BLOCKS = 65535
#: Part of the peak that a tile's main loop reaches if nothing else holds it up: its share of FFMA.
_EFFICIENCY = {(128, 128): 0.85, (128, 64): 0.8, (64, 64): 0.78, (32, 32): 0.5}
#: Nominal seconds of a launch.
_LAUNCH = 4e-6


@dataclass(frozen=True, slots=True)
class Split:
    """A problem's blocks.

    Parameters
    ----------
    tile : Tile
        A block's share of the output.
    pixel_blocks, channel_blocks : int
        Tiles along the pixels of the batch and the output channels of a group.
    panels : int
        Panels of the whole reduction.
    splits : int
        Parts of the reduction, none of them empty.
    """

    tile: Tile
    pixel_blocks: int
    channel_blocks: int
    panels: int
    splits: int

    @property
    def split_panels(self) -> int:
        """Panels of one part; the last may have fewer."""
        return -(-self.panels // self.splits)


def mask_words(problem: ConvProblem) -> int | None:
    """Return the words for one bit a tap and axis and one that is always set; None if too many."""
    bits = sum(problem.kernel_size) + (3 - problem.ndim) + 1
    return next((words for words in _WORDS if bits <= 32 * words), None)


def _splits(problem: ConvProblem, tile: Tile, device: CudaInfo) -> Iterator[Split]:
    """Return the cuts of one tile: unsplit, and in parts that fill the device."""
    pixels = problem.batch * math.prod(problem.out_size)
    steps = math.prod(problem.weight_shape[1:])
    pixel_blocks = -(-pixels // tile.bn)
    channel_blocks = -(-(problem.out_channels // problem.groups) // tile.bm)
    panels = -(-steps // tile.bk)
    blocks = pixel_blocks * channel_blocks * problem.groups
    most = min(
        panels // _FEWEST_PANELS,
        2 * device.multiprocessors // max(blocks, 1),
        MOST_BLOCKS // problem.groups,
    )
    for parts in sorted({1, *(2**i for i in range(1, 7) if 2**i <= most)}):
        each = -(-panels // parts)
        yield Split(tile, pixel_blocks, channel_blocks, panels, -(-panels // each))


def _seconds(problem: ConvProblem, split: Split, device: CudaInfo) -> float:
    tile, itemsize = split.tile, 8 if problem.dtype == "float64" else 4
    blocks = split.pixel_blocks * split.channel_blocks * problem.groups * split.splits
    rounds = -(-blocks // device.multiprocessors)
    flops = 2 * tile.bm * tile.bn * tile.bk * split.split_panels
    peak = device.flops(itemsize) / device.multiprocessors
    outputs = math.prod(problem.out_shape)
    moved = problem.itemsize * (math.prod(problem.x_shape) + outputs)
    launches = 1
    if split.splits > 1:
        moved += 2 * itemsize * outputs * split.splits
        launches = 2
    arithmetic = rounds * flops / peak / _EFFICIENCY[tile.bm, tile.bn]
    return max(arithmetic, moved / device.bandwidth) + launches * _LAUNCH


@functools.lru_cache(4096)
def choose_split(problem: ConvProblem, device: CudaInfo) -> Split:
    """Return the tile and the parts of the lowest counted time."""
    cuts = (cut for tile in tiles_for(problem.dtype) for cut in _splits(problem, tile, device))
    return min(cuts, key=lambda cut: _seconds(problem, cut, device))


def seconds(problem: ConvProblem, device: CudaInfo) -> float:
    """Return the counted time of a call whose weight is packed."""
    return _seconds(problem, choose_split(problem, device), device)


#: Sums of a thread of `direct`, and the part of the peak that its mix of instructions allows.
_WIDTHS = {1: 0.08, 4: 0.25, 16: 0.45}


def direct_width(problem: ConvProblem) -> int:
    """Return the output channels that a thread of `direct` computes."""
    channels = problem.out_channels // problem.groups
    return next((width for width in _WIDTHS if width >= channels), max(_WIDTHS))


def window_seconds(problem: ConvProblem, device: CudaInfo, width: int) -> float:
    """Return the counted time of a kernel with one pixel and `width` channels a thread."""
    channels = problem.out_channels // problem.groups
    outputs = math.prod(problem.out_shape) // channels * -(-channels // width) * width
    flops = 2 * outputs * math.prod(problem.weight_shape[1:])
    itemsize = 8 if problem.dtype == "float64" else 4
    moved = problem.itemsize * (math.prod(problem.x_shape) + math.prod(problem.out_shape))
    arithmetic = flops / device.flops(itemsize) / _WIDTHS[width]
    return max(arithmetic, moved / device.bandwidth) + _LAUNCH
