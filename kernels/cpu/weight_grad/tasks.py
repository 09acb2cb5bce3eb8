"""The machine code of plan.py: rows of samples, columns of gradients, their products, the store."""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from ..common.segments import SEGMENT_WORDS, make_list_segments
from ..gemm.pack import make_pack_pixels
from ..gemm.tile import TileArguments, call_tile
from ..runtime.record import as_record
from ..simd.intrinsics import (
    add,
    get_word,
    load,
    load_gather,
    range_mask,
    store,
    store_scalar,
)
from ..simd.ir import F64, ITEMSIZE, compute_code
from ..simd.register_tiles import RegisterTile
from ..simd.transposes import transpose_masked

__all__ = ["CHUNK", "CHUNKS_AT_ONCE", "FIELDS", "make_kernel", "make_store_weight"]

#: Pixels that are copied at once and summed apart: a power of two, as the register tile wants it.
CHUNK = 256
#: Sums of so many chunks are added up apart, so that an error hardly grows with their number.
CHUNKS_AT_ONCE = 64

FIELDS = (
    "channel_block",  # input channels of one task
    "channel_blocks",  # tasks along them
    "part_columns",  # output channels of one task
    "parts",  # tasks along them
    "sums_pitch",  # bytes between the sums of successive taps
    "tile",  # address of the register tile
    "region",  # address of the one region's words
    "worker_bytes",
    "rows_at",  # samples
    "columns_at",  # gradients
    "sums_at",
    "totals_at",
    "zeros_at",  # what sums start from
    "segments_at",
    "chunks_at",
)
view = as_record(FIELDS)


@functools.cache
def _make_copy_gradients(lanes: int, storage: int) -> Any:
    """Return a function that brings the gradients of a chunk's pixels into lanes of channels."""
    compute = compute_code(storage)
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]

    @numba.njit
    def copy_gradients(
        g: Any, grad: int, columns: int, segments: int, count: int, target: int, pitch: int
    ) -> None:
        for s in range(count):
            words = segments + 8 * SEGMENT_WORDS * s
            first, length = get_word(words, 0), get_word(words, 1)
            d, h, w = get_word(words, 2), get_word(words, 3), get_word(words, 4)
            source = grad + d * g.yd + h * g.yh + w * g.yw
            for k in range(0, columns, lanes):
                to = target + first * pitch + k * size
                width = min(lanes, columns - k)
                if g.yw == item:
                    for p in range(0, length, lanes):
                        transpose_masked(
                            source + k * g.yc + p * item, g.yc, width, min(lanes, length - p),
                            to + p * pitch, pitch, storage, compute, lanes,
                        )  # fmt: skip
                    continue
                mask = range_mask(0, width)
                for p in range(length):
                    value = load_gather(source + k * g.yc + p * g.yw, g.yc, mask, storage, lanes)
                    store(to + p * pitch, value, compute)

    return copy_gradients


@functools.cache
def _make_multiply(tile: RegisterTile, compute: int) -> Any:
    """Return a function that makes a chunk's products, and adds them to the sums or is them."""
    mr, nr, size, row = tile.mr, tile.nr, ITEMSIZE[compute], CHUNK * ITEMSIZE[compute]

    @numba.njit
    def multiply(
        g: Any, rows: int, count: int, columns: int, pixels: int, width: int, sums: int,
        zeros: int, accumulate: int,
    ) -> None:  # fmt: skip
        for k in range(0, width, nr):
            for r in range(0, count, mr):
                arguments = TileArguments(
                    a=rows + r * row, a_step=0, b=columns + k * size, b_step=g.sums_pitch,
                    kc=pixels, c=sums + r * g.sums_pitch + k * size, c_pitch=g.sums_pitch,
                    bias=zeros, accumulate=accumulate, low=-math.inf, high=math.inf,
                    width=min(nr, width - k),
                )  # fmt: skip
                call_tile(g.tile, arguments, min(mr, count - r))

    return multiply


