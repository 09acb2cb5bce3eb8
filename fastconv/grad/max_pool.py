"""Gradients of maxima for their input, by the places that ``return_indices=True`` told.

That of an unpool is what lies at those places. All are the same bits for any number of threads and
in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arrays import Array, dtype_name, memory_layout
from ..contract.arguments import whole_number
from ..contract.errors import ShapeError
from ..contract.unpool_problem import UnpoolProblem
from ..ops.array_calls import ArrayOp, check_axes, compute_batch
from ..ops.unpool import check_indices, place_shape

__all__ = [
    "adaptive_max_pool1d_input",
    "adaptive_max_pool2d_input",
    "adaptive_max_pool3d_input",
    "input_shape",
    "max_pool1d_input",
    "max_pool2d_input",
    "max_pool3d_input",
    "max_unpool1d_input",
    "max_unpool2d_input",
    "max_unpool3d_input",
]


def input_shape(value: Any, grad: Array, ndim: int) -> tuple[int, ...]:
    """Return the shape of the input that a gradient is for, with a batch axis."""
    if not isinstance(value, (tuple, list)) or len(value) not in (ndim + 1, ndim + 2):
        raise ShapeError(f"input_size: got {value!r}, want {ndim + 2} whole numbers, input.shape")
    sizes = tuple(whole_number("input_size", size) for size in value)
    if len(sizes) == ndim + 1:
        sizes = (1, *sizes)
    if sizes[:2] != grad.shape[:2] or min(sizes[2:]) < 1:
        raise ShapeError(
            f"input_size: got {sizes}, want {grad.shape[:2]} images and channels as the "
            "grad_output has, and samples along every axis"
        )
    return sizes


def _max_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> UnpoolProblem:
    (grad, indices), (ndim, input_size) = arrays, arguments
    check_axes("grad_output", grad, ndim)
    place_shape("grad_output", grad, indices)
    sizes = input_shape(input_size, grad, ndim)
    return UnpoolProblem(
        "max_pool_grad", grad.shape[0], grad.shape[1], grad.shape[2:], out_size=sizes[2:],
        dtype=dtype_name("grad_output", grad.dtype), layout=memory_layout(grad),
    )  # fmt: skip


def _unpool_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> UnpoolProblem:
    (grad, indices), (ndim,) = arrays, arguments
    check_axes("grad_output", grad, ndim)
    if indices.ndim != grad.ndim or indices.shape[:2] != grad.shape[:2]:
        raise ShapeError(
            f"indices: got shape {indices.shape}, want images and channels of {grad.shape}, "
            "which the grad_output has"
        )
    return UnpoolProblem(
        "max_unpool_grad", grad.shape[0], grad.shape[1], indices.shape[2:],
        out_size=grad.shape[2:], dtype=dtype_name("grad_output", grad.dtype),
        layout=memory_layout(grad),
    )  # fmt: skip


_PLACED = ("grad_output", "indices")
_MAX = ArrayOp(
    "max_pool_grad", _PLACED, _max_problem, ("indices",), check_indices,
    names=(("in_size", "grad_output"), ("out_size", "input_size")),
)  # fmt: skip
_UNPOOL = ArrayOp(
    "max_unpool_grad", _PLACED, _unpool_problem, ("indices",), check_indices,
    names=(("in_size", "indices"), ("out_size", "grad_output")),
)  # fmt: skip


def _placed(
    op: ArrayOp, ndim: int, arrays: tuple[Array, Array], arguments: tuple[Any, ...], out: Any
) -> Array:
    made: Array = compute_batch(op, ndim, arrays, arguments, out, _PLACED)
    return made


def max_pool1d_input(
    input_size: Sequence[int],
    indices: Array,
    grad_output: Array,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `max_pool1d` for its input, as `max_pool2d_input` does."""
    return _placed(_MAX, 1, (grad_output, indices), (1, input_size), out)


