"""Sliding windows over a padded copy: for what stencil.py cannot read in place.

That is every input in half precision, with gaps between the elements of a row, or with a horizontal
stride above 2, every output that cannot be stored to as it is computed, and kernels of so many rows
that they run as tiles, whose loops want no masks::

    task = some images and groups x output depth x band of rows
      copy_band: the input rows under the band, padded         compute precision, in L2 or L1
        row = one run a phase of the stride that a tap meets    so that every tap is contiguous
      for strip of columns                                      strips.py
        for output channel of the group, row
      residual, other activations, dtypes, strides              finish.py, where there are any

The copy costs a load and a store for each input element, against ``kh * kw`` multiply-adds a vector
for each output channel. Rows and depths outside the input are not copied but skipped.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from fastconv.problem import ConvProblem
from fastconv.spec import Binding, DeviceInfo

from .cuts import Cut, cut, widths
from .finish import finish_fields, make_finish_vector
from .geometry import make_record
from .pack import make_copy_vector, pair_mask
from .plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from .rolling import COPY
from .simd import get_word, range_mask
from .strips import (
    FIELDS,
    TASKS,
    call_strip,
    pack_stage,
    strip_table,
    view,
)
from .vectors import ITEMSIZE, compute_code, storage_code

__all__ = ["plan", "workspace"]


@functools.cache
def _make_copy_band(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that copies the input rows under a band, padded and split by phases."""
    size, copy_vector = ITEMSIZE[compute], make_copy_vector(lanes, storage, compute)

    @numba.njit
    def copy_row(g: Any, source: int, target: int) -> None:
        for phase in range(g.phases):
            first = phase - g.pw  # input column of the phase's element 0
            low = max(-(first // g.sw), 0)
            high = max((g.iw - 1 - first) // g.sw + 1, low)
            for start in range(0, g.phase_length, lanes):
                begin = min(max(low - start, 0), lanes)
                end = max(min(high - start, lanes), begin)
                copy_vector(
                    source + (first + start * g.sw) * g.xw, g.sw * g.xw, range_mask(begin, end),
                    pair_mask(begin, end), target + start * size,
                )  # fmt: skip
            target += g.phase_length * size

    @numba.njit
    def copy_band(g: Any, x: int, depths: int, low: int, high: int, target: int) -> None:
        """Copy input rows low to high - 1 of some depths of each channel."""
        for channel in range(g.c):
            for depth in range(depths):
                source = x + channel * g.xc + depth * g.dd * g.xd
                plane = target + channel * g.in_c + depth * g.in_d
                for h in range(low, high):
                    copy_row(g, source + h * g.xh, plane + (h - low) * g.in_h)

    return copy_band


@functools.cache
def _make_kernel(lanes: int, storage: int, compute: int) -> Any:
    """Return the task: see the drawing at the top of this file."""
    size = ITEMSIZE[compute]
    copy_band = _make_copy_band(lanes, storage, compute)
    finish_vector = make_finish_vector(lanes, storage, compute)

    @numba.njit
    def finish_maps(g: Any, sums: int, out: int, residual: int, rows: int, scratch: int) -> None:
        """Bring a band of one group's sums to where it belongs."""
        for k in range(g.k):
            for row in range(rows):
                source = sums + k * g.to_c + row * g.to_h
                y, r = out + k * g.yc + row * g.yh, residual + k * g.rc + row * g.rh
                for start in range(0, g.ow, lanes):
                    finish_vector(
                        g, source + start * size, 0.0, y + start * g.yw, r + start * g.rw,
                        min(lanes, g.ow - start), scratch,
                    )  # fmt: skip

    @numba.njit
    def band_strips(
        g: Any, geometry: int, x: int, weight: int, bias: int, out: int, h0: int, h_end: int,
        rows: int, depths: int,
    ) -> None:  # fmt: skip
        """Compute a band of one group from its copy."""
        for s in range(g.strips):
            call_strip(
                get_word(g.table, 2 * s), geometry, get_word(g.table, 2 * s + 1), x, weight, bias,
                out, h0, h_end, rows, depths, 1,
            )  # fmt: skip

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        copy = workspace + worker * g.worker_bytes
        sums, scratch = copy + g.sums_at, copy + g.scratch_at
        band, rest = number % g.bands, number // g.bands
        od, chunk = rest % g.od, rest // g.od
        first_row = band * g.band_rows
        rows = min(g.band_rows, g.oh - first_row)
        d0, h0 = od * g.sd - g.pd, first_row * g.sh - g.ph
        skipped = max(0, (g.dd - 1 - d0) // g.dd)
        depths = max(0, min(g.kd, (g.id - d0 + g.dd - 1) // g.dd) - skipped)
        low = max(0, h0)
        high = max(low, min(g.ih, h0 + (rows - 1) * g.sh + (g.kh - 1) * g.unit + 1))
        taps = g.kh * g.kw * size
        for item in range(chunk * g.items, min((chunk + 1) * g.items, g.n * g.groups)):
            image, group = item // g.groups, item % g.groups
            source = x + image * g.xn + group * g.c * g.xc + (d0 + skipped * g.dd) * g.xd
            copy_band(g, source, depths, low, high, copy)
            k = group * g.k
            y = out + image * g.yn + k * g.yc + od * g.yd + first_row * g.yh
            extra = residual + image * g.rn + k * g.rc + od * g.rd + first_row * g.rh
            band_strips(
                g, geometry, copy - low * g.in_h, weight + (k * g.c * g.kd + skipped) * taps,
                bias + k * size, y if g.direct else sums, h0, high, rows, depths,
            )  # fmt: skip
            if not g.direct:
                finish_maps(g, sums, y, extra, rows, scratch)

    return task


def _layout(problem: ConvProblem, device: DeviceInfo) -> tuple[Cut, dict[str, int]]:
    """Return the cut and the sizes of a band and its copy."""
    size = problem.compute_itemsize
    way = cut(problem, device, size)
    kh, kw = (1, *problem.kernel_size)[-2:]
    sh, sw = (1, *problem.stride)[-2:]
    dh, dw = (1, *problem.dilation)[-2:]
    oh, ow = (1, *problem.out_size)[-2:]
    start, nv, tail = widths(ow, way.lanes, way.vectors)[-1]
    across = start + (nv - 1) * way.lanes + tail
    reach = across + (kw - 1) * dw // sw + 1
    phase_length = -(-reach // way.lanes) * way.lanes
    phases = min(sw, (kw - 1) * dw + 1)  # a stride beyond the kernel passes over the others
    row_bytes = phases * phase_length * size
    unit = dh if kh > 1 else 1
    depths = math.prod(problem.kernel_size[:-2])
    planes = problem.in_channels // problem.groups * depths

    def copied_rows(rows: int) -> int:
        return min((rows - 1) * sh + (kh - 1) * unit + 1, (1, *problem.in_size)[-2])

    tasks = problem.batch * problem.groups * math.prod(problem.out_size[:-2])
    band_rows = oh
    while band_rows > 1 and (
        copied_rows(band_rows) * row_bytes * planes > device.l2 // 4
        or tasks * -(-oh // band_rows) < 2 * device.threads
    ):
        smaller = -(-band_rows // 2)
        if smaller < min(2 * (kh - 1) * unit // sh, oh // (2 * device.threads)):
            break  # the rows that bands copy twice would cost more than is won
        band_rows = smaller
    whole = max(1, way.rows) * way.share  # rows of full tiles
    band_rows = min(oh, -(-band_rows // whole) * whole)
    plane_bytes = copied_rows(band_rows) * row_bytes
    bands = -(-oh // band_rows)
    outputs, sum_row = problem.out_channels // problem.groups, -(-across // way.lanes) * way.lanes
    fields = {
        "in_g": 0,
        "in_c": depths * plane_bytes,
        "in_d": plane_bytes,
        "in_h": row_bytes,
        "unit": unit,
        "share": way.share,
        "tap_bytes": size,
        "to_c": band_rows * sum_row * size,
        "to_h": sum_row * size,
        "band_rows": band_rows,
        "bands": bands,
        # Taking a task costs about 0.1 microseconds: small maps share one.
        "items": max(1, tasks * bands // (TASKS * device.threads)),
        "phases": phases,
        "phase_length": phase_length,
        "sums_at": -(-planes * plane_bytes // 64) * 64,
    }
    fields["scratch_at"] = fields["sums_at"] + -(-outputs * fields["to_c"] // 64) * 64
    fields["worker_bytes"] = fields["scratch_at"] + -(-way.lanes * size // 64) * 64
    return way, fields


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    fields = _layout(problem, device)[-1]
    return fields["worker_bytes"] * worth_helpers(problem.macs, device.threads)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding."""
    storage = storage_code(problem.dtype)
    compute = compute_code(storage)
    size = ITEMSIZE[compute]
    way, fields = _layout(problem, device)
    sw, dw, kw = problem.stride[-1], problem.dilation[-1], problem.kernel_size[-1]
    taps = np.arange(kw, dtype=np.int64) * dw
    columns = (taps % sw * fields["phase_length"] + taps // sw) * size
    table = strip_table(problem, way, COPY, compute)
    contiguous = binding.out_strides[-1] == size or problem.out_size[-1] == 1
    fields |= finish_fields(binding, direct=storage == compute and contiguous)
    fields["direct"] = int(not fields["needs_finish"])
    if fields["direct"]:
        fields |= {"to_c": binding.out_strides[1], "to_h": (0, *binding.out_strides[2:])[-2]}
    fields |= {
        "columns": columns.ctypes.data,
        "strips": len(table),
        "table": table.ctypes.data,
    }
    workers = worth_helpers(problem.macs, device.threads)
    chunks = -(-problem.batch * problem.groups // fields["items"])
    lanes = device.lanes(size)
    kernel = compile_kernel(_make_kernel(lanes, storage, compute), "sliding", lanes, storage)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields.get(name, 0) for name in FIELDS}),
        stages=(Stage(kernel, chunks * math.prod(problem.out_size[:-2]) * fields["bands"]),),
        workers=workers,
        workspace_bytes=fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=pack_stage(problem, binding, storage, compute),
        pack_bytes=0,
        packed_size=math.prod(problem.weight_shape),
        packing=("plain", compute, storage),
        tables=(columns, table),
    )