@functools.cache
def _make_move(lanes: int, compute: int) -> Any:
    """Return a function that moves sums, rows by tap and channel, to totals by channel and tap."""
    line = lanes * ITEMSIZE[compute]

    @numba.njit
    def move(g: Any, sums: int, totals: int, channels: int, added: int) -> None:
        taps = g.kd * g.kh * g.kw
        for tap in range(taps):
            for c in range(channels):
                source = sums + (tap * channels + c) * g.sums_pitch
                target = totals + (c * taps + tap) * g.sums_pitch
                for at in range(0, g.sums_pitch, line):
                    value = load(source + at, compute, lanes)
                    if added:
                        value = add(load(target + at, compute, lanes), value)
                    store(target + at, value, compute)

    return move


@functools.cache
def make_store_weight(lanes: int, storage: int) -> Any:
    """Return a function that brings sums, [channel, tap, K], to a weight (K, channels, taps)."""
    compute = compute_code(storage)
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]

    @numba.njit
    def store_weight(g: Any, totals: int, rows: int, width: int, out: int) -> None:
        for row in range(0, rows, lanes):
            for k in range(0, width, lanes):
                transpose_masked(
                    totals + row * g.sums_pitch + k * size, g.sums_pitch, min(lanes, rows - row),
                    min(lanes, width - k), out + k * g.wk + row * item, g.wk, compute, storage,
                    lanes,
                )  # fmt: skip

    return store_weight


@functools.cache
def make_kernel(tile: RegisterTile, storage: int) -> Any:
    """Return the task: see the loop nest of plan.py."""
    compute, lanes, most, mr = compute_code(storage), tile.lanes, CHUNK, tile.mr
    as_compute = np.float64 if compute == F64 else np.float32
    item, size, often = ITEMSIZE[storage], ITEMSIZE[compute], CHUNKS_AT_ONCE
    pack_pixels = make_pack_pixels(CHUNK, lanes, storage, compute)
    copy_gradients, multiply = _make_copy_gradients(lanes, storage), _make_multiply(tile, compute)
    move = _make_move(lanes, compute)
    list_segments, store_weight = make_list_segments(CHUNK), make_store_weight(lanes, storage)

    def task(
        geometry: int, x: int, grad: int, bias: int, extra: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        part, rest = number % g.parts, number // g.parts
        block, group = rest % g.channel_blocks, rest // g.channel_blocks
        c0 = block * g.channel_block
        channels = min(g.channel_block, g.c - c0)
        k0 = part * g.part_columns
        width = min(g.part_columns, g.k - k0)
        taps, pixels = g.kd * g.kh * g.kw, g.od * g.oh * g.ow
        w = workspace + worker * g.worker_bytes
        sums, totals, zeros = w + g.sums_at, w + g.totals_at, w + g.zeros_at
        for i in range(mr):
            store_scalar(zeros + i * size, as_compute(0.0), compute)
        done = 0
        for image in range(g.n):
            source = x + image * g.xn + group * g.c * g.xc
            gradients = grad + image * g.yn + (group * g.k + k0) * g.yc
            for first in range(0, pixels, most):
                pack_pixels(
                    g, g.region, source, c0, c0 + channels, first, w + g.segments_at,
                    w + g.chunks_at, w + g.rows_at,
                )  # fmt: skip
                count = list_segments(g.region, first, w + g.segments_at)
                copy_gradients(
                    g, gradients, width, w + g.segments_at, count, w + g.columns_at, g.sums_pitch
                )
                multiply(
                    g, w + g.rows_at, channels * taps, w + g.columns_at, min(most, pixels - first),
                    width, sums, zeros, int(done % often > 0),
                )  # fmt: skip
                done += 1
                if done % often == 0:
                    move(g, sums, totals, channels, int(done > often))
        if done % often:
            move(g, sums, totals, channels, int(done > often))
        place = out + (group * g.k + k0) * g.wk + c0 * taps * item
        store_weight(g, totals, channels * taps, width, place)

    return task
