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
from ..simd.intrinsics import add, get_word, load, load_gather, range_mask, splat, store
from ..simd.ir import F64, ITEMSIZE, compute_code
from ..simd.register_tiles import RegisterTile
from ..simd.transposes import transpose_masked

__all__ = ["CHUNK", "FIELDS", "make_kernel"]

#: Pixels that are copied at once and summed apart: a power of two, as the register tile wants it.
CHUNK = 256
#: Sums of so many chunks are added up apart, so that an error hardly grows with their number.
_CHUNKS = 64

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
    """Return a function that adds a chunk's products to the sums: rows of one tap at a time."""
    mr, nr, size, row = tile.mr, tile.nr, ITEMSIZE[compute], CHUNK * ITEMSIZE[compute]

    @numba.njit
    def multiply(
        g: Any, rows: int, channels: int, columns: int, pitch: int, pixels: int, width: int,
        sums: int,
    ) -> None:  # fmt: skip
        taps = g.kd * g.kh * g.kw
        for k in range(0, width, nr):
            for tap in range(taps):
                for c in range(0, channels, mr):
                    to = sums + (c * taps + tap) * g.sums_pitch + k * size
                    arguments = TileArguments(
                        a=rows + (tap * channels + c) * row, a_step=0, b=columns + k * size,
                        b_step=pitch, kc=pixels, c=to,
                        c_pitch=taps * g.sums_pitch, bias=sums, accumulate=1, low=-math.inf,
                        high=math.inf, width=min(nr, width - k),
                    )  # fmt: skip
                    call_tile(g.tile, arguments, min(mr, channels - c))

    return multiply


@functools.cache
def _make_totals(lanes: int, compute: int) -> Any:
    """Return functions that clear rows of sums, and that move them to the totals."""
    line = lanes * ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32

    @numba.njit
    def clear(sums: int, size: int) -> None:
        zero = splat(as_compute(0.0), lanes)
        for at in range(0, size, line):
            store(sums + at, zero, compute)

    @numba.njit
    def move(sums: int, totals: int, size: int) -> None:
        zero = splat(as_compute(0.0), lanes)
        for at in range(0, size, line):
            total = add(load(totals + at, compute, lanes), load(sums + at, compute, lanes))
            store(totals + at, total, compute)
            store(sums + at, zero, compute)

    return clear, move


@functools.cache
def make_kernel(tile: RegisterTile, storage: int) -> Any:
    """Return the task: see the loop nest of plan.py."""
    compute, lanes, most = compute_code(storage), tile.lanes, CHUNK
    item, size, often = ITEMSIZE[storage], ITEMSIZE[compute], _CHUNKS
    pack_pixels = make_pack_pixels(CHUNK, lanes, storage, compute)
    copy_gradients, multiply = _make_copy_gradients(lanes, storage), _make_multiply(tile, compute)
    clear, move = _make_totals(lanes, compute)
    list_segments = make_list_segments(CHUNK)

    @numba.njit
    def store_weight(g: Any, totals: int, rows: int, width: int, out: int) -> None:
        for row in range(0, rows, lanes):
            for k in range(0, width, lanes):
                transpose_masked(
                    totals + row * g.sums_pitch + k * size, g.sums_pitch, min(lanes, rows - row),
                    min(lanes, width - k), out + k * g.wk + row * item, g.wk, compute, storage,
                    lanes,
                )  # fmt: skip

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
        sums, totals = w + g.sums_at, w + g.totals_at
        total_bytes, pitch = channels * taps * g.sums_pitch, g.sums_pitch
        clear(sums, total_bytes)
        clear(totals, total_bytes)
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
                    g, gradients, width, w + g.segments_at, count, w + g.columns_at, pitch
                )
                multiply(
                    g, w + g.rows_at, channels, w + g.columns_at, pitch, min(most, pixels - first),
                    width, sums,
                )  # fmt: skip
                done += 1
                if done % often == 0:
                    move(sums, totals, total_bytes)
        move(sums, totals, total_bytes)
        place = out + (group * g.k + k0) * g.wk + c0 * taps * item
        store_weight(g, totals, channels * taps, width, place)

    return task
