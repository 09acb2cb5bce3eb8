"""Pools whose lanes are channels: inputs and outputs that are channels last.

A window's samples are vectors of channels, one a tap, which meet in registers::

    task = some pixels of the output, or pieces of their channels
      for block of 4 vectors of channels              then single ones, under a mask
        for tap of the window within the input: join 4 vectors
        a mean divides, a norm takes its root; store

Bound by loads from L1 and L2: a vector a tap, as each input pixel is met by as many windows as see
it. To join rows first, as pools over rows do, saves nothing at strides above one and at windows of
3 x 3.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import load, load_masked, range_mask, splat, store, store_masked
from ..simd.ir import ITEMSIZE, compute_code
from .fields import view
from .geometry import LARGEST, MEAN
from .layout import VECTORS
from .rules import divide, make_rule, multiply, real_type
from .windows import make_window, shares

__all__ = ["make_channels"]


@functools.cache
def _make_finish(rule: int, degree: int, lanes: int, code: int) -> Any:
    """Return a function that makes the output of a sum."""
    real, root = real_type(code), make_rule(rule, degree).root

    @numba.njit(forceinline=True)
    def finish(g: Any, value: Any, divisor: int) -> Any:
        if rule == LARGEST:
            return value
        if rule == MEAN and g.exact:
            return multiply(value, splat(real(g.factor), lanes))
        if rule == MEAN:
            return divide(value, splat(real(divisor), lanes))
        if g.clipped:
            value = multiply(value, splat(real(g.window) / real(divisor), lanes))
        return root(g, value)

    return finish


@functools.cache
def _make_join(rule: int, degree: int, lanes: int, storage: int) -> Any:
    """Return functions that pool four vectors of channels, and one under a mask."""
    compute = compute_code(storage)
    made, vector = make_rule(rule, degree), lanes * ITEMSIZE[storage]
    start, lift, join = real_type(compute)(made.first), made.lift, made.join_2
    finish = _make_finish(rule, degree, lanes, compute)

    @numba.njit
    def join_block(
        g: Any, x: int, depths: int, heights: int, widths: int, divisor: int, out: int
    ) -> None:
        """Pool four vectors of channels; `x` is the window's first sample."""
        first = splat(start, lanes)
        second, third, fourth = first, first, first
        for d in range(depths):
            for h in range(heights):
                at = x + d * g.dd * g.xd + h * g.dh * g.xh
                for _ in range(widths):
                    first = join(first, lift(g, load(at, storage, lanes)))
                    second = join(second, lift(g, load(at + vector, storage, lanes)))
                    third = join(third, lift(g, load(at + 2 * vector, storage, lanes)))
                    fourth = join(fourth, lift(g, load(at + 3 * vector, storage, lanes)))
                    at += g.dw * g.xw
        store(out, finish(g, first, divisor), storage)
        store(out + vector, finish(g, second, divisor), storage)
        store(out + 2 * vector, finish(g, third, divisor), storage)
        store(out + 3 * vector, finish(g, fourth, divisor), storage)

    @numba.njit
    def join_some(
        g: Any, x: int, depths: int, heights: int, widths: int, divisor: int, out: int, mask: int
    ) -> None:
        """Pool the channels of one vector whose bit is set."""
        value = splat(start, lanes)
        for d in range(depths):
            for h in range(heights):
                at = x + d * g.dd * g.xd + h * g.dh * g.xh
                for _ in range(widths):
                    value = join(value, lift(g, load_masked(at, mask, storage, lanes)))
                    at += g.dw * g.xw
        store_masked(out, finish(g, value, divisor), mask, storage)

    return join_block, join_some


@functools.cache
def _make_pixel(rule: int, degree: int, unequal: int, lanes: int, storage: int) -> Any:
    """Return a function that pools some channels of one pixel of the output."""
    item, block = ITEMSIZE[storage], VECTORS * lanes
    join_block, join_some = _make_join(rule, degree, lanes, storage)
    window = make_window(unequal)

    @numba.njit
    def pool_pixel(
        g: Any, x: int, out: int, od: int, oh: int, ow: int, channel: int, channels: int
    ) -> None:
        d, depths = window(od, g.id, g.od, g.kd, g.sd, g.pd, g.dd)
        h, heights = window(oh, g.ih, g.oh, g.kh, g.sh, g.ph, g.dh)
        w, widths = window(ow, g.iw, g.ow, g.kw, g.sw, g.pw, g.dw)
        divisor = g.divisor
        if rule != LARGEST and divisor == 0:
            divisor = shares(od, depths, g.id, g.kd, g.sd, g.pd, g.with_pads)
            divisor *= shares(oh, heights, g.ih, g.kh, g.sh, g.ph, g.with_pads)
            divisor *= shares(ow, widths, g.iw, g.kw, g.sw, g.pw, g.with_pads)
        source = x + d * g.xd + h * g.xh + w * g.xw + channel * item
        target = out + od * g.yd + oh * g.yh + ow * g.yw + channel * item
        whole = channels // block * block
        for c in range(0, whole, block):
            join_block(
                g, source + c * item, depths, heights, widths, divisor, target + c * item
            )  # fmt: skip
        for c in range(whole, channels, lanes):
            mask = range_mask(0, min(lanes, channels - c))
            join_some(
                g, source + c * item, depths, heights, widths, divisor, target + c * item, mask
            )  # fmt: skip

    return pool_pixel


@functools.cache
def make_channels(rule: int, degree: int, unequal: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    pool_pixel = _make_pixel(rule, degree, unequal, lanes, storage)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        unit = number * g.block
        piece, rest = unit % g.pieces, unit // g.pieces
        ow, rest = rest % g.ow, rest // g.ow
        oh, rest = rest % g.oh, rest // g.oh
        od, image = rest % g.od, rest // g.od
        for _ in range(unit, min(unit + g.block, g.units)):
            channel = piece * g.piece
            pool_pixel(
                g, x + image * g.xn, out + image * g.yn, od, oh, ow, channel,
                min(g.piece, g.c - channel),
            )  # fmt: skip
            piece += 1
            if piece == g.pieces:
                piece, ow = 0, ow + 1
            if ow == g.ow:
                ow, oh = 0, oh + 1
            if oh == g.oh:
                oh, od = 0, od + 1
            if od == g.od:
                od, image = 0, image + 1

    return task
