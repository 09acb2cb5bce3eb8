"""Depthwise convolution of channels-last arrays: the lanes of a vector are channels.

Wins wherever the channels of input and output are contiguous: no tap is misaligned against
another, no lane is lost at the end of a row, and columns outside the input are known when the code
is made, so nothing is computed for them. Input rows roll through registers as in window.py, with
pixels in the place of vectors::

    task = image x output depth x band of rows x some channels
      for strip of nv pixels                      columns beyond a side are left out of its code
        for vector of channels
          for input row                           unless it is padding
            load nv + kw - 1 pixels               once; each serves up to kw taps of kh rows
            nv * kh * kw multiply-adds

Budget (AVX-512, float32, 3x3): 5 pixels x 3 rows of sums, 5 pixels, 9 weights: 29 of 32 registers;
45 multiply-adds out of 7 loads. 7x7: 3 x 7 sums, 3 pixels; 147 multiply-adds out of 9 loads and 49
of weights. Halves are widened as they are loaded and rounded as they are stored.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from fastconv.problem import ConvProblem
from fastconv.spec import Binding, DeviceInfo

from . import jit
from .epilogue import activate
from .finish import FINISH_FIELDS, finish_fields
from .geometry import as_record, make_record
from .plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from .simd import add, get_word, load_masked, load_scalar, range_mask, store_masked, store_scalar
from .strips import TASKS
from .vectors import (
    F32,
    F64,
    I64,
    ITEMSIZE,
    call_address,
    first_lanes,
    load_vector,
    storage_code,
)
from .window import Strip, emit_window

__all__ = ["fits", "plan"]

_FIELDS = (
    *FINISH_FIELDS,
    "unit",  # input rows between the kernel's
    "share",  # distance of the output rows of one strip
    "tap_bytes",  # weights of one tap
    "strips",  # number of strips across a row
    "table",  # address of the strips: function and first output column of each
    "band_rows",  # output rows of one task
    "bands",  # tasks along the output height
    "chunk",  # channels of one task
    "chunks",
)
_view = as_record(_FIELDS)

#: Cycles that a step of a strip costs beside its arithmetic.
_STEP = 10
#: Most multiply-adds of a step that are written out.
_UNROLLED_WORK = 700


class _PixelStrip(Strip):
    """A strip whose vectors are pixels, with channels in their lanes."""

    words = (*Strip.words, "xw", "yw", "wt")

    def __init__(self, builder: Any, args: Any, shape: Sequence[int]) -> None:
        (self.kh, self.kw, self.down, nv, self.lanes, self.sw, self.dilation, self.low, self.high,
         self.single, self.kept, self.masked, storage) = shape  # fmt: skip
        self.height, self.block = -(-self.kh // self.down), 1
        self.weights, self.pixels = {}, {}
        code = F64 if storage == F64 else F32
        super(Strip, self).__init__(builder, args, code, [self.lanes] * nv)
        self.storage = storage
        channels = first_lanes(builder, self.arg["width"], self.lanes)
        self.channels = channels if self.masked else None

    def vector(self, row: Any, s: int, j: int) -> Any:
        """Return the pixel under tap column `s` for output pixel `j`, None outside the input."""
        p = j * self.sw + s * self.dilation
        if not self.low <= p < self.high:
            return None
        if p not in self.runs:
            column = self.builder.add(self.arg["col0"], I64(p))
            at = self.at(row, (column, self.arg["xw"]))
            self.runs[p] = load_vector(self.builder, at, self.lanes, self.storage, self.channels)
        return self.runs[p]

    def weight(self, base: Any, block: int, tap: Any) -> list[Any]:
        """Return the channels' weights, once for each pixel."""
        at = self.at(base, (tap, self.arg["wt"]))
        return [load_vector(self.builder, at, self.lanes, self.code)] * len(self.widths)

    def initial(self, block: int) -> list[Any]:
        """Return the channels' biases, once for each pixel."""
        bias = load_vector(self.builder, self.arg["bias"], self.lanes, self.code, self.channels)
        return [bias] * len(self.widths)

    def each_plane(
        self, body: Callable[[Any, Any, list[Any]], list[Any]], x: Any, sums: list[Any]
    ) -> list[Any]:
        """Emit the loop over kernel depths."""
        arg = self.arg
        return self.loop(
            arg["depths"],
            sums,
            lambda d, sums: body(
                self.at(x, (d, arg["xd"])), self.at(arg["w"], (d, arg["wd"])), sums
            ),
        )

    def target(self, row: Any, block: int, j: int) -> Any:
        """Return where pixel `j` of an output row goes."""
        return self.at(self.arg["out"], (row, self.arg["yh"]), (I64(j), self.arg["yw"]))

    def store_mask(self, j: int) -> Any:
        """Return flags for the channels that exist, None for all."""
        return self.channels

    def prefetched(self) -> list[Any]:
        """Return the byte offsets in a row of the pixels that a strip reads."""
        last = (len(self.widths) - 1) * self.sw + (self.kw - 1) * self.dilation
        pixels = range(self.low, min(self.high, last + 1))
        columns = [self.builder.add(self.arg["col0"], I64(p)) for p in pixels]
        return [self.builder.mul(column, self.arg["xw"]) for column in columns]

    def prepare(self) -> None:
        """Load the weights where there is room for them."""
        if self.kept:
            for tap in range(self.kh * self.kw):
                self.weights[0, tap] = self.weight(self.arg["w"], 0, I64(tap))


