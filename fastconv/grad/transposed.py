"""Gradients of transposed convolutions.

A transposed convolution is a convolution's gradient for its input. So its own gradient for the
input is that convolution of the output's gradient, and the one for its weight the convolution's for
its weight, input and output's gradient having changed places. All are the same bits for any number
of threads and in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, dtype_name, memory_layout
from ..calls import CONV
from ..companions import check_groups, check_weight
from ..contract.arguments import Padding, Sizes
from ..contract.errors import ShapeError, renamed
from ..contract.padding import Pads
from ..contract.transposed_problem import TransposedProblem
from ..dispatch import steady_choice
from ..functional import convolve
from ..ops.transposed_calls import CONV_TRANSPOSE
from .conv import conv1d_weight, conv2d_weight, conv3d_weight
from .operands import check_gradient, check_operands, check_shape, sum_channels

__all__ = [
    "conv_transpose1d_bias",
    "conv_transpose1d_input",
    "conv_transpose1d_weight",
    "conv_transpose2d_bias",
    "conv_transpose2d_input",
    "conv_transpose2d_weight",
    "conv_transpose3d_bias",
    "conv_transpose3d_input",
    "conv_transpose3d_weight",
]

_WEIGHT = {1: conv1d_weight, 2: conv2d_weight, 3: conv3d_weight}


def _problem(
    ndim: int, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], grads: Array,
    arguments: tuple[Any, ...],
) -> TransposedProblem:  # fmt: skip
    """Return the operator's problem, whose output the gradient must be shaped as."""
    stride, padding, output_padding, groups, dilation = CONV_TRANSPOSE.canonical(ndim, arguments)
    if groups < 1 or weight_shape[0] != x_shape[1] or x_shape[1] % groups:
        raise ShapeError(
            f"groups: got {groups} with an input of {x_shape[1]} channels and a weight of "
            f"{weight_shape[0]} input channels, want a divisor of both"
        )
    problem = TransposedProblem(
        x_shape[0], x_shape[1], weight_shape[1] * groups, x_shape[2:], weight_shape[2:], stride,
        padding, output_padding, dilation, groups, dtype_name("grad_output", grads.dtype),
        memory_layout(grads),
    )  # fmt: skip
    if grads.shape != problem.out_shape:
        raise ShapeError(
            f"grad_output: got shape {grads.shape}, want {problem.out_shape}, the output of an "
            f"input of shape {x_shape} and a weight of shape {weight_shape}"
        )
    return problem


def _convolved(problem: TransposedProblem, grads: Array) -> tuple[Array | None, Pads]:
    """Return what the convolution reads that has an output for each sample, and its padding.

    Output padding undoes what is cropped behind; what it adds beyond is reached by no sample. The
    array is None where none is left.
    """
    pads, places = [], [slice(None), slice(None)]
    along = zip(problem.padding, problem.output_padding, problem.out_size, strict=True)
    for (low, high), extra, size in along:
        pads.append((low, max(0, high - extra)))
        places.append(slice(0, size - max(0, extra - high)))
    if min(place.stop for place in places[2:]) < 1:
        return None, tuple(pads)
    return grads[tuple(places)], tuple(pads)


def _input_gradient(
    ndim: int, input_size: Sequence[int], weight: Array, grad_output: Array,
    arguments: tuple[Any, ...],
) -> Array:  # fmt: skip
    weight, grads = check_operands(ndim, "weight", weight, grad_output)
    check_weight(weight, ndim, "input channels, output channels / groups, kernel size")
    check_groups(arguments[3], weight, "input")
    size = check_shape("input_size", input_size, ndim)
    with renamed({"in_size": "input_size"}):
        problem = _problem(ndim, size, weight.shape, grads, arguments)
    read, pads = _convolved(problem, grads)
    if read is None:
        return np.zeros(size, grads.dtype)
    dense = (problem.stride, pads, problem.dilation, problem.groups)
    with steady_choice():
        return convolve(CONV, ndim, read, weight, None, dense, None, None, None, False)


def _weight_gradient(
    ndim: int, x: Array, weight_size: Sequence[int], grad_output: Array, arguments: tuple[Any, ...]
) -> Array:
    x, grads = check_operands(ndim, "input", x, grad_output)
    size = check_shape("weight_size", weight_size, ndim)
    with renamed({"in_size": "input", "weight": "weight_size"}):
        problem = _problem(ndim, x.shape, size, grads, arguments)
    read, pads = _convolved(problem, grads)
    if read is None:
        return np.zeros(size, grads.dtype)
    return _WEIGHT[ndim](read, size, x, problem.stride, pads, problem.dilation, problem.groups)


