"""Normalisations of arrays, with the signatures of ``torch.nn.functional``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, check_writable, dtype_name, memory_layout, require_array
from ..contract.arguments import flag, real_number, whole_number
from ..contract.errors import ArgumentError, DTypeError, ShapeError
from ..contract.norm_problem import NormProblem
from .array_calls import ArrayOp
from .reshaped import channels_shape, compute_reshaped

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm"]


def _problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> NormProblem:
    (x, _, _, weight, bias), (op, groups, training, eps) = arrays, arguments
    lone = x.ndim == 2
    return NormProblem(
        op, x.shape[0], x.shape[1], (1,) if lone else x.shape[2:], groups,
        weight is not None, bias is not None, training, eps,
        dtype=dtype_name("input", x.dtype), layout="channels_first" if lone else memory_layout(x),
    )  # fmt: skip


_OP = ArrayOp("norm", ("input", "running_mean", "running_var", "weight", "bias"), _problem)


def _check_vectors(input: Any, vectors: dict[str, Any], length: int, of: str) -> None:
    """Raise where a vector of parameters is not as long as there are channels."""
    for name, vector in vectors.items():
        if vector is None:
            continue
        checked = require_array(name, vector)
        if checked.shape != (length,):
            raise ShapeError(f"{name}: got shape {checked.shape}, want {(length,)}: one {of}")
        if checked.dtype != input.dtype:
            raise DTypeError(f"{name}: got {checked.dtype}, want {input.dtype} as the input has")


def _check_running(mean: Any, var: Any) -> bool:
    """Return whether running statistics are given: both, or none."""
    if (mean is None) != (var is None):
        missing = "running_mean" if mean is None else "running_var"
        raise ArgumentError(f"{missing}: got None, want both running statistics or neither")
    return mean is not None


def _update(running: Array, value: Any, momentum: float) -> None:
    """Move a running statistic towards a new value, in place; PyTorch's rule."""
    with np.errstate(all="ignore"):
        old = running.astype(np.float64)
        running[...] = ((1.0 - momentum) * old + momentum * value).astype(running.dtype)


def _update_both(
    mean: Array, var: Array, statistics: Any, sampled: int, momentum: float, channels: int
) -> None:
    """Update running statistics by those of a call: unbiased variances, means over images."""
    means, variances = statistics.reshape(2, -1, channels).mean(axis=1)
    _update(mean, means, momentum)
    _update(var, variances * (sampled / (sampled - 1)), momentum)


def _normalise(
    op: str, input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any,
    taken: bool, momentum: Any, eps: Any, out: Any,
) -> Array:  # fmt: skip
    """Compute a batch norm or an instance norm, whose statistics are taken or given."""
    shape = channels_shape(input)
    channels = shape[1]
    epsilon, share = real_number("eps", eps), real_number("momentum", momentum)
    vectors = {
        "running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias,
    }  # fmt: skip
    _check_vectors(input, vectors, channels, "a channel")
    running = _check_running(running_mean, running_var)
    if not taken:
        if not running:
            raise ArgumentError(
                "running_mean: got None, want statistics where none are taken from the input"
            )
        arrays = (input, running_mean, running_var, weight, bias)
        given: Array = compute_reshaped(_OP, arrays, ("batch_norm", 1, False, epsilon), out, shape)
        return given
    if running:
        check_writable("running_mean", require_array("running_mean", running_mean))
        check_writable("running_var", require_array("running_var", running_var))
    arguments = (op, 1, op == "batch_norm", epsilon)
    arrays = (input, None, None, weight, bias)
    made, statistics = compute_reshaped(_OP, arrays, arguments, out, shape)
    if running and made.size:
        sampled = made.size // statistics[0].size
        _update_both(running_mean, running_var, statistics, sampled, share, channels)
    return made


