"""Convolutions and dense layers of tensors, with gradients; as in ``torch.nn.functional``."""

from __future__ import annotations

from typing import Any

import torch

from ..contract.arguments import Padding, Sizes, per_axis, whole_number
from ..contract.errors import ShapeError
from ..contract.padding import normalise_padding
from .operands import batched, check_tensors, in_lower_type, steps_of
from .products import CONV, CONV_TRANSPOSE, LINEAR

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "linear",
]

Tensor = torch.Tensor


def _operands(
    ndim: int, input: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return a convolution's operands as autocast has them, the input with a batch axis."""
    input, weight, bias = in_lower_type(input, weight, bias)
    check_tensors(input=input, weight=weight, bias=bias)
    if weight.dim() != ndim + 2:
        raise ShapeError(
            f"weight: got {weight.dim()} axes {tuple(weight.shape)}, want {ndim + 2} (channels, "
            f"channels / groups and {ndim} of the kernel)"
        )
    return batched("input", input, ndim), weight, bias


def _unbatched(made: Tensor, input: Tensor, ndim: int) -> Tensor:
    return made.squeeze(0) if input.dim() == ndim + 1 else made


def _convolve(
    ndim: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes,
    padding: Padding, dilation: Sizes, groups: int,
) -> Tensor:  # fmt: skip
    x, filters, offset = _operands(ndim, input, weight, bias)
    steps = steps_of("stride", stride, ndim, ())
    holes = steps_of("dilation", dilation, ndim, ())
    kernel = tuple(filters.shape[2:])
    pads = normalise_padding(padding, tuple(x.shape[2:]), kernel, steps, holes)
    flat = [number for pair in pads for number in pair]
    made = CONV(x, filters, offset, steps, flat, holes, whole_number("groups", groups))
    return _unbatched(made, input, ndim)


def _transpose(
    ndim: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes,
    output_padding: Sizes, groups: int, dilation: Sizes,
) -> Tensor:  # fmt: skip
    x, filters, offset = _operands(ndim, input, weight, bias)
    made = CONV_TRANSPOSE(
        x, filters, offset, steps_of("stride", stride, ndim, ()),
        per_axis("padding", padding, ndim), per_axis("output_padding", output_padding, ndim),
        whole_number("groups", groups), steps_of("dilation", dilation, ndim, ()),
    )  # fmt: skip
    return _unbatched(made, input, ndim)


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
    padding: Padding = 0, dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolve signals: `conv2d` with one spatial axis."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
    padding: Padding = 0, dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolve images, as ``torch.nn.functional.conv2d`` does.

    Parameters
    ----------
    input : tensor, shape (N, C, H, W) or (C, H, W)
        Images on the CPU, of any strides: float32, float64, float16 or bfloat16.
    weight : tensor, shape (K, C / groups, kh, kw)
        Filters, of the input's type.
    bias : tensor, shape (K,), optional
        Added to each output channel.
    stride, padding, dilation, groups
        As for `fastconv.conv2d`.

    Returns
    -------
    tensor, shape (N, K, H_out, W_out) or (K, H_out, W_out)
        In the input's memory order: channels_last stays so. Gradients pass to all operands, twice
        if need be. Under autocast operands are first brought to its lower type.

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        For operands that do not fit.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> x, weight = torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3, requires_grad=True)
    >>> y = fastconv.torch.conv2d(x, weight, stride=2, padding=1)
    >>> y.sum().backward()
    >>> y.shape, float(weight.grad[0, 0, 1, 1])
    (torch.Size([1, 4, 4, 4]), 16.0)
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
    padding: Padding = 0, dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolve volumes: `conv2d` with three spatial axes."""
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
    padding: Sizes = 0, output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """Transpose-convolve signals: `conv_transpose2d` with one spatial axis."""
    return _transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
    padding: Sizes = 0, output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """Transpose-convolve images, as ``torch.nn.functional.conv_transpose2d`` does.

    Parameters
    ----------
    input : tensor, shape (N, C, H, W) or (C, H, W)
        Images on the CPU, as for `conv2d`.
    weight : tensor, shape (C, K / groups, kh, kw)
        Filters, of the input's type.
    bias : tensor, shape (K,), optional
        Added to each output channel.
    stride, padding, output_padding, groups, dilation
        As for `fastconv.conv_transpose2d`.

    Returns
    -------
    tensor, shape (N, K, H_out, W_out) or (K, H_out, W_out)
        As of `conv2d`.

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        For operands that do not fit.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> x, weight = torch.ones(1, 3, 4, 4), torch.ones(3, 2, 2, 2)
    >>> fastconv.torch.conv_transpose2d(x, weight, stride=2).shape
    torch.Size([1, 2, 8, 8])
    """
    return _transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
    padding: Sizes = 0, output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """Transpose-convolve volumes: `conv_transpose2d` with three spatial axes."""
    return _transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows by a matrix, as ``torch.nn.functional.linear`` does.

    Parameters
    ----------
    input : tensor, shape (..., in_features)
        Rows, of any number of axes in front.
    weight : tensor, shape (out_features, in_features)
        Of the input's type.
    bias : tensor, shape (out_features,), optional
        Added to each row.

    Returns
    -------
    tensor, shape (..., out_features)

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        For operands that do not fit.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> fastconv.torch.linear(torch.ones(3), torch.ones(2, 3), torch.ones(2))
    tensor([4., 4.])
    """
    x, matrix, offset = in_lower_type(input, weight, bias)
    check_tensors(input=x, weight=matrix, bias=offset)
    if matrix.dim() != 2 or x.dim() < 1:
        raise ShapeError(
            f"weight: got shape {tuple(matrix.shape)} with an input of {tuple(x.shape)}, want "
            "(out_features, in_features) with (..., in_features)"
        )
    made: Any = LINEAR(x.unsqueeze(0) if x.dim() == 1 else x, matrix, offset)
    return made.squeeze(0) if x.dim() == 1 else made
