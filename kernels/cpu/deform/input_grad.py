"""Gradient of a deformable convolution for its input.

Each sample's gradient goes to the four pixels that the sample was made of. They lie anywhere, so a
task owns all pixels of some channels of an image and adds to them pixel by pixel, tap by tap::

    pack: the weight's panels                               grad_columns.py
    task = image x group x nr input channels                taken by any thread
      for block of output pixels
        places: for tap, pixel: four corners, four weights  corners.py, addresses in the task's sums
        copy: the gradients, to [K, pixel]
        for tap
          for mr pixels: register tile                      gradients of samples, [pixel, nr]
          for pixel, corner: sums[corner] += weight * gradient
      bring the sums, [pixel, nr], to maps

No two tasks add to one place and each adds in one order: results are the same bits for any number
of threads. What lies outside is added to a row that nobody reads.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

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
from ..simd.intrinsics import load, load_masked, range_mask, splat, store
from ..simd.ir import (
    F64,
    I8,
    ITEMSIZE,
    VectorType,
    broadcast,
    compute_code,
    fmuladd,
    lane_mask,
    literals,
    load_vector,
    pointer,
    storage_code,
    store_vector,
)
from ..simd.register_tiles import RegisterTile, sized_tile
from .corners import PLACE_FIELDS, make_place_block
from .costs import GRAD_PIXELS
from .grad_columns import COLUMN_FIELDS, make_copy_grads, make_pack_columns, make_product
from .moves import make_store_run
from .plan import axes, offset_fields, place_groups
from .samples import Corners, make_read_corners

__all__ = ["plan", "workspace"]

_FIELDS = (
    *PLACE_FIELDS,
    *COLUMN_FIELDS,
    "in_run",  # pixels of the input that lie one behind the other
    "workers_at",  # where the workers' memory begins behind the packed weight
    "worker_bytes",
    "places_at",
    "grads_at",
    "samples_at",
    "sums_at",
    "zeros_at",
    "outside_at",
)
_view = as_record(_FIELDS)


@intrinsic(prefer_literal=True)
def _spread(
    typingctx: Any, corners: Any, at: Any, value: Any, bits: Any, code: Any, masked: Any, whole: Any
) -> Any:
    """Add a vector, times the mask where `masked` is 1, to four corners, times their weights.

    `at` is the first channel's distance in bytes. Where `whole` is 0 only the lanes whose bit is
    set are touched.
    """
    known = literals((code, masked, whole))
    if known is None or not isinstance(value, VectorType):
        return None
    compute, has_mask, is_whole = known

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made, added = Corners(*cgutils.unpack_tuple(builder, args[0])), args[2]
        lanes = added.type.count
        flags = None if is_whole else lane_mask(builder, args[3], lanes)
        if has_mask:
            added = builder.fmul(added, broadcast(builder, made.mask, lanes))
        for address, weight in zip(made[:4], made[4:8], strict=True):
            place = pointer(builder, builder.add(address, args[1]), I8)
            before = load_vector(builder, place, lanes, compute, flags)
            after = fmuladd(builder, broadcast(builder, weight, lanes), added, before)
            store_vector(builder, place, after, compute, flags)
        return context.get_dummy_value()

    words = (types.intp, value, types.intp)
    return types.void(corners, *words, code, masked, whole), codegen


@functools.cache
def _make_add_samples(tile: RegisterTile, compute: int, masked: int) -> Any:
    """Return a function that adds the gradients of one tap's samples to the sums."""
    lanes, nr, size = tile.lanes, tile.nr, ITEMSIZE[compute]
    read = make_read_corners(compute)

    @numba.njit
    def add_run(g: Any, places: int, pixels: int, first: int, width: int, samples: int) -> None:
        """Add `width` channels from `first` on, which share offsets."""
        for pixel in range(pixels):
            corners = read(g, places, pixel)
            source = samples + pixel * nr * size
            for c in range(first, first + width, lanes):
                left = first + width - c
                if left >= lanes:
                    value = load(source + c * size, compute, lanes)
                    _spread(corners, c * size, value, 0, compute, masked, 1)
                else:
                    mask = range_mask(0, left)
                    value = load_masked(source + c * size, mask, compute, lanes)
                    _spread(corners, c * size, value, mask, compute, masked, 0)

    @numba.njit
    def add_samples(
        g: Any, places: int, tap: int, pixels: int, channel: int, width: int, samples: int
    ) -> None:
        """Add `width` channels; `channel` is the first, over all groups."""
        taps, first_set, c = g.kh * g.kw, channel // g.offset_channels, 0
        while c < width:
            offsets = (channel + c) // g.offset_channels
            run = min(width - c, (offsets + 1) * g.offset_channels - channel - c)
            own = places + ((offsets - first_set) * taps + tap) * g.place_bytes
            add_run(g, own, pixels, c, run, samples)
            c += run

    return add_samples


