"""The output side of plan.py: products of a panel of tiles to finished outputs.

Products lie as ``M[tile, e, K]``, lanes are output channels. A tile is transformed back along each
axis with channels in the lanes; neighbouring tiles of one row are joined in L1::

    joined[row of the tiles, pixel] = one vector of channels

For channels-last outputs such a vector is what is stored. For channels-first outputs square blocks
of pixels x channels are transposed in registers (log2(lanes) shuffles a vector) and stored as
vectors of pixels, so neither order needs a scalar store. The transposition is 4 shuffles for a
vector of outputs that took ``C * elements / outputs`` multiply-adds.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from ..common.epilogue import make_epilogue_strided
from ..common.segments import SEGMENT_WORDS
from ..common.toom_cook_lines import call_lines
from ..simd.intrinsics import (
    add,
    clamp,
    get_word,
    load,
    load_masked,
    range_mask,
    splat,
    store,
    store_masked,
)
from ..simd.ir import F64, ITEMSIZE
from ..simd.register_tiles import RegisterTile
from ..simd.transposes import store_columns
from .fields import first_of

__all__ = ["make_epilogue_panel"]


@functools.cache
def _make_inverse(lanes: int, compute: int) -> Any:
    """Return a function that transforms one tile of `lanes` channels back."""
    line = lanes * ITEMSIZE[compute]

    @numba.njit
    def inverse(g: Any, products: int, lines: int, more: int, joined: int, pixel_step: int) -> None:
        """Transform along depth, height, then width; pixels go `pixel_step` bytes apart."""
        source, step = products, g.element_pitch
        if g.kd > 1:
            plane = g.nh * g.nw
            call_lines(g.output_d, source, plane * step, lines, plane * line, plane, step, line)
            source, step = lines, line
        if g.kh > 1:
            for i in range(g.md):
                call_lines(
                    g.output_h, source + i * g.nh * g.nw * step, g.nw * step,
                    more + i * g.mh * g.nw * line, g.nw * line, g.nw, step, line,
                )  # fmt: skip
            source, step = more, line
        rows, row = g.md * g.mh, g.mw * pixel_step if g.folded else g.joined_pitch
        call_lines(g.output_w, source, step, joined, pixel_step, rows, g.nw * step, row)

    return inverse


@functools.cache
def _make_store_row(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that stores one row of joined pixels for up to `lanes` channels."""
    item, size, full = ITEMSIZE[storage], ITEMSIZE[compute], (1 << lanes) - 1
    line = lanes * size
    end_strided = make_epilogue_strided(lanes, storage, compute)
    as_compute = np.float64 if compute == F64 else np.float32

    @numba.njit
    def store_pixels(g: Any, joined: int, width: int, channels: int, bias: int, out: int) -> None:
        """Store pixel by pixel, as neighbours in memory are channels, what is plain."""
        mask = range_mask(0, channels)
        shift = load_masked(bias, mask, compute, lanes)
        low, high = splat(as_compute(g.low), lanes), splat(as_compute(g.high), lanes)
        for pixel in range(width):
            value = add(load(joined + pixel * line, compute, lanes), shift)
            value = clamp(value, low, high)
            if channels == lanes:
                store(out + pixel * g.yw, value, storage)
            else:
                store_masked(out + pixel * g.yw, value, mask, storage)

    @numba.njit
    def store_across(
        g: Any, joined: int, width: int, channels: int, bias: int, out: int, residual: int,
        scratch: int,
    ) -> None:  # fmt: skip
        """Store pixel by pixel what needs more."""
        shift = load_masked(bias, range_mask(0, channels), compute, lanes)
        for pixel in range(width):
            at = joined + pixel * line
            store(at, add(load(at, compute, lanes), shift), compute)
            end_strided(
                g, at, 0.0, out + pixel * g.yw, g.yc, residual + pixel * g.rw, g.rc,
                bias + g.slopes_at, size, channels, scratch,
            )  # fmt: skip

    @numba.njit
    def store_row(
        g: Any, joined: int, width: int, channels: int, bias: int, out: int, residual: int,
        scratch: int,
    ) -> None:  # fmt: skip
        if g.plain and g.yw != item:
            store_pixels(g, joined, width, channels, bias, out)
        elif g.plain:
            for start in range(0, width, lanes):
                store_columns(
                    joined + start * line, bias, g.low, g.high, out + start * item, g.yc, channels,
                    range_mask(0, min(lanes, width - start)), storage, compute, lanes,
                )  # fmt: skip
        elif g.yc == item:
            store_across(g, joined, width, channels, bias, out, residual, scratch)
        else:
            for start in range(0, width, lanes):
                store_columns(
                    joined + start * line, bias, -math.inf, math.inf, scratch + line, line,
                    channels, full, compute, compute, lanes,
                )  # fmt: skip
                for c in range(channels):
                    end_strided(
                        g, scratch + line + c * line, 0.0, out + c * g.yc + start * g.yw, g.yw,
                        residual + c * g.rc + start * g.rw, g.rw, bias + c * size + g.slopes_at, 0,
                        min(lanes, width - start), scratch,
                    )  # fmt: skip

    return store_row


