"""Gradients of normalisations for input, weight and bias.

With ``y = (x - mean) / deviation`` and g the gradient of the output times the weight, that of the
input is ``(g - mean(g) - y * mean(g * y)) / deviation``, over the elements of each statistic, by
the kernels. Those of weight and bias are sums in float64. Everything is in one order whatever the
number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, dtype_name, memory_layout, require_array
from ..contract.arguments import flag, real_number, whole_number
from ..contract.errors import ArgumentError, DTypeError, ShapeError
from ..contract.norm_problem import NormProblem
from ..ops.array_calls import ArrayOp
from ..ops.norm import batch_norm
from ..ops.reshaped import channels_shape, compute_reshaped

__all__ = [
    "batch_norm_bias",
    "batch_norm_input",
    "batch_norm_weight",
    "group_norm_bias",
    "group_norm_input",
    "group_norm_weight",
    "instance_norm_bias",
    "instance_norm_input",
    "instance_norm_weight",
    "layer_norm_bias",
    "layer_norm_input",
    "layer_norm_weight",
]

Reals = NDArray[np.float64]


class _Grouping(NamedTuple):
    """How elements share statistics and weights, as axes of an array of four.

    Parameters
    ----------
    shape : tuple of int
        What the input is reshaped to.
    taken : tuple of int
        Axes that a statistic is taken over.
    weight_shape : tuple of int
        What the weight is reshaped to: 1 along the axes that share it.
    parameters : tuple of int
        Shape of the weight.
    """

    shape: tuple[int, ...]
    taken: tuple[int, ...]
    weight_shape: tuple[int, ...]
    parameters: tuple[int, ...]


def _check_pair(input: Any, grad_output: Any) -> tuple[Array, Array]:
    """Return two arrays of one shape and type, else raise."""
    x, grads = require_array("input", input), require_array("grad_output", grad_output)
    if x.ndim < 2:
        raise ShapeError(f"input: got {x.ndim} axes {x.shape}, want a batch, channels and others")
    _check_like("grad_output", grads, x.shape, x)
    return x, grads


def _check_like(name: str, array: Array, shape: tuple[int, ...], x: Array) -> None:
    if array.shape != shape:
        raise ShapeError(f"{name}: got shape {array.shape}, want {shape}")
    if array.dtype != x.dtype:
        raise DTypeError(f"{name}: got {array.dtype}, want {x.dtype} as the input has")


def _by_channel(x: Array, groups: int, images: bool) -> _Grouping:
    """Return the grouping of channels, over all images or not."""
    n, c, pixels = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    if groups < 1 or c % groups:
        raise ShapeError(f"num_groups: got {groups} with {c} channels, want a divisor")
    inner = (groups, c // groups)
    return _Grouping((n, *inner, pixels), (0, 2, 3) if images else (2, 3), (1, *inner, 1), (c,))


def _by_row(x: Array, normalized_shape: Any) -> _Grouping:
    given = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    sizes = tuple(whole_number("normalized_shape", size) for size in given)
    if not sizes or x.shape[-len(sizes) :] != sizes:
        raise ShapeError(f"normalized_shape: got {sizes}, want the last sizes of {x.shape}")
    rows, length = math.prod(x.shape[: -len(sizes)]), math.prod(sizes)
    return _Grouping((rows, 1, 1, length), (3,), (1, 1, 1, length), sizes)


def _normal(x: Array, grouping: _Grouping, eps: Any) -> tuple[Reals, Reals]:
    """Return the normalised input and one over its deviations."""
    values = x.astype(np.float64).reshape(grouping.shape)
    with np.errstate(all="ignore"):
        away = values - values.mean(axis=grouping.taken, keepdims=True)
        variance = (away * away).mean(axis=grouping.taken, keepdims=True)
        factor = 1.0 / np.sqrt(variance + real_number("eps", eps))
        return away * factor, factor


def _weighted(grads: Array, weight: Any, grouping: _Grouping, x: Array) -> Reals:
    """Return the output's gradient times the weight."""
    values = grads.astype(np.float64).reshape(grouping.shape)
    if weight is None:
        return values
    checked = require_array("weight", weight)
    _check_like("weight", checked, grouping.parameters, x)
    with np.errstate(all="ignore"):
        return values * checked.astype(np.float64).reshape(grouping.weight_shape)


def _rounded(values: Reals, like: Array, shape: tuple[int, ...]) -> Array:
    """Return values in an array's element type."""
    with np.errstate(all="ignore"):
        return values.reshape(shape).astype(like.dtype)


