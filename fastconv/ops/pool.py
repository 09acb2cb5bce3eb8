"""Pools over windows, with the signatures of ``torch.nn.functional``."""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, dtype_name, memory_layout
from ..contract.arguments import PaddingMode, Sizes, flag, per_axis, whole_number
from ..contract.errors import ArgumentError, ShapeError
from ..contract.pool_problem import PoolProblem, pooled_size
from .array_calls import ArrayOp, check_axes, compute_batch
from .boundary_pool import compute_pool

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mean_options",
    "norm_number",
    "pool_problem",
]


def pool_problem(
    op: str, ndim: int, like: Array, shape: tuple[int, ...],
    sizes: tuple[Any, Any, Any, Any, Any], **options: Any,
) -> PoolProblem:  # fmt: skip
    """Return the problem of a pool over an input of a shape.

    Parameters
    ----------
    op : str
        The problem's operator.
    ndim : int
        Spatial axes.
    like : array
        Whose element type and memory order it has.
    shape : tuple of int
        The input's.
    sizes : tuple
        Kernel size, stride, padding, dilation and whether sizes are rounded up, as a caller says.
    **options
        What else the problem is told.
    """
    kernel_size, stride, padding, dilation, ceil_mode = sizes
    kernel = per_axis("kernel_size", kernel_size, ndim)
    steps = kernel if stride is None else per_axis("stride", stride, ndim)
    made = PoolProblem(
        op, shape[0], shape[1], shape[2:], kernel, steps, per_axis("padding", padding, ndim),
        per_axis("dilation", dilation, ndim), dtype=dtype_name("input", like.dtype),
        layout=memory_layout(like), **options,
    )  # fmt: skip
    if not flag("ceil_mode", ceil_mode):
        return made
    along = zip(
        made.in_size, made.kernel_size, made.stride, made.padding, made.dilation, strict=True
    )
    return made.with_(out_size=tuple(pooled_size(*axis, True) for axis in along))


def _max_pool_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> PoolProblem:
    (x,), (ndim, *sizes, return_indices) = arrays, arguments
    check_axes("input", x, ndim)
    places = flag("return_indices", return_indices)
    return pool_problem("max_pool", ndim, x, x.shape, tuple(sizes), return_indices=places)


def mean_options(count_include_pad: Any, divisor_override: Any) -> dict[str, Any]:
    """Return what a problem is told of how a mean divides."""
    divisor = 0
    if divisor_override is not None:
        divisor = whole_number("divisor_override", divisor_override)
        if divisor == 0:
            raise ShapeError("divisor_override: got 0, want None or another whole number")
    counted = flag("count_include_pad", count_include_pad)
    # With a divisor of its own nothing is counted.
    return {"count_include_pad": counted or divisor != 0, "divisor_override": divisor}


def _avg_pool_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> PoolProblem:
    (x,), (ndim, kernel_size, stride, padding, ceil_mode, *mean) = arrays, arguments
    check_axes("input", x, ndim)
    sizes = (kernel_size, stride, padding, 1, ceil_mode)
    return pool_problem("avg_pool", ndim, x, x.shape, sizes, **mean_options(*mean))


