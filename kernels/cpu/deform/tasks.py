"""The machine code of plan.py: places, samples, their products with the weight, the output."""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from ..common.epilogue import make_gathered_activation
from ..gemm.pack import make_pack_weights
from ..gemm.split import REDUCTION
from ..gemm.tile import TileArguments, call_tile
from ..runtime.record import as_record
from ..simd.intrinsics import (
    get_word,
    load,
    load_gather,
    range_mask,
    splat,
    store,
)
from ..simd.ir import F64, ITEMSIZE, compute_code
from ..simd.register_tiles import RegisterTile
from .corners import PLACE_FIELDS, make_place_block
from .moves import COPY_FIELDS, make_store_run
from .samples import ADJACENT, make_pack_samples

__all__ = ["FIELDS", "make_kernel", "make_pack_kernel"]

FIELDS = (
    *PLACE_FIELDS,
    "has_bias",
    "bias_step",  # bytes from one bias to the next
    "has_slopes",
    "slope_step",
    "code",  # of an activation that is no clamp
    *COPY_FIELDS,
    "out_run",  # pixels of the output that lie one behind the other
    "steps",  # of a group: taps times channels
    "block_pixels",  # pixels of one task, a multiple of mr
    "blocks",  # tasks along the pixels
    "parts",  # tasks along K
    "part_columns",  # output channels of one part, a multiple of nr
    "sums_pitch",  # bytes from one pixel's sums to the next
    "tile",  # address of the register tile
    "workers_at",  # where the workers' memory begins
    "worker_bytes",
    "zeros_at",
    "places_at",
    "panel_at",
    "sums_at",
)
view = as_record(FIELDS)


@functools.cache
def _make_start(lanes: int, storage: int, compute: int) -> Any:
    """Return functions that write zeros, and that start sums from the bias."""
    size = ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32

    @numba.njit
    def clear(target: int, count: int) -> None:
        zero = splat(as_compute(0.0), lanes)
        for i in range(0, count, lanes):
            store(target + i * size, zero, compute)

    @numba.njit
    def start(g: Any, bias: int, sums: int, pixels: int, columns: int) -> None:
        for column in range(0, columns, lanes):
            value = splat(as_compute(0.0), lanes)
            if g.has_bias:
                mask = range_mask(0, min(lanes, columns - column))
                at = bias + column * g.bias_step
                value = load_gather(at, g.bias_step, mask, storage, lanes)
            for pixel in range(pixels):
                store(sums + pixel * g.sums_pitch + column * size, value, compute)

    return clear, start


@functools.cache
def _make_multiply(tile: RegisterTile, compute: int) -> Any:
    """Return a function that adds the products of a panel's steps to the sums of a task."""
    mr, nr, size, chunk = tile.mr, tile.nr, ITEMSIZE[compute], ADJACENT * ITEMSIZE[compute]

    @numba.njit
    def multiply(
        g: Any, panel: int, weight: int, steps: int, pixels: int, columns: int, sums: int, last: int
    ) -> None:
        low, high = (g.low, g.high) if last else (-math.inf, math.inf)
        for column in range(0, columns, nr):
            for pixel in range(0, pixels, mr):
                arguments = TileArguments(
                    a=panel + pixel * chunk, a_step=g.block_pixels * chunk,
                    b=weight + column * g.steps * size, b_step=nr * size, kc=steps,
                    c=sums + pixel * g.sums_pitch + column * size, c_pitch=g.sums_pitch, bias=sums,
                    accumulate=1, low=low, high=high, width=min(nr, columns - column),
                )  # fmt: skip
                call_tile(g.tile, arguments, min(mr, pixels - pixel))

    return multiply


