"""What gradients of normalisations share: who has a statistic in common, and sums over those."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, require_array
from ..contract.arguments import real_number
from ..contract.errors import ArgumentError, DTypeError, ShapeError
from ..ops.norm import row_sizes

__all__ = [
    "Grouping",
    "by_channel",
    "by_row",
    "check_like",
    "check_pair",
    "given_statistics",
    "normalised",
    "parameter_gradient",
    "weighted",
]

Reals = NDArray[np.float64]


class Grouping(NamedTuple):
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


def check_pair(input: Any, grad_output: Any) -> tuple[Array, Array]:
    """Return two arrays of one shape and type, else raise."""
    x, grads = require_array("input", input), require_array("grad_output", grad_output)
    if x.ndim < 2:
        raise ShapeError(f"input: got {x.ndim} axes {x.shape}, want a batch, channels and others")
    check_like("grad_output", grads, x.shape, x)
    return x, grads


def check_like(name: str, array: Array, shape: tuple[int, ...], x: Array) -> None:
    """Raise where an array has another shape, or another type than the input."""
    if array.shape != shape:
        raise ShapeError(f"{name}: got shape {array.shape}, want {shape}")
    if array.dtype != x.dtype:
        raise DTypeError(f"{name}: got {array.dtype}, want {x.dtype} as the input has")


def by_channel(x: Array, groups: int, images: bool) -> Grouping:
    """Return the grouping of channels, over all images or not."""
    n, c, pixels = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    if groups < 1 or c % groups:
        raise ShapeError(f"num_groups: got {groups} with {c} channels, want a divisor")
    inner = (groups, c // groups)
    return Grouping((n, *inner, pixels), (0, 2, 3) if images else (2, 3), (1, *inner, 1), (c,))


def by_row(x: Array, normalized_shape: Any) -> Grouping:
    """Return the grouping of rows of so many elements."""
    sizes = row_sizes(x, normalized_shape)
    rows, length = math.prod(x.shape[: -len(sizes)]), math.prod(sizes)
    return Grouping((rows, 1, 1, length), (3,), (1, 1, 1, length), sizes)


def normalised(x: Array, grouping: Grouping, eps: Any) -> tuple[Reals, Reals]:
    """Return the normalised input and one over its deviations."""
    values = x.astype(np.float64).reshape(grouping.shape)
    with np.errstate(all="ignore"):
        away = values - _means(values, grouping.taken)
        variance = _means(away * away, grouping.taken)
        factor = 1.0 / np.sqrt(variance + real_number("eps", eps))
        return away * factor, factor


def _means(values: Reals, axes: tuple[int, ...]) -> Reals:
    """Return means along axes; of nothing they are not numbers, of which NumPy's warns."""
    means: Reals = values.sum(axis=axes, keepdims=True)
    return means / math.prod(values.shape[axis] for axis in axes)


def weighted(grads: Array, weight: Any, grouping: Grouping, x: Array) -> Reals:
    """Return the output's gradient times the weight."""
    values = grads.astype(np.float64).reshape(grouping.shape)
    if weight is None:
        return values
    checked = require_array("weight", weight)
    check_like("weight", checked, grouping.parameters, x)
    with np.errstate(all="ignore"):
        return values * checked.astype(np.float64).reshape(grouping.weight_shape)


def _rounded(values: Reals, like: Array, shape: tuple[int, ...]) -> Array:
    """Return values in an array's element type."""
    with np.errstate(all="ignore"):
        return values.reshape(shape).astype(like.dtype)


def parameter_gradient(values: Reals, like: Array, grouping: Grouping) -> Array:
    """Return the sums over all elements that share a parameter."""
    shared = tuple(axis for axis, size in enumerate(grouping.weight_shape) if size == 1)
    # Of an axis of one element in both shapes there is nothing to sum.
    with np.errstate(all="ignore"):
        total = values.sum(axis=shared, keepdims=True)
    return _rounded(total, like, grouping.parameters)


def given_statistics(x: Array, mean: Any, var: Any, eps: Any) -> tuple[Reals, Reals]:
    """Return given means and factors, shaped as channels of an array of four axes."""
    channels = (x.shape[1],)
    checked = []
    for name, vector in (("running_mean", mean), ("running_var", var)):
        if vector is None:
            raise ArgumentError(f"{name}: got None, want statistics where training is False")
        array = require_array(name, vector)
        check_like(name, array, channels, x)
        checked.append(array.astype(np.float64).reshape(1, 1, -1, 1))
    with np.errstate(all="ignore"):
        return checked[0], 1.0 / np.sqrt(checked[1] + real_number("eps", eps))
