"""Pools of narrow windows whose lanes are the outputs of a row: every step stays in registers.

At up to 8 taps along the width, and strides up to 4, a vector of outputs comes from as many vectors
of columns as the stride has steps and from those behind them::

    task = some output rows, or pieces of long ones
      for vector of outputs
        for vector of columns behind those that there are: join its rows      loads under the window
        split columns by phases of the stride; shift by whole steps; join the taps
        a mean divides, a norm takes its root; store

A vector of columns is loaded and joined once for a row of outputs: at 3 x 3 and stride 2 that is 6
loads, 12 instructions for the rows and 9 for the columns, and a store. What rows.py writes to a
buffer and reads at other places has to wait until it is in L1, which costs rows of 14 or 28 samples
more than all of this.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from ..simd.intrinsics import load, load_masked, merge_lanes, range_mask, splat
from ..simd.ir import I32, ITEMSIZE, compute_code, literals
from .fields import view
from .geometry import LARGEST
from .rows import make_finish, make_put, make_tell_shares
from .rules import largest_of, make_rule, real_type
from .windows import make_window, shares

__all__ = ["make_short_rows"]


def _lanes_of(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    """Return lanes of two vectors laid end to end."""
    kind = ir.VectorType(I32, len(places))
    return builder.shuffle_vector(a, b, ir.Constant(kind, [I32(place) for place in places]))


def _end_to_end(builder: Any, vectors: list[Any]) -> Any:
    """Return as many vectors as one; what is undefined stands behind an odd one."""
    while len(vectors) > 1:
        if len(vectors) % 2:
            vectors = [*vectors, ir.Constant(vectors[0].type, ir.Undefined)]
        size = 2 * vectors[0].type.count
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [_lanes_of(builder, a, b, list(range(size))) for a, b in pairs]
    return vectors[0]


@intrinsic(prefer_literal=True)
def _join_taps(typingctx: Any, now: Any, following: Any, rule: Any, taps: Any, step: Any) -> Any:
    """Join each ``taps`` neighbours of columns, ``step`` from one window to the next.

    The columns are `step` vectors, and those behind them as many.
    """
    shape = literals((rule, taps, step))
    if shape is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = [_end_to_end(builder, cgutils.unpack_tuple(builder, each)) for each in args[:2]]
        lanes, values = now.dtype.lanes, []
        for tap in range(shape[1]):
            steps, phase = divmod(tap, shape[2])
            places = [phase + shape[2] * lane for lane in range(lanes)]
            first, second = (
                each if shape[2] == 1 else _lanes_of(builder, each, each, places) for each in wide
            )
            shifted = list(range(steps, steps + lanes))
            values.append(_lanes_of(builder, first, second, shifted) if steps else first)
        if shape[0] == LARGEST:
            return largest_of(builder, values)
        return functools.reduce(builder.fadd, values)

    return now.dtype(now, following, *(rule, taps, step)), codegen


@functools.cache
def _make_join_rows(rule: int, degree: int, lanes: int, storage: int) -> Any:
    """Return a function that joins the rows of a window for one vector of columns."""
    made = make_rule(rule, degree)
    lift, join_2, join_3 = made.lift, made.join_2, made.join_3
    start, item = real_type(compute_code(storage))(made.first), ITEMSIZE[storage]

    @numba.njit(forceinline=True)
    def whole(g: Any, at: int, heights: int) -> Any:
        pitch = g.dh * g.xh
        value = lift(g, load(at, storage, lanes))
        if heights == 2:
            return join_2(value, lift(g, load(at + pitch, storage, lanes)))
        if heights == 3:
            return join_3(
                value, lift(g, load(at + pitch, storage, lanes)),
                lift(g, load(at + 2 * pitch, storage, lanes)),
            )  # fmt: skip
        for h in range(1, heights):
            value = join_2(value, lift(g, load(at + h * pitch, storage, lanes)))
        return value

    @numba.njit(forceinline=True)
    def part(g: Any, at: int, heights: int, mask: int) -> Any:
        pitch = g.dh * g.xh
        value = lift(g, load_masked(at, mask, storage, lanes))
        if heights == 2:
            return join_2(value, lift(g, load_masked(at + pitch, mask, storage, lanes)))
        if heights == 3:
            return join_3(
                value, lift(g, load_masked(at + pitch, mask, storage, lanes)),
                lift(g, load_masked(at + 2 * pitch, mask, storage, lanes)),
            )  # fmt: skip
        for h in range(1, heights):
            value = join_2(value, lift(g, load_masked(at + h * pitch, mask, storage, lanes)))
        return value

    @numba.njit(forceinline=True)
    def join_rows(g: Any, row: int, depths: int, heights: int, column: int) -> Any:
        """Join columns from `column` on; `row` is the window's first, of `heights` at a depth."""
        at = row + column * item
        if 0 <= column <= g.iw - lanes:
            value = whole(g, at, heights)
            for d in range(1, depths):
                value = join_2(value, whole(g, at + d * g.dd * g.xd, heights))
            return value
        value = splat(start, lanes)
        begin, end = min(max(-column, 0), lanes), min(max(g.iw - column, 0), lanes)
        if begin < end:
            mask = range_mask(begin, end)
            joined = part(g, at, heights, mask)
            for d in range(1, depths):
                joined = join_2(joined, part(g, at + d * g.dd * g.xd, heights, mask))
            value = merge_lanes(joined, value, mask)
        return value

    return join_rows


