"""Norms, softmax, resizing and prelu of tensors, with gradients; as in ``torch.nn.functional``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..contract.arguments import Sizes, flag, per_axis, real_number, whole_number
from ..contract.errors import ArgumentError, ShapeError
from ..ops.reshaped import axis_of
from ..ops.resize import resize_axes, resize_settings
from .norming import (
    BATCH_NORM,
    GROUP_NORM,
    INSTANCE_NORM,
    INTERPOLATE,
    LAYER_NORM,
    LOG_SOFTMAX,
    PRELU,
    SOFTMAX,
)
from .operands import check_tensors, in_lower_type

__all__ = [
    "batch_norm",
    "group_norm",
    "instance_norm",
    "interpolate",
    "layer_norm",
    "log_softmax",
    "prelu",
    "softmax",
]

Tensor = torch.Tensor


def _check_channels(input: Tensor) -> None:
    if input.dim() < 2:
        raise ShapeError(f"input: got shape {tuple(input.shape)}, want (N, C, *spatial)")


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return each channel less a running mean, over a standard deviation, scaled and shifted.

    Arguments are those of PyTorch's, of one element type, with ``training=False``.

    Raises
    ------
    ArgumentError
        In training, whose statistics PyTorch takes and updates.
    ShapeError, DTypeError, DeviceError
        For operands that do not fit.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> x, mean, var = torch.tensor([[[1.0, 3.0]]]), torch.ones(1), torch.ones(1)
    >>> fastconv.torch.batch_norm(x, mean, var, eps=0.0)
    tensor([[[0., 2.]]])
    """
    if flag("training", training) or running_mean is None or running_var is None:
        raise ArgumentError(
            "training: got True, or no running statistics, want training=False with both: "
            "PyTorch's batch_norm is for training"
        )
    check_tensors(
        input=input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    _check_channels(input)
    made: Tensor = BATCH_NORM(
        input, running_mean, running_var, weight, bias, real_number("eps", eps)
    )
    return made


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return groups of channels with mean 0 and variance 1, scaled and shifted.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> fastconv.torch.group_norm(torch.tensor([[1.0, 3.0, 5.0, 9.0]]), 2, eps=0.0)
    tensor([[-1.,  1., -1.,  1.]])
    """
    check_tensors(input=input, weight=weight, bias=bias)
    _check_channels(input)
    groups = whole_number("num_groups", num_groups)
    made: Tensor = GROUP_NORM(input, groups, weight, bias, real_number("eps", eps))
    return made


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return each image's channels with mean 0 and variance 1, scaled and shifted.

    Raises
    ------
    ArgumentError
        With running statistics, which PyTorch updates.
    ShapeError, DTypeError, DeviceError
        For operands that do not fit.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> fastconv.torch.instance_norm(torch.tensor([[[1.0, 3.0]]]), eps=0.0)
    tensor([[[-1.,  1.]]])
    """
    if running_mean is not None or running_var is not None or not use_input_stats:
        raise ArgumentError(
            "running_mean: got running statistics, want none: PyTorch's instance_norm keeps them"
        )
    check_tensors(input=input, weight=weight, bias=bias)
    if input.dim() < 3:
        raise ShapeError(f"input: got shape {tuple(input.shape)}, want (N, C, *spatial)")
    made: Tensor = INSTANCE_NORM(input, weight, bias, real_number("eps", eps))
    return made


def layer_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return the last axes with mean 0 and variance 1, scaled and shifted.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> fastconv.torch.layer_norm(torch.tensor([[1.0, 3.0]]), (2,), eps=0.0)
    tensor([[-1.,  1.]])
    """
    check_tensors(input=input, weight=weight, bias=bias)
    shape = tuple(normalized_shape) if not isinstance(normalized_shape, int) else normalized_shape
    sizes = (shape,) if isinstance(shape, int) else shape
    if not sizes or tuple(input.shape[-len(sizes) :]) != tuple(sizes):
        raise ShapeError(
            f"normalized_shape: got {sizes} with an input of {tuple(input.shape)}, want its last "
            "sizes"
        )
    made: Tensor = LAYER_NORM(input, list(sizes), weight, bias, real_number("eps", eps))
    return made


def _softmax(operator: Any, input: Tensor, dim: int | None, dtype: torch.dtype | None) -> Tensor:
    if dim is None:
        raise ArgumentError("dim: got None, want the axis along which the sum is 1")
    x = input if dtype is None else input.to(dtype)
    check_tensors(input=x)
    made: Tensor = operator(x, axis_of("dim", dim, x.dim()))
    return made


def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """Return shares along an axis that add up to 1; `_stacklevel` is PyTorch's, and ignored.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> fastconv.torch.softmax(torch.zeros(1, 4), dim=1)
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    return _softmax(SOFTMAX, input, dim, dtype)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """Return the logarithms of `softmax`."""
    return _softmax(LOG_SOFTMAX, input, dim, dtype)


def interpolate(
    input: Tensor, size: Sizes | None = None, scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest", align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    """Return images whose spatial axes are resized; see `fastconv.interpolate`.

    Raises
    ------
    ArgumentError
        With ``antialias=True`` and for ``mode="area"``, which fastconv does not have.
    ShapeError, DTypeError, DeviceError
        For operands that do not fit.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> fastconv.torch.interpolate(torch.tensor([[[0.0, 2.0]]]), scale_factor=2)
    tensor([[[0., 0., 2., 2.]]])
    """
    check_tensors(input=input)
    if antialias:
        raise ArgumentError("antialias: got True, want False")
    ndim = resize_axes(input.dim(), size, scale_factor, mode)
    if input.dim() != ndim + 2:
        raise ShapeError(
            f"input: got {input.dim()} axes with mode={mode!r}, want {ndim + 2}: a batch, channels "
            f"and {ndim} spatial"
        )
    told = (mode, align_corners, recompute_scale_factor)
    resize_settings(tuple(input.shape[2:]), size, scale_factor, *told)
    sizes = None if size is None else list(per_axis("size", size, ndim))
    factors = scale_factor
    if factors is not None:
        many = isinstance(factors, (tuple, list))
        factors = [float(each) for each in factors] if many else [float(factors)] * ndim  # type: ignore[union-attr,arg-type]
    made: Tensor = INTERPOLATE(input, sizes, factors, *told)
    return made


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Return negative samples times the slope of their channel, others as they are.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> fastconv.torch.prelu(torch.tensor([[-2.0, 2.0]]), torch.tensor([0.5]))
    tensor([[-1.,  2.]])
    """
    x, slopes = in_lower_type(input, weight)
    check_tensors(input=x, weight=slopes)
    made: Tensor = PRELU(x, slopes)
    return made
