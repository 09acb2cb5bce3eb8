"""Convolution straight from the input: a register tile over a table of taps, with no packing.

Wins for few output channels, first layers and channels-last memory, where packing patches
(gemm/channel_rows.py) weighs most: it is spread over few outputs or products, or patches and output
would have to be transposed as well::

    task = image x group x output depth x band of rows x part of a row x part of K
      copy_band: the input under the band, padded     only for padding or a dtype to widen
      for panel of output channels                    weights: contiguous, from L2
        for output row, for tile of pixels            input: found by offsets from the table, in L1
          register tile (tile.py)
          residual, other activations, transposition  from L1 (common/epilogue.py), if there are any

The pixels are the tile's rows (broadcast; any memory order, and channels-last output is stored
whole) or its lanes (contiguous copies, split by the phase of the stride; channels-first output is
stored whole): costs.py counts which is shorter. There is no blocking of the reduction: a
sum stays in registers from the bias to the clamp.

Budget (AVX-512, float32): a 14 x 2 tile makes 28 multiply-adds a step out of 14 broadcasts and 2
vectors, and asks L2 for 128 bytes of weights in 28 cycles, of the 32 a cycle that L2 delivers. The
band takes at most half of L2.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..common.epilogue import EPILOGUE_FIELDS, epilogue_fields, make_epilogue_strided
from ..common.padded_rows import BAND_FIELDS, make_copy_band
from ..gemm.pack import make_pack_weights
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import as_record, make_record
from ..simd.intrinsics import get_word, range_mask
from ..simd.ir import F32, F64, ITEMSIZE, compute_code, storage_code
from ..simd.register_tiles import RegisterTile
from ..simd.transposes import store_transposed, transpose_block
from .costs import PIXEL_ROWS, Blocks, as_row
from .layout import layout
from .tile import brgemm_tiles_address, call_brgemm_tiles

__all__ = ["plan", "workspace"]

_FIELDS = (
    *EPILOGUE_FIELDS,
    *BAND_FIELDS,
    "side",
    "pixels",  # of a tile
    "channels",  # of a tile
    "tiles",  # across an output row
    "band_tiles",  # of one task
    "columns",  # tasks across an output row
    "band_rows",  # output rows of one task
    "bands",  # tasks along the output height
    "panels",  # of output channels
    "part_panels",  # of one task
    "parts",  # tasks along K
    "copied",  # whether the tile reads a copy of the input
    "x_h",  # bytes from the input of an output row to that of the next
    "x_w",  # likewise for pixels
    "x_step",
    "table",
    "tap_runs",  # of the reduction, each of `steps` steps that are equally far apart
    "steps",
    "chunk",  # tap runs that are summed before the sum is set aside
    "zeros",  # address of as many zeros as a tile has output channels
    "row_tap_runs",  # of one kernel row, 0 where rows in the padding are not left out
    "w_step",
    "tile_table",  # addresses of the tiles of a panel of output channels, and of the last panel
    "row_step",  # bytes of the output from a row of the tile to the next, and from a lane
    "lane_step",
    "row_residual",
    "lane_residual",
    "row_slope",  # bytes between the slopes of rows and of lanes: 0 where they are pixels
    "lane_slope",
    "worker_bytes",
    "partial_at",
    "sums_at",
    "scratch_at",
)
_view = as_record(_FIELDS)

#: Workspace of one worker that packs weights: a square block of vectors.
_PACK_BYTES = 16 * 16 * 4


@functools.cache
def _make_epilogue_rows(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that brings a tile of sums from L1 to the output."""
    size, item = ITEMSIZE[compute], ITEMSIZE[storage]
    end_strided = make_epilogue_strided(lanes, storage, compute)

    @numba.njit
    def epilogue_across(
        g: Any, sums: int, pitch: int, slopes: int, out: int, residual: int, rows: int, width: int,
        scratch: int,
    ) -> None:  # fmt: skip
        """Finish blocks of rows by lanes with the rows' axis contiguous."""
        finished = storage == compute and g.epilogue_code == 0 and not g.has_residual
        for row in range(0, rows, lanes):
            count = min(lanes, rows - row)
            for start in range(0, width, lanes):
                if finished:
                    store_transposed(
                        sums + row * pitch + start * size, pitch,
                        out + row * g.row_step + start * g.lane_step, g.lane_step,
                        range_mask(0, count), width - start, compute, compute, lanes,
                    )  # fmt: skip
                    continue
                transpose_block(
                    sums + row * pitch + start * size, pitch, count, range_mask(0, lanes),
                    scratch + lanes * size, compute, compute, lanes,
                )  # fmt: skip
                for lane in range(min(lanes, width - start)):
                    end_strided(
                        g, scratch + (1 + lane) * lanes * size, 0.0,
                        out + row * g.row_step + (start + lane) * g.lane_step, g.row_step,
                        residual + row * g.row_residual + (start + lane) * g.lane_residual,
                        g.row_residual, slopes + row * g.row_slope + (start + lane) * g.lane_slope,
                        g.row_slope, count, scratch,
                    )  # fmt: skip

    @numba.njit
    def epilogue_rows(
        g: Any, sums: int, pitch: int, slopes: int, out: int, residual: int, rows: int, width: int,
        scratch: int,
    ) -> None:  # fmt: skip
        if g.row_step == item and g.lane_step != item:
            epilogue_across(g, sums, pitch, slopes, out, residual, rows, width, scratch)
            return
        for row in range(rows):
            for start in range(0, width, lanes):
                end_strided(
                    g, sums + row * pitch + start * size, 0.0,
                    out + row * g.row_step + start * g.lane_step, g.lane_step,
                    residual + row * g.row_residual + start * g.lane_residual, g.lane_residual,
                    slopes + row * g.row_slope + start * g.lane_slope, g.lane_slope,
                    min(lanes, width - start), scratch,
                )  # fmt: skip

    return epilogue_rows


