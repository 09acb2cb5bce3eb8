"""Winograd convolution: fewer multiplications, in one, two or three dimensions.

Wins for kernels of 2 to 7 taps an axis with some tens of channels on both sides: F(4x4, 3x3) needs
36 products where the definition has 144, F(6x6, 3x3) 64 instead of 324; and for longer ones of one
dimension, which are folded into two (tiles.py): 40 products for 18 outputs of 9 taps. What
it saves is partly spent on transforms, whose share is about ``1 / K + 1 / C``::

    task = group x block of panels of tiles (x part of K, where there are few panels)
      transform: for panel, for channel             V[e, C, tiles]    lanes are tiles or channels
      for part of K
        for e in the n_d * n_h * n_w elements of a tile
          for panel of K, for panel of tiles
            M[tile, e, K] = V[e, :, tile] * U[e, :, K]       the register tile of gemm/tile.py
        for tile: inverse transform, join, store             lanes are output channels

Tiles are numbered through the whole output, as pixels are in `im2col_gemm`. In the register tile
they are the rows, which are broadcast, and output channels are the lanes: 49 tiles (28x28) cost 49
rows where 64 lanes would be needed for them, and 16 tiles (14x14) run at full speed. Axes of kernel
size 1 (1x7, 7x1) are not transformed.

Bytes: a step of the 12 x 2 tile is 24 cycles of multiply-adds and reads 128 bytes of U and a line
of V, 8 bytes a cycle of the 32 that L2 delivers. U (``prod(n / r)`` times the weights: 4 times for
F(4x4, 3x3), 37 MB for 512 to 512 channels) comes from L3 or memory once for each panel of 32 tiles:
2 bytes a cycle. V and M of a panel stay in L2: 295 KB each for F(4x4, 3x3) of 64 channels.

With fewer than four panels a thread, parts of K are tasks of their own: a first stage transforms
all of the input into shared memory, and U is read once for each block of two panels. Then products
of one panel of K stay in L2, and no thread waits for another's tiles.

Where U outgrows L3 and there are few tiles to use it on, the definition is faster.

A dilated kernel is a dense one on sub-grids of the input (tiles.py), a strided one has the
matrices of its phases (kernels/cook_toom.py): 3x3 of stride 2 takes 81 products for 16 outputs
instead of 144. Channels-last inputs and dilated kernels have channels in the lanes on the input
side too (input_channels.py), others that are not rows of samples are first copied (copy.py).

Rounding: see kernels/cook_toom.py. The arithmetic is not that of the definition, so a NaN or an
infinity spreads over its tile, and ``precision("exact")`` leaves this kernel out.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..common.epilogue import epilogue_fields
from ..common.memory_order import clamps_only
from ..common.segments import SEGMENT_WORDS
from ..common.toom_cook_lines import (
    INPUT,
    OUTPUT,
    PIECE_WORDS,
    WEIGHT,
    gather_address,
    lines_address,
)
from ..common.workspace import Workspace
from ..gemm.tile import tile_address
from ..machine.lines import LINE
from ..machine.seconds import STREAMED_SHARE
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import make_record
from ..simd.ir import ITEMSIZE, compute_code, storage_code
from ..simd.register_tiles import RegisterTile, gemm_tile
from .blocks import channel_block, panel_of
from .copy import copy_tasks, make_copy, source_fields
from .fields import FIELDS, TRANSFORMS
from .input_tiles import STAGE_CHANNELS, make_stage
from .tasks import make_kernel
from .tiles import Sizes, tile_fields, tile_sizes
from .weights import filters_are_contiguous, make_pack_kernel, plane_address

__all__ = ["plan", "plan_f2", "plan_f3", "plan_f4", "plan_f6", "workspace"]


#: Products of one task, as a part of L2.
_PRODUCTS_SHARE = 2
#: Most bytes of transformed input that threads share.
_MOST_SHARED = 24 << 20
#: Most panels of tiles that a task multiplies by the same weights.
_MOST_PANELS = 2


@dataclass(frozen=True, slots=True, eq=False)
class FoldedPlan(CpuPlan):
    """A plan whose kernel gets zeros behind its taps, so that they fill rows.

    Parameters
    ----------
    taps : int
        Taps with those zeros.
    """

    taps: int = field(kw_only=True)

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Return `weight` in the kernel's order."""
        filled = np.zeros((*weight.shape[:2], self.taps), weight.dtype)
        filled[..., : weight.shape[2]] = weight
        return CpuPlan.pack(self, filled)


