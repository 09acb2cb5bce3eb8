"""Gradient of a deformable convolution for its weight: a matrix product over pixels.

As for a convolution (cpu/weight_grad/plan.py), but for how rows of samples are made: rows of the
register tile are channels of one tap, lanes are output channels, and steps are pixels::

    copy: the input with its channels side by side           not where they lie so already
    task = group x block of input channels x part of K       taken by any thread
      for image, for 256 pixels
        places, samples                                      rows, [pixel, tap, channel]
        copy: the gradients                                  columns, [pixel, part of K]
        for nr output channels, for tap, for mr channels
          register tile (gemm/tile.py)                       sums[channel, tap, K] += products
        after 64 of these, add the sums to the totals
      transpose the totals to (K, C, taps)

Every sum is of one task and in one order, whatever the number of threads.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.deform_problem import DeformProblem
from fastconv.contract.spec import DeviceInfo

from ...axes import name_axes
from ..common.memory_order import is_contiguous
from ..common.totals import make_totals
from ..common.workspace import Workspace
from ..gemm.tile import TileArguments, call_tile, tile_address
from ..machine.lines import LINE, whole_lines
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record, name_strides
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import load_scalar, splat, store, store_scalar
from ..simd.ir import F64, ITEMSIZE, compute_code, storage_code
from ..simd.register_tiles import RegisterTile, sized_tile
from ..weight_grad.tasks import CHUNK, CHUNKS_AT_ONCE, make_store_weight
from .corners import PLACE_FIELDS, make_place_block
from .costs import weight_blocks
from .moves import COPY_FIELDS, make_copy_run, make_copy_task
from .plan import axes, copy_bytes, offset_fields, place_groups, samples_in_place, source_fields
from .samples import make_sample

__all__ = ["plan", "workspace"]

_FIELDS = (
    *PLACE_FIELDS,
    *COPY_FIELDS,
    "channel_block",  # input channels of one task
    "channel_blocks",  # tasks along them
    "part_columns",  # output channels of one task
    "parts",  # tasks along them
    "rows_pitch",  # bytes between the samples of one pixel and those of the next
    "sums_pitch",  # bytes between the sums of successive taps
    "dense",  # 1 where channels and taps of the gradient are contiguous
    "tile",  # address of the register tile
    "workers_at",
    "worker_bytes",
    "zeros_at",
    "places_at",
    "rows_at",
    "columns_at",
    "sums_at",
    "totals_at",
)
_view = as_record(_FIELDS)


@functools.cache
def _make_rows(lanes: int, compute: int, masked: int) -> Any:
    """Return a function that makes the samples of a task's channels for a chunk of pixels."""
    size, sample = ITEMSIZE[compute], make_sample(lanes, compute, masked)

    @numba.njit
    def make_rows(g: Any, places: int, channel: int, channels: int, pixels: int, rows: int) -> None:
        """`channel` is the first, over all groups; `places` those of its offset group and on."""
        taps, first_set = g.kh * g.kw, channel // g.offset_channels
        for tap in range(taps):
            c = 0
            while c < channels:
                offsets = (channel + c) // g.offset_channels
                width = min(channels - c, (offsets + 1) * g.offset_channels - channel - c)
                sample(
                    g, places + ((offsets - first_set) * taps + tap) * g.place_bytes, pixels,
                    (channel + c) * size, width, rows + (tap * channels + c) * size, g.rows_pitch,
                )  # fmt: skip
                c += width

    return make_rows


@functools.cache
def _make_copy_columns(lanes: int, storage: int) -> Any:
    """Return a function that brings the gradients of a chunk of pixels side by side."""
    copy_run = make_copy_run(lanes, storage)

    @numba.njit
    def copy_columns(g: Any, grad: int, width: int, first: int, pixels: int, columns: int) -> None:
        pixel = 0
        while pixel < pixels:
            row = (first + pixel) // g.ow
            column = first + pixel - row * g.ow
            length = min(g.ow - column, pixels - pixel)
            source = grad + row * g.yh + column * g.yw
            to = columns + pixel * g.sums_pitch
            copy_run(source, g.yc, g.yw, width, length, to, g.sums_pitch)
            pixel += length

    return copy_columns


