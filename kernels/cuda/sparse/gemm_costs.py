"""How a sparse convolution is cut into blocks, and what those blocks move and multiply.

The tile is that of the lowest counted time (see `roofline`): large tiles read less of shared
memory, small ones waste less on rows and channels that are not there, and on offsets that only
some rows of a tile meet.
"""

from __future__ import annotations

import functools
import math

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import CudaInfo

from ..common import roofline
from ..common.roofline import FMA_FRACTIONS, LaunchCost
from ..gemm.tile import BlockTile

__all__ = [
    "DEPTHWISE_THREADS",
    "OFFSETS_AT_ONCE",
    "TILES",
    "choose_tile",
    "depthwise_lanes",
    "depthwise_launches",
    "gemm_launches",
    "lists_bytes",
    "met_offsets",
    "packed_elements",
    "shared_bytes",
    "tile_launches",
    "tiles_for",
]

#: From large to small, as output rows x channels x steps 128x64x8, 64x64x8, 32x32x16. Columns of
#: a tile ("pixels") are output rows. Four blocks of the largest would hold it to 128 registers,
#: with which it spills on sm_90.
TILES = (
    BlockTile(64, 128, 8, 8, 8, 3),
    BlockTile(64, 64, 8, 8, 8, 8),
    BlockTile(32, 32, 16, 4, 4, 12),
)
_DOUBLE_TILES = (BlockTile(64, 64, 16, 4, 4, 2), BlockTile(32, 32, 16, 4, 4, 8))
#: Threads of a block of depthwise, and blocks of them on a multiprocessor.
DEPTHWISE_THREADS = 128
_DEPTHWISE_BLOCKS = 8
#: Offsets whose input rows, then samples, a thread of depthwise asks for before it adds any.
OFFSETS_AT_ONCE = 4
#: Shared memory that the system takes of each block.
_RESERVED = 1024


def tiles_for(dtype: str) -> tuple[BlockTile, ...]:
    """Return the tiles of an element type, from large to small."""
    return _DOUBLE_TILES if dtype == "float64" else TILES


def shared_bytes(tile: BlockTile, dtype: str) -> int:
    """Return a block's bytes of shared memory: panels, and a tile's output and input rows."""
    return tile.shared_elements * (8 if dtype == "float64" else 4) + 12 * tile.bn


