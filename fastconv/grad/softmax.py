"""Gradients of softmax, local response norm and PReLU.

Everything is computed in float64 and rounded once, in one order whatever the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, require_array
from ..contract.arguments import real_number, whole_number
from ..contract.errors import DTypeError, ShapeError
from ..ops.reshaped import axis_of

__all__ = [
    "local_response_norm_input",
    "log_softmax_input",
    "prelu_input",
    "prelu_weight",
    "softmax_input",
]


def _check_pair(name: str, array: Any, grad_output: Any) -> tuple[Array, Array]:
    """Return two arrays of one shape and type, else raise."""
    checked, grads = require_array(name, array), require_array("grad_output", grad_output)
    if grads.shape != checked.shape:
        raise ShapeError(f"grad_output: got shape {grads.shape}, want {checked.shape}")
    if grads.dtype != checked.dtype:
        raise DTypeError(f"grad_output: got {grads.dtype}, want {checked.dtype} as the {name} has")
    return checked, grads


def softmax_input(output: Array, grad_output: Array, dim: int) -> Array:
    """Return the gradient of `fastconv.softmax` for its input.

    Parameters
    ----------
    output, grad_output : ndarray
        What it returned, and the gradient for that.
    dim : int
        As it was given.

    Returns
    -------
    ndarray
        Of the output's shape and element type.

    Raises
    ------
    ShapeError, DTypeError
        Where the arrays do not fit each other, or there is no such axis.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> y = np.array([0.25, 0.75], np.float32)
    >>> fastconv.grad.softmax_input(y, np.array([1, 0], np.float32), 0)
    array([ 0.1875, -0.1875], dtype=float32)
    """
    y, grads = _check_pair("output", output, grad_output)
    axis = axis_of("dim", dim, y.ndim)
    values, wanted = y.astype(np.float64), grads.astype(np.float64)
    with np.errstate(all="ignore"):
        total = (values * wanted).sum(axis=axis, keepdims=True)
        made: Array = (values * (wanted - total)).astype(y.dtype)
    return made


def log_softmax_input(output: Array, grad_output: Array, dim: int) -> Array:
    """Return the gradient of `fastconv.log_softmax` for its input; see `softmax_input`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> y = np.log(np.array([0.25, 0.75]))
    >>> fastconv.grad.log_softmax_input(y, np.array([1.0, 0.0]), 0)
    array([ 0.75, -0.75])
    """
    y, grads = _check_pair("output", output, grad_output)
    axis = axis_of("dim", dim, y.ndim)
    wanted = grads.astype(np.float64)
    with np.errstate(all="ignore"):
        total = wanted.sum(axis=axis, keepdims=True)
        made: Array = (wanted - np.exp(y.astype(np.float64)) * total).astype(y.dtype)
    return made


def local_response_norm_input(
    input: Array,
    grad_output: Array,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> Array:
    """Return the gradient of `fastconv.local_response_norm` for its input.

    Parameters
    ----------
    input, grad_output : ndarray, shape (N, C, ...)
        What it was given, and the gradient for its output.
    size, alpha, beta, k
        As it was given.

    Returns
    -------
    ndarray
        Of the input's shape and element type.

    Raises
    ------
    ShapeError, DTypeError
        Where the arrays do not fit each other.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 2, 1))
    >>> fastconv.grad.local_response_norm_input(x, x, 1, alpha=1.0, beta=1.0).ravel()
    array([0., 0.])
    """
    x, grads = _check_pair("input", input, grad_output)
    window = whole_number("size", size)
    if window < 1 or x.ndim < 3:
        raise ShapeError(f"size: got {window} with an input of {x.ndim} axes, want 1 and 3 or more")
    factor, exponent = real_number("alpha", alpha) / window, real_number("beta", beta)
    values, wanted = x.astype(np.float64), grads.astype(np.float64)
    before, behind = window // 2, (window - 1) // 2
    with np.errstate(all="ignore"):
        base = real_number("k", k) + factor * _sums(values * values, before, behind)
        shares = wanted * values * base ** (-exponent - 1.0)
        # An element is in the windows of those that it is in the window of, the other way round.
        seen = _sums(shares, behind, before)
        made = wanted * base**-exponent - 2.0 * factor * exponent * values * seen
    rounded: Array = made.astype(x.dtype)
    return rounded


def _sums(values: Any, before: int, behind: int) -> Any:
    """Return sums over windows of channels."""
    made = np.empty_like(values)
    for c in range(values.shape[1]):
        made[:, c] = values[:, max(0, c - before) : c + behind + 1].sum(axis=1)
    return made


def _slopes(x: Array, weight: Any) -> Any:
    """Return slopes so that they meet the channels of an array, and whether they are one."""
    slopes = require_array("weight", weight)
    channels = x.shape[1] if x.ndim > 1 else 1
    if slopes.shape not in ((1,), (channels,)):
        raise ShapeError(f"weight: got shape {slopes.shape}, want (1,) or {(channels,)}")
    if slopes.dtype != x.dtype:
        raise DTypeError(f"weight: got {slopes.dtype}, want {x.dtype} as the input has")
    return slopes.astype(np.float64).reshape(1, -1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else slopes


def prelu_input(input: Array, weight: Array, grad_output: Array) -> Array:
    """Return the gradient of `fastconv.prelu` for its input.

    Parameters
    ----------
    input, grad_output : ndarray
        What it was given, and the gradient for its output.
    weight : ndarray, shape (C,) or (1,)
        As it was given.

    Returns
    -------
    ndarray
        Of the input's shape and element type.

    Raises
    ------
    ShapeError, DTypeError
        Where the arrays do not fit each other.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[-1.0, 2.0]], np.float32)
    >>> fastconv.grad.prelu_input(x, np.array([0.25], np.float32), np.ones_like(x))
    array([[0.25, 1.  ]], dtype=float32)
    """
    x, grads = _check_pair("input", input, grad_output)
    slopes, wanted = _slopes(x, weight), grads.astype(np.float64)
    with np.errstate(all="ignore"):
        made: Array = np.where(x > 0, wanted, wanted * slopes).astype(x.dtype)
    return made


def prelu_weight(input: Array, weight: Array, grad_output: Array) -> Array:
    """Return the gradient of `fastconv.prelu` for its slopes; see `prelu_input`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[-1.0, 2.0]], np.float32)
    >>> fastconv.grad.prelu_weight(x, np.array([0.25], np.float32), np.ones_like(x))
    array([-1.], dtype=float32)
    """
    x, grads = _check_pair("input", input, grad_output)
    _slopes(x, weight)
    with np.errstate(all="ignore"):
        values = np.where(x > 0, 0.0, grads.astype(np.float64) * x.astype(np.float64))
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        one = weight.shape == (1,)
        made: Array = values.sum(axis=None if one else axes).reshape(weight.shape).astype(x.dtype)
    return made
