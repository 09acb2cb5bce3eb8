"""Normalisations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "batch_norm",
    "batch_norm_grad",
    "group_norm",
    "group_norm_grad",
    "instance_norm",
    "layer_norm",
    "layer_norm_grad",
    "local_response_norm",
    "prelu",
]

Array = NDArray[np.float64]


def _double(value: ArrayLike) -> Array:
    return np.asarray(value).astype(np.float64)


def _along_channels(vector: ArrayLike | None, ndim: int, default: float) -> Array:
    """Return a vector with one number a channel so that it meets an ``(N, C, *spatial)`` array."""
    values = np.array([default]) if vector is None else _double(vector)
    return values.reshape(1, -1, *(1,) * (ndim - 2))


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    """Return a mean by sums of a wider type: NumPy's pairs follow memory, and may not be formed."""
    return x.mean(axis=axes, keepdims=True, dtype=np.longdouble).astype(np.float64)


def _normalise(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """Return x less its mean over axes, over its standard deviation."""
    with np.errstate(all="ignore"):
        away = x - _mean(x, axes)
        made: Array = away / np.sqrt(_mean(away * away, axes) + eps)
    return made


def _scale(x: Array, weight: ArrayLike | None, bias: ArrayLike | None) -> Array:
    factor, shift = _along_channels(weight, x.ndim, 1.0), _along_channels(bias, x.ndim, 0.0)
    with np.errstate(all="ignore"):
        return x * factor + shift


def batch_norm(
    input: ArrayLike,
    running_mean: ArrayLike | None = None,
    running_var: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    training: bool = False,
    eps: float = 1e-5,
) -> Any:
    """Return channels normalised over all images, or by statistics that are given.

    Examples
    --------
    >>> batch_norm(np.array([[[1.0, 3.0]]]), training=True, eps=0.0).tolist()
    [[[-1.0, 1.0]]]
    """
    x = _double(input)
    if training:
        made = _normalise(x, (0, *range(2, x.ndim)), eps)
    else:
        mean, var = (_along_channels(each, x.ndim, 0.0) for each in (running_mean, running_var))
        with np.errstate(all="ignore"):
            made = (x - mean) / np.sqrt(var + eps)
    return _scale(made, weight, bias)


def instance_norm(
    input: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
) -> Any:
    """Return the channels of each image normalised by themselves."""
    x = _double(input)
    return _scale(_normalise(x, tuple(range(2, x.ndim)), eps), weight, bias)


def group_norm(
    input: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    num_groups: int,
    eps: float = 1e-5,
) -> Any:
    """Return groups of channels of each image normalised by themselves."""
    x = _double(input)
    grouped = x.reshape(x.shape[0], num_groups, math.prod(x.shape[1:]) // num_groups)
    return _scale(_normalise(grouped, (2,), eps).reshape(x.shape), weight, bias)


def layer_norm(
    input: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    normalized_shape: tuple[int, ...],
    eps: float = 1e-5,
) -> Any:
    """Return the last axes normalised by themselves."""
    x = _double(input)
    made = _normalise(x, tuple(range(x.ndim - len(normalized_shape), x.ndim)), eps)
    factor = 1.0 if weight is None else _double(weight)
    return made * factor + (0.0 if bias is None else _double(bias))


def local_response_norm(input: ArrayLike, *, size: int, alpha: float, beta: float, k: float) -> Any:
    """Return elements over a power of the mean square of their neighbours in other channels.

    Examples
    --------
    >>> x = np.array([[[1.0], [2.0]]])
    >>> local_response_norm(x, size=1, alpha=1.0, beta=1.0, k=1.0).tolist()
    [[[0.5], [0.4]]]
    """
    x = _double(input)
    out = np.empty_like(x)
    with np.errstate(all="ignore"):
        for c in range(x.shape[1]):
            window = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
            mean = (window * window).sum(axis=1) / size
            out[:, c] = x[:, c] / (k + alpha * mean) ** beta
    return out


def prelu(input: ArrayLike, weight: ArrayLike) -> Any:
    """Return what is positive as it is, else times its channel's slope, or the only one."""
    x = _double(input)
    with np.errstate(all="ignore"):
        return np.where(x > 0, x, x * _along_channels(weight, max(x.ndim, 2), 0.0))


def _input_gradient(made: Array, wanted: Array, axes: tuple[int, ...], factor: Array) -> Array:
    """Return a gradient from the normalised input and the output's gradient times the weight."""
    with np.errstate(all="ignore"):
        return factor * (wanted - _mean(wanted, axes) - made * _mean(wanted * made, axes))


def _factor(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    with np.errstate(all="ignore"):
        away = x - _mean(x, axes)
        made: Array = 1.0 / np.sqrt(_mean(away * away, axes) + eps)
    return made


def batch_norm_grad(
    input: ArrayLike, weight: ArrayLike | None, grad_output: ArrayLike, *, eps: float = 1e-5,
    **unused: Any,
) -> Any:  # fmt: skip
    """Return the gradient of a batch norm for the input that its statistics are taken from."""
    x = _double(input)
    axes = (0, *range(2, x.ndim))
    wanted = _scale(_double(grad_output), weight, None)
    return _input_gradient(_normalise(x, axes, eps), wanted, axes, _factor(x, axes, eps))


def group_norm_grad(
    input: ArrayLike, weight: ArrayLike | None, grad_output: ArrayLike, *, num_groups: int,
    eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Return the gradient of a group norm for its input."""
    x = _double(input)
    shape = (x.shape[0], num_groups, math.prod(x.shape[1:]) // num_groups)
    wanted = _scale(_double(grad_output), weight, None).reshape(shape)
    grouped = x.reshape(shape)
    made = _normalise(grouped, (2,), eps)
    return _input_gradient(made, wanted, (2,), _factor(grouped, (2,), eps)).reshape(x.shape)


def layer_norm_grad(
    input: ArrayLike, weight: ArrayLike | None, grad_output: ArrayLike, *,
    normalized_shape: tuple[int, ...], eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Return the gradient of a layer norm for its input."""
    x = _double(input)
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    wanted = _double(grad_output) * (1.0 if weight is None else _double(weight))
    return _input_gradient(_normalise(x, axes, eps), wanted, axes, _factor(x, axes, eps))
