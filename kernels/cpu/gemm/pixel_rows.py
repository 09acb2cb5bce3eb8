"""Convolution as a matrix product whose rows are pixels and whose lanes are output channels.

Wins on small maps, whose pixels do not fill vectors: 7 x 7 pixels are 3.06 vectors of 16, so that
`im2col_gemm` leaves 23% of the lanes empty, while output channels come in multiples of 32. For the
same reason a 1x1 layer needs no packing at all: the pixels of a step are read one by one, from
where they lie. ``out[pixels, K] = patches[pixels, C * taps] * W[C * taps, K]``::

    task = image x group x block of pixels x part of K        taken by any thread
      sums = bias                                             [pixels, part of K], in L2
      for each block of channels
        pack: for mr pixels, tap, channel                     not for 1x1: read in place
        for nr output channels                                B panel: kc x nr, streamed once
          for mr pixels                                       A panel: kc x mr, from L2
            register tile (tile.py)                           sums += products
      transpose blocks of 16 x 16 sums to rows of the output  shuffles in registers
      residual, other activations, other dtypes, strides      common/epilogue.py

Each thread takes its own part of K where weights outweigh pixels, so weights, 4 MB for 2048 > 512
at 7 x 7, are read once a call, in order. Panels of bfloat16 hold pairs of channels where the CPU
multiplies such (channel_rows.py), and half of the bytes.

Budget (AVX-512, float32): tile 14 x 2, 28 sums of 32 registers; B panel 512 x 32 x 4 = 64 KiB and
49 pixels x 512 x 4 = 98 KiB of 1 MiB L2. A step is 28 cycles of multiply-adds and asks L2 for 184
bytes, 7 a cycle of 32. Transposing costs 150 cycles for 256 sums, 1% of their products at C = 1024.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo, dense_binding

from ...taps import whole
from ..common.epilogue import EPILOGUE_FIELDS, epilogue_fields, make_epilogue_tile
from ..common.segments import SEGMENT_WORDS, make_list_segments
from ..common.workspace import Workspace
from ..machine.lines import LINE
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import as_record, make_record
from ..simd.intrinsics import expect_write, load_masked, range_mask, store
from ..simd.ir import ITEMSIZE, Codes, operand_codes, panel_code
from ..simd.register_tiles import RegisterTile, operand_tile
from ..simd.transposes import transpose_masked
from .costs import pixel_row_split
from .in_place import InPlace, pixel_rows_in_place
from .pack import CHUNK_WORDS, make_pack_pixels, make_pack_weights
from .regions import region_table
from .split import REDUCTION, channel_block
from .tile import TileArguments, call_tile, tile_address

__all__ = ["plan", "workspace"]

_FIELDS = (
    *EPILOGUE_FIELDS,
    "in_place",  # 1 where pixels are read from the input itself
    "steps",  # of the whole reduction
    "channel_block",  # input channels of one block of it
    "block_pixels",  # pixels of one task, a multiple of mr
    "blocks",  # tasks along the pixels
    "parts",  # tasks along K
    "part_columns",  # output channels of one part, a multiple of nr
    "sums_pitch",  # bytes from one pixel's sums to the next
    "map_pitch",  # bytes from one map to the next
    "tile",  # address of the micro-kernel
    "region",  # address of the one region's words
    "worker_bytes",  # workspace of one worker: panels, tables, sums
    "segments_at",
    "chunks_at",
    "sums_at",
    "maps_at",
    "scratch_at",
)
_view = as_record(_FIELDS)


@functools.cache
def _make_multiply(tile: RegisterTile, compute: int) -> Any:
    """Return a function that adds one channel block's products to the sums of a task."""
    mr, nr, size, most = tile.mr, tile.nr, ITEMSIZE[compute], REDUCTION

    @numba.njit
    def multiply_part(
        g: Any, a: int, a_step: int, a_panel: int, b: int, kc: int, pixels: int, columns: int,
        sums: int, last: int,
    ) -> None:  # fmt: skip
        low, high = -np.inf, np.inf
        if last and not g.has_residual:
            low, high = g.low, g.high
        pitch = g.sums_pitch
        b_panel = g.steps * nr * size
        for column in range(0, columns, nr):
            for pixel in range(0, pixels, mr):
                arguments = TileArguments(
                    a=a + pixel // mr * a_panel, a_step=a_step, b=b + column // nr * b_panel,
                    b_step=nr * size, kc=kc, c=sums + pixel * pitch + column * size, c_pitch=pitch,
                    bias=sums, accumulate=1, low=low, high=high, width=min(nr, columns - column),
                )  # fmt: skip
                call_tile(g.tile, arguments, min(mr, pixels - pixel))

    @numba.njit
    def multiply(
        g: Any, a: int, a_step: int, a_panel: int, b: int, kc: int, pixels: int, columns: int,
        sums: int, last: int,
    ) -> None:  # fmt: skip
        for part in range(0, kc, most):
            multiply_part(
                g, a + part * a_step, a_step, a_panel, b + part * nr * size, min(most, kc - part),
                pixels, columns, sums, int(last and part + most >= kc),
            )  # fmt: skip

    return multiply


