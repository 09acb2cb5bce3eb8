"""Tables of the columns of a row, by vectors: which elements each lane takes, and their weights.

A row is cut into segments. A segment's table is a header (`SEGMENT_HEADER`) with the first element
that it reads, the one behind the last, and the furthest place of any lane; then a record a vector,
which has for each tap::

    a line       its base, a bit for each lane that has the tap, and, of the first, the taps in all
    places       of the lanes, 32 bits each, counted from the base
    weights      of the lanes, in compute precision

Elements are counted from the row's first; bases from the first that the segment reads. Where
channels are interleaved an element is a pixel's channel.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from ..machine.lines import LINE
from ..simd.intrinsics import get_word, load_scalar, set_word, store_scalar
from ..simd.ir import F64, ITEMSIZE
from ..simd.picks import set_place
from .costs import SEGMENT_HEADER, tap_bytes
from .fields import view
from .taps import make_taps

__all__ = ["make_fill", "make_segment", "make_tables"]


@functools.cache
def _make_record(lanes: int, compute: int) -> Any:
    """Return a function that writes a vector's record from its lanes' entries.

    It returns the first element that is read, the one behind the last, and the furthest place.
    """
    double, size, line = F64, ITEMSIZE[compute], LINE
    weights_at, block = LINE + lanes * 4, tap_bytes(lanes, ITEMSIZE[compute])
    as_compute = np.float64 if compute == F64 else np.float32

    @numba.njit
    def write_record(
        record: int, entries: int, entry_bytes: int, element: int, last: int, interleaved: int
    ) -> Any:
        most, low, high, furthest = 0, 1 << 62, 0, 0
        for lane in range(lanes):
            most = max(most, get_word(entries + lane * entry_bytes, 0))
        set_word(record, 2, most)
        for tap in range(most):
            base, bits, here = 1 << 62, 0, record + tap * block
            for lane in range(lanes):
                entry = entries + lane * entry_bytes
                if tap < get_word(entry, 0):
                    channel = min(element + lane, last) % interleaved
                    base = min(base, get_word(entry, 1 + 2 * tap) * interleaved + channel)
                    bits |= 1 << lane
            for lane in range(lanes):
                entry, place, weight = entries + lane * entry_bytes, 0, 0.0
                if tap < get_word(entry, 0):
                    channel = min(element + lane, last) % interleaved
                    place = get_word(entry, 1 + 2 * tap) * interleaved + channel - base
                    weight = load_scalar(entry + 16 + 16 * tap, double)
                set_place(here + line, lane, place)
                store_scalar(here + weights_at + lane * size, as_compute(weight), compute)
                furthest = max(furthest, place)
                high = max(high, base + place + 1)
            low = min(low, base)
            set_word(here, 0, base)
            set_word(here, 1, bits)
        return low, high, furthest

    return write_record


@functools.cache
def make_fill(rule: int, transposed: int, lanes: int, compute: int) -> Any:
    """Return a function that writes the table of a segment.

    `entries` is room for the entries of a vector.
    """
    taps, write_record = make_taps(rule, transposed), _make_record(lanes, compute)
    before, block = SEGMENT_HEADER, tap_bytes(lanes, ITEMSIZE[compute])

    @numba.njit
    def fill(g: Any, segment: int, table: int, entries: int) -> None:
        first, last = segment * g.span, g.ow * g.interleaved - 1
        vectors = (min(g.span, last + 1 - first) + lanes - 1) // lanes
        low, high, furthest = 1 << 62, 0, 0
        for v in range(vectors):
            element = first + v * lanes
            for lane in range(lanes):
                pixel = min(element + lane, last) // g.interleaved
                room = entries + lane * g.column_entry
                taps(pixel, g.step_w, g.align, g.iw, g.ow, room)
            record = table + before + v * g.record_bytes
            start, end, far = write_record(
                record, entries, g.column_entry, element, last, g.interleaved
            )
            low, high, furthest = min(low, start), max(high, end), max(furthest, far)
        low = min(low, high)
        for v in range(vectors):
            record = table + before + v * g.record_bytes
            for tap in range(get_word(record, 2)):
                here = record + tap * block
                set_word(here, 0, get_word(here, 0) - low)
        set_word(table, 0, low)
        set_word(table, 1, high)
        set_word(table, 2, furthest)

    return fill


@functools.cache
def make_segment(rule: int, transposed: int, lanes: int, compute: int) -> Any:
    """Return a function that finds a segment's table, or where a plan has none makes it."""
    fill = make_fill(rule, transposed, lanes, compute)

    @numba.njit
    def segment_table(g: Any, segment: int, memory: int) -> int:
        if g.column_table:
            return g.column_table + segment * g.segment_bytes
        fill(g, segment, memory + g.columns_at, memory + g.entries_at)
        return memory + g.columns_at

    return segment_table


@functools.cache
def make_tables(rule: int, transposed: int, lanes: int, compute: int) -> Any:
    """Return the task that makes a plan's tables: of rows, of depths and of columns.

    Those whose address is zero are not made. Columns are a table of entries where `lanes` is zero.
    """
    taps = make_taps(rule, transposed)
    if lanes:
        fill = make_fill(rule, transposed, lanes, compute)

        @numba.njit
        def columns(g: Any, out: int, memory: int) -> None:
            for segment in range(g.segments):
                fill(g, segment, out + segment * g.segment_bytes, memory + g.entries_at)
    else:

        @numba.njit
        def columns(g: Any, out: int, memory: int) -> None:
            for w in range(g.ow):
                taps(w, g.step_w, g.align, g.iw, g.ow, out + w * g.column_entry)

    def task(
        geometry: int, rows: int, depths: int, vectors: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        if rows:
            for h in range(g.oh):
                taps(h, g.step_h, g.align, g.ih, g.oh, rows + h * g.row_entry)
        if depths:
            for d in range(g.od):
                taps(d, g.step_d, g.align, g.id, g.od, depths + d * g.depth_entry)
        if vectors:
            columns(g, vectors, workspace)

    return task