@functools.cache
def _make_multiply(tile: RegisterTile, compute: int) -> Any:
    """Return a function that adds a chunk's products to the sums: rows of one tap at a time."""
    mr, nr, size = tile.mr, tile.nr, ITEMSIZE[compute]

    @numba.njit
    def multiply(
        g: Any, rows: int, channels: int, columns: int, pixels: int, width: int, sums: int
    ) -> None:
        taps, pitch = g.kh * g.kw, g.sums_pitch
        for k in range(0, width, nr):
            for tap in range(taps):
                for c in range(0, channels, mr):
                    arguments = TileArguments(
                        a=rows + (tap * channels + c) * size, a_step=g.rows_pitch,
                        b=columns + k * size, b_step=pitch, kc=pixels,
                        c=sums + (c * taps + tap) * pitch + k * size, c_pitch=taps * pitch,
                        bias=sums, accumulate=1, low=-math.inf, high=math.inf,
                        width=min(nr, width - k),
                    )  # fmt: skip
                    call_tile(g.tile, arguments, min(mr, channels - c))

    return multiply


@functools.cache
def _make_store(lanes: int, storage: int) -> Any:
    """Return a function that brings totals to a weight of any order."""
    compute = compute_code(storage)
    size, store_weight = ITEMSIZE[compute], make_store_weight(lanes, storage)

    @numba.njit
    def store_any(g: Any, totals: int, rows: int, width: int, out: int) -> None:
        taps = g.kh * g.kw
        for row in range(rows):
            tap = row % taps
            to = out + row // taps * g.wc + tap // g.kw * g.wh + tap % g.kw * g.ww
            for k in range(width):
                value = load_scalar(totals + row * g.sums_pitch + k * size, compute)
                store_scalar(to + k * g.wk, value, storage)

    @numba.njit
    def store_totals(g: Any, totals: int, rows: int, width: int, out: int) -> None:
        if g.dense:
            store_weight(g, totals, rows, width, out)
        else:
            store_any(g, totals, rows, width, out)

    return store_totals


