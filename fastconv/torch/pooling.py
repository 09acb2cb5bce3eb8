"""Pools of tensors, with gradients; as in ``torch.nn.functional``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..contract.arguments import Sizes, flag, per_axis, whole_number
from ..contract.errors import ShapeError
from ..ops.pool import norm_number
from .operands import batched, check_tensors, in_float32, steps_of
from .windows import (
    ADAPTIVE_AVG_POOL,
    ADAPTIVE_MAX_POOL,
    AVG_POOL,
    LP_POOL,
    MAX_POOL,
    MAX_POOL_PLACES,
)

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]

Tensor = torch.Tensor


def _input(ndim: int, input: Any) -> tuple[Tensor, bool]:
    """Return a pool's input with a batch axis, and whether it had none."""
    (x,) = in_float32(input) if ndim == 3 else (input,)
    check_tensors(input=x)
    return batched("input", x, ndim), x.dim() == ndim + 1


def _max(
    ndim: int, input: Tensor, kernel_size: Sizes, stride: Sizes | None, padding: Sizes,
    dilation: Sizes, ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    x, alone = _input(ndim, input)
    kernel = per_axis("kernel_size", kernel_size, ndim)
    told = (
        kernel, steps_of("stride", stride, ndim, kernel), per_axis("padding", padding, ndim),
        steps_of("dilation", dilation, ndim, ()), flag("ceil_mode", ceil_mode),
    )  # fmt: skip
    if flag("return_indices", return_indices) or (x.requires_grad and torch.is_grad_enabled()):
        return _chosen(MAX_POOL_PLACES(x, *told), alone, return_indices)
    made = MAX_POOL(x, *told)
    return made.squeeze(0) if alone else made


def _chosen(made: tuple[Tensor, Tensor], alone: bool, return_indices: bool) -> Any:
    """Return maxima, with places where they are wanted, without a batch they did not have."""
    values, places = (each.squeeze(0) for each in made) if alone else made
    return (values, places) if return_indices else values


def max_pool1d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    dilation: Sizes = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return the largest sample of each window: `max_pool2d` with one spatial axis."""
    return _max(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    dilation: Sizes = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return the largest sample of each window, as ``torch.nn.functional.max_pool2d`` does.

    Parameters
    ----------
    input : tensor, shape (N, C, H, W) or (C, H, W)
        On the CPU: float32, float64, float16 or bfloat16.
    kernel_size, stride, padding, dilation, ceil_mode, return_indices
        As for `fastconv.max_pool2d`; ``()`` is a missing stride.

    Returns
    -------
    tensor, or tuple of tensor
        In the input's memory order, with places where `return_indices` says so.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        For arguments that do not fit.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> x = torch.arange(4.0, requires_grad=True)
    >>> fastconv.torch.max_pool2d(x.reshape(1, 2, 2), 2).sum().backward()
    >>> x.grad
    tensor([0., 0., 0., 1.])
    """
    return _max(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    dilation: Sizes = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return the largest sample of each window: `max_pool2d` with three spatial axes."""
    return _max(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _avg(
    ndim: int, input: Tensor, kernel_size: Sizes, stride: Sizes | None, padding: Sizes,
    ceil_mode: bool, count_include_pad: bool, divisor_override: int | None,
) -> Tensor:  # fmt: skip
    x, alone = _input(ndim, input)
    kernel = per_axis("kernel_size", kernel_size, ndim)
    divisor = divisor_override
    if divisor is not None and whole_number("divisor_override", divisor) == 0:
        raise ShapeError("divisor_override: got 0, want None or another whole number")
    made: Tensor = AVG_POOL(
        x, kernel, steps_of("stride", stride, ndim, kernel), per_axis("padding", padding, ndim),
        flag("ceil_mode", ceil_mode), flag("count_include_pad", count_include_pad), divisor,
    )  # fmt: skip
    return made.squeeze(0) if alone else made


def avg_pool1d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """Return the mean of each window: `avg_pool2d` with one spatial axis."""
    return _avg(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the mean of each window; arguments are those of `fastconv.avg_pool2d`.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> fastconv.torch.avg_pool2d(torch.arange(4.0).reshape(1, 2, 2), 2)
    tensor([[[1.5000]]])
    """
    told = (ceil_mode, count_include_pad, divisor_override)
    return _avg(2, input, kernel_size, stride, padding, *told)


def avg_pool3d(
    input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the mean of each window: `avg_pool2d` with three spatial axes."""
    told = (ceil_mode, count_include_pad, divisor_override)
    return _avg(3, input, kernel_size, stride, padding, *told)


def _lp(
    ndim: int, input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None,
    ceil_mode: bool,
) -> Tensor:  # fmt: skip
    x, alone = _input(ndim, input)
    kernel = per_axis("kernel_size", kernel_size, ndim)
    steps = steps_of("stride", stride, ndim, kernel)
    made: Tensor = LP_POOL(x, norm_number(norm_type), kernel, steps, flag("ceil_mode", ceil_mode))
    return made.squeeze(0) if alone else made


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return the norm of each window: `lp_pool2d` with one spatial axis."""
    return _lp(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return the norm of each window; arguments are those of `fastconv.lp_pool2d`.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> fastconv.torch.lp_pool2d(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]), 2, 2)
    tensor([[[5.]]])
    """
    return _lp(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return the norm of each window: `lp_pool2d` with three spatial axes."""
    return _lp(3, input, norm_type, kernel_size, stride, ceil_mode)


def _sizes(ndim: int, output_size: Any, x: Tensor) -> tuple[int, ...]:
    """Return an output size for each axis; that of the input where None stands."""
    if not isinstance(output_size, (tuple, list)):
        output_size = (output_size,) * ndim
    if len(output_size) != ndim:
        raise ShapeError(f"output_size: got {output_size!r}, want {ndim} values")
    sizes = zip(output_size, x.shape[2:], strict=True)
    return tuple(old if new is None else whole_number("output_size", new) for new, old in sizes)


def _adaptive(operator: Callable[..., Any], ndim: int, input: Tensor, output_size: Any) -> Any:
    x, alone = _input(ndim, input)
    return operator(x, _sizes(ndim, output_size, x)), alone


def _adaptive_avg(ndim: int, input: Tensor, output_size: Any) -> Tensor:
    made, alone = _adaptive(ADAPTIVE_AVG_POOL, ndim, input, output_size)
    return made.squeeze(0) if alone else made


def adaptive_avg_pool1d(input: Tensor, output_size: Sizes) -> Tensor:
    """Return means of as many parts as wanted: `adaptive_avg_pool2d` with one spatial axis."""
    return _adaptive_avg(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """Return means of as many parts as wanted; arguments are those of PyTorch's.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> fastconv.torch.adaptive_avg_pool2d(torch.arange(4.0).reshape(1, 2, 2), 1)
    tensor([[[1.5000]]])
    """
    return _adaptive_avg(2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """Return means of as many parts as wanted: `adaptive_avg_pool2d` with three spatial axes."""
    return _adaptive_avg(3, input, output_size)


def _adaptive_max(ndim: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    made, alone = _adaptive(ADAPTIVE_MAX_POOL, ndim, input, output_size)
    return _chosen(made, alone, flag("return_indices", return_indices))


def adaptive_max_pool1d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """Return maxima of as many parts as wanted: `adaptive_max_pool2d` with one spatial axis."""
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool2d(
    input: Tensor, output_size: int | Sequence[int | None] | None, return_indices: bool = False
) -> Any:
    """Return maxima of as many parts as wanted; arguments are those of PyTorch's.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> fastconv.torch.adaptive_max_pool2d(torch.arange(4.0).reshape(1, 2, 2), 1)
    tensor([[[3.]]])
    """
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool3d(
    input: Tensor, output_size: int | Sequence[int | None] | None, return_indices: bool = False
) -> Any:
    """Return maxima of as many parts as wanted: `adaptive_max_pool2d` with three spatial axes."""
    return _adaptive_max(3, input, output_size, return_indices)
