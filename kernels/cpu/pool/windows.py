"""Where the window of an output lies along one axis, and by how many samples a mean divides."""

from __future__ import annotations

import functools
from typing import Any

import numba

__all__ = ["make_seen_by", "make_share_of", "make_window", "shares"]


@functools.cache
def make_window(unequal: int) -> Any:
    """Return a function that tells a window's first sample and how many it has, padding left out.

    Its samples are `dilation` apart. Windows of an adaptive pool lie side by side and reach over
    the whole axis; they need nothing but the sizes.
    """
    if unequal:

        @numba.njit
        def window(
            place: int, size: int, outputs: int, kernel: int, stride: int, pad: int, dilation: int
        ) -> tuple[int, int]:
            start = place * size // outputs
            return start, ((place + 1) * size + outputs - 1) // outputs - start
    else:

        @numba.njit
        def window(
            place: int, size: int, outputs: int, kernel: int, stride: int, pad: int, dilation: int
        ) -> tuple[int, int]:
            low = place * stride - pad
            if dilation == 1:  # a division takes longer than many a window
                start = max(low, 0)
                return start, max(min(low + kernel, size) - start, 0)
            before = max(0, (dilation - 1 - low) // dilation)
            after = min(kernel, (size - low + dilation - 1) // dilation)
            return low + before * dilation, max(after - before, 0)

    return window


@numba.njit
def shares(
    place: int, count: int, size: int, kernel: int, stride: int, pad: int, with_pads: int
) -> int:
    """Return the samples that a mean counts along one axis; `count` are those that there are.

    With pads the window counts as far as it lies within the padded input.
    """
    if not with_pads:
        return count
    low = place * stride - pad
    return min(low + kernel, size + pad) - low


@functools.cache
def make_seen_by(unequal: int) -> Any:
    """Return a function that tells the first output whose window sees a sample, and how many do.

    They are neighbours: only windows without dilation are asked for.
    """
    if unequal:

        @numba.njit
        def seen_by(
            place: int, size: int, outputs: int, kernel: int, stride: int, pad: int
        ) -> tuple[int, int]:
            first = place * outputs // size
            return first, ((place + 1) * outputs + size - 1) // size - first
    else:

        @numba.njit
        def seen_by(
            place: int, size: int, outputs: int, kernel: int, stride: int, pad: int
        ) -> tuple[int, int]:
            last = place + pad
            if stride == 1:
                first = max(0, last - kernel + 1)
                return first, max(0, min(last + 1, outputs) - first)
            first = max(0, (last - kernel + stride) // stride)
            return first, max(0, min(last // stride + 1, outputs) - first)

    return seen_by


@functools.cache
def make_share_of(unequal: int) -> Any:
    """Return a function that tells what an output's mean counts along an axis without dilation."""
    window = make_window(unequal)

    @numba.njit
    def share_of(
        place: int, size: int, outputs: int, kernel: int, stride: int, pad: int, with_pads: int
    ) -> int:
        _, there = window(place, size, outputs, kernel, stride, pad, 1)
        return shares(place, there, size, kernel, stride, pad, with_pads)

    return share_of
