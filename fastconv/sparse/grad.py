"""Gradients of sparse operators, in the style of ``torch.nn.grad``.

Each takes the operator's rulebook: of `make_rulebook`, or ``x.rulebooks[indice_key]``; for
`sparse_inverse_conv` its reverse. Those of pools over everything take the tensor. All arrays are
plain: rows of features, one a site.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..array_libraries import view_array, view_beside
from ..arrays import Array, beside, empty_output, on_host, permute, reshape, row_major, unwrap
from ..contract.arguments import whole_number
from ..contract.errors import DTypeError, ShapeError
from ..device_arrays import DeviceArray
from .calls import Filters, check_layout, describe, in_krsc, run
from .geometry import require_tensor
from .rulebook import Rulebook, require_rulebook
from .set_grad import (
    add_inputs,
    concat_inputs,
    crop_input,
    join_batch_inputs,
    multiply_inputs,
    prune_input,
    split_batch_input,
    subtract_inputs,
    union_inputs,
)
from .tensor import SparseTensor, require_features

__all__ = [
    "add_inputs",
    "avg_pool_input",
    "concat_inputs",
    "conv_bias",
    "conv_input",
    "conv_weight",
    "crop_input",
    "global_avg_pool_input",
    "global_max_pool_input",
    "join_batch_inputs",
    "max_pool_input",
    "multiply_inputs",
    "prune_input",
    "split_batch_input",
    "subtract_inputs",
    "union_inputs",
]


def conv_input(
    rulebook: Rulebook,
    weight: Array,
    grad_output: Array,
    groups: int = 1,
    *,
    weight_layout: str = "KCRS",
) -> Any:
    """Return the gradient of a convolution for its features.

    It is the convolution of `grad_output` by the reversed rulebook, with input and output channels
    exchanged within each group.

    Parameters
    ----------
    rulebook : Rulebook
        Of the convolution, of any kind.
    weight : array, shape (K, C / groups, *kernel_size)
        Its filters.
    grad_output : array, shape (out_rows, K)
        Gradient for its output's features.
    groups, weight_layout
        As for `fastconv.sparse.subm_conv`.

    Returns
    -------
    array, shape (in_rows, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.ones((2, 1), np.float32), [[0, 3], [0, 4]], (8,))
    >>> w = np.float32([[[1, 2, 4]]])
    >>> sparse.grad.conv_input(sparse.make_rulebook(x, 3), w, np.ones((2, 1), np.float32))
    array([[3.],
           [6.]], dtype=float32)
    """
    grads = _rows("grad_output", grad_output, require_rulebook(rulebook).out_rows)
    given = Filters.of(weight, None, rulebook.geometry.ndim, groups, weight_layout, beside=grads)
    if given.kernel_size != rulebook.geometry.kernel_size:
        raise ShapeError(
            f"weight: got a kernel of {given.kernel_size}, want {rulebook.geometry.kernel_size} as "
            "the rulebook has"
        )
    _check_channels("grad_output", grads, given.weight.shape[0])
    _check_dtype("weight", given.weight, grads)
    exchanged = Filters(_exchange_channels(given.weight, given.groups), None, given.groups)
    back, channels = rulebook.reverse(), exchanged.weight.shape[0]
    problem = describe("sparse_conv", back, grads, channels, given.groups)
    out = empty_output(grads, (back.out_rows, channels), "channels_first")
    run(problem, back, [grads], out, exchanged)
    return unwrap(out)


def conv_weight(
    rulebook: Rulebook,
    input: Array,
    grad_output: Array,
    groups: int = 1,
    *,
    weight_layout: str = "KCRS",
) -> Any:
    """Return the gradient of a convolution for its weight.

    Parameters
    ----------
    rulebook : Rulebook
        Of the convolution, of any kind.
    input : array, shape (in_rows, C)
        Its features.
    grad_output : array, shape (out_rows, K)
        Gradient for its output's features.
    groups : int
        Independent groups of channels.
    weight_layout : {"KCRS", "KRSC"}
        Order of the result's axes.

    Returns
    -------
    array, shape (K, C / groups, *kernel_size)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [10]]), [[0, 3], [0, 4]], (8,))
    >>> book = sparse.make_rulebook(x, 3)
    >>> sparse.grad.conv_weight(book, x.features, np.ones((2, 1), np.float32))
    array([[[ 1., 11., 10.]]], dtype=float32)
    """
    rows = _rows("input", input, require_rulebook(rulebook).in_rows)
    grads = _rows("grad_output", grad_output, rulebook.out_rows, rows)
    check_layout(weight_layout)
    groups = whole_number("groups", groups)
    channels, filters = rows.shape[1], grads.shape[1]
    if groups < 1 or channels % groups or filters % groups:
        raise ShapeError(
            f"groups: got {groups}, want a divisor of the input's {channels} channels and of "
            f"grad_output's {filters}"
        )
    problem = describe("sparse_weight_grad", rulebook, rows, filters, groups)
    out = empty_output(rows, problem.weight_shape, "channels_first")
    flat = reshape(out, (filters, channels // groups, math.prod(problem.kernel_size)))
    run(problem, rulebook, [rows, grads], flat)
    return unwrap(out if weight_layout == "KCRS" else in_krsc(out))


def conv_bias(grad_output: Array) -> Any:
    """Return the gradient of a convolution for its bias: the sum over all sites, in float64.

    Parameters
    ----------
    grad_output : array, shape (rows, K)
        Gradient for its output's features. One on a GPU is summed on the host.

    Returns
    -------
    array, shape (K,)

    Examples
    --------
    >>> conv_bias(np.float32([[1, 2], [3, 4]]))
    array([4., 6.], dtype=float32)
    """
    grads = _rows("grad_output", grad_output)
    total = on_host(grads).sum(axis=0, dtype=np.float64).astype(grads.dtype)
    return unwrap(beside(grads, total))


def max_pool_input(rulebook: Rulebook, input: Array, output: Array, grad_output: Array) -> Any:
    """Return the gradient of `fastconv.sparse.sparse_max_pool` for its features.

    Parameters
    ----------
    rulebook : Rulebook
        Of the pool.
    input : array, shape (in_rows, C)
        Its features.
    output : array, shape (out_rows, C)
        Its result's features.
    grad_output : array, shape (out_rows, C)
        Gradient for them; it goes to the first offset of the window that has the largest value.

    Returns
    -------
    array, shape (in_rows, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [10]]), [[0, 2], [0, 3]], (8,))
    >>> y = sparse.sparse_max_pool(x, 2, indice_key="pool")
    >>> grads = np.ones((1, 1), np.float32)
    >>> sparse.grad.max_pool_input(x.rulebooks["pool"], x.features, y.features, grads)
    array([[0.],
           [1.]], dtype=float32)
    """
    rows = _rows("input", input, require_rulebook(rulebook).in_rows)
    largest = _rows("output", output, rulebook.out_rows, rows)
    grads = _rows("grad_output", grad_output, rulebook.out_rows, rows)
    _check_channels("output", largest, rows.shape[1])
    _check_channels("grad_output", grads, rows.shape[1])
    problem = describe("sparse_max_pool_grad", rulebook, rows, rows.shape[1])
    out = empty_output(rows, rows.shape, "channels_first")
    run(problem, rulebook, [rows, largest, grads], out)
    return unwrap(out)


def avg_pool_input(rulebook: Rulebook, grad_output: Array) -> Any:
    """Return the gradient of `fastconv.sparse.sparse_avg_pool` for its features.

    Parameters
    ----------
    rulebook : Rulebook
        Of the pool.
    grad_output : array, shape (out_rows, C)
        Gradient for its result's features.

    Returns
    -------
    array, shape (in_rows, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [10]]), [[0, 2], [0, 3]], (8,))
    >>> book = sparse.make_rulebook(x, 2, stride=2, kind="regular")
    >>> sparse.grad.avg_pool_input(book, np.ones((1, 1), np.float32)).ravel()
    array([0.5, 0.5], dtype=float32)
    """
    grads = _rows("grad_output", grad_output, require_rulebook(rulebook).out_rows)
    problem = describe("sparse_avg_pool_grad", rulebook, grads, grads.shape[1])
    out = empty_output(grads, (rulebook.in_rows, grads.shape[1]), "channels_first")
    run(problem, rulebook, [grads], out)
    return unwrap(out)


def global_max_pool_input(x: SparseTensor, output: Array, grad_output: Array) -> Any:
    """Return the gradient of `fastconv.sparse.global_max_pool` for its features.

    It is a choice of rows and no arithmetic, so it is made on the host for any device.

    Parameters
    ----------
    x : SparseTensor
        What was pooled.
    output : array, shape (batch_size, C)
        The pool's result.
    grad_output : array, shape (batch_size, C)
        Gradient for it; it goes to the first row of the grid that has the largest value.

    Returns
    -------
    array, shape (rows, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [10]]), [[0, 2], [0, 3]], (8,))
    >>> grads = np.ones((1, 1), np.float32)
    >>> sparse.grad.global_max_pool_input(x, sparse.global_max_pool(x), grads).ravel()
    array([0., 1.], dtype=float32)
    """
    largest, grads = (
        _grids(x, *named) for named in (("output", output), ("grad_output", grad_output))
    )
    rows, batches = on_host(x.feature_array), on_host(x._indices)[:, 0]
    gradient = np.zeros(rows.shape, rows.dtype)
    for batch in np.unique(batches):
        own = np.flatnonzero(batches == batch)
        values, wanted = rows[own], largest[batch]
        equal = (values == wanted) | (
            (values != values) & (wanted != wanted)
        )  # a NaN is the largest
        gradient[own[equal.argmax(0)], np.arange(rows.shape[1])] = grads[batch]
    return unwrap(beside(x.feature_array, gradient))


def global_avg_pool_input(x: SparseTensor, grad_output: Array) -> Any:
    """Return the gradient of `fastconv.sparse.global_avg_pool` for its features.

    Parameters
    ----------
    x : SparseTensor
        What was pooled.
    grad_output : array, shape (batch_size, C)
        Gradient for the pool's result; the rows of a grid share it equally.

    Returns
    -------
    array, shape (rows, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [10]]), [[0, 2], [0, 3]], (8,))
    >>> sparse.grad.global_avg_pool_input(x, np.ones((1, 1), np.float32)).ravel()
    array([0.5, 0.5], dtype=float32)
    """
    grads, batches = _grids(x, "grad_output", grad_output), on_host(x._indices)[:, 0]
    counts = np.maximum(np.bincount(batches, minlength=x.batch_size), 1)
    shares = (grads.astype(np.float64) / counts[:, None]).astype(grads.dtype)
    return unwrap(beside(x.feature_array, shares[batches]))


def _grids(x: SparseTensor, name: str, value: Any) -> Any:
    """Return rows of features, one a grid of `x`, in the host's memory."""
    rows = require_tensor(x).feature_array
    checked = _rows(name, value, like=rows)
    if checked.shape != (x.batch_size, x.channels):
        raise ShapeError(f"{name}: got {checked.shape}, want {(x.batch_size, x.channels)} as x has")
    return on_host(checked)


