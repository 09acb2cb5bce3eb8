"""Calls on arrays of any rank, whose kernels see a batch, channels and what lies behind them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array, assign, check_writable, require_array
from ..contract.arguments import whole_number
from ..contract.errors import DTypeError, ShapeError
from .array_calls import ArrayOp, compute

__all__ = ["axis_of", "channels_shape", "compute_reshaped", "rows_shape", "split_at"]


def axis_of(name: str, value: Any, ndim: int) -> int:
    """Return the number of an axis that may be counted from the end.

    Raises
    ------
    ShapeError
        Where there is no such axis.
    """
    axis = whole_number(name, value)
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{name}: got {axis}, want an axis of {ndim}: {-ndim} to {ndim - 1}")
    return axis % ndim


def split_at(name: str, value: Any, dim: Any) -> tuple[int, ...]:
    """Return the shape that an array has for a kernel whose axis 1 is the axis `dim`.

    An axis 1 before one to three others stays. Else all axes before it are one, and those behind
    it, if they have several elements. An empty array is one of no images.
    """
    array = value if type(value) is np.ndarray else require_array(name, value)
    if array.ndim == 0:
        raise ShapeError(f"{name}: got an array without an axis, want one axis or more")
    axis = axis_of("dim", dim, array.ndim)
    shape: tuple[int, ...] = array.shape
    if array.size == 0:
        return 0, max(1, shape[axis])
    behind = math.prod(shape[axis + 1 :])
    if behind == 1:
        return math.prod(shape[:axis]), shape[axis]
    if axis == 1 and array.ndim <= 5:
        return shape
    return math.prod(shape[:axis]), shape[axis], behind


def channels_shape(input: Any) -> tuple[int, ...]:
    """Return the shape of an array of channels for a kernel: 0 to 3 spatial axes.

    Channels without pixels are those of no images, which have two: one were no statistic.
    """
    array = input if type(input) is np.ndarray else require_array("input", input)
    if array.ndim < 2:
        raise ShapeError(
            f"input: got {array.ndim} axes {array.shape}, want a batch, channels and any others"
        )
    shape: tuple[int, ...] = array.shape
    pixels = math.prod(shape[2:])
    if pixels == 0:
        return 0, shape[1], 2
    if pixels == 1:
        return shape[:2]
    return shape if array.ndim <= 5 else (*shape[:2], pixels)


def rows_shape(rows: int, length: int) -> tuple[int, ...]:
    """Return the shape for a kernel of rows of so many elements: one image's, or none's."""
    return (1, rows, length) if rows else (0, 1, length)


def compute_reshaped(
    op: ArrayOp, arrays: tuple[Any, ...], arguments: tuple[Any, ...], out: Array | None,
    shape: tuple[int, ...],
) -> Any:  # fmt: skip
    """Compute a call whose first operand, and result, have another shape for the kernel.

    An array that no view has that shape of is copied. Everything is as for `compute`.
    """
    if shape == getattr(arrays[0], "shape", None):
        return compute(op, arrays, arguments, out)
    first = require_array(op.operands[0], arrays[0])
    given = (first.reshape(shape), *arrays[1:])
    if out is None:
        made = compute(op, given, arguments)
        rest = made[1:] if isinstance(made, tuple) else ()
        made = (made[0] if rest else made).reshape(first.shape)
        return (made, *rest) if rest else made
    target = require_array("out", out)
    if target.shape != first.shape:
        raise ShapeError(f"out: got shape {target.shape}, want {first.shape}")
    if target.dtype != first.dtype:
        raise DTypeError(f"out: got {target.dtype}, want {first.dtype} as the {op.operands[0]} has")
    check_writable("out", target)
    view = target.reshape(shape)
    made = compute(op, given, arguments, view)
    if not np.may_share_memory(view, target):
        assign(target, view.reshape(target.shape))
    return (out, *made[1:]) if isinstance(made, tuple) else out
