"""Active sites as a caller gives them: checked once, so that nothing behind them checks again.

A site is a row ``(batch, i0, i1, ...)``. Its key is its position among all sites of the batch's
grids in row-major order, an int64.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DTypeError, ShapeError

__all__ = [
    "DUPLICATES",
    "LONGEST_AXIS",
    "MOST_KEYS",
    "check_grid",
    "check_sites",
    "group_sites",
    "join_duplicates",
    "join_groups",
]

#: What is done about a site that comes more than once.
DUPLICATES = ("error", "sum", "mean", "max", "first")

#: Most sites that have keys of 64 bits, and the longest axis whose indices are int32.
MOST_KEYS = 2**63 - 1
LONGEST_AXIS = 2**31 - 1

Indices = NDArray[np.int32]


def check_grid(shape: tuple[int, ...], batch_size: int) -> None:
    """Raise where a grid has an empty axis, or sites whose coordinates or keys overflow."""
    if min(shape) < 1:
        raise ShapeError(f"spatial_shape: got {shape}, want every axis to be at least 1")
    if max(shape) > LONGEST_AXIS:
        raise ShapeError(
            f"spatial_shape: got {shape}, want no axis above {LONGEST_AXIS} (indices are int32)"
        )
    if batch_size * math.prod(shape) > MOST_KEYS:
        raise ShapeError(
            f"spatial_shape: got {shape} with batch_size={batch_size}, "
            f"{batch_size * math.prod(shape):.3g} sites, want at most 2**63 - 1, "
            "which have keys of 64 bits"
        )


def check_sites(
    indices: NDArray[Any], shape: tuple[int, ...], batch_size: int | None
) -> tuple[Indices, int]:
    """Return sites as a row-major int32 array of the tensor's own, and the batch size.

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
    if batch_size is None:
        batch_size = 1 + max(0, int(indices[:, 0].max(initial=0)))
    if batch_size < 1:
        raise ShapeError(f"batch_size: got {batch_size}, want at least 1")
    check_grid(shape, batch_size)
    for column, size in enumerate((batch_size, *shape)):
        _check_column(indices, column, size)
    made = np.array(indices, np.int32, order="C")
    made.flags.writeable = False
    return made, batch_size


def _check_column(indices: NDArray[Any], column: int, size: int) -> None:
    values = indices[:, column]
    if len(values) == 0 or (values.min() >= 0 and int(values.max()) < size):
        return
    row = int(values.argmin() if values.min() < 0 else values.argmax())
    what = "batch_size" if column == 0 else f"axis {column - 1} of spatial_shape"
    raise ShapeError(
        f"indices: got {int(values[row])} in row {row}, column {column}, want 0 to {size - 1} as "
        f"{what} is {size}"
    )


def join_duplicates(
    features: NDArray[Any], indices: Indices, shape: tuple[int, ...], batch_size: int, how: str
) -> tuple[NDArray[Any], Indices] | None:
    """Return features and sites with each site once, sorted by key; None where each is already.

    Parameters
    ----------
    features : (rows, C) array
        One row a site.
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
        group = int(np.argmax(np.diff(starts) > 1))
        rows = order[starts[group] : starts[group] + 2].tolist()
        raise ShapeError(
            f"indices: got the site {tuple(indices[rows[0]].tolist())} in row {rows[0]} and in row "
            f"{rows[1]}, want each site once; duplicates='sum', 'mean', 'max' or 'first' joins them"
        )
    return join_groups(features, order, starts, how), indices[order[starts[:-1]]]


def group_sites(
    indices: Indices, shape: tuple[int, ...], batch_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return rows sorted by key, and the first of each site's among them, and their end.

    Rows of one site keep their order.
    """
    rulebook = importlib.import_module("fastconv.kernels.cpu.rulebook")
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
    join = importlib.import_module("fastconv.kernels.cpu.rulebook_join")
    joined: NDArray[Any] = join.join_rows(values, order, starts, how)
    return joined.astype(values.dtype, copy=False)
