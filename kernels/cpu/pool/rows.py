"""Pools whose lanes are the outputs of a row: every memory order but channels last.

A window is a product of taps along three axes, so what it comes to is first joined over depth and
height, whole input rows at a time, and then along the width, out of a row buffer in L1::

    task = some output rows, or pieces of long ones
      row buffer = joined input rows under the window         row_buffer.py, bound by loads
      for vector of outputs
        for tap of the width: join every stride-th of the row buffer
        a mean divides, a norm takes its root; store

A sample is loaded once for each of the window's rows that meet it, and of the row buffer each tap
loads as many vectors as the stride has steps, which shuffles bring into one: strides beyond 4
gather. Windows of adaptive pools that do not divide the input differ in their widths; there the
last step goes one output at a time, about one addition a sample of the row.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import (
    load,
    load_gather,
    load_scalar,
    load_step,
    range_mask,
    splat,
    store,
    store_masked,
    store_scalar,
    store_scatter,
)
from ..simd.ir import ITEMSIZE, compute_code
from .fields import view
from .geometry import LARGEST, MEAN, NORM
from .row_buffer import make_gather_row
from .rules import divide, make_rule, multiply, real_type
from .windows import make_window, shares

__all__ = ["make_finish", "make_put", "make_rows", "make_tell_shares"]


@functools.cache
def _make_join_columns(rule: int, degree: int, taps: int, step: int, lanes: int, code: int) -> Any:
    """Return a function that joins the row buffer's columns for `left` outputs, at most a vector.

    Of a long stride the buffer has columns for these alone. `taps` and `step` are the window's
    width and its stride where they are small, else 0.
    """
    size = ITEMSIZE[code]
    join = make_rule(rule, degree).join_2

    @numba.njit
    def take(g: Any, address: int, left: int) -> Any:
        if step == 1:
            return load(address, code, lanes)
        if step:
            return load_step(address, step, code, lanes)
        return load_gather(address, g.sw * size, range_mask(0, min(left, lanes)), code, lanes)

    @numba.njit
    def join_columns(g: Any, address: int, left: int) -> Any:
        value = take(g, address, left)
        for tap in range(1, taps if taps else g.kw):
            value = join(value, take(g, address + tap * g.dw * size, left))
        return value

    return join_columns


@functools.cache
def make_finish(rule: int, degree: int, lanes: int, code: int) -> Any:
    """Return a function that makes the output of a sum; `table` holds the columns' shares."""
    real, root = real_type(code), make_rule(rule, degree).root

    @numba.njit(forceinline=True)
    def finish(g: Any, value: Any, table: int, rows: int) -> Any:
        if rule == LARGEST:
            return value
        if rule == MEAN and g.exact:
            return multiply(value, splat(real(g.factor), lanes))
        if rule == NORM and not g.clipped:
            return root(g, value)
        divisors = multiply(load(table, code, lanes), splat(real(rows), lanes))
        if rule == MEAN:
            return divide(value, divisors)
        return root(g, divide(multiply(value, splat(real(g.window), lanes)), divisors))

    return finish


@functools.cache
def make_tell_shares(unequal: int, code: int) -> Any:
    """Return a function that writes the columns' shares of a mean's divisor.

    The divisor is the product of the shares of all axes.
    """
    size, real, window = ITEMSIZE[code], real_type(code), make_window(unequal)

    @numba.njit
    def tell_shares(g: Any, first: int, count: int, table: int) -> None:
        for j in range(first, first + count):
            share = g.divisor
            if share == 0:
                _, there = window(j, g.iw, g.ow, g.kw, g.sw, g.pw, g.dw)
                share = shares(j, there, g.iw, g.kw, g.sw, g.pw, g.with_pads)
            store_scalar(table + (j - first) * size, real(share), code)

    return tell_shares


