"""Convolution as a matrix product, without the im2col matrix.

Wins wherever there are enough channels to feed a register tile: it is the kernel of ordinary
layers, and it can run every problem. ``out[K, pixels] = W[K, C * taps] * patches[C * taps,
pixels]``, where the patches exist only as one block of panels in L2::

    task = image x group x part of K x block of pixels        taken by any thread
      for each block of channels                              sums kept in out (or a scratch tile)
        pack: for panel, tap, channel: nr pixels of one tap   vector copies, zeros at the border
        for mr rows of W                                      A panel: mr x kc, stays in L1
          for panel                                           B panel: kc x nr, from L2
            register tile (tile.py)
      residual, other activations, dtypes, strides            on that tile (common/epilogue.py)

Pixels are numbered through all output rows (pack.py), so a panel of nr pixels spans rows on small
maps and only an image's last panel is not full. The channels of a 1x1 layer are such panels as
they lie: full panels are then read from the input itself, with a channel's pitch from step to step,
and only the last one is packed. Threads take parts of K, or blocks of pixels that are far apart:
next to each other they would fetch ahead, and so share, lines that the other is about to write.

With AVX512-BF16 the panels of bfloat16 hold two channels in a word, whose products one instruction
(vdpbf16ps) adds to a float32 sum: 32 multiply-adds a cycle, 233 GFLOP/s a core where float32
reaches 116. Small whole numbers stay exact; denormals count as zero, as they do everywhere here.
Without it the halves are widened to float32 while they are packed. A half's sums are rounded and
stored by the tile where one block holds all channels; else they go through a tile of float32.

Budget (AVX-512, float32): B block at most half of 1 MiB L2; A panel 12 x 512 = 24 KiB of 32 KiB
L1. Packing costs 6 cycles a vector and step, 9 with a stride of 2, against ``K`` cycles of
arithmetic: 5 to 7% at K = 128. Interleaving two channels takes a third more, for twice the
products.

After K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), and
the implicit GEMM of cuDNN (Chetlur et al., arXiv:1410.0759, section 4).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo, dense_binding

from ...taps import Region, whole
from ..common.epilogue import EPILOGUE_FIELDS, epilogue_fields, make_epilogue_tile
from ..common.segments import SEGMENT_WORDS, make_list_segments
from ..common.workspace import Workspace
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import as_record, make_record
from ..simd.intrinsics import get_word
from ..simd.ir import ITEMSIZE, Codes, operand_codes, panel_code
from ..simd.register_tiles import RegisterTile, operand_tile
from .costs import channel_row_split
from .in_place import InPlace, channel_rows_in_place
from .pack import CHUNK_WORDS, make_pack_pixels, make_pack_weights
from .regions import active_taps, find_region, region_table
from .split import REDUCTION, channel_block, spread
from .tile import TileArguments, call_tile, tile_address

__all__ = ["plan", "plan_regions", "workspace", "workspace_regions"]

_FIELDS = (
    *EPILOGUE_FIELDS,
    "in_place",  # 1 where full panels are read from the input itself
    "spread",  # stretches of blocks, far apart, that are worked on side by side
    "steps",  # of the whole reduction
    "channel_block",  # input channels of one block of it
    "panels",  # panels of one task
    "blocks",  # tasks along the pixels of all regions
    "parts",  # tasks along K
    "part_rows",  # rows of one part, a multiple of mr
    "tile",  # address of the micro-kernel
    "regions",  # address of the regions' table
    "region_count",
    "worker_bytes",  # workspace of one worker: panels, tables, sums
    "segments_at",
    "chunks_at",
    "sums_at",
    "scratch_at",
)
_view = as_record(_FIELDS)

#: Workspace of one worker that packs weights: a square block of vectors.
_PACK_BYTES = 16 * 16 * 4


class _Tiles(NamedTuple):
    """The tiles of a task and of a block of its channels.

    Parameters
    ----------
    x : int
        Where the block's first pixel lies in the input, for panels that are read in place.
    rows, width : int
        Output channels and pixels.
    panel_bytes : int
        From one packed panel to the next.
    c, pitch : int
        Address of the sums, and bytes between their rows.
    bias : int
        Address of the first row's bias.
    """

    x: int
    rows: int
    width: int
    panel_bytes: int
    c: int
    pitch: int
    bias: int


@functools.cache
def _make_multiply_block(tile: RegisterTile, compute: int, result: int) -> Any:
    """Return a function that adds one channel block's products to all tiles of a task."""
    mr, nr, size, item = tile.mr, tile.nr, ITEMSIZE[compute], ITEMSIZE[result]
    most = REDUCTION

    @numba.njit
    def multiply_piece(
        g: Any, tiles: _Tiles, a: int, b: int, kc: int, accumulate: int, last: int
    ) -> None:
        low, high = -np.inf, np.inf
        if last and not g.has_residual:
            low, high = g.low, g.high
        a_pitch = g.steps * mr * size
        read_in_place = tiles.width // nr * nr * g.in_place
        for row in range(0, tiles.rows, mr):
            for start in range(0, tiles.width, nr):
                panel, step = tiles.x + start * size, g.xc
                if start >= read_in_place:
                    panel, step = b + (start - read_in_place) // nr * tiles.panel_bytes, nr * size
                arguments = TileArguments(
                    a=a + row // mr * a_pitch, a_step=mr * size, b=panel, b_step=step, kc=kc,
                    c=tiles.c + row * tiles.pitch + start * item, c_pitch=tiles.pitch,
                    bias=tiles.bias + row * size, accumulate=accumulate, low=low, high=high,
                    width=min(nr, tiles.width - start),
                )  # fmt: skip
                call_tile(g.tile, arguments, min(mr, tiles.rows - row))

    @numba.njit
    def multiply_block(
        g: Any, region: int, tiles: _Tiles, a: int, b: int, words: int, first: int, last: int
    ) -> None:
        """Split the region's taps into pieces that are contiguous in A, and multiply each of them.

        A tap is `words` steps. A piece of more steps than a block is multiplied in parts.
        """
        d0, h0, w0 = get_word(region, 6), get_word(region, 7), get_word(region, 8)
        d, h = get_word(region, 9) - d0, get_word(region, 10) - h0
        taps, outer, inner = get_word(region, 11) - w0, d, h
        if taps == g.kw:
            taps, inner = taps * h, 1
            if h == g.kh:
                taps, outer = taps * d, 1
        if outer * inner * taps <= 0:
            outer, inner, taps = 1, 1, 0  # only padding in reach: the sum is the bias
        done, step = 0, words * taps
        for i in range(outer):
            for j in range(inner):
                tap = ((d0 + i) * g.kh + h0 + j) * g.kw + w0
                for part in range(0, max(step, 1), most):
                    multiply_piece(
                        g, tiles, a + (tap * words + part) * mr * size,
                        b + (done * step + part) * nr * size, min(most, step - part),
                        int(done + part > 0 or not first),
                        int(last and done == outer * inner - 1 and part + most >= step),
                    )  # fmt: skip
                done += 1

    return multiply_block


