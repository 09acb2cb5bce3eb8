"""The table of neighbours: two sorted sets of sites, walked side by side.

Offsets are counted from the coarse sites and lead to the fine ones, ``f = c * stride - low + k *
dilation``. For a submanifold or regular kernel these are outputs and inputs; for a transposed one
inputs and outputs. Both sets are sorted, so for one offset the fine sites sought rise with the
coarse ones, and one walk finds them all. No hash is computed, memory is read in order, and offsets
that differ on the last axis only share a walk::

    for task: a chunk of coarse lines
      for offset of all axes but the last                9 of a 3x3x3 kernel
        for coarse line                                  bounds are checked once a line
          step to the fine line sought                   one comparison and seldom more
          for coarse site: the fine sites within reach   1 to 3 comparisons for 3 offsets

An odd submanifold kernel is its own mirror image: where `f` is the neighbour of `c` at an offset,
`c` is that of `f` at the opposite one. Half of the offsets are walked (5 of the 9), both entries
are written. Whatever the kernel, each entry has one writer.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastconv.contract.geometry import Geometry
from fastconv.contract.rulebook import check_table_size

from ..simd.intrinsics import get_word, set_word
from .lines import Lines
from .stage import IntegerStage, chunks, empty, get_int, set_int

__all__ = ["fill", "find_neighbours"]

Rows = NDArray[np.int32]

#: What a task fills: 1 MB.
_FILLED = 1 << 18


@numba.njit
def _row(rows: int, i: int) -> int:
    """Return the row of a sorted site; without a list it is the site's own number."""
    return get_int(rows, i) if rows else i


@numba.njit
def _line_sought(g: Any, line: int, group: int) -> int:
    """Return the key of the fine line that a coarse line meets, -1 outside the grid."""
    key = get_int(g.coarse_places, line * g.axes)
    for axis in range(1, g.axes):
        place = get_int(g.coarse_places, line * g.axes + axis) * get_word(g.stride, axis - 1)
        place += get_word(g.steps, group * (g.axes - 1) + axis - 1)
        size = get_word(g.fine_shape, axis - 1)
        if place < 0 or place >= size:
            return -1
        key = key * size + place
    return key


@numba.njit
def _find_line(g: Any, key: int) -> int:
    """Return the first fine line whose key is not less."""
    low, high = 0, g.fine_lines
    while low < high:
        middle = (low + high) >> 1
        if get_word(g.fine_keys, middle) < key:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit
def _meet(g: Any, table: int, mirror: int, line: int, fine: int, farthest: int) -> int:
    """Write the pairs of two lines, return how many.

    `table` is the row of the table for the first offset of the last axis, `mirror` that of the
    opposite offset.
    """
    place, end = get_word(g.fine_starts, fine), get_word(g.fine_starts, fine + 1)
    pairs = 0
    for c in range(get_word(g.coarse_starts, line), get_word(g.coarse_starts, line + 1)):
        first = get_int(g.coarse_x, c) * g.stride_x - g.low_x
        while place < end and get_int(g.fine_x, place) < first:
            place += 1
        coarse_row = _row(g.coarse_rows, c)
        for f in range(place, end):
            distance = get_int(g.fine_x, f) - first
            if distance > farthest:
                break
            offset = distance // g.dilation_x if g.dilation_x > 1 else distance
            if offset * g.dilation_x != distance:
                continue
            fine_row = _row(g.fine_rows, f)
            if g.transposed:
                set_int(table, offset * g.rows + fine_row, coarse_row)
            else:
                set_int(table, offset * g.rows + coarse_row, fine_row)
                if g.mirrored:
                    set_int(mirror, fine_row - offset * g.rows, coarse_row)
            pairs += 1
    return pairs


