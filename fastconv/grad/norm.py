"""Gradients of normalisations for input, weight and bias.

With ``y = (x - mean) / deviation`` and g the gradient of the output times the weight, that of the
input is ``(g - mean(g) - y * mean(g * y)) / deviation``, over the elements of each statistic, by
the kernels. Those of weight and bias are sums in float64. Everything is in one order whatever the
number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, dtype_name, memory_layout, require_array
from ..contract.arguments import flag, real_number, whole_number
from ..contract.norm_problem import NormProblem
from ..ops.array_calls import ArrayOp
from ..ops.norm import batch_norm
from ..ops.reshaped import channels_shape, compute_reshaped, rows_shape
from .statistics import (
    Grouping,
    by_channel,
    by_row,
    check_like,
    check_pair,
    given_statistics,
    normalised,
    parameter_gradient,
    weighted,
)

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


def _problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> NormProblem:
    (x, weight, _), (op, groups, eps) = arrays, arguments
    lone = x.ndim == 2
    made = NormProblem(
        op, x.shape[0], x.shape[1], (1,) if lone else x.shape[2:],
        whole_number("num_groups", groups), weight is not None, eps=real_number("eps", eps),
        dtype=dtype_name("input", x.dtype), layout="channels_first" if lone else memory_layout(x),
    )  # fmt: skip
    if weight is not None:
        check_like("weight", weight, (made.parameters,), x)
    return made


_INPUT = ArrayOp("norm_grad", ("input", "weight", "grad_output"), _problem, optional=("weight",))


def _input_gradient(
    op: str, x: Array, weight: Any, grads: Array, groups: Any, eps: Any, out: Array | None,
    shape: tuple[int, ...],
) -> Array:  # fmt: skip
    """Return the gradient for an input that statistics are taken from."""
    arrays = (x, weight, grads.reshape(shape))
    made: Array = compute_reshaped(_INPUT, arrays, (op, groups, eps), out, shape)
    return made


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
    x, grads = check_pair(input, grad_output)
    if flag("training", training):
        shape = channels_shape(x)
        return _input_gradient("batch_norm_grad", x, weight, grads, 1, eps, out, shape)
    given_statistics(x, running_mean, running_var, eps)
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
    x, grads = check_pair(input, grad_output)
    if flag("training", training):
        grouping = by_channel(x, x.shape[1], True)
        made = normalised(x, grouping, eps)[0]
    else:
        grouping = by_channel(x, 1, True)
        mean, factor = given_statistics(x, running_mean, running_var, eps)
        with np.errstate(all="ignore"):
            made = (x.astype(np.float64).reshape(grouping.shape) - mean) * factor
    wanted = weighted(grads, None, grouping, x)
    with np.errstate(all="ignore"):
        return parameter_gradient(wanted * made, x, grouping)


def batch_norm_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.batch_norm` for its bias: the sum of each channel.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.batch_norm_bias(np.ones((2, 3, 4), np.float32))
    array([8., 8., 8.], dtype=float32)
    """
    grads, _ = check_pair(grad_output, grad_output)
    grouping = by_channel(grads, 1, True)
    return parameter_gradient(weighted(grads, None, grouping, grads), grads, grouping)


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
    x, grads = check_pair(input, grad_output)
    shape = channels_shape(x)
    return _input_gradient("group_norm_grad", x, weight, grads, num_groups, eps, out, shape)


def group_norm_weight(
    input: Array, grad_output: Array, num_groups: int, eps: float = 1e-5
) -> Array:
    """Return the gradient of `fastconv.group_norm` for its weight; see `group_norm_input`."""
    x, grads = check_pair(input, grad_output)
    grouping = by_channel(x, whole_number("num_groups", num_groups), False)
    made = normalised(x, grouping, eps)[0]
    return parameter_gradient(weighted(grads, None, grouping, x) * made, x, grouping)


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
    x, _ = check_pair(input, grad_output)
    return group_norm_input(x, weight, grad_output, x.shape[1], eps, out=out)


def instance_norm_weight(input: Array, grad_output: Array, eps: float = 1e-5) -> Array:
    """Return the gradient of `fastconv.instance_norm` for its weight."""
    x, _ = check_pair(input, grad_output)
    return group_norm_weight(x, grad_output, x.shape[1], eps)


def instance_norm_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.instance_norm` for its bias: the sum of each channel."""
    return batch_norm_bias(grad_output)


def _rows(input: Any, grad_output: Any, normalized_shape: Any) -> tuple[Array, Array, Grouping]:
    x, grads = require_array("input", input), require_array("grad_output", grad_output)
    check_like("grad_output", grads, x.shape, x)
    return x, grads, by_row(x, normalized_shape)


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
        check_like("weight", weight, grouping.parameters, x)
        weight = weight.reshape(-1)
    shape = rows_shape(grouping.shape[0], grouping.shape[3])
    return _input_gradient("layer_norm_grad", x, weight, grads, 1, eps, out, shape)


def layer_norm_weight(
    input: Array, grad_output: Array, normalized_shape: int | Sequence[int], eps: float = 1e-5
) -> Array:
    """Return the gradient of `fastconv.layer_norm` for its weight; see `layer_norm_input`."""
    x, grads, grouping = _rows(input, grad_output, normalized_shape)
    made = normalised(x, grouping, eps)[0]
    return parameter_gradient(weighted(grads, None, grouping, x) * made, x, grouping)


def layer_norm_bias(grad_output: Array, normalized_shape: int | Sequence[int]) -> Array:
    """Return the gradient of `fastconv.layer_norm` for its bias: the sum over all rows."""
    _, grads, grouping = _rows(grad_output, grad_output, normalized_shape)
    return parameter_gradient(weighted(grads, None, grouping, grads), grads, grouping)
