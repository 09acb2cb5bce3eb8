"""Packers: bring weights and patches of the input into the order of the register tile.

Pixels are numbered through the rows of a *region* (regions.py; the whole output and all taps,
unless a kernel says otherwise). A panel of nr pixels is cut into *segments*, each within one output
row, and those into *chunks* that fit a vector. A chunk's address is worked out once a tap and used
for every channel; so is its mask where some tap reaches over the border.

Panels of bfloat16 pairs (`BF16_PAIR`) hold channels 2 i and 2 i + 1 of a tap in one word; the word
of an odd last channel ends in zero. A step of the sum is then two channels, else one.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from ..common.copies import make_copy_vector, make_read_vector, pair_mask
from ..common.segments import SEGMENT_WORDS, make_list_segments
from ..simd.intrinsics import (
    get_word,
    load,
    load_gather,
    load_masked,
    load_scalar,
    low_half,
    merge_bits,
    pick_even,
    range_mask,
    set_word,
    store,
    store_masked,
    store_scalar,
)
from ..simd.ir import BF16, BF16_PAIR, DEPTH, F32, ITEMSIZE
from ..simd.transposes import transpose_masked

__all__ = [
    "CHUNK_WORDS",
    "make_pack_pixels",
    "make_pack_weights",
]

#: A chunk: for the tap at hand byte offset in the input and lane mask; byte offset in the panel;
#: mask of two vectors; then what the taps share: byte offset of the first tap, 1 where every tap is
#: inside, lanes, and the input's depth, height and width of the first tap.
CHUNK_WORDS = 10


@numba.njit
def _place_chunk(g: Any, kd: int, kh: int, kw: int, chunk: int) -> None:
    """Work out the masks of a chunk that reaches over the border for some taps.

    Where no lane is inside, the address is that of the channel: a load of no lane from a page that
    is not there takes some 600 cycles (the processor raises a fault and then suppresses it).
    """
    d, h = get_word(chunk, 7) + kd * g.dd, get_word(chunk, 8) + kh * g.dh
    w, length = get_word(chunk, 9) + kw * g.dw, get_word(chunk, 6)
    low = min(max(-(w // g.sw), 0), length)
    high = max(min((g.iw - 1 - w) // g.sw + 1, length), low)
    if not (0 <= d < g.id and 0 <= h < g.ih):
        high = low
    if high == low:
        set_word(chunk, 0, 0)
    set_word(chunk, 1, range_mask(low, high))
    set_word(chunk, 3, pair_mask(low, high))


def _make_list_chunks(lanes: int, size: int) -> Any:
    """Return functions that cut a panel's segments into chunks, and place them for one tap."""

    @numba.njit
    def list_chunks(g: Any, segments: int, count: int, chunks: int) -> int:
        """Write what all taps share, and whether every tap of a chunk lies inside the input."""
        made = 0
        reach_d, reach_h = (g.kd - 1) * g.dd, (g.kh - 1) * g.dh
        reach_w = (g.kw - 1) * g.dw
        for s in range(count):
            words = segments + 8 * SEGMENT_WORDS * s
            d = get_word(words, 2) * g.sd - g.pd
            h = get_word(words, 3) * g.sh - g.ph
            rows_inside = d >= 0 and d + reach_d < g.id and h >= 0 and h + reach_h < g.ih
            for start in range(0, get_word(words, 1), lanes):
                w = (get_word(words, 4) + start) * g.sw - g.pw
                length = min(lanes, get_word(words, 1) - start)
                inside = rows_inside and w >= 0 and w + (length - 1) * g.sw + reach_w < g.iw
                chunk = chunks + 8 * CHUNK_WORDS * made
                set_word(chunk, 1, range_mask(0, length))
                set_word(chunk, 2, (get_word(words, 0) + start) * size)
                set_word(chunk, 3, pair_mask(0, length))
                set_word(chunk, 4, d * g.xd + h * g.xh + w * g.xw)
                set_word(chunk, 5, int(inside))
                set_word(chunk, 6, length)
                set_word(chunk, 7, d)
                set_word(chunk, 8, h)
                set_word(chunk, 9, w)
                made += 1
        return made

    @numba.njit
    def place_chunks(g: Any, kd: int, kh: int, kw: int, chunks: int, made: int) -> None:
        """Write where each chunk begins for one tap, and its masks."""
        tap = kd * g.dd * g.xd + kh * g.dh * g.xh + kw * g.dw * g.xw
        for i in range(made):
            chunk = chunks + 8 * CHUNK_WORDS * i
            set_word(chunk, 0, get_word(chunk, 4) + tap)
            if not get_word(chunk, 5):
                _place_chunk(g, kd, kh, kw, chunk)

    return list_chunks, place_chunks


