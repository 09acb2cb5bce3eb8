"""How a copy moves elements at one position of its outer axes: see `copy.py` and `forms.py`.

A move is ``move(g, source, target, start, stop)``: positions start to stop - 1 of the long axis,
from and to addresses of its first element.
"""

from __future__ import annotations

from typing import Any

import numba

from ..simd.bits import copy_bits
from ..simd.intrinsics import (
    load,
    load_masked,
    load_scalar,
    range_mask,
    store,
    store_masked,
    store_scalar,
)
from ..simd.ir import F32, F64, HALF_BITS, ITEMSIZE
from ..simd.transposes import transpose_between
from ..simd.weaves import load_every, unweave, weave
from .forms import EVERY, RUNS, SQUARES_IN, SQUARES_OUT, UNWEAVE, WEAVE, square_lanes

__all__ = ["make_move"]

#: What moves the bits of elements of so many bytes.
_CODES = {2: HALF_BITS, 4: F32, 8: F64}


def _make_runs(item: int, lanes: int) -> Any:
    """Return what copies contiguous bytes: vectors of so many 32-bit words, a half and a byte."""
    size = lanes * ITEMSIZE[F32]

    @numba.njit
    def move(g: Any, source: int, target: int, start: int, stop: int) -> None:
        place, end = start * item, stop * item
        while place + size <= end:
            store(target + place, load(source + place, F32, lanes), F32)
            place += size
        words = (end - place) >> 2
        if words > 0:
            mask = range_mask(0, words)
            store_masked(target + place, load_masked(source + place, mask, F32, lanes), mask, F32)
        place += words << 2
        if item < 4 and (end - place) & 2:
            copy_bits(source + place, target + place, 2)
            place += 2
        if item < 2 and place < end:
            copy_bits(source + place, target + place, 1)

    return move


def _make_every(step: int, item: int, lanes: int) -> Any:
    """Return what gathers every so manieth element."""
    code = _CODES[item]

    @numba.njit
    def move(g: Any, source: int, target: int, start: int, stop: int) -> None:
        place = start
        while place + lanes <= stop:
            vector = load_every(source + place * item * step, lanes, code, step, lanes)
            store(target + place * item, vector, code)
            place += lanes
        if place < stop:
            vector = load_every(source + place * item * step, stop - place, code, step, lanes)
            store_masked(target + place * item, vector, range_mask(0, stop - place), code)

    return move


def _make_weave(ways: int, item: int, lanes: int) -> Any:
    """Return what takes elements of several rows by turns."""
    code = _CODES[item]

    @numba.njit
    def move(g: Any, source: int, target: int, start: int, stop: int) -> None:
        place = start
        while place + lanes <= stop:
            row = target + place * ways * item
            weave(source + place * item, g.sources, lanes, row, code, code, ways, lanes)
            place += lanes
        if place < stop:
            row = target + place * ways * item
            weave(source + place * item, g.sources, stop - place, row, code, code, ways, lanes)

    return move


def _make_unweave(ways: int, item: int, lanes: int) -> Any:
    """Return what deals elements out to several rows by turns."""
    code = _CODES[item]

    @numba.njit
    def move(g: Any, source: int, target: int, start: int, stop: int) -> None:
        place = start
        while place + lanes <= stop:
            row = source + place * ways * item
            unweave(row, lanes, target + place * item, g.targets, code, ways, lanes)
            place += lanes
        if place < stop:
            row = source + place * ways * item
            unweave(row, stop - place, target + place * item, g.targets, code, ways, lanes)

    return move


def _make_squares(inward: bool, item: int, lanes: int) -> Any:
    """Return what transposes squares; `inward` is of `forms.SQUARES_IN`."""
    code = _CODES[item]

    @numba.njit
    def square(g: Any, source: int, target: int, along: int, across: int) -> None:
        rows, columns = (across, along) if inward else (along, across)
        if rows == lanes and columns == lanes:
            transpose_between(source, g.sources, lanes, lanes, target, g.targets, code, lanes)
        else:
            transpose_between(source, g.sources, rows, columns, target, g.targets, code, lanes)

    @numba.njit
    def move(g: Any, source: int, target: int, start: int, stop: int) -> None:
        for place in range(start, stop, lanes):
            along = min(lanes, stop - place)
            x, y = source + place * g.source_step, target + place * g.target_step
            for first in range(0, g.ways, lanes):
                square(g, x, y, along, min(lanes, g.ways - first))
                x += g.source_ways
                y += g.target_ways

    return move


def _make_elements(item: int) -> Any:
    """Return what moves elements one by one."""
    code = _CODES[item]

    @numba.njit
    def move(g: Any, source: int, target: int, start: int, stop: int) -> None:
        x, y = source + start * g.source_step, target + start * g.target_step
        for _ in range(start, stop):
            store_scalar(y, load_scalar(x, code), code)
            x += g.source_step
            y += g.target_step

    return move


def make_move(moves: int, ways: int, item: int, vector_bytes: int) -> Any:
    """Return the move of a kind; `ways` counts for EVERY, WEAVE and UNWEAVE.

    RUNS move elements of one byte, too.
    """
    lanes = square_lanes(item, vector_bytes)
    if moves == RUNS:
        return _make_runs(item, square_lanes(4, vector_bytes))
    if moves == EVERY:
        return _make_every(ways, item, lanes)
    if moves == WEAVE:
        return _make_weave(ways, item, lanes)
    if moves == UNWEAVE:
        return _make_unweave(ways, item, lanes)
    if moves in (SQUARES_IN, SQUARES_OUT):
        return _make_squares(moves == SQUARES_IN, item, lanes)
    return _make_elements(item)
