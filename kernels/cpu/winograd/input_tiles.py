"""The input side of plan.py with tiles in the lanes: gathered and transformed, V[e, C, tile].

::

    for vector of tiles
      list_pieces: where its samples lie          once for all channels
      for channel
        for the n_d * n_h rows of a tile
          load `step` vectors of samples, split into phases, B^T along the width      lines in L1
        B^T along the height, along the depth                                         V in L2

A vector holds one element of `lanes` tiles, which may lie in several rows of tiles. Their samples
are laid end to end, `step` from each tile, before they are split: a vector of samples is then a
piece of one row, or of two where a row ends inside it, and masked loads put it together without a
store. Padding is what no piece covers.

Of a folded tile one row of samples holds all rows, `m` samples from one to the next: they are
transformed along the width where they are split.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..common.segments import SEGMENT_WORDS, make_list_segments
from ..common.toom_cook_lines import MORE, PIECE_WORDS, call_gather
from ..simd.intrinsics import get_word, range_mask, set_word
from ..simd.ir import ITEMSIZE
from ..simd.register_tiles import RegisterTile
from .fields import first_of, transform_lines, view
from .input_channels import make_transform_channels

__all__ = ["STAGE_CHANNELS", "make_stage", "make_transform", "panel_width"]


def _make_list_pieces(lanes: int) -> Any:
    """Return a function that lists the pieces of one vector of tiles."""

    @numba.njit
    def place_segments(g: Any, segments: int, count: int) -> None:
        """Replace each segment's tile by its first sample: depth, height, and width of lane 0."""
        for s in range(count):
            words = segments + 8 * SEGMENT_WORDS * s
            d = first_of(get_word(words, 2), g.ud, g.sd, g.ad * g.dd) - g.pd
            h = first_of(get_word(words, 3), g.uh, g.sh, g.ah * g.dh) - g.ph
            w = (get_word(words, 4) - get_word(words, 0)) * g.aw - g.pw
            set_word(words, 2, d)
            set_word(words, 3, h)
            set_word(words, 4, w)

    @numba.njit
    def list_vector(
        g: Any, segments: int, count: int, i: int, j: int, begin: int, shift: int, table: int
    ) -> int:
        """List the pieces of a vector: samples `begin` to ``begin + lanes`` of a row's tiles."""
        pieces = 0
        for s in range(count):
            words = segments + 8 * SEGMENT_WORDS * s
            start = get_word(words, 0) * g.aw - begin
            stop = start + get_word(words, 1) * g.aw
            d, h = get_word(words, 2) + i * g.dd, get_word(words, 3) + j * g.dh
            w = get_word(words, 4) + begin
            low = max(start, -w - shift * g.aw, 0)
            high = min(stop, g.iw - w - shift * g.aw, lanes)
            if low < high and 0 <= d < g.id and 0 <= h < g.ih:
                entry = table + 8 * PIECE_WORDS * pieces
                at = d * g.source_d + h * g.source_h + (w + shift * g.aw) * g.source_w
                set_word(entry, 0, at)
                set_word(entry, 1, range_mask(low, high) + MORE)
                pieces += 1
        if pieces == 0:
            set_word(table, 0, 0)
            set_word(table, 1, MORE)
            pieces = 1
        table += 8 * PIECE_WORDS * pieces
        last = table - 8 * PIECE_WORDS
        set_word(last, 1, get_word(last, 1) - MORE)
        return table

    @numba.njit
    def list_pieces(g: Any, segments: int, count: int, table: int) -> None:
        place_segments(g, segments, count)
        for i in range(g.nd):
            for j in range(g.rows_in):
                for shift in range(g.shifts):
                    for begin in range(0, g.aw * lanes, lanes):
                        table = list_vector(g, segments, count, i, j, begin, shift, table)

    return list_pieces


@functools.cache
def _make_transform_tiles(tile: RegisterTile, compute: int) -> Any:
    """Return a function that transforms one panel of tiles for some channels."""
    lanes, nr, size = tile.lanes, tile.nr, ITEMSIZE[compute]
    line = lanes * size
    list_segments, list_pieces = make_list_segments(lanes), _make_list_pieces(lanes)

    @numba.njit
    def transform_panel(
        g: Any, source: int, panel: int, width: int, c0: int, c1: int, v: int, worker: int
    ) -> None:
        segments, pieces = worker + g.segments_at, worker + g.pieces_at
        lines, row = worker + g.lines_at, g.nw * line
        for start in range(0, width, lanes):
            count = list_segments(g.region, panel * nr + start, segments)
            list_pieces(g, segments, count, pieces)
            for c in range(c0, c1):
                target, channel = v + (c * nr + start) * size, source + c * g.source_c
                if g.kd == 1 and g.kh == 1:
                    call_gather(g.gather, pieces, channel, 1, target, 0, g.element_bytes)
                else:
                    call_gather(g.gather, pieces, channel, g.nd * g.rows_in, lines, row, line)
                    transform_lines(g, lines, target, line)

    return transform_panel


def make_transform(panel: RegisterTile, across: int, storage: int, compute: int) -> Any:
    """Return a function that transforms one panel of tiles, with channels or tiles in the lanes."""
    if across:
        return make_transform_channels(panel, storage, compute)
    return _make_transform_tiles(panel, compute)


@numba.njit
def panel_width(g: Any, nr: int, panel: int) -> int:
    """Return the tiles of a panel; the last of each image may not be full."""
    return min(nr, g.td * g.th * g.tw - panel % g.image_panels * nr)


#: Channels that one task of the first stage transforms.
STAGE_CHANNELS = 16


@functools.cache
def make_stage(panel: RegisterTile, across: int, storage: int, compute: int) -> Any:
    """Return the first stage's task: one panel of tiles, some channels, into shared memory."""
    nr = panel.nr
    transform_panel = make_transform(panel, across, storage, compute)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        chunks = (g.c + STAGE_CHANNELS - 1) // STAGE_CHANNELS
        chunk, rest = number % chunks, number // chunks
        at, image = rest % g.image_panels, rest // g.image_panels % g.n
        group = rest // (g.image_panels * g.n)
        mine = workspace + g.worker_at + worker * g.worker_bytes
        source = (workspace if g.copied else x) + image * g.source_n + group * g.source_g
        transform_panel(
            g, source, at, panel_width(g, nr, at), chunk * STAGE_CHANNELS,
            min((chunk + 1) * STAGE_CHANNELS, g.c),
            workspace + g.shared_at + rest * g.panel_bytes, mine,
        )  # fmt: skip

    return task
