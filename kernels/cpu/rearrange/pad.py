"""An array copied with its boundary around it: rows inside by vectors, what is outside by tables.

A position outside the input holds another sample, or a constant, which a table tells for each
axis. The tables hold those positions alone, so a long axis makes no long table::

    task = lines of columns, or a part of one
      for line                                        its depth and row looked up
        for column before the samples                 looked up
        columns inside                                full vectors, the last one under a mask
        for column behind them                        looked up

Where the channels of a pixel are contiguous a column is a pixel, and a line holds them all; else
every channel has lines of its own. Bound by memory: what is inside is read once and written once.

Of a *narrow* box, a strip along a border of an image, a line is a few columns. A table tells where
each of them lies, and nothing is asked twice: 5 ns a line instead of 13
(4 columns, one core of a Zen 4).
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.pad_problem import PadProblem, source_indices
from fastconv.contract.spec import DeviceInfo

from ...axes import name_axes
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record, name_strides
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.bits import copy_bits
from ..simd.intrinsics import get_word, load, range_mask, store, store_masked
from ..simd.ir import F32, ITEMSIZE
from .costs import is_narrow, pad_cut
from .forms import RUNS
from .moves import make_move

__all__ = ["plan", "workspace"]

FIELDS = (
    "planes",  # of an image: channels, or one where they are a column's
    "unit",  # elements of a column
    "dense_x",  # whether columns lie behind one another
    "dense_y",
    "lines",
    "parts",  # tasks along them
    "pieces",  # tasks along a line
    "block",  # columns of a piece
    "low_d",  # positions before the samples, by axis
    "low_h",
    "low_w",
    "inside_d",  # positions within
    "inside_h",
    "inside_w",
    "first_d",  # the sample that the first of them is
    "first_h",
    "first_w",
    "table_d",  # addresses of the tables
    "table_h",
    "table_w",
    "value",  # address of a vector of the constant
    "columns",  # of the table of a narrow box: byte offsets in a line
)
view = as_record(FIELDS)
#: The offset of a column of the constant: no stride comes to it.
_NOWHERE = -(1 << 62)


@numba.njit
def _look_up(position: int, low: int, inside: int, first: int, table: int) -> int:
    """Return the sample of a position of an axis, -1 for the constant."""
    if position < low:
        return get_word(table, position)
    if position < low + inside:
        return first + position - low
    return get_word(table, position - inside)


@functools.cache
def _make_fill(item: int, lanes: int) -> Any:
    """Return what writes the constant to contiguous elements."""
    size = lanes * ITEMSIZE[F32]

    @numba.njit
    def fill(value: int, target: int, count: int) -> None:
        place, end, vector = 0, count * item, load(value, F32, lanes)
        while place + size <= end:
            store(target + place, vector, F32)
            place += size
        words = (end - place) >> 2
        if words > 0:
            store_masked(target + place, vector, range_mask(0, words), F32)
        place += words << 2
        if item < 4 and (end - place) & 2:
            copy_bits(value, target + place, 2)
            place += 2
        if item < 2 and place < end:
            copy_bits(value, target + place, 1)

    return fill


@functools.cache
def _make_line(item: int, vector_bytes: int) -> tuple[Any, Any]:
    """Return what copies the columns of a line from `begin` to `end`, and what fills them."""
    move = make_move(RUNS, 0, item, vector_bytes)
    fill = _make_fill(item, vector_bytes // 4)

    @numba.njit
    def fill_line(g: Any, target: int, begin: int, end: int) -> None:
        if g.dense_y:
            fill(g.value, target + begin * g.yw, (end - begin) * g.unit)
            return
        for w in range(begin, end):
            fill(g.value, target + w * g.yw, g.unit)

    @numba.njit
    def column(g: Any, source: int, target: int) -> None:
        if g.unit == 1:
            copy_bits(source, target, item)
        else:
            move(g, source, target, 0, g.unit)

    @numba.njit
    def outside(g: Any, source: int, target: int, begin: int, end: int, skipped: int) -> None:
        for w in range(begin, end):
            index = get_word(g.table_w, w - skipped)
            if index < 0:
                fill(g.value, target + w * g.yw, g.unit)
            else:
                column(g, source + index * g.xw, target + w * g.yw)

    @numba.njit
    def copy_line(g: Any, source: int, target: int, begin: int, end: int) -> None:
        behind = g.low_w + g.inside_w
        outside(g, source, target, begin, min(end, g.low_w), 0)
        first, last = max(begin, g.low_w), min(end, behind)
        if first < last:
            x, y = source + (g.first_w + first - g.low_w) * g.xw, target + first * g.yw
            if g.dense_x and g.dense_y:
                move(g, x, y, 0, (last - first) * g.unit)
            else:
                for w in range(last - first):
                    column(g, x + w * g.xw, y + w * g.yw)
        outside(g, source, target, max(begin, behind), end, g.inside_w)

    return copy_line, fill_line


@functools.cache
def _make_kernel(item: int, vector_bytes: int) -> Any:
    copy_line, fill_line = _make_line(item, vector_bytes)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        part, piece = number // g.pieces, number % g.pieces
        line, last = part * g.lines // g.parts, (part + 1) * g.lines // g.parts
        begin = piece * g.block
        end = min(g.ow, begin + g.block)
        h, rest = line % g.oh, line // g.oh
        d, rest = rest % g.od, rest // g.od
        c, n = rest % g.planes, rest // g.planes
        for _ in range(line, last):
            target = out + n * g.yn + c * g.yc + d * g.yd + h * g.yh
            plane = _look_up(d, g.low_d, g.inside_d, g.first_d, g.table_d)
            row = _look_up(h, g.low_h, g.inside_h, g.first_h, g.table_h)
            if plane < 0 or row < 0:
                fill_line(g, target, begin, end)
            else:
                source = x + n * g.xn + c * g.xc + plane * g.xd + row * g.xh
                copy_line(g, source, target, begin, end)
            h += 1
            if h == g.oh:
                h = 0
                d += 1
            if d == g.od:
                d = 0
                c += 1
            if c == g.planes:
                c = 0
                n += 1

    return task


@functools.cache
def _make_narrow(item: int) -> Any:
    """Return the task of a narrow box, whose columns are elements."""

    @numba.njit
    def copy_columns(
        source: int, target: int, columns: int, count: int, step: int, value: int
    ) -> None:
        for w in range(count):
            offset = get_word(columns, w)
            place = value if offset == _NOWHERE or source < 0 else source + offset
            copy_bits(place, target + w * step, item)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        columns, count, step, value = g.columns, g.ow, g.yw, g.value
        row_step, xh, rows = g.yh, g.xh, g.oh
        low, inside, first, table = g.low_h, g.inside_h, g.first_h, g.table_h
        line, last = number * g.lines // g.parts, (number + 1) * g.lines // g.parts
        while line < last:
            h, rest = line % rows, line // rows
            end = min(rows, h + last - line)
            line += end - h
            d, rest = rest % g.od, rest // g.od
            c, n = rest % g.planes, rest // g.planes
            plane = _look_up(d, g.low_d, g.inside_d, g.first_d, g.table_d)
            source = x + n * g.xn + c * g.xc + plane * g.xd
            target = out + n * g.yn + c * g.yc + d * g.yd
            for position in range(h, end):
                row = _look_up(position, low, inside, first, table)
                read = -1 if plane < 0 or row < 0 else source + row * xh
                copy_columns(read, target + position * row_step, columns, count, step, value)

    return task


def workspace(problem: PadProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: none."""
    return 0


