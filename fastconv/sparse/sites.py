"""Active sites as a caller gives them: checked once, so that nothing behind them checks again.

A site is a row ``(batch, i0, i1, ...)``. Its key is its position among all sites of the batch's
grids in row-major order, an int64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, on_host
from ..contract import first_use
from ..contract.errors import DTypeError, ShapeError
from ..contract.geometry import LONGEST_AXIS, check_grid
from .frozen import freeze, private

__all__ = [
    "DUPLICATES",
    "check_range",
    "check_rows",
    "check_sites",
    "check_unique",
    "group_sites",
    "join_duplicates",
    "join_groups",
]

#: What is done about a site that comes more than once.
DUPLICATES = ("error", "sum", "mean", "max", "first")

Indices = NDArray[np.int32]


def check_rows(count: int) -> None:
    """Raise where there are more sites than int32 numbers."""
    if count > LONGEST_AXIS:
        raise ShapeError(f"indices: got {count} rows, want at most {LONGEST_AXIS} (int32)")


def check_sites(
    indices: NDArray[Any], shape: tuple[int, ...], batch_size: int | None
) -> tuple[Indices, int]:
    """Return sites as a row-major int32 array that nobody can change, and the batch size.

    Parameters
    ----------
    indices : (rows, 1 + ndim) array of any integer type
        Batch first.
    shape : tuple of int
        Spatial shape.
    batch_size : int or None
        None takes the lowest that holds every site.
    """
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"indices: got {indices.dtype}, want an integer type")
    if indices.ndim != 2 or indices.shape[1] != 1 + len(shape):
        raise ShapeError(
            f"indices: got shape {indices.shape}, want (rows, {1 + len(shape)}), which is the "
            f"batch and an index for each axis of spatial_shape={shape}"
        )
    check_rows(len(indices))
    # What is checked is the copy, which nobody else writes to. One of a wider type may have lost
    # bits, so what was given is looked at before.
    made = indices
    if indices.dtype == np.int32:
        made = private(indices)
    if batch_size is None:
        batch_size = 1 + max(0, int(made[:, 0].max(initial=0)))
    check_grid(shape, batch_size)
    check_range("indices", made, (batch_size, *shape))
    if made.dtype != np.int32:
        made = freeze(np.array(made, np.int32, order="C"))
        check_range("indices", made, (batch_size, *shape))
    return made, batch_size


def check_range(name: str, sites: NDArray[Any], grid: tuple[int, ...]) -> None:
    """Raise where sites are outside their grid, whose first size is the batch's."""
    for column, size in enumerate(grid):
        values = sites[:, column]
        if len(values) == 0 or (values.min() >= 0 and int(values.max()) < size):
            continue
        row = int(values.argmin() if values.min() < 0 else values.argmax())
        what = "batch_size" if column == 0 else f"axis {column - 1} of spatial_shape"
        raise ShapeError(
            f"{name}: got {int(values[row])} in row {row}, column {column}, want 0 to {size - 1} "
            f"as {what} is {size}"
        )


def join_duplicates(
    features: Array, indices: Indices, shape: tuple[int, ...], batch_size: int, how: str
) -> tuple[NDArray[Any], Indices] | None:
    """Return features and sites with each site once, sorted by key; None where each is already.

    Parameters
    ----------
    features : (rows, C) array
        One row a site, wherever it lies.
    indices : (rows, 1 + ndim) int32 array
        Checked sites.
    shape, batch_size
        Of the grid.
    how : str
        One of `DUPLICATES`.
    """
    order, starts = group_sites(indices, shape, batch_size)
    if len(starts) - 1 == len(order):
        return None
    if how == "error":
        wish = "; duplicates='sum', 'mean', 'max' or 'first' joins them"
        raise ShapeError(_twice("indices", indices, order, starts) + wish)
    return join_groups(on_host(features), order, starts, how), indices[order[starts[:-1]]]


def check_unique(name: str, indices: Indices, shape: tuple[int, ...], batch_size: int) -> None:
    """Raise where a checked site comes twice."""
    order, starts = group_sites(indices, shape, batch_size)
    if len(starts) - 1 < len(order):
        raise ShapeError(_twice(name, indices, order, starts))


def _twice(name: str, indices: Indices, order: NDArray[np.int32], starts: NDArray[np.int64]) -> str:
    """Return a sentence on the first site that comes twice."""
    group = int(np.argmax(np.diff(starts) > 1))
    rows = order[starts[group] : starts[group] + 2].tolist()
    return (
        f"{name}: got the site {tuple(indices[rows[0]].tolist())} in row {rows[0]} and in row "
        f"{rows[1]}, want each site once"
    )


def group_sites(
    indices: Indices, shape: tuple[int, ...], batch_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return rows sorted by key, and the first of each site's among them, and their end.

    Rows of one site keep their order.
    """
    rulebook = first_use.load("fastconv.kernels.cpu.rulebook.build")
    keys, order = rulebook.sort_keys(shape, batch_size, indices)
    return order, np.append(np.flatnonzero(np.diff(keys, prepend=-1)), len(keys))


def join_groups(
    values: NDArray[Any], order: NDArray[np.int32], starts: NDArray[np.int64], how: str
) -> NDArray[Any]:
    """Return one row for the rows of each site; sums are taken in float64 and rounded once.

    Parameters
    ----------
    values : (rows, C) array
        In any order.
    order, starts
        Of `group_sites`.
    how : {"sum", "mean", "max", "first"}
        What is made of them.
    """
    if how == "first":
        return values[order[starts[:-1]]]
    join = first_use.load("fastconv.kernels.cpu.rulebook.join")
    joined: NDArray[Any] = join.join_rows(values, order, starts, how)
    return joined.astype(values.dtype, copy=False)
