"""Input rows in the order of Winograd tiles, for inputs that tiles cannot be read from directly.

Reading tiles wants samples of one sub-grid to lie side by side. Where they do not (a dilated
kernel, channels last, a strided view) a first stage copies the input, once for all tiles and output
channels::

    task = image x block of channels x depth x some rows
      for row: rows[channel, depth, row, shift, sub-grid, tile, sample]      compute precision

A row holds the `step` samples of each tile of each sub-grid, zeros where they lie in the padding,
and then the same from `step` samples further on (shift 1): the elements of a tile that its
neighbour owns. So tiles of all sub-grids form one run of memory, and full vectors of tiles are read
with no mask, however short the rows of a sub-grid are.

The copy costs two stores a sample, against K multiply-adds for ``n**2 / m**2`` products of it.
Channels last are transposed in registers, `lanes` channels by `lanes` samples.
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
from .simd import load, range_mask, splat, store, transpose_block
from .vectors import F64, ITEMSIZE
from .winograd_fields import view
from .winograd_tiles import Sizes

__all__ = ["copy_tasks", "make_copy_rows", "source_fields"]

#: Samples of a row that has none outside: more than any tile reaches.
_ENDLESS = 1 << 30

#: Rows that one task copies.
COPY_ROWS = 16


def source_fields(
    problem: ConvProblem, binding: Binding, sizes: Sizes, tile: Tile, codes: tuple[int, int]
) -> dict[str, int]:
    """Return the fields that say where tiles are read, and the bytes of the copy."""
    width, (storage, compute) = sizes.axes[-1], codes
    fields = {f"source_{letter}": 0 for letter in "dh"} | {"shifts": width.shifts}
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]
    names = ("n", "c", "d", "h", "w")[:2] + ("d", "h", "w")[-problem.ndim :]
    if width.dilation == 1 and binding.x_strides[-1] == item:
        fields |= {f"source_{n}": s for n, s in zip(names, binding.x_strides, strict=True)}
        return fields | {
            "copied": 0, "first": problem.padding[-1][0], "width": problem.in_size[-1],
            "shift": width.step * item, "line_bytes": 0, "copied_bytes": 0,
        }  # fmt: skip
    # A run's last vector may reach over its end.
    line = -(-(width.tiles * width.step + tile.lanes) // tile.lanes) * tile.lanes * size
    sizes_in = (1, 1, *problem.in_size)[-3:]
    at = line * width.shifts
    for letter, count in zip("hdcn", (*sizes_in[1::-1], problem.in_channels, 1), strict=True):
        fields[f"source_{letter}"] = at
        at *= count
    return fields | {
        "copied": 1, "first": 0, "width": _ENDLESS, "source_w": size, "shift": line,
        "line_bytes": line,
        # A vector of tiles is read whole, also behind the last tile.
        "copied_bytes": -(-(at * problem.batch + width.step * tile.lanes * size) // 64) * 64,
    }  # fmt: skip


def copy_tasks(problem: ConvProblem, lanes: int) -> int:
    """Return the number of the stage's tasks."""
    depth, height = (1, 1, *problem.in_size)[-3:-1]
    blocks = -(-problem.in_channels // lanes) * -(-height // COPY_ROWS)
    return problem.batch * depth * blocks


@functools.cache
def make_copy_rows(lanes: int, storage: int, compute: int) -> Any:
    """Return the first stage's task: some rows of `lanes` channels."""
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]
    copy_vector = make_copy_vector(lanes, storage, compute)
    zero = np.float64(0) if compute == F64 else np.float32(0)

    @numba.njit
    def transpose_run(
        g: Any, source: int, channels: int, low: int, high: int, length: int, target: int,
        scratch: int,
    ) -> None:  # fmt: skip
        """Copy the samples of one sub-grid for channels that lie side by side."""
        step = g.dw * g.xw
        for start in range(0, length, lanes):
            begin = min(max(low - start, 0), lanes)
            end = max(min(high - start, lanes), begin)
            # Columns `begin` lanes later: their first lanes are the zeros that end the one before.
            store(scratch, splat(zero, lanes), compute)
            transpose_block(
                source + (start + begin) * step, step, end - begin, range_mask(0, channels),
                scratch + begin * size, storage, compute, lanes,
            )  # fmt: skip
            for c in range(channels):
                column = load(scratch + c * lanes * size, compute, lanes)
                store(target + c * g.source_c + start * size, column, compute)

    @numba.njit
    def copy_run(g: Any, source: int, low: int, high: int, length: int, target: int) -> None:
        """Copy the samples of one sub-grid of one channel."""
        step = g.dw * g.xw
        for start in range(0, length, lanes):
            begin = min(max(low - start, 0), lanes)
            end = max(min(high - start, lanes), begin)
            copy_vector(
                source + start * step, step, range_mask(begin, end), pair_mask(begin, end),
                target + start * size,
            )  # fmt: skip

    @numba.njit
    def copy_row(g: Any, source: int, channels: int, target: int, scratch: int) -> None:
        length = g.uw * g.aw
        for shift in range(g.shifts):
            for first in range(g.tw // g.uw):
                origin = first * g.sw - g.pw + shift * g.aw * g.dw
                low = min(max(-(origin // g.dw), 0), length)
                high = max(min((g.iw - 1 - origin) // g.dw + 1, length), low)
                begin = source + origin * g.xw
                # A run's last vector may reach into the next, which is written after it.
                run = target + shift * g.line_bytes + first * length * size
                if g.xc == item and channels > 1:
                    transpose_run(g, begin, channels, low, high, length, run, scratch)
                else:
                    for c in range(channels):
                        copy_run(g, begin + c * g.xc, low, high, length, run + c * g.source_c)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        blocks, bands = (g.groups * g.c + lanes - 1) // lanes, (g.ih + COPY_ROWS - 1) // COPY_ROWS
        band, rest = number % bands, number // bands
        d, rest = rest % g.id, rest // g.id
        c, image = rest % blocks * lanes, rest // blocks
        scratch = workspace + g.worker_at + worker * g.worker_bytes
        source = x + image * g.xn + c * g.xc + d * g.xd
        target = workspace + image * g.source_n + c * g.source_c + d * g.source_d
        for h in range(band * COPY_ROWS, min((band + 1) * COPY_ROWS, g.ih)):
            copy_row(
                g, source + h * g.xh, min(lanes, g.groups * g.c - c), target + h * g.source_h,
                scratch,
            )  # fmt: skip

    return task