def norm_number(value: Any) -> float:
    """Return a norm's power."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, (bool, str)) or not math.isfinite(number) or number == 0:
        raise ArgumentError(f"norm_type: got {value!r}, want a finite number but 0")
    return number


def _lp_pool_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> PoolProblem:
    (x,), (ndim, norm_type, kernel_size, stride, ceil_mode) = arrays, arguments
    check_axes("input", x, ndim)
    sizes = (kernel_size, stride, 0, 1, ceil_mode)
    return pool_problem("lp_pool", ndim, x, x.shape, sizes, norm_type=norm_number(norm_type))


_MAX_POOL = ArrayOp("max_pool", ("input",), _max_pool_problem)
_AVG_POOL = ArrayOp("avg_pool", ("input",), _avg_pool_problem)
_LP_POOL = ArrayOp("lp_pool", ("input",), _lp_pool_problem)


def max_pool1d(
    input: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    padding_mode: PaddingMode = "zeros",
    out: Array | None = None,
) -> Any:
    """Return the largest sample of each window: `max_pool2d` with one spatial axis."""
    arguments = (1, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return compute_pool(_MAX_POOL, 1, input, arguments, padding_mode, out)


def max_pool2d(
    input: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    padding_mode: PaddingMode = "zeros",
    out: Array | None = None,
) -> Any:
    """Return the largest sample of each window; NaN where it holds one.

    Parameters
    ----------
    input : ndarray
        ``(N, C, H, W)``, or ``(C, H, W)``, of float32, float64, float16 or bfloat16.
    kernel_size : int or sequence of int
        The window.
    stride : int or sequence of int, optional
        From one window to the next; that of the kernel where it is missing.
    padding : int or sequence of int
        Samples that are missing on both sides, at most half of the window's reach.
    dilation : int or sequence of int
        From one sample of a window to the next.
    ceil_mode : bool
        Whether output sizes are rounded up: the last window may reach beyond the padding.
    return_indices : bool
        Whether the place of each maximum is returned, too.
    padding_mode : str or ("constant", float)
        "reflect", "symmetric", "replicate", "circular" or a number: the padding then holds samples
        as for `conv2d`, of any width; places are those of the samples in the input. Otherwise it
        is left out, whatever "zeros" says.
    out : ndarray, optional
        Where the maxima are written.

    Returns
    -------
    ndarray, or tuple of ndarray
        ``(N, C, H_out, W_out)`` of the input's type; with places another one of int64: samples
        of the channel before the first maximum, or the last NaN, in the order of rows.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        For arguments that do not fit, before anything is written.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> fastconv.max_pool2d(x, 2)
    array([[[[ 5.,  7.],
             [13., 15.]]]], dtype=float32)
    >>> fastconv.max_pool2d(x, 2, return_indices=True)[1]
    array([[[[ 5,  7],
             [13, 15]]]])
    """
    arguments = (2, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return compute_pool(_MAX_POOL, 2, input, arguments, padding_mode, out)


def max_pool3d(
    input: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    padding_mode: PaddingMode = "zeros",
    out: Array | None = None,
) -> Any:
    """Return the largest sample of each window: `max_pool2d` with three spatial axes."""
    arguments = (3, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return compute_pool(_MAX_POOL, 3, input, arguments, padding_mode, out)


def avg_pool1d(
    input: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    padding_mode: PaddingMode = "zeros",
    out: Array | None = None,
) -> Array:
    """Return the mean of each window: `avg_pool2d` with one spatial axis."""
    arguments = (1, kernel_size, stride, padding, ceil_mode, count_include_pad, None)
    return compute_pool(_AVG_POOL, 1, input, arguments, padding_mode, out)


def avg_pool2d(
    input: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    padding_mode: PaddingMode = "zeros",
    out: Array | None = None,
) -> Array:
    """Return the mean of each window.

    Parameters
    ----------
    input : ndarray
        ``(N, C, H, W)``, or ``(C, H, W)``, of float32, float64, float16 or bfloat16.
    kernel_size : int or sequence of int
        The window.
    stride : int or sequence of int, optional
        From one window to the next; that of the kernel where it is missing.
    padding : int or sequence of int
        Zeros on both sides, at most half of the window.
    ceil_mode : bool
        Whether output sizes are rounded up. A window then counts what lies within the padding.
    count_include_pad : bool
        Whether the padding is counted as samples.
    divisor_override : int, optional
        What sums are divided by instead of the number of samples.
    padding_mode : str or ("constant", float)
        What the padding holds instead of zeros, as for `conv2d`; it may then be of any width.
    out : ndarray, optional
        Where the means are written.

    Returns
    -------
    ndarray
        ``(N, C, H_out, W_out)``, of the input's type.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        For arguments that do not fit, before anything is written.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> fastconv.avg_pool2d(x, 2)
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]], dtype=float32)
    """
    arguments = (2, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return compute_pool(_AVG_POOL, 2, input, arguments, padding_mode, out)


def avg_pool3d(
    input: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    padding_mode: PaddingMode = "zeros",
    out: Array | None = None,
) -> Array:
    """Return the mean of each window: `avg_pool2d` with three spatial axes."""
    arguments = (3, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return compute_pool(_AVG_POOL, 3, input, arguments, padding_mode, out)


def lp_pool1d(
    input: Array,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
    *,
    out: Array | None = None,
) -> Array:
    """Return the norm of each window: `lp_pool2d` with one spatial axis."""
    arguments = (1, norm_type, kernel_size, stride, ceil_mode)
    return compute_batch(_LP_POOL, 1, (input,), arguments, out)


def lp_pool2d(
    input: Array,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
    *,
    out: Array | None = None,
) -> Array:
    """Return the norm of each window: the root of the sum of its samples' powers.

    Parameters
    ----------
    input : ndarray
        ``(N, C, H, W)``, or ``(C, H, W)``, of float32, float64, float16 or bfloat16.
    norm_type : float
        The power. Negative samples keep their sign in odd powers and are NaN in broken ones.
    kernel_size : int or sequence of int
        The window.
    stride : int or sequence of int, optional
        From one window to the next; that of the kernel where it is missing.
    ceil_mode : bool
        Whether output sizes are rounded up. The sum of a window that reaches beyond the input is
        scaled up to a whole window's.
    out : ndarray, optional
        Where the norms are written.

    Returns
    -------
    ndarray
        ``(N, C, H_out, W_out)``, of the input's type.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        For arguments that do not fit, before anything is written.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.lp_pool2d(np.array([[[3.0, 0.0], [0.0, 4.0]]], np.float32), 2, 2)
    array([[[5.]]], dtype=float32)
    """
    arguments = (2, norm_type, kernel_size, stride, ceil_mode)
    return compute_batch(_LP_POOL, 2, (input,), arguments, out)


def lp_pool3d(
    input: Array,
    norm_type: float,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    ceil_mode: bool = False,
    *,
    out: Array | None = None,
) -> Array:
    """Return the norm of each window: `lp_pool2d` with three spatial axes."""
    arguments = (3, norm_type, kernel_size, stride, ceil_mode)
    return compute_batch(_LP_POOL, 3, (input,), arguments, out)
