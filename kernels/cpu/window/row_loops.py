"""The compiled loops over strips and tiles of rows.

What the two ways of reading an input share: rows_in_place.py reads it in place, rows_copied.py
through a padded copy. Both hand bands of rows to a function compiled for one width of strip
(row_costs.py)::

    for group (consecutive channels)
      for block of its output channels              each loaded input vector serves all of the block
        for rows that share input (every `row_interleave`-th)
          strip (row_strip.py), or tiles from top to bottom (row_tile.py)
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding

from ..common.epilogue import EPILOGUE_FIELDS
from ..runtime import jit
from ..runtime.plan import Stage, compile_kernel, in_weight_order
from ..runtime.record import as_record
from ..simd.intrinsics import load_scalar, store_scalar
from ..simd.ir import ITEMSIZE
from .row_calls import PART_SIGNATURE, PARTS_FIELDS, parts_table
from .row_costs import RowBlocking, last_lanes, row_strips, singleton_flags
from .row_strip import COPY, DENSE, PAIRS, Strip, StripShape, beyond_lanes
from .row_tile import Rows, TapColumns, WindowTile, make_window

__all__ = [
    "FIELDS",
    "pack_stage",
    "pattern_kernel",
    "strip_table",
    "view",
]

#: Fields of a geometry that the compiled loops and the tasks that call them read.
FIELDS = (
    *EPILOGUE_FIELDS,
    "in_g",  # bytes between what is read of successive groups, input channels, depths, rows
    "in_c",
    "in_d",
    "in_h",
    "unit",  # input rows between the kernel's
    "row_interleave",  # distance of the output rows of one strip
    "to_c",  # bytes between output channels and rows
    "to_h",
    "columns",  # address of the tap columns' offsets in a copy
    *PARTS_FIELDS,
    "band_rows",  # output rows of one task
    "bands",  # tasks along the output height
    "items",  # images and groups of one task
    "spans",  # of a copy: tasks along the output width, and the strips of one
    "span_parts",
    "slabs",  # in place: tasks along the output depth
    "tap_bytes",  # from one tap's weights to the next's
    "period",  # vectors after which interleaved channels repeat, 0 where there is one channel
    "channels",  # that are interleaved
    "together",  # groups that a strip goes through before the next strip does
    "phases",  # of a copy: phases of a row, elements of one; then places in the workspace
    "phase_length",
    "worker_bytes",
    "sums_at",
    "scratch_at",
)
view = as_record(FIELDS)


def _samples_read(problem: ConvProblem, source: int, lanes: int, shifted: bool) -> int:
    """Return how many elements behind a vector of the first tap are loaded with it."""
    samples = (problem.kernel_size[-1] - 1) * problem.dilation[-1]
    if shifted:
        samples = -(-samples // lanes) * lanes
    if source == PAIRS:
        samples = max(samples, beyond_lanes(problem.kernel_size[-1]))
    return samples


def _masked(
    problem: ConvProblem, source: int, strip: tuple[int, int, int], lanes: int, shifted: bool
) -> int:
    """Return which vectors of a strip may reach over a side: bits 1 first, 2 last, 4 any."""
    start, nv, tail = strip
    samples = _samples_read(problem, source, lanes, shifted)

    def over(j: int) -> bool:
        width = tail if j == nv - 1 else lanes
        first = start + j * lanes
        if first + width > problem.out_size[-1]:
            return True
        if source == COPY:
            return False
        left = first * source - problem.padding[-1][0]
        return left < 0 or left + width * source + samples > problem.in_size[-1]

    if any(over(j) for j in range(1, nv - 1)):
        return 4
    return int(over(0)) | 2 * int(over(nv - 1))


def _side_places(
    problem: ConvProblem, source: int, blocking: RowBlocking, shifted: bool
) -> set[int]:
    """Return the vectors before which other vectors of a strip reach over a side than behind."""
    if source == COPY:
        return set()
    lanes, pad = blocking.lanes, problem.padding[-1][0]
    samples = lanes * source + _samples_read(problem, source, lanes, shifted)
    # Vector j begins `first` elements into the row: it reaches over the left below the one place,
    # and over the right from the other on.
    left = -(-pad // source)
    right = (problem.in_size[-1] + pad - samples) // source + 1
    return {-(-place // lanes) - j for place in (left, right) for j in range(blocking.vectors)}


def strip_table(
    problem: ConvProblem,
    blocking: RowBlocking,
    source: int,
    codes: tuple[int, int, int],
    period: int = 0,
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Compile the strips of a row; return the table of `call_parts`, and its fields.

    `codes` are of sums, of what is read in place and of what is stored, which tiles know as one.
    """
    kh, kw = (1, *problem.kernel_size)[-2:]
    total, lanes = problem.out_size[-1], blocking.lanes
    dense, planes = int(problem.dilation[-1] == 1), singleton_flags(problem)

    def function(begin: int, nv: int) -> int:
        tail = last_lanes(total, lanes, begin + nv)
        if blocking.rows:
            return _tile_loop((blocking.rows, nv, lanes, tail, codes[0]))
        shifted = blocking.shifted and source == DENSE and tail == lanes
        masked = _masked(problem, source, (begin * lanes, nv, tail), lanes, shifted)
        return _strip_loop(
            StripShape(
                kh, kw, blocking.row_step, nv, lanes, tail, blocking.block, source, dense,
                int(shifted), planes, int(blocking.in_registers and not period), masked, period,
                *codes,
            )
        )  # fmt: skip

    parts = row_strips(total, lanes, blocking.vectors)
    places = _side_places(problem, source, blocking, blocking.shifted and source == DENSE)
    return parts_table(parts, parts.stretches(places), function, lanes)