@intrinsic(prefer_literal=True)
def _pixel_strip(
    typingctx: Any, x: Any, channels: Any, xc: Any, depths: Any, xd: Any, h0: Any, dh: Any,
    h_end: Any, xh: Any, col0: Any, dw: Any, iw: Any, columns: Any, w: Any, wk: Any, wc: Any,
    wd: Any, out: Any, yh: Any, yc: Any, bias: Any, width: Any, rows: Any, xw: Any, yw: Any,
    wt: Any, low: Any, high: Any, shape: Any,
) -> Any:  # fmt: skip
    """Compute a strip of pixels; arguments are those of `rolling_strip`, except as follows.

    width : channels; xw, yw : bytes between pixels; wt : bytes between the weights of taps.
    shape : the attributes that `_PixelStrip` unpacks.
    """
    return emit_window(_PixelStrip, shape, None)


_SIGNATURE = jit.void(11)


def _strip_loop(shape: tuple[int, ...], rest: int) -> int:
    """Return the address of the loop over channels of one shape of strip.

    `rest` is the number of lanes for the last channels, 0 where there are only full vectors.
    """
    kh, kw, down, nv, lanes, sw, dw, first, end, single, kept, storage = shape
    item, size = ITEMSIZE[storage], ITEMSIZE[F64 if storage == F64 else F32]
    tail = max(rest, 1)

    def strip_loop(geometry: int, start: int, x: int, weight: int, bias: int, out: int, h0: int,
                   h_end: int, rows: int, depths: int, channels: int) -> None:  # fmt: skip
        g = _view(geometry)
        low, high = g.low, g.high
        if g.has_residual:
            low, high = -np.inf, np.inf
        col0, wd = start * g.sw - g.pw, g.kh * g.kw * g.tap_bytes
        for residue in range(min(g.share, rows)):
            count = (rows - residue + g.share - 1) // g.share
            h, y = h0 + residue * g.sh, out + residue * g.yh + start * g.yw
            c = 0
            while c + lanes <= channels:
                _pixel_strip(
                    x + c * item, 1, 0, depths, g.dd * g.xd, h, g.unit, h_end, g.xh, col0, 0, 0, 0,
                    weight + c * size, 0, 0, wd, y + c * item, g.share * g.yh, 0, bias + c * size,
                    lanes, count, g.xw, g.yw, g.tap_bytes, low, high,
                    (kh, kw, down, nv, lanes, sw, dw, first, end, single, kept, 0, storage),
                )  # fmt: skip
                c += lanes
            if rest and c < channels:
                _pixel_strip(
                    x + c * item, 1, 0, depths, g.dd * g.xd, h, g.unit, h_end, g.xh, col0, 0, 0, 0,
                    weight + c * size, 0, 0, wd, y + c * item, g.share * g.yh, 0, bias + c * size,
                    channels - c, count, g.xw, g.yw, g.tap_bytes, low, high,
                    (kh, kw, down, nv, tail, sw, dw, first, end, single, kept, 1, storage),
                )  # fmt: skip

    key = ("pixel_strip", *shape, rest)
    return int(jit.compile_callback(strip_loop, _SIGNATURE, key).address)


