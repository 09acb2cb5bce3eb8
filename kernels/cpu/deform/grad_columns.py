"""Gradients for samples: what gradients for the input and for the offsets are made of.

``grad_sample[pixel, tap, c]`` is the sum over output channels K of ``grad_out[pixel, K]`` times
``weight[K, c, tap]``: rows of the register tile are pixels, lanes are input channels of one tap,
steps are output channels. The weight is brought into panels of that order in each call, and the
gradients of a block of pixels into rows of pixels, an output channel behind the other.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from ..gemm.split import REDUCTION
from ..gemm.tile import TileArguments, call_tile
from ..simd.intrinsics import load_gather, load_masked, range_mask, store
from ..simd.ir import ITEMSIZE, compute_code
from ..simd.register_tiles import RegisterTile

__all__ = ["COLUMN_FIELDS", "make_copy_grads", "make_pack_columns", "make_product"]

#: Fields of a geometry that tell of blocks of pixels and of panels.
COLUMN_FIELDS = (
    "tile",  # address of the register tile
    "block_pixels",  # pixels that are worked on at once
    "grads_pitch",  # bytes from one output channel's gradients to the next
    "channel_blocks",  # panels of a group and tap
)


@functools.cache
def make_pack_columns(tile: RegisterTile, storage: int) -> Any:
    """Return a function that packs one panel of the weight: nr input channels of one tap, all K.

    Panels of a tap lie behind one another, then those of the next tap and group.
    """
    compute = compute_code(storage)
    lanes, nr, size = tile.lanes, tile.nr, ITEMSIZE[compute]

    @numba.njit
    def pack(g: Any, weight: int, number: int, packed: int) -> None:
        taps = g.kh * g.kw
        block, rest = number % g.channel_blocks, number // g.channel_blocks
        tap, group = rest % taps, rest // taps
        source = weight + group * g.k * g.wk + block * nr * g.wc
        source += tap // g.kw * g.wh + tap % g.kw * g.ww
        target = packed + number * g.k * nr * size
        for c in range(0, nr, lanes):
            mask = range_mask(0, max(0, min(lanes, g.c - block * nr - c)))
            for k in range(g.k):
                value = load_gather(source + k * g.wk + c * g.wc, g.wc, mask, storage, lanes)
                store(target + (k * nr + c) * size, value, compute)

    return pack


@functools.cache
def make_copy_grads(lanes: int, storage: int) -> Any:
    """Return a function that copies gradients of a block of pixels, for some output channels.

    Whole vectors are stored, so a row needs one vector of room behind it.
    """
    compute = compute_code(storage)
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]

    @numba.njit
    def copy_grads(g: Any, grad: int, channels: int, first: int, pixels: int, target: int) -> None:
        pixel = 0
        while pixel < pixels:
            row = (first + pixel) // g.ow
            column = first + pixel - row * g.ow
            length = min(g.ow - column, pixels - pixel)
            source = grad + row * g.yh + column * g.yw
            for k in range(channels):
                to = target + k * g.grads_pitch + pixel * size
                for p in range(0, length, lanes):
                    at, mask = source + k * g.yc + p * g.yw, range_mask(0, min(lanes, length - p))
                    if g.yw == item:
                        store(to + p * size, load_masked(at, mask, storage, lanes), compute)
                    else:
                        store(to + p * size, load_gather(at, g.yw, mask, storage, lanes), compute)
            pixel += length

    return copy_grads


@functools.cache
def make_product(tile: RegisterTile, compute: int) -> Any:
    """Return a function that multiplies gradients of a block of pixels by one panel."""
    mr, nr, size, most = tile.mr, tile.nr, ITEMSIZE[compute], REDUCTION

    @numba.njit
    def multiply(
        g: Any, grads: int, panel: int, pixels: int, width: int, target: int, pitch: int,
        zeros: int,
    ) -> None:  # fmt: skip
        """Write sums of `width` input channels, rows of pixels `pitch` bytes apart."""
        for k in range(0, g.k, most):
            for pixel in range(0, pixels, mr):
                arguments = TileArguments(
                    a=grads + k * g.grads_pitch + pixel * size, a_step=g.grads_pitch,
                    b=panel + k * nr * size, b_step=nr * size, kc=min(most, g.k - k),
                    c=target + pixel * pitch, c_pitch=pitch, bias=zeros, accumulate=int(k > 0),
                    low=-math.inf, high=math.inf, width=width,
                )  # fmt: skip
                call_tile(g.tile, arguments, min(mr, pixels - pixel))

    return multiply
