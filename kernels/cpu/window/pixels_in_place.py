"""Depthwise convolution of channels-last arrays: the lanes of a vector are channels.

Wins wherever the channels of input and output are contiguous: no tap is misaligned against
another, no lane is lost at the end of a row, and columns outside the input are known when the code
is made, so nothing is computed for them. Input rows roll through registers as in row_tile.py, with
pixels in the place of vectors::

    task = image x output depth x band of rows x some channels
      for strip of nv pixels                      columns beyond a side are left out of its code
        for vector of channels
          for input row                           unless it is padding
            load nv + kw - 1 pixels               once; each serves up to kw taps of kh rows
            nv * kh * kw multiply-adds

Budget (AVX-512, float32, 3x3): 5 pixels x 3 rows of sums, 5 pixels, 9 weights: 29 of 32 registers;
45 multiply-adds out of 7 loads. 7x7: 3 x 7 sums, 3 pixels; 147 multiply-adds out of 9 loads and 49
of weights. Halves and integers are widened as they are loaded and rounded as they are stored.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..common.epilogue import epilogue_fields, make_activation
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import make_record
from ..simd.intrinsics import add, load_masked, range_mask, store_masked
from ..simd.ir import ITEMSIZE, Codes, operand_codes
from .pixel_costs import pixel_blocking
from .pixel_strip import FIELDS, pixel_table, view
from .pixel_weights import make_pixel_weights
from .row_calls import Band, call_parts
from .rows_copied_layout import TASKS

__all__ = ["plan"]


@functools.cache
def _make_kernel(lanes: int, codes: Codes) -> Any:
    """Return the task: see the loop nest above."""
    item, out_item, size = ITEMSIZE[codes.x], ITEMSIZE[codes.out], ITEMSIZE[codes.compute]
    stored, apply_activation = codes.out, make_activation(lanes, codes.compute)

    @numba.njit
    def apply_epilogue(
        g: Any, slopes: int, out: int, residual: int, rows: int, channels: int
    ) -> None:
        """Apply residual and activation to a band where it lies."""
        for row in range(rows):
            for column in range(g.ow):
                y, r = out + row * g.yh + column * g.yw, residual + row * g.rh + column * g.rw
                for c in range(0, channels, lanes):
                    mask = range_mask(0, min(lanes, channels - c))
                    value = load_masked(y + c * out_item, mask, stored, lanes)
                    if g.has_residual:
                        value = add(value, load_masked(r + c * out_item, mask, stored, lanes))
                    value = apply_activation(
                        value, g.epilogue_code, g.alpha, slopes + c * size, size, mask
                    )
                    store_masked(y + c * out_item, value, mask, stored)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        chunk, rest = number % g.chunks, number // g.chunks
        band, rest = rest % g.bands, rest // g.bands
        od, image = rest % g.od, rest // g.od
        c, channels = chunk * g.chunk, min(g.chunk, g.groups - chunk * g.chunk)
        first_row = band * g.band_rows
        rows = min(g.band_rows, g.oh - first_row)
        d0 = od * g.sd - g.pd
        skipped = max(0, (g.dd - 1 - d0) // g.dd)
        depths = max(0, min(g.kd, (g.id - d0 + g.dd - 1) // g.dd) - skipped)
        source = x + image * g.xn + (d0 + skipped * g.dd) * g.xd + c * item
        y = out + image * g.yn + od * g.yd + first_row * g.yh + c * out_item
        rows_of_band = Band(
            x=source, weight=weight + (c * g.kd + skipped * lanes) * g.kh * g.kw * size,
            bias=bias + c * size, out=y, h0=first_row * g.sh - g.ph, h_end=g.ih, rows=rows,
            depths=depths, groups=channels,
        )  # fmt: skip
        call_parts(g, geometry, 0, g.parts, rows_of_band)
        if g.needs_epilogue:
            extra = residual + image * g.rn + od * g.rd + first_row * g.rh + c * out_item
            apply_epilogue(g, bias + c * size + g.slopes_at, y, extra, rows, channels)

    return task


#: Fewest vectors of channels in a task. Neighbouring tasks write to a common cache line of each
#: pixel, which the cores then hand to and fro.
_CHUNK = 3


def _tasks(problem: ConvProblem, device: DeviceInfo, lanes: int) -> dict[str, int]:
    """Divide rows, then channels, until there are enough tasks."""
    outer = problem.batch * math.prod(problem.out_size[:-2])
    height, vectors = (1, *problem.out_size)[-2], -(-problem.groups // lanes)
    last_tap = ((1, *problem.kernel_size)[-2] - 1) * (1, *problem.dilation)[-2]
    wanted = -(-TASKS * device.threads // outer)
    # The first steps of a band fill the sums; at most a fifth of its work may go there.
    bands = min(wanted, max(1, height // max(8, 4 * last_tap)))
    band_rows = -(-height // bands)
    bands = -(-height // band_rows)
    chunk = max(min(_CHUNK, vectors), -(-vectors * bands // wanted))
    return {
        "band_rows": band_rows,
        "bands": bands,
        "chunk": chunk * lanes,
        "chunks": -(-vectors // chunk),
    }


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for a problem and a binding for which variants.py chose this."""
    codes = operand_codes(problem)
    lanes = device.lanes(problem.compute_itemsize)
    blocking = pixel_blocking(problem, device, False)
    assert blocking is not None
    padded = -(-problem.groups // lanes) * lanes
    table, parts = pixel_table(problem, device, blocking, codes.x, codes.out)
    x, out = ((0, 0, *strides[2:])[-3:] for strides in (binding.x_strides, binding.out_strides))
    fields = _tasks(problem, device, lanes) | epilogue_fields(binding, direct=True)
    fields |= parts | {
        "in_d": (1, 1, *problem.dilation)[-3] * x[0],
        "in_h": x[1],
        "in_w": x[2],
        "to_h": out[1],
        "to_w": out[2],
        "unit": (1, *problem.dilation)[-2] if (1, *problem.kernel_size)[-2] > 1 else 1,
        "row_interleave": blocking.row_interleave,
    }
    tasks = problem.batch * math.prod(problem.out_size[:-2]) * fields["bands"] * fields["chunks"]
    kernel = compile_kernel(_make_kernel(lanes, codes), "channels_last", lanes, *codes)
    order = (lanes, codes.weight)
    pack = compile_kernel(make_pixel_weights(*order), "pack_pixels", *order)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields.get(name, 0) for name in FIELDS}),
        stages=(Stage(kernel, tasks),),
        workers=worth_helpers(problem.macs, device.threads),
        workspace_bytes=0,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(pack, padded // lanes),
        pack_bytes=0,
        packed_size=math.prod(problem.kernel_size) * padded,
        packing=("pixels", *order),
        tables=(table,),
    )
