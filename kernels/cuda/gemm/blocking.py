"""How a problem is cut into blocks, and what those blocks move and multiply.

Tile and parts of the reduction are those of the lowest counted time (see `roofline`): large tiles
read less, small ones and split reductions leave fewer multiprocessors idle.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import CudaInfo

from ..common import roofline
from ..common.params import MOST_BLOCKS
from ..common.roofline import FMA_FRACTIONS, LaunchCost, touched
from .tile import BlockTile, tiles_for

__all__ = [
    "LONGEST_SUM",
    "WINDOW_THREADS",
    "Split",
    "choose_split",
    "depthwise_lanes",
    "depthwise_launches",
    "direct_launches",
    "direct_width",
    "gemm_launches",
    "mask_words",
    "split_launches",
]

#: Words of bits that kernels are compiled for.
_WORDS = (1, 3, 7)
#: Panels that a part of a split reduction should hold at least: less does not fill the pipeline.
_FEWEST_PANELS = 16
#: Most products of one running sum; longer reductions are split. The largest relative error of such
#: sums in float32 is 8e-5, of equal products, and 3e-6 of random ones of one sign. A layer of 512
#: channels and 3x3 taps stays whole.
LONGEST_SUM = 5120
#: Threads of a block of direct and depthwise, and the blocks of them on a multiprocessor.
WINDOW_THREADS = 128
_WINDOW_BLOCKS = 8
#: Output channels that a thread of direct may compute.
_WIDTHS = (1, 4, 16)
#: Shared memory that the system takes of each block.
_RESERVED = 1024


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

    tile: BlockTile
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


def _splits(problem: ConvProblem, tile: BlockTile, device: CudaInfo) -> Iterator[Split]:
    """Return the cuts of one tile: as few parts as sums allow, and parts that fill the device."""
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
    least = -(-panels // (LONGEST_SUM // tile.bk))
    for parts in sorted({least, *(2**i for i in range(1, 7) if least < 2**i <= most)}):
        panels_a_part = -(-panels // parts)
        yield Split(tile, pixel_blocks, channel_blocks, panels, -(-panels // panels_a_part))


def _output_bytes(problem: ConvProblem) -> int:
    return math.prod(problem.out_shape) * problem.itemsize


def _input_bytes(problem: ConvProblem) -> int:
    """Return the bytes of the samples that any output needs."""
    pixels = problem.batch * math.prod(problem.out_size)
    return problem.in_channels * touched(problem, pixels) * problem.itemsize


def split_launches(problem: ConvProblem, split: Split, device: CudaInfo) -> tuple[LaunchCost, ...]:
    """Return the launches of the implicit GEMM with given blocks."""
    tile, itemsize = split.tile, problem.compute_itemsize
    across = split.channel_blocks * problem.groups
    packed = across * tile.bm * split.panels * tile.bk * itemsize
    pixels = min(tile.bn, problem.batch * math.prod(problem.out_size))
    samples = problem.in_channels * touched(problem, pixels) * problem.itemsize
    partial = math.prod(problem.out_shape) * itemsize * split.splits
    # A thread stores its part of both panels, and reads all rows and columns of its own sums.
    words = tile.threads * (tile.tm + tile.tn) + tile.bm + tile.bn
    product = LaunchCost(
        "product",
        read=_input_bytes(problem) + packed,
        written=partial if split.splits > 1 else _output_bytes(problem),
        requested=split.pixel_blocks * (packed + split.channel_blocks * samples),
        blocks=split.pixel_blocks * across * split.splits,
        warps=tile.threads // 32,
        macs=tile.bm * tile.bn * tile.bk * split.split_panels,
        shared=words * tile.bk * split.split_panels * itemsize,
        resident=min(
            tile.blocks,
            device.shared_multiprocessor // (tile.shared_bytes(itemsize) + _RESERVED),
        ),
        share=FMA_FRACTIONS[tile.name, itemsize],
        itemsize=itemsize,
    )
    if split.splits == 1:
        return (product,)
    return product, LaunchCost("sum of parts", partial, _output_bytes(problem), partial)


@functools.lru_cache(4096)
def choose_split(problem: ConvProblem, device: CudaInfo) -> Split:
    """Return the tile and the parts of the lowest counted time."""
    cuts = (cut for tile in tiles_for(problem.dtype) for cut in _splits(problem, tile, device))
    return min(cuts, key=lambda cut: roofline.seconds(split_launches(problem, cut, device), device))


def gemm_launches(problem: ConvProblem, device: CudaInfo) -> tuple[LaunchCost, ...]:
    """Return the launches of the implicit GEMM."""
    return split_launches(problem, choose_split(problem, device), device)


def direct_width(problem: ConvProblem) -> int:
    """Return the output channels that a thread of `direct` computes."""
    channels = problem.out_channels // problem.groups
    return next((width for width in _WIDTHS if width >= channels), max(_WIDTHS))


def depthwise_lanes(problem: ConvProblem) -> int:
    """Return the output channels of a block of `depthwise`, side by side in its threads.

    A warp's worth where channels are contiguous, else as many as a small map leaves room for.
    """
    if problem.layout == "channels_last":
        return 32
    pixels = problem.batch * math.prod(problem.out_size)
    return max(1, WINDOW_THREADS >> max(5, (pixels - 1).bit_length()))


def _window_launches(problem: ConvProblem, width: int, lanes: int) -> tuple[LaunchCost, ...]:
    """Return the launch of a kernel with a pixel a thread, for `width` channels at once."""
    steps, itemsize = math.prod(problem.weight_shape[1:]), problem.compute_itemsize
    pixels, columns = problem.batch * math.prod(problem.out_size), WINDOW_THREADS // lanes
    rows = problem.groups * -(-(problem.out_channels // problem.groups) // width)
    blocks = -(-pixels // columns) * -(-rows // lanes)
    channels = problem.in_channels // problem.groups
    samples = channels * touched(problem, min(columns, pixels)) * problem.itemsize
    return (
        LaunchCost(
            "window",
            read=_input_bytes(problem) + rows * width * steps * itemsize,
            written=_output_bytes(problem),
            requested=blocks * lanes * (samples + width * steps * itemsize),
            blocks=blocks,
            warps=WINDOW_THREADS // 32,
            macs=WINDOW_THREADS * width * steps,
            shared=WINDOW_THREADS * width * steps * itemsize,
            resident=_WINDOW_BLOCKS,
            share=FMA_FRACTIONS[f"window {width}", itemsize],
            itemsize=itemsize,
        ),
    )


def direct_launches(problem: ConvProblem, device: CudaInfo) -> tuple[LaunchCost, ...]:
    """Return the launch of `direct`."""
    return _window_launches(problem, direct_width(problem), 1)


def depthwise_launches(problem: ConvProblem, device: CudaInfo) -> tuple[LaunchCost, ...]:
    """Return the launch of `depthwise`."""
    return _window_launches(problem, 1, depthwise_lanes(problem))