@functools.cache
def make_epilogue_panel(tile: RegisterTile, storage: int, compute: int) -> Any:
    """Return a function that brings the products of one panel of tiles to `out`."""
    lanes, size = tile.lanes, ITEMSIZE[compute]
    line = lanes * size
    inverse = _make_inverse(lanes, compute)
    store_row = _make_store_row(lanes, storage, compute)

    @numba.njit
    def store_rows(
        g: Any, joined: int, d0: int, h0: int, w: int, width: int, channels: int, bias: int,
        out: int, residual: int, scratch: int,
    ) -> None:  # fmt: skip
        """Store the rows of joined pixels; d0, h0, w are the first of them."""
        for i in range(g.md):
            for j in range(g.rows_out):
                d, h = d0 + i * g.qd, h0 + j * g.qh
                if d < g.od and h < g.oh and w < g.ow:
                    store_row(
                        g, joined + (i * g.rows_out + j) * g.joined_pitch, min(width, g.ow - w),
                        channels, bias, out + d * g.yd + h * g.yh + w * g.yw,
                        residual + d * g.rd + h * g.rh + w * g.rw, scratch,
                    )  # fmt: skip

    @numba.njit
    def join_tiles(
        g: Any, products: int, d: int, h: int, tile: int, tiles: int, channels: int, bias: int,
        out: int, residual: int, worker: int,
    ) -> None:  # fmt: skip
        """Join and store some whole groups, or tiles of one group."""
        joined, group = worker + g.joined_at, min(tiles, g.uw)
        for t in range(tiles):
            at = joined + (t // group * group * g.width_outputs + t % group) * line
            inverse(
                g, products + t * g.tile_pitch, worker + g.lines_at, worker + g.more_lines_at, at,
                group * line,
            )  # fmt: skip
        # Outputs of whole groups lie side by side, those of a part are as many pieces as a tile's.
        pieces = 1 if group == g.uw else g.width_outputs
        width = tiles * g.width_outputs // pieces
        w = first_of(tile, g.uw, 1, g.width_outputs * g.qw)
        for piece in range(pieces):
            store_rows(
                g, joined + piece * width * line, d, h, w + piece * g.qw, width, channels, bias,
                out, residual, worker + g.scratch_at,
            )  # fmt: skip

    @numba.njit
    def epilogue_panel(
        g: Any, products: int, channels: int, segments: int, count: int, bias: int, out: int,
        residual: int, worker: int,
    ) -> None:  # fmt: skip
        for s in range(count):
            words = segments + 8 * SEGMENT_WORDS * s
            lane, end = get_word(words, 0), get_word(words, 0) + get_word(words, 1)
            d = first_of(get_word(words, 2), g.ud, 1, g.md * g.qd)
            h = first_of(get_word(words, 3), g.uh, 1, g.mh * g.qh)
            tile = get_word(words, 4)
            while lane < end:
                tiles = min(g.joined_tiles, end - lane)
                behind = tile % g.uw
                if behind > 0 or tiles < g.uw:
                    tiles = min(tiles, g.uw - behind)
                else:
                    tiles -= tiles % g.uw
                for k in range(0, channels, lanes):
                    join_tiles(
                        g, products + lane * g.tile_pitch + k * size, d, h, tile, tiles,
                        min(lanes, channels - k), bias + k * size, out + k * g.yc,
                        residual + k * g.rc, worker,
                    )  # fmt: skip
                lane, tile = lane + tiles, tile + tiles

    return epilogue_panel
