"""Which rows of two sparse tensors lie at the same site.

Sites are compared by key on the host, whatever the features' device. The order of the rows that
come out follows from the order of those that come in, and from nothing else.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, beside, on_host
from ..contract.errors import DeviceError, DTypeError, ShapeError
from ..device_arrays import DeviceArray
from .frozen import freeze, same_memory
from .geometry import require_tensor
from .sites import check_rows, group_sites
from .tensor import SparseTensor

__all__ = [
    "Rows",
    "Union",
    "check_alike",
    "check_grids",
    "shared_rows",
    "spread_rows",
    "union_rows",
]

Rows = NDArray[np.int64]


class Union(NamedTuple):
    """The sites of two tensors.

    Parameters
    ----------
    like : SparseTensor or None
        The one of the two whose sites these are, row for row; None where neither has all of them.
    indices : (rows, 1 + ndim) int32 array
        The sites, frozen, where the tensors are.
    first, second : (rows of one tensor,) int64 array
        The row of the union at which each row of a tensor lies.
    """

    like: SparseTensor | None
    indices: Array
    first: Rows
    second: Rows

    @property
    def rows(self) -> int:
        """Number of sites."""
        return int(self.indices.shape[0])


def check_grids(x: SparseTensor, y: SparseTensor, name: str = "y", batch: bool = True) -> None:
    """Raise where two tensors are of different grids, types, libraries or devices."""
    require_tensor(x)
    if not isinstance(y, SparseTensor):
        raise DTypeError(f"{name}: got {type(y).__name__}, want a fastconv.sparse.SparseTensor")
    if y.spatial_shape != x.spatial_shape:
        raise ShapeError(
            f"{name}: got a grid of {y.spatial_shape}, want {x.spatial_shape} as the first has"
        )
    if batch and y.batch_size != x.batch_size:
        raise ShapeError(
            f"{name}: got batch_size={y.batch_size}, want {x.batch_size} as the first has"
        )
    if y.dtype != x.dtype:
        raise DTypeError(f"{name}: got {y.dtype}, want {x.dtype} as the first has")
    mine, other = x.feature_array, y.feature_array
    places = [
        (each.library, each.device) if isinstance(each, DeviceArray) else None
        for each in (mine, other)
    ]
    if places[0] != places[1]:
        raise DeviceError(f"{name}: got an array elsewhere, want one where the first tensor is")


def check_alike(x: SparseTensor, y: SparseTensor, name: str = "y", batch: bool = True) -> None:
    """Raise where two tensors differ in their grids or in their channels."""
    check_grids(x, y, name, batch)
    if y.channels != x.channels:
        raise ShapeError(f"{name}: got {y.channels} channels, want {x.channels} as the first has")


def union_rows(x: SparseTensor, y: SparseTensor) -> Union:
    """Return the sites that either tensor has.

    They are those of `x` in their order, then those that only `y` has, in theirs; where `y` has
    all sites of `x`, they are those of `y`.
    """
    if same_memory(x._indices, y._indices):
        every = np.arange(len(x))
        return Union(x, x._indices, every, every)
    first, second = _join(x, y)
    count = max(len(x), 1 + int(second.max(initial=-1)))
    if count == len(x):
        return Union(x, x._indices, first, second)
    if count == len(y):  # each site of `x` is one of `y`
        second, first = _join(y, x)
        return Union(y, y._indices, first, second)
    check_rows(count)
    sites = np.concatenate([on_host(x._indices), on_host(y._indices)[second >= len(x)]])
    return Union(None, beside(x._indices, freeze(sites)), first, second)


def _join(x: SparseTensor, y: SparseTensor) -> tuple[Rows, Rows]:
    """Return the rows of the union at which those of `x` (as they are) and of `y` lie."""
    groups, order, starts = _groups(x, y)
    heads = order[starts[:-1]].astype(np.int64)  # a row of `x` wherever it has the site
    place = heads.copy()
    fresh = np.flatnonzero(heads >= len(x))
    rank = np.empty(len(fresh), np.int64)
    rank[np.argsort(heads[fresh])] = np.arange(len(fresh))
    place[fresh] = len(x) + rank
    rows = np.empty(len(order), np.int64)
    rows[order] = place[groups]
    return rows[: len(x)], rows[len(x) :]


def shared_rows(x: SparseTensor, y: SparseTensor) -> tuple[Rows, Rows]:
    """Return the rows of `x`, in their order, and of `y` at the sites that both have."""
    if same_memory(x._indices, y._indices):
        every = np.arange(len(x))
        return every, every
    _, order, starts = _groups(x, y)
    begins = starts[:-1][np.diff(starts) == 2]
    of_x, of_y = order[begins].astype(np.int64), order[begins + 1].astype(np.int64) - len(x)
    by_row = np.argsort(of_x)
    return of_x[by_row], of_y[by_row]


def _groups(x: SparseTensor, y: SparseTensor) -> tuple[Rows, NDArray[np.int32], Rows]:
    """Return the rows of `x` and then of `y` sorted by site, the first of each, and its number."""
    check_rows(len(x) + len(y))
    sites = np.concatenate([on_host(x._indices), on_host(y._indices)])
    order, starts = group_sites(sites, x.spatial_shape, x.batch_size)
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts)), order, starts


def spread_rows(values: NDArray[Any], rows: Rows, count: int) -> NDArray[Any]:
    """Return values at some of `count` rows, 0 at the others."""
    made = np.zeros((count, values.shape[1]), values.dtype)
    made[rows] = values
    return made
