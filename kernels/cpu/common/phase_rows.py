"""A padded copy of input rows, split by the phases of the horizontal stride.

Of a phase the samples that a tap meets, from output to output, are neighbours: a kernel with
strides or holes along the width reads contiguous vectors, and needs no masks at the borders::

    [channel][depth][row][phase][column]

`padded_rows` copies whole pixels or rows for packers; here rows are those of sliding windows.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import range_mask
from ..simd.ir import ITEMSIZE
from .copies import make_copy_vector, pair_mask

__all__ = ["PHASE_FIELDS", "make_copy_band"]

#: Fields of a geometry that say how the copy lies.
PHASE_FIELDS = (
    "in_c",  # bytes from a channel to the next
    "in_d",  # from a depth
    "in_h",  # from a row
    "phases",  # of the stride, that some tap meets
    "phase_length",  # columns of one, a multiple of a vector
)


@functools.cache
def make_copy_band(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that copies the input rows under a band, padded and split by phases."""
    size, copy_vector = ITEMSIZE[compute], make_copy_vector(lanes, storage, compute)

    @numba.njit
    def copy_row(g: Any, source: int, column: int, target: int) -> None:
        for phase in range(g.phases):
            # The input column of the phase's element 0, which tap `phase` is the first to meet.
            first = (phase * g.dw % g.sw if phase else 0) - g.pw + column * g.sw
            low = max(-(first // g.sw), 0)
            high = max((g.iw - 1 - first) // g.sw + 1, low)
            for start in range(0, g.phase_length, lanes):
                begin = min(max(low - start, 0), lanes)
                end = max(min(high - start, lanes), begin)
                copy_vector(
                    source + (first + start * g.sw) * g.xw, g.sw * g.xw, range_mask(begin, end),
                    pair_mask(begin, end), target + start * size,
                )  # fmt: skip
            target += g.phase_length * size

    @numba.njit
    def copy_band(
        g: Any, x: int, depths: int, low: int, high: int, column: int, target: int
    ) -> None:
        """Copy input rows low to high - 1 of some depths of each channel, for a span's columns."""
        for channel in range(g.c):
            for depth in range(depths):
                source = x + channel * g.xc + depth * g.dd * g.xd
                plane = target + channel * g.in_c + depth * g.in_d
                for h in range(low, high):
                    copy_row(g, source + h * g.xh, column, plane + (h - low) * g.in_h)

    return copy_band
