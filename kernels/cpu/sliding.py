"""The task that the depthwise and the direct kernel share: a band of output rows of one group.

::

    task = some images and groups x output depth x band of rows
      copy_band: the input rows under the band, padded         compute precision, in L2 or L1
        row = one run a phase of the horizontal stride          so that every tap is contiguous
      for output channel of the group
        for rh rows (those that share input), for nv vectors
          window tile (window.py)
          residual, other activations, dtypes, strides          finish.py, where there are any

The copy costs a load and a store for each input element, against ``kh * kw`` multiply-adds a vector
for each output channel.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from fastconv.problem import ConvProblem
from fastconv.spec import Binding, DeviceInfo

from . import jit
from .finish import FINISH_FIELDS, finish_fields, make_finish_vector
from .geometry import as_record, make_record
from .pack import make_copy_vector, pair_mask
from .plan import CpuPlan, Stage, compile_kernel, compute_dtype, in_weight_order, worth_helpers
from .simd import load_scalar, range_mask, store_scalar
from .vectors import F32, F64, ITEMSIZE, call_address, storage_code
from .window import window_tile

__all__ = ["TASKS", "UNROLLED_TAPS", "pack_stage", "plan", "workspace"]

_FIELDS = (
    *FINISH_FIELDS,
    "band_rows",  # output rows of one task
    "bands",  # tasks along the output height
    "items",  # images and groups of one task
    "row_bytes",  # one row of the copy: sw phases
    "phase_length",  # elements of one phase
    "plane_bytes",  # the rows of one input channel and kernel depth
    "tile_rows",  # rh
    "tile_lanes",  # nv vectors
    "share",  # distance of output rows that share input
    "columns",  # address of the tap columns' offsets
    "tile",  # address of the window tile
    "worker_bytes",
    "sums_at",
    "scratch_at",
)
_view = as_record(_FIELDS)

#: Tasks a thread, enough for a late thread to be helped out.
TASKS = 8
#: Kernels up to this many taps are unrolled with their weights in registers.
UNROLLED_TAPS = 25


@dataclass(frozen=True, slots=True)
class _Shape:
    """Literal sizes of a window tile."""

    rh: int
    nv: int
    lanes: int
    kh: int
    kw: int


_TILE_SIGNATURE = types.void(
    *([types.intp] * 11), types.float64, types.float64, types.intp, types.intp
)


def _tile_address(shape: _Shape, code: int) -> int:
    """Return the address of a compiled window tile."""
    rh, nv, lanes, kh_literal, kw_literal = shape.rh, shape.nv, shape.lanes, shape.kh, shape.kw

    def tile(x: int, plane_step: int, planes: int, row_step: int, columns: int, w: int, kh: int,
             kw: int, c: int, c_pitch: int, bias: int, low: float, high: float, width: int,
             rows: int) -> None:  # fmt: skip
        window_tile(x, plane_step, planes, row_step, columns, w, kh, kw, c, c_pitch, bias, low,
                    high, width, rows, rh, nv, lanes, kh_literal, kw_literal, code)  # fmt: skip

    key = ("window_tile", rh, nv, lanes, kh_literal, kw_literal, code)
    return int(jit.compile_callback(tile, _TILE_SIGNATURE, key).address)


@intrinsic
def _call_tile(
    typingctx: Any, function: Any, x: Any, plane_step: Any, planes: Any, row_step: Any,
    columns: Any, w: Any, kh: Any, kw: Any, c: Any, c_pitch: Any, bias: Any, low: Any, high: Any,
    width: Any, rows: Any,
) -> Any:  # fmt: skip
    """Call the function at a `_tile_address`."""
    return types.void(types.intp, *_TILE_SIGNATURE.args), call_address


@functools.cache
def _make_copy_band(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that copies the input rows under a band, padded and split by phases."""
    size, copy_vector = ITEMSIZE[compute], make_copy_vector(lanes, storage, compute)

    @numba.njit
    def copy_row(g: Any, source: int, inside: int, target: int) -> None:
        for phase in range(g.sw):
            first = phase - g.pw  # input column of the phase's element 0
            low = max(-(first // g.sw), 0)
            high = max((g.iw - 1 - first) // g.sw + 1, low) if inside else low
            for start in range(0, g.phase_length, lanes):
                begin = min(max(low - start, 0), lanes)
                end = max(min(high - start, lanes), begin)
                copy_vector(
                    source + (first + start * g.sw) * g.xw, g.sw * g.xw, range_mask(begin, end),
                    pair_mask(begin, end), target + start * size,
                )  # fmt: skip
            target += g.phase_length * size

    @numba.njit
    def copy_band(g: Any, x: int, od: int, first_row: int, rows: int, target: int) -> None:
        for channel in range(g.c):
            for kd in range(g.kd):
                d = od * g.sd - g.pd + kd * g.dd
                for r in range(rows):
                    h = first_row * g.sh - g.ph + r
                    source = x + channel * g.xc + d * g.xd + h * g.xh
                    inside = int(0 <= d < g.id and 0 <= h < g.ih)
                    copy_row(g, source, inside, target + r * g.row_bytes)
                target += g.plane_bytes

    return copy_band


@functools.cache
def _make_kernel(lanes: int, storage: int, compute: int) -> Any:
    """Return the task: see the drawing at the top of this file."""
    size = ITEMSIZE[compute]
    copy_band = _make_copy_band(lanes, storage, compute)
    finish_vector = make_finish_vector(lanes, storage, compute)

    @numba.njit
    def finish_rows(
        g: Any, sums: int, out: int, residual: int, width: int, rows: int, scratch: int
    ) -> None:
        for row in range(rows):
            for start in range(0, width, lanes):
                finish_vector(
                    g, sums + (row * g.tile_lanes + start) * size, 0.0,
                    out + row * g.share * g.yh + start * g.yw,
                    residual + row * g.share * g.rh + start * g.rw,
                    min(lanes, width - start), scratch,
                )  # fmt: skip

    @numba.njit
    def channel_rows(
        g: Any, copy: int, weight: int, bias: int, residual: int, out: int, rows: int, share: int,
        sums: int, scratch: int,
    ) -> None:  # fmt: skip
        """Compute every `share`-th row of a band for one output channel."""
        low, high = (-np.inf, np.inf) if g.has_residual else (g.low, g.high)
        for row in range(0, rows, g.tile_rows):
            count = min(g.tile_rows, rows - row)
            for start in range(0, g.ow, g.tile_lanes):
                width = min(g.tile_lanes, g.ow - start)
                y = out + row * share * g.yh + start * g.yw
                c, c_pitch = y, share * g.yh
                if not g.direct:
                    c, c_pitch = sums, g.tile_lanes * size
                _call_tile(
                    g.tile, copy + row * share * g.sh * g.row_bytes + start * size, g.plane_bytes,
                    g.c * g.kd, g.dh * g.row_bytes, g.columns, weight, g.kh, g.kw, c, c_pitch,
                    bias, low, high, width, count,
                )  # fmt: skip
                if not g.direct:
                    extra = residual + row * share * g.rh + start * g.rw
                    finish_rows(g, sums, y, extra, width, count, scratch)

    @numba.njit
    def group_rows(
        g: Any, copy: int, weight: int, bias: int, residual: int, out: int, group: int, rows: int,
        sums: int, scratch: int,
    ) -> None:  # fmt: skip
        """Compute a band for every output channel of one group."""
        taps = g.c * g.kd * g.kh * g.kw
        for k in range(group * g.k, (group + 1) * g.k):
            for residue in range(min(g.share, rows)):
                channel_rows(
                    g, copy + residue * g.sh * g.row_bytes, weight + k * taps * size,
                    bias + k * size, residual + k * g.rc + residue * g.rh,
                    out + k * g.yc + residue * g.yh, (rows - residue + g.share - 1) // g.share,
                    g.share, sums, scratch,
                )  # fmt: skip

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        copy = workspace + worker * g.worker_bytes
        band, rest = number % g.bands, number // g.bands
        od, chunk = rest % g.od, rest // g.od
        first_row = band * g.band_rows
        rows = min(g.band_rows, g.oh - first_row)
        y_start, r_start = od * g.yd + first_row * g.yh, od * g.rd + first_row * g.rh
        for item in range(chunk * g.items, min((chunk + 1) * g.items, g.n * g.groups)):
            image, group = item // g.groups, item % g.groups
            source = x + image * g.xn + group * g.c * g.xc
            copy_band(g, source, od, first_row, (rows - 1) * g.sh + (g.kh - 1) * g.dh + 1, copy)
            group_rows(
                g, copy, weight, bias, residual + image * g.rn + r_start,
                out + image * g.yn + y_start, group, rows, copy + g.sums_at, copy + g.scratch_at,
            )  # fmt: skip

    return task


@functools.cache
def _make_pack_kernel(storage: int, compute: int) -> Any:
    """Return the task that brings one output channel's weights to compute precision, in order."""
    size = ITEMSIZE[compute]

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        target = packed + number * g.c * g.kd * g.kh * g.kw * size
        for c in range(g.c):
            for kd in range(g.kd):
                for kh in range(g.kh):
                    for kw in range(g.kw):
                        source = weight + number * g.wk + c * g.wc
                        source += kd * g.wd + kh * g.wh + kw * g.ww
                        store_scalar(target, load_scalar(source, storage), compute)
                        target += size

    return task


def pack_stage(problem: ConvProblem, binding: Binding, storage: int, compute: int) -> Stage | None:
    """Return what brings the weight into its logical order, None where it lies so."""
    if in_weight_order(problem, binding):
        return None
    pack = compile_kernel(_make_pack_kernel(storage, compute), "sliding_pack", storage)
    return Stage(pack, problem.out_channels)


def _tile_shape(problem: ConvProblem, device: DeviceInfo, code: int) -> _Shape:
    """Choose the tile: as many rows as share input, vectors that waste the fewest lanes."""
    lanes = device.lanes(ITEMSIZE[code])
    kernel = (1, *problem.kernel_size)[-2:]
    stride = (1, *problem.stride)[-2:]
    height = (1, *problem.out_size)[-2]
    small = kernel[0] * kernel[1] <= UNROLLED_TAPS
    rh = 1
    if stride[0] == 1 and height > 1 and kernel[0] > 1:
        rh = 4 if small or kernel[0] >= 4 else kernel[0]
    most = 4 if device.registers == 32 or rh == 1 else 2
    vectors = -(-problem.out_size[-1] // lanes)
    nv = min(range(1, most + 1), key=lambda n: (-(-vectors // n) * (n + 0.6), n))
    return _Shape(rh, nv, lanes, *(kernel if small else (0, 0)))


def _layout(problem: ConvProblem, device: DeviceInfo) -> tuple[_Shape, int, int, dict[str, int]]:
    """Return the tile, storage and compute codes, and the sizes of a band."""
    storage = storage_code(problem.dtype)
    compute = F64 if storage == F64 else F32
    size, shape = ITEMSIZE[compute], _tile_shape(problem, device, compute)
    kh, kw = (1, *problem.kernel_size)[-2:]
    sh, sw = (1, *problem.stride)[-2:]
    dh, dw = (1, *problem.dilation)[-2:]
    oh, ow = (1, *problem.out_size)[-2:]
    across = shape.nv * shape.lanes
    reach = -(-ow // across) * across + (kw - 1) * dw // sw + 1
    phase_length = -(-reach // shape.lanes) * shape.lanes
    row_bytes = sw * phase_length * size
    share = dh if sh == 1 else 1
    planes = problem.in_channels // problem.groups * math.prod(problem.kernel_size[:-2])

    def copied_rows(rows: int) -> int:
        # A tile reads all its rows, also those of which it stores nothing.
        return (rows - 1 + (shape.rh - 1) * share) * sh + (kh - 1) * dh + 1

    tasks = problem.batch * problem.groups * math.prod(problem.out_size[:-2])
    band_rows = oh
    while band_rows > 1 and (
        copied_rows(band_rows) * row_bytes * planes > device.l2 // 4
        or tasks * -(-oh // band_rows) < 2 * device.threads
    ):
        smaller = -(-band_rows // 2)
        if smaller < min(2 * (kh - 1) * dh // sh, oh // (2 * device.threads)):
            break  # the rows that bands copy twice would cost more than is won
        band_rows = smaller
    plane_bytes = copied_rows(band_rows) * row_bytes
    # Taking a task costs about 0.1 microseconds: small maps share one.
    depths = math.prod(problem.out_size[:-2]) * -(-oh // band_rows)
    items = max(1, problem.batch * problem.groups * depths // (TASKS * device.threads))
    fields = {
        "items": items,
        "band_rows": band_rows,
        "bands": -(-oh // band_rows),
        "row_bytes": row_bytes,
        "phase_length": phase_length,
        "plane_bytes": plane_bytes,
        "tile_rows": shape.rh,
        "tile_lanes": across,
        "share": share,
        "sums_at": -(-planes * plane_bytes // 64) * 64,
    }
    fields["scratch_at"] = fields["sums_at"] + shape.rh * across * size
    fields["worker_bytes"] = fields["scratch_at"] + -(-shape.lanes * size // 64) * 64
    return shape, storage, compute, fields


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    fields = _layout(problem, device)[-1]
    return fields["worker_bytes"] * worth_helpers(problem.macs, device.threads)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding."""
    shape, storage, compute, fields = _layout(problem, device)
    size = ITEMSIZE[compute]
    sw, dw, kw = problem.stride[-1], problem.dilation[-1], problem.kernel_size[-1]
    taps = np.arange(kw, dtype=np.int64) * dw
    columns = (taps % sw * fields["phase_length"] + taps // sw) * size
    contiguous = binding.out_strides[-1] == size or problem.out_size[-1] == 1
    fields |= finish_fields(binding, direct=storage == compute and contiguous)
    fields["direct"] = int(not fields["needs_finish"])  # rows are too short to finish in place
    fields |= {"columns": columns.ctypes.data, "tile": _tile_address(shape, compute)}
    workers = worth_helpers(problem.macs, device.threads)
    chunks = -(-problem.batch * problem.groups // fields["items"])
    tasks = chunks * math.prod(problem.out_size[:-2]) * fields["bands"]
    key = (shape.lanes, storage)
    kernel = compile_kernel(_make_kernel(shape.lanes, storage, compute), "sliding", *key)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields[name] for name in _FIELDS}),
        stages=(Stage(kernel, tasks),),
        workers=workers,
        workspace_bytes=fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=pack_stage(problem, binding, storage, compute),
        pack_bytes=0,
        packed_size=math.prod(problem.weight_shape),
        packing=("sliding", storage),
        tables=(columns,),
    )
