"""The geometry of plan.py in machine code: what its tasks read from the record."""

from __future__ import annotations

from typing import Any

import numba

from ..common.epilogue import EPILOGUE_FIELDS
from ..common.toom_cook_lines import call_lines
from ..runtime.record import as_record

__all__ = ["FIELDS", "TRANSFORMS", "first_of", "transform_lines", "view"]

#: Addresses of the transforms; 0 where an axis has none.
TRANSFORMS = (
    "gather",
    "input_w",
    "input_h",
    "input_d",
    "output_d",
    "output_h",
    "output_w",
    "weight_d",
    "weight_plane",
)

FIELDS = (
    *EPILOGUE_FIELDS,
    "region",  # address of the region of all tiles
    "image_panels",  # panels of one image
    "block_panels",  # panels of one task
    "blocks",  # tasks along the panels of all images
    "part_panels",  # panels of K of one part
    "parts",  # parts of K
    "channel_block",  # input channels of one sum
    "shared",  # 1: the first stage has transformed the input
    "plain",  # 1: outputs need no more than a bias and a clamp, and lie side by side
    "streamed",  # 1: the transformed weight is stored past the caches
    "weight_is_contiguous",  # 1: a filter's channels and taps are contiguous
    "tile",  # address of the micro-kernel
    "zeros",  # address of mr zeros, from which products start
    "panel_bytes",  # V of one panel
    "element_bytes",  # V of one element of a tile
    "v_step",  # bytes of V from a channel, or a block of channels in the lanes, to the next
    "shared_at",  # V where threads share it
    "weight_bytes",  # U of one group
    "u_step",  # U of one element of a tile
    "element_pitch",  # bytes from one element of a tile's products to the next
    "tile_pitch",  # bytes from one tile's products to the next
    "joined_pitch",  # bytes from one row of joined outputs to the next
    "joined_tiles",  # tiles that are joined at once
    "worker_at",  # where the workers' own memory begins
    "worker_bytes",
    "pack_worker_bytes",
    "products_at",  # M
    "lines_at",  # lines between two passes
    "more_lines_at",
    "joined_at",  # rows of outputs
    "segments_at",
    "pieces_at",  # where the samples of a vector of tiles lie
    "patch_at",  # a tile's samples
    "scratch_at",
    # By axis: outputs and elements of a tile, tiles, sub-grids, distance of a sub-grid's outputs,
    # samples from one of its tiles to the next, samples that a tile reads.
    *(f"{letter}{axis}" for letter in "mntuqae" for axis in "dhw"),
    "folded",  # 1: height and width of a tile lie along the width
    "rows_in",  # rows of samples and of outputs along a tile's height
    "rows_out",
    "width_outputs",  # outputs of a tile along the width
    # Where tiles are read: in the input itself, or in its copy at the workspace's start.
    "across",  # 1: with channels in the lanes, not tiles
    "copied",  # 1: in the copy
    # Bytes between its images, groups, channels (blocks of those in the lanes), planes, ...
    *(f"source_{letter}" for letter in "ngcdhw"),
    "shifts",  # so many neighbours' first samples a tile reaches, its own among them
    *TRANSFORMS,
)
view = as_record(FIELDS)


@numba.njit
def first_of(tile: int, grids: int, step: int, advance: int) -> int:
    """Return where a tile begins on an axis: sub-grids `step` apart, their tiles `advance`."""
    return tile % grids * step + tile // grids * advance


@numba.njit
def transform_lines(g: Any, lines: int, v: int, line: int) -> None:
    """Transform vectors along height and depth into V; along the width they are transformed."""
    row, plane = g.nw * line, g.nh * g.nw * line
    if g.kd > 1:
        if g.kh > 1:
            for i in range(g.ed):
                at = lines + i * plane
                call_lines(g.input_h, at, row, at, row, g.nw, line, line)
        step = g.nh * g.nw * g.element_bytes
        call_lines(g.input_d, lines, plane, v, step, g.nh * g.nw, line, g.element_bytes)
    else:
        call_lines(g.input_h, lines, row, v, g.nw * g.element_bytes, g.nw, line, g.element_bytes)