@intrinsic
def _call_strip(
    typingctx: Any, function: Any, geometry: Any, start: Any, x: Any, weight: Any, bias: Any,
    out: Any, h0: Any, h_end: Any, rows: Any, depths: Any, channels: Any,
) -> Any:  # fmt: skip
    """Call the function at a `_strip_loop`."""
    return types.void(types.intp, *_SIGNATURE.args), call_address


@functools.cache
def _make_kernel(lanes: int, storage: int) -> Any:
    """Return the task: see the drawing at the top of this file."""
    item, size = ITEMSIZE[storage], ITEMSIZE[F64 if storage == F64 else F32]

    @numba.njit
    def finish_band(g: Any, out: int, residual: int, rows: int, channels: int) -> None:
        """Apply residual and activation to a band where it lies."""
        for row in range(rows):
            for column in range(g.ow):
                y, r = out + row * g.yh + column * g.yw, residual + row * g.rh + column * g.rw
                for c in range(0, channels, lanes):
                    mask = range_mask(0, min(lanes, channels - c))
                    value = load_masked(y + c * item, mask, storage, lanes)
                    if g.has_residual:
                        value = add(value, load_masked(r + c * item, mask, storage, lanes))
                    value = activate(value, g.finish_code, g.alpha)
                    store_masked(y + c * item, value, mask, storage)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
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
        y = out + image * g.yn + od * g.yd + first_row * g.yh + c * item
        for s in range(g.strips):
            _call_strip(
                get_word(g.table, 2 * s), geometry, get_word(g.table, 2 * s + 1), source,
                weight + skipped * g.kh * g.kw * g.tap_bytes + c * size, bias + c * size, y,
                first_row * g.sh - g.ph, g.ih, rows, depths, channels,
            )  # fmt: skip
        if g.needs_finish:
            extra = residual + image * g.rn + od * g.rd + first_row * g.rh + c * item
            finish_band(g, y, extra, rows, channels)

    return task


@functools.cache
def _make_weight_task(storage: int) -> Any:
    """Return the task that lays out one channel's weights: taps outside, channels inside."""
    compute = F64 if storage == F64 else F32
    size = ITEMSIZE[compute]

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        target = packed + number * size
        for kd in range(g.kd):
            for kh in range(g.kh):
                for kw in range(g.kw):
                    source = weight + number * g.wk + kd * g.wd + kh * g.wh + kw * g.ww
                    store_scalar(target, load_scalar(source, storage), compute)
                    target += g.tap_bytes

    return task


@dataclass(frozen=True, slots=True)
class _Cut:
    """Pixels of a strip, rows between its output rows, and whether weights stay in registers."""

    pixels: int
    down: int
    share: int
    kept: bool
    cycles: float


def _single(problem: ConvProblem) -> bool:
    """Return whether every output is a sum over one plane that is always there."""
    depth = zip(problem.kernel_size[:-2], problem.padding[:-2], strict=True)
    return all(k == 1 and not any(pads) for k, pads in depth)


