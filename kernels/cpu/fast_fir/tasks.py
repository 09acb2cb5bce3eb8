"""The machine code of plan.py: one block of the output, from the input to the store.

In the order in which the data goes through it: rows are read and their phases transformed along the
first axis (T), then along the second (V); every product of phases is a correlation of its own
(M = U * V); sums are transformed back (R), joined and stored.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..common.epilogue import make_epilogue_vector
from ..common.toom_cook_lines import call_lines
from ..simd.intrinsics import load_gather, load_masked, load_scalar, range_mask, store
from ..simd.ir import ITEMSIZE, Codes
from ..simd.transposes import transpose_block
from .fields import view
from .tile import call_correlate, call_join, call_split

__all__ = ["CHUNK", "make_kernel"]

#: Rows of tiles that are transformed along the first axis at once.
CHUNK = 8


@functools.cache
def _make_copy_row(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that copies part of a row in compute precision, with zeros outside."""
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]

    @numba.njit
    def copy_row(g: Any, x: int, column: int, length: int, target: int) -> None:
        for start in range(0, length, lanes):
            first = min(max(-(column + start), 0), lanes)
            stop = max(min(g.iw - column - start, lanes), first)
            at = x + (column + start) * g.xw
            if g.xw == item:
                values = load_masked(at, range_mask(first, stop), storage, lanes)
            else:
                values = load_gather(at, g.xw, range_mask(first, stop), storage, lanes)
            store(target + start * size, values, compute)

    return copy_row