@functools.cache
def _make_multiply_panel(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that computes a band for one panel of output channels."""
    size = ITEMSIZE[compute]
    epilogue_rows = _make_epilogue_rows(lanes, storage, compute)

    @numba.njit
    def row_through_l1(
        g: Any, tiles: int, x: int, weight: int, table: int, tap_runs: int, bias: int, out: int,
        residual: int, pixels: int, channels: int, low: float, high: float, worker: int,
    ) -> None:  # fmt: skip
        """Compute a row tile by tile through L1."""
        sums, scratch = worker + g.sums_at, worker + g.scratch_at
        pitch = (g.channels if g.side == PIXEL_ROWS else g.pixels) * size
        for start in range(0, pixels, g.pixels):
            at, count = start, min(g.pixels, pixels - start)
            rows, width = channels, count
            if g.side == PIXEL_ROWS:
                at, count = min(start, pixels - g.pixels), g.pixels
                rows, width = count, channels
            call_brgemm_tiles(
                tiles, x + at * g.x_w, g.x_w, g.x_step, weight, g.w_step, table, tap_runs, g.steps,
                g.chunk, sums, pitch, 0, bias, g.zeros, worker + g.partial_at, count, low, high,
                channels,
            )  # fmt: skip
            epilogue_rows(
                g, sums, pitch, bias + g.slopes_at, out + at * g.yw, residual + at * g.rw, rows,
                width, scratch,
            )  # fmt: skip

    @numba.njit
    def multiply_panel(
        g: Any, x: int, weight: int, bias: int, out: int, residual: int, panel: int, h0: int,
        rows: int, pixels: int, worker: int,
    ) -> None:  # fmt: skip
        """Compute a band for one panel of output channels, kernel rows in the padding left out."""
        low, high = (-np.inf, np.inf) if g.has_residual else (g.low, g.high)
        tiles = get_word(g.tile_table, int(panel == g.panels - 1))
        channels = min(g.channels, g.k - panel * g.channels)
        for r in range(rows):
            first, tap_runs = 0, g.tap_runs
            if g.row_tap_runs:
                h = h0 + r * g.sh
                first = max((-h + g.dh - 1) // g.dh, 0)
                tap_runs = max(min((g.ih - 1 - h) // g.dh + 1, g.kh) - first, 0) * g.row_tap_runs
                first *= g.row_tap_runs
            source, w = x + r * g.x_h, weight + first * g.steps * g.w_step
            table, c, extra = g.table + 8 * first, out + r * g.yh, residual + r * g.rh
            if g.direct:
                call_brgemm_tiles(
                    tiles, source, g.x_w, g.x_step, w, g.w_step, table, tap_runs, g.steps,
                    g.chunk, c, g.row_step, g.yw, bias, g.zeros, worker + g.partial_at, pixels, low,
                    high, channels,
                )  # fmt: skip
            else:
                row_through_l1(
                    g, tiles, source, w, table, tap_runs, bias, c, extra, pixels, channels, low,
                    high, worker,
                )  # fmt: skip

    return multiply_panel


@functools.cache
def _make_kernel(lanes: int, storage: int, compute: int) -> Any:
    """Return the task: see the loop nest above."""
    size = ITEMSIZE[compute]
    copy_band = make_copy_band(lanes, storage, compute)
    multiply_panel = _make_multiply_panel(lanes, storage, compute)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        column, rest = number % g.columns, number // g.columns
        band, rest = rest % g.bands, rest // g.bands
        part, rest = rest % g.parts, rest // g.parts
        od, rest = rest % g.od, rest // g.od
        group, image = rest % g.groups, rest // g.groups

        row, rows = band * g.band_rows, min(g.band_rows, g.oh - band * g.band_rows)
        first, stop = column * g.band_tiles * g.pixels, (column + 1) * g.band_tiles * g.pixels
        if g.side == PIXEL_ROWS:
            first = min(first, g.ow - g.pixels)
        pixels = min(stop, g.ow) - first
        d0, h0, w0 = od * g.sd - g.pd, row * g.sh - g.ph, first * g.sw - g.pw
        x += image * g.xn + group * g.c * g.xc
        scratch = workspace + worker * g.worker_bytes
        if g.copied:
            copy_band(
                g, x, d0, h0, w0, (rows - 1) * g.sh + (g.kh - 1) * g.dh + 1,
                (pixels - 1) * g.sw + (g.kw - 1) * g.dw + 1, scratch,
            )  # fmt: skip
            x = scratch
        else:
            x += d0 * g.xd + h0 * g.xh + w0 * g.xw
        out += image * g.yn + od * g.yd + row * g.yh + first * g.yw
        residual += image * g.rn + od * g.rd + row * g.rh + first * g.rw
        panel_bytes = g.c * g.kd * g.kh * g.kw * g.w_step
        for panel in range(part * g.part_panels, min((part + 1) * g.part_panels, g.panels)):
            channel = group * g.k + panel * g.channels
            multiply_panel(
                g, x, weight + (group * g.panels + panel) * panel_bytes, bias + channel * size,
                out + channel * g.yc, residual + channel * g.rc, panel, h0, rows, pixels, scratch,
            )  # fmt: skip

    return task


@functools.cache
def _make_pack_kernel(channels: int, tap_major: int, lanes: int, storage: int, compute: int) -> Any:
    """Return the task that packs one panel of output channels, vector by vector."""
    size = ITEMSIZE[compute]
    pack_weights = make_pack_weights(channels, lanes, storage, compute)

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        group, panel = number // g.panels, number % g.panels
        first = panel * channels
        target = packed + number * g.c * g.kd * g.kh * g.kw * channels * size
        for start in range(0, min(channels, g.k - first), lanes):
            pack_weights(
                g, weight + (group * g.k + first + start) * g.wk,
                min(lanes, channels - start, g.k - first - start), g.c if tap_major else 1,
                workspace + worker * _PACK_BYTES, target + start * size,
            )  # fmt: skip

    return task


def _tile_table(blocks: Blocks, compute: int) -> NDArray[np.int64]:
    """Return the address of a panel's tile, and of the last panel's of output channels."""
    rows, nv, lanes = blocks.rows, blocks.nv, blocks.lanes
    if blocks.side == PIXEL_ROWS:
        shapes = [(rows, nv, nv), (rows, blocks.vector_tail, blocks.vector_tail)]
    else:
        shapes = [(rows, nv, blocks.vector_tail), (blocks.row_tail, nv, blocks.vector_tail)]
    return np.array(
        [brgemm_tiles_address(RegisterTile(r, n, lanes), narrow, compute, blocks.side)
         for r, n, narrow in shapes]
    )  # fmt: skip


def _output_fields(
    problem: ConvProblem, binding: Binding, side: int, storage: int
) -> dict[str, int]:
    """Return the fields that say where sums go."""
    item = ITEMSIZE[storage]
    residual = binding.residual_strides or binding.out_strides
    channel, pixel = (binding.out_strides[1], residual[1]), (binding.out_strides[-1], residual[-1])
    row, lane = (pixel, channel) if side == PIXEL_ROWS else (channel, pixel)
    lanes = problem.out_channels // problem.groups if side == PIXEL_ROWS else problem.out_size[-1]
    # Tiles store what they compute in: sums of halves are rounded on their way through L1.
    fields = epilogue_fields(
        binding, direct=storage in (F32, F64) and (lane[0] == item or lanes == 1)
    )
    fields["direct"] = int(not fields["needs_epilogue"])
    fields |= {"row_step": row[0], "lane_step": lane[0]}
    size = problem.compute_itemsize
    fields |= {"row_slope": 0, "lane_slope": size} if side == PIXEL_ROWS else {
        "row_slope": size, "lane_slope": 0,
    }  # fmt: skip
    return fields | {"row_residual": row[1], "lane_residual": lane[1]}


def _as_row(problem: ConvProblem, binding: Binding) -> tuple[ConvProblem, Binding]:
    """Return a 1x1 problem over one row of pixels, where they are that in memory; else as it is."""
    row = as_row(problem)
    changed: dict[str, Any] = {}
    if row is None:
        return problem, binding
    for name in ("x_strides", "out_strides", "residual_strides"):
        strides = getattr(binding, name)
        if strides is None:
            continue
        for size, outer, inner in zip(problem.in_size[1:], strides[2:-1], strides[3:], strict=True):
            if outer != size * inner:
                return problem, binding
        changed[name] = (*strides[:2], strides[-1])
    changed["weight_strides"] = (*binding.weight_strides[:2], binding.weight_strides[-1])
    return row, replace(binding, **changed)


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call with dense arrays, over all threads."""
    problem = as_row(problem) or problem
    item, strides, step = ITEMSIZE[storage_code(problem.dtype)], [0] * (problem.ndim + 2), 1
    axes = list(range(problem.ndim + 2))
    order = [0, *axes[2:], 1] if problem.layout == "channels_last" else axes
    for axis in reversed(order):
        strides[axis] = step * item
        step *= problem.x_shape[axis]
    fields = layout(problem, tuple(strides), device)[1]
    return fields["worker_bytes"] * worth_helpers(problem.macs, device.threads)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding."""
    problem, binding = _as_row(problem, binding)
    blocks, fields, table, tap_major = layout(problem, binding.x_strides, device)
    storage = storage_code(problem.dtype)
    compute = compute_code(storage)
    k, size, channels = problem.out_channels // problem.groups, ITEMSIZE[compute], blocks.channels
    oh, ow = (1, *problem.out_size)[-2:]
    tiles, panels = -(-ow // blocks.pixels), -(-k // channels)
    counts = {
        "bands": -(-oh // blocks.band_rows),
        "columns": -(-tiles // blocks.band_tiles),
        "parts": -(-panels // blocks.part_panels),
    }
    addresses, zeros = (
        _tile_table(blocks, compute),
        np.zeros(channels, compute_dtype(problem.dtype)),
    )
    fields |= counts | _output_fields(problem, binding, blocks.side, storage)
    fields |= {
        "side": blocks.side, "pixels": blocks.pixels, "channels": channels, "tiles": tiles,
        "band_tiles": blocks.band_tiles, "band_rows": blocks.band_rows, "panels": panels,
        "part_panels": blocks.part_panels, "table": table.ctypes.data, "w_step": channels * size,
        "tile_table": addresses.ctypes.data, "zeros": zeros.ctypes.data,
    }  # fmt: skip
    workers = worth_helpers(problem.macs, device.threads)
    tasks = problem.batch * problem.groups * math.prod(problem.out_size[:-2])
    key, packing = (blocks.lanes, storage), (channels, tap_major, blocks.lanes, storage)
    kernel = compile_kernel(_make_kernel(*key, compute), "brgemm", *key)
    pack = compile_kernel(_make_pack_kernel(*packing, compute), "brgemm_pack", *packing)
    steps = problem.in_channels // problem.groups * math.prod(problem.kernel_size)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields[name] for name in _FIELDS}),
        stages=(Stage(kernel, tasks * math.prod(counts.values())),),
        workers=workers,
        workspace_bytes=fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(pack, problem.groups * panels),
        pack_bytes=_PACK_BYTES * workers,
        packed_size=problem.groups * panels * steps * channels,
        packing=("brgemm", *packing),
        tables=(table, addresses, zeros),
    )
