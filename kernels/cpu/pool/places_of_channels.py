"""Maxima and their places, lanes along channels: inputs and outputs that are channels last.

::

    task = some pixels of the output, or pieces of their channels
      for vector of channels
        for tap of the window within the input: what beats the maximum takes its place
        store maxima, and places as int64

Samples are met in their order; a tap costs a load, two comparisons and two selections.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from ..simd.intrinsics import load_masked, merge_lanes, range_mask, splat, store_masked
from ..simd.ir import ITEMSIZE, compute_code
from .fields import view
from .places import beats, scatter_places, splat_place, store_places
from .rules import real_type
from .windows import make_window

__all__ = ["make_places_of_channels"]


@functools.cache
def make_places_of_channels(unequal: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    item, start = ITEMSIZE[storage], real_type(compute_code(storage))(-np.inf)
    window = make_window(unequal)

    @numba.njit
    def find(
        g: Any, x: int, depths: int, heights: int, widths: int, first: int, mask: int, out: int,
        places: int,
    ) -> None:  # fmt: skip
        """Find the maxima of one vector of channels; `x` is the window's sample `first`."""
        value = splat(start, lanes)
        place = splat_place(0, storage, lanes)
        for d in range(depths):
            for h in range(heights):
                row = x + d * g.dd * g.xd + h * g.dh * g.xh
                passed = (d * g.dd * g.ih + h * g.dh) * g.iw
                for w in range(widths):
                    candidate = load_masked(row + w * g.dw * g.xw, mask, storage, lanes)
                    better = beats(candidate, value)
                    value = merge_lanes(candidate, value, better)
                    new = splat_place(passed + w * g.dw, storage, lanes)
                    place = merge_lanes(new, place, better)
        store_masked(out, value, mask, storage)
        if g.rc == 8:
            store_places(places, place, first, 0, mask)
        else:
            scatter_places(places, g.rc, place, first, 0, mask)

    @numba.njit
    def find_pixel(
        g: Any, x: int, out: int, places: int, od: int, oh: int, ow: int, channels: int
    ) -> None:
        d, depths = window(od, g.id, g.od, g.kd, g.sd, g.pd, g.dd)
        h, heights = window(oh, g.ih, g.oh, g.kh, g.sh, g.ph, g.dh)
        w, widths = window(ow, g.iw, g.ow, g.kw, g.sw, g.pw, g.dw)
        source, first = x + d * g.xd + h * g.xh + w * g.xw, (d * g.ih + h) * g.iw + w
        target = out + od * g.yd + oh * g.yh + ow * g.yw
        numbers = places + od * g.rd + oh * g.rh + ow * g.rw
        for c in range(0, channels, lanes):
            find(
                g, source + c * item, depths, heights, widths, first,
                range_mask(0, min(lanes, channels - c)), target + c * item, numbers + c * g.rc,
            )  # fmt: skip

    def task(
        geometry: int, x: int, out: int, third: int, fourth: int, places: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        for unit in range(number * g.block, min((number + 1) * g.block, g.units)):
            piece, rest = unit % g.pieces, unit // g.pieces
            ow, rest = rest % g.ow, rest // g.ow
            oh, rest = rest % g.oh, rest // g.oh
            image, od = rest // g.od, rest % g.od
            channel = piece * g.piece
            find_pixel(
                g, x + image * g.xn + channel * item, out + image * g.yn + channel * item,
                places + image * g.rn + channel * g.rc, od, oh, ow, min(g.piece, g.c - channel),
            )  # fmt: skip

    return task
