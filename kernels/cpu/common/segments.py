"""Segments: the stretches of a panel's pixels within one output row.

Pixels are numbered through the rows of a region of the output; a panel of some of them is cut
where a row ends, so that what lies side by side in memory is read and stored by vectors.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import get_word, set_word

__all__ = ["SEGMENT_WORDS", "make_list_segments"]

#: A segment: first lane in the panel, length, then output depth, height, width.
SEGMENT_WORDS = 5


@functools.cache
def make_list_segments(nr: int) -> Any:
    """Return a function that cuts one panel of a region into segments and counts them."""

    @numba.njit
    def list_segments(region: int, first: int, table: int) -> int:
        d0, h0, w0 = get_word(region, 0), get_word(region, 1), get_word(region, 2)
        depth, height, width = get_word(region, 3), get_word(region, 4), get_word(region, 5)
        stop = min(first + nr, depth * height * width)
        pixel, count = first, 0
        while pixel < stop:
            row = pixel // width
            column = pixel - row * width
            length = min(width - column, stop - pixel)
            words = table + 8 * SEGMENT_WORDS * count
            set_word(words, 0, pixel - first)
            set_word(words, 1, length)
            set_word(words, 2, d0 + row // height)
            set_word(words, 3, h0 + row % height)
            set_word(words, 4, w0 + column)
            pixel += length
            count += 1
        return count

    return list_segments
