"""Gradients of `fastconv.deform_conv2d`, an operand each.

The gradient for a sample is a product of the weight and the gradient for the output. Those for
offsets and mask sum it over channels; that for the input spreads it over four pixels, and a task
owns all pixels of some channels, so that nothing is added to by two. All are the same bits for any
number of threads and in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, memory_layout
from ..contract.arguments import Sizes, whole_number
from ..contract.deform_problem import DeformProblem
from ..contract.errors import DTypeError, ShapeError
from ..ops.array_calls import ArrayOp, compute
from ..ops.deform import make_deform_problem
from .operands import check_gradient, sum_channels

__all__ = [
    "deform_conv2d_bias",
    "deform_conv2d_input",
    "deform_conv2d_mask",
    "deform_conv2d_offset",
    "deform_conv2d_weight",
]


class _Shaped:
    """What stands for an operand of which a gradient needs the shape alone."""

    def __init__(self, shape: tuple[int, ...], like: Array) -> None:
        self.shape, self.ndim, self.dtype = shape, len(shape), like.dtype
        self.itemsize, self.strides = like.itemsize, (like.itemsize,) * len(shape)


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    """Return the shape of an operand that a gradient is for."""
    if not isinstance(value, (tuple, list)) or len(value) != 4:
        of = name.removesuffix("_size")
        raise ShapeError(f"{name}: got {value!r}, want 4 whole numbers, say {of}.shape")
    return tuple(whole_number(name, size) for size in value)


def _check_output(problem: DeformProblem, grad_output: Array) -> DeformProblem:
    """Raise where a gradient has not the shape of its problem's output."""
    wanted = (problem.batch, problem.out_channels, *problem.out_size)
    if grad_output.shape != wanted:
        raise ShapeError(f"grad_output: got shape {grad_output.shape}, want {wanted}")
    return problem.with_(layout=memory_layout(grad_output))


def _input_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> DeformProblem:
    (grad_output, offset, weight, mask), (size, *window) = arrays, arguments
    x = _Shaped(_sizes("input_size", size), grad_output)
    operands = (x, offset, weight, None, mask)
    problem = make_deform_problem(operands, (*window, None), "deform_conv_grad_input")
    return _check_output(problem, grad_output)


def _offset_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> DeformProblem:
    grad_output, x, offset, weight, mask = arrays
    operands = (x, offset, weight, None, mask)
    problem = make_deform_problem(operands, (*arguments, None), "deform_conv_grad_offset")
    return _check_output(problem, grad_output)


def _weight_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> DeformProblem:
    (grad_output, x, offset, mask), (size, *window) = arrays, arguments
    weight = _Shaped(_sizes("weight_size", size), grad_output)
    operands = (x, offset, weight, None, mask)
    problem = make_deform_problem(operands, (*window, None), "deform_conv_grad_weight")
    return _check_output(problem, grad_output)


_INPUT = ArrayOp(
    "the gradient of deform_conv2d for its input", ("grad_output", "offset", "weight", "mask"),
    _input_problem, optional=("mask",),
    names=(("input", "input_size"), ("in_size", "input_size")),
)  # fmt: skip
_OFFSET = ArrayOp(
    "the gradient of deform_conv2d for its offset",
    ("grad_output", "input", "offset", "weight", "mask"), _offset_problem, optional=("mask",),
)  # fmt: skip
_WEIGHT = ArrayOp(
    "the gradient of deform_conv2d for its weight", ("grad_output", "input", "offset", "mask"),
    _weight_problem, optional=("mask",),
    names=(("in_size", "input"), ("weight", "weight_size")),
)  # fmt: skip


