"""Gradients of what joins sparse tensors and takes them apart, for the features of each.

All are choices of rows, and products for `fastconv.sparse.multiply`: they are made on the host for
any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..array_libraries import view_array, view_beside
from ..arrays import beside, on_host, unwrap
from ..contract.errors import DTypeError, ShapeError
from ..device_arrays import DeviceArray
from .matching import Rows, check_alike, check_grids, shared_rows, spread_rows, union_rows
from .parts import batch_rows, box_rows, mask_rows
from .tensor import SparseTensor, require_features

__all__ = [
    "add_inputs",
    "concat_inputs",
    "crop_input",
    "join_batch_inputs",
    "multiply_inputs",
    "prune_input",
    "split_batch_input",
    "subtract_inputs",
    "union_inputs",
]


def union_inputs(x: SparseTensor, y: SparseTensor, grad_x: Any, grad_y: Any) -> tuple[Any, Any]:
    """Return the gradients of `fastconv.sparse.union` for the features of both tensors.

    Parameters
    ----------
    x, y : SparseTensor
        What was brought to the same sites.
    grad_x, grad_y : array, shape (rows after, C)
        Gradients for the features of the first and of the second result.

    Returns
    -------
    tuple of two arrays, shape (rows of the tensor, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1]]), [[0, 3]], (8,))
    >>> y = sparse.SparseTensor(np.float32([[1]]), [[0, 5]], (8,))
    >>> grads = np.float32([[1], [2]])
    >>> [grad.tolist() for grad in sparse.grad.union_inputs(x, y, grads, grads)]
    [[[1.0]], [[2.0]]]
    """
    check_grids(x, y)
    both = union_rows(x, y)
    first = _grads("grad_x", grad_x, x, both.rows, x.channels)
    second = _grads("grad_y", grad_y, x, both.rows, y.channels)
    return _given(x, first[both.first]), _given(x, second[both.second])


def add_inputs(x: SparseTensor, y: SparseTensor, grad_output: Any) -> tuple[Any, Any]:
    """Return the gradients of `fastconv.sparse.add` for the features of both tensors.

    Parameters
    ----------
    x, y : SparseTensor
        What was added.
    grad_output : array, shape (rows after, C)
        Gradient for the result's features.

    Returns
    -------
    tuple of two arrays, shape (rows of the tensor, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1]]), [[0, 3]], (8,))
    >>> y = sparse.SparseTensor(np.float32([[1]]), [[0, 5]], (8,))
    >>> [grad.tolist() for grad in sparse.grad.add_inputs(x, y, np.float32([[1], [2]]))]
    [[[1.0]], [[2.0]]]
    """
    first, second = _parted(x, y, grad_output)
    return _given(x, first), _given(x, second)


def subtract_inputs(x: SparseTensor, y: SparseTensor, grad_output: Any) -> tuple[Any, Any]:
    """Return the gradients of `fastconv.sparse.subtract`; see `add_inputs`.

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1]]), [[0, 3]], (8,))
    >>> y = sparse.SparseTensor(np.float32([[1]]), [[0, 5]], (8,))
    >>> [grad.tolist() for grad in sparse.grad.subtract_inputs(x, y, np.float32([[1], [2]]))]
    [[[1.0]], [[-2.0]]]
    """
    first, second = _parted(x, y, grad_output)
    return _given(x, first), _given(x, -second)


def multiply_inputs(x: SparseTensor, y: SparseTensor, grad_output: Any) -> tuple[Any, Any]:
    """Return the gradients of `fastconv.sparse.multiply`, 0 at sites that one tensor has alone.

    Parameters
    ----------
    x, y : SparseTensor
        What was multiplied.
    grad_output : array, shape (rows after, C)
        Gradient for the result's features.

    Returns
    -------
    tuple of two arrays, shape (rows of the tensor, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[0, 3], [0, 1]], (8,))
    >>> y = sparse.SparseTensor(np.float32([[10], [20]]), [[0, 5], [0, 1]], (8,))
    >>> [grad.tolist() for grad in sparse.grad.multiply_inputs(x, y, np.float32([[1]]))]
    [[[0.0], [20.0]], [[0.0], [2.0]]]
    """
    check_alike(x, y)
    mine, other = shared_rows(x, y)
    grads = _grads("grad_output", grad_output, x, len(mine), x.channels)
    of_x, of_y = on_host(x.feature_array), on_host(y.feature_array)
    return (
        _given(x, spread_rows(grads * of_y[other], mine, len(x))),
        _given(x, spread_rows(grads * of_x[mine], other, len(y))),
    )


def concat_inputs(x: SparseTensor, y: SparseTensor, grad_output: Any) -> tuple[Any, Any]:
    """Return the gradients of `fastconv.sparse.concat` for the features of both tensors.

    Parameters
    ----------
    x, y : SparseTensor
        Whose channels were put together.
    grad_output : array, shape (rows after, C of x + C of y)
        Gradient for the result's features.

    Returns
    -------
    tuple of two arrays, shape (rows of the tensor, C of the tensor)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1]]), [[0, 3]], (8,))
    >>> y = sparse.SparseTensor(np.float32([[1]]), [[0, 5]], (8,))
    >>> grads = np.float32([[1, 2], [3, 4]])
    >>> [grad.tolist() for grad in sparse.grad.concat_inputs(x, y, grads)]
    [[[1.0]], [[4.0]]]
    """
    check_grids(x, y)
    both, split = union_rows(x, y), x.channels
    grads = _grads("grad_output", grad_output, x, both.rows, split + y.channels)
    return (
        _given(x, np.ascontiguousarray(grads[both.first, :split])),
        _given(x, np.ascontiguousarray(grads[both.second, split:])),
    )


def prune_input(x: SparseTensor, mask: Any, grad_output: Any) -> Any:
    """Return the gradient of `fastconv.sparse.prune` for its features, 0 where none were kept.

    Parameters
    ----------
    x : SparseTensor
        What was pruned.
    mask : bool array, shape (rows,)
        Rows that were kept.
    grad_output : array, shape (rows after, C)
        Gradient for the result's features.

    Returns
    -------
    array, shape (rows, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[0, 3], [0, 1]], (8,))
    >>> sparse.grad.prune_input(x, np.array([False, True]), np.float32([[5]])).ravel()
    array([0., 5.], dtype=float32)
    """
    return _selected(x, mask_rows(x, mask), grad_output)


def crop_input(x: SparseTensor, low: Any, high: Any, grad_output: Any) -> Any:
    """Return the gradient of `fastconv.sparse.crop` for its features, 0 outside the box.

    Parameters
    ----------
    x : SparseTensor
        What was cut.
    low, high : int or sequence of int
        The box.
    grad_output : array, shape (rows after, C)
        Gradient for the result's features.

    Returns
    -------
    array, shape (rows, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[0, 3], [0, 1]], (8,))
    >>> sparse.grad.crop_input(x, 2, 6, np.float32([[5]])).ravel()
    array([5., 0.], dtype=float32)
    """
    return _selected(x, box_rows(x, low, high)[0], grad_output)


def split_batch_input(x: SparseTensor, grad_outputs: Sequence[Any]) -> Any:
    """Return the gradient of `fastconv.sparse.split_batch` for its features.

    Parameters
    ----------
    x : SparseTensor
        What was split.
    grad_outputs : sequence of arrays, shapes (rows of the grid, C)
        Gradient for the features of each grid.

    Returns
    -------
    array, shape (rows, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1], [2]]), [[1, 3], [0, 1]], (8,))
    >>> grads = [np.float32([[5]]), np.float32([[6]])]
    >>> sparse.grad.split_batch_input(x, grads).ravel()
    array([6., 5.], dtype=float32)
    """
    grids = batch_rows(x)
    if len(grad_outputs) != len(grids):
        raise ShapeError(
            f"grad_outputs: got {len(grad_outputs)} arrays, want {len(grids)} as the batch has "
            "grids"
        )
    made: Any = np.empty((len(x), x.channels), x.dtype)
    for number, (own, value) in enumerate(zip(grids, grad_outputs, strict=True)):
        made[own] = _grads(f"grad_outputs[{number}]", value, x, len(own), x.channels)
    return _given(x, made)


def join_batch_inputs(tensors: Sequence[SparseTensor], grad_output: Any) -> list[Any]:
    """Return the gradients of `fastconv.sparse.join_batch` for the features of each tensor.

    Parameters
    ----------
    tensors : sequence of SparseTensor
        What was joined.
    grad_output : array, shape (rows of all, C)
        Gradient for the result's features.

    Returns
    -------
    list of arrays, shapes (rows of the tensor, C)

    Examples
    --------
    >>> import numpy as np, fastconv.sparse as sparse
    >>> x = sparse.SparseTensor(np.float32([[1]]), [[0, 3]], (8,))
    >>> grads = sparse.grad.join_batch_inputs([x, x], np.float32([[5], [6]]))
    >>> [grad.tolist() for grad in grads]
    [[[5.0]], [[6.0]]]
    """
    sizes = [len(each) for each in tensors]
    grads = _grads("grad_output", grad_output, tensors[0], sum(sizes), tensors[0].channels)
    return [_given(tensors[0], part.copy()) for part in np.split(grads, np.cumsum(sizes)[:-1])]


def _parted(
    x: SparseTensor, y: SparseTensor, grad_output: Any
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a gradient at the sites of either tensor, at those of each."""
    check_alike(x, y)
    both = union_rows(x, y)
    grads = _grads("grad_output", grad_output, x, both.rows, x.channels)
    return grads[both.first], grads[both.second]


def _selected(x: SparseTensor, rows: Rows, grad_output: Any) -> Any:
    grads = _grads("grad_output", grad_output, x, len(rows), x.channels)
    return _given(x, spread_rows(grads, rows, len(x)))


def _given(x: SparseTensor, values: NDArray[Any]) -> Any:
    """Return values as an array of the kind that a tensor's features are."""
    return unwrap(beside(x.feature_array, values))


def _grads(name: str, value: Any, x: SparseTensor, rows: int, channels: int) -> NDArray[Any]:
    """Return a caller's gradient in the host's memory, checked against the tensor's features."""
    like = x.feature_array
    if isinstance(like, DeviceArray):
        view: Any = view_beside(name, value, "features", like)
    else:
        view = view_array(name, value) or value
    view = require_features(name, view)
    if view.shape != (rows, channels):
        raise ShapeError(f"{name}: got shape {view.shape}, want {(rows, channels)}")
    if view.dtype != x.dtype:
        raise DTypeError(f"{name}: got {view.dtype}, want {x.dtype} as the features have")
    return on_host(view)