@functools.cache
def make_put(lanes: int, storage: int) -> Any:
    """Return a function that stores the first `left` lanes of a vector of outputs."""
    item = ITEMSIZE[storage]

    @numba.njit(forceinline=True)
    def put(g: Any, address: int, value: Any, left: int) -> None:
        if g.yw != item:
            store_scatter(address, g.yw, value, range_mask(0, min(left, lanes)), storage)
        elif left >= lanes:
            store(address, value, storage)
        else:
            store_masked(address, value, range_mask(0, left), storage)

    return put


@functools.cache
def _make_join_unequal(rule: int, code: int) -> Any:
    """Return a function that joins the columns of each window of a row."""
    size, join, window = ITEMSIZE[code], make_rule(rule, 0).join_scalars, make_window(1)

    @numba.njit
    def join_unequal(g: Any, row: int, target: int) -> None:
        for j in range(g.ow):
            start, count = window(j, g.iw, g.ow, g.kw, g.sw, g.pw, g.dw)
            value = load_scalar(row + start * size, code)
            for tap in range(1, count):
                value = join(value, load_scalar(row + (start + tap) * size, code))
            store_scalar(target + j * size, value, code)

    return join_unequal


@functools.cache
def _make_row(
    rule: int, degree: int, taps: int, step: int, unequal: int, lanes: int, storage: int
) -> Any:
    """Return a function that computes `count` outputs of a row from `first` on."""
    compute = compute_code(storage)
    size, window = ITEMSIZE[compute], make_window(unequal)
    gather_row = make_gather_row(rule, degree, lanes, storage)
    join_columns = _make_join_columns(rule, degree, taps, step, lanes, compute)
    join_unequal, put = _make_join_unequal(rule, compute), make_put(lanes, storage)
    finish = make_finish(rule, degree, lanes, compute)

    @numba.njit
    def make_row(
        g: Any, x: int, out: int, od: int, oh: int, first: int, count: int, row: int
    ) -> None:
        depth, depths = window(od, g.id, g.od, g.kd, g.sd, g.pd, g.dd)
        height, heights = window(oh, g.ih, g.oh, g.kh, g.sh, g.ph, g.dh)
        begin, span = first * g.sw - g.pw, (count - 1) * g.sw + (g.kw - 1) * g.dw + 1
        if unequal:
            begin, span = 0, g.iw
        gather_row(
            g, x, begin, span, depth, depths, g.dd, height, heights, g.dh, row
        )  # fmt: skip
        share = 1
        if rule != LARGEST and not g.divisor:
            share = shares(od, depths, g.id, g.kd, g.sd, g.pd, g.with_pads)
            share *= shares(oh, heights, g.ih, g.kh, g.sh, g.ph, g.with_pads)
        if unequal:
            join_unequal(g, row, row + g.joined_at)
        table = row + g.shares_at
        for j in range(0, count, lanes):
            if unequal:
                value = load(row + g.joined_at + j * size, compute, lanes)
            else:
                value = join_columns(g, row + j * g.sw * size, count - j)
            value = finish(g, value, table + j * size, share)
            put(g, out + (first + j) * g.yw, value, count - j)

    return make_row


@functools.cache
def make_rows(
    rule: int, degree: int, taps: int, step: int, unequal: int, lanes: int, storage: int
) -> Any:
    """Return the task: see the loop nest above."""
    make_row = _make_row(rule, degree, taps, step, unequal, lanes, storage)
    tell_shares = make_tell_shares(unequal, compute_code(storage))

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        row, told = workspace + worker * g.worker_bytes, -1
        unit = number * g.block
        oh, rest = unit % g.oh, unit // g.oh
        od, rest = rest % g.od, rest // g.od
        channel, rest = rest % g.c, rest // g.c
        image, piece = rest % g.n, rest // g.n
        for _ in range(unit, min(unit + g.block, g.units)):
            first = piece * g.piece
            count = min(g.piece, g.ow - first)
            if rule != LARGEST and piece != told:
                tell_shares(g, first, count, row + g.shares_at)
                told = piece
            make_row(
                g, x + image * g.xn + channel * g.xc,
                out + image * g.yn + channel * g.yc + od * g.yd + oh * g.yh,
                od, oh, first, count, row,
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