def max_pool2d_input(
    input_size: Sequence[int],
    indices: Array,
    grad_output: Array,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `max_pool2d` for its input.

    Gradients of outputs with one place add up there.

    Parameters
    ----------
    input_size : sequence of int
        Shape of the input.
    indices : ndarray
        Places of the maxima, of int64, as the pool returns them.
    grad_output : ndarray
        Gradient for the output, ``(N, C, H_out, W_out)`` or without the batch.
    out : ndarray, optional
        Where the gradient is written.

    Returns
    -------
    ndarray
        The gradient for the input, of the type of `grad_output`.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        For arguments that do not fit, before anything is written.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    >>> y, places = fastconv.max_pool2d(x, 2, return_indices=True)
    >>> fastconv.grad.max_pool2d_input(x.shape, places, np.ones_like(y))
    array([[[0., 0.],
            [0., 1.]]], dtype=float32)
    """
    return _placed(_MAX, 2, (grad_output, indices), (2, input_size), out)


def max_pool3d_input(
    input_size: Sequence[int],
    indices: Array,
    grad_output: Array,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `max_pool3d` for its input, as `max_pool2d_input` does."""
    return _placed(_MAX, 3, (grad_output, indices), (3, input_size), out)


def adaptive_max_pool1d_input(
    input_size: Sequence[int],
    indices: Array,
    grad_output: Array,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `adaptive_max_pool1d` for its input."""
    return _placed(_MAX, 1, (grad_output, indices), (1, input_size), out)


def adaptive_max_pool2d_input(
    input_size: Sequence[int],
    indices: Array,
    grad_output: Array,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `adaptive_max_pool2d` for its input.

    Gradients of outputs with one place add up there.

    Parameters
    ----------
    input_size : sequence of int
        Shape of the input.
    indices : ndarray
        Places of the maxima, of int64, as the pool returns them.
    grad_output : ndarray
        Gradient for the output, ``(N, C, H_out, W_out)`` or without the batch.
    out : ndarray, optional
        Where the gradient is written.

    Returns
    -------
    ndarray
        The gradient for the input, of the type of `grad_output`.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        For arguments that do not fit, before anything is written.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    >>> y, places = fastconv.adaptive_max_pool2d(x, 1, return_indices=True)
    >>> fastconv.grad.adaptive_max_pool2d_input(x.shape, places, np.ones_like(y))
    array([[[0., 0.],
            [0., 1.]]], dtype=float32)
    """
    return _placed(_MAX, 2, (grad_output, indices), (2, input_size), out)


def adaptive_max_pool3d_input(
    input_size: Sequence[int],
    indices: Array,
    grad_output: Array,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `adaptive_max_pool3d` for its input."""
    return _placed(_MAX, 3, (grad_output, indices), (3, input_size), out)


def max_unpool1d_input(indices: Array, grad_output: Array, *, out: Array | None = None) -> Array:
    """Return the gradient of `max_unpool1d` for its input: what lies at the places."""
    return _placed(_UNPOOL, 1, (grad_output, indices), (1,), out)


def max_unpool2d_input(indices: Array, grad_output: Array, *, out: Array | None = None) -> Array:
    """Return the gradient of `max_unpool2d` for its input: what lies at the places.

    Parameters
    ----------
    indices : ndarray
        Places of the maxima, of int64, as the pool returns them.
    grad_output : ndarray
        Gradient for the output, ``(N, C, H_out, W_out)`` or without the batch.
    out : ndarray, optional
        Where the gradient is written.

    Returns
    -------
    ndarray
        The gradient for the input, of the type of `grad_output`.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        For arguments that do not fit, before anything is written.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> grad = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    >>> fastconv.grad.max_unpool2d_input(np.array([[[3]]]), grad)
    array([[[3.]]], dtype=float32)
    """
    return _placed(_UNPOOL, 2, (grad_output, indices), (2,), out)


def max_unpool3d_input(indices: Array, grad_output: Array, *, out: Array | None = None) -> Array:
    """Return the gradient of `max_unpool3d` for its input: what lies at the places."""
    return _placed(_UNPOOL, 3, (grad_output, indices), (3,), out)
