"""Sparse convolution as a matrix product over gathered rows: masked implicit GEMM.

It computes any sparse convolution: every kernel, group count and channel count. For one group

    out[row, k] = sum over offset, channel of x[neighbours[offset, row], channel] * weight[...]

where a row without a neighbour at an offset adds nothing. It wins wherever a group has channels
to multiply: the arithmetic is the dense product's (see `tile`), and nothing is written but `out`.

    grid x: output rows / bn, in the rulebook's order    grid y: output channels / bm    z: groups
      for each offset that any row of the tile meets:    a list made once a rulebook
        for each panel of bk channels:                   double-buffered, see `tile`
          A: weights, packed to panels                   128-bit loads, stored as they come
          B: rows of x by the table of neighbours        see `gemm_source`
          acc += A x B                                   8 x 8 FFMA a step and thread
      through shared memory: bias, activation, one store a row, coalesced along its channels

Rows are sorted by the mask of their neighbours, so those of a tile meet much the same offsets, and
the others are left out for the whole tile. A row sums by rising offset, then rising channel; what
its tile has beyond its own offsets adds zeros. So the result depends neither on the order of rows
nor on the run, except that a zero times an infinite weight is no number, as in a dense padding.

Budget of 128 rows x 64 channels x 8 in float32: 64 sums + 16 operands + 12 on the way, at most 128
registers; 12.6 KiB of shared memory and 0.5 KiB of offsets; 512 FFMA for 32 shared loads a panel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.cuda import types

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import CudaInfo, SparseBinding

from ..common.launch import Kernel, empty, flat, is_aligned, launch
from ..common.plan import blocks_of
from ..gemm.tile import BlockTile
from . import gemm_costs
from .gemm_source import LIST_END, SIZES, Config, kernel_function, tile_offsets
from .plan import OffsetPanels, SparseConvPlan, argument_types

__all__ = ["SparseGemmPlan", "gemm_kernel", "offsets_kernel", "plan", "plan_tile"]


@functools.cache
def gemm_kernel(config: Config) -> Kernel:
    """Return the product's kernel."""
    return Kernel(
        f"sparse_gemm {config.name}",
        kernel_function(config),
        argument_types(config.storage, "sciittss", len(SIZES.split()) - 1),
        config.tile.threads,
        config.tile.blocks,
        gemm_costs.shared_bytes(config.tile, config.storage),
    )


@functools.cache
def offsets_kernel(rows: int) -> Kernel:
    """Return the kernel that lists the offsets of tiles of so many output rows."""
    arrays = (types.uint32[::1], types.int32[::1], types.uint32[::1], types.uint32[::1])
    signature = (*arrays, *[types.uint32] * 3)
    return Kernel(f"tile_offsets {rows}", tile_offsets, signature, rows, 4, 4)


def list_offsets(rulebook: Any, rows: int) -> tuple[Any, Any]:
    """Return how many offsets each tile of `rows` output rows meets, and which.

    Both are flat tables where the rulebook lives; a tile has one entry of the first and
    ``volume + LIST_END`` of the second.
    """
    volume, out_rows = rulebook.neighbours.shape
    masks, like = rulebook.masks, rulebook.neighbours
    tiles = blocks_of(out_rows, rows)
    counts = flat(empty(like, tiles, np.dtype(np.uint32)))
    offsets = flat(empty(like, tiles * (volume + LIST_END), np.dtype(np.uint32)))
    numbers = map(np.uint32, (out_rows, masks.shape[0], volume))
    arguments = (flat(masks), flat(rulebook.order), counts, offsets, *numbers)
    launch(offsets_kernel(rows), (tiles, 1, 1), like, arguments)
    return counts, offsets


@dataclass(frozen=True, eq=False)
class SparseGemmPlan(SparseConvPlan):
    """One problem and binding made ready.

    Parameters
    ----------
    tile : Tile
        A block's share of the output; its columns are output rows.
    """

    tile: BlockTile

    def run(self, rulebook: Any, x: Any, packed: Any, bias: Any | None, out: Any) -> None:
        """Compute into `out`."""
        problem, tile = self.problem, self.tile
        if problem.out_rows == 0:
            return
        lists = rulebook.derive(list_offsets, tile.bn)
        samples, results = flat(x), flat(out)
        channels, depth = (
            problem.out_channels // problem.groups,
            problem.in_channels // problem.groups,
        )
        sizes = (
            problem.out_rows, problem.in_channels, depth, channels, problem.out_channels,
            problem.volume, self.packing.count,
        )  # fmt: skip
        wide = depth % 4 == 0 and is_aligned(samples, 4 * problem.itemsize)
        config = Config(tile, problem.dtype, 4 if wide else 1)
        grid = (blocks_of(problem.out_rows, tile.bn), self.packing.blocks, problem.groups)
        arguments = (
            samples, flat(packed), flat(rulebook.neighbours), flat(rulebook.order), *lists,
            results if bias is None else flat(bias), results, *self.scalars(sizes, bias),
        )  # fmt: skip
        launch(gemm_kernel(config), grid, out, arguments)


def plan_tile(problem: SparseProblem, binding: SparseBinding, tile: BlockTile) -> SparseGemmPlan:
    """Return the plan of a problem for a given tile."""
    depth, channels = (
        problem.in_channels // problem.groups,
        problem.out_channels // problem.groups,
    )
    panels = OffsetPanels(
        tile.bm, tile.bk, problem.groups, blocks_of(channels, tile.bm), blocks_of(depth, tile.bk)
    )
    return SparseGemmPlan(problem, binding, panels, tile)


def plan(problem: SparseProblem, binding: SparseBinding, device: CudaInfo) -> SparseGemmPlan:
    """Return the plan of a problem; a kernel is compiled when it is first launched."""
    return plan_tile(problem, binding, gemm_costs.choose_tile(problem, device))