def _v_sizes(channels: int, panel: RegisterTile, size: int, across: int) -> tuple[int, int]:
    """Return the bytes of V of a panel's channel (or block of channels), and of its element.

    An odd number of cache lines keeps what is read together apart in L1: with a power of two
    between them, the elements of a tile would all lie in one set and push each other out.
    """
    if across:
        step = _odd_lines(panel.nr * panel.lanes * size)
        return step, _odd_lines(-(-channels // panel.lanes) * step)
    return panel.nr * size, channels * panel.nr * size + LINE


def _blocks(problem: ConvProblem, device: DeviceInfo, sizes: Sizes, across: int) -> dict[str, int]:
    """Return how the work is cut into tasks."""
    tile = gemm_tile(device, storage_code(problem.dtype))
    size = problem.compute_itemsize
    panel = panel_of(sizes, problem, device)
    panel_tiles = panel.nr
    k, c = problem.out_channels // problem.groups, problem.in_channels // problem.groups
    image_panels = -(-sizes.tiles // panel_tiles)
    panels, k_panels = max(1, image_panels * problem.batch), -(-k // tile.nr)
    u_step = k_panels * c * tile.nr * size + LINE
    v_step, element_bytes = _v_sizes(c, panel, size, across)
    panel_bytes = sizes.elements * element_bytes
    product_bytes = sizes.elements * panel_tiles * tile.nr * size
    most = max(1, device.l2 // _PRODUCTS_SHARE // product_bytes)
    shared_bytes = panels * problem.groups * panel_bytes
    # With few panels, parts of K keep the threads busy.
    shared = panels * problem.groups < 4 * device.threads and shared_bytes <= _MOST_SHARED
    block_panels = min(panels, most, _MOST_PANELS) if shared else 1
    part_panels = 1 if shared else min(most, k_panels)
    return {
        "image_panels": image_panels, "block_panels": block_panels,
        "blocks": -(-panels // block_panels), "part_panels": part_panels,
        "parts": -(-k_panels // part_panels), "shared": int(shared), "panel_bytes": panel_bytes,
        "element_bytes": element_bytes, "v_step": v_step,
        "channel_block": channel_block(sizes),
        "shared_bytes": shared_bytes if shared else 0,
        "weight_bytes": sizes.elements * u_step, "u_step": u_step,
    }  # fmt: skip


def _odd_lines(size: int) -> int:
    """Return a size of an odd number of cache lines, so that pitches of it spread over all sets."""
    return (-(-size // LINE) | 1) * LINE


def _joined_tiles(sizes: Sizes, tile: RegisterTile) -> int:
    """Return how many tiles are joined at once: whole groups, if they fit, that fill vectors."""
    group, m = sizes.width.grids, sizes.width.m
    wanted = group * (tile.lanes // math.gcd(tile.lanes, group * m))
    return min(max(group, min(wanted, tile.nr // group * group)), tile.nr)


def _layout(
    problem: ConvProblem, device: DeviceInfo, sizes: Sizes, source: dict[str, int]
) -> dict[str, int]:
    """Return the block sizes, and where a worker keeps what; a copy of the input comes first."""
    tile = gemm_tile(device, storage_code(problem.dtype))
    size = problem.compute_itemsize
    fields = _blocks(problem, device, sizes, source["across"])
    line, panel_tiles = tile.lanes * size, panel_of(sizes, problem, device).nr
    fields["shared_at"] = source["copied_bytes"]
    fields["worker_at"] = source["copied_bytes"] + fields.pop("shared_bytes")
    fields["element_pitch"] = fields["part_panels"] * tile.nr * size
    fields["tile_pitch"] = _odd_lines(sizes.elements * fields["element_pitch"])
    fields["joined_tiles"] = _joined_tiles(sizes, tile)
    joined = fields["joined_tiles"] * sizes.width.m
    fields["joined_pitch"] = -(-joined // tile.lanes) * tile.lanes * line
    own_input = 0 if fields["shared"] else fields["block_panels"] * fields["panel_bytes"]
    lines = sizes.elements * line
    memory = Workspace()
    memory.add("input", own_input)
    memory.add("products", fields["block_panels"] * panel_tiles * fields["tile_pitch"])
    memory.add("lines", lines)
    memory.add("more_lines", math.prod(sizes.m[:2]) * sizes.n[2] * line)
    memory.add("joined", sizes.m[0] * sizes.rows_out * fields["joined_pitch"])
    memory.add("segments", panel_tiles * SEGMENT_WORDS * 8)
    memory.add("pieces", sizes.rows * sizes.width.pieces(tile.lanes) * PIECE_WORDS * 8)
    memory.add("patch", lines)
    memory.add("scratch", (tile.lanes + 1) * line)
    fields |= memory.fields
    taps = math.prod(axis.r for axis in sizes.axes) * tile.lanes
    fields["pack_worker_bytes"] = (taps + sizes.elements) * line
    return fields


def _transforms(
    sizes: Sizes, lanes: int, across: int, streamed: int, codes: tuple[int, int]
) -> dict[str, int]:
    """Return the addresses of `TRANSFORMS`, compiled; `codes` are of storage and computation."""
    width, rows, compute = sizes.axes[-1], sizes.n[1] if sizes.folded else 1, codes[1]
    addresses = dict.fromkeys(TRANSFORMS, 0)
    depth, *plane = (axis.form for axis in sizes.axes)
    past = (0, streamed) if sizes.axes[0].r > 1 else (streamed, 0)  # what is transformed last
    addresses["weight_plane"] = plane_address(plane[0], plane[1], lanes, compute, past[0])
    if sizes.axes[0].r > 1:
        addresses["weight_d"] = lines_address(WEIGHT, *depth, lanes, compute, past[1])
    if not across:
        form = (width.m, width.r, width.stride, rows, sizes.width.step)
        addresses["gather"] = gather_address(*form, lanes, *codes)
    for letter, axis in zip("dhw", sizes.axes, strict=True):
        for name, kind in (("input", INPUT), ("output", OUTPUT)):
            # Along the width a size of 1 is a copy, which ends or begins each transform.
            if f"{name}_{letter}" in addresses and (axis.r > 1 or letter == "w"):
                addresses[f"{name}_{letter}"] = lines_address(kind, *axis.form, lanes, compute)
    return addresses


def _is_plain(problem: ConvProblem, binding: Binding) -> bool:
    """Return whether a bias and a clamp are all, and pixels or channels are contiguous."""
    packed = problem.itemsize in (binding.out_strides[1], binding.out_strides[-1])
    return packed and clamps_only(binding)


def _fold_kernel(record: NDArray[Any], sizes: Sizes, item: int) -> int:
    """Write a folded kernel's size and strides into a record; return its taps."""
    rows, columns = (axis.r for axis in sizes.axes[1:])
    values = {"kh": rows, "kw": columns, "ww": item, "wh": columns * item}
    values["wc"] = rows * values["wh"]
    values["wk"] = int(record["c"][0]) * values["wc"]
    for name, value in values.items():
        record[name] = value
    return rows * columns


def workspace(problem: ConvProblem, device: DeviceInfo, m: int) -> int:
    """Return the scratch bytes of a call, over all threads, for an input in the usual order."""
    sizes, storage = tile_sizes(problem, m), storage_code(problem.dtype)
    compute = compute_code(storage)
    item, first = ITEMSIZE[storage], problem.layout == "channels_first"
    strides = (0, 0 if first else item, *(0,) * (problem.ndim - 1), item if first else 0)
    binding = Binding(strides, (), ())
    tile = gemm_tile(device, storage)
    source = source_fields(problem, binding, sizes, tile.lanes, (storage, compute))
    fields = _layout(problem, device, sizes, source)
    workers = worth_helpers(problem.macs, device.threads)
    return int(fields["worker_at"] + fields["worker_bytes"] * workers)


def plan_f2(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare F(2, r), the most exact and least saving."""
    return plan(problem, binding, device, 2)


def plan_f3(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare F(3, r)."""
    return plan(problem, binding, device, 3)


def plan_f4(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare F(4, r)."""
    return plan(problem, binding, device, 4)


def plan_f6(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare F(6, r), the most saving and least exact."""
    return plan(problem, binding, device, 6)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo, m: int) -> CpuPlan:
    """Prepare the kernel with `m` outputs a tile for one problem and one binding."""
    sizes, storage = tile_sizes(problem, m), storage_code(problem.dtype)
    compute, tile = compute_code(storage), gemm_tile(device, storage)
    source = source_fields(problem, binding, sizes, tile.lanes, (storage, compute))
    fields = source | _layout(problem, device, sizes, source)
    region = np.array([0, 0, 0, *sizes.counts], np.int64)
    zeros = np.zeros(tile.mr, compute_dtype(problem.dtype))
    fields |= epilogue_fields(binding, direct=False, clamped=False)
    fields |= {"region": region.ctypes.data, "zeros": zeros.ctypes.data}
    fields |= {
        "tile": tile_address(tile, compute, adjacent=tile.lanes if fields["across"] else 1),
        "plain": int(_is_plain(problem, binding)),
    }
    contiguous = sizes.folded is not None or filters_are_contiguous(problem, binding)
    fields["weight_is_contiguous"] = int(contiguous)
    fields |= tile_fields(sizes) | {"shifts": sizes.width.shifts}
    u_bytes = problem.groups * fields["weight_bytes"]
    fields["streamed"] = int(u_bytes > device.l3 // STREAMED_SHARE)
    fields |= _transforms(
        sizes, tile.lanes, fields["across"], fields["streamed"], (storage, compute)
    )
    workers = worth_helpers(problem.macs, device.threads)
    pack, pack_key = make_pack_kernel(tile, storage, compute), (tile.nv, tile.lanes, storage)
    chunks = -(-problem.in_channels // problem.groups // tile.lanes)
    k_panels = -(-problem.out_channels // problem.groups // tile.nr)
    record = make_record(problem, binding, {name: fields[name] for name in FIELDS})
    for letter, axis in zip("dhw", (*sizes.axes[:2], sizes.width), strict=True):
        record[f"d{letter}"] = axis.dilation
        if axis.samples:
            record[f"p{letter}"] = 0
    make: Any = CpuPlan
    if sizes.folded:
        taps = _fold_kernel(record, sizes, ITEMSIZE[storage])
        make = functools.partial(FoldedPlan, taps=taps)
    return make(
        record=record,
        stages=_stages(problem, fields, tile, panel_of(sizes, problem, device)),
        workers=workers,
        workspace_bytes=fields["worker_at"] + fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(
            compile_kernel(pack, "winograd_pack", *pack_key), problem.groups * k_panels * chunks
        ),
        pack_bytes=fields["pack_worker_bytes"] * workers,
        packed_size=problem.groups * fields["weight_bytes"] // ITEMSIZE[compute],
        packing=("winograd", *(axis.form for axis in sizes.axes), *pack_key),
        tables=(region, zeros),
    )


def _stages(
    problem: ConvProblem, fields: dict[str, int], tile: RegisterTile, panel: RegisterTile
) -> tuple[Stage, ...]:
    """Return the stages of a call."""
    storage = storage_code(problem.dtype)
    compute = compute_code(storage)
    # A copy is in compute precision.
    across, source = fields["across"], compute if fields["copied"] else storage
    key, stages = (tile.mr, tile.nv, tile.lanes, panel.nv, across, source, storage), []
    if fields["copied"]:
        copy = make_copy(tile.lanes, storage, compute)
        copy = compile_kernel(copy, "winograd_copy", tile.lanes, storage)
        stages.append(Stage(copy, copy_tasks(problem, tile.lanes)))
    tasks = problem.groups * fields["blocks"]
    if fields["shared"]:
        first = compile_kernel(make_stage(panel, across, source, compute), "winograd_input", *key)
        chunks = -(-problem.in_channels // problem.groups // STAGE_CHANNELS)
        panels = problem.batch * problem.groups * fields["image_panels"]
        stages.append(Stage(first, panels * chunks))
        tasks *= fields["parts"]
    main = make_kernel(tile, panel, across, (source, storage), compute)
    main = compile_kernel(main, "winograd", *key)
    return (*stages, Stage(main, tasks))
