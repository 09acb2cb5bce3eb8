"""Gradients of means, lanes along channels: both gradients are channels last.

Every sample of the input gathers from the windows that see it, so nothing is scattered::

    task = some pixels of the input, or pieces of their channels
      for vector of channels
        for window that sees the pixel: add its gradient times its share
        store

A share is one over the samples that the window's mean counts.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import add, load_masked, range_mask, splat, store_masked
from ..simd.ir import ITEMSIZE, compute_code
from .fields import view
from .rules import multiply, real_type
from .windows import make_seen_by, make_share_of

__all__ = ["make_spread_channels"]


@functools.cache
def _make_gather(unequal: int, lanes: int, storage: int) -> Any:
    """Return a function that adds up the shares of one vector of channels."""
    item, real = ITEMSIZE[storage], real_type(compute_code(storage))
    zero = real(0.0)
    share_of, seen_by = make_share_of(unequal), make_seen_by(unequal)

    @numba.njit
    def gather(
        g: Any, grad: int, od: int, depths: int, oh: int, heights: int, ow: int, widths: int,
        channels: int, out: int,
    ) -> None:  # fmt: skip
        mask = range_mask(0, min(lanes, channels))
        total = splat(zero, lanes)
        for w in range(ow, ow + widths):  # in the order of spread_rows.py
            value, across = splat(zero, lanes), g.divisor
            if across == 0:
                across = share_of(w, g.iw, g.ow, g.kw, g.sw, g.pw, g.with_pads)
            for d in range(od, od + depths):
                for h in range(oh, oh + heights):
                    others = 1
                    if g.divisor == 0:
                        others = share_of(d, g.id, g.od, g.kd, g.sd, g.pd, g.with_pads)
                        others *= share_of(h, g.ih, g.oh, g.kh, g.sh, g.ph, g.with_pads)
                    share = (real(1.0) / real(across)) * (real(1.0) / real(others))
                    at = grad + d * g.xd + h * g.xh + w * g.xw
                    part = multiply(load_masked(at, mask, storage, lanes), splat(share, lanes))
                    value = add(value, part)
            total = add(total, value)
        store_masked(out, total, mask, storage)

    @numba.njit
    def gather_pixel(g: Any, grad: int, d: int, h: int, w: int, channels: int, out: int) -> None:
        od, depths = seen_by(d, g.id, g.od, g.kd, g.sd, g.pd)
        oh, heights = seen_by(h, g.ih, g.oh, g.kh, g.sh, g.ph)
        ow, widths = seen_by(w, g.iw, g.ow, g.kw, g.sw, g.pw)
        target = out + d * g.yd + h * g.yh + w * g.yw
        for c in range(0, channels, lanes):
            gather(
                g, grad + c * item, od, depths, oh, heights, ow, widths, channels - c,
                target + c * item,
            )  # fmt: skip

    return gather_pixel


@functools.cache
def make_spread_channels(unequal: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    item, gather_pixel = ITEMSIZE[storage], _make_gather(unequal, lanes, storage)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        for unit in range(number * g.block, min((number + 1) * g.block, g.units)):
            piece, rest = unit % g.pieces, unit // g.pieces
            w, rest = rest % g.iw, rest // g.iw
            h, rest = rest % g.ih, rest // g.ih
            image, d = rest // g.id, rest % g.id
            channel = piece * g.piece
            gather_pixel(
                g, x + image * g.xn + channel * item, d, h, w, min(g.piece, g.c - channel),
                out + image * g.yn + channel * item,
            )  # fmt: skip

    return task