def plan(problem: PadProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    x_strides, y_strides = binding.strides
    item, channels = problem.itemsize, problem.channels
    pixels = channels > 1 and x_strides[1] == y_strides[1] == item
    unit = channels if pixels else 1
    cut = pad_cut(problem, pixels)
    tables = [np.append(table, 0) for table in problem.tables()]  # an address, if none is read
    narrow = is_narrow(problem, pixels)
    columns = _column_offsets(problem, x_strides[-1]) if narrow else np.zeros(1, np.int64)
    of_axes = (
        name_axes("low_", [along.low for along in problem.maps], 0)
        | name_axes("inside_", [along.inside for along in problem.maps], 1)
        | name_axes("first_", [along.first for along in problem.maps], 0)
        | name_axes("table_", [table.ctypes.data for table in tables], 0)
    )
    value = _constant(problem, device.vector_bytes)
    values = {
        "n": problem.batch, **name_axes("o", problem.out_size, 1),
        **name_strides("x", x_strides), **name_strides("y", y_strides), **of_axes,
        "planes": channels // unit, "unit": unit, "value": value.ctypes.data,
        "dense_x": int(x_strides[-1] == unit * item), "dense_y": int(y_strides[-1] == unit * item),
        "columns": columns.ctypes.data, **cut._asdict(),
    }  # fmt: skip
    if narrow:
        kernel = compile_kernel(_make_narrow(item), "pad narrow", item)
    else:
        made = _make_kernel(item, device.vector_bytes)
        kernel = compile_kernel(made, "pad", item, device.vector_bytes)
    record, written = array_record(FIELDS, values), problem.flops * item
    return ArrayPlan(
        record=record,
        stages=(ArrayStage(kernel, cut.parts * cut.pieces),),
        workers=worth_helpers(written, device.threads),
        flush=binding.flush,
        tables=(*tables, columns, value),
    )


def _column_offsets(problem: PadProblem, step: int) -> Any:
    """Return in how many bytes from a line's begin the sample of each column lies."""
    low, count = problem.padding[-1], problem.out_size[-1]
    held = source_indices(problem.mode, problem.in_size[-1], -low, count)
    return np.where(held < 0, _NOWHERE, held * step)


def _constant(problem: PadProblem, size: int) -> Any:
    """Return a vector of the constant in the problem's element type."""
    with np.errstate(over="ignore"):
        if problem.dtype != "bfloat16":
            return np.full(size // problem.itemsize, problem.value, problem.dtype)
        bits = int(np.float32(problem.value).view(np.uint32))
    if problem.value == problem.value:  # rounded to the nearest, of two to the even one
        bits += 0x7FFF + (bits >> 16 & 1)
    return np.full(size // problem.itemsize, bits >> 16, np.uint16)
