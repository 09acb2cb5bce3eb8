"""Sliding windows over the input itself: no copy, borders by masks.

The twin of sliding.py for inputs whose rows are contiguous, in float32 or float64, with a
horizontal stride of 1 or 2 and a kernel whose sums fit the registers. It wins there by the copy
that it saves, which on the 3x3 layers of mobile networks costs as much as the arithmetic::

    task = some images and groups x output depth x band of rows
      for strip of columns                          strips.py; masked loads where it reaches over a
        for group, output channel, row              side, which only its outer vectors do
      residual, other activations                   on the band just stored

Rows above or below the input are skipped. With a stride of 2 a pair of vectors is split into its
even and odd elements, which serve two taps.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from fastconv.problem import ConvProblem
from fastconv.spec import Binding, DeviceInfo

from .finish import finish_fields, make_finish_vector
from .geometry import make_record
from .plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from .simd import get_word
from .strips import FIELDS, TASKS, call_strip, cut, pack_stage, strip_table, view
from .vectors import F32, F64, ITEMSIZE, storage_code

__all__ = ["fits", "plan"]


@functools.cache
def _make_kernel(lanes: int, code: int) -> Any:
    """Return the task: see the drawing at the top of this file."""
    size = ITEMSIZE[code]
    finish_vector = make_finish_vector(lanes, code, code)

    @numba.njit
    def finish_maps(g: Any, out: int, residual: int, maps: int, rows: int, scratch: int) -> None:
        """Apply residual and activation to a band of some channels where it lies."""
        for k in range(maps):
            for row in range(rows):
                y, r = out + k * g.yc + row * g.yh, residual + k * g.rc + row * g.rh
                for start in range(0, g.ow, lanes):
                    at = y + start * size
                    count = min(lanes, g.ow - start)
                    finish_vector(g, at, 0.0, at, r + start * g.rw, count, scratch)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        band, rest = number % g.bands, number // g.bands
        od, chunk = rest % g.od, rest // g.od
        first_row = band * g.band_rows
        rows = min(g.band_rows, g.oh - first_row)
        d0 = od * g.sd - g.pd
        skipped = max(0, (g.dd - 1 - d0) // g.dd)
        depths = max(0, min(g.kd, (g.id - d0 + g.dd - 1) // g.dd) - skipped)
        taps = g.kh * g.kw * size
        item, end = chunk * g.items, min((chunk + 1) * g.items, g.n * g.groups)
        while item < end:
            image, group = item // g.groups, item % g.groups
            count = min(end - item, g.groups - group, g.together)
            source = x + image * g.xn + group * g.in_g + (d0 + skipped * g.dd) * g.xd
            k = group * g.k
            y = out + image * g.yn + k * g.yc + od * g.yd + first_row * g.yh
            for s in range(g.strips):
                call_strip(
                    get_word(g.table, 2 * s), geometry, get_word(g.table, 2 * s + 1), source,
                    weight + (k * g.c * g.kd + skipped) * taps, bias + k * size, y,
                    first_row * g.sh - g.ph, g.ih, rows, depths, count,
                )  # fmt: skip
            if g.needs_finish:
                extra = residual + image * g.rn + k * g.rc + od * g.rd + first_row * g.rh
                finish_maps(g, y, extra, count * g.k, rows, workspace)
            item += count

    return task


def fits(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> bool:
    """Return whether the input can be read, and the output written, where it lies."""
    if problem.dtype not in ("float32", "float64") or problem.stride[-1] > 2:
        return False
    size = ITEMSIZE[storage_code(problem.dtype)]
    contiguous = problem.in_size[-1] == 1 or binding.x_strides[-1] == size
    if not contiguous or binding.out_strides[-1] != size:
        return False
    return cut(problem, device, size).rows == 0


def _bands(problem: ConvProblem, threads: int) -> tuple[int, int]:
    """Return the output rows and the images and groups of one task."""
    height = (1, *problem.out_size)[-2]
    depths = math.prod(problem.out_size[:-2])
    jobs = problem.batch * problem.groups
    wanted = TASKS * threads
    reach = ((1, *problem.kernel_size)[-2] - 1) * (1, *problem.dilation)[-2]
    # The first steps of a band fill the sums; at most a fifth of its work may go there.
    bands = min(max(1, wanted // (jobs * depths)), max(1, height // max(8, 4 * reach)))
    band_rows = -(-height // bands)
    bands = -(-height // band_rows)
    return band_rows, max(1, jobs * depths * bands // wanted)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding that `fits`."""
    code = F64 if problem.dtype == "float64" else F32
    size = ITEMSIZE[code]
    way = cut(problem, device, size)
    table = strip_table(problem, way, problem.stride[-1], code)
    band_rows, items = _bands(problem, device.threads)
    bands = -(-(1, *problem.out_size)[-2] // band_rows)
    x, out = ((0, 0, *strides[2:])[-3:] for strides in (binding.x_strides, binding.out_strides))
    dilation = (1, 1, *problem.dilation)[-3:]
    channels = problem.in_channels // problem.groups
    map_bytes = (math.prod(problem.in_size) + math.prod(problem.out_size)) * size
    fields = finish_fields(binding, direct=True) | {
        "in_g": channels * binding.x_strides[1],
        "in_c": binding.x_strides[1],
        "in_d": dilation[0] * x[0],
        "in_h": x[1],
        "unit": dilation[1] if (1, *problem.kernel_size)[-2] > 1 else 1,
        "share": way.share,
        "to_c": binding.out_strides[1],
        "to_h": out[1],
        "strips": len(table),
        "table": table.ctypes.data,
        "band_rows": band_rows,
        "bands": bands,
        "items": items,
        "together": max(1, device.l1 // (2 * channels * map_bytes)),
    }
    chunks = -(-problem.batch * problem.groups // items)
    lanes = device.lanes(size)
    kernel = compile_kernel(_make_kernel(lanes, code), "stencil", lanes, code)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields.get(name, 0) for name in FIELDS}),
        stages=(Stage(kernel, chunks * math.prod(problem.out_size[:-2]) * bands),),
        workers=worth_helpers(problem.macs, device.threads),
        workspace_bytes=0,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=pack_stage(problem, binding, code, code),
        pack_bytes=0,
        packed_size=math.prod(problem.weight_shape),
        packing=("plain", code, code),
        tables=(table,),
    )
