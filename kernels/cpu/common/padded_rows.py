"""A padded copy of the input under a band of output rows, in compute precision.

Either the channels of a pixel are its contiguous axis (channels-last input: whole rows are copied
in one go), or the pixels of a row are. There a row may be split by the phase of the horizontal
stride, so that the pixels that one tap meets are contiguous::

    channels inside:  [plane][row][column][channel]
    pixels inside:    [channel][plane][row][phase][column]

The planes are those that the kernel's depth meets.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import range_mask
from ..simd.ir import ITEMSIZE
from .copies import make_copy_vector, pair_mask

__all__ = ["BAND_FIELDS", "make_copy_band", "make_copy_row"]

#: Fields of a geometry that say how the copy lies: byte distances, and what is copied at once.
BAND_FIELDS = (
    "band_c",  # bytes from a channel to the next
    "band_d",  # from a plane
    "band_h",  # from a row
    "band_p",  # from a phase
    "band_w",  # from a column of one phase
    "phases",
    "lines",  # channels that are copied one after the other
    "unit",  # elements of a column that are copied at once
    "by_column",  # whether the columns of a row are copied one by one
    "copy_step",  # bytes from one copied element to the next in the input
)


@functools.cache
def make_copy_row(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that copies `cols` columns of one row from column `w0` on.

    `source` is the address of that column, which may lie outside the input; `inside` tells whether
    the row is one of the input. Whole vectors are stored, so the copy needs one vector of room
    behind it.
    """
    size, copy_vector = ITEMSIZE[compute], make_copy_vector(lanes, storage, compute)

    @numba.njit
    def copy_line(source: int, step: int, low: int, high: int, count: int, target: int) -> None:
        """Copy elements low to high - 1 of a line of `count`; the others become zero."""
        for start in range(0, count, lanes):
            begin = min(max(low - start, 0), lanes)
            end = max(min(high - start, lanes), begin)
            copy_vector(
                source + start * step, step, range_mask(begin, end), pair_mask(begin, end),
                target + start * size,
            )  # fmt: skip

    @numba.njit
    def copy_row(g: Any, source: int, w0: int, cols: int, inside: int, target: int) -> None:
        if g.by_column:
            for col in range(cols):
                high = g.c if inside and 0 <= w0 + col < g.iw else 0
                copy_line(
                    source + col * g.xw, g.copy_step, 0, high, g.c, target + col * g.band_w
                )  # fmt: skip
            return
        for phase in range(g.phases):
            first, count = w0 + phase, (cols - phase + g.phases - 1) // g.phases
            low = min(max(-(first // g.phases), 0), count)
            high = max(min((g.iw - 1 - first) // g.phases + 1, count), low) if inside else low
            copy_line(
                source + phase * g.xw, g.copy_step, low * g.unit, high * g.unit, count * g.unit,
                target + phase * g.band_p,
            )  # fmt: skip

    return copy_row


@functools.cache
def make_copy_band(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that copies `rows` x `cols` positions of all channels and planes.

    ``(d0, h0, w0)`` is the first position, which may lie outside the input. Whole vectors are
    stored, so the copy needs one vector of room behind it.
    """
    copy_row = make_copy_row(lanes, storage, compute)

    @numba.njit
    def copy_band(
        g: Any, x: int, d0: int, h0: int, w0: int, rows: int, cols: int, target: int
    ) -> None:
        for c in range(g.lines):
            for kd in range(g.kd):
                d = d0 + kd * g.dd
                for r in range(rows):
                    h = h0 + r
                    copy_row(
                        g, x + c * g.xc + d * g.xd + h * g.xh + w0 * g.xw, w0, cols,
                        int(0 <= d < g.id and 0 <= h < g.ih),
                        target + c * g.band_c + kd * g.band_d + r * g.band_h,
                    )  # fmt: skip

    return copy_band
