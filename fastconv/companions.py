"""Checks of what goes with an input: weight, bias, residual and output, dense and sparse."""

from __future__ import annotations

from typing import Any

from .arrays import Array, require_array
from .contract.arguments import whole_number
from .contract.errors import DTypeError, ShapeError

__all__ = ["check_companion", "check_groups", "check_weight"]


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


def check_groups(groups: Any, weight: Array) -> int:
    """Return the number of groups, which must divide the output channels."""
    number = whole_number("groups", groups)
    if number < 1:
        raise ShapeError(f"groups: got {number}, want at least 1")
    if weight.shape[0] % number:
        raise ShapeError(
            f"groups: got {number}, want a divisor of the weight's {weight.shape[0]} output "
            "channels"
        )
    return number


def check_companion(name: str, array: Any, shape: tuple[int, ...], like: Array, whose: str) -> None:
    """Raise where an array has not the type of `like`, which is `whose`, or not the shape."""
    checked = require_array(name, array)
    if checked.dtype != like.dtype:
        raise DTypeError(f"{name}: got {checked.dtype}, want {like.dtype} as the {whose} has")
    if checked.shape != shape:
        raise ShapeError(f"{name}: got shape {checked.shape}, want {shape}")
