"""Gradients of dense layers: matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, require_array
from ..contract.errors import DTypeError, ShapeError
from ..ops.linear import as_signal, linear
from .conv import conv1d_weight

__all__ = ["linear_bias", "linear_input", "linear_weight"]


def _check_gradient(grad_output: Any) -> Array:
    grad = require_array("grad_output", grad_output)
    if grad.ndim < 1 or grad.shape[-1] < 1:
        raise ShapeError(f"grad_output: got shape {grad.shape}, want (..., out_features)")
    return grad


def linear_input(weight: Array, grad_output: Array) -> Array:
    """Return the gradient of `fastconv.linear` for its input: ``grad_output @ weight``.

    Parameters
    ----------
    weight : ndarray, shape (out_features, in_features)
        The layer's weight.
    grad_output : ndarray, shape (..., out_features)
        Gradient for the output, of the same dtype.

    Returns
    -------
    ndarray, shape (..., in_features)

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        As for `fastconv.linear`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.linear_input(np.ones((4, 3), np.float32), np.ones((2, 4), np.float32))
    array([[4., 4., 4.],
           [4., 4., 4.]], dtype=float32)
    """
    grad, matrix = _check_gradient(grad_output), require_array("weight", weight)
    if matrix.ndim != 2 or matrix.shape[0] != grad.shape[-1]:
        raise ShapeError(
            f"weight: got shape {matrix.shape} with a gradient of {grad.shape[-1]} features, want "
            f"({grad.shape[-1]}, in_features)"
        )
    return linear(grad, matrix.T)


def linear_weight(input: Array, grad_output: Array) -> Array:
    """Return the gradient of `fastconv.linear` for its weight: a matrix product over rows.

    Parameters
    ----------
    input : ndarray, shape (..., in_features)
        The layer's input.
    grad_output : ndarray, shape (..., out_features)
        Gradient for the output, of the same dtype and leading axes.

    Returns
    -------
    ndarray, shape (out_features, in_features)
        The halves are summed in float32 and rounded once.

    Raises
    ------
    ShapeError
        For sizes that do not fit.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.linear_weight(np.ones((5, 3), np.float32), np.ones((5, 2), np.float32))
    array([[5., 5., 5.],
           [5., 5., 5.]], dtype=float32)
    """
    x, grad = require_array("input", input), _check_gradient(grad_output)
    if x.ndim < 1 or x.shape[-1] < 1:
        raise ShapeError(f"input: got shape {x.shape}, want (..., in_features)")
    if grad.shape[:-1] != x.shape[:-1]:
        raise ShapeError(
            f"grad_output: got shape {grad.shape}, want {x.shape[:-1]} in front of the features as "
            "the input has"
        )
    if grad.dtype != x.dtype:
        raise DTypeError(f"grad_output: got {grad.dtype}, want {x.dtype} as the input has")
    size = (grad.shape[-1], x.shape[-1])
    if x.size == 0:
        return np.zeros(size, x.dtype)
    made: Array = conv1d_weight(as_signal(x), (*size, 1), as_signal(grad))[..., 0]
    return made


def linear_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.linear` for its bias: the sum over rows.

    Parameters
    ----------
    grad_output : ndarray, shape (..., out_features)
        Gradient for the output.

    Returns
    -------
    ndarray, shape (out_features,)
        The halves are summed in float32 and rounded once.

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        As for `linear_weight`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.linear_bias(np.ones((5, 3), np.float32))
    array([5., 5., 5.], dtype=float32)
    """
    grad = _check_gradient(grad_output)
    made: Array = linear_weight(np.ones((*grad.shape[:-1], 1), grad.dtype), grad)[:, 0]
    return made
