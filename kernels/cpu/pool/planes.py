"""Pools over whole channels whose samples lie in one stretch: global pools, channels first.

::

    task = some channels
      for four vectors of the channel: join each with a vector of its own      then single ones
      join the four, and their lanes; divide; store

Bound by memory, or by 4 loads and the folding of the lanes (8 instructions) in planes of 7 x 7.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import load, load_masked, merge_lanes, range_mask, splat, store_scalar
from ..simd.ir import ITEMSIZE, compute_code
from .fields import view
from .geometry import LARGEST
from .rules import fold_largest, fold_total, make_rule, real_type

__all__ = ["make_planes"]


@functools.cache
def make_planes(rule: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    compute = compute_code(storage)
    item, real = ITEMSIZE[storage], real_type(compute)
    made = make_rule(rule, 0)
    start, join = real(made.first), made.join_2
    vector = lanes * item

    @numba.njit(forceinline=True)
    def join_plane(g: Any, x: int) -> Any:
        first = splat(start, lanes)
        second, third, fourth = first, first, first
        whole = g.plane // (4 * lanes) * (4 * lanes)
        for place in range(0, whole, 4 * lanes):
            at = x + place * item
            first = join(first, load(at, storage, lanes))
            second = join(second, load(at + vector, storage, lanes))
            third = join(third, load(at + 2 * vector, storage, lanes))
            fourth = join(fourth, load(at + 3 * vector, storage, lanes))
        end = g.plane // lanes * lanes
        for place in range(whole, end, lanes):
            second = join(second, load(x + place * item, storage, lanes))
        if end < g.plane:
            mask = range_mask(0, g.plane - end)
            rest = load_masked(x + end * item, mask, storage, lanes)
            if rule == LARGEST:  # lanes outside are zero
                rest = merge_lanes(rest, splat(start, lanes), mask)
            third = join(third, rest)
        joined = join(join(first, second), join(third, fourth))
        if rule == LARGEST:
            return fold_largest(joined)
        return fold_total(joined) / real(g.divisor)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        unit = number * g.block
        image, channel = unit // g.c, unit % g.c
        for _ in range(unit, min(unit + g.block, g.units)):
            source = x + image * g.xn + channel * g.xc
            store_scalar(
                out + image * g.yn + channel * g.yc, join_plane(g, source), storage
            )  # fmt: skip
            channel += 1
            if channel == g.c:
                channel, image = 0, image + 1

    return task
