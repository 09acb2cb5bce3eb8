"""Gradients of a deformable convolution for its offsets and its mask.

Both are sums over channels of a sample's gradient times the four pixels that it was made of; what
differs is how these four sums are put together, so one kernel makes both::

    pack: the weight's panels                               grad_columns.py
    copy: the input with its channels side by side          not where they lie so already
    task = image x block of output pixels                   taken by any thread
      places: for tap, pixel: four corners, two fractions   corners.py, once for all channels
      copy: the gradients, to [K, pixel]
      for tap
        for nr input channels, for mr pixels
          register tile                                     gradients of samples, [pixel, C]
        for offset group, pixel
          four sums over channels                           4 loads, 4 multiply-adds a vector
          gradients for the offset and for the mask

Samples' own values are never made: the four sums hold what the mask's gradient needs of them.
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
from ..common.workspace import Workspace
from ..gemm.tile import tile_address
from ..machine.lines import LINE, whole_lines
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record, name_strides
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import (
    get_word,
    load,
    load_masked,
    multiply_add,
    range_mask,
    splat,
    store,
    store_scalar,
    sum_lanes,
)
from ..simd.ir import F64, ITEMSIZE, compute_code, storage_code
from ..simd.register_tiles import RegisterTile, sized_tile
from .corners import PLACE_FIELDS, make_place_block
from .costs import GRAD_PIXELS
from .grad_columns import COLUMN_FIELDS, make_copy_grads, make_pack_columns, make_product
from .moves import COPY_FIELDS, make_copy_task
from .plan import axes, copy_bytes, offset_fields, samples_in_place, source_fields
from .samples import make_read_corners

__all__ = ["plan", "workspace"]

_FIELDS = (
    *PLACE_FIELDS,
    *COLUMN_FIELDS,
    *COPY_FIELDS,
    "blocks",  # tasks of an image
    "group_grads",  # bytes of one group's gradients of a block
    "samples_pitch",  # bytes between the gradients of one pixel's samples and those of the next
    "on",  # byte strides of the gradient for the offset
    "oc",
    "oy",
    "ox",
    "un",  # byte strides of the gradient for the mask
    "uc",
    "uy",
    "ux",
    "packed_at",  # the weight's panels, behind the input's copy
    "workers_at",
    "worker_bytes",
    "zeros_at",
    "places_at",
    "grads_at",
    "samples_at",
)
_view = as_record(_FIELDS)


@functools.cache
def _make_sum_corners(lanes: int, compute: int) -> Any:
    """Return a function that sums a sample's gradients times each of its four corners."""
    size = ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32

    @numba.njit
    def sum_corners(corners: Any, samples: int, channel: int, width: int) -> Any:
        """Sum `width` channels from `channel` bytes on behind a corner."""
        zero = splat(as_compute(0.0), lanes)
        first, second, third, fourth = zero, zero, zero, zero
        whole = width // lanes * lanes
        for c in range(0, whole, lanes):
            grad, at = load(samples + c * size, compute, lanes), channel + c * size
            first = multiply_add(grad, load(corners.above_left + at, compute, lanes), first)
            second = multiply_add(grad, load(corners.above_right + at, compute, lanes), second)
            third = multiply_add(grad, load(corners.below_left + at, compute, lanes), third)
            fourth = multiply_add(grad, load(corners.below_right + at, compute, lanes), fourth)
        if whole < width:
            mask, at = range_mask(0, width - whole), channel + whole * size
            grad = load_masked(samples + whole * size, mask, compute, lanes)
            corner = load_masked(corners.above_left + at, mask, compute, lanes)
            first = multiply_add(grad, corner, first)
            corner = load_masked(corners.above_right + at, mask, compute, lanes)
            second = multiply_add(grad, corner, second)
            corner = load_masked(corners.below_left + at, mask, compute, lanes)
            third = multiply_add(grad, corner, third)
            corner = load_masked(corners.below_right + at, mask, compute, lanes)
            fourth = multiply_add(grad, corner, fourth)
        return sum_lanes(first), sum_lanes(second), sum_lanes(third), sum_lanes(fourth)

    return sum_corners


