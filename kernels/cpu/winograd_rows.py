"""Input rows in the order of Winograd tiles, for inputs that tiles cannot be read from directly.

Reading tiles wants samples of one sub-grid to lie side by side. Where they do not (a dilated
kernel, channels last, a strided view) a first stage copies the input, once for all tiles and output
channels::

    task = image x block of channels x depth x some rows
      for row:
        pad it                                                           in L1, compute precision
        rows[channel, depth, row, group, sub-grid, sample]               in L2 or L3

A row holds the `step` samples of each tile of each sub-grid, zeros where they lie in the padding.
So tiles of all sub-grids form one run of memory, and full vectors of tiles are read with no mask,
however short the rows of a sub-grid are. The elements of a tile that its neighbour owns lie one
group further on.

The copy costs two stores a sample, one by one where sub-grids are told apart, against
``K n**2 / m**2`` products of it. Channels last are transposed in registers, `lanes` channels by
`lanes` samples.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from fastconv.problem import ConvProblem
from fastconv.spec import Binding

from .isa import Tile
from .pack import make_copy_vector, pair_mask
from .simd import (
    load,
    load_scalar,
    pick_even,
    range_mask,
    splat,
    store,
    store_scalar,
)
from .transposes import transpose_block
from .vectors import F64, ITEMSIZE
from .winograd_fields import view
from .winograd_tiles import Axis, Sizes

__all__ = ["copy_tasks", "make_copy_rows", "source_fields"]

#: Samples of a row that has none outside: more than any tile reaches.
_ENDLESS = 1 << 30

#: Rows that one task copies.
COPY_ROWS = 16


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def source_fields(
    problem: ConvProblem, binding: Binding, sizes: Sizes, tile: Tile, codes: tuple[int, int]
) -> dict[str, int]:
    """Return the fields that say where tiles are read, and the bytes of the copy."""
    width, item = sizes.width, ITEMSIZE[codes[0]]
    if width.dilation > 1 or binding.x_strides[-1] != item:
        return _copy_fields(problem, binding, width, tile, codes)
    letters = ("n", "c", *"dhw"[-problem.ndim :])
    strides = dict(zip(letters, binding.x_strides, strict=True))
    return {f"source_{letter}": strides.get(letter, 0) for letter in "ncdhw"} | {
        "copied": 0, "first": problem.padding[-1][0], "width": problem.in_size[-1],
        "shifts": width.shifts, "shift": width.step * item, "padded": 0,
        "copied_bytes": 0, "rows_bytes": 0,
    }  # fmt: skip


def _copy_fields(
    problem: ConvProblem, binding: Binding, width: Axis, tile: Tile, codes: tuple[int, int]
) -> dict[str, int]:
    """Return the same where the input is copied first."""
    item, size, lanes = ITEMSIZE[codes[0]], ITEMSIZE[codes[1]], tile.lanes
    groups = width.sub_tiles + width.shifts - 1
    samples = groups * width.step * width.dilation + (width.grids - 1) * problem.stride[-1]
    # A vector may be picked from two, and may reach over the row's end.
    padded = _round_up(samples + (2 * lanes if width.dilation > 1 else 0), lanes)
    line = max(_round_up(groups * width.grids * width.step, lanes) + lanes, padded)
    fields = {
        "copied": 1, "first": 0, "width": _ENDLESS, "source_w": size, "shifts": width.shifts,
        "shift": width.grids * width.step * size, "padded": padded,
    }  # fmt: skip
    depth, height = (1, 1, *problem.in_size)[-3:-1]
    at = line * size
    for letter, count in zip("hdcn", (height, depth, problem.in_channels, 1), strict=True):
        fields[f"source_{letter}"] = at
        at *= count
    together = lanes if binding.x_strides[1] == item else 1
    # A vector of tiles is read whole, also behind the last tile.
    fields["copied_bytes"] = _round_up(at * problem.batch + width.step * lanes * size, 64)
    fields["rows_bytes"] = (padded * together + (lanes + 1) * lanes) * size
    return fields


def copy_tasks(problem: ConvProblem, lanes: int) -> int:
    """Return the number of the stage's tasks."""
    depth, height = (1, 1, *problem.in_size)[-3:-1]
    blocks = -(-problem.in_channels // lanes) * -(-height // COPY_ROWS)
    return problem.batch * depth * blocks


def _make_pad_rows(lanes: int, storage: int, compute: int) -> tuple[Any, Any]:
    """Return functions that copy and pad a row of one channel, or of some that lie side by side."""
    size = ITEMSIZE[compute]
    copy_vector = make_copy_vector(lanes, storage, compute)
    zero = np.float64(0) if compute == F64 else np.float32(0)

    @numba.njit
    def pad_row(g: Any, source: int, target: int) -> None:
        for start in range(0, g.padded, lanes):
            begin = min(max(g.pw - start, 0), lanes)
            end = max(min(g.pw + g.iw - start, lanes), begin)
            copy_vector(
                source + (start - g.pw) * g.xw, g.xw, range_mask(begin, end),
                pair_mask(begin, end), target + start * size,
            )  # fmt: skip

    @numba.njit
    def pad_channels(
        g: Any, source: int, channels: int, target: int, pitch: int, scratch: int
    ) -> None:
        for start in range(0, g.padded, lanes):
            begin = min(max(g.pw - start, 0), lanes)
            end = max(min(g.pw + g.iw - start, lanes), begin)
            if begin == end:
                for c in range(channels):
                    store(target + c * pitch + start * size, splat(zero, lanes), compute)
                continue
            # Columns `begin` lanes later: their first lanes are the zeros that end the one before.
            store(scratch, splat(zero, lanes), compute)
            transpose_block(
                source + (start + begin - g.pw) * g.xw, g.xw, end - begin,
                range_mask(0, channels), scratch + begin * size, storage, compute, lanes,
            )  # fmt: skip
            for c in range(channels):
                column = load(scratch + c * lanes * size, compute, lanes)
                store(target + c * pitch + start * size, column, compute)

    return pad_row, pad_channels


def _make_order_row(lanes: int, compute: int) -> Any:
    """Return a function that brings a padded row into the order of tiles."""
    size = ITEMSIZE[compute]

    @numba.njit
    def pick_samples(source: int, count: int, target: int) -> None:
        """Copy every second sample, whole vectors of them."""
        for start in range(0, count, lanes):
            at = source + 2 * start * size
            second = load(at + lanes * size, compute, lanes)
            value = pick_even(load(at, compute, lanes), second)
            store(target + start * size, value, compute)

    @numba.njit
    def order_row(g: Any, source: int, target: int) -> None:
        groups = g.tw // g.uw + g.shifts - 1
        if g.uw == 1 and g.dw == 2:
            pick_samples(source, groups * g.aw, target)
            return
        # Fields as locals: behind a store they would be read again for each sample.
        grids, count = g.uw, g.aw
        step, grid_step = g.dw * size, g.sw * size
        for group in range(groups):
            for grid in range(grids):
                at = source + grid * grid_step + group * count * step
                for _ in range(count):
                    store_scalar(target, load_scalar(at, compute), compute)
                    at, target = at + step, target + size

    return order_row


@functools.cache
def make_copy_rows(lanes: int, storage: int, compute: int) -> Any:
    """Return the first stage's task: some rows of `lanes` channels."""
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]
    pad_row, pad_channels = _make_pad_rows(lanes, storage, compute)
    order_row = _make_order_row(lanes, compute)

    @numba.njit
    def copy_row(g: Any, source: int, channels: int, target: int, rows: int) -> None:
        dense, pitch = g.dw == 1, g.padded * size
        if g.xc == item:
            if dense:
                pad_channels(g, source, channels, target, g.source_c, rows + pitch * lanes)
                return
            pad_channels(g, source, channels, rows, pitch, rows + pitch * lanes)
        for c in range(channels):
            to = target + c * g.source_c
            row = to if dense else rows + (c * pitch if g.xc == item else 0)
            if g.xc != item:
                pad_row(g, source + c * g.xc, row)
            if not dense:
                order_row(g, row, to)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        blocks, bands = (g.groups * g.c + lanes - 1) // lanes, (g.ih + COPY_ROWS - 1) // COPY_ROWS
        band, rest = number % bands, number // bands
        d, rest = rest % g.id, rest // g.id
        c, image = rest % blocks * lanes, rest // blocks
        rows = workspace + g.worker_at + worker * g.worker_bytes
        source = x + image * g.xn + c * g.xc + d * g.xd
        target = workspace + image * g.source_n + c * g.source_c + d * g.source_d
        for h in range(band * COPY_ROWS, min((band + 1) * COPY_ROWS, g.ih)):
            copy_row(
                g, source + h * g.xh, min(lanes, g.groups * g.c - c), target + h * g.source_h,
                rows,
            )  # fmt: skip

    return task