def lists_bytes(problem: SparseProblem, tile: BlockTile) -> int:
    """Return the bytes of the tiles' lists of offsets, which stay with the rulebook."""
    return -(-problem.out_rows // tile.bn) * (problem.volume + 3) * 4


def packed_elements(problem: SparseProblem, tile: BlockTile) -> int:
    """Return the elements of the packed weight, whole panels at every offset."""
    depth = -(-(problem.in_channels // problem.groups) // tile.bk) * tile.bk
    channels = -(-(problem.out_channels // problem.groups) // tile.bm) * tile.bm
    return problem.groups * problem.volume * depth * channels


def met_offsets(problem: SparseProblem, rows: int) -> float:
    """Return how many offsets a tile of so many rows meets, as expected.

    Each row meets an offset by a chance of ``pairs / (rows * volume)``. Sorted by mask, tiles
    differ in as many offsets as it takes to tell them apart; all others are met by any row.

    Examples
    --------
    >>> round(met_offsets(SparseProblem("sparse_conv", 10**5, 10**5, 10**6, (27,), 8, 8), 32), 1)
    15.8
    """
    volume = problem.volume
    chance = problem.pairs / max(1, problem.out_rows * volume)
    if not 0 < chance < 1:
        return volume * chance
    bits = -chance * math.log2(chance) - (1 - chance) * math.log2(1 - chance)
    told_apart = min(volume, math.log2(max(1, problem.out_rows / rows)) / bits)
    return told_apart * chance + (volume - told_apart) * (1 - (1 - chance) ** rows)


def _gathered_bytes(problem: SparseProblem, device: CudaInfo, gathered: float) -> int:
    """Return what device memory sends of `gathered` bytes of features: each once if L2 holds all.

    Rows that are neighbours in space are not neighbours in the order of masks.
    """
    once = problem.in_rows * problem.in_channels * problem.itemsize
    return once if once <= device.l2 else max(once, int(gathered))


def tile_launches(
    problem: SparseProblem, tile: BlockTile, device: CudaInfo
) -> tuple[LaunchCost, ...]:
    """Return the launch of the product with a given tile."""
    itemsize = problem.compute_itemsize
    channels, depth = (
        problem.out_channels // problem.groups,
        problem.in_channels // problem.groups,
    )
    panels, across = -(-depth // tile.bk), -(-channels // tile.bm) * problem.groups
    tiles, offsets = -(-problem.out_rows // tile.bn), met_offsets(problem, tile.bn)
    steps = offsets * panels * tile.bk
    packed = packed_elements(problem, tile) * itemsize
    gathered = problem.pairs * problem.in_channels * problem.itemsize * -(-channels // tile.bm)
    table = problem.out_rows * problem.volume * 4
    words = tile.threads * (tile.tm + tile.tn) + tile.bm + tile.bn
    return (
        LaunchCost(
            "product",
            read=_gathered_bytes(problem, device, gathered) + packed + table,
            written=problem.out_rows * problem.out_channels * problem.itemsize,
            requested=int(
                gathered + tiles * across * (steps * tile.bm * itemsize + offsets * tile.bn * 4)
            ),
            blocks=tiles * across,
            warps=tile.threads // 32,
            macs=int(tile.bm * tile.bn * steps),
            shared=int(words * steps * itemsize),
            resident=min(
                tile.blocks,
                device.shared_multiprocessor // (shared_bytes(tile, problem.dtype) + _RESERVED),
            ),
            share=FMA_FRACTIONS[f"sparse {tile.bn}x{tile.bm}x{tile.bk}", itemsize],
            itemsize=itemsize,
        ),
    )


@functools.lru_cache(4096)
def choose_tile(problem: SparseProblem, device: CudaInfo) -> BlockTile:
    """Return the tile of the lowest counted time."""
    return min(
        tiles_for(problem.dtype),
        key=lambda tile: roofline.seconds(tile_launches(problem, tile, device), device),
    )


def gemm_launches(problem: SparseProblem, device: CudaInfo) -> tuple[LaunchCost, ...]:
    """Return the launch of the product."""
    return tile_launches(problem, choose_tile(problem, device), device)


def depthwise_lanes(channels: int, width: int) -> int:
    """Return the threads of depthwise along channels: a power of two, at most a block.

    Examples
    --------
    >>> depthwise_lanes(48, 4), depthwise_lanes(1, 1), depthwise_lanes(999, 1)
    (16, 1, 128)
    """
    return min(DEPTHWISE_THREADS, 1 << (-(-channels // width) - 1).bit_length())


def depthwise_launches(problem: SparseProblem, device: CudaInfo) -> tuple[LaunchCost, ...]:
    """Return the launch of depthwise."""
    channels, itemsize = problem.out_channels, problem.compute_itemsize
    width = 4 if channels % 4 == 0 else 1
    lanes = depthwise_lanes(channels, width)
    rows = DEPTHWISE_THREADS // lanes
    blocks = -(-problem.out_rows // rows) * -(-channels // (lanes * width))
    gathered = problem.pairs * channels * problem.itemsize
    weight = problem.volume * channels * itemsize
    table = problem.out_rows * problem.volume * 4
    return (
        LaunchCost(
            "depthwise",
            read=_gathered_bytes(problem, device, gathered) + weight + table,
            written=problem.out_rows * channels * problem.itemsize,
            requested=gathered + table + blocks * weight,
            blocks=blocks,
            warps=DEPTHWISE_THREADS // 32,
            macs=DEPTHWISE_THREADS * width * problem.volume,
            resident=_DEPTHWISE_BLOCKS,
            share=FMA_FRACTIONS[f"sparse depthwise {width}", itemsize],
            itemsize=itemsize,
            shared=0,
        ),
    )
