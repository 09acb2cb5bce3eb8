"""Keys of sites, and a stable parallel radix sort of keys and the rows that they came from.

Least significant digit first, digits of equal width over the range of the keys (a grid of
1500 x 1500 x 50 has keys of 27 bits: three passes of 9), none at all where the rows come sorted::

    for digit                                      a pass
      for task: count its keys by digit            histogram[task, digit], 2^11 words at most: in L1
      first places: over digits, then tasks        so equal digits keep the order of the rows
      for task: move keys and rows                 12 bytes read and written a row

A stable order is unique, so it does not depend on how rows are divided into tasks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..simd.intrinsics import get_word, set_word
from .stage import IntegerStage, chunks, empty, get_int, set_int

__all__ = ["decode_keys", "make_keys", "sort_keys", "sort_rows"]

Keys = NDArray[np.int64]
Rows = NDArray[np.int32]

#: Bits of the widest digit: its counts (16 KB) stay in L1 beside the streams.
_DIGIT_BITS = 11


def _make_keys(g: Any, task: int) -> None:
    """Number the sites of a chunk; tell least and largest key and whether they rise."""
    least, most, falls, before = (1 << 63) - 1, -1, 0, -1
    for row in range(task * g.chunk, min((task + 1) * g.chunk, g.rows)):
        key = 0
        for axis in range(g.axes):
            key = key * get_word(g.shape, axis) + get_int(g.indices, row * g.axes + axis)
        set_word(g.keys, row, key)
        least, most = min(least, key), max(most, key)
        falls |= int(key < before)
        before = key
    set_word(g.told, 3 * task, least)
    set_word(g.told, 3 * task + 1, most)
    set_word(g.told, 3 * task + 2, falls)


def _count_digits(g: Any, task: int) -> None:
    """Count a chunk's keys by digit."""
    counts = g.counts + 8 * task * (g.mask + 1)
    for digit in range(g.mask + 1):
        set_word(counts, digit, 0)
    for i in range(task * g.chunk, min((task + 1) * g.chunk, g.rows)):
        digit = (get_word(g.keys, i) - g.least) >> g.shift & g.mask
        set_word(counts, digit, get_word(counts, digit) + 1)


def _move_by_digit(g: Any, task: int) -> None:
    """Move a chunk's keys and rows to the places of their digits."""
    places = g.counts + 8 * task * (g.mask + 1)
    for i in range(task * g.chunk, min((task + 1) * g.chunk, g.rows)):
        key = get_word(g.keys, i)
        digit = (key - g.least) >> g.shift & g.mask
        place = get_word(places, digit)
        set_word(places, digit, place + 1)
        set_word(g.to_keys, place, key)
        set_int(g.to_order, place, get_int(g.order, i) if g.order else i)


def _decode_keys(g: Any, task: int) -> None:
    """Write the coordinates of a chunk's keys."""
    for row in range(task * g.chunk, min((task + 1) * g.chunk, g.rows)):
        rest = get_word(g.keys, row)
        for i in range(g.axes):
            axis = g.axes - 1 - i
            size = get_word(g.shape, axis)
            set_int(g.indices, row * g.axes + axis, rest % size)
            rest //= size


_MAKE_KEYS = IntegerStage(_make_keys, "indices shape axes keys told rows chunk")
_COUNT_DIGITS = IntegerStage(_count_digits, "keys least shift mask counts rows chunk")
_MOVE_BY_DIGIT = IntegerStage(
    _move_by_digit, "keys order to_keys to_order least shift mask counts rows chunk"
)
_DECODE_KEYS = IntegerStage(_decode_keys, "keys shape axes indices rows chunk")


def _grid(shape: tuple[int, ...], batch_size: int) -> NDArray[np.int64]:
    return np.array([batch_size, *shape], np.int64)


