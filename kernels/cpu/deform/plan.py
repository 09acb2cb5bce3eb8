"""Deformable convolution: samples made panel by panel, multiplied by the weight as they are made.

``out[pixel, K]`` is the sum over taps and channels of ``sample[pixel, tap, channel]`` times the
weight. How a panel of the input is gathered is all that tells it from `swapped_gemm`; rows of the
register tile are pixels and lanes are output channels::

    copy: the input with its channels side by side             not where they lie so already
    task = image x group x block of pixels x part of K         taken by any thread
      places: for tap, pixel: four corners, four weights       corners.py, once for all channels
      for 512 steps of (tap, channel)
        pack: for tap, pixel, channels: four corners added up  samples.py, 4 loads a vector
        for nr output channels, for mr pixels
          register tile (gemm/tile.py)                         sums += products
      activation; transpose the sums to rows of the output     shuffles in registers

Nothing is gathered by an index vector and no matrix of columns is ever whole. A vector of samples
is 4 loads and 4 multiply-adds where its products are ``K``: 5% at ``K`` = 128.

Budget (AVX-512, float32): 56 pixels x 512 steps are 112 KiB, their sums of 128 channels 28 KiB and
the places of 9 taps 34 KiB of 1 MiB L2; the weight streams past, 64 KiB of it for each panel.
"""

from __future__ import annotations

import math
from typing import Any

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.deform_problem import DeformProblem
from fastconv.contract.spec import DeviceInfo

from ...axes import ACTIVATION_CODES, LAST_CLAMP, name_axes
from ..common.memory_order import is_contiguous
from ..common.workspace import Workspace
from ..gemm.split import REDUCTION
from ..gemm.tile import tile_address
from ..machine.lines import LINE, whole_lines
from ..runtime.array_plan import ArrayPack, ArrayPlan, ArrayStage, array_record, name_strides
from ..runtime.plan import compile_kernel, worth_helpers
from ..simd.ir import ITEMSIZE, compute_code, storage_code
from ..simd.register_tiles import RegisterTile, sized_tile
from .corners import place_bytes
from .costs import split
from .moves import COPY_PIXELS, make_copy_task
from .samples import ADJACENT
from .tasks import FIELDS, make_kernel, make_pack_kernel

__all__ = [
    "axes",
    "copy_bytes",
    "offset_fields",
    "place_groups",
    "plan",
    "samples_in_place",
    "source_fields",
    "workspace",
]

_LIMITS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