def batch_norm(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Return each channel less a mean, over a standard deviation, times a weight, plus a bias.

    Parameters
    ----------
    input : ndarray
        ``(N, C)`` or ``(N, C, *spatial)``; float32, float64, float16 or bfloat16.
    running_mean, running_var : ndarray or None
        ``(C,)``, of the input's element type. They are what is subtracted and divided by, or, with
        `training`, what is updated in place.
    weight, bias : ndarray, optional
        ``(C,)``, of the input's element type.
    training : bool
        Whether mean and variance are those of the input, over all images and pixels.
    momentum : float
        What share the input's statistics have in the updated ones. The variance is then unbiased.
    eps : float
        What is added to variances.
    out : ndarray, optional
        Where the result is written; may share memory with `input`.

    Returns
    -------
    ndarray
        Of the input's shape, element type and memory order.

    Raises
    ------
    ShapeError, DTypeError
        For other arrays than these.
    ArgumentError
        Where statistics are missing.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[[1.0, 3.0]]], np.float32)
    >>> mean, var = np.zeros(1, np.float32), np.ones(1, np.float32)
    >>> fastconv.batch_norm(x, mean, var).round(3)
    array([[[1., 3.]]], dtype=float32)
    >>> fastconv.batch_norm(x, mean, var, training=True).round(3)
    array([[[-1.,  1.]]], dtype=float32)
    >>> mean.round(3), var.round(3)
    (array([0.2], dtype=float32), array([1.1], dtype=float32))
    """
    taken = flag("training", training)
    return _normalise(
        "batch_norm", input, running_mean, running_var, weight, bias, taken, momentum, eps, out
    )


def instance_norm(
    input: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Return each channel of each image normalised by its own mean and variance.

    Parameters, result and errors are those of `batch_norm`; without `use_input_stats` it is that.
    The input has at least one spatial axis, and running statistics are updated by the mean of those
    of all images.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[[1.0, 3.0]], [[10.0, 50.0]]], np.float32)
    >>> fastconv.instance_norm(x).round(3)
    array([[[-1.,  1.]],
    <BLANKLINE>
           [[-1.,  1.]]], dtype=float32)
    """
    taken = flag("use_input_stats", use_input_stats)
    return _normalise(
        "instance_norm", input, running_mean, running_var, weight, bias, taken, momentum, eps, out
    )


def group_norm(
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Return groups of channels of each image normalised by their own mean and variance.

    Parameters
    ----------
    input : ndarray
        ``(N, C)`` or ``(N, C, *spatial)``; float32, float64, float16 or bfloat16.
    num_groups : int
        Groups of ``C / num_groups`` channels each.
    weight, bias : ndarray, optional
        ``(C,)``, of the input's element type.
    eps : float
        What is added to variances.
    out : ndarray, optional
        Where the result is written; may share memory with `input`.

    Returns
    -------
    ndarray
        Of the input's shape, element type and memory order.

    Raises
    ------
    ShapeError, DTypeError
        For other arrays than these, and where the channels cannot be split into such groups.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[1.0, 3.0, 10.0, 50.0]], np.float32)
    >>> fastconv.group_norm(x, 2).round(3)
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """
    shape = channels_shape(input)
    groups, epsilon = whole_number("num_groups", num_groups), real_number("eps", eps)
    _check_vectors(input, {"weight": weight, "bias": bias}, shape[1], "a channel")
    arrays = (input, None, None, weight, bias)
    arguments = ("group_norm", groups, False, epsilon)
    made: Array = compute_reshaped(_OP, arrays, arguments, out, shape)
    return made


def layer_norm(
    input: Array,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Return the last axes normalised by their own mean and variance.

    Parameters
    ----------
    input : ndarray
        ``(..., *normalized_shape)``; float32, float64, float16 or bfloat16.
    normalized_shape : int or sequence of int
        Sizes of the last axes, over which statistics are taken.
    weight, bias : ndarray, optional
        Of the shape `normalized_shape` and the input's element type.
    eps : float
        What is added to variances.
    out : ndarray, optional
        Where the result is written; may share memory with `input`.

    Returns
    -------
    ndarray
        Of the input's shape and element type.

    Raises
    ------
    ShapeError, DTypeError
        For other arrays than these.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[1.0, 3.0], [10.0, 50.0]], np.float32)
    >>> fastconv.layer_norm(x, 2).round(3)
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """
    x = require_array("input", input)
    given = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    sizes = tuple(whole_number("normalized_shape", size) for size in given)
    if not sizes or x.shape[-len(sizes) :] != sizes:
        raise ShapeError(f"normalized_shape: got {sizes}, want the last sizes of {x.shape}")
    if math.prod(sizes) == 0:
        raise ShapeError(f"normalized_shape: got {sizes}, want every size to be at least 1")
    vectors = {}
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is None:
            continue
        checked = require_array(name, vector)
        if checked.shape != sizes:
            raise ShapeError(f"{name}: got shape {checked.shape}, want {sizes}")
        vectors[name] = checked.reshape(-1)
    arguments = ("layer_norm", 1, False, real_number("eps", eps))
    arrays = (x, None, None, vectors.get("weight"), vectors.get("bias"))
    rows = math.prod(x.shape[: -len(sizes)])
    if rows == 0:
        return np.empty(x.shape, x.dtype) if out is None else out
    made: Array = compute_reshaped(_OP, arrays, arguments, out, (1, rows, math.prod(sizes)))
    return made
