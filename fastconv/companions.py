"""Checks of what goes with an input: weight, bias, residual and output, dense and sparse."""

from __future__ import annotations

from typing import Any

from .arrays import Array, require_array
from .contract.arguments import whole_number
from .contract.errors import DeviceError, DTypeError, ShapeError
from .device_arrays import DeviceArray

__all__ = ["check_companion", "check_groups", "check_memory", "check_result", "check_weight"]


def check_memory(name: str, array: Array, operator: str) -> None:
    """Raise where an array is on a GPU and the operator has kernels of the CPU alone."""
    if isinstance(array, DeviceArray):
        raise DeviceError(
            f"{name}: got an array on a GPU, want one of NumPy: {operator} has kernels of the CPU "
            "alone"
        )


def check_weight(weight: Array, ndim: int, wanted: str) -> None:
    """Raise where a weight has another number of axes, or an empty one.

    Parameters
    ----------
    weight : array
        In any memory order.
    ndim : int
        Spatial axes.
    wanted : str
        What its axes are, for the message.
    """
    if weight.ndim != ndim + 2:
        raise ShapeError(
            f"weight: got {weight.ndim} axes {weight.shape}, want {ndim + 2} ({wanted})"
        )
    if min(weight.shape) < 1:
        raise ShapeError(f"weight: got shape {weight.shape}, want no axis of size 0")


def check_groups(groups: Any, weight: Array, side: str = "output") -> int:
    """Return the number of groups, which must divide a weight's first axis: channels of a side."""
    number = whole_number("groups", groups)
    if number < 1:
        raise ShapeError(f"groups: got {number}, want at least 1")
    if weight.shape[0] % number:
        raise ShapeError(
            f"groups: got {number}, want a divisor of the weight's {weight.shape[0]} {side} "
            "channels"
        )
    return number


def check_companion(name: str, array: Any, shape: tuple[int, ...], like: Array, whose: str) -> None:
    """Raise where an array has not the type of `like`, which is `whose`, or not the shape."""
    checked = require_array(name, array)
    if checked.dtype != like.dtype:
        raise DTypeError(f"{name}: got {checked.dtype}, want {like.dtype} as the {whose} has")
    _check_shape(name, checked, shape)


def check_result(name: str, array: Any, shape: tuple[int, ...], dtype: str) -> None:
    """Raise where an array has not the type of a result of integers, or not the shape."""
    checked = require_array(name, array, integers=True)
    if checked.dtype.name != dtype:
        raise DTypeError(f"{name}: got {checked.dtype}, want {dtype} as the result has")
    _check_shape(name, checked, shape)


def _check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ShapeError(f"{name}: got shape {array.shape}, want {shape}")
