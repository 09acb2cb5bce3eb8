"""Pools of arrays, with the signatures of ``torch.nn.functional``."""

from __future__ import annotations

from typing import Any

from ..arrays import Array, dtype_name, memory_layout
from ..contract.arguments import Sizes, flag, per_axis
from ..contract.pool_problem import PoolProblem, pooled_size
from .array_calls import ArrayOp, check_axes, compute_batch

__all__ = ["max_pool1d", "max_pool2d", "max_pool3d"]


def _max_pool_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> PoolProblem:
    (x,), (ndim, kernel_size, stride, padding, dilation, ceil_mode) = arrays, arguments
    check_axes("input", x, ndim)
    kernel = per_axis("kernel_size", kernel_size, ndim)
    steps = kernel if stride is None else per_axis("stride", stride, ndim)
    made = PoolProblem(
        "max_pool", x.shape[0], x.shape[1], x.shape[2:], kernel, steps,
        per_axis("padding", padding, ndim), per_axis("dilation", dilation, ndim),
        dtype=dtype_name("input", x.dtype), layout=memory_layout(x),
    )  # fmt: skip
    if not flag("ceil_mode", ceil_mode):
        return made
    along = zip(
        made.in_size, made.kernel_size, made.stride, made.padding, made.dilation, strict=True
    )
    return made.with_(out_size=tuple(pooled_size(*axis, True) for axis in along))


_MAX_POOL = ArrayOp("max_pool", ("input",), _max_pool_problem)


def max_pool1d(
    input: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    *,
    out: Array | None = None,
) -> Array:
    """Return the largest sample of each window: `max_pool2d` with one spatial axis."""
    arguments = (1, kernel_size, stride, padding, dilation, ceil_mode)
    return compute_batch(_MAX_POOL, 1, (input,), arguments, out)


def max_pool2d(
    input: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    *,
    out: Array | None = None,
) -> Array:
    """Return the largest sample of each window.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> fastconv.max_pool2d(x, 2)
    array([[[[ 5.,  7.],
             [13., 15.]]]], dtype=float32)
    """
    arguments = (2, kernel_size, stride, padding, dilation, ceil_mode)
    return compute_batch(_MAX_POOL, 2, (input,), arguments, out)


def max_pool3d(
    input: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    *,
    out: Array | None = None,
) -> Array:
    """Return the largest sample of each window: `max_pool2d` with three spatial axes."""
    arguments = (3, kernel_size, stride, padding, dilation, ceil_mode)
    return compute_batch(_MAX_POOL, 3, (input,), arguments, out)
