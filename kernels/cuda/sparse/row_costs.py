"""How pools and weight gradients of sparse operators are cut, and what their launches move.

Like `gemm_costs` it imports no compiler. What a call needs of its rulebook (the reversed table, the
counts of pairs) is made once a rulebook and not counted here.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import CudaInfo

from ..common.roofline import FMA_FRACTIONS, LaunchCost

__all__ = [
    "DEPTHWISE_LANES",
    "GLOBAL_LANES",
    "GradSplit",
    "GradTile",
    "depthwise_launches",
    "depthwise_parts",
    "depthwise_workspace",
    "global_chunks",
    "global_launches",
    "global_workspace",
    "grad_launches",
    "grad_split",
    "grad_workspace",
    "pool_launches",
    "tiles_for",
]

#: Channels of a block of a pool over everything.
GLOBAL_LANES = 32
#: Rows of its chunks at least, and chunks at most.
_FEWEST_ROWS = 256
_MOST_CHUNKS = 512
#: Output rows that a part of a gradient for the weight should hold at least.
_FEWEST_PART_ROWS = 4096
#: Channels of a block of a depthwise gradient for the weight, and blocks on a multiprocessor.
DEPTHWISE_LANES = 32
_DEPTHWISE_BLOCKS = 8
#: Blocks that a multiprocessor should be given, so that none waits for the last one.
_ROUNDS = 2


def global_chunks(rows: int) -> tuple[int, int]:
    """Return the rows of a chunk of a pool over everything, and the number of chunks.

    Examples
    --------
    >>> global_chunks(1000), global_chunks(2_000_000), global_chunks(0)
    ((256, 4), (3907, 512), (256, 0))
    """
    chunk = max(_FEWEST_ROWS, -(-rows // _MOST_CHUNKS))
    return chunk, -(-rows // chunk)


def pool_launches(problem: SparseProblem, operands: int) -> tuple[LaunchCost, ...]:
    """Return the launch of a pool or its gradient that reads `operands` values a pair."""
    size, channels = problem.itemsize, problem.in_channels
    rows = max(problem.in_rows, problem.out_rows)
    features = (problem.in_rows + problem.out_rows) * channels * size
    table = 4 * problem.volume * rows
    asked = problem.pairs * channels * size * operands + table * -(-channels // 32)
    return (LaunchCost("pool", features * operands + table, rows * channels * size, asked),)


def global_launches(problem: SparseProblem, device: CudaInfo) -> tuple[LaunchCost, ...]:
    """Return the launches of a pool over everything."""
    size, channels, grids = problem.itemsize, problem.in_channels, problem.out_rows
    features = problem.in_rows * channels * size
    numbers = 4 * problem.in_rows * -(-channels // GLOBAL_LANES) * grids
    parts = global_workspace(problem, device)
    return (
        LaunchCost("parts", features + 4 * problem.in_rows, parts, features + numbers),
        LaunchCost("sum of parts", parts, grids * channels * size, parts),
    )


def global_workspace(problem: SparseProblem, device: CudaInfo) -> int:
    """Return the bytes of the parts of a pool over everything."""
    chunks = global_chunks(problem.in_rows)[1]
    return chunks * problem.out_rows * (problem.in_channels * problem.compute_itemsize + 4)


@dataclass(frozen=True, slots=True)
class GradTile:
    """A block's share of the gradient for the weight, and how its threads share that.

    Parameters
    ----------
    bm, bn : int
        Output and input channels.
    t : int
        Channels on both sides of one thread, a multiple of four.
    panel : int
        Pairs in shared memory at a time.
    blocks : int
        Blocks that should fit a multiprocessor at once, which bounds the registers of a thread.
    """

    bm: int
    bn: int
    t: int
    panel: int
    blocks: int

    @property
    def name(self) -> str:
        """The tile's sizes, as logs and the audit say them."""
        return f"{self.bm}x{self.bn}x{self.panel}"

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.bm // self.t * (self.bn // self.t)

    @property
    def queue(self) -> int:
        """Pairs that wait in shared memory: those of four rows a thread, and a panel's rest."""
        return 4 * self.threads + self.panel

    def shared_bytes(self, itemsize: int) -> int:
        """Return the bytes of shared memory: both panels, the queue, the counts of its warps."""
        return self.panel * (self.bm + self.bn) * itemsize + 8 * self.queue + 4 * 8


#: From large to small; what is not float64 computes in float32.
TILES = (GradTile(64, 64, 8, 16, 8), GradTile(32, 32, 4, 16, 16))
_DOUBLE_TILES = (GradTile(32, 32, 4, 16, 12),)


def tiles_for(dtype: str) -> tuple[GradTile, ...]:
    """Return the tiles of an element type, from large to small."""
    return _DOUBLE_TILES if dtype == "float64" else TILES