def deform_conv2d_input(
    input_size: Sequence[int],
    offset: Array,
    weight: Array,
    grad_output: Array,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    mask: Array | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `fastconv.deform_conv2d` for its input.

    Parameters
    ----------
    input_size : tuple of int
        Shape ``(N, C, H, W)`` of the input.
    offset, weight, mask, stride, padding, dilation
        Of the convolution, as for `fastconv.deform_conv2d`, with a batch axis.
    grad_output : ndarray, shape of the output
        Gradient for the output, of the weight's dtype and any strides.
    out : ndarray, shape (N, C, H, W), optional
        Where the gradient is written.

    Returns
    -------
    ndarray, shape (N, C, H, W)
        The halves are summed in float32 and rounded once.

    Raises
    ------
    ShapeError
        Where no convolution has these sizes.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> offset = np.full((1, 2, 1, 2), 0.5, np.float32)
    >>> weight, grad = np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 2), np.float32)
    >>> fastconv.grad.deform_conv2d_input((1, 1, 1, 2), offset, weight, grad)
    array([[[[0.25, 0.5 ]]]], dtype=float32)
    """
    arguments = (_fixed(input_size), stride, padding, dilation)
    return compute(_INPUT, (grad_output, offset, weight, mask), arguments, out)


def deform_conv2d_offset(
    input: Array,
    offset: Array,
    weight: Array,
    grad_output: Array,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    mask: Array | None = None,
    *,
    out: Array | None = None,
) -> Any:
    """Return the gradient of `fastconv.deform_conv2d` for its offset, and for its mask.

    Parameters
    ----------
    input, offset, weight, mask, stride, padding, dilation
        Of the convolution, as for `fastconv.deform_conv2d`, with a batch axis.
    grad_output : ndarray, shape of the output
        Gradient for the output, of the input's dtype and any strides.
    out : ndarray, shape of the offset, optional
        Where the gradient for the offset is written.

    Returns
    -------
    ndarray, or a pair of them
        The gradient for the offset; with a mask, that and the one for the mask: both are made of
        the same sums. At a whole place, where interpolation has a kink, the slope is that of the
        pixels below and to the right.

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        As for `deform_conv2d_input`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[[[1, 2, 4]]]], np.float32)
    >>> offset = np.zeros((1, 2, 1, 3), np.float32)
    >>> weight, grad = np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 3), np.float32)
    >>> fastconv.grad.deform_conv2d_offset(x, offset, weight, grad)[0, 1]
    array([[ 1.,  2., -4.]], dtype=float32)
    """
    arrays = (grad_output, input, offset, weight, mask)
    return compute(_OFFSET, arrays, (stride, padding, dilation), out)


def deform_conv2d_mask(
    input: Array,
    offset: Array,
    weight: Array,
    grad_output: Array,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    *,
    mask: Array,
) -> Array:
    """Return the gradient of `fastconv.deform_conv2d` for its mask; see `deform_conv2d_offset`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, offset = np.full((1, 1, 1, 2), 3, np.float32), np.zeros((1, 2, 1, 2), np.float32)
    >>> weight, grad = np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 2), np.float32)
    >>> fastconv.grad.deform_conv2d_mask(x, offset, weight, grad, mask=grad)
    array([[[[3., 3.]]]], dtype=float32)
    """
    if mask is None:
        raise DTypeError("mask: got None, want an array: without one there is no gradient for it")
    made = deform_conv2d_offset(input, offset, weight, grad_output, stride, padding, dilation, mask)
    of_mask: Array = made[1]
    return of_mask


def deform_conv2d_weight(
    input: Array,
    offset: Array,
    weight_size: Sequence[int],
    grad_output: Array,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    mask: Array | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return the gradient of `fastconv.deform_conv2d` for its weight.

    Parameters
    ----------
    input, offset, mask, stride, padding, dilation
        Of the convolution, as for `fastconv.deform_conv2d`, with a batch axis.
    weight_size : tuple of int
        Shape ``(K, C / groups, kh, kw)`` of the weight.
    grad_output : ndarray, shape of the output
        Gradient for the output, of the input's dtype and any strides.
    out : ndarray, shape of the weight, optional
        Where the gradient is written.

    Returns
    -------
    ndarray, shape (K, C / groups, kh, kw)

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        As for `deform_conv2d_input`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, offset = np.ones((1, 1, 4, 4), np.float32), np.zeros((1, 2, 4, 4), np.float32)
    >>> grad = np.ones((1, 3, 4, 4), np.float32)
    >>> fastconv.grad.deform_conv2d_weight(x, offset, (3, 1, 1, 1), grad).ravel()
    array([16., 16., 16.], dtype=float32)
    """
    arguments = (_fixed(weight_size), stride, padding, dilation)
    made: Array = compute(_WEIGHT, (grad_output, input, offset, mask), arguments, out)
    return made


def deform_conv2d_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.deform_conv2d` for its bias: sums over images and pixels.

    Parameters
    ----------
    grad_output : ndarray, shape (N, K, H_out, W_out)
        Gradient for the output.

    Returns
    -------
    ndarray, shape (K,)
        Summed in float64 and rounded once.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.deform_conv2d_bias(np.ones((2, 3, 4, 4), np.float32))
    array([32., 32., 32.], dtype=float32)
    """
    return sum_channels(check_gradient("grad_output", grad_output, 2))


def _fixed(size: Any) -> Any:
    """Return a shape as a tuple, which a key of prepared calls may hold."""
    if isinstance(size, np.ndarray) and size.ndim == 1:
        return tuple(size.tolist())
    return tuple(size) if isinstance(size, list) else size
