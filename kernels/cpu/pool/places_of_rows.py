"""Maxima and their places, lanes along a row of outputs: every memory order but channels last.

Samples are met in their order, so that of equal ones the first is kept, and of several NaN the
last, as PyTorch does. That leaves nothing to join beforehand::

    task = some output rows
      for vector of outputs
        for tap of depth, height and width
          load every stride-th sample; what beats the maximum takes its place
        store maxima, and places as int64

A tap costs a load (two and a shuffle at a stride of 2, a gather beyond), two comparisons and two
selections. Windows of adaptive pools that do not divide the input go one output at a time.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from ..common.copies import make_read_vector, pair_mask
from ..simd.intrinsics import (
    load_scalar,
    merge_lanes,
    range_mask,
    set_word,
    splat,
    store_masked,
    store_scalar,
    store_scatter,
)
from ..simd.ir import ITEMSIZE, compute_code
from .fields import view
from .places import beats, scatter_places, splat_place, store_places
from .rules import real_type
from .windows import make_window

__all__ = ["make_places_of_rows"]


@functools.cache
def _make_vector(lanes: int, storage: int) -> Any:
    """Return a function that finds the maxima of a vector of outputs."""
    compute = compute_code(storage)
    item, start = ITEMSIZE[storage], real_type(compute)(-np.inf)
    read, full = make_read_vector(lanes, storage), (1 << lanes) - 1

    @numba.njit
    def find(
        g: Any, x: int, column: int, depths: int, heights: int, first: int, left: int,
        out: int, places: int,
    ) -> None:  # fmt: skip
        """Find `left` maxima; `x` is column 0 of the window's first row, sample `first`."""
        value = splat(start, lanes)
        place = splat_place(0, storage, lanes)
        seen = 0
        for d in range(depths):
            for h in range(heights):
                row = x + d * g.dd * g.xd + h * g.dh * g.xh
                passed = (d * g.dd * g.ih + h * g.dh) * g.iw
                for tap in range(g.kw):
                    w = column + tap * g.dw
                    begin, end = 0, lanes
                    if w < 0 or w + (lanes - 1) * g.sw >= g.iw:
                        begin = min(max(-(w // g.sw), 0), lanes)
                        end = max(min((g.iw - 1 - w) // g.sw + 1, lanes), begin)
                    mask = range_mask(begin, end)
                    candidate = read(
                        row + w * g.xw, g.sw * g.xw, mask, pair_mask(begin, end)
                    )  # fmt: skip
                    # The first sample of all counts even if it is the least number.
                    better = (beats(candidate, value) | (seen ^ full)) & mask
                    value = merge_lanes(candidate, value, better)
                    new = splat_place(passed + tap * g.dw, storage, lanes)
                    place = merge_lanes(new, place, better)
                    seen |= mask
        bits = range_mask(0, min(left, lanes))
        if g.yw == item:
            store_masked(out, value, bits, storage)
        else:
            store_scatter(out, g.yw, value, bits, storage)
        if g.rw == 8:
            store_places(places, place, first + column, g.sw, bits)
        else:
            scatter_places(places, g.rw, place, first + column, g.sw, bits)

    return find


@functools.cache
def make_places_of_rows(unequal: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    find, window = _make_vector(lanes, storage), make_window(unequal)

    @numba.njit
    def find_unequal(
        g: Any, x: int, start: int, width: int, depths: int, heights: int, out: int, place: int,
        first: int,
    ) -> None:  # fmt: skip
        """Find one maximum; `x` is column 0 of the window's first row, sample `first`."""
        largest, at = load_scalar(x + start * g.xw, storage), start
        for d in range(depths):
            for h in range(heights):
                row = x + d * g.xd + h * g.xh
                for w in range(start, start + width):
                    value = load_scalar(row + w * g.xw, storage)
                    if value > largest or value != value:
                        largest, at = value, (d * g.ih + h) * g.iw + w
        store_scalar(out, largest, storage)
        set_word(place, 0, first + at)

    @numba.njit
    def find_row(g: Any, x: int, od: int, oh: int, out: int, places: int) -> None:
        d, depths = window(od, g.id, g.od, g.kd, g.sd, g.pd, g.dd)
        h, heights = window(oh, g.ih, g.oh, g.kh, g.sh, g.ph, g.dh)
        source, first = x + d * g.xd + h * g.xh, (d * g.ih + h) * g.iw
        if unequal:
            for ow in range(g.ow):
                start, width = window(ow, g.iw, g.ow, g.kw, g.sw, g.pw, g.dw)
                find_unequal(
                    g, source, start, width, depths, heights, out + ow * g.yw,
                    places + ow * g.rw, first,
                )  # fmt: skip
        else:
            for ow in range(0, g.ow, lanes):
                find(
                    g, source, ow * g.sw - g.pw, depths, heights, first, g.ow - ow,
                    out + ow * g.yw, places + ow * g.rw,
                )  # fmt: skip

    def task(
        geometry: int, x: int, out: int, third: int, fourth: int, places: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        for unit in range(number * g.block, min((number + 1) * g.block, g.units)):
            oh, rest = unit % g.oh, unit // g.oh
            od, rest = rest % g.od, rest // g.od
            image, channel = rest // g.c, rest % g.c
            find_row(
                g, x + image * g.xn + channel * g.xc, od, oh,
                out + image * g.yn + channel * g.yc + od * g.yd + oh * g.yh,
                places + image * g.rn + channel * g.rc + od * g.rd + oh * g.rh,
            )  # fmt: skip

    return task