@dataclass(frozen=True, slots=True)
class GradSplit:
    """How a gradient for the weight is cut.

    Parameters
    ----------
    tile : GradTile
        A block's share of one offset's gradient.
    k_tiles, c_tiles : int
        Tiles along a group's output and input channels.
    part_rows, parts : int
        Output rows of a part, and the number of parts that are added up at the end.
    """

    tile: GradTile
    k_tiles: int
    c_tiles: int
    part_rows: int
    parts: int


def grad_split(problem: SparseProblem, device: CudaInfo) -> GradSplit:
    """Return the cut of a problem: few parts, but enough blocks to fill the device."""
    out_per_group = problem.out_channels // problem.groups
    in_per_group = problem.in_channels // problem.groups
    tiles = tiles_for(problem.dtype)
    tile = tiles[0] if min(out_per_group, in_per_group) > tiles[-1].bm else tiles[-1]
    k_tiles, c_tiles = -(-out_per_group // tile.bm), -(-in_per_group // tile.bn)
    blocks = k_tiles * c_tiles * problem.groups * problem.volume
    return GradSplit(tile, k_tiles, c_tiles, *_parts(problem, blocks, tile.blocks, device))


def _parts(problem: SparseProblem, blocks: int, resident: int, device: CudaInfo) -> tuple[int, int]:
    """Return the output rows of a part, and the parts that fill a device with their blocks."""
    wanted = -(-_ROUNDS * resident * device.multiprocessors // blocks)
    parts = max(1, min(wanted, problem.out_rows // _FEWEST_PART_ROWS))
    part_rows = max(1, -(-problem.out_rows // parts))
    return part_rows, max(1, -(-problem.out_rows // part_rows))


def depthwise_parts(problem: SparseProblem, device: CudaInfo) -> tuple[int, int]:
    """Return the output rows of a part of a depthwise gradient, and the number of parts."""
    blocks = -(-problem.in_channels // DEPTHWISE_LANES) * problem.volume
    return _parts(problem, blocks, _DEPTHWISE_BLOCKS, device)


def depthwise_workspace(problem: SparseProblem, device: CudaInfo) -> int:
    """Return the bytes of the parts of a depthwise gradient."""
    return depthwise_parts(problem, device)[1] * _weights(problem) * problem.compute_itemsize


def depthwise_launches(problem: SparseProblem, device: CudaInfo) -> tuple[LaunchCost, ...]:
    """Return the launches of a depthwise gradient for the weight."""
    size, channels = problem.itemsize, problem.in_channels
    table = 4 * problem.volume * problem.out_rows
    features = (problem.in_rows + problem.out_rows) * channels * size
    asked = 2 * problem.pairs * channels * size + table * -(-channels // DEPTHWISE_LANES)
    parts = depthwise_workspace(problem, device)
    return (
        LaunchCost("product", features + table, parts, asked),
        LaunchCost("sum of parts", parts, _weights(problem) * size, parts),
    )


def _weights(problem: SparseProblem) -> int:
    return problem.volume * problem.out_channels * (problem.in_channels // problem.groups)


def grad_workspace(problem: SparseProblem, device: CudaInfo) -> int:
    """Return the bytes of the parts of a gradient for the weight."""
    return grad_split(problem, device).parts * _weights(problem) * problem.compute_itemsize


def grad_launches(problem: SparseProblem, device: CudaInfo) -> tuple[LaunchCost, ...]:
    """Return the launches of a gradient for the weight."""
    split, size = grad_split(problem, device), problem.compute_itemsize
    tile = split.tile
    blocks = split.k_tiles * split.c_tiles * problem.groups * problem.volume * split.parts
    pairs = -(-problem.pairs // max(1, problem.volume * split.parts))
    features = problem.in_rows * problem.in_channels + problem.out_rows * problem.out_channels
    panels = -(-pairs // tile.panel) * tile.panel
    parts = split.parts * _weights(problem) * size
    words = tile.threads * 2 * tile.t + tile.bm + tile.bn
    product = LaunchCost(
        "product",
        read=features * problem.itemsize + 4 * problem.volume * problem.out_rows,
        written=parts,
        requested=blocks * (pairs * (tile.bm + tile.bn) * problem.itemsize + 4 * split.part_rows),
        blocks=blocks,
        warps=tile.threads // 32,
        macs=panels * tile.bm * tile.bn,
        shared=panels * words * size,
        resident=tile.blocks,
        share=FMA_FRACTIONS[f"weight grad {tile.name}", size],
        itemsize=size,
    )
    return product, LaunchCost("sum of parts", parts, _weights(problem) * problem.itemsize, parts)
