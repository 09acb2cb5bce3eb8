"""The machine code of weight_grad.py: sums of products an offset, and their way into the weight."""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from ..gemm.tile import TileArguments, call_tile
from ..rulebook.stage import get_int, set_int
from ..runtime.record import as_record
from ..simd.intrinsics import (
    get_word,
    load_masked,
    load_scalar,
    range_mask,
    set_word,
    store,
    store_scalar,
)
from ..simd.ir import ITEMSIZE, compute_code
from .row_walk import PRODUCTS, make_walk

__all__ = [
    "CHUNK",
    "FIELDS",
    "TRANSPOSED_ROWS",
    "make_depthwise",
    "make_products",
    "make_store",
    "view",
]

FIELDS = (
    "rows",  # output rows
    "row_block",  # of which a task sums one offset after the other
    "group_count",
    "in_channels",  # of one group
    "out_channels",
    "volume",
    "neighbours",  # address of the table
    "blocks",  # of one offset
    "group_block",  # groups of a block
    "k_block",  # output channels of each of its groups
    "shares",  # addresses of what each task does: a block's number, counted over all offsets,
    "share_start",  # and where those of each task begin
    "x_pitch",  # bytes between rows
    "grad_pitch",
    "a_pitch",  # and between rows of the copies
    "b_pitch",
    "sums_pitch",  # bytes between the sums of successive input channels,
    "sums_offset",  # and of offsets
    "tile",  # address of the register tile
    "workers_at",  # where the workers' memory begins behind the sums; in it are two lists of rows,
    "a_at",  # and the copies
    "b_at",
    "worker_bytes",
)
view = as_record(FIELDS)

#: Pairs that are summed apart, and copied at once.
CHUNK = 256
#: Output channels that are transposed at once: as many places are written in turn, line by line.
TRANSPOSED_ROWS = 16


@functools.cache
def _make_pairs() -> Any:
    """Return a function that lists the next pairs of an offset."""
    most = CHUNK

    @numba.njit
    def list_pairs(table: int, row: int, end: int, outs: int, ins: int) -> tuple[int, int]:
        """Return how many pairs were found, and the row to go on from."""
        pairs = 0
        while row < end and pairs < most:
            i = get_int(table, row)
            set_int(outs, pairs, row)
            set_int(ins, pairs, i)
            pairs += int(i >= 0)  # no branch: which rows meet is as good as random
            row += 1
        return pairs, row

    return list_pairs