@functools.cache
def _make_copy_step(lanes: int, storage: int, panel: int) -> Any:
    """Return a function that copies one vector of a step of the sum.

    Its first channel is at `address`; `following` channels lie behind it, `xc` bytes apart.
    """
    if panel != BF16_PAIR:
        copy_vector = make_copy_vector(lanes, storage, panel)

        @numba.njit
        def copy_one(
            address: int, xc: int, following: int, step: int, mask: int, pair: int, target: int
        ) -> None:
            copy_vector(address, step, mask, pair, target)

        return copy_one

    read_vector, item = make_read_vector(lanes, storage), ITEMSIZE[storage]
    full = (1 << lanes) - 1

    @numba.njit(forceinline=True)
    def read_second(address: int, pair: int) -> Any:
        low = load_masked(address, pair & full, storage, lanes)
        return pick_even(low, load_masked(address + lanes * item, pair >> lanes, storage, lanes))

    @numba.njit
    def copy_strided(
        address: int, xc: int, following: int, step: int, mask: int, pair: int, target: int
    ) -> None:
        if following and xc == item:  # a pair is one word of the input
            store(target, load_gather(address, step, mask, F32, lanes), F32)
            return
        words = low_half(read_vector(address, step, mask, pair))
        if following:
            words = merge_bits(words, read_vector(address + xc, step, mask, pair))
        store(target, words, F32)

    @numba.njit(forceinline=True)
    def copy_pair(
        address: int, xc: int, following: int, step: int, mask: int, pair: int, target: int
    ) -> None:
        has_second = min(following, 1)  # else the empty load stays where no other thread writes
        if step == item:
            first = load_masked(address, mask, storage, lanes)
            second = load_masked(address + xc * has_second, mask * has_second, storage, lanes)
            store(target, merge_bits(low_half(first), second), F32)
        elif step == 2 * item:
            first = read_second(address, pair)
            second = read_second(address + xc * has_second, pair * has_second)
            store(target, merge_bits(low_half(first), second), F32)
        else:
            copy_strided(address, xc, following, step, mask, pair, target)

    return copy_pair


@functools.cache
def make_pack_pixels(nr: int, lanes: int, storage: int, panel: int) -> Any:
    """Return the packer of a panel of `nr` pixels: B[tap, channel, pixel] of channels c0 to c1.

    Every chunk stores a whole vector. What runs over its end is written again by the next chunk or
    the next row, so the panel needs one vector of room behind it and no masked store.
    """
    panel_step, depth = nr * ITEMSIZE[panel], DEPTH[panel]
    list_segments = make_list_segments(nr)
    list_chunks, place_chunks = _make_list_chunks(lanes, ITEMSIZE[panel])
    copy_step = _make_copy_step(lanes, storage, panel)

    @numba.njit
    def pack(
        g: Any,
        region: int,
        x: int,
        c0: int,
        c1: int,
        first: int,
        segments: int,
        chunks: int,
        b: int,
    ) -> int:
        count = list_segments(region, first, segments)
        made = list_chunks(g, segments, count, chunks)
        step = g.sw * g.xw
        for kd in range(get_word(region, 6), get_word(region, 9)):
            for kh in range(get_word(region, 7), get_word(region, 10)):
                for kw in range(get_word(region, 8), get_word(region, 11)):
                    place_chunks(g, kd, kh, kw, chunks, made)
                    for c in range(c0, c1, depth):
                        source = x + c * g.xc
                        for i in range(made):
                            chunk = chunks + 8 * CHUNK_WORDS * i
                            copy_step(
                                source + get_word(chunk, 0), g.xc, c1 - c - 1, step,
                                get_word(chunk, 1), get_word(chunk, 3), b + get_word(chunk, 2),
                            )  # fmt: skip
                        b += panel_step
        return count

    return pack


