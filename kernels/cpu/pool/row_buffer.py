"""The rows of a window's depth and height, joined into one row in L1.

Three rows are joined at a time, so that a window of 3 x 3 reads each sample once a row of outputs
and stores one row; what is left joins the row that is there. Positions outside the input get what
no sample comes to, so that whatever runs along the row needs no masks::

    for depth, three rows of the height
      for vector of the row: load up to three, join, store
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import load, load_gather, load_masked, range_mask, splat, store
from ..simd.ir import ITEMSIZE, compute_code
from .rules import make_rule, real_type

__all__ = ["make_gather_row"]


@functools.cache
def _make_join_rows(rule: int, degree: int, lanes: int, storage: int) -> Any:
    """Return a function that joins up to three rows, and what is there where `begun`."""
    compute = compute_code(storage)
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]
    _, lift, join_2, join_3, _, _ = make_rule(rule, degree)

    @numba.njit
    def join_full(
        g: Any, source: int, pitch: int, rows: int, begun: bool, target: int, width: int
    ) -> None:
        for c in range(0, width, lanes):
            at = source + c * item
            value = lift(g, load(at, storage, lanes))
            if rows == 2:
                value = join_2(value, lift(g, load(at + pitch, storage, lanes)))
            elif rows == 3:
                value = join_3(
                    value, lift(g, load(at + pitch, storage, lanes)),
                    lift(g, load(at + 2 * pitch, storage, lanes)),
                )  # fmt: skip
            if begun:
                value = join_2(load(target + c * size, compute, lanes), value)
            store(target + c * size, value, compute)

    @numba.njit
    def read(address: int, step: int, mask: int) -> Any:
        if step == item:
            return load_masked(address, mask, storage, lanes)
        return load_gather(address, step, mask, storage, lanes)

    @numba.njit
    def join_rows(
        g: Any, source: int, pitch: int, rows: int, begun: bool, target: int, width: int
    ) -> None:
        whole = width // lanes * lanes if g.xw == item else 0
        join_full(g, source, pitch, rows, begun, target, whole)
        for c in range(whole, width, lanes):
            mask = range_mask(0, min(lanes, width - c))
            at = source + c * g.xw
            value = lift(g, read(at, g.xw, mask))
            if rows >= 2:
                value = join_2(value, lift(g, read(at + pitch, g.xw, mask)))
            if rows == 3:
                value = join_2(value, lift(g, read(at + 2 * pitch, g.xw, mask)))
            if begun:
                value = join_2(load(target + c * size, compute, lanes), value)
            store(target + c * size, value, compute)

    return join_rows


@functools.cache
def make_gather_row(rule: int, degree: int, lanes: int, storage: int) -> Any:
    """Return a function that joins the rows of a window over `span` columns from `first` on.

    `x` is a channel's first sample, ``(depth, height)`` the window's first row. Whole vectors are
    stored, so there must be room for two behind the span.
    """
    compute = compute_code(storage)
    size, start = ITEMSIZE[compute], real_type(compute)(make_rule(rule, degree).first)
    join_rows = _make_join_rows(rule, degree, lanes, storage)

    @numba.njit
    def fill(target: int, count: int) -> None:
        for c in range(0, count, lanes):
            store(target + c * size, splat(start, lanes), compute)

    @numba.njit
    def gather_row(
        g: Any, x: int, first: int, span: int, depth: int, depths: int, depth_step: int,
        height: int, heights: int, height_step: int, target: int,
    ) -> None:  # fmt: skip
        low = min(max(0, -first), span)
        high = max(low, min(span, g.iw - first))
        fill(target, low)
        source = x + depth * g.xd + height * g.xh + (first + low) * g.xw
        pitch, inside = height_step * g.xh, target + low * size
        for d in range(depths):
            plane, row = source + d * depth_step * g.xd, 0
            while row < heights:
                rows = min(3, heights - row)
                join_rows(
                    g, plane + row * pitch, pitch, rows, d + row > 0, inside, high - low
                )  # fmt: skip
                row += rows
        if depths * heights == 0:
            fill(inside, high - low)
        fill(target + high * size, span - high)

    return gather_row
