"""Resizing where the channels of a pixel are neighbours: lanes are channels.

::

    task = output rows x segments of a row, of one image
      for segment of a row
        for output row
          sum up the pixels of the input rows that it takes, a row at a time         a buffer in L2
          for output pixel: sum up the buffer's pixels that it takes

Where columns are two or more samples apart, or a pixel is copied, most of what a buffer would hold
is read once or not at all: then each output pixel is summed up from the input where it lies.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import get_word, load_scalar, set_word, store_scalar
from ..simd.ir import F64, ITEMSIZE, compute_code
from .blend import make_blend, make_list_row
from .costs import CHUNK
from .fields import view
from .taps import make_entry

__all__ = ["make_copied_pixels", "make_pixels"]


@functools.cache
def _make_columns(rule: int, transposed: int) -> Any:
    """Return a function that finds the entries of a segment's pixels, and what they reach over.

    It returns their address, the first pixel that is read and the one behind the last.
    """
    entry = make_entry(rule, transposed)

    @numba.njit
    def columns(g: Any, memory: int, first: int, count: int) -> Any:
        entries, low, high = g.column_table + first * g.column_entry, 1 << 62, 0
        if not g.column_table:
            entries = memory + g.columns_at
        for w in range(count):
            room = entries + w * g.column_entry
            if not g.column_table:
                entry(0, 0, room, first + w, g.step_w, g.align, g.iw, g.ow)
            for tap in range(get_word(room, 0)):
                low = min(low, get_word(room, 1 + 2 * tap))
                high = max(high, get_word(room, 1 + 2 * tap) + 1)
        return entries, min(low, high), high

    return columns


@functools.cache
def _make_pixel(lanes: int, storage: int, weighted: int) -> Any:
    """Return a function that sums up blended pixels into one that is stored."""
    compute, most, double = compute_code(storage), CHUNK, F64
    size = ITEMSIZE[compute]
    blend = make_blend(lanes, compute, storage, weighted, 1)
    sum_up = make_blend(lanes, compute, compute, weighted, 1)

    @numba.njit
    def pixel(g: Any, memory: int, entry: int, low: int, to: int) -> None:
        rows, taps, channels = memory + g.list_at, get_word(entry, 0), g.interleaved
        start, room = memory + g.buffers_at, memory + g.result_at
        for first in range(0, max(taps, 1), most):
            count = min(most, taps - first)
            for number in range(count):
                place = get_word(entry, 1 + 2 * (first + number)) - low
                set_word(rows, 2 * number, start + place * channels * size)
                weight = load_scalar(entry + 16 + 16 * (first + number), double)
                store_scalar(rows + 16 * number + 8, weight, double)
            if taps <= most:
                blend(rows, count, 0, 0, channels, to, 0)
            else:
                sum_up(rows, count, 0, 0, channels, room, int(first > 0))
        if taps > most:
            set_word(rows, 0, room)
            store_scalar(rows + 8, 1.0, double)
            blend(rows, 1, 0, 0, channels, to, 0)

    return pixel


@functools.cache
def _make_mix(rule: int, transposed: int, lanes: int, storage: int) -> Any:
    """Return a function that blends the pixels of a segment, for one output row."""
    begin, list_rows = make_list_row(rule, transposed)
    compute, most, item = compute_code(storage), CHUNK, ITEMSIZE[storage]
    size = ITEMSIZE[compute]
    blend = make_blend(lanes, storage, compute, 1, 1)

    @numba.njit
    def mix(g: Any, memory: int, source: int, row: int, pixels: int) -> None:
        rows, buffer, channels = memory + g.list_at, memory + g.buffers_at, g.interleaved
        depth, height = begin(g, memory, row // g.oh, row % g.oh)
        first, onto = 0, 0
        while True:
            count = list_rows(g, memory, depth, height, source, first)
            if count == 0 and onto:
                return
            if g.xw == channels * item:
                blend(rows, count, 0, 0, pixels * channels, buffer, onto)
            else:
                for p in range(pixels):
                    to = buffer + p * channels * size
                    blend(rows, count, p * g.xw, 0, channels, to, onto)
            if count < most:
                return
            first, onto = first + count, 1

    return mix


@functools.cache
def make_pixels(rule: int, transposed: int, lanes: int, storage: int) -> Any:
    """Return the task that blends rows and then pixels."""
    columns, mix = _make_columns(rule, transposed), _make_mix(rule, transposed, lanes, storage)
    pixel = _make_pixel(lanes, storage, 1)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        memory = workspace + worker * g.worker_bytes
        s, rest = number % g.segment_blocks * g.segment_block, number // g.segment_blocks
        r, image = rest % g.row_blocks * g.row_block, rest // g.row_blocks
        for segment in range(s, min(s + g.segment_block, g.segments)):
            first = segment * g.span
            count = min(g.span, g.ow - first)
            entries, low, high = columns(g, memory, first, count)
            source = x + image * g.xn + low * g.xw
            for row in range(r, min(r + g.row_block, g.od * g.oh)):
                mix(g, memory, source, row, high - low)
                to = out + image * g.yn + row // g.oh * g.yd + row % g.oh * g.yh + first * g.yw
                for w in range(count):
                    pixel(g, memory, entries + w * g.column_entry, low, to + w * g.yw)

    return task


@functools.cache
def make_copied_pixels(rule: int, lanes: int, storage: int, weighted: int) -> Any:
    """Return the task that sums up, or copies, input pixels where they lie."""
    columns, (begin, list_rows) = _make_columns(rule, 0), make_list_row(rule, 0)
    blend, double = make_blend(lanes, storage, storage, weighted, 1), F64

    @numba.njit
    def spread(g: Any, rows: int, listed: int, entry: int) -> int:
        """List the pixels of an output behind the rows that they lie in."""
        found, taps = listed, get_word(entry, 0)
        for row in range(listed):
            outer = load_scalar(rows + 16 * row + 8, double)
            for tap in range(taps):
                at = get_word(rows, 2 * row) + get_word(entry, 1 + 2 * tap) * g.xw
                set_word(rows, 2 * found, at)
                weight = outer * load_scalar(entry + 16 + 16 * tap, double)
                store_scalar(rows + 16 * found + 8, weight, double)
                found += 1
        return found - listed

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        memory = workspace + worker * g.worker_bytes
        rows = memory + g.list_at
        s, rest = number % g.segment_blocks * g.segment_block, number // g.segment_blocks
        r, image = rest % g.row_blocks * g.row_block, rest // g.row_blocks
        for segment in range(s, min(s + g.segment_block, g.segments)):
            first = segment * g.span
            count = min(g.span, g.ow - first)
            entries = columns(g, memory, first, count)[0]
            for row in range(r, min(r + g.row_block, g.od * g.oh)):
                depth, height = begin(g, memory, row // g.oh, row % g.oh)
                listed = list_rows(g, memory, depth, height, x + image * g.xn, 0)
                to = out + image * g.yn + row // g.oh * g.yd + row % g.oh * g.yh + first * g.yw
                for w in range(count):
                    pixels = spread(g, rows, listed, entries + w * g.column_entry)
                    blend(rows + 16 * listed, pixels, 0, 0, g.interleaved, to + w * g.yw, 0)

    return task