def _make_store_column(lanes: int, panel: int) -> Any:
    """Return a function that stores weights of one channel into the words of a step."""

    @numba.njit
    def store_one(address: int, column: Any, mask: int, channel: int) -> None:
        store_masked(address, column, mask, panel)

    @numba.njit
    def store_half(address: int, column: Any, mask: int, channel: int) -> None:
        words = low_half(column)
        if channel & 1:
            words = merge_bits(load_masked(address, mask, F32, lanes), column)
        store_masked(address, words, mask, F32)

    return store_half if panel == BF16_PAIR else store_one


def _make_pack_any(mr: int, storage: int, panel: int) -> Any:
    """Return a packer of weights that reads them one by one."""
    size, depth = ITEMSIZE[panel], DEPTH[panel]
    element, part = BF16 if panel == BF16_PAIR else panel, size // depth

    @numba.njit
    def pack_tap(g: Any, tap: int, rows: int, c0: int, channels: int, steps: int, a: int) -> None:
        for c in range(steps * depth):
            word = a + c // depth * mr * size + c % depth * part
            for i in range(rows):
                value = np.float32(0.0)
                if c < channels:
                    value = load_scalar(tap + (c0 + c) * g.wc + i * g.wk, storage)
                store_scalar(word + i * size, value, element)

    @numba.njit
    def pack_any(g: Any, weight: int, rows: int, channel_block: int, a: int) -> None:
        for c0 in range(0, g.c, channel_block):
            channels = min(channel_block, g.c - c0)
            steps = (channels + depth - 1) // depth
            for kd in range(g.kd):
                for kh in range(g.kh):
                    for kw in range(g.kw):
                        tap = weight + kd * g.wd + kh * g.wh + kw * g.ww
                        pack_tap(g, tap, rows, c0, channels, steps, a)
                        a += steps * mr * size

    return pack_any


@functools.cache
def make_pack_weights(mr: int, lanes: int, storage: int, panel: int) -> Any:
    """Return the packer of one A panel: A[channel block, tap, channel, row] of mr rows.

    Where taps and channels of the weight are contiguous, blocks of mr rows by `lanes`
    elements are transposed in registers; any other weight is read element by element.
    """
    item, size, depth = ITEMSIZE[storage], ITEMSIZE[panel], DEPTH[panel]
    store_column = _make_store_column(lanes, panel)
    pack_any = _make_pack_any(mr, storage, panel)

    @numba.njit
    def is_contiguous(g: Any) -> bool:
        """Tell whether a row of the weight is contiguous."""
        return (
            (g.ww == item or g.kw == 1)
            and (g.wh == g.kw * item or g.kh == 1)
            and (g.wd == g.kh * g.kw * item or g.kd == 1)
            and (g.wc == g.kd * g.kh * g.kw * item or g.c == 1)
        )

    @numba.njit
    def pack_contiguous(
        g: Any, weight: int, rows: int, channel_block: int, scratch: int, a: int
    ) -> None:
        taps = g.kd * g.kh * g.kw
        row_mask = range_mask(0, rows)
        c0, c, tap = 0, 0, 0
        channels = min(channel_block, g.c)
        steps = (channels + depth - 1) // depth
        for first in range(0, g.c * taps, lanes):
            columns = min(lanes, g.c * taps - first)
            transpose_masked(
                weight + first * item, g.wk, rows, columns, scratch, lanes * size,
                storage, panel, lanes,
            )  # fmt: skip
            for i in range(columns):
                step = c0 // depth * taps + tap * steps + (c - c0) // depth
                column = load(scratch + i * lanes * size, panel, lanes)
                store_column(a + step * mr * size, column, row_mask, c)
                tap += 1
                if tap == taps:
                    tap, c = 0, c + 1
                    if c == c0 + channels:
                        c0, channels = c, min(channel_block, g.c - c)
                        steps = (channels + depth - 1) // depth

    @numba.njit
    def pack(g: Any, weight: int, rows: int, channel_block: int, scratch: int, a: int) -> None:
        if rows <= lanes and is_contiguous(g):
            pack_contiguous(g, weight, rows, channel_block, scratch, a)
        else:
            pack_any(g, weight, rows, channel_block, a)

    return pack
