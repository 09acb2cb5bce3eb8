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
from .reshaped import channels_shape, compute_reshaped, rows_shape

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "row_sizes"]


def _problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> NormProblem:
    """Check a call and return its problem."""
    (x, mean, var, weight, bias), (op, groups, training, eps) = arrays, arguments
    lone = x.ndim == 2
    length, of = (x.shape[2], "a number") if op == "layer_norm" else (x.shape[1], "a channel")
    vectors = {"running_mean": mean, "running_var": var, "weight": weight, "bias": bias}
    _check_vectors(x, vectors, length, of)
    return NormProblem(
        op, x.shape[0], x.shape[1], (1,) if lone else x.shape[2:],
        whole_number("num_groups", groups), weight is not None, bias is not None, training,
        real_number("eps", eps), dtype=dtype_name("input", x.dtype),
        layout="channels_first" if lone else memory_layout(x),
    )  # fmt: skip


_VECTORS = ("running_mean", "running_var", "weight", "bias")
_OP = ArrayOp("norm", ("input", *_VECTORS), _problem, optional=_VECTORS)


def _check_vectors(x: Array, vectors: dict[str, Any], length: int, of: str) -> None:
    """Raise where a vector of parameters is not as long as there are channels."""
    for name, vector in vectors.items():
        if vector is None:
            continue
        if vector.shape != (length,):
            raise ShapeError(f"{name}: got shape {vector.shape}, want {(length,)}: one {of}")
        if vector.dtype != x.dtype:
            raise DTypeError(f"{name}: got {vector.dtype}, want {x.dtype} as the input has")


def _compute(arrays: tuple[Any, ...], arguments: tuple[Any, ...], out: Array | None) -> Any:
    """Compute on an array of channels, under the shape that kernels know."""
    return compute_reshaped(_OP, arrays, arguments, out, channels_shape(arrays[0]))


def _require_both(mean: Any, var: Any) -> bool:
    """Return whether running statistics are given: both, or none."""
    if (mean is None) != (var is None):
        missing = "running_mean" if mean is None else "running_var"
        raise ArgumentError(f"{missing}: got None, want both running statistics or neither")
    return mean is not None


def _check_running(input: Any, mean: Any, var: Any) -> None:
    """Raise where running statistics cannot be updated by those of an input."""
    x = require_array("input", input)
    vectors = {
        "running_mean": require_array("running_mean", mean),
        "running_var": require_array("running_var", var),
    }
    if x.ndim > 1:
        _check_vectors(x, vectors, x.shape[1], "a channel")
    for name, vector in vectors.items():
        check_writable(name, vector)


def _update(running: Array, value: Any, momentum: float) -> None:
    """Move a running statistic towards a new value, in place; PyTorch's rule."""
    with np.errstate(all="ignore"):
        old = running.astype(np.float64)
        running[...] = ((1.0 - momentum) * old + momentum * value).astype(running.dtype)


def _normalise(
    op: str, input: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any,
    taken: bool, momentum: Any, eps: Any, out: Any,
) -> Array:  # fmt: skip
    """Compute a batch norm or an instance norm, whose statistics are taken or given."""
    running, share = _require_both(running_mean, running_var), real_number("momentum", momentum)
    if not taken:
        if not running:
            raise ArgumentError(
                "running_mean: got None, want statistics where none are taken from the input"
            )
        arrays = (input, running_mean, running_var, weight, bias)
        given: Array = _compute(arrays, ("batch_norm", 1, False, eps), out)
        return given
    if running:
        _check_running(input, running_mean, running_var)
    arguments = (op, 1, op == "batch_norm", eps)
    made, statistics = _compute((input, None, None, weight, bias), arguments, out)
    if running and made.size:
        # Of an instance norm the mean over all images counts; variances are unbiased.
        sampled, channels = made.size // statistics[0].size, made.shape[1]
        means, variances = statistics.reshape(2, -1, channels).mean(axis=1)
        _update(running_mean, means, share)
        _update(running_var, variances * (sampled / (sampled - 1)), share)
    result: Array = made
    return result


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
    arguments = ("group_norm", num_groups, False, eps)
    made: Array = _compute((input, None, None, weight, bias), arguments, out)
    return made


def row_sizes(x: Array, normalized_shape: Any) -> tuple[int, ...]:
    """Return the sizes of the last axes of an array, over which a layer norm goes."""
    given = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    sizes = tuple(whole_number("normalized_shape", size) for size in given)
    if not sizes or x.shape[-len(sizes) :] != sizes:
        raise ShapeError(f"normalized_shape: got {sizes}, want the last sizes of {x.shape}")
    if math.prod(sizes) == 0:
        raise ShapeError(f"normalized_shape: got {sizes}, want every size to be at least 1")
    return sizes


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
    sizes = row_sizes(x, normalized_shape)
    vectors = {}
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is None:
            continue
        checked = require_array(name, vector)
        if checked.shape != sizes:
            raise ShapeError(f"{name}: got shape {checked.shape}, want {sizes}")
        vectors[name] = checked.reshape(-1)
    arguments = ("layer_norm", 1, False, eps)
    arrays = (x, None, None, vectors.get("weight"), vectors.get("bias"))
    shape = rows_shape(math.prod(x.shape[: -len(sizes)]), math.prod(sizes))
    made: Array = compute_reshaped(_OP, arrays, arguments, out, shape)
    return made
