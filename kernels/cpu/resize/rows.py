"""Resizing where samples of a row are neighbours: rows are blended, then their columns picked.

::

    task = planes (channels) x output rows x segments of a row
      for segment of a row
        for 8 planes
          for output row
            for plane: sum up the input rows that it takes, vector by vector     8 buffers in L1
            for vector of output columns: pick and sum up elements of the buffers, 4 planes at once

An input row is read as often as output rows take it, from L1 or L2. Channels that lie side by side
and are few, as of an image, are one plane, whose columns are its pixels' channels. Where columns
lie more than 16 samples apart rows are not blended whole: what is needed of them is gathered.
Gradients are the same walk with the transposed tables of taps.py.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import get_word
from ..simd.ir import compute_code
from .blend import make_blend, make_blend_four, make_list_row
from .columns import ColumnShape, make_columns, make_far_columns
from .costs import CHUNK, FOUR, PLANES
from .fields import view
from .tables import make_segment

__all__ = ["make_far_rows", "make_rows"]


@functools.cache
def _make_mix(rule: int, transposed: int, shape: ColumnShape, dense: int) -> Any:
    """Return a function that blends what some planes need for an output row into the buffers.

    Where rows are copied and `before` is the one that lies in the buffers already, nothing is done.
    It returns the row that lies there now.
    """
    begin, list_rows = make_list_row(rule, transposed)
    weighted, most, compute = shape.weighted, CHUNK, compute_code(shape.storage)
    blend = make_blend(shape.lanes, shape.storage, compute, weighted, dense)
    blend_four, four = make_blend_four(shape.lanes, shape.storage, weighted, dense), FOUR

    @numba.njit
    def mix(
        g: Any, memory: int, source: int, planes: int, d: int, h: int, width: int, before: int
    ) -> int:
        rows, buffers = memory + g.list_at, memory + g.buffers_at
        depth, height = begin(g, memory, d, h)
        first, onto = 0, 0
        while True:
            count = list_rows(g, memory, depth, height, source, first)
            if count == 0 and onto:
                return 0
            if not weighted and count > 0:
                if get_word(rows, 0) == before:
                    return before
                before = get_word(rows, 0)
            plane = 0
            while plane + four <= planes:
                to, apart = buffers + plane * g.buffer_bytes, plane * g.xp
                blend_four(rows, count, apart, g.xp, g.xw, width, to, g.buffer_bytes, onto)
                plane += four
            while plane < planes:
                to = buffers + plane * g.buffer_bytes
                blend(rows, count, plane * g.xp, g.xw, width, to, onto)
                plane += 1
            if count < most:
                return before
            first, onto = first + count, 1

    return mix


@functools.cache
def make_rows(rule: int, transposed: int, shape: ColumnShape, dense: int) -> Any:
    """Return the task; `dense` tells whether elements of a row that is read are neighbours."""
    mix, columns = _make_mix(rule, transposed, shape, dense), make_columns(shape)
    compute, lanes, most = compute_code(shape.storage), shape.lanes, PLANES
    segment_table = make_segment(rule, transposed, lanes, compute)

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
        planes_end = min(p + g.plane_block, g.planes)
        for segment in range(s, min(s + g.segment_block, g.segments)):
            table = segment_table(g, segment, memory)
            low, width = get_word(table, 0), get_word(table, 1) - get_word(table, 0)
            first = segment * g.span
            count = min(g.span, g.ow * g.interleaved - first)
            for plane in range(p, planes_end, most):
                planes = min(most, planes_end - plane)
                source = x + image * g.xn + plane * g.xp + low * g.xw
                target = out + image * g.yn + plane * g.yp + first * g.yw
                before = 0
                d, h = r // g.oh, r % g.oh
                for _ in range(r, rows_end):
                    before = mix(g, memory, source, planes, d, h, width, before)
                    to = target + d * g.yd + h * g.yh
                    columns(
                        g, table, memory + g.buffers_at, planes, count, to, memory + g.result_at
                    )
                    h += 1
                    if h == g.oh:
                        d, h = d + 1, 0

    return task


@functools.cache
def make_far_rows(rule: int, shape: ColumnShape) -> Any:
    """Return the task where columns lie far apart: elements are gathered where they lie."""
    (begin, list_rows), far = make_list_row(rule, 0), make_far_columns(shape)
    compute, lanes = compute_code(shape.storage), shape.lanes
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
        for segment in range(s, min(s + g.segment_block, g.segments)):
            table = segment_table(g, segment, memory)
            first = segment * g.span
            count = min(g.span, g.ow * g.interleaved - first)
            start = x + image * g.xn + get_word(table, 0) * g.xw
            for row in range(r, min(r + g.row_block, g.od * g.oh)):
                depth, height = begin(g, memory, row // g.oh, row % g.oh)
                listed = list_rows(g, memory, depth, height, start, 0)
                to = out + image * g.yn + first * g.yw
                to += row // g.oh * g.yd + row % g.oh * g.yh
                for plane in range(p, min(p + g.plane_block, g.planes)):
                    far(
                        g, table, memory + g.list_at, listed, plane * g.xp, count,
                        to + plane * g.yp, memory + g.result_at,
                    )  # fmt: skip

    return task
