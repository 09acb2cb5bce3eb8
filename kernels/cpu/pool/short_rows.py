"""Pools of narrow windows whose lanes are the outputs of a row: every step stays in registers.

At up to 8 taps along the width, and strides up to 4, a vector of outputs comes from as many vectors
of columns as the stride has steps and from those behind them::

    task = some output rows, or pieces of long ones
      for output row
        for vector of outputs
          for vector of columns behind those that there are: join its rows    loads under the window
          split columns by phases of the stride; shift by whole steps; join the taps
          a mean divides, a norm takes its root; store

A vector of columns is loaded and joined once for a row of outputs: at 3 x 3 and stride 2 that is 6
loads, 4 maxima and 6 instructions that look for NaN for the rows, 5 for the columns, and a store.
Rows in which a maximum met NaN are made again, an output at a time. What rows.py writes to a buffer
and reads at other places has to wait until it is in L1, which costs rows of 14 or 28 samples more
than all of this.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from ..common.sights import make_tell_sights
from ..simd.intrinsics import load_scalar, splat, store_scalar
from ..simd.ir import ITEMSIZE, compute_code
from .columns import join_columns, join_taps, load_columns, lost_nan, mark, no_columns, split
from .fields import view
from .geometry import LARGEST
from .rows import make_finish, make_put, make_tell_shares
from .rules import make_rule, real_type
from .windows import make_window, shares

__all__ = ["make_short_rows"]


@functools.cache
def _make_columns(
    rows: int, masked: int, rule: int, degree: int, step: int, lanes: int, storage: int
) -> Any:
    """Return a function that joins the rows of a window over `step` vectors of columns.

    There are `rows` rows where that is not 0.
    """
    size = rows if rows else 1

    @numba.njit(forceinline=True)
    def load(row: int, pitch: int, column: int, sight: int) -> Any:
        return load_columns(
            row, pitch, column, sight, size, masked, rule, degree, step, storage, lanes
        )  # fmt: skip

    @numba.njit(forceinline=True)
    def columns(g: Any, row: int, depths: int, heights: int, column: int, sight: int) -> Any:
        pitch = g.dh * g.xh
        value = load(row, pitch, column, sight)
        if rows == 0:
            for d in range(depths):
                for h in range(int(d == 0), heights):
                    at = row + d * g.dd * g.xd + h * pitch
                    value = join_columns(value, load(at, pitch, column, sight), rule)
        return split(value, rule)

    return columns


@functools.cache
def _make_blocks(
    rows: int, rule: int, degree: int, taps: int, step: int, lanes: int, storage: int
) -> Any:
    """Return a function that computes `count` outputs of each of `run` rows of outputs.

    Windows have `rows` rows where that is not 0. It tells whether NaN was lost.
    """
    code = compute_code(storage)
    size, real = ITEMSIZE[code], real_type(code)
    finish, put = make_finish(rule, degree, lanes, code), make_put(lanes, storage)
    whole = _make_columns(rows, 0, rule, degree, step, lanes, storage)
    part = _make_columns(rows, 1, rule, degree, step, lanes, storage)
    reach = step * lanes

    @numba.njit(forceinline=True)
    def columns(g: Any, row: int, depths: int, heights: int, column: int, sight: int) -> Any:
        if 0 <= column <= g.iw - reach:
            return whole(g, row, depths, heights, column, sight)
        if column < g.iw:
            return part(g, row, depths, heights, column, sight)
        return no_columns(rule, step, storage, lanes)

    @numba.njit
    def blocks(
        g: Any, row: int, depths: int, heights: int, column: int, sights: int, out: int,
        count: int, table: int, share: int, run: int,
    ) -> bool:  # fmt: skip
        marks = splat(real(0.0), lanes)
        for r in range(run):
            at, to, here = row + r * g.sh * g.xh, out + r * g.yh, column
            sight, place = sights, table
            now = columns(g, at, depths, heights, here, sight)
            for left in range(count, 0, -lanes):
                here, sight = here + reach, sight + 8 * step
                following = now
                if taps > step or left > lanes:
                    following = columns(g, at, depths, heights, here, sight)
                marks = mark(marks, now)
                value = join_taps(now, following, rule, taps)
                put(g, to, finish(g, value, place, share), left)
                now, to, place = following, to + lanes * g.yw, place + lanes * size
            marks = mark(marks, now)
        return lost_nan(marks)

    return blocks


@functools.cache
def _make_no_rows(rule: int, degree: int, lanes: int, storage: int) -> Any:
    """Return a function that computes a row of outputs whose windows have no row in the input."""
    code = compute_code(storage)
    size, nothing = ITEMSIZE[code], real_type(code)(make_rule(rule, degree).first)
    finish, put = make_finish(rule, degree, lanes, code), make_put(lanes, storage)

    @numba.njit
    def no_rows(g: Any, out: int, count: int, table: int, share: int) -> None:
        for j in range(0, count, lanes):
            value = finish(g, splat(nothing, lanes), table + j * size, share)
            put(g, out + j * g.yw, value, count - j)

    return no_rows


@functools.cache
def _make_single(storage: int) -> Any:
    """Return a function that makes maxima of rows one at a time, which is where NaN is heeded."""
    window, larger = make_window(0), make_rule(LARGEST, 0).join_scalars
    item, nothing = ITEMSIZE[storage], real_type(compute_code(storage))(-math.inf)

    @numba.njit
    def single(
        g: Any, row: int, depths: int, heights: int, out: int, first: int, count: int, run: int
    ) -> None:
        """`row` is the address of column 0 of the first of a window's rows."""
        for r in range(run):
            for j in range(count):
                w, widths = window(first + j, g.iw, g.ow, g.kw, g.sw, g.pw, 1)
                start, value = row + r * g.sh * g.xh + w * item, nothing
                for d in range(depths):
                    for h in range(heights):
                        at = start + d * g.dd * g.xd + h * g.dh * g.xh
                        for tap in range(widths):
                            value = larger(value, load_scalar(at + tap * item, storage))
                store_scalar(out + r * g.yh + j * g.yw, value, storage)

    return single