def _walk_lines(g: Any, task: int) -> None:
    """Find the neighbours of a chunk of coarse lines."""
    first, last = task * g.chunk, min((task + 1) * g.chunk, g.coarse_lines)
    pairs = 0
    for group in range(g.groups):
        table = g.table + 4 * group * g.taps * g.rows
        mirror = g.table + 4 * (g.volume - 1 - group * g.taps) * g.rows
        # The middle of a mirrored kernel is its own opposite: its later half is written already.
        middle = g.mirrored and group == g.groups - 1
        farthest = (g.taps // 2 if middle else g.taps - 1) * g.dilation_x
        fine = -1
        for line in range(first, last):
            sought = _line_sought(g, line, group)
            if sought < 0:
                continue
            if fine < 0:
                fine = _find_line(g, sought)
            while fine < g.fine_lines and get_word(g.fine_keys, fine) < sought:
                fine += 1
            if fine == g.fine_lines:
                break
            if get_word(g.fine_keys, fine) == sought:
                pairs += _meet(g, table, mirror, line, fine, farthest)
    set_word(g.pairs, task, pairs)


def _fill(g: Any, task: int) -> None:
    """Write -1."""
    for i in range(task * g.chunk, min((task + 1) * g.chunk, g.size)):
        set_int(g.table, i, -1)


_FILL = IntegerStage(_fill, "table size chunk")
_WALK_LINES = IntegerStage(
    _walk_lines,
    "coarse_x coarse_starts coarse_places coarse_rows coarse_lines fine_x fine_starts fine_keys "
    "fine_rows fine_lines fine_shape axes stride steps stride_x low_x dilation_x taps groups "
    "volume mirrored transposed table rows pairs chunk",
)


def fill(table: Rows) -> None:
    """Fill a table with -1."""
    _FILL.run(-(-table.size // _FILLED), table=table, size=table.size, chunk=_FILLED)


def _steps(geometry: Geometry) -> NDArray[np.int64]:
    """Return the place that each offset of all axes but the last leads to from the origin."""
    outer = geometry.ndim - 1
    if not outer:
        return np.zeros((1, 0), np.int64)
    offsets = np.indices(geometry.kernel_size[:-1], np.int64).reshape(outer, -1)
    lows = np.array([low for low, _ in geometry.padding[:-1]], np.int64)
    steps = offsets.T * np.array(geometry.dilation[:-1], np.int64) - lows
    return np.ascontiguousarray(steps)


def find_neighbours(
    geometry: Geometry,
    coarse: Lines,
    coarse_rows: Rows | None,
    fine: Lines,
    fine_rows: Rows | None,
    out_rows: int,
) -> tuple[Rows, int]:
    """Return the table of neighbours and the number of pairs.

    Parameters
    ----------
    geometry : Geometry
        How coarse and fine sites are related.
    coarse, fine : Lines
        Those that offsets are counted from, and those they lead to.
    coarse_rows, fine_rows : (rows,) int32 array or None
        Row of each sorted site; None where rows are sorted.
    out_rows : int
        Width of the table: fine rows for a transposed kernel, else coarse ones.
    """
    transposed = geometry.kind == "transposed"
    mirrored = geometry.kind == "submanifold" and all(k % 2 for k in geometry.kernel_size)
    check_table_size(geometry.volume, out_rows)
    table = empty((geometry.volume, out_rows), np.int32)
    fill(table)
    steps = _steps(geometry)
    lines = len(coarse.keys)
    tasks = min(lines, chunks(len(coarse.x))[0])
    chunk = -(-lines // tasks) if tasks else 0
    pairs = np.zeros(tasks, np.int64)
    stride = 1 if geometry.kind == "submanifold" else geometry.stride[-1]
    _WALK_LINES.run(
        -(-lines // chunk) if tasks else 0,
        coarse_x=coarse.x, coarse_starts=coarse.starts, coarse_places=coarse.places,
        coarse_rows=coarse_rows, coarse_lines=lines, fine_x=fine.x, fine_starts=fine.starts,
        fine_keys=fine.keys, fine_rows=fine_rows, fine_lines=len(fine.keys),
        fine_shape=np.array(geometry.out_shape if transposed else geometry.in_shape, np.int64),
        axes=geometry.ndim, stride=np.array(geometry.stride, np.int64), steps=steps,
        stride_x=stride, low_x=geometry.padding[-1][0], dilation_x=geometry.dilation[-1],
        taps=geometry.kernel_size[-1], groups=len(steps) // 2 + 1 if mirrored else len(steps),
        volume=geometry.volume, mirrored=int(mirrored), transposed=int(transposed), table=table,
        rows=out_rows, pairs=pairs, chunk=chunk,
    )  # fmt: skip
    entries = int(pairs.sum())
    # A site and itself are one entry of a mirrored table, any other pair is two.
    return table, 2 * entries - out_rows if mirrored else entries
