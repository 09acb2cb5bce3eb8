"""Weighted sums of rows, element by element, into a row.

Rows are a list of pairs of words: an address, and a weight in float64. Four vectors' sums stay in
registers while the rows pass by, so a row takes a load and a multiply-add a vector::

    for block of 4 vectors        then single ones, under a mask
      for row of the list
        for vector: sum += weight * row[vector]
      store 4 vectors
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from ..simd.intrinsics import (
    add,
    get_word,
    load,
    load_gather,
    load_masked,
    load_scalar,
    range_mask,
    set_word,
    splat,
    store,
    store_masked,
    store_scalar,
)
from ..simd.ir import F64, ITEMSIZE, compute_code
from ..simd.picks import multiply, multiply_add
from .costs import CHUNK
from .taps import make_entry

__all__ = ["make_blend", "make_blend_four", "make_list_row"]


@functools.cache
def _make_read(lanes: int, storage: int, dense: int) -> Any:
    """Return a function that reads the elements of a vector whose bit is set."""
    if dense:

        @numba.njit
        def read_run(at: int, step: int, bits: int) -> Any:
            return load_masked(at, bits, storage, lanes)

        return read_run

    @numba.njit
    def read_apart(at: int, step: int, bits: int) -> Any:
        return load_gather(at, step, bits, storage, lanes)

    return read_apart


@functools.cache
def _make_one(lanes: int, source: int, target: int, weighted: int, dense: int) -> Any:
    """Return a function that sums up one vector of the rows."""
    read, double = _make_read(lanes, source, dense), F64
    as_compute = np.float64 if compute_code(source) == F64 else np.float32

    @numba.njit
    def one(rows: int, count: int, offset: int, step: int, width: int, to: int, onto: int) -> None:
        bits = range_mask(0, min(lanes, width))
        total = splat(as_compute(0.0), lanes)
        if count > 0:
            total = read(get_word(rows, 0) + offset, step, bits)
            if weighted:
                weight = splat(as_compute(load_scalar(rows + 8, double)), lanes)
                total = multiply(weight, total)
        for row in range(1, count):
            weight = splat(as_compute(load_scalar(rows + 16 * row + 8, double)), lanes)
            value = read(get_word(rows, 2 * row) + offset, step, bits)
            total = multiply_add(weight, value, total)
        if onto:
            total = add(total, load_masked(to, bits, target, lanes))
        store_masked(to, total, bits, target)

    return one


@functools.cache
def make_blend(lanes: int, source: int, target: int, weighted: int, dense: int) -> Any:
    """Return ``blend(rows, count, offset, step, width, to, onto)``.

    It sums up the `count` rows of a list, each from `offset` bytes on and, where they are not
    `dense`, at a step, and writes `width` elements. The sum is added to what is there where `onto`
    is 1. Where rows are not `weighted` there is one, and it is copied.
    """
    item, size, double = ITEMSIZE[source], ITEMSIZE[target], F64
    as_compute = np.float64 if compute_code(source) == F64 else np.float32
    one = _make_one(lanes, source, target, weighted, dense)
    block, apart, further = 4 * lanes * dense, lanes * item, lanes * size

    @numba.njit
    def blend(
        rows: int, count: int, offset: int, step: int, width: int, to: int, onto: int
    ) -> None:
        done = 0
        while block > 0 and count > 0 and done + block <= width:
            at = get_word(rows, 0) + offset + done * item
            a, b = load(at, source, lanes), load(at + apart, source, lanes)
            c = load(at + 2 * apart, source, lanes)
            d = load(at + 3 * apart, source, lanes)
            if weighted:
                weight = splat(as_compute(load_scalar(rows + 8, double)), lanes)
                a, b = multiply(weight, a), multiply(weight, b)
                c, d = multiply(weight, c), multiply(weight, d)
            for row in range(1, count):
                at = get_word(rows, 2 * row) + offset + done * item
                weight = splat(as_compute(load_scalar(rows + 16 * row + 8, double)), lanes)
                a = multiply_add(weight, load(at, source, lanes), a)
                b = multiply_add(weight, load(at + apart, source, lanes), b)
                c = multiply_add(weight, load(at + 2 * apart, source, lanes), c)
                d = multiply_add(weight, load(at + 3 * apart, source, lanes), d)
            place = to + done * size
            if onto:
                a = add(a, load(place, target, lanes))
                b = add(b, load(place + further, target, lanes))
                c = add(c, load(place + 2 * further, target, lanes))
                d = add(d, load(place + 3 * further, target, lanes))
            store(place, a, target)
            store(place + further, b, target)
            store(place + 2 * further, c, target)
            store(place + 3 * further, d, target)
            done += block
        while done < width:
            from_row = offset + done * (item if dense else step)
            one(rows, count, from_row, step, width - done, to + done * size, onto)
            done += lanes

    return blend


@functools.cache
def make_blend_four(lanes: int, source: int, weighted: int, dense: int) -> Any:
    """Return ``blend(rows, count, first, offset, step, width, to, pitch, onto)`` for four planes.

    The first lies `first` bytes behind the rows, the others `offset` bytes behind one another, and
    `pitch` in the buffers, which have room for whole vectors: a vector that was stored under a mask
    is not at hand for the next load.
    """
    read, double, compute = _make_read(lanes, source, dense), F64, compute_code(source)
    as_compute = np.float64 if compute == F64 else np.float32
    item, size, every = ITEMSIZE[source], ITEMSIZE[compute], (1 << lanes) - 1

    @numba.njit
    def blend(
        rows: int, count: int, first: int, offset: int, step: int, width: int, to: int, pitch: int,
        onto: int,
    ) -> None:  # fmt: skip
        for done in range(0, width, lanes):
            bits = every if width - done >= lanes else range_mask(0, width - done)
            apart = first + done * (item if dense else step)
            a = splat(as_compute(0.0), lanes)
            b, c, d = a, a, a
            if count > 0:
                at = get_word(rows, 0) + apart
                a, b = read(at, step, bits), read(at + offset, step, bits)
                c = read(at + 2 * offset, step, bits)
                d = read(at + 3 * offset, step, bits)
                if weighted:
                    weight = splat(as_compute(load_scalar(rows + 8, double)), lanes)
                    a, b = multiply(weight, a), multiply(weight, b)
                    c, d = multiply(weight, c), multiply(weight, d)
            for row in range(1, count):
                at = get_word(rows, 2 * row) + apart
                weight = splat(as_compute(load_scalar(rows + 16 * row + 8, double)), lanes)
                a = multiply_add(weight, read(at, step, bits), a)
                b = multiply_add(weight, read(at + offset, step, bits), b)
                c = multiply_add(weight, read(at + 2 * offset, step, bits), c)
                d = multiply_add(weight, read(at + 3 * offset, step, bits), d)
            place = to + done * size
            if onto:
                a = add(a, load(place, compute, lanes))
                b = add(b, load(place + pitch, compute, lanes))
                c = add(c, load(place + 2 * pitch, compute, lanes))
                d = add(d, load(place + 3 * pitch, compute, lanes))
            store(place, a, compute)
            store(place + pitch, b, compute)
            store(place + 2 * pitch, c, compute)
            store(place + 3 * pitch, d, compute)

    return blend


@functools.cache
def make_list_row(rule: int, transposed: int) -> Any:
    """Return functions that begin an output row, and list the next rows that it is made of.

    ``begin(g, memory, d, h)`` returns the entries of depth and height; ``list_rows(g, memory,
    depth, row, source, first)`` lists up to `CHUNK` of the rows from the `first` on and returns how
    many; rows are counted along the height first.
    """
    entry, double, most = make_entry(rule, transposed), F64, CHUNK

    @numba.njit
    def begin(g: Any, memory: int, d: int, h: int) -> Any:
        depth = entry(
            g.depth_table, g.depth_entry, memory + g.depth_at, d, g.step_d, g.align, g.id, g.od
        )
        row = entry(g.row_table, g.row_entry, memory + g.row_at, h, g.step_h, g.align, g.ih, g.oh)
        return depth, row

    @numba.njit
    def list_rows(g: Any, memory: int, depth: int, row: int, source: int, first: int) -> int:
        rows, along = memory + g.list_at, get_word(row, 0)
        count = min(most, get_word(depth, 0) * along - first)
        i, j = 0, 0
        if first > 0:
            i, j = first // along, first % along
        for number in range(count):
            at = source + get_word(depth, 1 + 2 * i) * g.xd + get_word(row, 1 + 2 * j) * g.xh
            outer = load_scalar(depth + 16 + 16 * i, double)
            set_word(rows, 2 * number, at)
            weight = outer * load_scalar(row + 16 + 16 * j, double)
            store_scalar(rows + 16 * number + 8, weight, double)
            j += 1
            if j == along:
                i, j = i + 1, 0
        return max(count, 0)

    return begin, list_rows