def _rows(name: str, value: Any, count: int | None = None, like: Array | None = None) -> Array:
    """Return rows of features as kernels see them, like other ones where those are given."""
    if isinstance(like, DeviceArray):
        view: Array = view_beside(name, value, "input", like)
    else:
        view = require_features(name, view_array(name, value) or value)
    view = row_major(require_features(name, view))
    if count is not None and view.shape[0] != count:
        raise ShapeError(f"{name}: got {view.shape[0]} rows, want {count} as the rulebook has")
    if like is not None:
        _check_dtype(name, view, like)
    return view


def _check_dtype(name: str, array: Array, like: Array) -> None:
    if array.dtype != like.dtype:
        raise DTypeError(f"{name}: got {array.dtype}, want {like.dtype} as the others have")


def _check_channels(name: str, array: Array, channels: int) -> None:
    if array.shape[1] != channels:
        raise ShapeError(f"{name}: got {array.shape[1]} channels, want {channels}")


def _exchange_channels(weight: Array, groups: int) -> Array:
    """Return a weight with the input and output channels of each group exchanged."""
    filters, channels, *kernel = weight.shape
    if groups == 1:
        return permute(weight, (1, 0, *range(2, weight.ndim)))
    split = on_host(weight).reshape(groups, filters // groups, channels, *kernel)
    return beside(weight, split.swapaxes(1, 2).reshape(-1, filters // groups, *kernel))
