"""Sliding windows over the input itself: no copy, borders by masks.

The twin of sliding.py for inputs whose rows are contiguous, in float32 or float64, with a
horizontal stride of 1 or 2. It wins there by the copy that it saves, which on the 3x3 layers of
mobile networks costs as much as the arithmetic::

    task = some images and groups x output depth x band of rows
      for output channel of the group
        for rh rows (those that share input), for nv vectors
          window tile                           masked loads where it reaches over a side
        residual, other activations             on the band just stored

A row above or below the input is read from a row of zeros, so that only the sides need masks; a
tile that touches neither side is code of its own, with plain loads. With a stride of 2 a pair of
vectors is split into its even and odd elements, which serve two taps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.problem import ConvProblem
from fastconv.spec import Binding, DeviceInfo

from . import jit
from .finish import FINISH_FIELDS, finish_fields, make_finish_vector
from .geometry import as_record, make_record
from .plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from .sliding import TASKS, UNROLLED_TAPS, pack_stage
from .vectors import (
    F32,
    F64,
    I8,
    I32,
    I64,
    ITEMSIZE,
    broadcast,
    call_address,
    compute_ir,
    literals,
    load_vector,
    pointer,
    storage_code,
)
from .window import Window

__all__ = ["fits", "plan"]

_FIELDS = (
    *FINISH_FIELDS,
    "band_rows",  # output rows of one task
    "bands",  # tasks along the output height
    "items",  # images and groups of one task
    "share",  # distance of the output rows of one tile
    "zeros",  # address of a row of zeros
    "band",  # address of the compiled band
)
_view = as_record(_FIELDS)


class _BorderWindow(Window):
    """A window whose rows may lie outside the input, and whose vectors may reach over its sides."""

    def __init__(self, builder: Any, args: Any, shape: Sequence[int], code: int) -> None:
        window, place, self.masked = shape[:5], shape[5:8], bool(shape[8])
        self.row_share, self.step, self.dense = place[0], place[1], bool(place[2])
        (x, self.xc, self.xd, self.xh, self.d0, self.dd, self.id, self.kd, planes, self.h0,
         self.dh, self.ih, self.col0, self.dw, self.iw, self.zeros, *rest) = args  # fmt: skip
        super().__init__(builder, [x, I64(0), planes, I64(0), None, *rest], window, code)
        self.flags: dict[tuple[int, int], Any] = {}
        self.pairs: dict[int, list[Any]] = {}

    def plane(self, i: Any) -> Any:
        """Return where plane `i` (channel, kernel depth) begins, and note whether it exists."""
        builder = self.builder
        channel, k = builder.sdiv(i, self.kd), builder.srem(i, self.kd)
        depth = builder.add(self.d0, builder.mul(k, self.dd))
        self.plane_exists = builder.icmp_unsigned("<", depth, self.id)
        offset = builder.add(builder.mul(channel, self.xc), builder.mul(depth, self.xd))
        return builder.gep(self.x, [offset])

    def row(self, x: Any, q: Any) -> Any:
        """Return where input row `q` of the window begins; the row of zeros for one outside."""
        builder = self.builder
        h = builder.add(self.h0, builder.mul(q, self.dh))
        exists = builder.and_(self.plane_exists, builder.icmp_unsigned("<", h, self.ih))
        self.pairs = {}
        return builder.select(exists, builder.gep(x, [builder.mul(h, self.xh)]), self.zeros)

    def inside(self, column: Any, first: int) -> Any:
        """Return flags for the lanes whose element lies in the input's row."""
        builder, kind = self.builder, ir.VectorType(I32, self.lanes)
        lane = ir.Constant(kind, [I32(first + i) for i in range(self.lanes)])
        start = broadcast(builder, builder.trunc(column, I32), self.lanes)
        limit = broadcast(builder, builder.trunc(self.iw, I32), self.lanes)
        return builder.icmp_unsigned("<", builder.add(lane, start), limit)

    def run(self, row: Any, s: Any, first: int) -> Any:
        """Load the vector of elements from tap column `s` plus `first` on."""
        builder = self.builder
        column = builder.add(self.col0, builder.mul(s, self.dw))
        flags = None
        if self.masked:
            key = (s.constant if isinstance(s, ir.Constant) else -1, first)
            flags = self.flags.get(key) or self.inside(column, first)
        offset = builder.mul(builder.add(column, I64(first)), I64(self.size))
        return load_vector(builder, builder.gep(row, [offset]), self.lanes, self.code, flags)

    def vectors(self, row: Any, column: Any) -> list[Any]:
        """Load the tile's vectors of one input row at one tap column."""
        if self.step == 1:
            return [self.run(row, column, j * self.lanes) for j in range(self.nv)]
        tap = column.constant if self.dense and isinstance(column, ir.Constant) else 0
        if tap % 2 == 1:  # its elements came with those of the tap before
            runs, parity = self.pairs[tap - 1], 1
        else:
            runs = [self.run(row, column, j * self.lanes) for j in range(2 * self.nv)]
            self.pairs[tap], parity = runs, 0
        kind = ir.VectorType(I32, self.lanes)
        pattern = ir.Constant(kind, [I32(2 * i + parity) for i in range(self.lanes)])
        return [
            self.builder.shuffle_vector(runs[2 * j], runs[2 * j + 1], pattern)
            for j in range(self.nv)
        ]

    def emit(self) -> None:
        """Emit the masks of an unrolled kernel, which hold for all rows, then the tile."""
        if self.masked and self.kh_literal:
            for s in range(0, self.kw_literal, 2 if self.step == 2 and self.dense else 1):
                column = self.builder.add(self.col0, self.builder.mul(I64(s), self.dw))
                for first in range(0, self.nv * self.step * self.lanes, self.lanes):
                    self.flags[s, first] = self.inside(column, first)
        super().emit()


