"""Tiles filled from an array of any strides, and an array filled from tiles.

An element's number is its place in the output's order. Each array has a table for itself: how many
axes it has, when those that are one for it are joined, then a size and a step in bytes for each.
An axis along which it is broadcast has step 0.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from ..simd.arithmetic import load_filled_gather, store_scatter
from ..simd.intrinsics import get_word, load, load_scalar, range_mask, splat, store
from ..simd.ir import F64, ITEMSIZE, compute_code

__all__ = ["MOST_AXES", "TABLE_WORDS", "make_walk"]

#: Most axes of an array that no two of can be joined.
MOST_AXES = 8
#: Words of an array's table.
TABLE_WORDS = 1 + 2 * MOST_AXES


@numba.njit
def _find(table: int, run: int) -> int:
    """Return the bytes from an array's start to a run along its last axis."""
    place = 0
    for axis in range(get_word(table, 0) - 2, -1, -1):
        size = get_word(table, 1 + 2 * axis)
        place += run % size * get_word(table, 2 + 2 * axis)
        run //= size
    return place


@functools.cache
def make_walk(lanes: int, storage: int) -> tuple[Any, Any]:
    """Return ``fill(table, array, first, count, tile)`` and ``drain``, which goes the other way.

    Both take `count` elements from the number `first` on. What is filled may run over the end of
    these by less than a vector; nothing outside the array is read or written.
    """
    compute = compute_code(storage)
    real = np.float64 if compute == F64 else np.float32
    size, item = ITEMSIZE[compute], ITEMSIZE[storage]

    @numba.njit
    def fill_run(source: int, step: int, count: int, tile: int) -> None:
        if step == 0:
            value = splat(load_scalar(source, storage), lanes)
            for i in range(0, count, lanes):
                store(tile + i * size, value, compute)
            return
        whole = count - count % lanes if step == item else 0
        for i in range(0, whole, lanes):
            store(tile + i * size, load(source + i * item, storage, lanes), compute)
        for i in range(whole, count, lanes):
            there = range_mask(0, min(lanes, count - i))
            value = load_filled_gather(source + i * step, step, there, real(0), storage, lanes)
            store(tile + i * size, value, compute)

    @numba.njit
    def drain_run(target: int, step: int, count: int, tile: int) -> None:
        whole = count - count % lanes if step == item else 0
        for i in range(0, whole, lanes):
            store(target + i * item, load(tile + i * size, compute, lanes), storage)
        for i in range(whole, count, lanes):
            there = range_mask(0, min(lanes, count - i))
            value = load(tile + i * size, compute, lanes)
            store_scatter(target + i * step, step, value, there, storage)

    def make_pass(move: Any) -> Any:
        @numba.njit
        def go(table: int, array: int, first: int, count: int, tile: int) -> None:
            last = get_word(table, 0) - 1
            length, step = get_word(table, 1 + 2 * last), get_word(table, 2 + 2 * last)
            run, at, done = first // length, first % length, 0
            while done < count:
                part = min(count - done, length - at)
                place = array + _find(table, run) + at * step
                move(place, step, part, tile + done * size)
                run, at, done = run + 1, 0, done + part

        return go

    return make_pass(fill_run), make_pass(drain_run)
