"""Gradient of a depthwise convolution for its weight: lanes are pixels of one channel's row.

A channel's gradient is a sum over its own plane, so there is no product of matrices to make, and
`plan.py` would fill one lane of its tiles. Wins where each group holds one input channel. Rows that
are contiguous are read where they lie (depthwise_rows.py). Of others a
tap's products are summed by vectors along a row, with the sums of the taps of a kernel's row in
registers::

    task = group                                            taken by any thread
      for image, output depth, band of rows, span of columns
        copy: the input rows under the band, padded         common/phase_rows.py, in L1
        for output channel of the group, output row
          copy: the gradients of the row, where they are rounded or apart
          for kernel depth, kernel row, up to 8 taps
            for vector of the row                           one load a tap and one for all
              sums[tap] += gradients * samples[tap]
        add the sums to the totals
      add up the lanes of the totals, in order

Rows of padding are skipped. A lane sums at most 256 products before it is added to its total, so
that an error hardly grows with the number of pixels.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo, dense_binding

from ..common.copies import make_copy_vector, pair_mask
from ..common.phase_rows import PHASE_FIELDS, make_copy_band
from ..common.totals import make_totals
from ..common.workspace import Workspace
from ..runtime.plan import CpuPlan, compile_kernel
from ..runtime.record import as_record
from ..simd.intrinsics import (
    load_scalar,
    range_mask,
    store_scalar,
)
from ..simd.ir import (
    F64,
    I8,
    I64,
    ITEMSIZE,
    compute_code,
    first_lanes,
    fmuladd,
    literal,
    load_vector,
    pointer,
    storage_code,
    store_vector,
)
from ..window.row_costs import row_phases
from .depthwise_costs import TAPS, cut, reads_rows_in_place
from .depthwise_rows import plan_groups, plan_rows, rows_workspace, workers_of

__all__ = ["plan", "workspace"]

FIELDS = (
    *PHASE_FIELDS,
    "band_rows",  # output rows of a band
    "span_columns",  # output columns of a span
    "columns",  # address of the taps' offsets in a copied row
    "worker_bytes",
    "copy_at",  # samples
    "row_at",  # gradients of a row
    "sums_at",
    "totals_at",
)
view = as_record(FIELDS)


@intrinsic(prefer_literal=True)
def _add_products(
    typingctx: Any, samples: Any, gradients: Any, columns: Any, sums: Any, count: Any, taps: Any,
    compute: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Add the products of `count` gradients with each tap's samples to a vector of sums a tap.

    Tap i's samples begin at ``samples`` plus word i of `columns`. The last vector's lanes beyond
    `count` are neither read nor summed.
    """
    number, code, width = literal(taps), literal(compute), literal(lanes)
    if number is None or code is None or width is None:
        return None
    size = ITEMSIZE[code]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        table = pointer(builder, args[2], I64)
        offsets = [builder.load(builder.gep(table, [I64(i)])) for i in range(number)]
        starts = [builder.add(args[0], offset) for offset in offsets]
        places = [builder.add(args[3], I64(i * width * size)) for i in range(number)]
        held = [
            cgutils.alloca_once_value(
                builder, load_vector(builder, pointer(builder, place, I8), width, code)
            )
            for place in places
        ]

        def step(position: Any, mask: Any) -> None:
            """Multiply one vector of gradients with those of all taps."""
            offset = builder.mul(position, I64(size))

            def vector(base: Any) -> Any:
                address = pointer(builder, builder.add(base, offset), I8)
                return load_vector(builder, address, width, code, mask)

            gradient = vector(args[1])
            for start, total in zip(starts, held, strict=True):
                product = fmuladd(builder, gradient, vector(start), builder.load(total))
                builder.store(product, total)

        whole = builder.sdiv(args[4], I64(width))
        with cgutils.for_range(builder, whole) as loop:
            step(builder.mul(loop.index, I64(width)), None)
        done = builder.mul(whole, I64(width))
        rest = builder.sub(args[4], done)
        with builder.if_then(builder.icmp_signed(">", rest, I64(0))):
            step(done, first_lanes(builder, rest, width))
        for place, total in zip(places, held, strict=True):
            store_vector(builder, pointer(builder, place, I8), builder.load(total), code)
        return context.get_dummy_value()

    words = [types.intp] * 5
    return types.void(*words, taps, compute, lanes), codegen


@functools.cache
def _make_rows(lanes: int, storage: int, kw: int) -> Any:
    """Return a function that adds the products of one output row: all taps of its channel."""
    compute = compute_code(storage)
    size = ITEMSIZE[compute]
    line = lanes * size
    blocks, rest = divmod(kw, TAPS)
    full = TAPS if blocks else 1
    last = rest or 1
    copy_vector = make_copy_vector(lanes, storage, compute)

    @numba.njit
    def copy_gradients(source: int, step: int, count: int, target: int) -> None:
        for start in range(0, count, lanes):
            end = min(lanes, count - start)
            copy_vector(
                source + start * step, step, range_mask(0, end), pair_mask(0, end),
                target + start * size,
            )  # fmt: skip

    @numba.njit
    def add_row(
        g: Any, copy: int, row: int, h0: int, low: int, high: int, skipped: int, depths: int,
        count: int, sums: int,
    ) -> None:  # fmt: skip
        """Add the products of a row of gradients; input row `low` is the copy's first."""
        for depth in range(depths):
            for kh in range(g.kh):
                h = h0 + kh * g.dh
                if h < low or h >= high:
                    continue
                samples = copy + depth * g.in_d + (h - low) * g.in_h
                to = sums + ((skipped + depth) * g.kh + kh) * kw * line
                for block in range(blocks):
                    first = block * full
                    _add_products(
                        samples, row, g.columns + 8 * first, to + first * line, count, full,
                        compute, lanes,
                    )  # fmt: skip
                if rest:
                    first = blocks * full
                    _add_products(
                        samples, row, g.columns + 8 * first, to + first * line, count, last,
                        compute, lanes,
                    )  # fmt: skip

    return copy_gradients, add_row