@functools.cache
def _make_end_tap(lanes: int, storage: int) -> Any:
    """Return a function that writes the gradients of one tap for a block of pixels."""
    compute = compute_code(storage)
    size = ITEMSIZE[compute]
    read, sum_corners = make_read_corners(compute), _make_sum_corners(lanes, compute)

    @numba.njit
    def end_pixel(
        g: Any, places: int, pixel: int, samples: int, channel: int, offset: int, mask: int
    ) -> None:
        corners = read(g, places, pixel)
        a, b, c, d = sum_corners(corners, samples, channel, g.offset_channels)
        # Of a place with slopes the numbers are its distances to the corners.
        down, right, up, back = corners.first, corners.second, corners.third, corners.fourth
        store_scalar(offset, corners.mask * (back * (c - a) + right * (d - b)), storage)
        store_scalar(offset + g.oc, corners.mask * (up * (b - a) + down * (d - c)), storage)
        if g.has_mask:
            value = up * (back * a + right * b) + down * (back * c + right * d)
            store_scalar(mask, value, storage)

    @numba.njit
    def end_tap(
        g: Any, places: int, tap: int, first: int, pixels: int, samples: int, offset: int, mask: int
    ) -> None:
        taps = g.kh * g.kw
        for group in range(g.offset_groups):
            channel, number = group * g.offset_channels * size, group * taps + tap
            for pixel in range(pixels):
                row = (first + pixel) // g.ow
                column = first + pixel - row * g.ow
                end_pixel(
                    g, places + number * g.place_bytes, pixel,
                    samples + pixel * g.samples_pitch + channel, channel,
                    offset + 2 * number * g.oc + row * g.oy + column * g.ox,
                    mask + number * g.uc + row * g.uy + column * g.ux,
                )  # fmt: skip

    return end_tap