@functools.cache
def _make_read_rows(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that reads rows of an image, split along the width: T[e1, row, column]."""
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]
    copy_row = _make_copy_row(lanes, storage, compute)

    @numba.njit
    def read_rows(g: Any, x: int, first: int, count: int, column: int, t: int, row: int) -> None:
        """Read `count` rows of one channel from `first` on, from `column` on."""
        pitch = g.in_cols * size
        step = (CHUNK * g.m2 + g.m2 - 1) * pitch
        for i in range(count):
            h = first + i
            inside = 0 <= h < g.ih
            vectors = g.in_cols // lanes
            if not inside:
                call_split(g.split, row, 0, 0, t + i * pitch, step, vectors)
            elif g.in_place:
                call_split(
                    g.split, x + h * g.xh + column * item, -column, g.iw - column, t + i * pitch,
                    step, vectors,
                )  # fmt: skip
            else:
                length = (g.in_cols + lanes) * g.m1
                copy_row(g, x + h * g.xh, column, length, row)
                call_split(g.split, row, 0, length, t + i * pitch, step, vectors)

    return read_rows


@functools.cache
def _make_read_segments(lanes: int, compute: int) -> Any:
    """Return a function that reads a folded signal: T[e1, row, segment].

    Segments are the columns of a matrix whose rows are neighbours in the signal, so blocks of it
    are transposed in registers.
    """
    size = ITEMSIZE[compute]
    full = (1 << lanes) - 1

    @numba.njit
    def read_segments(g: Any, signal: int, first: int, count: int, t: int, folded: int) -> None:
        """Read `count` rows of first-level tiles from `first` on."""
        pitch, segment = g.in_cols * size, g.rows * g.m1 * g.m2 * size
        step = (CHUNK * g.m2 + g.m2 - 1) * pitch
        for v in range(g.in_cols // lanes):
            source = signal + v * lanes * segment + first * g.m1 * size
            for row in range(0, (count + 1) * g.m1 - 1, lanes):
                transpose_block(
                    source + row * size, segment, lanes, full, folded + row * lanes * size,
                    compute, compute, lanes,
                )  # fmt: skip
            call_lines(
                g.input_1, folded, lanes * size, t + v * lanes * size, step, count,
                g.m1 * lanes * size, pitch,
            )  # fmt: skip

    return read_segments


@functools.cache
def _make_transform(lanes: int, storage: int, compute: int, fold: int) -> Any:
    """Return a function that transforms one channel under a block: V[e1, e2, C, row, column]."""
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]
    read_rows = _make_read_rows(lanes, storage, compute)
    read_segments = _make_read_segments(lanes, compute)
    copy_row = _make_copy_row(lanes, storage, compute)

    @numba.njit
    def signal(g: Any, x: int, position: int, scratch: int) -> int:
        """Return where the signal under a block lies, copied where it reaches over an end."""
        if g.in_place and position >= 0 and position + g.span <= g.iw:
            return x + position * item
        copy_row(g, x, position, g.span, scratch)
        return scratch

    @numba.njit
    def transform(g: Any, x: int, h: int, position: int, v: int, mine: int) -> None:
        pitch = g.in_cols * size
        plane = g.in_rows * pitch
        step = (CHUNK * g.m2 + g.m2 - 1) * pitch
        lines, row = mine + g.lines_at, mine + g.row_at
        if fold:
            x = signal(g, x, position, mine + g.signal_at)
        for j in range(0, g.in_rows, CHUNK):
            tiles = min(CHUNK, g.in_rows - j)
            count = tiles * g.m2 + g.m2 - 1
            if fold:
                read_segments(g, x, j * g.m2, count, lines, row)
            else:
                read_rows(g, x, h + j * g.m2, count, position, lines, row)
            for e in range(g.n1):
                for column in range(0, pitch, lanes * size):
                    call_lines(
                        g.input_2, lines + e * step + column, pitch,
                        v + e * g.n2 * g.c * plane + j * pitch + column, g.c * plane, tiles,
                        g.m2 * pitch, pitch,
                    )  # fmt: skip

    return transform


@functools.cache
def _make_products(lanes: int, compute: int) -> Any:
    """Return a function that makes the sums of `tile_rows` rows of tiles: R[e1, row, column]."""
    size = ITEMSIZE[compute]

    @numba.njit
    def products(g: Any, u: int, v: int, m: int, r: int) -> None:
        pitch, out_pitch = g.in_cols * size, g.cols * size
        plane, out_plane = g.in_rows * pitch, g.tile_rows * out_pitch
        for e in range(g.n1 * g.n2):
            for column in range(0, out_pitch, g.tile_bytes):
                call_correlate(
                    g.tile, v + e * g.c * plane + column, plane, g.c, pitch,
                    u + e * g.c * g.taps_h * g.taps_w * size, g.taps_h, g.taps_w,
                    m + e * out_plane + column, out_pitch,
                )  # fmt: skip
        for e in range(g.n1):
            for column in range(0, out_pitch, lanes * size):
                call_lines(
                    g.output_2, m + e * g.n2 * out_plane + column, out_plane,
                    r + e * g.m2 * out_plane + column, out_pitch, g.tile_rows, out_pitch,
                    g.m2 * out_pitch,
                )  # fmt: skip

    return products


@functools.cache
def _make_write_rows(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that joins the sums along the width and stores rows of the image."""
    size = ITEMSIZE[compute]
    end_vector = make_epilogue_vector(lanes, storage, compute)

    @numba.njit
    def write_rows(
        g: Any, r: int, bias: int, out: int, residual: int, h: int, w: int, row: int, scratch: int
    ) -> None:  # fmt: skip
        shift, slope = load_scalar(bias, compute), bias + g.slopes_at
        pitch = g.cols * size
        width = min(g.cols * g.m1, g.ow - w)
        for i in range(min(g.tile_rows * g.m2, g.oh - h)):
            vectors = (width + g.m1 * lanes - 1) // (g.m1 * lanes)
            call_join(g.join, r + i * pitch, g.tile_rows * g.m2 * pitch, row, vectors)
            y, extra = out + (h + i) * g.yh + w * g.yw, residual + (h + i) * g.rh + w * g.rw
            for start in range(0, width, lanes):
                end_vector(
                    g, row + start * size, shift, y + start * g.yw, extra + start * g.rw, slope,
                    min(lanes, width - start), scratch,
                )  # fmt: skip

    return write_rows


@functools.cache
def _make_write_segments(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that transforms the sums of segments back and stores each in its place."""
    size = ITEMSIZE[compute]
    full = (1 << lanes) - 1
    end_vector = make_epilogue_vector(lanes, storage, compute)

    @numba.njit
    def write_segments(
        g: Any, r: int, bias: int, out: int, residual: int, first: int, position: int, row: int,
        scratch: int,
    ) -> None:  # fmt: skip
        """`first` is the place of row 0 in its segment, `position` that of the block's output 0."""
        pitch, segment = g.cols * size, g.rows * g.m1 * g.m2
        lines, shift, slope = g.tile_rows * g.m2, load_scalar(bias, compute), bias + g.slopes_at
        for v in range(g.cols // lanes):
            start = position + v * lanes * segment + first
            if start >= g.ow:
                break
            call_lines(
                g.output_1, r + v * lanes * size, lines * pitch, row, lanes * size, lines, pitch,
                g.m1 * lanes * size,
            )  # fmt: skip
            for i in range(0, lines * g.m1, lanes):
                count = min(lanes, lines * g.m1 - i)
                transpose_block(
                    row + i * lanes * size, lanes * size, count, full, scratch + lanes * size,
                    compute, compute, lanes,
                )  # fmt: skip
                for lane in range(lanes):
                    w = start + lane * segment + i
                    if w >= g.ow:
                        break
                    end_vector(
                        g, scratch + (1 + lane) * lanes * size, shift, out + w * g.yw,
                        residual + w * g.rw, slope, min(count, g.ow - w), scratch,
                    )  # fmt: skip

    return write_segments


@functools.cache
def make_kernel(lanes: int, codes: Codes, fold: int) -> Any:
    """Return the task: see the drawing in plan.py."""
    compute, size = codes.compute, ITEMSIZE[codes.compute]
    transform = _make_transform(lanes, codes.x, compute, fold)
    products = _make_products(lanes, compute)
    write_rows = _make_write_rows(lanes, codes.out, compute)
    write_segments = _make_write_segments(lanes, codes.out, compute)

    @numba.njit
    def output_channel(
        g: Any, u: int, bias: int, out: int, residual: int, first_row: int, w: int, mine: int
    ) -> None:  # fmt: skip
        """Compute the block for one output channel."""
        m, r = mine + g.products_at, mine + g.sums_at
        row, scratch = mine + g.row_at, mine + g.scratch_at
        for j in range(0, g.rows, g.tile_rows):
            if not fold and (first_row + j) * g.m2 >= g.oh:
                break
            products(g, u, mine + j * g.in_cols * size, m, r)
            if fold:
                write_segments(g, r, bias, out, residual, j * g.m1 * g.m2, w, row, scratch)
            else:
                write_rows(g, r, bias, out, residual, (first_row + j) * g.m2, w, row, scratch)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        mine = workspace + worker * g.worker_bytes
        block_w, rest = number % g.blocks_w, number // g.blocks_w
        block_h, rest = rest % g.blocks_h, rest // g.blocks_h
        group, image = rest % g.groups, rest // g.groups
        first_row = block_h * g.rows
        w = block_w * g.cols * g.m1
        if fold:
            w = first_row * g.cols * g.m1 * g.m2
        plane = g.in_rows * g.in_cols * size
        for c in range(g.c):
            transform(
                g, x + image * g.xn + (group * g.c + c) * g.xc, first_row * g.m2 - g.ph, w - g.pw,
                mine + c * plane, mine,
            )  # fmt: skip
        u_step = g.n1 * g.n2 * g.c * g.taps_h * g.taps_w * size
        for k in range(group * g.k, (group + 1) * g.k):
            output_channel(
                g, weight + k * u_step, bias + k * size,
                out + image * g.yn + k * g.yc, residual + image * g.rn + k * g.rc, first_row, w,
                mine,
            )  # fmt: skip

    return task
