"""Sliding windows over the input itself: no copy, borders by masks.

The twin of rows_copied.py for inputs whose rows are contiguous, with a horizontal stride of 1 or 2
and a kernel whose sums fit the registers; halves and integers are widened as they are loaded, and
rounded as they are stored where nothing but a clamp is left to do. It wins there by the copy
that it saves, which on the 3x3 layers of mobile networks costs as much as the arithmetic::

    task = some images and groups x slab of output depths x band of rows
      for output depth                              one task reads what neighbours share
        for strip of columns                      row_loops.py; masked loads where it reaches over a
          for group, output channel, row            side, which only its outer vectors do
        residual, other activations                 on the band just stored

Rows above or below the input are skipped. With a stride of 2 a pair of vectors is split into its
even and odd elements, which serve two taps.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..common.epilogue import epilogue_fields, make_epilogue_vector
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import make_record
from ..simd.intrinsics import load_scalar, store_scalar
from ..simd.ir import ITEMSIZE, operand_codes
from .row_calls import Band, call_parts
from .row_costs import pattern_period, pattern_vectors, row_blocking
from .row_loops import FIELDS, pack_stage, pattern_kernel, strip_table, view
from .rows_copied_layout import TASKS

__all__ = ["plan"]


@functools.cache
def _make_kernel(lanes: int, code: int) -> Any:
    """Return the task: see the loop nest above; `code` is of weights, and of whole results."""
    size = ITEMSIZE[code]
    end_vector = make_epilogue_vector(lanes, code, code)

    @numba.njit
    def apply_epilogue(
        g: Any, slopes: int, out: int, residual: int, maps: int, rows: int, scratch: int
    ) -> None:
        """Apply residual and activation to a band of some channels where it lies."""
        for k in range(maps):
            for row in range(rows):
                y, r = out + k * g.yc + row * g.yh, residual + k * g.rc + row * g.rh
                for start in range(0, g.ow, lanes):
                    at = y + start * size
                    count = min(lanes, g.ow - start)
                    end_vector(g, at, 0.0, at, r + start * g.rw, slopes + k * size, count, scratch)

    @numba.njit
    def group_strips(
        g: Any, geometry: int, x: int, weight: int, bias: int, out: int, od: int, first_row: int,
        rows: int, groups: int,
    ) -> None:  # fmt: skip
        """Compute a band of one output depth for some groups."""
        d0 = od * g.sd - g.pd
        skipped = max(0, (g.dd - 1 - d0) // g.dd)
        depths = max(0, min(g.kd, (g.id - d0 + g.dd - 1) // g.dd) - skipped)
        band = Band(
            x=x + (d0 + skipped * g.dd) * g.xd, weight=weight + skipped * g.kh * g.kw * g.tap_bytes,
            bias=bias, out=out + od * g.yd + first_row * g.yh, h0=first_row * g.sh - g.ph,
            h_end=g.ih, rows=rows, depths=depths, groups=groups,
        )  # fmt: skip
        call_parts(g, geometry, 0, g.parts, band)

    @numba.njit
    def spread_bias(g: Any, bias: int, target: int) -> int:
        """Write the biases of interleaved channels as the vectors that sums start from."""
        for e in range(g.tap_bytes // size):
            value = load_scalar(bias + e % g.channels * size, code)
            store_scalar(target + e * size, value, code)
        return target

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        if g.period:
            bias = spread_bias(g, bias, workspace + worker * g.worker_bytes)
        band, rest = number % g.bands, number // g.bands
        slab, chunk = rest % g.slabs, rest // g.slabs
        first_row = band * g.band_rows
        rows = min(g.band_rows, g.oh - first_row)
        item, end = chunk * g.items, min((chunk + 1) * g.items, g.n * g.groups)
        while item < end:
            image, group = item // g.groups, item % g.groups
            groups, k = min(end - item, g.groups - group, g.together), group * g.k
            y, r = out + image * g.yn + k * g.yc, residual + image * g.rn + k * g.rc
            for od in range(slab * g.od // g.slabs, (slab + 1) * g.od // g.slabs):
                group_strips(
                    g, geometry, x + image * g.xn + group * g.in_g,
                    weight + k * g.c * g.kd * g.kh * g.kw * size, bias + k * size, y, od,
                    first_row, rows, groups,
                )  # fmt: skip
                if g.needs_epilogue:
                    apply_epilogue(
                        g, bias + k * size + g.slopes_at, y + od * g.yd + first_row * g.yh,
                        r + od * g.rd + first_row * g.rh, groups * g.k, rows, workspace,
                    )  # fmt: skip
            item += groups

    return task


def _tasks(problem: ConvProblem, threads: int) -> dict[str, int]:
    """Divide images and groups, then depths, then rows, until there are enough tasks."""
    height = (1, *problem.out_size)[-2]
    jobs = problem.batch * problem.groups
    wanted = TASKS * threads
    slabs = min(math.prod(problem.out_size[:-2]), -(-wanted // jobs))
    last_tap = ((1, *problem.kernel_size)[-2] - 1) * (1, *problem.dilation)[-2]
    # The first steps of a band fill the sums; at most a fifth of its work may go there.
    bands = min(max(1, wanted // (jobs * slabs)), max(1, height // max(8, 4 * last_tap)))
    band_rows = -(-height // bands)
    bands = -(-height // band_rows)
    return {
        "band_rows": band_rows,
        "bands": bands,
        "slabs": slabs,
        "items": max(1, jobs * slabs * bands // wanted),
    }


def plan(
    problem: ConvProblem, binding: Binding, device: DeviceInfo, interleaved: int = 1
) -> CpuPlan:
    """Prepare the kernel for a problem and a binding for which variants.py chose this.

    Rows of one channel may be those of some that are `interleaved` (rows_interleaved.py).
    """
    codes = operand_codes(problem)
    code, size = codes.compute, problem.compute_itemsize
    lanes, period = device.lanes(size), pattern_period(interleaved, device.lanes(size))
    pattern = pattern_vectors(period) * lanes * size if period else size
    blocking = row_blocking(problem, device, size)
    told = (code, codes.x, codes.out)
    table, parts = strip_table(problem, blocking, problem.stride[-1], told, period)
    tasks = _tasks(problem, device.threads)
    x, out = ((0, 0, *strides[2:])[-3:] for strides in (binding.x_strides, binding.out_strides))
    dilation = (1, 1, *problem.dilation)[-3:]
    channels = problem.in_channels // problem.groups
    map_bytes = (math.prod(problem.in_size) + math.prod(problem.out_size)) * size
    fields = (
        epilogue_fields(binding, direct=True)
        | tasks
        | parts
        | {
            "in_g": channels * binding.x_strides[1],
            "in_c": binding.x_strides[1],
            "in_d": dilation[0] * x[0],
            "in_h": x[1],
            "unit": dilation[1] if (1, *problem.kernel_size)[-2] > 1 else 1,
            "row_interleave": blocking.row_interleave,
            "tap_bytes": pattern,
            "period": period,
            "channels": interleaved,
            "worker_bytes": pattern,
            "to_c": binding.out_strides[1],
            "to_h": out[1],
            "together": max(1, device.l1 // (2 * channels * map_bytes)),
        }
    )
    chunks = -(-problem.batch * problem.groups // tasks["items"])
    kernel = compile_kernel(_make_kernel(lanes, code), "stencil", lanes, code)
    workers, taps = worth_helpers(problem.macs, device.threads), math.prod(problem.weight_shape)
    plain = pack_stage(problem, binding, codes.weight, code)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields.get(name, 0) for name in FIELDS}),
        stages=(Stage(kernel, chunks * tasks["slabs"] * tasks["bands"]),),
        workers=workers,
        workspace_bytes=workers * pattern if period else 0,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels * interleaved,
        pack_stage=Stage(pattern_kernel(lanes, code), taps) if period else plain,
        pack_bytes=0,
        packed_size=taps * pattern // size,
        packing=("pattern", lanes, code) if period else ("plain", code, codes.weight),
        tables=(table,),
    )
