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

from ..simd.ir import ITEMSIZE, compute_code
from .columns import join_columns, join_taps, load_columns, no_columns
from .fields import view
from .geometry import LARGEST
from .rows import make_finish, make_put, make_tell_shares
from .windows import make_window, shares

__all__ = ["make_short_rows"]

#: Rows of outputs whose vectors at one place are computed one after the other.
_STRIP_ROWS = 8
#: Vectors of a row up to which that pays if columns are loaded again for the vector before them.
_WIDEST = 4


@functools.cache
def _make_columns(
    rows: int, masked: int, rule: int, degree: int, step: int, lanes: int, storage: int
) -> Any:
    """Return a function that joins the rows of a window over `step` vectors of columns.

    There are `rows` rows where that is not 0.
    """
    size = rows if rows else 1

    @numba.njit(forceinline=True)
    def load(row: int, pitch: int, column: int, width: int) -> Any:
        return load_columns(
            row, pitch, column, width, size, masked, rule, degree, step, storage, lanes
        )  # fmt: skip

    @numba.njit(forceinline=True)
    def columns(g: Any, row: int, depths: int, heights: int, column: int, width: int) -> Any:
        pitch = g.dh * g.xh
        value = load(row, pitch, column, width)
        if rows == 0:
            for d in range(depths):
                for h in range(int(d == 0), heights):
                    at = row + d * g.dd * g.xd + h * pitch
                    value = join_columns(value, load(at, pitch, column, width), rule)
        return value

    return columns


@functools.cache
def _make_one_block(rule: int, degree: int, taps: int, step: int, lanes: int, storage: int) -> Any:
    """Return a function that stores a vector of outputs, of their columns and those behind."""
    finish = make_finish(rule, degree, lanes, compute_code(storage))
    put = make_put(lanes, storage)

    @numba.njit(forceinline=True)
    def one_block(
        g: Any, now: Any, following: Any, out: int, count: int, table: int, share: int
    ) -> None:
        value = join_taps(now, following, rule, taps, step)
        put(g, out, finish(g, value, table, share), count)

    return one_block


@functools.cache
def _make_strip(
    rows: int, rule: int, degree: int, taps: int, step: int, lanes: int, storage: int
) -> Any:
    """Return a function that computes the same vector of some rows of outputs."""
    one_block = _make_one_block(rule, degree, taps, step, lanes, storage)
    whole = _make_columns(rows, 0, rule, degree, step, lanes, storage)
    part = _make_columns(rows, 1, rule, degree, step, lanes, storage)

    @numba.njit
    def strip(
        g: Any, row: int, column: int, width: int, out: int, count: int, table: int, share: int,
        run: int,
    ) -> None:  # fmt: skip
        """Compute one vector of each row; where its columns lie is the same in all."""
        down, behind = g.sh * g.xh, column + step * lanes
        if 0 <= column <= width - step * lanes * (2 if taps > step else 1):
            for r in range(run):
                at = row + r * down
                now = whole(g, at, 1, rows, column, width)
                following = whole(g, at, 1, rows, behind, width) if taps > step else now
                one_block(g, now, following, out + r * g.yh, count, table, share)
        elif taps > step and behind < width:
            for r in range(run):
                at = row + r * down
                now = part(g, at, 1, rows, column, width)
                following = part(g, at, 1, rows, behind, width)
                one_block(g, now, following, out + r * g.yh, count, table, share)
        else:
            for r in range(run):
                now = part(g, row + r * down, 1, rows, column, width)
                nothing = no_columns(rule, step, storage, lanes)
                one_block(g, now, nothing, out + r * g.yh, count, table, share)

    return strip