def _ways(problem: ConvProblem, device: DeviceInfo) -> Iterator[_Cut]:
    """Yield the ways of cutting rows into strips that fit the registers."""
    kh, kw = (1, *problem.kernel_size)[-2:]
    sw, dw = problem.stride[-1], problem.dilation[-1]
    sh, dh = (1, *problem.stride)[-2], (1, *problem.dilation)[-2] if kh > 1 else 1
    common = math.gcd(sh, dh)
    down, share = sh // common, dh // common
    height, taps = -(-kh // down), kh * kw
    for nv in range(1, min(12, problem.out_size[-1]) + 1):
        used = height * nv + nv + 1
        if used >= device.registers or taps * nv > _UNROLLED_WORK:
            continue
        kept = _single(problem) and used + taps < device.registers
        pixels = {j * sw + s * dw for j in range(nv) for s in range(kw)}
        loads = 2 * len(pixels) * min(down, kh) + (0 if kept else taps)
        strips = -(-problem.out_size[-1] // nv)
        yield _Cut(nv, down, share, kept, strips * (max(taps * nv, loads) + _STEP))


@functools.lru_cache(maxsize=256)
def _cut(problem: ConvProblem, device: DeviceInfo) -> _Cut | None:
    """Choose the cut of fewest cycles; None where no strip fits."""
    return min(_ways(problem, device), key=lambda way: way.cycles, default=None)


def fits(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> bool:
    """Return whether a problem and a binding can be computed here."""
    if problem.out_channels != problem.groups or problem.in_channels != problem.groups:
        return False
    item = ITEMSIZE[storage_code(problem.dtype)]
    orders = [binding.x_strides[1], binding.out_strides[1]]
    if binding.residual_strides is not None:
        orders.append(binding.residual_strides[1])
    if any(step != item for step in orders) or _cut(problem, device) is None:
        return False
    # Halves are rounded when they are stored, so nothing may be left to do afterwards.
    return item >= 4 or not finish_fields(binding, direct=True)["needs_finish"]


def _table(problem: ConvProblem, device: DeviceInfo, way: _Cut, rest: int) -> Any:
    """Compile the strips of a row; return function and first output column of each."""
    storage = storage_code(problem.dtype)
    lanes = device.lanes(8 if storage == F64 else 4)
    kh, kw = (1, *problem.kernel_size)[-2:]
    sw, dw = problem.stride[-1], problem.dilation[-1]
    count = -(-problem.out_size[-1] // way.pixels)
    starts = [problem.out_size[-1] * i // count for i in range(count + 1)]
    table = []
    for start, end in itertools.pairwise(starts):
        col0, reach = start * sw - problem.padding[-1][0], (end - start - 1) * sw + (kw - 1) * dw
        low = min(max(0, -col0), reach + 1)
        high = max(min(reach + 1, problem.in_size[-1] - col0), low)
        shape = (kh, kw, way.down, end - start, lanes, sw, dw, low, high, int(_single(problem)),
                 int(way.kept), storage)  # fmt: skip
        table.append((_strip_loop(shape, rest), start))
    return np.array(table, np.int64)


#: Fewest vectors of channels in a task. Neighbouring tasks write to a common cache line of each
#: pixel, which the cores then hand to and fro.
_CHUNK = 3


def _tasks(problem: ConvProblem, device: DeviceInfo, lanes: int) -> dict[str, int]:
    """Divide rows, then channels, until there are enough tasks."""
    outer = problem.batch * math.prod(problem.out_size[:-2])
    height, vectors = (1, *problem.out_size)[-2], -(-problem.groups // lanes)
    reach = ((1, *problem.kernel_size)[-2] - 1) * (1, *problem.dilation)[-2]
    wanted = -(-TASKS * device.threads // outer)
    # The first steps of a band fill the sums; at most a fifth of its work may go there.
    bands = min(wanted, max(1, height // max(8, 4 * reach)))
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
    """Prepare the kernel for one problem and one binding that `fits`."""
    storage = storage_code(problem.dtype)
    size = ITEMSIZE[F64 if storage == F64 else F32]
    lanes = device.lanes(size)
    way = _cut(problem, device)
    assert way is not None
    rest = problem.groups % lanes
    padded = -(-problem.groups // lanes) * lanes
    table = _table(problem, device, way, max(4, 1 << (rest - 1).bit_length()) if rest else 0)
    fields = _tasks(problem, device, lanes) | finish_fields(binding, direct=True)
    fields |= {
        "unit": (1, *problem.dilation)[-2] if (1, *problem.kernel_size)[-2] > 1 else 1,
        "share": way.share,
        "tap_bytes": padded * size,
        "strips": len(table),
        "table": table.ctypes.data,
    }
    tasks = problem.batch * math.prod(problem.out_size[:-2]) * fields["bands"] * fields["chunks"]
    kernel = compile_kernel(_make_kernel(lanes, storage), "channels_last", lanes, storage)
    pack = compile_kernel(_make_weight_task(storage), "channels_last_pack", storage)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields[name] for name in _FIELDS}),
        stages=(Stage(kernel, tasks),),
        workers=worth_helpers(problem.macs, device.threads),
        workspace_bytes=0,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(pack, problem.groups),
        pack_bytes=0,
        packed_size=math.prod(problem.kernel_size) * padded,
        packing=("channels_last", storage, padded),
        tables=(table,),
    )
