"""Which lanes of vectors along a row lie in it: told once, and read as masks for each row."""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import range_mask, set_word

__all__ = ["make_tell_sights"]


@functools.cache
def make_tell_sights(lanes: int) -> Any:
    """Return ``tell_sights(sights, vectors, begin, size)``.

    It writes a word for each of some vectors that lie end to end, the first from column `begin` on,
    which may be negative: its bits are set for the lanes of columns 0 to ``size - 1``.
    """

    @numba.njit
    def tell_sights(sights: int, vectors: int, begin: int, size: int) -> None:
        for number in range(vectors):
            column = begin + number * lanes
            low = min(max(0, -column), lanes)
            set_word(sights, number, range_mask(low, max(low, min(size - column, lanes))))

    return tell_sights
