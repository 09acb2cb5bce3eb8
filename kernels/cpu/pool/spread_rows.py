"""Gradients of means, lanes along rows: every memory order but channels last.

A window is a product of axes, and so is the share that its samples have of its gradient. Every row
of the input adds up, in L1, the rows of output gradients whose windows see it, and every column
then the columns of that::

    task = some input rows
      shared row = rows of gradients that see it, times their shares    with zeros on both sides
      for column of a stride's phase: add the windows that see it       whole vectors
      store the phases, interleaved

At a stride of 1 there is one phase and nothing to interleave; two are interleaved by a shuffle,
more by a scatter within L1. Columns of unequal windows are added up one at a time.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import (
    add,
    load,
    load_gather,
    load_masked,
    load_scalar,
    range_mask,
    splat,
    store,
    store_masked,
    store_pairs,
    store_scalar,
    store_scatter,
)
from ..simd.ir import ITEMSIZE, compute_code
from .fields import view
from .rules import multiply, real_type
from .windows import make_seen_by, make_share_of

__all__ = ["make_spread_rows"]


@functools.cache
def _make_share_row(unequal: int, lanes: int, storage: int) -> Any:
    """Return a function that adds up the gradients of the rows that see an input row."""
    compute = compute_code(storage)
    item, size, real = ITEMSIZE[storage], ITEMSIZE[compute], real_type(compute)
    zero, share_of = real(0.0), make_share_of(unequal)

    @numba.njit
    def add_row(g: Any, source: int, share: Any, begun: bool, row: int, table: int) -> None:
        """Add a row of gradients times a share and those of its columns, at `table`."""
        factor = splat(share, lanes)
        for j in range(0, g.ow, lanes):
            mask = range_mask(0, min(lanes, g.ow - j))
            at = source + j * g.xw
            if g.xw == item:
                value = load_masked(at, mask, storage, lanes)
            else:
                value = load_gather(at, g.xw, mask, storage, lanes)
            value = multiply(value, multiply(load(table + j * size, compute, lanes), factor))
            if begun:
                value = add(load(row + j * size, compute, lanes), value)
            store(row + j * size, value, compute)

    @numba.njit
    def share_row(
        g: Any, grad: int, od: int, depths: int, oh: int, heights: int, row: int, table: int
    ) -> None:
        for j in range(0, g.row_pad, lanes):
            store(row + j * size, splat(zero, lanes), compute)
        inside = row + g.row_pad * size
        if depths * heights == 0:
            for j in range(0, g.ow, lanes):
                store(inside + j * size, splat(zero, lanes), compute)
        for d in range(od, od + depths):
            for h in range(oh, oh + heights):
                share = 1
                if g.divisor == 0:
                    share = share_of(d, g.id, g.od, g.kd, g.sd, g.pd, g.with_pads)
                    share *= share_of(h, g.ih, g.oh, g.kh, g.sh, g.ph, g.with_pads)
                add_row(
                    g, grad + d * g.xd + h * g.xh, real(1.0) / real(share),
                    d + h > od + oh, inside, table,
                )  # fmt: skip
        for j in range(g.ow, g.ow + g.row_pad + lanes, lanes):
            store(inside + j * size, splat(zero, lanes), compute)

    return share_row


@functools.cache
def _make_columns(unequal: int, step: int, lanes: int, code: int) -> Any:
    """Return a function that adds up a shared row's columns for each column of the input.

    `step` is the stride where it is 1 or 2, else 0.
    """
    size, zero = ITEMSIZE[code], real_type(code)(0.0)
    seen_by = make_seen_by(unequal)

    @numba.njit
    def phase_sum(g: Any, row: int, phase: int, q: int) -> Any:
        """Add up the windows that see columns ``phase + stride * (q, q + 1, ...)``."""
        tap = (phase + g.pw) % g.sw
        taps = (g.kw - tap + g.sw - 1) // g.sw
        at = row + (g.row_pad + q + (phase + g.pw - tap) // g.sw - taps + 1) * size
        value = splat(zero, lanes)
        for _ in range(taps):
            value = add(value, load(at, code, lanes))
            at += size
        return value

    @numba.njit
    def add_columns(g: Any, row: int, target: int) -> None:
        if unequal:
            for w in range(g.iw):
                first, count = seen_by(w, g.iw, g.ow, g.kw, g.sw, g.pw)
                total = zero
                for j in range(first, first + count):
                    total += load_scalar(row + (g.row_pad + j) * size, code)
                store_scalar(target + w * size, total, code)
        elif step == 1:
            for q in range(0, g.iw, lanes):
                store(target + q * size, phase_sum(g, row, 0, q), code)
        elif step == 2:
            for q in range(0, (g.iw + 1) // 2, lanes):
                store_pairs(
                    target + 2 * q * size, phase_sum(g, row, 0, q), phase_sum(g, row, 1, q), code
                )  # fmt: skip
        else:
            for phase in range(min(g.sw, g.iw)):
                columns = (g.iw - phase + g.sw - 1) // g.sw
                for q in range(0, columns, lanes):
                    store_scatter(
                        target + (q * g.sw + phase) * size, g.sw * size,
                        phase_sum(g, row, phase, q), range_mask(0, min(lanes, columns - q)), code,
                    )  # fmt: skip

    return add_columns


@functools.cache
def make_spread_rows(unequal: int, step: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    compute = compute_code(storage)
    item, size, real = ITEMSIZE[storage], ITEMSIZE[compute], real_type(compute)
    share_row = _make_share_row(unequal, lanes, storage)
    add_columns = _make_columns(unequal, step, lanes, compute)
    seen_by, share_of = make_seen_by(unequal), make_share_of(unequal)

    @numba.njit
    def tell_shares(g: Any, table: int) -> None:
        for j in range(g.ow):
            divisor = g.divisor
            if divisor == 0:
                divisor = share_of(j, g.iw, g.ow, g.kw, g.sw, g.pw, g.with_pads)
            store_scalar(table + j * size, real(1.0) / real(divisor), compute)

    @numba.njit
    def put_row(g: Any, source: int, out: int) -> None:
        for w in range(0, g.iw, lanes):
            value = load(source + w * size, compute, lanes)
            mask = range_mask(0, min(lanes, g.iw - w))
            if g.yw == item:
                store_masked(out + w * item, value, mask, storage)
            else:
                store_scatter(out + w * g.yw, g.yw, value, mask, storage)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        row = workspace + worker * g.worker_bytes
        table, made = row + g.shares_at, row + g.joined_at
        tell_shares(g, table)
        for unit in range(number * g.block, min((number + 1) * g.block, g.units)):
            h, rest = unit % g.ih, unit // g.ih
            d, rest = rest % g.id, rest // g.id
            image, channel = rest // g.c, rest % g.c
            od, depths = seen_by(d, g.id, g.od, g.kd, g.sd, g.pd)
            oh, heights = seen_by(h, g.ih, g.oh, g.kh, g.sh, g.ph)
            share_row(
                g, x + image * g.xn + channel * g.xc, od, depths, oh, heights, row, table
            )  # fmt: skip
            add_columns(g, row, made)
            put_row(
                g, made, out + image * g.yn + channel * g.yc + d * g.yd + h * g.yh
            )  # fmt: skip

    return task
