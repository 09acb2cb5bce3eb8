"""Gradients of means over windows, and of norms, for their input, by the sizes of the pool.

All are the same bits for any number of threads and in every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, assign, check_writable, dtype_name, memory_layout, plain, require_array
from ..contract.adaptive_pool_problem import AdaptivePoolProblem
from ..contract.arguments import Sizes, per_axis
from ..contract.errors import DTypeError, ShapeError
from ..contract.pool_problem import PoolProblem
from ..ops.array_calls import ArrayOp, check_axes, compute_batch
from ..ops.pool import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    mean_options,
    norm_number,
    pool_problem,
)
from .max_pool import input_shape

__all__ = [
    "adaptive_avg_pool1d_input",
    "adaptive_avg_pool2d_input",
    "adaptive_avg_pool3d_input",
    "avg_pool1d_input",
    "avg_pool2d_input",
    "avg_pool3d_input",
    "lp_pool1d_input",
    "lp_pool2d_input",
    "lp_pool3d_input",
]


def _check_pooled(grad: Array, wanted: tuple[int, ...], input_size: tuple[int, ...]) -> None:
    if grad.shape != wanted:
        raise ShapeError(
            f"grad_output: got shape {grad.shape}, want {wanted}, the output of an input of shape "
            f"{input_size}"
        )


def _avg_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> PoolProblem:
    (grad,), (ndim, input_size, kernel_size, stride, padding, ceil_mode, *mean) = arrays, arguments
    check_axes("grad_output", grad, ndim)
    shape = input_shape(input_size, grad, ndim)
    sizes = (kernel_size, stride, padding, 1, ceil_mode)
    made = pool_problem("avg_pool_grad", ndim, grad, shape, sizes, **mean_options(*mean))
    _check_pooled(grad, made.x_shape, shape)
    return made


def _adaptive_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> AdaptivePoolProblem:
    (grad,), (ndim, input_size) = arrays, arguments
    check_axes("grad_output", grad, ndim)
    shape = input_shape(input_size, grad, ndim)
    return AdaptivePoolProblem(
        "adaptive_avg_pool_grad", shape[0], shape[1], shape[2:], grad.shape[2:],
        dtype=dtype_name("grad_output", grad.dtype), layout=memory_layout(grad),
    )  # fmt: skip


_NAMES = (("in_size", "input_size"), ("out_size", "grad_output"))
_AVG = ArrayOp("avg_pool_grad", ("grad_output",), _avg_problem, names=_NAMES)
_ADAPTIVE = ArrayOp("adaptive_avg_pool_grad", ("grad_output",), _adaptive_problem, names=_NAMES)


def _shared(
    op: ArrayOp, ndim: int, grad: Array, arguments: tuple[Any, ...], out: Any
) -> Array:  # fmt: skip
    made: Array = compute_batch(op, ndim, (grad,), arguments, out, ("grad_output",))
    return made


def _check_normed(
    ndim: int, x: Array, grad: Array, sizes: tuple[Any, Any, Any, Any, Any], power: float
) -> None:
    """Raise where there is no such pool, or a gradient has not the shape of its output."""
    images = x[None] if x.ndim == ndim + 1 else x
    check_axes("input", images, ndim)
    pooled = pool_problem("lp_pool", ndim, images, images.shape, sizes, norm_type=power).out_shape
    _check_pooled(grad, pooled[1:] if x.ndim == ndim + 1 else pooled, x.shape)


def _norm_gradient(
    ndim: int, grad: Array, x: Array, pool: tuple[Any, ...], out: Array | None
) -> Array:
    """Return ``p x**(p - 1)`` times what the means of powers, by which norms go, share of it."""
    norm_type, kernel_size, stride, ceil_mode = pool
    x, grad = require_array("input", x), require_array("grad_output", grad)
    if x.dtype != grad.dtype:
        raise DTypeError(f"grad_output: got {grad.dtype}, want {x.dtype} as the input has")
    if out is not None:
        check_writable("out", require_array("out", out))
        if out.shape != x.shape or out.dtype != x.dtype:
            raise ShapeError(
                f"out: got {out.dtype} of shape {out.shape}, want {x.dtype} of {x.shape}"
            )
    power, wide = norm_number(norm_type), np.float64 if x.itemsize == 8 else np.float32
    _check_normed(ndim, x, grad, (kernel_size, stride, 0, 1, ceil_mode), power)
    samples, grads = x.astype(wide), grad.astype(wide)
    taps = math.prod(per_axis("kernel_size", kernel_size, ndim))
    with np.errstate(all="ignore"):
        means = _AVERAGES[ndim](samples**power, kernel_size, stride, 0, ceil_mode)
        outer = grads * (taps / power) * (means * taps) ** (1 / power - 1)
        outer[means == 0] = 0  # a norm has no slope there, and 0 is one of those it may be given
        shared = _SHARES[ndim](x.shape, outer, kernel_size, stride, 0, ceil_mode)
        made = (shared * power * samples ** (power - 1)).astype(x.dtype)
    if out is None:
        return made
    assign(plain(out), made)
    return out


def avg_pool1d_input(
    input_size: Sequence[int],
    grad_output: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `avg_pool1d` for its input, as `avg_pool2d_input` does."""
    pool = (kernel_size, stride, padding, ceil_mode, count_include_pad, None)
    return _shared(_AVG, 1, grad_output, (1, input_size, *pool), out)


