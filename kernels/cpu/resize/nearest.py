"""Resizing by the nearest sample: what is enlarged is read once and stored to all that take it.

Output rows that take the same input row are a *run*. Where samples of a row are neighbours::

    task = planes (channels) x output rows x segments of a row
      for plane, for run: copy the segment's input row                        a buffer in L1
        for vector of output columns: pick elements of the buffer
          for row of the run: store

and where channels are neighbours::

    task = output rows x segments of a row, of one image
      for run, for output pixel
        for vector of channels: load it from the pixel that is taken
          for row of the run: store

Bound by stores, as resizing by 2 writes four times what it reads.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..machine.lines import LINE
from ..simd.intrinsics import (
    get_word,
    load,
    load_masked,
    range_mask,
    store,
    store_masked,
)
from ..simd.ir import ITEMSIZE, compute_code
from ..simd.picks import pick_places
from .blend import make_blend, make_list_row
from .columns import ColumnShape, make_store
from .costs import SEGMENT_HEADER
from .fields import view
from .pixels import make_entries
from .tables import make_segment

__all__ = ["make_nearest_pixels", "make_nearest_rows"]


@functools.cache
def _make_run(rule: int) -> Any:
    """Return a function that lists the input row of an output row, and counts the rows of its run.

    The run does not reach beyond row `end`, nor beyond the output's plane.
    """
    begin, list_rows = make_list_row(rule, 0)

    @numba.njit
    def run(g: Any, memory: int, source: int, row: int, end: int) -> int:
        d, h = row // g.oh, row % g.oh
        depth, height = begin(g, memory, d, h)
        list_rows(g, memory, depth, height, source, 0)
        taken, rows, most = get_word(height, 1), 1, min(end - row, g.oh - h)
        while rows < most and get_word(begin(g, memory, d, h + rows)[1], 1) == taken:
            rows += 1
        return rows

    return run


@functools.cache
def _make_pick(shape: ColumnShape) -> Any:
    """Return a function that stores a segment's columns to the rows of a run."""
    reach, lanes, before = shape.reach, shape.lanes, SEGMENT_HEADER
    compute = compute_code(shape.storage)
    size, line = ITEMSIZE[compute], LINE
    put = make_store(lanes, shape.storage, shape.dense)

    @numba.njit
    def pick(g: Any, table: int, buffer: int, count: int, to: int, rows: int, room: int) -> None:
        record = table + before
        for first in range(0, count, lanes):
            at = buffer + get_word(record, 0) * size
            value = pick_places(at, record + line, reach, compute, lanes)
            for row in range(rows):
                place = to + row * g.yh + first * g.yw
                put(place, g.yw, value, min(lanes, count - first), room)
            record += g.record_bytes

    return pick


@functools.cache
def make_nearest_rows(rule: int, shape: ColumnShape, dense: int) -> Any:
    """Return the task; `dense` tells whether elements of a row that is read are neighbours."""
    find_run, pick = _make_run(rule), _make_pick(shape)
    storage, lanes, compute = shape.storage, shape.lanes, compute_code(shape.storage)
    copy = make_blend(lanes, storage, compute, 0, dense)
    segment_table = make_segment(rule, 0, lanes, compute)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        memory = workspace + worker * g.worker_bytes
        s, rest = number % g.segment_blocks * g.segment_block, number // g.segment_blocks
        r, rest = rest % g.row_blocks * g.row_block, rest // g.row_blocks
        p, image = rest % g.plane_blocks * g.plane_block, rest // g.plane_blocks
        rows_end = min(r + g.row_block, g.od * g.oh)
        buffer = memory + g.buffers_at
        for segment in range(s, min(s + g.segment_block, g.segments)):
            table = segment_table(g, segment, memory)
            low, width = get_word(table, 0), get_word(table, 1) - get_word(table, 0)
            first = segment * g.span
            count = min(g.span, g.ow * g.interleaved - first)
            for plane in range(p, min(p + g.plane_block, g.planes)):
                source = x + image * g.xn + plane * g.xp + low * g.xw
                target = out + image * g.yn + plane * g.yp + first * g.yw
                row = r
                while row < rows_end:
                    rows = find_run(g, memory, source, row, rows_end)
                    copy(memory + g.list_at, 1, 0, g.xw, width, buffer, 0)
                    to = target + row // g.oh * g.yd + row % g.oh * g.yh
                    pick(g, table, buffer, count, to, rows, memory + g.result_at)
                    row += rows

    return task


@functools.cache
def _make_copy(lanes: int, storage: int) -> Any:
    """Return a function that copies the channels of a pixel to the rows of a run."""
    item = ITEMSIZE[storage]

    @numba.njit
    def copy(at: int, channels: int, to: int, rows: int, pitch: int) -> None:
        whole = channels // lanes * lanes
        for first in range(0, whole, lanes):
            value = load(at + first * item, storage, lanes)
            for row in range(rows):
                store(to + row * pitch + first * item, value, storage)
        if whole < channels:
            bits = range_mask(0, channels - whole)
            value = load_masked(at + whole * item, bits, storage, lanes)
            for row in range(rows):
                store_masked(to + row * pitch + whole * item, value, bits, storage)

    return copy


@functools.cache
def make_nearest_pixels(rule: int, lanes: int, storage: int) -> Any:
    """Return the task that copies input pixels from where they lie."""
    find_run, entries, copy = _make_run(rule), make_entries(rule, 0), _make_copy(lanes, storage)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        memory = workspace + worker * g.worker_bytes
        s, rest = number % g.segment_blocks * g.segment_block, number // g.segment_blocks
        r, image = rest % g.row_blocks * g.row_block, rest // g.row_blocks
        rows_end = min(r + g.row_block, g.od * g.oh)
        for segment in range(s, min(s + g.segment_block, g.segments)):
            first = segment * g.span
            count = min(g.span, g.ow - first)
            taken = entries(g, memory, first, count)[0]
            row = r
            while row < rows_end:
                run = find_run(g, memory, x + image * g.xn, row, rows_end)
                source = get_word(memory + g.list_at, 0)
                to = out + image * g.yn + row // g.oh * g.yd + row % g.oh * g.yh + first * g.yw
                for w in range(count):
                    at = source + get_word(taken + w * g.column_entry, 1) * g.xw
                    copy(at, g.interleaved, to + w * g.yw, run, g.yh)
                row += run

    return task