def axes(problem: DeformProblem) -> dict[str, int]:
    """Return sizes and steps by field."""
    channels, outputs = problem.in_channels, problem.out_channels
    return (
        {"n": problem.batch, "groups": problem.groups, "channels": channels}
        | {"c": channels // problem.groups, "k": outputs // problem.groups}
        | name_axes("i", problem.in_size, 1)
        | name_axes("o", problem.out_size, 1)
        | name_axes("k", problem.kernel_size, 1)
        | name_axes("s", problem.stride, 1)
        | name_axes("p", problem.padding, 0)
        | name_axes("d", problem.dilation, 1)
    )


def samples_in_place(problem: DeformProblem, strides: tuple[int, ...]) -> bool:
    """Return whether an input's channels lie side by side and as they are computed with."""
    has_channels = strides[1] == problem.itemsize or problem.in_channels == 1
    return has_channels and problem.itemsize == problem.compute_itemsize


def source_fields(problem: DeformProblem, strides: tuple[int, ...]) -> dict[str, int]:
    """Return what tells how the input lies, and its copy if there is one."""
    height, width = problem.in_size
    pixel = problem.in_channels * problem.compute_itemsize
    in_place = samples_in_place(problem, strides)
    sampled = (strides[0], *strides[2:])
    if not in_place:
        sampled = (height * width * pixel, width * pixel, pixel)
    is_run = strides[2] == width * strides[3] or height == 1
    return name_strides("x", strides) | {
        "copied": int(not in_place), "in_run": height * width if is_run else width,
        "copy_blocks": -(-height * width // COPY_PIXELS),
        "sampled_n": sampled[0], "sampled_h": sampled[1], "sampled_w": sampled[2],
    }  # fmt: skip


def copy_bytes(problem: DeformProblem, in_place: bool) -> int:
    """Return the bytes of the input's copy."""
    samples = problem.batch * problem.in_channels * math.prod(problem.in_size)
    return 0 if in_place else whole_lines(samples * problem.compute_itemsize)


def offset_fields(
    problem: DeformProblem, offset: tuple[int, ...], mask: tuple[int, ...] | None, pixels: int
) -> dict[str, int]:
    """Return what tells how offsets and masks lie, and their places of a task's pixels."""
    lanes = -(-LINE // problem.compute_itemsize)  # as many as a vector has, or more
    pitch = -(-(pixels + lanes) // lanes) * lanes
    fields = {
        "offset_groups": problem.offset_groups,
        "offset_channels": problem.in_channels // problem.offset_groups,
        "has_mask": int(mask is not None), "place_pitch": pitch,
        "place_bytes": place_bytes(pitch, problem.compute_itemsize),
    }  # fmt: skip
    for letter, steps in (("f", offset), ("m", mask or (0, 0, 0, 0))):
        fields |= dict(zip((f"{letter}{axis}" for axis in "nchw"), steps, strict=True))
    return fields


def place_groups(problem: DeformProblem) -> int:
    """Return the most offset groups that the channels of one group belong to."""
    channels = problem.in_channels // problem.groups
    width = problem.in_channels // problem.offset_groups
    cut = channels % width and width % channels
    return min(problem.offset_groups, -(-channels // width) + bool(cut))


def _layout(problem: DeformProblem, device: DeviceInfo) -> tuple[RegisterTile, dict[str, int]]:
    """Return the tile, block sizes and where a worker's workspace holds what."""
    size, cut = problem.compute_itemsize, split(problem, device)
    tile = sized_tile(device, size, rows_are_pixels=True)
    steps = math.prod(problem.weight_shape[1:])
    # A line more than a power of two, or the rows of a tile would fall into one set of L1.
    sums_pitch = cut.columns * size + LINE
    places = offset_fields(problem, (0,) * 4, None, cut.pixels)["place_bytes"]
    taps = math.prod(problem.kernel_size)
    chunks = -(-min(steps, REDUCTION) // ADJACENT)
    memory = Workspace()
    memory.add("zeros", (problem.in_channels + tile.lanes) * size)
    memory.add("places", place_groups(problem) * taps * places)
    memory.add("panel", (chunks * cut.pixels * ADJACENT + tile.lanes) * size)
    memory.add("sums", cut.pixels * sums_pitch + tile.lanes * size)
    fields = {
        "steps": steps, "block_pixels": cut.pixels, "blocks": cut.blocks, "parts": cut.parts,
        "part_columns": cut.columns, "sums_pitch": sums_pitch,
    }  # fmt: skip
    return tile, memory.fields | fields


def workspace(problem: DeformProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call with dense arrays, over all threads."""
    in_place = problem.layout == "channels_last" and problem.itemsize >= 4
    each = _layout(problem, device)[1]["worker_bytes"]
    return copy_bytes(problem, in_place) + each * worth_helpers(problem.macs, device.threads)


def _epilogue_fields(problem: DeformProblem) -> dict[str, float]:
    """Return what becomes of sums: a clamp in the tile, or another activation behind it."""
    name = problem.activation or None
    low, high = _LIMITS.get(problem.activation, (-math.inf, math.inf))
    code = ACTIVATION_CODES[name]
    return {
        "low": low, "high": high, "alpha": problem.alpha, "code": code if code > LAST_CLAMP else 0,
    }  # fmt: skip


def plan(problem: DeformProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    names = [operand.name for operand in (*problem.inputs, *problem.outputs)]
    strides = dict(zip(names, binding.strides, strict=True))
    code = storage_code(problem.dtype)
    tile, fields = _layout(problem, device)
    workers = worth_helpers(problem.macs, device.threads)
    copied = copy_bytes(problem, samples_in_place(problem, strides["input"]))
    out, filters = strides["out"], strides["weight"]
    is_run = is_contiguous(problem.out_size, out[2:], out[3])
    width = problem.out_size[1]
    values: dict[str, Any] = axes(problem) | fields | _epilogue_fields(problem)
    values |= source_fields(problem, strides["input"]) | name_strides("y", out)
    values |= offset_fields(problem, strides["offset"], strides.get("mask"), fields["block_pixels"])
    values |= {"wk": filters[0], "wc": filters[1]} | name_axes("w", filters[2:], 0)
    values |= {
        "tile": tile_address(tile, compute_code(code), adjacent=ADJACENT), "workers_at": copied,
        "has_bias": int(problem.bias), "bias_step": strides.get("bias", (0,))[0],
        "has_slopes": int(problem.slopes), "slope_step": strides.get("slopes", (0,))[0],
        "out_run": math.prod(problem.out_size) if is_run else width,
    }  # fmt: skip
    key = (tile.mr, tile.nv, tile.lanes, code)
    masked = int(problem.mask)
    kernel = compile_kernel(make_kernel(tile, code, masked), "deform_conv", *key, masked)
    stages = [ArrayStage(kernel, math.prod(_tasks(problem, fields)))]
    if copied:
        task = make_copy_task(FIELDS, tile.lanes, code)
        copy = compile_kernel(task, "deform_copy", FIELDS, tile.lanes, code, 0)
        stages.insert(0, ArrayStage(copy, problem.batch * values["copy_blocks"]))
    panels = problem.groups * -(-(problem.out_channels // problem.groups) // tile.nr)
    size = ITEMSIZE[compute_code(code)]
    return ArrayPlan(
        record=array_record(FIELDS, values),
        stages=tuple(stages),
        workers=workers,
        workspace_bytes=copied + fields["worker_bytes"] * workers,
        flush=binding.flush,
        packer=ArrayPack(
            stage=ArrayStage(
                compile_kernel(make_pack_kernel(tile, code), "deform_pack", *key), panels
            ),
            size=panels * fields["steps"] * tile.nr * size,
            scratch=tile.lanes * tile.lanes * size * workers,
            order=("deform_conv", *key, problem.groups),
        ),
    )


def _tasks(problem: DeformProblem, fields: dict[str, int]) -> tuple[int, ...]:
    return problem.batch, problem.groups, fields["blocks"], fields["parts"]