def _strip_loop(shape: StripShape) -> int:
    """Return the address of the loop over strips of one shape."""
    size, lanes, block = ITEMSIZE[shape.code], shape.lanes, shape.block
    item = ITEMSIZE[shape.stored]
    source, period = shape.source, shape.period
    strip = make_window(Strip, shape)

    def strip_loop(geometry: int, start: int, x: int, weight: int, bias: int, out: int, h0: int,
                   h_end: int, rows: int, depths: int, groups: int) -> None:  # fmt: skip
        g = view(geometry)
        low, high, pitch = g.low, g.high, g.row_interleave * g.to_h
        if g.has_residual:
            low, high = -np.inf, np.inf
        wd = g.kh * g.kw * g.tap_bytes
        col0, copied = start * source - g.pw, start * size if source == COPY else 0
        if period:
            weight += start // lanes % period * lanes * size
            bias += start // lanes % period * lanes * size
        for group in range(groups):
            image, first = x + group * g.in_g + copied, group * g.k
            for k in range(first, first + g.k, block):
                for residue in range(min(g.row_interleave, rows)):
                    rows_of_strip = Rows(
                        x=image, channels=g.c, xc=g.in_c, depths=depths, xd=g.in_d,
                        h0=h0 + residue * g.sh, dh=g.unit, h_end=h_end, xh=g.in_h,
                        col0=col0, dw=g.dw, iw=g.iw, columns=g.columns,
                        w=weight + k * g.c * g.kd * wd, wk=g.c * g.kd * wd, wc=g.kd * wd, wd=wd,
                        out=out + k * g.to_c + residue * g.to_h + start * item, yh=pitch, yc=g.to_c,
                        bias=bias + k * size, width=g.ow - start,
                        rows=(rows - residue + g.row_interleave - 1) // g.row_interleave,
                    )  # fmt: skip
                    strip((rows_of_strip,), low, high)

    return int(jit.compile_callback(strip_loop, PART_SIGNATURE, ("strip", *shape)).address)


def _tile_loop(shape: tuple[int, ...]) -> int:
    """Return the address of the loop over tiles of one shape: that of `WindowTile`."""
    rh, size = shape[0], ITEMSIZE[shape[-1]]
    tile = make_window(WindowTile, shape)

    def tile_loop(geometry: int, start: int, x: int, weight: int, bias: int, out: int, h0: int,
                  h_end: int, rows: int, depths: int, groups: int) -> None:  # fmt: skip
        g = view(geometry)
        low, high, pitch = g.low, g.high, g.row_interleave * g.to_h
        if g.has_residual:
            low, high = -np.inf, np.inf
        wd = g.kh * g.kw * size
        for group in range(groups):
            image, first = x + group * g.in_g + start * size, group * g.k
            for k in range(first, first + g.k):
                for residue in range(min(g.row_interleave, rows)):
                    for row in range(residue, rows, g.row_interleave * rh):
                        rows_of_tile = Rows(
                            x=image, channels=g.c, xc=g.in_c, depths=depths, xd=g.in_d,
                            h0=h0 + row * g.sh, dh=g.unit, h_end=h_end, xh=g.in_h,
                            col0=0, dw=g.dw, iw=g.iw, columns=g.columns,
                            w=weight + k * g.c * g.kd * wd, wk=0, wc=g.kd * wd, wd=wd,
                            out=out + k * g.to_c + row * g.to_h + start * size, yh=pitch, yc=g.to_c,
                            bias=bias + k * size, width=g.ow - start,
                            rows=(rows - row + g.row_interleave - 1) // g.row_interleave,
                        )  # fmt: skip
                        taps = TapColumns(kh=g.kh, kw=g.kw, tap0=0, tap_end=g.kw)
                        tile((rows_of_tile, taps), low, high)

    return int(jit.compile_callback(tile_loop, PART_SIGNATURE, ("tile", *shape)).address)


@functools.cache
def _make_weight_task(storage: int, compute: int) -> Any:
    """Return the task that brings one output channel's weights to compute precision, in order."""
    size = ITEMSIZE[compute]

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
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


@functools.cache
def _make_pattern_task(lanes: int, code: int) -> Any:
    """Return the task that lays out one tap of interleaved channels, see `Strip.pattern`."""
    size = ITEMSIZE[code]

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        kw, rest = number % g.kw, number // g.kw
        tap = weight + rest // g.kh * g.wd + rest % g.kh * g.wh + kw * g.ww
        target = packed + number * g.tap_bytes
        for e in range(g.tap_bytes // size):
            store_scalar(target + e * size, load_scalar(tap + e % g.channels * g.wk, code), code)

    return task


def pattern_kernel(lanes: int, code: int) -> int:
    """Return the address of the task that packs weights of interleaved channels."""
    return compile_kernel(_make_pattern_task(lanes, code), "pack_pattern", lanes, code)


def pack_stage(problem: ConvProblem, binding: Binding, storage: int, compute: int) -> Stage | None:
    """Return what brings the weight into its logical order, None where it lies so."""
    if in_weight_order(problem, binding):
        return None
    pack = compile_kernel(_make_weight_task(storage, compute), "pack_weight", storage)
    return Stage(pack, problem.out_channels)
