"""Rows of one group made one: the points of a voxel, taken where they lie.

Wins over gathering the rows and reducing runs of them in NumPy, which takes 100 ns a group; here a
row of four float32 is a quarter of a cache line, read once::

    for task: a chunk of groups
      for group, for column
        for row of the group, in order         one float64 sum, or the largest

Sums are float64 whatever the rows are, so that the mean of many coordinates keeps their digits.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..simd.intrinsics import get_word, load_scalar, store_scalar
from ..simd.ir import F64, ITEMSIZE, storage_code
from .stage import IntegerStage, chunks, empty, get_int

__all__ = ["join_rows"]


@functools.cache
def _make_join(storage: int) -> IntegerStage:
    item = ITEMSIZE[storage]

    def join_groups(g: Any, task: int) -> None:
        """Join the rows of a chunk of groups."""
        for group in range(task * g.chunk, min((task + 1) * g.chunk, g.groups)):
            first, last = get_word(g.starts, group), get_word(g.starts, group + 1)
            for column in range(g.columns):
                source, total = g.values + column * item, 0.0
                for i in range(first, last):
                    place = source + get_int(g.order, i) * g.columns * item
                    value = np.float64(load_scalar(place, storage))
                    if not g.largest:
                        total += value
                    elif i == first or value > total or value != value:
                        total = value
                if g.mean:
                    total /= last - first
                store_scalar(g.joined + 8 * (group * g.columns + column), total, F64)

    return IntegerStage(
        join_groups, "values order starts joined groups columns largest mean chunk", storage
    )


def join_rows(
    values: NDArray[Any], order: NDArray[np.int32], starts: NDArray[np.int64], how: str
) -> NDArray[np.float64]:
    """Return one row for each group of rows.

    Parameters
    ----------
    values : (rows, columns) array
        Of a supported float type.
    order : (members,) int32 array
        Rows by group.
    starts : (groups + 1,) int64 array
        First member of each group, and the end; no group is empty.
    how : {"sum", "mean", "max"}
        A NaN is larger than all numbers.
    """
    values = np.ascontiguousarray(values)
    groups, columns = len(starts) - 1, values.shape[1]
    joined = empty((groups, columns), np.float64)
    tasks, chunk = chunks(groups)
    _make_join(storage_code(values.dtype.name)).run(
        tasks, values=values, order=order, starts=starts, joined=joined, groups=groups,
        columns=columns, largest=int(how == "max"), mean=int(how == "mean"), chunk=chunk,
    )  # fmt: skip
    return joined
