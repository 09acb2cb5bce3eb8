"""Parts of a sparse tensor: sites by a mask or a box, and the grids of a batch."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..array_libraries import view_array
from ..arrays import beside, on_host
from ..contract.arguments import per_axis
from ..contract.errors import DTypeError, ShapeError
from ..contract.geometry import check_grid
from .frozen import freeze
from .geometry import require_tensor
from .matching import Rows, check_alike
from .sites import check_rows
from .tensor import SparseTensor, derived_tensor, trusted_tensor

__all__ = ["batch_rows", "box_rows", "crop", "join_batch", "mask_rows", "prune", "split_batch"]


def prune(x: SparseTensor, mask: Any) -> SparseTensor:
    """Keep the sites that a mask names.

    Parameters
    ----------
    x : SparseTensor
        With rows.
    mask : bool array, shape (rows,)
        True at the rows to keep. Sites that are gone count as 0 for whatever follows.

    Returns
    -------
    SparseTensor
        In the order of `x`. Where all are kept, the rulebooks are kept too.

    Raises
    ------
    DTypeError
        For a mask that is not of booleans.
    ShapeError
        For one of another length.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[0, 3], [0, 1]], (8,))
    >>> sparse.prune(x, x.features[:, 0] > 1).indices
    array([[0, 1]], dtype=int32)
    """
    return _select(x, mask_rows(x, mask))


def mask_rows(x: SparseTensor, mask: Any) -> Rows:
    """Return the rows that a mask names."""
    require_tensor(x)
    view = view_array("mask", mask)
    given = np.asarray(mask) if view is None else view.to_host()
    if given.dtype != np.bool_:
        raise DTypeError(f"mask: got {given.dtype}, want bool")
    if given.shape != (len(x),):
        raise ShapeError(f"mask: got shape {given.shape}, want {(len(x),)} as x has rows")
    return np.flatnonzero(given)


def crop(x: SparseTensor, low: int | Sequence[int], high: int | Sequence[int]) -> SparseTensor:
    """Cut a box out of every grid.

    Parameters
    ----------
    x : SparseTensor
        With 1 to 4 spatial axes.
    low, high : int or sequence of int
        First site of the box, and the one behind its last, on each axis.

    Returns
    -------
    SparseTensor
        The sites in the box, in the order of `x`, counted from `low`, in a grid of ``high - low``.

    Raises
    ------
    ShapeError
        Where the box is empty or reaches out of the grid.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[0, 3], [0, 1]], (8,))
    >>> y = sparse.crop(x, 2, 6)
    >>> y.indices.tolist(), y.spatial_shape
    ([[0, 1]], (4,))
    """
    rows, corner, shape = box_rows(x, low, high)
    sites = on_host(x._indices)[rows]
    sites[:, 1:] -= np.array(corner, np.int32)
    features = beside(x.feature_array, on_host(x.feature_array)[rows])
    return trusted_tensor(features, beside(x._indices, freeze(sites)), shape, x.batch_size)


def box_rows(x: SparseTensor, low: Any, high: Any) -> tuple[Rows, tuple[int, ...], tuple[int, ...]]:
    """Return the rows in a box, its first site and its shape."""
    shape = require_tensor(x).spatial_shape
    begin, end = per_axis("low", low, x.ndim), per_axis("high", high, x.ndim)
    if any(a < 0 for a in begin):
        raise ShapeError(f"low: got {begin}, want no negative value")
    if any(not a < b <= size for a, b, size in zip(begin, end, shape, strict=True)):
        raise ShapeError(
            f"high: got {end} with low={begin}, want values above those of low and at most "
            f"{shape} as x has"
        )
    sites = on_host(x._indices)[:, 1:]
    inside = np.ones(len(x), np.bool_)
    for axis in range(x.ndim):
        inside &= (sites[:, axis] >= begin[axis]) & (sites[:, axis] < end[axis])
    box = tuple(b - a for a, b in zip(begin, end, strict=True))
    return np.flatnonzero(inside), begin, box


def split_batch(x: SparseTensor) -> list[SparseTensor]:
    """Return each grid of a batch as a tensor of its own.

    Parameters
    ----------
    x : SparseTensor
        With a batch of any size.

    Returns
    -------
    list of SparseTensor
        ``batch_size`` tensors of one grid, rows in the order of `x`; one may have no site.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[1, 3], [0, 1]], (8,))
    >>> [part.features.tolist() for part in sparse.split_batch(x)]
    [[[2.0]], [[1.0]]]
    """
    sites, rows = on_host(require_tensor(x)._indices), on_host(x.feature_array)
    return [_grid(x, sites[own], rows[own]) for own in batch_rows(x)]


def batch_rows(x: SparseTensor) -> list[Rows]:
    """Return the rows of each grid, in their order."""
    batches = on_host(x._indices)[:, 0]
    order = np.argsort(batches, kind="stable")
    ends = np.cumsum(np.bincount(batches, minlength=x.batch_size))
    return np.split(order, ends[:-1])


def _grid(x: SparseTensor, sites: NDArray[np.int32], features: NDArray[Any]) -> SparseTensor:
    sites[:, 0] = 0
    like = x.feature_array
    return trusted_tensor(beside(like, features), beside(like, freeze(sites)), x.spatial_shape, 1)


def join_batch(tensors: Sequence[SparseTensor]) -> SparseTensor:
    """Put the grids of tensors into one batch, one after another.

    Parameters
    ----------
    tensors : sequence of SparseTensor
        At least one; of one spatial shape, number of channels, type and device.

    Returns
    -------
    SparseTensor
        The rows of all tensors in their order.

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        Where the tensors are not alike, and for a batch or a grid that cannot be counted.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[1, 3], [0, 1]], (8,))
    >>> sparse.join_batch([x, x]).indices[:, 0].tolist()
    [1, 0, 3, 2]
    """
    if not isinstance(tensors, (list, tuple)) or not tensors:
        raise ShapeError(
            f"tensors: got {reprlib.repr(tensors)}, want a list of at least one SparseTensor"
        )
    first = require_tensor(tensors[0])
    for number, other in enumerate(tensors):
        check_alike(first, other, f"tensors[{number}]", batch=False)
    starts = np.cumsum([0, *(each.batch_size for each in tensors)]).tolist()
    check_rows(sum(map(len, tensors)))
    check_grid(first.spatial_shape, starts[-1])
    sites = np.concatenate([on_host(each._indices) for each in tensors])
    sites[:, 0] += np.repeat(np.array(starts[:-1], np.int32), [len(each) for each in tensors])
    features = np.concatenate([on_host(each.feature_array) for each in tensors])
    like = first.feature_array
    frozen = beside(like, freeze(sites))
    return trusted_tensor(beside(like, features), frozen, first.spatial_shape, starts[-1])


def _select(x: SparseTensor, rows: Rows) -> SparseTensor:
    features = beside(x.feature_array, on_host(x.feature_array)[rows])
    if len(rows) == len(x):
        return derived_tensor(x, features)
    sites = beside(x.feature_array, freeze(on_host(x._indices)[rows]))
    return trusted_tensor(features, sites, x.spatial_shape, x.batch_size)
