"""Register tiles by instruction set: the one table that names an architecture.

A tile of ``mr x nv`` vectors keeps ``mr * nv`` accumulators, `nv` vectors of the panel and one
broadcast in registers, so ``mr * nv + nv + 1`` must not exceed the register count (the broadcast
folds into the multiply-add on AVX-512). A step of the reduction loop makes ``mr * nv``
multiply-adds out of ``mr + nv`` loads: the squarer the tile, the fewer loads.

=======  =========  ====  ====  =====================  ====================
isa      registers    mr    nv  accumulators + others  multiply-adds : loads
=======  =========  ====  ====  =====================  ====================
avx512          32    12     2  24 + 3                 24 : 14
avx2            16     6     2  12 + 3                 12 : 8
sse2            16     6     2  12 + 3                 12 : 8
neon            32     8     3  24 + 4                 24 : 11
=======  =========  ====  ====  =====================  ====================

Where rows are pixels (gemm/pixel_rows.py), AVX-512 takes 14 x 2 = 28 + 3. With AVX512-BF16 a lane
multiplies two pairs of bfloat16 at once: the same tile, with words of two elements.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

__all__ = ["RegisterTile", "gemm_tile", "operand_tile", "sized_tile"]


class RegisterTile(NamedTuple):
    """A register tile: `mr` broadcast rows times `nv` vectors of `lanes` elements.

    The loop asks for its panel of vectors `ahead` steps before their use; 0 where they are near.
    A step multiplies `depth` neighbours along the sum, which lie in one word of the panels.
    """

    mr: int
    nv: int
    lanes: int
    ahead: int = 0
    depth: int = 1

    @property
    def nr(self) -> int:
        """Elements across the tile."""
        return self.nv * self.lanes


_GEMM = {"avx512": (12, 2), "avx2": (6, 2), "sse2": (6, 2), "neon": (8, 3)}
#: Weights are streamed through the lanes of such tiles: some 200 cycles, to L3 and back.
_AHEAD = 8
#: Rows that are pixels: maps of 7, 14, 28 and 56 fill 14.
_PIXEL_ROW_TILES = _GEMM | {"avx512": (14, 2)}


def gemm_tile(device: DeviceInfo, storage: int) -> RegisterTile:
    """Return the GEMM tile for a storage code; the halves compute, and so tile, as float32."""
    from .ir import F64  # needs the compiler, the table does not

    return sized_tile(device, 8 if storage == F64 else 4)


def sized_tile(device: DeviceInfo, size: int, rows_are_pixels: bool = False) -> RegisterTile:
    """Return the tile for sums of `size` bytes; `rows_are_pixels` where its rows are pixels."""
    mr, nv = (_PIXEL_ROW_TILES if rows_are_pixels else _GEMM)[device.isa]
    return RegisterTile(mr, nv, device.lanes(size), _AHEAD if rows_are_pixels else 0)


def operand_tile(
    device: DeviceInfo, problem: ConvProblem, rows_are_pixels: bool = False
) -> RegisterTile:
    """Return the tile for products of elements as they are stored, not transformed ones."""
    tile = sized_tile(device, problem.compute_itemsize, rows_are_pixels)
    return tile._replace(depth=2) if problem.dtype == "bfloat16" and device.bf16_dot else tile
