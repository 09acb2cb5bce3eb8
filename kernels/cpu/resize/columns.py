"""The columns of a segment: elements of blended rows, picked and summed up by a table.

A vector of outputs takes, for each tap, a permutation of one or two vectors of the blended row, and
a multiply-add. Its places and weights are loaded once for four planes: so enlarging by 2 takes some
two cycles a vector, as long as storing it.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba
import numpy as np

from ..machine.lines import LINE
from ..simd.intrinsics import (
    add,
    get_word,
    load,
    load_scalar,
    range_mask,
    splat,
    store,
    store_masked,
    store_scalar,
)
from ..simd.ir import F64, ITEMSIZE, compute_code
from ..simd.picks import load_places, merge_lanes, multiply, multiply_add, pick_places
from .costs import FOUR, SEGMENT_HEADER, tap_bytes

__all__ = ["ColumnShape", "make_columns", "make_far_columns"]

#: Taps that are summed up apart.
_PART = 64


class ColumnShape(NamedTuple):
    """What the code of columns is compiled for, every entry a whole number.

    Parameters
    ----------
    taps : int
        Of every column; 0 where it differs, as in gradients.
    weighted : int
        Whether taps have weights.
    reach : int
        Vectors that a tap's places lie in, 0 for any number.
    lanes, storage, dense : int
        Lanes, element type of what is written, and whether elements are neighbours there.
    """

    taps: int
    weighted: int
    reach: int
    lanes: int
    storage: int
    dense: int


@functools.cache
def _make_store(lanes: int, storage: int, dense: int) -> Any:
    """Return a function that stores the first elements of a vector, `step` bytes apart."""
    compute = compute_code(storage)
    size = ITEMSIZE[compute]
    if dense:

        @numba.njit
        def store_run(to: int, step: int, value: Any, count: int, room: int) -> None:
            if count == lanes:
                store(to, value, storage)
            else:
                store_masked(to, value, range_mask(0, count), storage)

        return store_run

    @numba.njit
    def store_apart(to: int, step: int, value: Any, count: int, room: int) -> None:
        store(room, value, compute)
        for lane in range(count):
            store_scalar(to + lane * step, load_scalar(room + lane * size, compute), storage)

    return store_apart


@functools.cache
def _make_one(shape: ColumnShape) -> Any:
    """Return a function that makes a vector of one plane."""
    taps, weighted, reach, lanes = shape.taps, shape.weighted, shape.reach, shape.lanes
    compute = compute_code(shape.storage)
    size, line = ITEMSIZE[compute], LINE
    weights_at, block = LINE + lanes * 4, tap_bytes(lanes, size)
    put = _make_store(lanes, shape.storage, shape.dense)

    @numba.njit
    def one(
        record: int, buffer: int, pitch: int, to: int, plane: int, step: int, count: int, room: int
    ) -> None:
        at = buffer + get_word(record, 0) * size
        total = pick_places(at, record + line, reach, compute, lanes)
        if weighted:
            total = multiply(load(record + weights_at, compute, lanes), total)
        for tap in range(1, taps):
            at = buffer + get_word(record + tap * block, 0) * size
            places = record + tap * block + line
            weight = load(record + tap * block + weights_at, compute, lanes)
            value = pick_places(at, places, reach, compute, lanes)
            total = multiply_add(weight, value, total)
        put(to, step, total, count, room)

    return one


@functools.cache
def _make_four(shape: ColumnShape) -> Any:
    """Return a function that makes a vector of each of four planes, which lie `pitch` apart."""
    taps, weighted, reach, lanes = shape.taps, shape.weighted, shape.reach, shape.lanes
    compute = compute_code(shape.storage)
    size, line = ITEMSIZE[compute], LINE
    weights_at, block = LINE + lanes * 4, tap_bytes(lanes, size)
    put = _make_store(lanes, shape.storage, shape.dense)

    @numba.njit
    def four(
        record: int, buffer: int, pitch: int, to: int, plane: int, step: int, count: int, room: int
    ) -> None:
        at, places = buffer + get_word(record, 0) * size, record + line
        a = pick_places(at, places, reach, compute, lanes)
        b = pick_places(at + pitch, places, reach, compute, lanes)
        c = pick_places(at + 2 * pitch, places, reach, compute, lanes)
        d = pick_places(at + 3 * pitch, places, reach, compute, lanes)
        if weighted:
            weight = load(record + weights_at, compute, lanes)
            a, b = multiply(weight, a), multiply(weight, b)
            c, d = multiply(weight, c), multiply(weight, d)
        for tap in range(1, taps):
            at = buffer + get_word(record + tap * block, 0) * size
            places = record + tap * block + line
            weight = load(record + tap * block + weights_at, compute, lanes)
            value = pick_places(at, places, reach, compute, lanes)
            a = multiply_add(weight, value, a)
            value = pick_places(at + pitch, places, reach, compute, lanes)
            b = multiply_add(weight, value, b)
            value = pick_places(at + 2 * pitch, places, reach, compute, lanes)
            c = multiply_add(weight, value, c)
            value = pick_places(at + 3 * pitch, places, reach, compute, lanes)
            d = multiply_add(weight, value, d)
        put(to, step, a, count, room)
        put(to + plane, step, b, count, room)
        put(to + 2 * plane, step, c, count, room)
        put(to + 3 * plane, step, d, count, room)

    return four


@functools.cache
def _make_uneven(shape: ColumnShape) -> Any:
    """Return a function that makes a vector of one plane whose lanes have any number of taps."""
    reach, lanes, compute = shape.reach, shape.lanes, compute_code(shape.storage)
    size, line, part = ITEMSIZE[compute], LINE, _PART
    weights_at, block = LINE + lanes * 4, tap_bytes(lanes, size)
    as_compute = np.float64 if compute == F64 else np.float32
    put = _make_store(lanes, shape.storage, shape.dense)

    @numba.njit
    def uneven(
        record: int, buffer: int, pitch: int, to: int, plane: int, step: int, count: int, room: int
    ) -> None:
        total = splat(as_compute(0.0), lanes)
        taps = get_word(record, 2)
        for first in range(0, taps, part):
            some = splat(as_compute(0.0), lanes)
            for tap in range(first, min(taps, first + part)):
                at = buffer + get_word(record + tap * block, 0) * size
                places = record + tap * block + line
                weight = load(record + tap * block + weights_at, compute, lanes)
                value = pick_places(at, places, reach, compute, lanes)
                bits = get_word(record + tap * block, 1)
                some = merge_lanes(multiply_add(weight, value, some), some, bits)
            total = add(total, some)
        put(to, step, total, count, room)

    return uneven


@functools.cache
def make_columns(shape: ColumnShape) -> Any:
    """Return a function that makes a segment's columns for some planes, at most `PLANES`.

    ``columns(g, table, buffers, planes, count, to, room)``: `count` elements of each plane go to
    `to`.
    """
    lanes, before, at_once = shape.lanes, SEGMENT_HEADER, FOUR
    if shape.taps:
        one, several = _make_one(shape), _make_four(shape)
    else:
        one, several, at_once = _make_uneven(shape), _make_uneven(shape), 1

    @numba.njit
    def columns(
        g: Any, table: int, buffers: int, planes: int, count: int, to: int, room: int
    ) -> None:
        pitch, plane, step, record_bytes = g.buffer_bytes, g.yp, g.yw, g.record_bytes
        done = 0
        while done + at_once <= planes:
            record, place = table + before, to + done * plane
            for first in range(0, count, lanes):
                left = min(lanes, count - first)
                several(record, buffers + done * pitch, pitch, place, plane, step, left, room)
                record += record_bytes
                place += lanes * step
            done += at_once
        while done < planes:
            record, place = table + before, to + done * plane
            for first in range(0, count, lanes):
                left = min(lanes, count - first)
                one(record, buffers + done * pitch, pitch, place, plane, step, left, room)
                record += record_bytes
                place += lanes * step
            done += 1

    return columns


@functools.cache
def make_far_columns(shape: ColumnShape) -> Any:
    """Return a function that makes a segment's columns from a list of rows where they lie.

    ``far(g, table, rows, number, offset, count, to, room)``: the list has `number` rows, which are
    read from `offset` bytes on.
    """
    taps, weighted, lanes, before = shape.taps, shape.weighted, shape.lanes, SEGMENT_HEADER
    storage, compute, double = shape.storage, compute_code(shape.storage), F64
    size, line, every = ITEMSIZE[compute], LINE, (1 << lanes) - 1
    weights_at, block = LINE + lanes * 4, tap_bytes(lanes, size)
    as_compute = np.float64 if compute == F64 else np.float32
    put = _make_store(lanes, storage, shape.dense)

    @numba.njit
    def blended(rows: int, number: int, offset: int, places: int, step: int) -> Any:
        total = load_places(get_word(rows, 0) + offset, places, step, every, storage, lanes)
        if weighted:
            weight = splat(as_compute(load_scalar(rows + 8, double)), lanes)
            total = multiply(weight, total)
        for row in range(1, number):
            at = get_word(rows, 2 * row) + offset
            weight = splat(as_compute(load_scalar(rows + 16 * row + 8, double)), lanes)
            value = load_places(at, places, step, every, storage, lanes)
            total = multiply_add(weight, value, total)
        return total

    @numba.njit
    def far(
        g: Any, table: int, rows: int, number: int, offset: int, count: int, to: int, room: int
    ) -> None:
        for first in range(0, count, lanes):
            record = table + before + first // lanes * g.record_bytes
            at = offset + get_word(record, 0) * g.xw
            total = blended(rows, number, at, record + line, g.xw)
            if weighted:
                total = multiply(load(record + weights_at, compute, lanes), total)
            for tap in range(1, taps):
                at = offset + get_word(record + tap * block, 0) * g.xw
                places = record + tap * block + line
                weight = load(record + tap * block + weights_at, compute, lanes)
                value = blended(rows, number, at, places, g.xw)
                total = multiply_add(weight, value, total)
            put(to + first * g.yw, g.yw, total, min(lanes, count - first), room)

    return far