@functools.cache
def _make_kernel(tile: RegisterTile, storage: int, masked: int) -> Any:
    """Return the task: see the loop nest above."""
    compute, lanes, most, often = compute_code(storage), tile.lanes, CHUNK, CHUNKS_AT_ONCE
    size = ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32
    place_block, make_rows = make_place_block(lanes, storage), _make_rows(lanes, compute, masked)
    copy_columns, multiply = _make_copy_columns(lanes, storage), _make_multiply(tile, compute)
    (clear, move), store_totals = make_totals(lanes, compute), _make_store(lanes, storage)

    @numba.njit
    def add_image(
        g: Any, samples: int, offset: int, mask: int, grad: int, channel: int, channels: int,
        width: int, w: int, done: int,
    ) -> int:  # fmt: skip
        """Add the products of one image; return how many chunks there have been."""
        low = channel // g.offset_channels
        sets = (channel + channels - 1) // g.offset_channels - low + 1
        sums, size_of_sums = w + g.sums_at, channels * g.kh * g.kw * g.sums_pitch
        total = g.oh * g.ow
        for first in range(0, total, most):
            pixels = min(most, total - first)
            place_block(
                g, offset, mask, low, sets, first, pixels, samples, w + g.zeros_at, w + g.places_at
            )
            make_rows(g, w + g.places_at, channel, channels, pixels, w + g.rows_at)
            copy_columns(g, grad, width, first, pixels, w + g.columns_at)
            multiply(g, w + g.rows_at, channels, w + g.columns_at, pixels, width, sums)
            done += 1
            if done % often == 0:
                move(sums, w + g.totals_at, size_of_sums)
        return done

    def task(
        geometry: int, grad: int, x: int, offset: int, mask: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        part, rest = number % g.parts, number // g.parts
        block, group = rest % g.channel_blocks, rest // g.channel_blocks
        c0, k0 = block * g.channel_block, part * g.part_columns
        channels, width = min(g.channel_block, g.c - c0), min(g.part_columns, g.k - k0)
        w = workspace + g.workers_at + worker * g.worker_bytes
        rows = channels * g.kh * g.kw
        clear(w + g.sums_at, rows * g.sums_pitch)
        clear(w + g.totals_at, rows * g.sums_pitch)
        zero = splat(as_compute(0.0), lanes)
        for i in range(0, g.channels, lanes):
            store(w + g.zeros_at + i * size, zero, compute)
        done = 0
        for image in range(g.n):
            done = add_image(
                g, (workspace if g.copied else x) + image * g.sampled_n, offset + image * g.fn,
                mask + image * g.mn, grad + image * g.yn + (group * g.k + k0) * g.yc,
                group * g.c + c0, channels, width, w, done,
            )  # fmt: skip
        move(w + g.sums_at, w + g.totals_at, rows * g.sums_pitch)
        place = out + (group * g.k + k0) * g.wk + c0 * g.wc
        store_totals(g, w + g.totals_at, rows, width, place)

    return task


def _layout(
    problem: DeformProblem, device: DeviceInfo, in_place: bool
) -> tuple[RegisterTile, dict[str, int]]:
    """Return the tile, block sizes and where the workspace holds what."""
    size = problem.compute_itemsize
    tile = sized_tile(device, size)
    channels, columns = weight_blocks(problem, device)
    taps = math.prod(problem.kernel_size)
    # A line more than a power of two, or the rows of a tile would fall into one set of L1.
    pitch = whole_lines(-(-columns // tile.nr) * tile.nr * size) + LINE
    rows_pitch = whole_lines(channels * taps * size) + LINE
    place = offset_fields(problem, (0,) * 4, None, CHUNK)["place_bytes"]
    memory = Workspace()
    memory.add("zeros", (problem.in_channels + tile.lanes) * size)
    memory.add("places", place_groups(problem) * taps * place)
    memory.add("rows", CHUNK * rows_pitch)
    memory.add("columns", CHUNK * pitch)
    memory.add("sums", channels * taps * pitch)
    memory.add("totals", channels * taps * pitch)
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    fields = {
        "channel_block": channels, "channel_blocks": -(-c // channels), "part_columns": columns,
        "parts": -(-k // columns), "rows_pitch": rows_pitch, "sums_pitch": pitch,
        "workers_at": copy_bytes(problem, in_place),
    }  # fmt: skip
    return tile, memory.fields | fields


def _tasks(problem: DeformProblem, fields: dict[str, int]) -> int:
    return problem.groups * fields["channel_blocks"] * fields["parts"]


def _workers(problem: DeformProblem, device: DeviceInfo, fields: dict[str, int]) -> int:
    """Return the threads of a call: no more than there are tasks, as each has a workspace."""
    return min(_tasks(problem, fields), worth_helpers(problem.macs, device.threads))


def workspace(problem: DeformProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call with dense arrays, over all threads."""
    in_place = problem.layout == "channels_last" and problem.itemsize >= 4
    fields = _layout(problem, device, in_place)[1]
    return fields["workers_at"] + fields["worker_bytes"] * _workers(problem, device, fields)


def plan(problem: DeformProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    names = [operand.name for operand in (*problem.inputs, *problem.outputs)]
    strides = dict(zip(names, binding.strides, strict=True))
    code = storage_code(problem.dtype)
    in_place = samples_in_place(problem, strides["input"])
    tile, fields = _layout(problem, device, in_place)
    out = strides["grad_weight"]
    values: dict[str, Any] = axes(problem) | fields | source_fields(problem, strides["input"])
    values |= name_strides("y", strides["grad_output"])
    values |= {"wk": out[0], "wc": out[1]} | name_axes("w", out[2:], 0)
    values |= offset_fields(problem, strides["offset"], strides.get("mask"), CHUNK)
    values |= {
        "dense": int(is_contiguous(problem.weight_shape[1:], out[1:], problem.itemsize)),
        "tile": tile_address(tile, compute_code(code)),
    }  # fmt: skip
    key, masked = (tile.mr, tile.nv, tile.lanes, code), int(problem.mask)
    task = _make_kernel(tile, code, masked)
    kernel = compile_kernel(task, "deform_grad_weight", *key, masked)
    stages = [ArrayStage(kernel, _tasks(problem, fields))]
    if not in_place:
        copy = make_copy_task(_FIELDS, tile.lanes, code, 1)
        address = compile_kernel(copy, "deform_copy", _FIELDS, tile.lanes, code, 1)
        stages.insert(0, ArrayStage(address, problem.batch * values["copy_blocks"]))
    workers = _workers(problem, device, fields)
    return ArrayPlan(
        record=array_record(_FIELDS, values),
        stages=tuple(stages),
        workers=workers,
        workspace_bytes=fields["workers_at"] + fields["worker_bytes"] * workers,
        flush=binding.flush,
    )