def avg_pool2d_input(
    input_size: Sequence[int],
    grad_output: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `avg_pool2d` for its input.

    Parameters
    ----------
    input_size : sequence of int
        Shape of the input.
    grad_output : ndarray
        Gradient for the output, ``(N, C, H_out, W_out)`` or without the batch.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As for `fastconv.avg_pool2d`.
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
    >>> grad = np.ones((1, 1, 1), np.float32)
    >>> fastconv.grad.avg_pool2d_input((1, 2, 2), grad, 2)
    array([[[0.25, 0.25],
            [0.25, 0.25]]], dtype=float32)
    """
    pool = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _shared(_AVG, 2, grad_output, (2, input_size, *pool), out)


def avg_pool3d_input(
    input_size: Sequence[int],
    grad_output: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `avg_pool3d` for its input, as `avg_pool2d_input` does."""
    pool = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _shared(_AVG, 3, grad_output, (3, input_size, *pool), out)


def adaptive_avg_pool1d_input(
    input_size: Sequence[int], grad_output: Array, *, out: Array | None = None
) -> Array:
    """Return the gradient of `adaptive_avg_pool1d` for its input."""
    return _shared(_ADAPTIVE, 1, grad_output, (1, input_size), out)


def adaptive_avg_pool2d_input(
    input_size: Sequence[int], grad_output: Array, *, out: Array | None = None
) -> Array:
    """Return the gradient of `adaptive_avg_pool2d` for its input.

    Parameters
    ----------
    input_size : sequence of int
        Shape of the input.
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
    >>> grad = np.ones((1, 1, 2), np.float32)
    >>> fastconv.grad.adaptive_avg_pool2d_input((1, 2, 2), grad)
    array([[[0.5, 0.5],
            [0.5, 0.5]]], dtype=float32)
    """
    return _shared(_ADAPTIVE, 2, grad_output, (2, input_size), out)


def adaptive_avg_pool3d_input(
    input_size: Sequence[int], grad_output: Array, *, out: Array | None = None
) -> Array:
    """Return the gradient of `adaptive_avg_pool3d` for its input."""
    return _shared(_ADAPTIVE, 3, grad_output, (3, input_size), out)


def lp_pool1d_input(
    input: Array,
    grad_output: Array,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `lp_pool1d` for its input, as `lp_pool2d_input` does."""
    return _norm_gradient(1, grad_output, input, (norm_type, kernel_size, stride, ceil_mode), out)


def lp_pool2d_input(
    input: Array,
    grad_output: Array,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `lp_pool2d` for its input.

    Parameters
    ----------
    input : ndarray
        What was pooled.
    grad_output : ndarray
        Gradient for the output, ``(N, C, H_out, W_out)`` or without the batch.
    norm_type, kernel_size, stride, ceil_mode
        As for `fastconv.lp_pool2d`.
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
    >>> x = np.array([[[3.0, 0.0], [0.0, 4.0]]], np.float32)
    >>> fastconv.grad.lp_pool2d_input(x, np.ones((1, 1, 1), np.float32), 2, 2)
    array([[[0.6, 0. ],
            [0. , 0.8]]], dtype=float32)
    """
    return _norm_gradient(2, grad_output, input, (norm_type, kernel_size, stride, ceil_mode), out)


def lp_pool3d_input(
    input: Array,
    grad_output: Array,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `lp_pool3d` for its input, as `lp_pool2d_input` does."""
    return _norm_gradient(3, grad_output, input, (norm_type, kernel_size, stride, ceil_mode), out)


_AVERAGES = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}
_SHARES = {1: avg_pool1d_input, 2: avg_pool2d_input, 3: avg_pool3d_input}
