"""What gradients of convolutions share: checks of their operands, and sums over pixels."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np

from ..arrays import Array, require_array
from ..companions import check_memory
from ..contract.arguments import whole_number
from ..contract.errors import DTypeError, ShapeError

__all__ = ["check_gradient", "check_operands", "check_shape", "sum_channels"]


def check_shape(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """Return the shape of an array that a gradient is for, with `ndim` spatial axes."""
    array = name.removesuffix("_size")
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = tuple(value.tolist())
    if not isinstance(value, (tuple, list)) or len(value) != ndim + 2:
        got = f"an array of shape {value.shape}" if hasattr(value, "shape") else reprlib.repr(value)
        raise ShapeError(f"{name}: got {got}, want {ndim + 2} whole numbers, say {array}.shape")
    sizes = tuple(whole_number(name, size) for size in value)
    if min(sizes) < 0 or min(sizes[1:]) < 1:
        raise ShapeError(f"{name}: got {sizes}, want every size to be at least 1")
    return sizes


def check_gradient(name: str, array: Any, ndim: int) -> Array:
    """Return an array of NumPy's that has a batch axis, channels and so many spatial axes."""
    given = require_array(name, array)
    check_memory(name, given, "a gradient")
    if given.ndim != ndim + 2:
        raise ShapeError(f"{name}: got {given.ndim} axes {given.shape}, want {ndim + 2}")
    return given


def check_operands(ndim: int, name: str, array: Any, grad_output: Any) -> tuple[Array, Array]:
    """Return an operand and the gradient for the output: of one type, with all axes."""
    given = check_gradient(name, array, ndim)
    grads = check_gradient("grad_output", grad_output, ndim)
    if given.dtype != grads.dtype:
        raise DTypeError(f"grad_output: got {grads.dtype}, want {given.dtype} as the {name} has")
    return given, grads


def sum_channels(grads: Array) -> Array:
    """Return the sums over images and pixels, a bias's gradient: in float64, rounded once."""
    axes = (0, *range(2, grads.ndim))
    # NumPy's sums of the halves are its slowest, and of bfloat16 there are none.
    wide = grads if grads.dtype.itemsize >= 4 else grads.astype(np.float32)
    with np.errstate(all="ignore"):
        made: Array = wide.sum(axes, np.float64).astype(grads.dtype)
    return made
