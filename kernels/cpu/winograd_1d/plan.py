"""Winograd convolution along the width only, its products summed in registers.

Wins where there are few input channels: first layers. Winograd in two dimensions (winograd/plan.py)
stores its products, one for ``C`` multiply-adds, and reads them again for the way back; with 3
channels that costs more than it saves. Along one axis a register tile holds all sums of its
outputs (tile.py), all other taps and the channels are steps of one reduction, and the
way back happens before the one store::

    task = image x group x output depth x band of rows x part of a row
      for channel, for input row under the band
        pad it in L1; V[channel, row, piece, register tile, a, t]    lanes are tiles, in L2
      for panel of output channels
        for output row
          for lanes pixels                                           lanes are output channels
            register tile: sum over channels, kernel rows, pieces
            residual, other activations, halves                      from L1 (common/epilogue.py)

An output of 3 x 3 taps takes 13.5 multiply-adds a channel of a kernel row by F(4, 3), where the
definition has 27 for 3 channels; 7 x 7 of stride 2 takes 73.5 by F(4, 4) instead of 147. A
transformed row serves all kernel rows and all output channels.

Bytes (AVX-512, float32): a step of F(4, 3) takes 24 cycles and reads 384 bytes of U and 96 of V.
3 x 3 taps of 3 channels: U of a panel 3.4 KiB, V of an output row of 224 pixels 13.8 KiB, both in
L1. Where they outgrow L1 a step asks L2 for 20 bytes a cycle, which is what L2 delivers.

Rounding: see kernels/cook_toom.py, and costs.py for figures. The arithmetic is not that of the
definition, so a NaN or an infinity spreads over its tile, and ``precision("exact")`` leaves this
kernel out.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..common.epilogue import epilogue_fields, make_epilogue_strided
from ..common.toom_cook_lines import WEIGHT, lines_address
from ..machine.lines import LINE, whole_lines
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import make_record
from ..simd.ir import F32, F64, ITEMSIZE, compute_code, storage_code
from ..winograd.weights import filters_are_contiguous
from .costs import Blocks, band_extent, choose_blocks
from .fields import FIELDS, view
from .input import make_pack_kernel, make_transform_band, split_address
from .tile import call_row_tiles, row_tiles_address

__all__ = ["plan", "workspace"]


@functools.cache
def _make_multiply_row(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that computes one output row for one panel of output channels."""
    size = ITEMSIZE[compute]
    line = lanes * size
    end_strided = make_epilogue_strided(lanes, storage, compute)

    @numba.njit
    def row_through_l1(
        g: Any, v: int, u: int, bias: int, out: int, residual: int, pixels: int, channels: int,
        low: float, high: float, worker: int,
    ) -> None:  # fmt: skip
        """Compute a row tile by tile through L1."""
        sums = worker + g.sums_at
        for first in range(0, pixels, lanes):
            rows, width = min(lanes, pixels - first), channels
            call_row_tiles(
                g.tiles, v, g.table, g.steps, u, sums, line, 0, first, rows, bias, channels, low,
                high,
            )  # fmt: skip
            slope_row, slope_lane = 0, size
            if g.rows_are_channels:
                rows, width, slope_row, slope_lane = width, rows, size, 0
            for row in range(rows):
                end_strided(
                    g, sums + row * line, 0.0, out + first * g.yw + row * g.row_step, g.lane_step,
                    residual + first * g.rw + row * g.row_residual, g.lane_residual,
                    bias + g.slopes_at + row * slope_row, slope_lane, width, worker + g.scratch_at,
                )  # fmt: skip

    @numba.njit
    def multiply_row(
        g: Any, v: int, u: int, bias: int, out: int, residual: int, pixels: int, channels: int,
        worker: int,
    ) -> None:  # fmt: skip
        low, high = (-np.inf, np.inf) if g.has_residual else (g.low, g.high)
        if g.direct:
            call_row_tiles(
                g.tiles, v, g.table, g.steps, u, out, g.row_step, lanes * g.yw, 0, pixels, bias,
                channels, low, high,
            )  # fmt: skip
        else:
            row_through_l1(g, v, u, bias, out, residual, pixels, channels, low, high, worker)

    return multiply_row


@functools.cache
def _make_kernel(lanes: int, storage: int, compute: int) -> Any:
    """Return the task: see the loop nest above."""
    size = ITEMSIZE[compute]
    transform_band = make_transform_band(lanes, storage, compute)
    multiply_row = _make_multiply_row(lanes, storage, compute)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        column, rest = number % g.columns, number // g.columns
        band, rest = rest % g.bands, rest // g.bands
        od, rest = rest % g.od, rest // g.od
        group, image = rest % g.groups, rest // g.groups

        row, first = band * g.band_rows, column * g.band_pixels
        rows, pixels = min(g.band_rows, g.oh - row), min(g.band_pixels, g.ow - first)
        blocks = (pixels * g.sw + g.block_samples - 1) // g.block_samples
        v = workspace + worker * g.worker_bytes
        transform_band(
            g, x + image * g.xn + group * g.c * g.xc, od * g.sd - g.pd, row * g.sh - g.ph,
            first * g.sw - g.pw, (rows - 1) * g.sh + (g.kh - 1) * g.dh + 1, blocks, v,
            v + g.row_at,
        )  # fmt: skip
        out += image * g.yn + od * g.yd + row * g.yh + first * g.yw
        residual += image * g.rn + od * g.rd + row * g.rh + first * g.rw
        for panel in range(g.panels):
            k = panel * lanes
            channel = group * g.k + k
            u = weight + (group * g.panels + panel) * g.steps * g.block_bytes
            for r in range(rows):
                multiply_row(
                    g, v + r * g.sh * g.band_h, u, bias + channel * size,
                    out + channel * g.yc + r * g.yh, residual + channel * g.rc + r * g.rh, pixels,
                    min(lanes, g.k - k), v,
                )  # fmt: skip

    return task


