"""Sparse pools: over windows, and over all sites of each grid."""

from __future__ import annotations

import functools
from typing import Any

from ..contract.arguments import Padding, Sizes
from .calls import Call, global_pool_call, pool_call
from .geometry import find_rulebook, make_geometry, require_tensor
from .rulebook import Rulebook
from .tensor import SparseTensor

__all__ = [
    "global_avg_pool",
    "global_avg_pool_call",
    "global_max_pool",
    "global_max_pool_call",
    "sparse_avg_pool",
    "sparse_avg_pool_call",
    "sparse_max_pool",
    "sparse_max_pool_call",
]


def sparse_max_pool(
    x: SparseTensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Padding = 0,
    dilation: Sizes = 1,
    *,
    indice_key: str | None = None,
    rulebook: Rulebook | None = None,
) -> SparseTensor:
    """Return the largest feature of the active sites in each window that holds any.

    Parameters
    ----------
    x : SparseTensor
        With 1 to 4 spatial axes.
    kernel_size : int or tuple of int
        Shape of the window.
    stride : int or tuple of int, optional
        Step between windows; by default they lie side by side.
    padding, dilation, indice_key, rulebook
        As for `sparse_conv`.

    Returns
    -------
    SparseTensor
        At the windows' positions, sorted. A NaN in a window is its largest.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[-1], [-3], [2]]), [[0, 0], [0, 1], [0, 6]], (8,))
    >>> sparse.sparse_max_pool(x, 2).features.ravel()
    array([-1.,  2.], dtype=float32)
    """
    return sparse_max_pool_call(
        x, kernel_size, stride, padding, dilation, indice_key, rulebook
    ).compute()


def sparse_avg_pool(
    x: SparseTensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Padding = 0,
    dilation: Sizes = 1,
    *,
    indice_key: str | None = None,
    rulebook: Rulebook | None = None,
) -> SparseTensor:
    """Return the mean of the active sites in each window that holds any.

    Inactive sites are not counted. Arguments and result are those of `sparse_max_pool`.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[-1], [-3], [2]]), [[0, 0], [0, 1], [0, 6]], (8,))
    >>> sparse.sparse_avg_pool(x, 2).features.ravel()
    array([-2.,  2.], dtype=float32)
    """
    return sparse_avg_pool_call(
        x, kernel_size, stride, padding, dilation, indice_key, rulebook
    ).compute()


def _pool(
    op: str, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, indice_key: Any,
    rulebook: Any,
) -> Call:  # fmt: skip
    require_tensor(x)
    steps = kernel_size if stride is None else stride
    geometry = make_geometry("regular", x, kernel_size, steps, padding, dilation)
    return pool_call(op, x, find_rulebook(x, geometry, indice_key, rulebook))


sparse_max_pool_call = functools.partial(_pool, "sparse_max_pool")
sparse_avg_pool_call = functools.partial(_pool, "sparse_avg_pool")


def global_max_pool(x: SparseTensor) -> Any:
    """Return the largest feature of all sites of each grid.

    Parameters
    ----------
    x : SparseTensor
        With 1 to 4 spatial axes.

    Returns
    -------
    array, shape (batch_size, C)
        Of the features' kind.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[-1], [-3], [2]]), [[0, 0], [0, 1], [1, 6]], (8,))
    >>> sparse.global_max_pool(x).ravel()
    array([-1.,  2.], dtype=float32)
    """
    return global_max_pool_call(x).compute_global()


def global_avg_pool(x: SparseTensor) -> Any:
    """Return the mean over all sites of each grid; see `global_max_pool`.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[-1], [-3], [2]]), [[0, 0], [0, 1], [1, 6]], (8,))
    >>> sparse.global_avg_pool(x).ravel()
    array([-2.,  2.], dtype=float32)
    """
    return global_avg_pool_call(x).compute_global()


global_max_pool_call = functools.partial(global_pool_call, "sparse_global_max_pool")
global_avg_pool_call = functools.partial(global_pool_call, "sparse_global_avg_pool")