@functools.cache
def _make_columns(rule: int, degree: int, step: int, lanes: int, storage: int) -> Any:
    """Return a function that joins the rows of `step` vectors of columns."""
    join = _make_join_rows(rule, degree, lanes, storage)

    @numba.njit(forceinline=True)
    def one(g: Any, row: int, depths: int, heights: int, at: int) -> Any:
        return (join(g, row, depths, heights, at),)

    @numba.njit(forceinline=True)
    def two(g: Any, row: int, depths: int, heights: int, at: int) -> Any:
        first = join(g, row, depths, heights, at)
        return first, join(g, row, depths, heights, at + lanes)

    @numba.njit(forceinline=True)
    def three(g: Any, row: int, depths: int, heights: int, at: int) -> Any:
        first, second = two(g, row, depths, heights, at)
        return first, second, join(g, row, depths, heights, at + 2 * lanes)

    @numba.njit(forceinline=True)
    def four(g: Any, row: int, depths: int, heights: int, at: int) -> Any:
        first, second = two(g, row, depths, heights, at)
        third, fourth = two(g, row, depths, heights, at + 2 * lanes)
        return first, second, third, fourth

    return (one, two, three, four)[step - 1]


@functools.cache
def _make_nothing(rule: int, step: int, lanes: int, code: int) -> Any:
    """Return a function that returns what `step` vectors of no columns at all come to."""
    start = real_type(code)(make_rule(rule, 0).first)

    @numba.njit(forceinline=True)
    def one() -> Any:
        return (splat(start, lanes),)

    @numba.njit(forceinline=True)
    def two() -> Any:
        return splat(start, lanes), splat(start, lanes)

    @numba.njit(forceinline=True)
    def three() -> Any:
        return splat(start, lanes), splat(start, lanes), splat(start, lanes)

    @numba.njit(forceinline=True)
    def four() -> Any:
        return splat(start, lanes), splat(start, lanes), splat(start, lanes), splat(start, lanes)

    return (one, two, three, four)[step - 1]


@functools.cache
def _make_row(rule: int, degree: int, taps: int, step: int, lanes: int, storage: int) -> Any:
    """Return a function that computes `count` outputs of a row from `first` on."""
    code = compute_code(storage)
    size, window = ITEMSIZE[code], make_window(0)
    columns = _make_columns(rule, degree, step, lanes, storage)
    nothing = _make_nothing(rule, step, lanes, code)
    finish, put = make_finish(rule, degree, lanes, code), make_put(lanes, storage)
    kind = LARGEST if rule == LARGEST else 1

    @numba.njit
    def make_row(
        g: Any, x: int, out: int, od: int, oh: int, first: int, count: int, table: int
    ) -> None:
        depth, depths = window(od, g.id, g.od, g.kd, g.sd, g.pd, g.dd)
        height, heights = window(oh, g.ih, g.oh, g.kh, g.sh, g.ph, g.dh)
        share = 1
        if rule != LARGEST and not g.divisor:
            share = shares(od, depths, g.id, g.kd, g.sd, g.pd, g.with_pads)
            share *= shares(oh, heights, g.ih, g.kh, g.sh, g.ph, g.with_pads)
        row, column = x + depth * g.xd + height * g.xh, first * step - g.pw
        if depths * heights == 0:
            column = g.iw  # beyond the last sample there is none either
        if taps <= step:
            for j in range(0, count, lanes):
                now = columns(g, row, depths, heights, column + j * step)
                value = finish(g, _join_taps(now, now, kind, taps, step), table + j * size, share)
                put(g, out + (first + j) * g.yw, value, count - j)
            return
        now = nothing()
        for j in range(-lanes, count, lanes):
            following = columns(g, row, depths, heights, column)
            column += step * lanes
            if j >= 0:
                value = _join_taps(now, following, kind, taps, step)
                value = finish(g, value, table + j * size, share)
                put(g, out + (first + j) * g.yw, value, count - j)
            now = following

    return make_row


@functools.cache
def make_short_rows(rule: int, degree: int, taps: int, step: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    make_row = _make_row(rule, degree, taps, step, lanes, storage)
    tell_shares = make_tell_shares(0, compute_code(storage))

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        table, told = workspace + worker * g.worker_bytes, -1
        unit = number * g.block
        oh, rest = unit % g.oh, unit // g.oh
        od, rest = rest % g.od, rest // g.od
        channel, rest = rest % g.c, rest // g.c
        image, piece = rest % g.n, rest // g.n
        for _ in range(unit, min(unit + g.block, g.units)):
            first = piece * g.piece
            count = min(g.piece, g.ow - first)
            if rule != LARGEST and piece != told:
                tell_shares(g, first, count, table)
                told = piece
            make_row(
                g, x + image * g.xn + channel * g.xc,
                out + image * g.yn + channel * g.yc + od * g.yd + oh * g.yh,
                od, oh, first, count, table,
            )  # fmt: skip
            oh += 1
            if oh == g.oh:
                oh, od = 0, od + 1
            if od == g.od:
                od, channel = 0, channel + 1
            if channel == g.c:
                channel, image = 0, image + 1
            if image == g.n:
                image, piece = 0, piece + 1

    return task
