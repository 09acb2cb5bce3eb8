"""The samples that an output of one axis takes, and their weights.

Resizing, and its gradient, are one sparse matrix an axis. A row of it is an *entry*: a word with
the number of taps, then for each tap the index of a sample and, in float64, its weight. Of the
gradient a row has the outputs that a sample went into: positions grow with the outputs, so these
are neighbours, and bisection finds the first of them. All sums are thus gathered, in one order.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from ..simd.intrinsics import set_word, store_scalar
from ..simd.ir import F64
from .costs import CUBIC, EXACT, LINEAR, MOST_COPIED, NEAREST, TAPS

__all__ = ["make_entry", "make_taps"]


@functools.cache
def _make_locate(rule: int) -> Any:
    """Return a function that gives an output's sample and how far behind it the output lies."""
    if rule == NEAREST:

        @numba.njit
        def locate_nearest(output: int, step: float, align: int, inputs: int) -> Any:
            return min(int(np.float32(output) * np.float32(step)), inputs - 1), 0.0

        return locate_nearest
    if rule == EXACT:

        @numba.njit
        def locate_exact(output: int, step: float, align: int, inputs: int) -> Any:
            return min(int(np.float32((output + 0.5) * step)), inputs - 1), 0.0

        return locate_exact
    lowest = 0.0 if rule == LINEAR else -math.inf

    @numba.njit
    def locate(output: int, step: float, align: int, inputs: int) -> Any:
        place = output * step if align else (output + 0.5) * step - 0.5
        place = max(place, lowest)
        first = min(math.floor(place), inputs - 1)
        return first, min(max(place - first, 0.0), 1.0)

    return locate


@functools.cache
def _make_weight(rule: int) -> Any:
    """Return a function that gives the weight of a tap, for a distance behind the first sample."""
    if rule in (NEAREST, EXACT):

        @numba.njit
        def weight_one(tap: int, t: float) -> float:
            return 1.0

        return weight_one
    if rule == LINEAR:

        @numba.njit
        def weight_linear(tap: int, t: float) -> float:
            return 1.0 - t if tap == 0 else t

        return weight_linear
    a = -0.75

    @numba.njit
    def weight_cubic(tap: int, t: float) -> float:
        if tap == 0 or tap == 3:
            d = t + 1.0 if tap == 0 else 1.0 - t + 1.0
            return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        d = t if tap == 1 else 1.0 - t
        return ((a + 2) * d - (a + 3)) * d * d + 1

    return weight_cubic


@functools.cache
def _make_set_tap() -> tuple[Any, Any]:
    """Return functions that write one tap of an entry, and the entry of what is copied."""
    double = F64

    @numba.njit
    def set_tap(entry: int, tap: int, index: int, value: float) -> None:
        set_word(entry, 1 + 2 * tap, index)
        store_scalar(entry + 16 + 16 * tap, value, double)

    @numba.njit
    def copy(position: int, entry: int) -> None:
        set_word(entry, 0, 1)
        set_tap(entry, 0, position, 1.0)

    return set_tap, copy


@functools.cache
def make_taps(rule: int, transposed: int) -> Any:
    """Return ``taps(position, step, align, read, written, entry)``, which writes an entry.

    `read` and `written` are the sizes of the axis in the array that is read and in the one that is
    written; `position` is one of the latter.
    """
    count, before = TAPS[rule], int(rule == CUBIC)
    locate, weight = _make_locate(rule), _make_weight(rule)
    (set_tap, copy), longest = _make_set_tap(), MOST_COPIED[rule]
    if transposed:
        return _make_outputs(rule)

    @numba.njit
    def taps(position: int, step: float, align: int, read: int, written: int, entry: int) -> None:
        if read == written <= longest:
            copy(position, entry)
            return
        first, t = locate(position, step, align, read)
        set_word(entry, 0, count)
        for tap in range(count):
            index = min(max(first + tap - before, 0), read - 1)
            set_tap(entry, tap, index, weight(tap, t))

    return taps


@functools.cache
def _make_outputs(rule: int) -> Any:
    """Return the taps of a gradient: the outputs that a sample goes into."""
    count, before = TAPS[rule], int(rule == CUBIC)
    locate, weight = _make_locate(rule), _make_weight(rule)
    (set_tap, copy), longest = _make_set_tap(), MOST_COPIED[rule]

    @numba.njit
    def find_first(position: int, step: float, align: int, read: int, written: int) -> int:
        """Find the first output that reaches as far as the position."""
        low, high = 0, read
        while low < high:
            middle = (low + high) // 2
            first = locate(middle, step, align, written)[0]
            if min(first + count - 1 - before, written - 1) < position:
                low = middle + 1
            else:
                high = middle
        return low

    @numba.njit
    def outputs(
        position: int, step: float, align: int, read: int, written: int, entry: int
    ) -> None:
        if read == written <= longest:
            copy(position, entry)
            return
        found, output = 0, find_first(position, step, align, read, written)
        while output < read:
            first, t = locate(output, step, align, written)
            if max(first - before, 0) > position:
                break
            total = 0.0
            for tap in range(count):
                if min(max(first + tap - before, 0), written - 1) == position:
                    total += weight(tap, t)
            set_tap(entry, found, output, total)
            found += 1
            output += 1
        set_word(entry, 0, found)

    return outputs


@functools.cache
def make_entry(rule: int, transposed: int) -> Any:
    """Return a function that finds an entry in a plan's table, or where there is none makes it."""
    taps = make_taps(rule, transposed)

    @numba.njit
    def entry(
        table: int, size: int, room: int, position: int, step: float, align: int, read: int,
        written: int,
    ) -> int:  # fmt: skip
        if table:
            return table + position * size
        taps(position, step, align, read, written, room)
        return room

    return entry
