"""Sparse tensors with different sites: their union, sums, differences, products and channels.

Where a tensor has no site, its features count as 0. Values are formed a site at a time in the
tensors' own type, so results are the same bits for any number of threads.
"""

from __future__ import annotations

import numpy as np

from ..arrays import Array, beside, on_host
from .frozen import freeze
from .matching import Rows, Union, check_alike, check_grids, shared_rows, spread_rows, union_rows
from .tensor import SparseTensor, derived_tensor, trusted_tensor

__all__ = ["add", "concat", "multiply", "subtract", "union"]


def union(x: SparseTensor, y: SparseTensor) -> tuple[SparseTensor, SparseTensor]:
    """Bring two tensors to the sites that either has.

    Parameters
    ----------
    x, y : SparseTensor
        Of one grid, batch size, type and device; with any numbers of channels.

    Returns
    -------
    tuple of two SparseTensor
        The features of `x` and of `y`, 0 at the sites that only the other one has. The sites are
        those of `x` in their order, then those that only `y` has, in theirs; where one tensor has
        all sites, they are its own, and its rulebooks are kept.

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        Where the tensors are not alike.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[0, 3], [0, 1]], (8,))
    >>> y = sparse.SparseTensor(np.float32([[10], [20]]), [[0, 5], [0, 1]], (8,))
    >>> a, b = sparse.union(x, y)
    >>> a.indices[:, 1].tolist(), a.features.ravel().tolist(), b.features.ravel().tolist()
    ([3, 1, 5], [1.0, 2.0, 0.0], [0.0, 20.0, 10.0])
    """
    check_grids(x, y)
    both = union_rows(x, y)
    return (
        _at(both, x, _spread(x, both.first, both.rows)),
        _at(both, x, _spread(y, both.second, both.rows)),
    )


def add(x: SparseTensor, y: SparseTensor) -> SparseTensor:
    """Add two tensors at the sites that either has.

    Parameters
    ----------
    x, y : SparseTensor
        Alike but for their sites.

    Returns
    -------
    SparseTensor
        At the sites of `union`.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[0, 3], [0, 1]], (8,))
    >>> y = sparse.SparseTensor(np.float32([[10], [20]]), [[0, 5], [0, 1]], (8,))
    >>> sparse.add(x, y).features.ravel()
    array([ 1., 22., 10.], dtype=float32)
    """
    return _combine(np.add, x, y)


def subtract(x: SparseTensor, y: SparseTensor) -> SparseTensor:
    """Subtract `y` from `x` at the sites that either has; see `add`.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[0, 3], [0, 1]], (8,))
    >>> y = sparse.SparseTensor(np.float32([[10], [20]]), [[0, 5], [0, 1]], (8,))
    >>> sparse.subtract(x, y).features.ravel()
    array([  1., -18., -10.], dtype=float32)
    """
    return _combine(np.subtract, x, y)


def multiply(x: SparseTensor, y: SparseTensor) -> SparseTensor:
    """Multiply two tensors at the sites that both have: elsewhere the product is 0.

    Parameters
    ----------
    x, y : SparseTensor
        Alike but for their sites.

    Returns
    -------
    SparseTensor
        In the order of `x`.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[0, 3], [0, 1]], (8,))
    >>> y = sparse.SparseTensor(np.float32([[10], [20]]), [[0, 5], [0, 1]], (8,))
    >>> sparse.multiply(x, y)
    SparseTensor(1 sites of 1 x 8 (12.5%), 1 channels, float32, NumPy)
    """
    check_alike(x, y)
    mine, other = shared_rows(x, y)
    product = on_host(x.feature_array)[mine] * on_host(y.feature_array)[other]
    features = beside(x.feature_array, product)
    if len(mine) == len(x):
        return derived_tensor(x, features)
    sites = beside(x.feature_array, freeze(on_host(x._indices)[mine]))
    return trusted_tensor(features, sites, x.spatial_shape, x.batch_size)


def concat(x: SparseTensor, y: SparseTensor) -> SparseTensor:
    """Put the channels of `y` behind those of `x`, at the sites that either has.

    Parameters
    ----------
    x, y : SparseTensor
        Of one grid, batch size, type and device.

    Returns
    -------
    SparseTensor
        At the sites of `union`, 0 in the channels of a tensor without the site.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[0, 3], [0, 1]], (8,))
    >>> y = sparse.SparseTensor(np.float32([[10], [20]]), [[0, 5], [0, 1]], (8,))
    >>> sparse.concat(x, y).features.tolist()
    [[1.0, 0.0], [2.0, 20.0], [0.0, 10.0]]
    """
    check_grids(x, y)
    both = union_rows(x, y)
    made = np.zeros((both.rows, x.channels + y.channels), x.dtype)
    made[both.first, : x.channels] = on_host(x.feature_array)
    made[both.second, x.channels :] = on_host(y.feature_array)
    return _at(both, x, beside(x.feature_array, made))


def _combine(operation: np.ufunc, x: SparseTensor, y: SparseTensor) -> SparseTensor:
    """Return the operation at the sites of either tensor, on 0 where one has none."""
    check_alike(x, y)
    both = union_rows(x, y)
    made = spread_rows(on_host(x.feature_array), both.first, both.rows)
    made[both.second] = operation(made[both.second], on_host(y.feature_array))
    return _at(both, x, beside(x.feature_array, made))


def _spread(x: SparseTensor, rows: Rows, count: int) -> Array:
    """Return a tensor's features at some of `count` rows, 0 at the others."""
    return beside(x.feature_array, spread_rows(on_host(x.feature_array), rows, count))


def _at(both: Union, x: SparseTensor, features: Array) -> SparseTensor:
    if both.like is not None:
        return derived_tensor(both.like, features)
    return trusted_tensor(features, both.indices, x.spatial_shape, x.batch_size)
