"""Winograd convolution: fewer multiplications, for stride 1 in one, two or three dimensions.

Wins for kernels of 2 to 7 taps an axis with some tens of channels on both sides: F(4x4, 3x3) needs
36 products where the definition has 144, F(6x6, 3x3) 64 instead of 324. What it saves is partly
spent on transforms, whose share is about ``1 / K + 1 / C``::

    task = image x group x block of tiles (x part of K, where there are few tiles)
      transform: for channel, for panel of tiles             V[e, C, tiles]     in L2
      for part of K: rows whose products fit L2
        for e in the n_d * n_h * n_w elements of a tile
          M[e] = U[e] * V[e]                                 the register tile of gemm.py
        for row: inverse transform, join tiles to rows       bias, residual, activation, store

Tiles are numbered through the whole output, as pixels are in `im2col_gemm`, so a vector holds one
element of `lanes` tiles. Axes of kernel size 1 (1x7, 7x1) are not transformed.

With few tiles (a 14x14 map has 16) the same transformed input is needed by several parts of K that
run on different threads: then a first stage transforms all of it into shared memory.

Transformed weights are ``prod(n / r)`` times as large as the weights: 4 times for F(4x4, 3x3).
Where they outgrow L3 and there are few tiles to use them on, the definition is faster.

Rounding: see cook_toom.py. The arithmetic is not that of the definition, so a NaN or an infinity
spreads over its tile, and ``precision("exact")`` leaves this kernel out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.problem import ConvProblem
from fastconv.spec import Binding, DeviceInfo

from .finish import finish_fields
from .gemm import tile_address
from .geometry import make_record
from .isa import gemm_tile
from .pack import SEGMENT_WORDS
from .plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from .transform import (
    INPUT,
    OUTPUT,
    PIECE_WORDS,
    WEIGHT,
    gather_address,
    join_address,
    lines_address,
)
from .vectors import F32, F64, ITEMSIZE, storage_code
from .winograd_fields import FIELDS, TRANSFORMS
from .winograd_input import STAGE_CHANNELS, make_stage
from .winograd_rows import copy_tasks, make_copy_rows, source_fields
from .winograd_tasks import make_kernel, make_pack_kernel
from .winograd_tiles import Sizes, tile_fields, tile_sizes

__all__ = ["plan", "plan_f2", "plan_f3", "plan_f4", "plan_f6", "workspace"]


#: Products of one part of K, as a part of L2.
_PRODUCTS_SHARE = 2
#: Most bytes of transformed input that threads share.
_MOST_SHARED = 16 << 20


def _layout(problem: ConvProblem, device: DeviceInfo, sizes: Sizes, source: dict[str, int]) -> Any:
    """Return the register tile, codes and block sizes; a copy of the input comes first."""
    storage = storage_code(problem.dtype)
    compute = F64 if storage == F64 else F32
    tile, size = gemm_tile(device, storage), ITEMSIZE[compute]
    k, c = problem.out_channels // problem.groups, problem.in_channels // problem.groups
    jobs = problem.batch * problem.groups
    # One cache line more than C vectors: with a power of two between them, the elements of a tile
    # would all lie in one set of L1 and push each other out.
    element_bytes = c * tile.nr * size + 64
    panel_bytes = sizes.elements * element_bytes
    all_panels = -(-sizes.tiles // tile.nr)

    # Two panels a task where their transformed input still fits L2: the weights are read half as
    # often. Few tasks: share the transformed input and split K.
    panels = (
        2 if 2 * panel_bytes <= device.l2 // 2 and all_panels * jobs >= 4 * device.threads else 1
    )
    blocks = -(-all_panels // panels)
    shared = blocks * jobs < 4 * device.threads and device.threads > 1
    shared = shared and blocks * panels * jobs * panel_bytes <= _MOST_SHARED
    row_bytes = sizes.elements * panels * tile.nr * size
    fit = max(1, device.l2 // _PRODUCTS_SHARE // row_bytes // tile.mr)
    wanted = -(-4 * device.threads // max(1, blocks * jobs)) if shared else 1
    row_panels = -(-k // tile.mr)
    part_panels = max(1, min(fit, row_panels // wanted))
    fields = {
        "panels": panels, "blocks": blocks,
        "part_rows": part_panels * tile.mr, "parts": -(-row_panels // part_panels),
        "shared": int(shared), "panel_bytes": panel_bytes, "element_bytes": element_bytes,
        "shared_at": source["copied_bytes"],
        "worker_at": source["copied_bytes"] + shared * blocks * panels * jobs * panel_bytes,
    }  # fmt: skip
    line = (tile.nr + tile.lanes) * size
    parts = {
        "products_at": 0 if shared else panels * panel_bytes,
        "lines_at": part_panels * tile.mr * row_bytes,
        "more_lines_at": sizes.elements * line,
        "joined_at": math.prod(sizes.m[:2]) * sizes.n[2] * tile.nr * size,
        "segments_at": math.prod(sizes.m) * tile.nr * size,
        "pieces_at": tile.nr * SEGMENT_WORDS * 8,
        "scratch_at": sizes.rows * sizes.axes[-1].pieces(tile.lanes) * PIECE_WORDS * 8,
        "worker_bytes": tile.lanes * size,
    }
    end = 0
    for name, before in parts.items():
        end += -(-before // 64) * 64
        fields[name] = end
    fields["worker_bytes"] = max(end, -(-source["rows_bytes"] // 64) * 64)
    return tile, storage, compute, fields


def _transforms(sizes: Sizes, lanes: int, source: int, compute: int) -> dict[str, int]:
    """Return the addresses of `TRANSFORMS`, compiled."""
    width = sizes.axes[-1]
    found = dict.fromkeys(TRANSFORMS, 0)
    found["gather"] = gather_address(width.m, width.r, width.stride, lanes, source, compute)
    found["join"] = join_address(width.m, width.r, width.stride, lanes, compute)
    for letter, axis in zip("dhw", sizes.axes, strict=True):
        if axis.r == 1:
            continue
        for name, kind in (("input", INPUT), ("output", OUTPUT), ("weight", WEIGHT)):
            if f"{name}_{letter}" in found:
                found[f"{name}_{letter}"] = lines_address(
                    kind, axis.m, axis.r, axis.stride, lanes, compute
                )
    return found


def workspace(problem: ConvProblem, device: DeviceInfo, m: int) -> int:
    """Return the scratch bytes of a call, over all threads, for an input in the usual order."""
    sizes, storage = tile_sizes(problem, m), storage_code(problem.dtype)
    compute = F64 if storage == F64 else F32
    item, first = ITEMSIZE[storage], problem.layout == "channels_first"
    strides = (0, 0 if first else item, *(0,) * (problem.ndim - 1), item if first else 0)
    binding = Binding(strides, (), ())
    tile = gemm_tile(device, storage)
    source = source_fields(problem, binding, sizes, tile, (storage, compute))
    fields = _layout(problem, device, sizes, source)[-1]
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
    sizes = tile_sizes(problem, m)
    storage = storage_code(problem.dtype)
    compute = F64 if storage == F64 else F32
    tile = gemm_tile(device, storage)
    source = source_fields(problem, binding, sizes, tile, (storage, compute))
    fields = source | _layout(problem, device, sizes, source)[-1]
    region = np.array([0, 0, 0, *(axis.tiles for axis in sizes.axes)], np.int64)
    zeros = np.zeros(tile.mr, compute_dtype(problem.dtype))
    fields |= finish_fields(binding, direct=False, clamped=False)
    fields |= {"region": region.ctypes.data, "zeros": zeros.ctypes.data}
    fields["tile"] = tile_address(tile, compute)
    workers = worth_helpers(problem.macs, device.threads)
    jobs = problem.batch * problem.groups
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    row_panels = -(-k // tile.mr)
    weight_size = sizes.elements * row_panels * c * tile.mr
    fields["weight_bytes"] = weight_size * ITEMSIZE[compute]
    fields |= tile_fields(sizes)
    fields |= _transforms(sizes, tile.lanes, compute if fields["copied"] else storage, compute)
    key = (tile.mr, tile.nv, tile.lanes, storage)
    stages = []
    if fields["copied"]:
        copy = compile_kernel(make_copy_rows(tile.lanes, storage, compute), "winograd_rows", *key)
        stages.append(Stage(copy, copy_tasks(problem, tile.lanes)))
    if fields["shared"]:
        chunks = -(-c // STAGE_CHANNELS)
        stage = compile_kernel(make_stage(tile, compute), "winograd_input", *key)
        stages.append(Stage(stage, jobs * fields["blocks"] * fields["panels"] * chunks))
    main = compile_kernel(make_kernel(tile, storage, compute), "winograd", *key)
    split = fields["parts"] if fields["shared"] else 1
    stages.append(Stage(main, jobs * fields["blocks"] * split))
    pack = compile_kernel(make_pack_kernel(tile, storage, compute), "winograd_pack", *key)
    record = make_record(problem, binding, {name: fields[name] for name in FIELDS})
    record["dd"], record["dh"], record["dw"] = (axis.dilation for axis in sizes.axes)
    for name in ("yw", "rw"):  # steps within a sub-grid
        record[name] *= sizes.axes[-1].distance
    return CpuPlan(
        record=record,
        stages=tuple(stages),
        workers=workers,
        workspace_bytes=fields["worker_at"] + fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(pack, problem.groups * row_panels),
        pack_bytes=sizes.elements * tile.lanes * ITEMSIZE[compute] * workers,
        packed_size=problem.groups * weight_size,
        packing=("winograd", *((axis.m, axis.r, axis.stride) for axis in sizes.axes), *key),
        tables=(region, zeros),
    )