@numba.njit
def clear_rows(address: int, rows: int, pitch: int, width: int) -> None:
    """Write zeros into the first bytes of some rows, in words of 8."""
    for row in range(rows):
        for word in range((width + 7) // 8):
            set_word(address + row * pitch, word, 0)


def _make_task(sum_block: Any) -> Any:
    """Return the task that sums its blocks over all rows: see the loop nest above.

    Without a row there is one step all the same, which clears the sums.
    """

    def task(
        geometry: int, x: int, grad_out: int, unused: int, extra: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        scratch = workspace + g.workers_at + worker * g.worker_bytes
        first, last = get_word(g.share_start, number), get_word(g.share_start, number + 1)
        for row in range(0, max(g.rows, 1), g.row_block):
            end = min(g.rows, row + g.row_block)
            for i in range(first, last):
                block = get_word(g.shares, i)
                sum_block(g, x, grad_out, workspace, scratch, block, row, end)

    return task


@functools.cache
def make_products(lanes: int, nr: int, mr: int, storage: int) -> Any:
    """Return the task that sums the products of one offset and some output channels."""
    item, compute, most = ITEMSIZE[storage], compute_code(storage), CHUNK
    size = ITEMSIZE[compute]
    list_pairs = _make_pairs()

    @numba.njit
    def copy_rows(
        source: int, pitch: int, which: int, count: int, width: int, target: int, step: int
    ) -> None:
        for p in range(count):
            row, to = source + get_int(which, p) * pitch, target + p * step
            for c in range(0, width, lanes):
                mask = range_mask(0, min(lanes, width - c))
                value = load_masked(row + c * item, mask, storage, lanes)
                store(to + c * size, value, compute)  # rows of copies are padded

    @numba.njit
    def multiply(g: Any, a: int, b: int, count: int, sums: int, groups: int, width: int) -> None:
        for group in range(groups):
            for k in range(0, width, nr):
                for c in range(0, g.in_channels, mr):
                    row = group * g.in_channels + c
                    arguments = TileArguments(
                        a=a + row * size, a_step=g.a_pitch,
                        b=b + (group * g.out_channels + k) * size, b_step=g.b_pitch, kc=count,
                        c=sums + row * g.sums_pitch + k * size, c_pitch=g.sums_pitch, bias=0,
                        accumulate=1, low=-math.inf, high=math.inf, width=min(nr, width - k),
                    )  # fmt: skip
                    call_tile(g.tile, arguments, min(mr, g.in_channels - c))

    @numba.njit
    def sum_block(
        g: Any, x: int, grad_out: int, workspace: int, scratch: int, number: int, row: int, end: int
    ) -> None:
        """Add the pairs of some output rows to the sums of a block."""
        offset, block = number // g.blocks, number % g.blocks
        # One of the two is cut into blocks and the other is whole.
        group = block * g.group_block if g.group_count > 1 else 0
        k = block * g.k_block if g.group_count == 1 else 0
        groups = min(g.group_block, g.group_count - group)
        width = min(g.k_block, g.out_channels - k)
        first = group * g.in_channels
        sums = workspace + offset * g.sums_offset + first * g.sums_pitch + k * size
        if row == 0:
            clear_rows(sums, groups * g.in_channels, g.sums_pitch, width * size)
        ins, a, b = scratch + 4 * most, scratch + g.a_at, scratch + g.b_at
        grads, columns = grad_out + (group * g.out_channels + k) * item, width
        columns += (groups - 1) * g.out_channels
        table = g.neighbours + 4 * offset * g.rows
        while row < end:
            count, row = list_pairs(table, row, end, scratch, ins)
            copy_rows(x + first * item, g.x_pitch, ins, count, groups * g.in_channels, a, g.a_pitch)
            copy_rows(grads, g.grad_pitch, scratch, count, columns, b, g.b_pitch)
            multiply(g, a, b, count, sums, groups, width)

    return _make_task(sum_block)


@functools.cache
def make_depthwise(lanes: int, storage: int) -> Any:
    """Return the task that sums the products of one offset and some channels."""
    item, compute, most = ITEMSIZE[storage], compute_code(storage), CHUNK
    size = ITEMSIZE[compute]
    list_pairs = _make_pairs()
    walk = make_walk(PRODUCTS, lanes, storage, compute)

    @numba.njit
    def sum_block(
        g: Any, x: int, grad_out: int, workspace: int, scratch: int, number: int, row: int, end: int
    ) -> None:
        """Add the pairs of some output rows to the sums of a block."""
        offset, c = number // g.blocks, number % g.blocks * g.k_block
        width = min(g.k_block, g.out_channels - c)
        sums = workspace + offset * g.sums_offset + c * size
        if row == 0:
            clear_rows(sums, 1, 0, width * size)
        ins, table = scratch + 4 * most, g.neighbours + 4 * offset * g.rows
        while row < end:
            count, row = list_pairs(table, row, end, scratch, ins)
            walk(
                scratch, ins, count, count - 1, x + c * item, g.x_pitch, grad_out + c * item, item,
                g.grad_pitch, sums, sums, width,
            )  # fmt: skip

    return _make_task(sum_block)


@functools.cache
def make_store(storage: int) -> Any:
    """Return the task that brings the sums of some output channels into the weight's order."""
    item, compute, at_once = ITEMSIZE[storage], compute_code(storage), TRANSPOSED_ROWS
    size = ITEMSIZE[compute]

    def task(
        geometry: int, x: int, grad_out: int, unused: int, extra: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        blocks = (g.out_channels + at_once - 1) // at_once
        group, k = number // blocks, number % blocks * at_once
        step = g.in_channels * g.volume * item
        target = out + (group * g.out_channels + k) * step
        for c in range(g.in_channels):
            for offset in range(g.volume):
                row = workspace + offset * g.sums_offset
                row += (group * g.in_channels + c) * g.sums_pitch + k * size
                for lane in range(min(at_once, g.out_channels - k)):
                    value = load_scalar(row + lane * size, compute)
                    store_scalar(target + lane * step, value, storage)
                target += item

    return task