def _problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> NormProblem:
    (x, weight, _), (op, groups, eps) = arrays, arguments
    lone = x.ndim == 2
    made = NormProblem(
        op, x.shape[0], x.shape[1], (1,) if lone else x.shape[2:],
        whole_number("num_groups", groups), weight is not None, eps=real_number("eps", eps),
        dtype=dtype_name("input", x.dtype), layout="channels_first" if lone else memory_layout(x),
    )  # fmt: skip
    if weight is not None:
        _check_like("weight", weight, (made.parameters,), x)
    return made


_INPUT = ArrayOp("norm_grad", ("input", "weight", "grad_output"), _problem, optional=("weight",))


def _input_gradient(
    op: str, x: Array, weight: Any, grads: Array, groups: Any, eps: Any, out: Array | None,
    shape: tuple[int, ...],
) -> Array:  # fmt: skip
    """Return the gradient for an input that statistics are taken from."""
    if x.size == 0:
        return np.empty(x.shape, x.dtype) if out is None else out
    arrays = (x, weight, grads.reshape(shape))
    made: Array = compute_reshaped(_INPUT, arrays, (op, groups, eps), out, shape)
    return made


def _parameter_gradient(values: Reals, like: Array, grouping: _Grouping) -> Array:
    """Return the sums over all elements that share a parameter."""
    shared = tuple(axis for axis, size in enumerate(grouping.weight_shape) if size == 1)
    # Of an axis of one element in both shapes there is nothing to sum.
    with np.errstate(all="ignore"):
        total = values.sum(axis=shared, keepdims=True)
    return _rounded(total, like, grouping.parameters)


def _given(x: Array, mean: Any, var: Any, eps: Any) -> tuple[Reals, Reals]:
    """Return given means and factors, shaped as channels of an array of four axes."""
    channels = (x.shape[1],)
    checked = []
    for name, vector in (("running_mean", mean), ("running_var", var)):
        if vector is None:
            raise ArgumentError(f"{name}: got None, want statistics where training is False")
        array = require_array(name, vector)
        _check_like(name, array, channels, x)
        checked.append(array.astype(np.float64).reshape(1, 1, -1, 1))
    with np.errstate(all="ignore"):
        return checked[0], 1.0 / np.sqrt(checked[1] + real_number("eps", eps))