@functools.cache
def _make_kernel(tile: RegisterTile, storage: int, masked: int) -> Any:
    """Return the task: see the loop nest above."""
    compute, lanes, nr = compute_code(storage), tile.lanes, tile.nr
    size = ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32
    place_block, copy_grads = make_place_block(lanes, storage), make_copy_grads(lanes, storage)
    multiply, add_samples = make_product(tile, compute), _make_add_samples(tile, compute, masked)
    store_run = make_store_run(lanes, storage)

    @numba.njit
    def clear(target: int, count: int) -> None:
        zero = splat(as_compute(0.0), lanes)
        for i in range(0, count, lanes):
            store(target + i * size, zero, compute)

    @numba.njit
    def add_block(
        g: Any, packed: int, block: int, group: int, first: int, pixels: int, offset: int,
        mask: int, grad: int, w: int,
    ) -> None:  # fmt: skip
        """Add the gradients of a block of output pixels."""
        width = min(nr, g.c - block * nr)
        channel, taps = group * g.c + block * nr, g.kh * g.kw
        low, high = channel // g.offset_channels, (channel + width - 1) // g.offset_channels
        place_block(
            g, offset, mask, low, high - low + 1, first, pixels, w + g.sums_at, w + g.outside_at,
            w + g.places_at,
        )  # fmt: skip
        copy_grads(g, grad, g.k, first, pixels, w + g.grads_at)
        for tap in range(taps):
            panel = packed + ((group * taps + tap) * g.channel_blocks + block) * g.k * nr * size
            multiply(
                g, w + g.grads_at, panel, pixels, width, w + g.samples_at, nr * size, w + g.zeros_at
            )
            add_samples(g, w + g.places_at, tap, pixels, channel, width, w + g.samples_at)

    @numba.njit
    def store_sums(g: Any, sums: int, width: int, out: int) -> None:
        total = g.ih * g.iw
        for first in range(0, total, g.in_run):
            target = out + first // g.in_run * g.xh
            store_run(sums + first * nr * size, nr * size, g.in_run, width, target, g.xc, g.xw)

    def task(
        geometry: int, grad: int, offset: int, weight: int, mask: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        block, rest = number % g.channel_blocks, number // g.channel_blocks
        group, image = rest % g.groups, rest // g.groups
        w = workspace + g.workers_at + worker * g.worker_bytes
        clear(w + g.sums_at, g.ih * g.iw * nr)
        clear(w + g.zeros_at, nr)
        total = g.oh * g.ow
        for first in range(0, total, g.block_pixels):
            add_block(
                g, workspace, block, group, first, min(g.block_pixels, total - first),
                offset + image * g.fn, mask + image * g.mn,
                grad + image * g.yn + group * g.k * g.yc, w,
            )  # fmt: skip
        width = min(nr, g.c - block * nr)
        channel = group * g.c + block * nr
        store_sums(g, w + g.sums_at, width, out + image * g.xn + channel * g.xc)

    return task


@functools.cache
def _make_pack_kernel(tile: RegisterTile, storage: int) -> Any:
    """Return the task that packs one panel of the weight."""
    pack = make_pack_columns(tile, storage)

    def task(
        geometry: int, grad: int, offset: int, weight: int, mask: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        pack(_view(geometry), weight, number, workspace)

    return task


def _layout(problem: DeformProblem, device: DeviceInfo) -> tuple[RegisterTile, dict[str, int]]:
    """Return the tile, block sizes and where the workspace holds what."""
    size = problem.compute_itemsize
    tile = sized_tile(device, size, rows_are_pixels=True)
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    pixels = GRAD_PIXELS // tile.mr * tile.mr
    taps, blocks = math.prod(problem.kernel_size), -(-c // tile.nr)
    pitch = whole_lines((pixels + tile.lanes) * size) + LINE
    place = offset_fields(problem, (0,) * 4, None, pixels)["place_bytes"]
    memory = Workspace()
    memory.add("places", place_groups(problem) * taps * place)
    memory.add("grads", k * pitch)
    memory.add("samples", pixels * tile.nr * size)
    memory.add("sums", math.prod(problem.in_size) * tile.nr * size)
    memory.add("zeros", tile.nr * size)
    memory.add("outside", tile.nr * size)
    fields = {
        "block_pixels": pixels, "grads_pitch": pitch, "channel_blocks": blocks,
        "workers_at": whole_lines(problem.groups * taps * blocks * k * tile.nr * size),
    }  # fmt: skip
    return tile, memory.fields | fields


def workspace(problem: DeformProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    fields = _layout(problem, device)[1]
    workers = worth_helpers(problem.macs, device.threads)
    return fields["workers_at"] + workers * fields["worker_bytes"]


def plan(problem: DeformProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    names = [operand.name for operand in (*problem.inputs, *problem.outputs)]
    strides = dict(zip(names, binding.strides, strict=True))
    code = storage_code(problem.dtype)
    tile, fields = _layout(problem, device)
    out, filters, size = strides["grad_input"], strides["weight"], problem.compute_itemsize
    height, width = problem.in_size
    is_run = out[2] == width * out[3] or height == 1
    values: dict[str, Any] = axes(problem) | fields
    values |= name_strides("x", out) | name_strides("y", strides["grad_output"])
    values |= {"wk": filters[0], "wc": filters[1]} | name_axes("w", filters[2:], 0)
    values |= offset_fields(problem, strides["offset"], strides.get("mask"), fields["block_pixels"])
    values |= {
        "in_run": height * width if is_run else width,
        "sampled_h": width * tile.nr * size, "sampled_w": tile.nr * size,
        "tile": tile_address(tile, compute_code(code)),
    }  # fmt: skip
    key, masked = (tile.mr, tile.nv, tile.lanes, code), int(problem.mask)
    task = _make_kernel(tile, code, masked)
    pack = compile_kernel(_make_pack_kernel(tile, code), "deform_grad_input_pack", *key)
    taps = math.prod(problem.kernel_size)
    panels = problem.groups * taps * fields["channel_blocks"]
    tasks = problem.batch * problem.groups * fields["channel_blocks"]
    record_values = {name: value for name, value in values.items() if name != "channels"}
    return ArrayPlan(
        record=array_record(_FIELDS, record_values),
        stages=(
            ArrayStage(pack, panels),
            ArrayStage(compile_kernel(task, "deform_grad_input", *key, masked), tasks),
        ),
        workers=worth_helpers(problem.macs, device.threads),
        workspace_bytes=workspace(problem, device),
        flush=binding.flush,
    )