def make_keys(
    shape: tuple[int, ...], batch_size: int, indices: NDArray[np.int32]
) -> tuple[Keys, int, int, bool]:
    """Return the keys of sites, the least and the largest of them, and whether they rise."""
    rows = len(indices)
    tasks, chunk = chunks(rows)
    keys, told = empty(rows, np.int64), empty((tasks, 3), np.int64)
    grid = _grid(shape, batch_size)
    _MAKE_KEYS.run(tasks, indices=indices, shape=grid, axes=len(grid), keys=keys, told=told,
                   rows=rows, chunk=chunk)  # fmt: skip
    if not rows:
        return keys, 0, 0, True
    first = keys[chunk::chunk]
    rise = not told[:, 2].any() and bool(
        (first >= keys[chunk - 1 : -1 : chunk][: len(first)]).all()
    )
    return keys, int(told[:, 0].min()), int(told[:, 1].max()), rise


def sort_rows(
    keys: Keys, least: int, most: int, order: Rows | None = None
) -> tuple[Keys, Rows | None]:
    """Sort keys between `least` and `most`, and with them the row numbers in `order`.

    None stands for rows in their own order. The arrays that are given serve as scratch memory.
    """
    rows = len(keys)
    tasks, chunk = chunks(rows)
    bits = (most - least).bit_length()
    passes = -(-bits // _DIGIT_BITS)
    width = -(-bits // passes) if passes else 0
    counts = empty((tasks, 1 << width), np.int64)
    to_keys = empty(rows, np.int64)
    spare: list[Rows] = []
    for shift in range(0, bits, max(width, 1)):
        words = {"least": least, "shift": shift, "mask": (1 << width) - 1}
        _COUNT_DIGITS.run(tasks, keys=keys, counts=counts, rows=rows, chunk=chunk, **words)
        if (counts.sum(0) == rows).any():
            continue  # all have this digit
        ends = np.cumsum(counts.T.ravel()).reshape(counts.T.shape).T
        np.subtract(ends, counts, out=counts)
        to_order = spare.pop() if spare else empty(rows, np.int32)
        _MOVE_BY_DIGIT.run(
            tasks, keys=keys, order=order, to_keys=to_keys, to_order=to_order, counts=counts,
            rows=rows, chunk=chunk, **words,
        )  # fmt: skip
        keys, to_keys = to_keys, keys
        if order is not None:
            spare.append(order)
        order = to_order
    return keys, order


def sort_keys(
    shape: tuple[int, ...], batch_size: int, indices: NDArray[np.int32]
) -> tuple[Keys, Rows]:
    """Return the keys of sites in rising order, and the row that each came from.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape of the grid.
    batch_size : int
        Number of grids; with the shape's product at most 2**63 - 1.
    indices : (rows, 1 + ndim) int32 array
        Sites inside the grid, batch first. Two that are equal keep their order, side by side.

    Returns
    -------
    keys : (rows,) int64 array
        ``((batch * S0 + i0) * S1 + i1) * ...``, rising.
    order : (rows,) int32 array
        Row of `indices` of each key.

    Examples
    --------
    >>> import numpy as np
    >>> keys, order = sort_keys((4, 4), 1, np.array([[0, 2, 1], [0, 0, 3]], np.int32))
    >>> keys.tolist(), order.tolist()
    ([3, 9], [1, 0])
    """
    keys, least, most, rise = make_keys(shape, batch_size, indices)
    order = None
    if not rise:
        keys, order = sort_rows(keys, least, most)
    return keys, np.arange(len(keys), dtype=np.int32) if order is None else order


def decode_keys(shape: tuple[int, ...], batch_size: int, keys: Keys) -> NDArray[np.int32]:
    """Return the sites of keys, ``(rows, 1 + ndim)``."""
    grid = _grid(shape, batch_size)
    indices = empty((len(keys), len(grid)), np.int32)
    tasks, chunk = chunks(len(keys))
    _DECODE_KEYS.run(tasks, keys=keys, shape=grid, axes=len(grid), indices=indices,
                     rows=len(keys), chunk=chunk)  # fmt: skip
    return indices