@intrinsic(prefer_literal=True)
def border_tile(
    typingctx: Any, x: Any, xc: Any, xd: Any, xh: Any, d0: Any, dd: Any, id: Any, kd: Any,
    planes: Any, h0: Any, dh: Any, ih: Any, col0: Any, dw: Any, iw: Any, zeros: Any, w: Any,
    kh: Any, kw: Any, c: Any, c_pitch: Any, bias: Any, low: Any, high: Any, width: Any, rows: Any,
    shape: Any,
) -> Any:  # fmt: skip
    """Compute one tile from the input itself.

    Parameters
    ----------
    x, xc, xd, xh : intp
        Address of the group's first channel, and bytes between channels, depths and rows.
    d0, dd, id, kd : intp
        First input depth, dilation, number of depths, kernel depth.
    planes : intp
        Input channels of the group times kernel depth.
    h0, dh, ih : intp
        First input row, distance of the window's input rows, number of rows.
    col0, dw, iw : intp
        First input column, dilation, number of columns.
    zeros : intp
        Address of a row of zeros.
    w, kh, kw, c, c_pitch, bias, low, high, width, rows
        As for `window_tile`.
    shape : tuple of literal int
        rh, nv, lanes, kh_literal, kw_literal; input rows between the first ones of successive
        output rows; horizontal stride (1 or 2); 1 for a horizontal dilation of 1; 1 for masked
        loads; storage code.
    """
    sizes = literals(shape.types) if isinstance(shape, types.BaseTuple) else None
    if sizes is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = list(args[:26])
        for index in (0, 15, 16, 19, 21):
            values[index] = pointer(builder, values[index], I8)
        kind = compute_ir(sizes[9])
        if kind != values[22].type:
            values[22:24] = (builder.fptrunc(value, kind) for value in values[22:24])
        _BorderWindow(builder, values, sizes[:9], sizes[9]).emit()
        return context.get_dummy_value()

    word, real = types.intp, types.float64
    return types.void(*([word] * 22), real, real, word, word, shape), codegen


_BAND_SIGNATURE = jit.void(9)