def batch_norm_input(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None,
    grad_output: Array,
    training: bool = False,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `fastconv.batch_norm` for its input.

    Parameters
    ----------
    input, grad_output : ndarray, shape (N, C, ...)
        What it was given, and the gradient for its output.
    running_mean, running_var, weight : ndarray or None, shape (C,)
        As it was given them; statistics count without `training` alone.
    training, eps
        As for `fastconv.batch_norm`.
    out : ndarray, optional
        Where the result is written; may share memory with an operand.

    Returns
    -------
    ndarray
        Of the input's shape and element type.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        Where the arrays do not fit each other, or statistics are missing.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, var = np.ones((1, 1, 2), np.float32), np.full(1, 4, np.float32)
    >>> fastconv.grad.batch_norm_input(x, np.zeros(1, np.float32), var, None, x, eps=0.0)
    array([[[0.5, 0.5]]], dtype=float32)
    """
    x, grads = _check_pair(input, grad_output)
    if flag("training", training):
        shape = channels_shape(x)
        return _input_gradient("batch_norm_grad", x, weight, grads, 1, eps, out, shape)
    _given(x, running_mean, running_var, eps)
    # The output is linear in the input: the gradient is scaled alike, about zero.
    nothing = np.zeros_like(x, shape=(x.shape[1],))
    return batch_norm(grads, nothing, running_var, weight, None, eps=eps, out=out)


def batch_norm_weight(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    grad_output: Array,
    training: bool = False,
    eps: float = 1e-5,
) -> Array:
    """Return the gradient of `fastconv.batch_norm` for its weight; see `batch_norm_input`."""
    x, grads = _check_pair(input, grad_output)
    if flag("training", training):
        grouping = _by_channel(x, x.shape[1], True)
        made = _normal(x, grouping, eps)[0]
    else:
        grouping = _by_channel(x, 1, True)
        mean, factor = _given(x, running_mean, running_var, eps)
        with np.errstate(all="ignore"):
            made = (x.astype(np.float64).reshape(grouping.shape) - mean) * factor
    wanted = _weighted(grads, None, grouping, x)
    with np.errstate(all="ignore"):
        return _parameter_gradient(wanted * made, x, grouping)


def batch_norm_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.batch_norm` for its bias: the sum of each channel.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.batch_norm_bias(np.ones((2, 3, 4), np.float32))
    array([8., 8., 8.], dtype=float32)
    """
    grads, _ = _check_pair(grad_output, grad_output)
    grouping = _by_channel(grads, 1, True)
    return _parameter_gradient(_weighted(grads, None, grouping, grads), grads, grouping)


def group_norm_input(
    input: Array,
    weight: Array | None,
    grad_output: Array,
    num_groups: int,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `fastconv.group_norm` for its input.

    Parameters
    ----------
    input, grad_output : ndarray, shape (N, C, ...)
        What it was given, and the gradient for its output.
    weight : ndarray or None, shape (C,)
        As it was given.
    num_groups, eps
        As for `fastconv.group_norm`.
    out : ndarray, optional
        Where the result is written; may share memory with an operand.

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
    >>> x = np.array([[1.0, 3.0]], np.float32)
    >>> bool(abs(fastconv.grad.group_norm_input(x, None, x, 1)).max() < 1e-4)
    True
    """
    x, grads = _check_pair(input, grad_output)
    shape = channels_shape(x)
    return _input_gradient("group_norm_grad", x, weight, grads, num_groups, eps, out, shape)


def group_norm_weight(
    input: Array, grad_output: Array, num_groups: int, eps: float = 1e-5
) -> Array:
    """Return the gradient of `fastconv.group_norm` for its weight; see `group_norm_input`."""
    x, grads = _check_pair(input, grad_output)
    grouping = _by_channel(x, whole_number("num_groups", num_groups), False)
    made = _normal(x, grouping, eps)[0]
    return _parameter_gradient(_weighted(grads, None, grouping, x) * made, x, grouping)


def group_norm_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.group_norm` for its bias: the sum of each channel."""
    return batch_norm_bias(grad_output)


def instance_norm_input(
    input: Array,
    weight: Array | None,
    grad_output: Array,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `fastconv.instance_norm` for its input.

    It is that of `group_norm_input` with a group for each channel.
    """
    x, _ = _check_pair(input, grad_output)
    return group_norm_input(x, weight, grad_output, x.shape[1], eps, out=out)


def instance_norm_weight(input: Array, grad_output: Array, eps: float = 1e-5) -> Array:
    """Return the gradient of `fastconv.instance_norm` for its weight."""
    x, _ = _check_pair(input, grad_output)
    return group_norm_weight(x, grad_output, x.shape[1], eps)


def instance_norm_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.instance_norm` for its bias: the sum of each channel."""
    return batch_norm_bias(grad_output)


def _rows(input: Any, grad_output: Any, normalized_shape: Any) -> tuple[Array, Array, _Grouping]:
    x, grads = require_array("input", input), require_array("grad_output", grad_output)
    _check_like("grad_output", grads, x.shape, x)
    return x, grads, _by_row(x, normalized_shape)


def layer_norm_input(
    input: Array,
    weight: Array | None,
    grad_output: Array,
    normalized_shape: int | Sequence[int],
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `fastconv.layer_norm` for its input.

    Parameters
    ----------
    input, grad_output : ndarray, shape (..., *normalized_shape)
        What it was given, and the gradient for its output.
    weight : ndarray or None, shape normalized_shape
        As it was given.
    normalized_shape, eps
        As for `fastconv.layer_norm`.
    out : ndarray, optional
        Where the result is written; may share memory with an operand.

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
    >>> x = np.array([[1.0, 3.0]], np.float32)
    >>> bool(abs(fastconv.grad.layer_norm_input(x, None, x, 2)).max() < 1e-4)
    True
    """
    x, grads, grouping = _rows(input, grad_output, normalized_shape)
    if weight is not None:
        weight = require_array("weight", weight)
        _check_like("weight", weight, grouping.parameters, x)
        weight = weight.reshape(-1)
    shape = (1, grouping.shape[0], grouping.shape[3])
    return _input_gradient("layer_norm_grad", x, weight, grads, 1, eps, out, shape)


def layer_norm_weight(
    input: Array, grad_output: Array, normalized_shape: int | Sequence[int], eps: float = 1e-5
) -> Array:
    """Return the gradient of `fastconv.layer_norm` for its weight; see `layer_norm_input`."""
    x, grads, grouping = _rows(input, grad_output, normalized_shape)
    made = _normal(x, grouping, eps)[0]
    return _parameter_gradient(_weighted(grads, None, grouping, x) * made, x, grouping)


def layer_norm_bias(grad_output: Array, normalized_shape: int | Sequence[int]) -> Array:
    """Return the gradient of `fastconv.layer_norm` for its bias: the sum over all rows."""
    _, grads, grouping = _rows(grad_output, grad_output, normalized_shape)
    return _parameter_gradient(_weighted(grads, None, grouping, grads), grads, grouping)