@functools.cache
def _make_end(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that finishes a task's sums and brings them to the output."""
    size, store_run = ITEMSIZE[compute], make_store_run(lanes, storage)
    apply_activation = make_gathered_activation(lanes, storage)

    @numba.njit
    def apply(g: Any, sums: int, slopes: int, pixels: int, columns: int) -> None:
        for pixel in range(pixels):
            for column in range(0, columns, lanes):
                at = sums + pixel * g.sums_pitch + column * size
                mask = range_mask(0, min(lanes, columns - column))
                value = apply_activation(
                    load(at, compute, lanes), g.code, g.alpha, slopes + column * g.slope_step,
                    g.slope_step, mask,
                )  # fmt: skip
                store(at, value, compute)

    @numba.njit
    def end(
        g: Any, sums: int, slopes: int, first: int, pixels: int, columns: int, out: int
    ) -> None:
        if g.code:
            apply(g, sums, slopes, pixels, columns)
        pixel = 0
        while pixel < pixels:
            row = (first + pixel) // g.out_run
            column = first + pixel - row * g.out_run
            length = min(g.out_run - column, pixels - pixel)
            place = out + row * g.yh + column * g.yw
            store_run(sums + pixel * g.sums_pitch, g.sums_pitch, length, columns, place, g.yc, g.yw)
            pixel += length

    return end


@functools.cache
def make_kernel(tile: RegisterTile, storage: int, masked: int) -> Any:
    """Return the task: see the loop nest of plan.py."""
    compute, lanes, nr, most = compute_code(storage), tile.lanes, tile.nr, REDUCTION
    size = ITEMSIZE[compute]
    clear, start = _make_start(lanes, storage, compute)
    place_block = make_place_block(lanes, storage)
    pack = make_pack_samples(lanes, compute, masked)
    multiply, end = _make_multiply(tile, compute), _make_end(lanes, storage, compute)

    @numba.njit
    def place_group(
        g: Any, samples: int, offset: int, mask: int, group: int, first: int, pixels: int, w: int
    ) -> None:
        """Write the places of the offset groups that a group's channels belong to."""
        low = group * g.c // g.offset_channels
        high = ((group + 1) * g.c - 1) // g.offset_channels
        zeros = w + g.zeros_at
        clear(zeros, g.channels)
        place_block(
            g, offset, mask, low, high - low + 1, first, pixels, samples, zeros, w + g.places_at
        )

    @numba.njit
    def reduce(g: Any, weight: int, group: int, pixels: int, columns: int, w: int) -> None:
        for step in range(0, g.steps, most):
            steps = min(most, g.steps - step)
            pack(g, w + g.places_at, group, step, steps, g.block_pixels, pixels, w + g.panel_at)
            multiply(
                g, w + g.panel_at, weight + step * nr * size, steps, pixels, columns,
                w + g.sums_at, int(step + steps == g.steps),
            )  # fmt: skip

    def task(
        geometry: int, x: int, offset: int, weight: int, more: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        block, rest = number % g.blocks, number // g.blocks
        part, rest = rest % g.parts, rest // g.parts
        group, image = rest % g.groups, rest // g.groups
        first = block * g.block_pixels
        pixels = min(g.block_pixels, g.oh * g.ow - first)
        column = part * g.part_columns
        columns = min(g.part_columns, g.k - column)
        channel = group * g.k + column
        w = workspace + g.workers_at + worker * g.worker_bytes
        bias = mask = slopes = more
        if g.has_bias + g.has_mask + g.has_slopes > 1:
            bias, mask = get_word(more, 0), get_word(more, g.has_bias)
            slopes = get_word(more, g.has_bias + g.has_mask)

        samples = (workspace if g.copied else x) + image * g.sampled_n
        place_group(g, samples, offset + image * g.fn, mask + image * g.mn, group, first, pixels, w)
        start(g, bias + channel * g.bias_step, w + g.sums_at, pixels, columns)
        panels = group * ((g.k + nr - 1) // nr) + column // nr
        reduce(g, weight + panels * g.steps * nr * size, group, pixels, columns, w)
        end(
            g, w + g.sums_at, slopes + channel * g.slope_step, first, pixels, columns,
            out + image * g.yn + channel * g.yc,
        )  # fmt: skip

    return task


@functools.cache
def make_pack_kernel(tile: RegisterTile, storage: int) -> Any:
    """Return the task that packs one panel of nr output channels: [tap, channel, K]."""
    compute = compute_code(storage)
    nr, lanes, size = tile.nr, tile.lanes, ITEMSIZE[compute]
    pack_weights = make_pack_weights(nr, lanes, storage, compute)

    def task(
        geometry: int, weight: int, offset: int, bias: int, more: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        panels = (g.k + nr - 1) // nr
        group, panel = number // panels, number % panels
        target = packed + number * g.steps * nr * size
        scratch = workspace + worker * lanes * lanes * size
        for first in range(panel * nr, min((panel + 1) * nr, g.k), lanes):
            pack_weights(
                g, weight + (group * g.k + first) * g.wk, min(lanes, g.k - first), g.c, scratch,
                target + (first - panel * nr) * size,
            )  # fmt: skip

    return task