@functools.cache
def _make_start_and_transpose(lanes: int, compute: int, result: int) -> Any:
    """Return functions that start the sums from the bias, and that transpose them to maps."""
    size, item = ITEMSIZE[compute], ITEMSIZE[result]

    @numba.njit
    def start_sums(bias: int, sums: int, pitch: int, pixels: int, columns: int) -> None:
        for column in range(0, columns, lanes):
            mask = range_mask(0, min(lanes, columns - column))
            value = load_masked(bias + column * size, mask, compute, lanes)
            for pixel in range(pixels):
                store(sums + pixel * pitch + column * size, value, compute)

    @numba.njit
    def transpose_sums(
        sums: int, pitch: int, pixels: int, columns: int, maps: int, map_pitch: int
    ) -> None:
        for column in range(0, columns, lanes):
            for pixel in range(0, pixels, lanes):
                for following in range(column + lanes, min(column + 2 * lanes, columns)):
                    expect_write(maps + following * map_pitch + pixel * item)
                transpose_masked(
                    sums + pixel * pitch + column * size, pitch, min(lanes, pixels - pixel),
                    min(lanes, columns - column), maps + column * map_pitch + pixel * item,
                    map_pitch, compute, result, lanes,
                )  # fmt: skip

    return start_sums, transpose_sums


@functools.cache
def _make_reduce(tile: RegisterTile, storage: int) -> Any:
    """Return a function that adds all products of a task to its sums."""
    panel = panel_code(storage, tile.depth)
    mr, nr, depth, size = tile.mr, tile.nr, tile.depth, ITEMSIZE[panel]
    pack_pixels = make_pack_pixels(mr, tile.lanes, storage, panel)
    multiply = _make_multiply(tile, panel)

    @numba.njit
    def reduce(g: Any, x: int, weight: int, first: int, pixels: int, columns: int, w: int) -> None:
        taps = g.kd * g.kh * g.kw
        for c0 in range(0, g.c, g.channel_block):
            channels = min(g.channel_block, g.c - c0)
            kc = (channels + depth - 1) // depth * taps
            a, a_step, a_panel = w, mr * size, kc * mr * size
            if g.in_place:
                a, a_step, a_panel = x + c0 * g.xc + first * size, g.xc, mr * size
            else:
                for pixel in range(0, pixels, mr):
                    pack_pixels(
                        g, g.region, x, c0, c0 + channels, first + pixel, w + g.segments_at,
                        w + g.chunks_at, a + pixel // mr * a_panel,
                    )  # fmt: skip
            multiply(
                g, a, a_step, a_panel, weight + c0 // depth * taps * nr * size, kc, pixels, columns,
                w + g.sums_at, int(c0 + channels == g.c),
            )  # fmt: skip

    return reduce