@functools.cache
def _make_kernel(tile: RegisterTile, codes: Codes, result: int) -> Any:
    """Return the task: see the loop nest above; tiles store `result`."""
    mr, nr, depth, size = tile.mr, tile.nr, tile.depth, ITEMSIZE[codes.compute]
    pack_pixels = make_pack_pixels(nr, tile.lanes, codes.x, panel_code(codes.x, depth))
    multiply_block, item = _make_multiply_block(tile, codes.compute, result), ITEMSIZE[result]
    end_tile = make_epilogue_tile(tile.lanes, codes.out, codes.compute)
    list_segments = make_list_segments(nr)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        stretch, rest = number % g.spread, number // g.spread
        stretch_blocks = (g.blocks + g.spread - 1) // g.spread
        block, rest = stretch * stretch_blocks + rest % stretch_blocks, rest // stretch_blocks
        if block >= g.blocks:
            return
        part, rest = rest % g.parts, rest // g.parts
        group, image = rest % g.groups, rest // g.groups

        region = find_region(g, block)
        start = (block - get_word(region, 12)) * g.panels * nr
        pixels = get_word(region, 3) * get_word(region, 4) * get_word(region, 5)
        width = min(g.panels * nr, pixels - start)
        first_row = part * g.part_rows
        rows = min(g.part_rows, g.k - first_row)

        b = workspace + worker * g.worker_bytes
        segments, chunks = b + g.segments_at, b + g.chunks_at
        channel = group * g.k + first_row
        x += image * g.xn + group * g.c * g.xc
        out += image * g.yn + channel * g.yc
        residual += image * g.rn + channel * g.rc
        weight += (group * ((g.k + mr - 1) // mr) + first_row // mr) * g.steps * mr * size
        sums, pitch = b + g.sums_at, g.panels * nr * size
        if g.direct:
            sums, pitch = out + start * item, g.yc

        for c0 in range(0, g.c, g.channel_block):
            channels = min(g.channel_block, g.c - c0)
            words = (channels + depth - 1) // depth
            panel_bytes = words * active_taps(region) * nr * size
            read_in_place = width // nr * nr * g.in_place
            for panel in range(read_in_place, width, nr):
                pack_pixels(
                    g, region, x, c0, c0 + channels, start + panel, segments, chunks,
                    b + (panel - read_in_place) // nr * panel_bytes,
                )  # fmt: skip
            multiply_block(
                g, region,
                _Tiles(
                    x=x + c0 * g.xc + start * size, rows=rows, width=width, panel_bytes=panel_bytes,
                    c=sums, pitch=pitch, bias=bias + channel * size,
                ),
                weight + c0 // depth * g.kd * g.kh * g.kw * mr * size, b, words,
                int(c0 == 0), int(c0 + channels == g.c),
            )  # fmt: skip

        if g.needs_epilogue:
            for panel in range(0, width, nr):
                count = list_segments(region, start + panel, segments)
                end_tile(
                    g, sums + panel * size, pitch, rows, bias + channel * size, out, residual,
                    segments, count, b + g.scratch_at,
                )  # fmt: skip

    return task


@functools.cache
def _make_pack_kernel(tile: RegisterTile, storage: int) -> Any:
    """Return the task that packs one panel of mr output channels."""
    panel_kind = panel_code(storage, tile.depth)
    mr, size = tile.mr, ITEMSIZE[panel_kind]
    pack_weights = make_pack_weights(mr, tile.lanes, storage, panel_kind)

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        row_panels = (g.k + mr - 1) // mr
        group, panel = number // row_panels, number % row_panels
        rows = min(mr, g.k - panel * mr)
        source = weight + (group * g.k + panel * mr) * g.wk
        target = packed + number * g.steps * mr * size
        scratch = workspace + worker * _PACK_BYTES
        pack_weights(g, source, rows, g.channel_block, scratch, target)

    return task


def _layout(
    problem: ConvProblem, device: DeviceInfo, regions: Sequence[Region], in_place: InPlace
) -> Any:
    """Return block sizes and where a worker's workspace holds what."""
    tile, size = operand_tile(device, problem), problem.compute_itemsize
    split = channel_row_split(problem, device, regions, in_place)
    panels, parts = split.panels, split.parts
    part_rows = -(-(problem.out_channels // problem.groups) // (tile.mr * parts)) * tile.mr
    block = channel_block(problem, tile.depth)
    taps = math.prod(problem.kernel_size)
    packed = 1 if in_place.reads else panels  # in place only the last panel is packed
    memory = Workspace()
    memory.add("patches", (packed * block // tile.depth * taps * tile.nr + tile.lanes) * size)
    memory.add("segments", tile.nr * SEGMENT_WORDS * 8)
    memory.add("chunks", tile.nr * CHUNK_WORDS * 8)
    memory.add("sums", 0 if in_place.stores else part_rows * panels * tile.nr * size)
    memory.add("scratch", tile.lanes * size)
    words = -(-(problem.in_channels // problem.groups) // tile.depth)
    fields = {
        "channel_block": block, "panels": panels, "parts": parts, "part_rows": part_rows,
        "steps": words * taps,
    }  # fmt: skip
    return tile, memory.fields | fields


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call with dense arrays, over all threads."""
    return workspace_regions(problem, device, whole(problem))


def workspace_regions(problem: ConvProblem, device: DeviceInfo, regions: Sequence[Region]) -> int:
    """Return the scratch bytes of a call with dense arrays whose output is cut into regions."""
    in_place = channel_rows_in_place(problem, dense_binding(problem), device, regions)
    fields = _layout(problem, device, regions, in_place)[-1]
    return int(fields["worker_bytes"]) * worth_helpers(problem.macs, device.threads)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding."""
    return plan_regions(problem, binding, device, whole(problem))


def plan_regions(
    problem: ConvProblem, binding: Binding, device: DeviceInfo, regions: Sequence[Region]
) -> CpuPlan:
    """Prepare the kernel for an output that is cut into regions.

    Parameters
    ----------
    problem, binding, device
        As for every kernel.
    regions : sequence of (start, size, first tap, tap end)
        Boxes of output positions, which together are the whole output, each with the box of taps
        that it needs.
    """
    in_place = channel_rows_in_place(problem, binding, device, regions)
    (tile, fields), codes = _layout(problem, device, regions, in_place), operand_codes(problem)
    table, blocks = region_table(problem, regions, fields["panels"] * tile.nr)
    workers = worth_helpers(problem.macs, device.threads)
    images = problem.batch * problem.groups
    fields |= epilogue_fields(binding, in_place.stores)
    result = codes.out if in_place.stores else codes.compute
    fields["tile"] = tile_address(tile, panel_code(codes.x, tile.depth), result)
    fields["in_place"] = int(in_place.reads)
    fields["spread"] = spread(blocks, workers)
    stretch_blocks = -(-blocks // fields["spread"])
    fields |= {"blocks": blocks, "regions": table.ctypes.data, "region_count": len(regions)}
    shape = (tile.mr, tile.nv, tile.lanes, tile.depth)
    key = (*shape, codes.weight)
    row_panels = -(-(problem.out_channels // problem.groups) // tile.mr)
    kernel = compile_kernel(
        _make_kernel(tile, codes, result), "im2col_gemm", *shape, *codes, result
    )
    pack = compile_kernel(_make_pack_kernel(tile, codes.weight), "im2col_gemm_pack", *key)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields[name] for name in _FIELDS}),
        stages=(Stage(kernel, images * fields["parts"] * fields["spread"] * stretch_blocks),),
        workers=workers,
        workspace_bytes=fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(pack, problem.groups * row_panels),
        pack_bytes=_PACK_BYTES * workers,
        packed_size=problem.groups * row_panels * fields["steps"] * tile.mr,
        packing=("im2col_gemm", *key, fields["channel_block"]),
        tables=(table,),
    )
