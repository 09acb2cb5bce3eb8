"""The schedule of `cpu.sparse_gemm`: the pairs of a rulebook by panel of output rows and by offset.

Made once a rulebook and height of a panel, and kept by it. It takes 8 bytes a pair: the input row,
and the output row's place in its panel. Rows are taken in the order of their keys, so that the
inputs of a panel are few and lie near each other, in whatever order the sites came::

    count   task = offset, some panels: the rows that meet one         vectors of the table
    fill    task = offset, some panels: their pairs                    no branch on what is found

A row of the table (500 KB for 125,000 sites) lies in L2 while a task reads it, which matters where
the sites came in no order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.rulebook import Rulebook

from ..rulebook.sort import make_keys, sort_rows
from ..rulebook.stage import IntegerStage, empty, get_int
from ..simd.intrinsics import get_word, set_word
from .gemm_tile import MOST_AHEAD

__all__ = ["Schedule", "find_schedule"]

#: Tasks that a schedule is made in, where its offsets are fewer.
_TASKS = 32


class Schedule(NamedTuple):
    """The pairs by panel and offset.

    Parameters
    ----------
    words : (3,) int64 array
        Addresses of the other three; 0 where there is no order.
    starts : (panels * volume + 1,) int64 array
        Where the pairs of a panel and an offset begin.
    pairs : (pairs + MOST_AHEAD, 2) int32 array
        Input row, and output row within the panel.
    order : (out_rows,) int32 array or None
        Output rows as they lie in panels, where that is not their own order.
    """

    words: NDArray[np.int64]
    starts: NDArray[np.int64]
    pairs: NDArray[np.int32]
    order: NDArray[np.int32] | None


def _count_panel_pairs(g: Any, task: int) -> None:
    """Count the pairs of one offset in some panels."""
    k, part = task // g.parts, task % g.parts
    table = g.table + 4 * k * g.rows
    for panel in range(part * g.share, min((part + 1) * g.share, g.panels)):
        first, stop = panel * g.panel_rows, min((panel + 1) * g.panel_rows, g.rows)
        pairs = stop - first
        if g.order:
            for i in range(first, stop):
                pairs += get_int(table, get_int(g.order, i)) >> 31
        else:
            for i in range(first, stop):
                pairs += get_int(table, i) >> 31
        set_word(g.counts, panel * g.volume + k, pairs)


def _fill_panel_pairs(g: Any, task: int) -> None:
    """Write the pairs of one offset in some panels.

    What is no pair is written too, and over it the next; the list ends with its last pair.
    """
    k, part = task // g.parts, task % g.parts
    table = g.table + 4 * k * g.rows
    for panel in range(part * g.share, min((part + 1) * g.share, g.panels)):
        first, i = panel * g.panel_rows, 0
        at = get_word(g.starts, panel * g.volume + k)
        stop = get_word(g.starts, panel * g.volume + k + 1)
        while at < stop:
            row = get_int(table, get_int(g.order, first + i) if g.order else first + i)
            set_word(g.pairs, at, row & 0xFFFFFFFF | i << 32)
            at += 1 + (row >> 31)
            i += 1


_SIZES = "volume rows panels panel_rows parts share"
_COUNT = IntegerStage(_count_panel_pairs, f"table order counts {_SIZES}")
_FILL = IntegerStage(_fill_panel_pairs, f"table order starts pairs {_SIZES}")


def _key_order(rulebook: Rulebook) -> NDArray[np.int32] | None:
    """Return the output rows sorted by key, None where they are."""
    batch_size = rulebook.geometry.batch_size
    keys, least, most, rise = make_keys(rulebook.out_shape, batch_size, rulebook.out_indices)
    return None if rise else sort_rows(keys, least, most)[1]


def _build(rulebook: Rulebook, panel_rows: int) -> Schedule:
    """Make the schedule."""
    table, rows = rulebook.neighbours, rulebook.out_rows
    volume, panels = len(table), -(-rows // panel_rows)
    order = _key_order(rulebook)
    share = -(-panels // max(1, _TASKS // volume))
    parts = -(-panels // share)
    sizes = {"volume": volume, "rows": rows, "panels": panels, "panel_rows": panel_rows,
             "parts": parts, "share": share}  # fmt: skip
    starts = np.zeros(panels * volume + 1, np.int64)
    _COUNT.run(volume * parts, table=table, order=order, counts=starts[1:], **sizes)
    np.cumsum(starts, out=starts)
    pairs = empty((rulebook.pairs + MOST_AHEAD, 2), np.int32)
    pairs[rulebook.pairs :] = 0
    _FILL.run(volume * parts, table=table, order=order, starts=starts, pairs=pairs, **sizes)
    addresses = [0 if array is None else array.ctypes.data for array in (starts, pairs, order)]
    return Schedule(np.array(addresses, np.int64), starts, pairs, order)


def find_schedule(rulebook: Rulebook, panel_rows: int) -> Schedule:
    """Return a rulebook's schedule for panels of so many rows."""
    return rulebook.derive(_build, panel_rows)
