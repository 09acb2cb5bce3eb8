"""Samples of a deformable convolution: four corners added up, channels side by side.

What is sampled has its channels next to each other, so a vector of channels is four loads and four
multiply-adds, and nothing is gathered. An input of another order is copied so first: a pass over
it, in compute precision, where each of its samples is read some four times a tap.

A panel of samples is the register tile's A operand: rows are pixels, and of the steps (a tap's
channels, tap after tap) `ADJACENT` of a pixel lie side by side.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba
from numba.core import cgutils
from numba.extending import intrinsic

from ..simd.intrinsics import (
    get_word,
    load_scalar,
    range_mask,
    store,
    store_masked,
)
from ..simd.ir import (
    I8,
    ITEMSIZE,
    VectorType,
    broadcast,
    compute_type,
    fmuladd,
    lane_mask,
    literals,
    load_vector,
    pointer,
)
from .corners import ADDRESS_BYTES

__all__ = [
    "ADJACENT",
    "Corners",
    "make_pack_samples",
    "make_read_corners",
    "make_sample",
]

#: Steps of a pixel that lie side by side, a power of two: rows of a tile are so far apart, and
#: all of them find room in L1.
ADJACENT = 64


class Corners(NamedTuple):
    """Addresses of a place's corners, their weights, and the mask."""

    above_left: Any
    above_right: Any
    below_left: Any
    below_right: Any
    first: Any
    second: Any
    third: Any
    fourth: Any
    mask: Any


@intrinsic(prefer_literal=True)
def _blend(
    typingctx: Any, corners: Any, at: Any, bits: Any, code: Any, lanes: Any, masked: Any, whole: Any
) -> Any:
    """Return a vector of samples: corners times weights, and times the mask where `masked` is 1.

    `at` is the first channel's distance in bytes. Where `whole` is 0 only the lanes whose bit is
    set are read.
    """
    known = literals((code, lanes, masked, whole))
    if known is None:
        return None
    storage, count, has_mask, is_whole = known

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = Corners(*cgutils.unpack_tuple(builder, args[0]))
        flags = None if is_whole else lane_mask(builder, args[2], count)
        total = None
        for address, weight in zip(made[:4], made[4:8], strict=True):
            source = pointer(builder, builder.add(address, args[1]), I8)
            corner = load_vector(builder, source, count, storage, flags)
            factor = broadcast(builder, weight, count)
            if total is None:
                total = builder.fmul(factor, corner)
            else:
                total = fmuladd(builder, factor, corner, total)
        return builder.fmul(total, broadcast(builder, made.mask, count)) if has_mask else total

    returned = VectorType(compute_type(storage), count)
    return returned(corners, at, bits, code, lanes, masked, whole), codegen


@functools.cache
def make_read_corners(compute: int) -> Any:
    """Return a function that reads a place: see corners.py."""
    size, addresses = ITEMSIZE[compute], ADDRESS_BYTES

    @numba.njit(forceinline=True)
    def read(g: Any, places: int, pixel: int) -> Any:
        pitch = g.place_pitch
        numbers = places + addresses * pitch + pixel * size
        step = size * pitch
        return Corners(
            get_word(places, pixel), get_word(places, pitch + pixel),
            get_word(places, 2 * pitch + pixel), get_word(places, 3 * pitch + pixel),
            load_scalar(numbers, compute), load_scalar(numbers + step, compute),
            load_scalar(numbers + 2 * step, compute), load_scalar(numbers + 3 * step, compute),
            load_scalar(numbers + 4 * step, compute),
        )  # fmt: skip

    return read


@functools.cache
def make_sample(lanes: int, compute: int, masked: int) -> Any:
    """Return a function that samples some channels of one tap, for the pixels of a block."""
    size = ITEMSIZE[compute]
    read = make_read_corners(compute)

    @numba.njit
    def sample(
        g: Any, places: int, pixels: int, channel: int, width: int, target: int, pitch: int
    ) -> None:
        """Sample `width` channels, the first of them `channel` bytes behind a corner."""
        whole = width // lanes * lanes
        rest = range_mask(0, width - whole)
        for pixel in range(pixels):
            corners = read(g, places, pixel)
            to = target + pixel * pitch
            for c in range(0, whole, lanes):
                value = _blend(corners, channel + c * size, 0, compute, lanes, masked, 1)
                store(to + c * size, value, compute)
            if rest:
                value = _blend(corners, channel + whole * size, rest, compute, lanes, masked, 0)
                store_masked(to + whole * size, value, rest, compute)

    return sample


@functools.cache
def make_pack_samples(lanes: int, compute: int, masked: int) -> Any:
    """Return a function that brings the samples of some steps into a panel.

    Rows of `ADJACENT` steps lie behind each other, `rows` pixels of one stretch of steps and then
    those of the next.
    """
    size, adjacent = ITEMSIZE[compute], ADJACENT
    sample = make_sample(lanes, compute, masked)

    @numba.njit
    def pack(
        g: Any, places: int, group: int, first: int, steps: int, rows: int, pixels: int, panel: int
    ) -> None:
        """Sample steps `first` to `first + steps` of a group of channels.

        `places` are those of the offset groups that the group's channels belong to.
        """
        step, taps = 0, g.kh * g.kw
        first_set = group * g.c // g.offset_channels
        while step < steps:
            tap = (first + step) // g.c
            c = first + step - tap * g.c
            channel = group * g.c + c
            offsets = channel // g.offset_channels
            width = min(g.c - c, (offsets + 1) * g.offset_channels - channel)
            width = min(width, steps - step, adjacent - step % adjacent)
            row = step // adjacent * rows * adjacent + step % adjacent
            sample(
                g, places + ((offsets - first_set) * taps + tap) * g.place_bytes, pixels,
                channel * size, width, panel + row * size, adjacent * size,
            )  # fmt: skip
            step += width

    return pack
