"""The input side of plan.py with channels in the lanes, V[e, C / lanes, tile, lane].

::

    for tile
      for block of `lanes` channels
        B^T along the width of the n_d * n_h rows of a tile                           lines in L1
        B^T along the height, along the depth                                         V in L2

A sample is one vector of neighbouring channels, so nothing is shuffled: tiles may lie in any
distance, sub-grids too, and a transform reads the input in place. Only where a tile reaches into
the padding, channels do not fill the vector or elements are to be widened, its samples are first
copied into L1 with zeros where there are none: two instructions an element, of some ten.

A block's tiles are what gemm/tile.py calls adjacent: `lanes` steps of a row of the product lie side
by side.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..common.segments import SEGMENT_WORDS, make_list_segments
from ..common.toom_cook_lines import call_lines
from ..simd.intrinsics import get_word, load_masked, range_mask, store
from ..simd.ir import ITEMSIZE
from ..simd.register_tiles import RegisterTile
from .fields import first_of, transform_lines

__all__ = ["make_transform_channels"]


@functools.cache
def _make_transform_tile(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that transforms one tile of one block of channels into V."""
    line = lanes * ITEMSIZE[compute]

    @numba.njit
    def copy_samples(
        g: Any, source: int, d: int, h: int, w: int, channels: int, patch: int
    ) -> None:
        """Copy a tile's samples side by side."""
        step, mask = g.dw * g.source_w, range_mask(0, channels)
        for i in range(g.ed):
            for j in range(g.eh):
                row = source + i * g.dd * g.source_d + j * g.dh * g.source_h
                inside = 0 <= d + i * g.dd < g.id and 0 <= h + j * g.dh < g.ih
                for k in range(g.ew):
                    here = mask if inside and 0 <= w + k * g.dw < g.iw else 0
                    store(patch, load_masked(row + k * step, here, storage, lanes), compute)
                    patch += line

    @numba.njit
    def transform_tile(
        g: Any, source: int, d: int, h: int, w: int, channels: int, v: int, worker: int
    ) -> None:
        """Transform the tile that begins at `source`, the sample d, h, w."""
        plane, row, step = g.dd * g.source_d, g.dh * g.source_h, g.dw * g.source_w
        inside = 0 <= d and d + (g.ed - 1) * g.dd < g.id and 0 <= h
        inside = inside and h + (g.eh - 1) * g.dh < g.ih and 0 <= w
        inside = inside and w + (g.ew - 1) * g.dw < g.iw
        if not inside or channels < lanes or storage != compute:
            copy_samples(g, source, d, h, w, channels, worker + g.patch_at)
            source, step = worker + g.patch_at, line
            row, plane = g.ew * line, g.eh * g.ew * line
        lines = worker + g.lines_at
        if g.kd == 1 and g.kh == 1:
            call_lines(g.input_w, source, step, v, g.element_bytes, 1, step, line)
            return
        for i in range(g.ed):
            call_lines(
                g.input_w, source + i * plane, step, lines + i * g.nh * g.nw * line, line, g.eh,
                row, g.nw * line,
            )  # fmt: skip
        transform_lines(g, lines, v, line)

    return transform_tile


@functools.cache
def make_transform_channels(panel: RegisterTile, storage: int, compute: int) -> Any:
    """Return a function that transforms one panel of tiles for some channels."""
    lanes, nr = panel.lanes, panel.nr
    line = lanes * ITEMSIZE[compute]
    list_segments = make_list_segments(nr)
    transform_tile = _make_transform_tile(lanes, storage, compute)

    @numba.njit
    def transform_panel(
        g: Any, source: int, number: int, width: int, c0: int, c1: int, v: int, worker: int
    ) -> None:
        segments = worker + g.segments_at
        for s in range(list_segments(g.region, number * nr, segments)):
            words = segments + 8 * SEGMENT_WORDS * s
            d = first_of(get_word(words, 2), g.ud, g.sd, g.ad * g.dd) - g.pd
            h = first_of(get_word(words, 3), g.uh, g.sh, g.ah * g.dh) - g.ph
            row = source + d * g.source_d + h * g.source_h
            for t in range(get_word(words, 1)):
                w = first_of(get_word(words, 4) + t, g.uw, g.sw, g.aw * g.dw) - g.pw
                at, to = row + w * g.source_w, v + (get_word(words, 0) + t) * line
                for c in range(c0, c1, lanes):
                    block = c // lanes
                    transform_tile(
                        g, at + block * g.source_c, d, h, w, min(lanes, g.c - c),
                        to + block * g.v_step, worker,
                    )  # fmt: skip

    return transform_panel