@functools.cache
def _make_row(
    rows: int, rule: int, degree: int, taps: int, step: int, lanes: int, storage: int
) -> Any:
    """Return a function that computes `count` outputs of a row from `first` on, and of more rows.

    More than one only where their windows have all their rows.
    """
    window, single = make_window(0), _make_single(storage)
    no_rows = _make_no_rows(rule, degree, lanes, storage)
    any_rows = _make_blocks(0, rule, degree, taps, step, lanes, storage)
    all_rows = _make_blocks(rows, rule, degree, taps, step, lanes, storage)

    @numba.njit
    def make_row(
        g: Any, x: int, out: int, od: int, oh: int, first: int, count: int, memory: int,
        run: int,
    ) -> None:  # fmt: skip
        depth, depths = window(od, g.id, g.od, g.kd, g.sd, g.pd, g.dd)
        height, heights = window(oh, g.ih, g.oh, g.kh, g.sh, g.ph, g.dh)
        share = 1
        if rule != LARGEST and not g.divisor:
            share = shares(od, depths, g.id, g.kd, g.sd, g.pd, g.with_pads)
            share *= shares(oh, heights, g.ih, g.kh, g.sh, g.ph, g.with_pads)
        row, column = x + depth * g.xd + height * g.xh, first * step - g.pw
        target, table, lost = out + first * g.yw, memory + g.shares_at, False
        if rows and depths == 1 and heights == rows:
            lost = all_rows(g, row, 1, rows, column, memory, target, count, table, share, run)
        elif depths * heights > 0:
            lost = any_rows(
                g, row, depths, heights, column, memory, target, count, table, share, 1
            )  # fmt: skip
        else:
            no_rows(g, target, count, table, share)
        if rule == LARGEST and lost:
            single(g, row, depths, heights, target, first, count, run)

    return make_row


@functools.cache
def make_short_rows(
    rows: int, rule: int, degree: int, taps: int, step: int, lanes: int, storage: int
) -> Any:
    """Return the task: see the loop nest above."""
    make_row = _make_row(rows, rule, degree, taps, step, lanes, storage)
    tell_shares = make_tell_shares(0, compute_code(storage))
    tell_sights = make_tell_sights(lanes)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        memory, told = workspace + worker * g.worker_bytes, -1
        unit = number * g.block
        oh, rest = unit % g.oh, unit // g.oh
        od, rest = rest % g.od, rest // g.od
        channel, rest = rest % g.c, rest // g.c
        image, piece = rest % g.n, rest // g.n
        stop = min(unit + g.block, g.units)
        while unit < stop:
            first = piece * g.piece
            count = min(g.piece, g.ow - first)
            if piece != told:
                # One vector more than the outputs': windows of the last one reach into it.
                vectors = ((count + lanes - 1) // lanes + 1) * step
                tell_sights(memory, vectors, first * step - g.pw, g.iw)
                if rule != LARGEST:
                    tell_shares(g, first, count, memory + g.shares_at)
                told = piece
            run = 1
            if g.full_from <= oh < g.full_to:
                run = min(g.full_to - oh, stop - unit)
            make_row(
                g, x + image * g.xn + channel * g.xc,
                out + image * g.yn + channel * g.yc + od * g.yd + oh * g.yh,
                od, oh, first, count, memory, run,
            )  # fmt: skip
            unit += run
            oh += run
            if oh == g.oh:
                oh, od = 0, od + 1
            if od == g.od:
                od, channel = 0, channel + 1
            if channel == g.c:
                channel, image = 0, image + 1
            if image == g.n:
                image, piece = 0, piece + 1

    return task