@functools.cache
def _make_kernel(tile: RegisterTile, codes: Codes, result: int) -> Any:
    """Return the task: see the loop nest above; sums are transposed to maps of `result`."""
    mr, nr, size, item = tile.mr, tile.nr, ITEMSIZE[codes.compute], ITEMSIZE[result]
    reduce = _make_reduce(tile, codes.x)
    start_sums, transpose_sums = _make_start_and_transpose(tile.lanes, codes.compute, result)
    end_tile = make_epilogue_tile(tile.lanes, codes.out, codes.compute)
    list_segments = make_list_segments(mr)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        block, rest = number % g.blocks, number // g.blocks
        part, rest = rest % g.parts, rest // g.parts
        group, image = rest % g.groups, rest // g.groups
        first = block * g.block_pixels
        pixels = min(g.block_pixels, g.od * g.oh * g.ow - first)
        first_column = part * g.part_columns
        columns = min(g.part_columns, g.k - first_column)
        channel = group * g.k + first_column
        w = workspace + worker * g.worker_bytes
        sums, pitch = w + g.sums_at, g.sums_pitch

        start_sums(bias + channel * size, sums, pitch, pixels, columns)
        panel = group * ((g.k + nr - 1) // nr) + first_column // nr
        reduce(
            g, x + image * g.xn + group * g.c * g.xc,
            weight + panel * g.steps * nr * size, first, pixels, columns, w,
        )  # fmt: skip
        out += image * g.yn + channel * g.yc
        residual += image * g.rn + channel * g.rc
        maps, map_pitch = w + g.maps_at, g.map_pitch
        if g.direct:
            maps, map_pitch = out + first * item, g.yc
        transpose_sums(sums, pitch, pixels, columns, maps, map_pitch)
        if g.needs_epilogue:
            for pixel in range(0, pixels, mr):
                count = list_segments(g.region, first + pixel, w + g.segments_at)
                end_tile(
                    g, maps + pixel * size, map_pitch, columns, bias + channel * size, out,
                    residual, w + g.segments_at, count, w + g.scratch_at,
                )  # fmt: skip

    return task


@functools.cache
def _make_pack_kernel(tile: RegisterTile, storage: int) -> Any:
    """Return the task that packs one panel of nr output channels: B[block, tap, channel, K]."""
    panel_kind = panel_code(storage, tile.depth)
    nr, lanes, size = tile.nr, tile.lanes, ITEMSIZE[panel_kind]
    pack_weights = make_pack_weights(nr, lanes, storage, panel_kind)

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        panels = (g.k + nr - 1) // nr
        group, panel = number // panels, number % panels
        target = packed + number * g.steps * nr * size
        scratch = workspace + worker * lanes * lanes * size
        for first in range(panel * nr, min((panel + 1) * nr, g.k), lanes):
            pack_weights(
                g, weight + (group * g.k + first) * g.wk, min(lanes, g.k - first),
                g.channel_block, scratch, target + (first - panel * nr) * size,
            )  # fmt: skip

    return task


def _layout(
    problem: ConvProblem, device: DeviceInfo, in_place: InPlace
) -> tuple[RegisterTile, dict[str, int]]:
    """Return the tile, block sizes and where a worker's workspace holds what."""
    size = problem.compute_itemsize
    tile = operand_tile(device, problem, rows_are_pixels=True)
    taps, total = math.prod(problem.kernel_size), math.prod(problem.out_size)
    split = pixel_row_split(problem, device, in_place)
    rows = problem.out_channels // problem.groups
    block_pixels = split.panels * tile.mr
    part_columns = -(-rows // (tile.nr * split.parts)) * tile.nr
    # A line more than a power of two, or the rows of a tile would fall into one set of L1.
    sums_pitch, map_pitch = part_columns * size + LINE, block_pixels * size + LINE
    block = channel_block(problem, tile.depth)
    panels = 0 if in_place.reads else split.panels * block // tile.depth * taps * tile.mr
    memory = Workspace()
    memory.add("patches", (panels + tile.lanes) * size)
    memory.add("segments", tile.mr * SEGMENT_WORDS * 8)
    memory.add("chunks", tile.mr * CHUNK_WORDS * 8)
    memory.add("sums", block_pixels * sums_pitch)
    memory.add("maps", 0 if in_place.stores else part_columns * map_pitch)
    memory.add("scratch", tile.lanes * size)
    words = -(-(problem.in_channels // problem.groups) // tile.depth)
    fields = {
        "in_place": int(in_place.reads), "channel_block": block, "steps": words * taps,
        "parts": -(-rows // part_columns), "part_columns": part_columns,
        "block_pixels": block_pixels, "blocks": -(-total // block_pixels),
        "sums_pitch": sums_pitch, "map_pitch": map_pitch,
    }  # fmt: skip
    return tile, memory.fields | fields


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call with dense arrays, over all threads."""
    in_place = pixel_rows_in_place(problem, dense_binding(problem))
    fields = _layout(problem, device, in_place)[1]
    return fields["worker_bytes"] * worth_helpers(problem.macs, device.threads)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding."""
    codes, in_place = operand_codes(problem), pixel_rows_in_place(problem, binding)
    result = codes.out if in_place.stores else codes.compute
    tile, fields = _layout(problem, device, in_place)
    table, _ = region_table(problem, whole(problem), fields["block_pixels"])
    workers = worth_helpers(problem.macs, device.threads)
    fields |= epilogue_fields(binding, in_place.stores)
    fields |= {
        "tile": tile_address(tile, panel_code(codes.x, tile.depth)),
        "region": table.ctypes.data,
    }
    shape = (tile.mr, tile.nv, tile.lanes, tile.depth)
    key = (*shape, codes.weight)
    panels = problem.groups * -(-(problem.out_channels // problem.groups) // tile.nr)
    kernel = compile_kernel(
        _make_kernel(tile, codes, result), "swapped_gemm", *shape, *codes, result
    )
    pack = compile_kernel(_make_pack_kernel(tile, codes.weight), "swapped_gemm_pack", *key)
    tasks = problem.batch * problem.groups * fields["blocks"] * fields["parts"]
    return CpuPlan(
        record=make_record(problem, binding, {name: fields[name] for name in _FIELDS}),
        stages=(Stage(kernel, tasks),),
        workers=workers,
        workspace_bytes=fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(pack, panels),
        pack_bytes=tile.lanes * tile.lanes * ITEMSIZE[codes.compute] * workers,
        packed_size=panels * fields["steps"] * tile.nr,
        packing=("swapped_gemm", *key, fields["channel_block"]),
        tables=(table,),
    )
