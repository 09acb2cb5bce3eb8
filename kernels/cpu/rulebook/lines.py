"""Lines of sites: those that differ in the last axis only, which sorted keys have side by side.

A line is one start, one key and one place on the other axes, so that what is asked of these is
asked once a line; 2 to 10 sites of a scan share one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..simd.intrinsics import get_word, set_word
from .sort import decode_keys
from .stage import IntegerStage, chunks, empty, get_int, set_int

__all__ = ["Lines", "line_sites", "make_lines"]


@dataclass(frozen=True, slots=True)
class Lines:
    """Sorted sites, cut into lines.

    Parameters
    ----------
    x : (rows,) int32 array
        Coordinate on the last axis.
    starts : (lines + 1,) int64 array
        First site of each line, and the end.
    keys : (lines,) int64 array
        Keys of the other axes, the batch first.
    places : (lines, ndim) int32 array
        Their coordinates.
    """

    x: NDArray[np.int32]
    starts: NDArray[np.int64]
    keys: NDArray[np.int64]
    places: NDArray[np.int32]


def _count_lines(g: Any, task: int) -> None:
    """Count the lines that begin in a chunk, and write the sites' last coordinates."""
    first = task * g.chunk
    # One division a line: the sites of a line lie before its end, which is a key of 63 bits too.
    begin, end, count = 0, 0, 0
    if first:
        before = get_word(g.keys, first - 1)
        begin = before - before % g.size
        end = begin + g.size
    for i in range(first, min(first + g.chunk, g.rows)):
        key = get_word(g.keys, i)
        if key >= end:
            begin = key - key % g.size
            end = begin + g.size
            count += 1
        set_int(g.x, i, key - begin)
    set_word(g.counts, task, count)


def _write_lines(g: Any, task: int) -> None:
    """Write start and key of the lines that begin in a chunk."""
    first, line = task * g.chunk, get_word(g.counts, task)
    end = 0
    if first:
        before = get_word(g.keys, first - 1)
        end = before - before % g.size + g.size
    for i in range(first, min(first + g.chunk, g.rows)):
        key = get_word(g.keys, i)
        if key >= end:
            number = key // g.size
            end = number * g.size + g.size
            set_word(g.starts, line, i)
            set_word(g.line_keys, line, number)
            line += 1


def _write_sites(g: Any, task: int) -> None:
    """Write the coordinates of the sites in a chunk of lines."""
    for line in range(task * g.chunk, min((task + 1) * g.chunk, g.lines)):
        for i in range(get_word(g.starts, line), get_word(g.starts, line + 1)):
            for axis in range(g.axes):
                place = get_int(g.places, line * g.axes + axis)
                set_int(g.indices, i * (g.axes + 1) + axis, place)
            set_int(g.indices, i * (g.axes + 1) + g.axes, get_int(g.x, i))


_COUNT_LINES = IntegerStage(_count_lines, "keys size x counts rows chunk")
_WRITE_LINES = IntegerStage(_write_lines, "keys size counts starts line_keys rows chunk")
_WRITE_SITES = IntegerStage(_write_sites, "x starts places axes indices lines chunk")


def make_lines(shape: tuple[int, ...], batch_size: int, keys: NDArray[np.int64]) -> Lines:
    """Cut sites, given by rising keys, into lines."""
    rows = len(keys)
    tasks, chunk = chunks(rows)
    x, counts = empty(rows, np.int32), empty(tasks, np.int64)
    _COUNT_LINES.run(tasks, keys=keys, size=shape[-1], x=x, counts=counts, rows=rows, chunk=chunk)
    ends = np.cumsum(counts)
    lines = int(ends[-1]) if tasks else 0
    starts, line_keys = empty(lines + 1, np.int64), empty(lines, np.int64)
    starts[lines] = rows
    _WRITE_LINES.run(
        tasks, keys=keys, size=shape[-1], counts=ends - counts, starts=starts,
        line_keys=line_keys, rows=rows, chunk=chunk,
    )  # fmt: skip
    return Lines(x, starts, line_keys, decode_keys(shape[:-1], batch_size, line_keys))


def line_sites(lines: Lines) -> NDArray[np.int32]:
    """Return the sites of lines, ``(rows, 1 + ndim)``."""
    count, axes = lines.places.shape
    indices = empty((len(lines.x), axes + 1), np.int32)
    tasks, chunk = chunks(count)
    _WRITE_SITES.run(
        tasks, x=lines.x, starts=lines.starts, places=lines.places, axes=axes, indices=indices,
        lines=count, chunk=chunk,
    )  # fmt: skip
    return indices