@functools.cache
def _make_end(lanes: int, storage: int) -> Any:
    """Return a function that adds up the lanes of each total, in order, and stores it."""
    compute = compute_code(storage)
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32

    @numba.njit
    def end(totals: int, vectors: int, out: int) -> None:
        for i in range(vectors):
            total = as_compute(0.0)
            for lane in range(lanes):
                total += load_scalar(totals + (i * lanes + lane) * size, compute)
            store_scalar(out + i * item, total, storage)

    return end


@functools.cache
def _make_kernel(lanes: int, storage: int, kw: int) -> Any:
    """Return the task: see the loop nest above."""
    compute = compute_code(storage)
    size = ITEMSIZE[compute]
    line = lanes * size
    copy_band = make_copy_band(lanes, storage, compute)
    copy_gradients, add_row = _make_rows(lanes, storage, kw)
    (clear, move), end = make_totals(lanes, compute), _make_end(lanes, storage)

    @numba.njit
    def add_part(
        g: Any, source: int, gradients: int, od: int, first: int, rows: int, column: int, w: int
    ) -> None:
        """Add the products of a band's rows and a span's columns, for all of a group's outputs."""
        copy, sums, totals = w + g.copy_at, w + g.sums_at, w + g.totals_at
        taps, count = g.kd * g.kh * kw, min(g.span_columns, g.ow - column)
        d0, h0 = od * g.sd - g.pd, first * g.sh - g.ph
        skipped = min(max(0, (g.dd - 1 - d0) // g.dd), g.kd)
        depths = max(0, min(g.kd, (g.id - d0 + g.dd - 1) // g.dd) - skipped)
        low = max(0, h0)
        high = max(low, min(g.ih, h0 + (rows - 1) * g.sh + (g.kh - 1) * g.dh + 1))
        copy_band(g, source + (d0 + skipped * g.dd) * g.xd, depths, low, high, column, copy)
        for k in range(g.k):
            for r in range(rows):
                place = gradients + k * g.yc + od * g.yd + (first + r) * g.yh + column * g.yw
                row = place
                if g.yw != size or storage != compute:
                    row = w + g.row_at
                    copy_gradients(place, g.yw, count, row)
                add_row(g, copy, row, h0 + r * g.sh, low, high, skipped, depths, count, sums)
            move(sums, totals + k * taps * line, taps * line)

    def task(
        geometry: int, x: int, grad: int, bias: int, extra: int, out: int,
        workspace: int, group: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        w = workspace + worker * g.worker_bytes
        taps = g.kd * g.kh * kw
        clear(w + g.sums_at, taps * line)
        clear(w + g.totals_at, g.k * taps * line)
        for image in range(g.n):
            source = x + image * g.xn + group * g.xc
            gradients = grad + image * g.yn + group * g.k * g.yc
            for od in range(g.od):
                for first in range(0, g.oh, g.band_rows):
                    rows = min(g.band_rows, g.oh - first)
                    for column in range(0, g.ow, g.span_columns):
                        add_part(g, source, gradients, od, first, rows, column, w)
        for k in range(g.k):
            place = out + (group * g.k + k) * g.wk
            end(w + g.totals_at + k * taps * line, taps, place)

    return task


def _layout(problem: ConvProblem, device: DeviceInfo) -> dict[str, int]:
    """Return the cut and where a worker's workspace holds what."""
    size = problem.compute_itemsize
    lanes, phases, parts = device.lanes(size), row_phases(problem), cut(problem, device)
    depths = int(np.prod(problem.kernel_size[:-2], dtype=np.int64))
    taps = int(np.prod(problem.kernel_size, dtype=np.int64))
    row_bytes = phases * parts.length * size
    memory = Workspace()
    # A tap's last vector may end behind its phase; what is read there is not summed.
    memory.add("copy", depths * parts.copied * row_bytes + lanes * size)
    memory.add("row", parts.length * size)
    memory.add("sums", taps * lanes * size)
    memory.add("totals", problem.out_channels // problem.groups * taps * lanes * size)
    return memory.fields | {
        "in_c": depths * parts.copied * row_bytes,
        "in_d": parts.copied * row_bytes,
        "in_h": row_bytes,
        "phases": phases,
        "phase_length": parts.length,
        "band_rows": parts.rows,
        "span_columns": parts.columns,
    }


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    if reads_rows_in_place(problem, dense_binding(problem), device):
        return rows_workspace(problem, device)
    return _layout(problem, device)["worker_bytes"] * workers_of(problem, device)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel; the binding's `out_strides` are the gradient's, its weight is dense."""
    if reads_rows_in_place(problem, binding, device):
        return plan_rows(problem, binding, device)
    storage = storage_code(problem.dtype)
    size, fields = ITEMSIZE[compute_code(storage)], _layout(problem, device)
    lanes, kw, sw = device.lanes(size), problem.kernel_size[-1], problem.stride[-1]
    taps = np.arange(kw, dtype=np.int64)
    after = taps * problem.dilation[-1] // sw
    columns = (taps % fields["phases"] * fields["phase_length"] + after) * size
    fields["columns"] = columns.ctypes.data
    kernel = compile_kernel(
        _make_kernel(lanes, storage, kw), "depthwise_weight_grad", lanes, storage, kw
    )
    kept = {name: fields[name] for name in FIELDS}
    return plan_groups(problem, binding, device, kernel, kept, (columns,))
