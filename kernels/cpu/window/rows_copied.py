"""Sliding windows over a padded copy: for what rows_in_place.py cannot read in place.

That is every input with gaps between the elements of a row, or with a horizontal stride above 2,
every output that cannot be stored to as it is computed (halves with a residual, say), and kernels
of so many rows that they run as tiles, whose loops want no masks::

    task = some images and groups x output depth x band of rows x span of columns
      copy_band: the input rows under the band, padded         compute precision, in L2 or L1
        row = one stretch a phase that some tap meets           so that every tap is contiguous
      for strip of columns                                      row_loops.py
        for output channel of the group, row
      residual, other activations, dtypes, strides           common/epilogue.py, where there are any

The copy costs a load and a store for each input element, against ``kh * kw`` multiply-adds a vector
for each output channel. Rows and depths outside the input are not copied but skipped.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..common.epilogue import epilogue_fields, make_epilogue_vector
from ..common.memory_order import stores_results
from ..common.phase_rows import make_copy_band
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import make_record
from ..simd.ir import ITEMSIZE, Codes, operand_codes
from .row_calls import Band, call_parts, part_begin
from .row_loops import FIELDS, pack_stage, strip_table, view
from .row_strip import COPY
from .rows_copied_layout import layout

__all__ = ["plan", "workspace"]


@functools.cache
def _make_kernel(lanes: int, codes: Codes) -> Any:
    """Return the task: see the loop nest above."""
    size = ITEMSIZE[codes.compute]
    copy_band = make_copy_band(lanes, codes.x, codes.compute)
    end_vector = make_epilogue_vector(lanes, codes.out, codes.compute)

    @numba.njit
    def apply_epilogue(
        g: Any, sums: int, slopes: int, out: int, residual: int, rows: int, column: int, end: int,
        scratch: int,
    ) -> None:  # fmt: skip
        """Bring a band and span of one group's sums to where it belongs."""
        for k in range(g.k):
            for row in range(rows):
                source = sums + k * g.to_c + row * g.to_h
                y, r = out + k * g.yc + row * g.yh, residual + k * g.rc + row * g.rh
                for start in range(column, end, lanes):
                    end_vector(
                        g, source + (start - column) * size, 0.0, y + start * g.yw,
                        r + start * g.rw, slopes + k * size, min(lanes, end - start), scratch,
                    )  # fmt: skip

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        copy = workspace + worker * g.worker_bytes
        sums, scratch = copy + g.sums_at, copy + g.scratch_at
        span, rest = number % g.spans, number // g.spans
        first, end = span * g.span_parts, min((span + 1) * g.span_parts, g.parts)
        column, column_end = part_begin(g, first), min(part_begin(g, end), g.ow)
        band, rest = rest % g.bands, rest // g.bands
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
            copy_band(g, source, depths, low, high, column, copy)
            k = group * g.k
            y = out + image * g.yn + k * g.yc + od * g.yd + first_row * g.yh
            extra = residual + image * g.rn + k * g.rc + od * g.rd + first_row * g.rh
            rows_of_band = Band(
                x=copy - low * g.in_h - column * size,
                weight=weight + (k * g.c * g.kd + skipped) * taps, bias=bias + k * size,
                out=y if g.direct else sums - column * size, h0=h0, h_end=high, rows=rows,
                depths=depths, groups=1,
            )  # fmt: skip
            call_parts(g, geometry, first, end, rows_of_band)
            if not g.direct:
                slopes = bias + k * size + g.slopes_at
                apply_epilogue(g, sums, slopes, y, extra, rows, column, column_end, scratch)

    return task


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    fields = layout(problem, device)[-1]
    return fields["worker_bytes"] * worth_helpers(problem.macs, device.threads)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding."""
    codes = operand_codes(problem)
    compute, size = codes.compute, problem.compute_itemsize
    blocking, fields = layout(problem, device)
    sw, taps = problem.stride[-1], np.arange(problem.kernel_size[-1], dtype=np.int64)
    phase, after = taps % fields["phases"], taps * problem.dilation[-1] // sw
    columns = (phase * fields["phase_length"] + after) * size
    contiguous = binding.out_strides[-1] == ITEMSIZE[codes.out] or problem.out_size[-1] == 1
    # Strips round what they store, tiles do not.
    rounds = codes.out == compute or blocking.rows == 0
    direct = rounds and contiguous and stores_results(problem, binding)
    fields |= epilogue_fields(binding, direct=direct)
    fields["direct"] = int(not fields["needs_epilogue"])
    stored = codes.out if fields["direct"] else compute
    table, parts = strip_table(problem, blocking, COPY, (compute, compute, stored))
    if fields["direct"]:
        fields |= {"to_c": binding.out_strides[1], "to_h": (0, *binding.out_strides[2:])[-2]}
    fields |= parts | {"columns": columns.ctypes.data}
    workers = worth_helpers(problem.macs, device.threads)
    chunks = -(-problem.batch * problem.groups // fields["items"])
    blocks = fields["bands"] * fields["spans"]
    lanes = device.lanes(size)
    kernel = compile_kernel(_make_kernel(lanes, codes), "sliding", lanes, *codes)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields.get(name, 0) for name in FIELDS}),
        stages=(Stage(kernel, chunks * math.prod(problem.out_size[:-2]) * blocks),),
        workers=workers,
        workspace_bytes=fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=pack_stage(problem, binding, codes.weight, compute),
        pack_bytes=0,
        packed_size=math.prod(problem.weight_shape),
        packing=("plain", compute, codes.weight),
        tables=(columns, table),
    )