@functools.cache
def _make_kernel(tile: RegisterTile, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    compute, lanes, nr = compute_code(storage), tile.lanes, tile.nr
    size = ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32
    place_block, copy_grads = make_place_block(lanes, storage, 1), make_copy_grads(lanes, storage)
    multiply, end_tap = make_product(tile, compute), _make_end_tap(lanes, storage)

    @numba.njit
    def multiply_tap(g: Any, packed: int, tap: int, pixels: int, w: int) -> None:
        """Make the gradients of one tap's samples, of all channels."""
        taps = g.kh * g.kw
        for group in range(g.groups):
            for block in range(g.channel_blocks):
                panel = (group * taps + tap) * g.channel_blocks + block
                multiply(
                    g, w + g.grads_at + group * g.group_grads, packed + panel * g.k * nr * size,
                    pixels, min(nr, g.c - block * nr),
                    w + g.samples_at + (group * g.c + block * nr) * size, g.samples_pitch,
                    w + g.zeros_at,
                )  # fmt: skip

    def task(
        geometry: int, grad: int, x: int, offset: int, more: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        mask = to_offset = to_mask = out
        if g.has_mask:  # out is the mask's gradient, and the table is of weight, mask and offset
            mask, to_offset = get_word(more, 1), get_word(more, 2)
        block, image = number % g.blocks, number // g.blocks
        first = block * g.block_pixels
        pixels = min(g.block_pixels, g.oh * g.ow - first)
        w = workspace + g.workers_at + worker * g.worker_bytes
        zero = splat(as_compute(0.0), lanes)
        for i in range(0, max(g.channels, nr), lanes):
            store(w + g.zeros_at + i * size, zero, compute)
        samples = (workspace if g.copied else x) + image * g.sampled_n
        place_block(
            g, offset + image * g.fn, mask + image * g.mn, 0, g.offset_groups, first, pixels,
            samples, w + g.zeros_at, w + g.places_at,
        )  # fmt: skip
        for group in range(g.groups):
            source = grad + image * g.yn + group * g.k * g.yc
            copy_grads(g, source, g.k, first, pixels, w + g.grads_at + group * g.group_grads)
        for tap in range(g.kh * g.kw):
            multiply_tap(g, workspace + g.packed_at, tap, pixels, w)
            end_tap(
                g, w + g.places_at, tap, first, pixels, w + g.samples_at,
                to_offset + image * g.on, to_mask + image * g.un,
            )  # fmt: skip

    return task


@functools.cache
def _make_pack_kernel(tile: RegisterTile, storage: int) -> Any:
    """Return the task that packs one panel of the weight."""
    pack = make_pack_columns(tile, storage)

    def task(
        geometry: int, grad: int, x: int, offset: int, more: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        pack(g, get_word(more, 0) if g.has_mask else more, number, workspace + g.packed_at)

    return task


def _layout(
    problem: DeformProblem, device: DeviceInfo, in_place: bool
) -> tuple[RegisterTile, dict[str, int]]:
    """Return the tile, block sizes and where the workspace holds what."""
    size = problem.compute_itemsize
    tile = sized_tile(device, size, rows_are_pixels=True)
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    pixels = GRAD_PIXELS // tile.mr * tile.mr
    taps, blocks = math.prod(problem.kernel_size), -(-c // tile.nr)
    pitch = whole_lines((pixels + tile.lanes) * size) + LINE
    samples_pitch = whole_lines(problem.in_channels * size) + LINE
    place = offset_fields(problem, (0,) * 4, None, pixels)["place_bytes"]
    memory = Workspace()
    memory.add("zeros", (max(problem.in_channels, tile.nr) + tile.lanes) * size)
    memory.add("places", problem.offset_groups * taps * place)
    memory.add("grads", problem.out_channels * pitch)
    memory.add("samples", pixels * samples_pitch)
    copied = copy_bytes(problem, in_place)
    packed = whole_lines(problem.groups * taps * blocks * k * tile.nr * size)
    fields = {
        "block_pixels": pixels, "blocks": -(-math.prod(problem.out_size) // pixels),
        "grads_pitch": pitch, "group_grads": k * pitch, "channel_blocks": blocks,
        "samples_pitch": samples_pitch, "packed_at": copied, "workers_at": copied + packed,
    }  # fmt: skip
    return tile, memory.fields | fields


def _workspace(problem: DeformProblem, device: DeviceInfo, in_place: bool) -> int:
    fields = _layout(problem, device, in_place)[1]
    workers = worth_helpers(problem.macs, device.threads)
    return fields["workers_at"] + workers * fields["worker_bytes"]


def workspace(problem: DeformProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call with dense arrays, over all threads."""
    in_place = problem.layout == "channels_last" and problem.itemsize >= 4
    return _workspace(problem, device, in_place)


def plan(problem: DeformProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    names = [operand.name for operand in (*problem.inputs, *problem.outputs)]
    strides = dict(zip(names, binding.strides, strict=True))
    code = storage_code(problem.dtype)
    in_place = samples_in_place(problem, strides["input"])
    tile, fields = _layout(problem, device, in_place)
    filters = strides["weight"]
    values: dict[str, Any] = axes(problem) | fields | source_fields(problem, strides["input"])
    values |= name_strides("y", strides["grad_output"])
    values |= {"wk": filters[0], "wc": filters[1]} | name_axes("w", filters[2:], 0)
    values |= offset_fields(problem, strides["offset"], strides.get("mask"), fields["block_pixels"])
    for letter, name in (("o", "grad_offset"), ("u", "grad_mask")):
        steps = strides.get(name, (0,) * 4)
        values |= {f"{letter}{axis}": step for axis, step in zip("ncyx", steps, strict=True)}
    values["tile"] = tile_address(tile, compute_code(code))
    key = (tile.mr, tile.nv, tile.lanes, code)
    taps = math.prod(problem.kernel_size)
    pack = compile_kernel(_make_pack_kernel(tile, code), "deform_grad_offset_pack", *key)
    kernel = compile_kernel(_make_kernel(tile, code), "deform_grad_offset", *key)
    stages = [
        ArrayStage(pack, problem.groups * taps * fields["channel_blocks"]),
        ArrayStage(kernel, problem.batch * fields["blocks"]),
    ]
    if not in_place:
        copy = make_copy_task(_FIELDS, tile.lanes, code, 1)
        address = compile_kernel(copy, "deform_copy", _FIELDS, tile.lanes, code, 1)
        stages.insert(0, ArrayStage(address, problem.batch * values["copy_blocks"]))
    return ArrayPlan(
        record=array_record(_FIELDS, values),
        stages=tuple(stages),
        workers=worth_helpers(problem.macs, device.threads),
        workspace_bytes=_workspace(problem, device, in_place),
        flush=binding.flush,
    )