def conv_transpose1d_input(
    input_size: Sequence[int],
    weight: Array,
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Array:
    """Return the gradient of `fastconv.conv_transpose1d` for its input; see that of two axes.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> weight, grad = np.ones((1, 1, 3), np.float32), np.ones((1, 1, 7), np.float32)
    >>> fastconv.grad.conv_transpose1d_input((1, 1, 3), weight, grad, stride=2)
    array([[[3., 3., 3.]]], dtype=float32)
    """
    arguments = (stride, padding, output_padding, groups, dilation)
    return _input_gradient(1, input_size, weight, grad_output, arguments)


def conv_transpose1d_weight(
    input: Array,
    weight_size: Sequence[int],
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Array:
    """Return the gradient of `fastconv.conv_transpose1d` for its weight; see that of two axes.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, grad = np.ones((1, 1, 3), np.float32), np.arange(7, dtype=np.float32).reshape(1, 1, 7)
    >>> fastconv.grad.conv_transpose1d_weight(x, (1, 1, 3), grad, stride=2)
    array([[[ 6.,  9., 12.]]], dtype=float32)
    """
    arguments = (stride, padding, output_padding, groups, dilation)
    return _weight_gradient(1, input, weight_size, grad_output, arguments)


def conv_transpose1d_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.conv_transpose1d` for its bias: that of `conv1d_bias`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.conv_transpose1d_bias(np.ones((2, 2, 6), np.float32))
    array([12., 12.], dtype=float32)
    """
    return sum_channels(check_gradient("grad_output", grad_output, 1))


def conv_transpose2d_input(
    input_size: Sequence[int],
    weight: Array,
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Array:
    """Return the gradient of `fastconv.conv_transpose2d` for its input: a convolution.

    Parameters
    ----------
    input_size : tuple of int
        Shape ``(N, C, H, W)`` of the input.
    weight : ndarray, shape (C, K / groups, kh, kw)
        Filters.
    grad_output : ndarray, shape of the output
        Gradient for the output, of the weight's dtype and any strides.
    stride, padding, output_padding, groups, dilation
        As for `fastconv.conv_transpose2d`.

    Returns
    -------
    ndarray, shape (N, C, H, W)

    Raises
    ------
    ShapeError
        Where no transposed convolution has these sizes.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> weight, grad = np.ones((8, 3, 4, 4), np.float32), np.ones((1, 3, 14, 14), np.float32)
    >>> made = fastconv.grad.conv_transpose2d_input((1, 8, 7, 7), weight, grad, stride=2, padding=1)
    >>> made.shape, float(made[0, 0, 3, 3])
    ((1, 8, 7, 7), 48.0)
    """
    arguments = (stride, padding, output_padding, groups, dilation)
    return _input_gradient(2, input_size, weight, grad_output, arguments)


def conv_transpose2d_weight(
    input: Array,
    weight_size: Sequence[int],
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Array:
    """Return the gradient of `fastconv.conv_transpose2d` for its weight: a product over pixels.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W)
        What it was given, of any strides.
    weight_size : tuple of int
        Shape ``(C, K / groups, kh, kw)`` of the weight.
    grad_output, stride, padding, output_padding, groups, dilation
        As for `conv_transpose2d_input`.

    Returns
    -------
    ndarray, shape (C, K / groups, kh, kw)
        The halves are summed in float32 and rounded once.

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        As for `conv_transpose2d_input`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, grad = np.ones((1, 8, 7, 7), np.float32), np.ones((1, 3, 14, 14), np.float32)
    >>> size = (8, 3, 2, 2)
    >>> fastconv.grad.conv_transpose2d_weight(x, size, grad, stride=2)[0, 0]
    array([[49., 49.],
           [49., 49.]], dtype=float32)
    """
    arguments = (stride, padding, output_padding, groups, dilation)
    return _weight_gradient(2, input, weight_size, grad_output, arguments)


def conv_transpose2d_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.conv_transpose2d` for its bias: that of `conv2d_bias`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.conv_transpose2d_bias(np.ones((1, 2, 3, 4), np.float32))
    array([12., 12.], dtype=float32)
    """
    return sum_channels(check_gradient("grad_output", grad_output, 2))


def conv_transpose3d_input(
    input_size: Sequence[int],
    weight: Array,
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Array:
    """Return the gradient of `fastconv.conv_transpose3d` for its input; see that of two axes.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> weight, grad = np.ones((4, 2, 2, 2, 2), np.float32), np.ones((1, 2, 6, 6, 6), np.float32)
    >>> fastconv.grad.conv_transpose3d_input((1, 4, 3, 3, 3), weight, grad, stride=2).shape
    (1, 4, 3, 3, 3)
    """
    arguments = (stride, padding, output_padding, groups, dilation)
    return _input_gradient(3, input_size, weight, grad_output, arguments)


def conv_transpose3d_weight(
    input: Array,
    weight_size: Sequence[int],
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Array:
    """Return the gradient of `fastconv.conv_transpose3d` for its weight; see that of two axes.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, grad = np.ones((1, 4, 3, 3, 3), np.float32), np.ones((1, 2, 6, 6, 6), np.float32)
    >>> fastconv.grad.conv_transpose3d_weight(x, (4, 2, 2, 2, 2), grad, stride=2).shape
    (4, 2, 2, 2, 2)
    """
    arguments = (stride, padding, output_padding, groups, dilation)
    return _weight_gradient(3, input, weight_size, grad_output, arguments)


def conv_transpose3d_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.conv_transpose3d` for its bias: that of `conv3d_bias`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.conv_transpose3d_bias(np.ones((1, 2, 2, 2, 3), np.float32))
    array([12., 12.], dtype=float32)
    """
    return sum_channels(check_gradient("grad_output", grad_output, 3))
