"""Gradients of resizing: the transpose of each axis, gathered in one order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, dtype_name, memory_layout
from ..contract.arguments import Sizes, whole_number
from ..contract.errors import ShapeError
from ..contract.resize_problem import ResizeProblem
from ..ops.array_calls import ArrayOp, compute_batch
from ..ops.resize import resize_axes, resize_settings

__all__ = ["interpolate_input"]


def _input_size(value: Any) -> tuple[int, ...]:
    """Return the shape of the array that a gradient is for."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = tuple(value.tolist())
    if not isinstance(value, (tuple, list)):
        raise ShapeError(f"input_size: got {value!r}, want whole numbers, say input.shape")
    sizes = tuple(whole_number("input_size", size) for size in value)
    if not sizes or min(sizes) < 0:
        raise ShapeError(f"input_size: got {value!r}, want the shape of an array")
    return sizes


def _problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> ResizeProblem:
    (grad_output,), (ndim, size, *others) = arrays, arguments
    if len(size) not in (ndim + 1, ndim + 2):
        raise ShapeError(
            f"input_size: got {len(size)} numbers {size}, want {ndim + 2} (batch, channels and "
            f"{ndim} spatial axes) or {ndim + 1} without the batch"
        )
    size = size if len(size) == ndim + 2 else (1, *size)
    if min(size[1:]) < 1:
        raise ShapeError(f"input_size: got {size}, want every size to be at least 1")
    problem = ResizeProblem(
        "interpolate_grad", size[0], size[1], size[2:], **resize_settings(size[2:], *others),
        dtype=dtype_name("grad_output", grad_output.dtype), layout=memory_layout(grad_output),
    )  # fmt: skip
    if tuple(grad_output.shape) != problem.x_shape:
        raise ShapeError(
            f"grad_output: got shape {grad_output.shape}, want {problem.x_shape}, the output of an "
            f"input of shape {size}"
        )
    return problem


_GRADIENT = ArrayOp(
    "interpolate_grad", ("grad_output",), _problem,
    names=(("in_size", "input_size"), ("out_size", "size")),
)  # fmt: skip


def interpolate_input(
    input_size: Sequence[int],
    grad_output: Array,
    size: Sizes | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `fastconv.interpolate` for its input.

    Parameters
    ----------
    input_size : sequence of int
        Shape of the input.
    grad_output : ndarray
        Gradient for the output, of its shape.
    size, scale_factor, mode, align_corners, recompute_scale_factor
        As the output was computed with.
    out : ndarray, optional
        Where the gradient is written.

    Returns
    -------
    ndarray
        Of shape `input_size`, in the memory order of `grad_output`. Each element is a sum over the
        outputs that the sample went into, in one order, so it is the same bits for any number of
        threads.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        Where an argument does not fit; it says which, and what is wanted.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import grad
    >>> ones = np.ones((1, 1, 5), np.float32)
    >>> grad.interpolate_input((1, 1, 3), ones, 5, mode="linear", align_corners=True)
    array([[[1.5, 2. , 1.5]]], dtype=float32)
    """
    shape = _input_size(input_size)
    ndim = resize_axes(len(shape), size, scale_factor, mode)
    arguments = (
        ndim, shape, size, scale_factor, mode, align_corners, recompute_scale_factor
    )  # fmt: skip
    return compute_batch(_GRADIENT, ndim, (grad_output,), arguments, out, ("grad_output",))