@functools.cache
def _make_blocks(
    rows: int, rule: int, degree: int, taps: int, step: int, lanes: int, storage: int
) -> Any:
    """Return a function that computes `count` outputs of each of `run` rows of outputs.

    Windows have `rows` rows where that is not 0: then what a row of one vector needs is told once.
    """
    code = compute_code(storage)
    size = ITEMSIZE[code]
    one_block = _make_one_block(rule, degree, taps, step, lanes, storage)
    strip = _make_strip(rows, rule, degree, taps, step, lanes, storage)
    whole = _make_columns(rows, 0, rule, degree, step, lanes, storage)
    part = _make_columns(rows, 1, rule, degree, step, lanes, storage)
    widest = _WIDEST * lanes if taps > step else 1 << 40
    # One vector more is looked at where a window reaches into it.
    begin = -lanes if taps > step else 0

    @numba.njit(forceinline=True)
    def some_blocks(
        g: Any, row: int, depths: int, heights: int, column: int, width: int, out: int, count: int,
        table: int, share: int,
    ) -> None:  # fmt: skip
        now = no_columns(rule, step, storage, lanes)
        for j in range(begin, count, lanes):
            before = now
            if 0 <= column <= width - step * lanes:
                now = whole(g, row, depths, heights, column, width)
            else:
                now = part(g, row, depths, heights, column, width)
            column += step * lanes
            if j >= 0:
                at, place = out + j * g.yw, table + j * size
                one_block(g, before if begin else now, now, at, count - j, place, share)

    @numba.njit
    def blocks(
        g: Any, row: int, depths: int, heights: int, column: int, width: int, out: int, count: int,
        table: int, share: int, run: int,
    ) -> None:  # fmt: skip
        down = g.sh * g.xh
        if rows == 0 or count > widest or run == 1:
            for r in range(run):
                some_blocks(
                    g, row + r * down, depths, heights, column, width, out + r * g.yh, count,
                    table, share,
                )  # fmt: skip
            return
        for first in range(0, run, _STRIP_ROWS):
            at, target = row + first * down, out + first * g.yh
            for j in range(0, count, lanes):
                strip(
                    g, at, column + j * step, width, target + j * g.yw, count - j,
                    table + j * size, share, min(_STRIP_ROWS, run - first),
                )  # fmt: skip

    return blocks


@functools.cache
def _make_row(
    rows: int, rule: int, degree: int, taps: int, step: int, lanes: int, storage: int
) -> Any:
    """Return a function that computes `count` outputs of a row from `first` on, and of more rows.

    More than one only where their windows have all their rows.
    """
    window = make_window(0)
    any_rows = _make_blocks(0, rule, degree, taps, step, lanes, storage)
    all_rows = _make_blocks(rows, rule, degree, taps, step, lanes, storage)

    @numba.njit
    def make_row(
        g: Any, x: int, out: int, od: int, oh: int, first: int, count: int, table: int,
        run: int,
    ) -> None:  # fmt: skip
        depth, depths = window(od, g.id, g.od, g.kd, g.sd, g.pd, g.dd)
        height, heights = window(oh, g.ih, g.oh, g.kh, g.sh, g.ph, g.dh)
        share = 1
        if rule != LARGEST and not g.divisor:
            share = shares(od, depths, g.id, g.kd, g.sd, g.pd, g.with_pads)
            share *= shares(oh, heights, g.ih, g.kh, g.sh, g.ph, g.with_pads)
        row, column = x + depth * g.xd + height * g.xh, first * step - g.pw
        target = out + first * g.yw
        if rows and depths == 1 and heights == rows:
            all_rows(g, row, 1, rows, column, g.iw, target, count, table, share, run)
        else:  # of no row at all nothing is read
            width = g.iw if depths * heights else 0
            any_rows(g, row, depths, heights, column, width, target, count, table, share, 1)

    return make_row


@functools.cache
def make_short_rows(
    rows: int, rule: int, degree: int, taps: int, step: int, lanes: int, storage: int
) -> Any:
    """Return the task: see the loop nest above."""
    make_row = _make_row(rows, rule, degree, taps, step, lanes, storage)
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
        stop = min(unit + g.block, g.units)
        while unit < stop:
            first = piece * g.piece
            count = min(g.piece, g.ow - first)
            if rule != LARGEST and piece != told:
                tell_shares(g, first, count, table)
                told = piece
            run = 1
            if g.full_from <= oh < g.full_to:
                run = min(g.full_to - oh, stop - unit)
            make_row(
                g, x + image * g.xn + channel * g.xc,
                out + image * g.yn + channel * g.yc + od * g.yd + oh * g.yh,
                od, oh, first, count, table, run,
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