def _layout(
    problem: ConvProblem, blocks: Blocks, compute: int
) -> tuple[dict[str, int], NDArray[np.int64]]:
    """Return where a worker keeps what, and the offsets of the steps in V."""
    line, channels = blocks.lanes * ITEMSIZE[compute], problem.in_channels // problem.groups
    planes, rows = band_extent(problem, blocks.band_rows)
    block, samples = blocks.n * line, blocks.pixels * blocks.stride
    piece = blocks.band_blocks * block
    row = blocks.pieces * piece + LINE  # a line more than a power of two: see the traps
    band = {"band_h": row, "band_d": rows * row, "band_c": planes * rows * row}
    overhang = blocks.reads - blocks.m * blocks.stride
    parts = {
        "row_at": channels * band["band_c"],
        "sums_at": (blocks.band_blocks * samples + overhang + blocks.lanes) * ITEMSIZE[compute],
        "scratch_at": blocks.lanes * line,
        "worker_bytes": line,
    }
    fields, end = band | {"piece_step": piece, "block_bytes": block}, 0
    for name, before in parts.items():
        end += whole_lines(before)
        fields[name] = end
    fields |= {"block_samples": samples, "overhang": overhang}
    kd, kh = ((1, 1, *problem.kernel_size)[-3:])[:2]
    at_c, at_d, at_h, at_piece = (
        np.arange(count, dtype=np.int64) * step
        for count, step in (
            (channels, band["band_c"]),
            (kd, band["band_d"]),
            (kh, (1, *problem.dilation)[-2] * row),
            (blocks.pieces, piece),
        )
    )
    table = at_c[:, None, None, None] + at_d[:, None, None] + at_h[:, None] + at_piece
    return fields, table.ravel()


def _output_fields(problem: ConvProblem, binding: Binding, storage: int) -> dict[str, int]:
    """Return the fields that say where outputs go."""
    item, residual = ITEMSIZE[storage], binding.residual_strides or binding.out_strides
    channel, pixel = (binding.out_strides[1], residual[1]), (binding.out_strides[-1], residual[-1])
    rows_are_channels = channel[0] != item
    row, lane = (channel, pixel) if rows_are_channels else (pixel, channel)
    fields = epilogue_fields(binding, direct=storage in (F32, F64) and lane[0] == item)
    fields["direct"] = int(not fields["needs_epilogue"])
    return fields | {
        "rows_are_channels": int(rows_are_channels), "row_step": row[0], "lane_step": lane[0],
        "row_residual": row[1], "lane_residual": lane[1],
    }  # fmt: skip


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    compute = F64 if problem.dtype == "float64" else F32
    fields = _layout(problem, choose_blocks(problem, device), compute)[0]
    return fields["worker_bytes"] * worth_helpers(problem.macs, device.threads)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding."""
    blocks, storage = choose_blocks(problem, device), storage_code(problem.dtype)
    compute, lanes = compute_code(storage), blocks.lanes
    fields, table = _layout(problem, blocks, compute)
    fields |= _output_fields(problem, binding, storage)
    oh, ow = (1, *problem.out_size)[-2:]
    band_pixels = blocks.band_blocks * blocks.pixels
    fields |= {
        "band_rows": blocks.band_rows, "bands": -(-oh // blocks.band_rows),
        "band_pixels": band_pixels, "columns": -(-ow // band_pixels),
        "panels": -(-(problem.out_channels // problem.groups) // lanes),
        "table": table.ctypes.data, "steps": table.size,
        "tiles": row_tiles_address(blocks.m, blocks.r, lanes, fields["rows_are_channels"], compute),
        "split": split_address(blocks, compute),
        "weight_row": lines_address(WEIGHT, blocks.m, blocks.r, 1, 0, lanes, compute),
        "weight_is_contiguous": int(filters_are_contiguous(problem, binding)),
        "band_w": 0, "band_p": 0, "phases": 1, "unit": 1, "by_column": 0,
        "lines": problem.in_channels // problem.groups, "copy_step": binding.x_strides[-1],
        "pack_worker_bytes": (
            (math.prod(problem.kernel_size) * lanes + blocks.r + lanes) * lanes * ITEMSIZE[compute]
        ),
    }  # fmt: skip
    workers = worth_helpers(problem.macs, device.threads)
    kernel = compile_kernel(_make_kernel(lanes, storage, compute), "winograd_1d", lanes, storage)
    packing = (blocks.r, lanes, storage)
    pack = compile_kernel(make_pack_kernel(*packing, compute), "winograd_1d_pack", *packing)
    panels, chunks = (
        problem.groups * fields["panels"], -(-problem.in_channels // problem.groups // lanes)
    )  # fmt: skip
    tasks = problem.batch * problem.groups * math.prod(problem.out_size[:-2])
    return CpuPlan(
        record=make_record(problem, binding, {name: fields[name] for name in FIELDS}),
        stages=(Stage(kernel, tasks * fields["bands"] * fields["columns"]),),
        workers=workers,
        workspace_bytes=fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(pack, panels * chunks),
        pack_bytes=fields["pack_worker_bytes"] * workers,
        packed_size=panels * table.size * fields["block_bytes"] // ITEMSIZE[compute],
        packing=("winograd_1d", blocks.m, blocks.kernel, blocks.stride, *packing),
        tables=(table,),
    )
