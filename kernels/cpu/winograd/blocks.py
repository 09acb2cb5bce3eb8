"""Blocks of a Winograd kernel that its plan and its cost share: panels of tiles, and of channels.

No compiler is imported here.
"""

from __future__ import annotations

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ..gemm.split import REDUCTION
from ..simd.register_tiles import RegisterTile, sized_tile
from .tiles import Sizes

__all__ = ["channel_block", "panel_of"]

#: Input channels of one sum in tiles of long lines. The rounding error grows with the length of a
#: sum: blocks of it, added up at the end, keep the error of 64 channels for any number.
_CHANNEL_BLOCK = 64
#: Elements of a tile along an axis beyond which channels are summed in such blocks.
_LONG_LINE = 6


def channel_block(sizes: Sizes) -> int:
    """Return the input channels of one sum."""
    long_line = max(axis.points for axis in sizes.axes) > _LONG_LINE
    return _CHANNEL_BLOCK if long_line else REDUCTION


def panel_of(sizes: Sizes, problem: ConvProblem, device: DeviceInfo) -> RegisterTile:
    """Return the shape of a panel of tiles: of one vector where V and M of two outgrow L2."""
    tile = sized_tile(device, problem.compute_itemsize)
    c = problem.in_channels // problem.groups
    both = sizes.elements * tile.nr * (c + tile.nr) * problem.compute_itemsize
    return tile if both <= device.l2 else RegisterTile(tile.mr, 1, tile.lanes)