def _band_address(shape: tuple[int, ...], code: int) -> int:
    """Return the address of a function that computes a band of rows of one output channel.

    `shape` is that of `border_tile` without the mask flag and the code.
    """
    rh, nv, lanes, kh_taps, kw_taps, row_share, step, dense = shape
    across = nv * lanes
    size = ITEMSIZE[code]

    def band(geometry: int, x: int, weight: int, bias: int, out: int, od: int, first_row: int,
             rows: int, unused: int) -> None:  # fmt: skip
        g = _view(geometry)
        low, high = g.low, g.high
        if g.has_residual:
            low, high = -np.inf, np.inf
        window_step = g.dh if row_share == 1 else 1
        reach = across * step - 1 + (g.kw - 1) * g.dw
        for residue in range(min(g.share, rows)):
            for row in range(residue, rows, g.share * rh):
                count = min(rh, (rows - row + g.share - 1) // g.share)
                h0 = (first_row + row) * g.sh - g.ph
                for ow in range(0, g.ow, across):
                    col0 = ow * step - g.pw
                    to = out + row * g.yh + ow * size
                    width = min(across, g.ow - ow)
                    if col0 >= 0 and col0 + reach < g.iw:
                        border_tile(
                            x, g.xc, g.xd, g.xh, od * g.sd - g.pd, g.dd, g.id, g.kd, g.c * g.kd,
                            h0, window_step, g.ih, col0, g.dw, g.iw, g.zeros, weight, g.kh, g.kw,
                            to, g.share * g.yh, bias, low, high, width, count,
                            (rh, nv, lanes, kh_taps, kw_taps, row_share, step, dense, 0, code),
                        )  # fmt: skip
                    else:
                        border_tile(
                            x, g.xc, g.xd, g.xh, od * g.sd - g.pd, g.dd, g.id, g.kd, g.c * g.kd,
                            h0, window_step, g.ih, col0, g.dw, g.iw, g.zeros, weight, g.kh, g.kw,
                            to, g.share * g.yh, bias, low, high, width, count,
                            (rh, nv, lanes, kh_taps, kw_taps, row_share, step, dense, 1, code),
                        )  # fmt: skip

    return int(jit.compile_callback(band, _BAND_SIGNATURE, ("stencil_band", *shape, code)).address)


@intrinsic
def _call_band(
    typingctx: Any, function: Any, geometry: Any, x: Any, weight: Any, bias: Any, out: Any,
    od: Any, first_row: Any, rows: Any, unused: Any,
) -> Any:  # fmt: skip
    """Call the function at a `_band_address`."""
    return types.void(types.intp, *_BAND_SIGNATURE.args), call_address


@functools.cache
def _make_kernel(lanes: int, code: int) -> Any:
    """Return the task: see the drawing at the top of this file."""
    size = ITEMSIZE[code]
    finish_vector = make_finish_vector(lanes, code, code)

    @numba.njit
    def finish_band(g: Any, out: int, residual: int, rows: int, scratch: int) -> None:
        """Apply residual and activation to a band where it lies."""
        for row in range(rows):
            y, r = out + row * g.yh, residual + row * g.rh
            for start in range(0, g.ow, lanes):
                at = y + start * size
                count = min(lanes, g.ow - start)
                finish_vector(g, at, 0.0, at, r + start * g.rw, count, scratch)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        band, rest = number % g.bands, number // g.bands
        od, chunk = rest % g.od, rest // g.od
        first_row = band * g.band_rows
        rows = min(g.band_rows, g.oh - first_row)
        taps = g.c * g.kd * g.kh * g.kw
        y_start, r_start = od * g.yd + first_row * g.yh, od * g.rd + first_row * g.rh
        for item in range(chunk * g.items, min((chunk + 1) * g.items, g.n * g.groups)):
            image, group = item // g.groups, item % g.groups
            source = x + image * g.xn + group * g.c * g.xc
            for k in range(group * g.k, (group + 1) * g.k):
                y = out + image * g.yn + k * g.yc + y_start
                _call_band(
                    g.band, geometry, source, weight + k * taps * size, bias + k * size, y, od,
                    first_row, rows, 0,
                )  # fmt: skip
                if g.needs_finish:
                    extra = residual + image * g.rn + k * g.rc + r_start
                    finish_band(g, y, extra, rows, workspace)

    return task


def fits(problem: ConvProblem, binding: Binding) -> bool:
    """Return whether the input can be read, and the output written, where it lies."""
    if problem.dtype not in ("float32", "float64") or problem.stride[-1] > 2:
        return False
    size = ITEMSIZE[storage_code(problem.dtype)]
    contiguous = problem.in_size[-1] == 1 or binding.x_strides[-1] == size
    return contiguous and binding.out_strides[-1] == size


def _tile_shape(problem: ConvProblem, device: DeviceInfo, size: int) -> tuple[int, ...]:
    """Choose the tile: rows that share input, vectors that waste the fewest lanes."""
    lanes, width = device.lanes(size), problem.out_size[-1]
    while lanes > 4 and width <= lanes // 2:
        lanes //= 2  # narrower vectors cost less where a wide one would be half empty
    kh, kw = (1, *problem.kernel_size)[-2:]
    (sh, sw), (dh, dw) = (1, *problem.stride)[-2:], (1, *problem.dilation)[-2:]
    height = (1, *problem.out_size)[-2]
    unrolled = kh * kw <= UNROLLED_TAPS
    rh, row_share = 1, 1
    if kh > 1 and height > 1 and sh == 1:
        rh = 4 if unrolled or kh >= 4 else kh
    elif unrolled and height > 1 and dh == 1 and sh < kh:
        rh, row_share = 4 if sh == 2 else 1, sh
    most = 4 if device.registers == 32 or rh == 1 else 2
    vectors = -(-width // lanes)
    nv = min(range(1, most + 1), key=lambda n: (-(-vectors // n) * (n + 0.6), n))
    small = (kh, kw) if unrolled else (0, 0)
    return (rh, nv, lanes, *small, row_share, sw, int(dw == 1))


def _bands(problem: ConvProblem, threads: int) -> tuple[int, int]:
    """Return the output rows and the images and groups of one task."""
    height = (1, *problem.out_size)[-2]
    depths = math.prod(problem.out_size[:-2])
    jobs = problem.batch * problem.groups
    wanted = TASKS * threads
    bands = min(max(1, wanted // (jobs * depths)), -(-height // 8))
    band_rows = -(-height // bands)
    bands = -(-height // band_rows)
    return band_rows, max(1, jobs * depths * bands // wanted)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding that `fits`."""
    code = F64 if problem.dtype == "float64" else F32
    shape = _tile_shape(problem, device, ITEMSIZE[code])
    band_rows, items = _bands(problem, device.threads)
    bands = -(-(1, *problem.out_size)[-2] // band_rows)
    stride, dilation = (1, *problem.stride)[-2:], (1, *problem.dilation)[-2:]
    zeros = np.zeros(problem.in_size[-1] + 1, compute_dtype(problem.dtype))
    fields = finish_fields(binding, direct=True) | {
        "band_rows": band_rows,
        "bands": bands,
        "items": items,
        "share": dilation[0] if stride[0] == 1 else 1,
        "zeros": zeros.ctypes.data,
        "band": _band_address(shape, code),
    }
    chunks = -(-problem.batch * problem.groups // items)
    lanes = device.lanes(ITEMSIZE[code])
    kernel = compile_kernel(_make_kernel(lanes, code), "stencil", lanes, code)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields[name] for name in _FIELDS}),
        stages=(Stage(kernel, chunks * math.prod(problem.out_size[:-2]) * bands),),
        workers=worth_helpers(problem.macs, device.threads),
        workspace_bytes=0,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=pack_stage(problem, binding, code, code),
        pack_bytes=0,
        packed_size=math.prod(problem.weight_shape),
        packing=("sliding", code),
        tables=(zeros,),
    )
