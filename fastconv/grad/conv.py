"""Gradients of convolutions, with the signatures of ``torch.nn.grad``.

The gradient for the input is a transposed convolution, the one for the weight a matrix product over
pixels, and that for a bias a sum over them. All are the same bits for any number of threads and in
every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array, dtype_name, empty_output, memory_layout, normal_strides, plain
from ..companions import check_groups, check_weight
from ..contract.arguments import Padding, PaddingMode, Sizes, canonical_arguments, is_plain
from ..contract.boundary_problem import NO_BOUNDARY, Boundary, BoundaryProblem, canonical_mode
from ..contract.errors import ShapeError, renamed
from ..contract.problem import ConvProblem
from ..contract.spec import Binding, ConvPlan, dense_strides
from ..contract.transposed_problem import input_gradient
from ..dense_problem import problem_of_shapes
from ..dispatch import make_plan, settings, steady_choice
from ..ops.transposed import conv_transpose1d, conv_transpose2d, conv_transpose3d
from .boundary import gather_samples, pad_input, padded_shape
from .operands import check_gradient, check_operands, check_shape, sum_channels

__all__ = [
    "conv1d_bias",
    "conv1d_input",
    "conv1d_weight",
    "conv2d_bias",
    "conv2d_input",
    "conv2d_weight",
    "conv3d_bias",
    "conv3d_input",
    "conv3d_weight",
]

_TRANSPOSED = {1: conv_transpose1d, 2: conv_transpose2d, 3: conv_transpose3d}


def _problem(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], grad_shape: tuple[int, ...],
    arguments: tuple[Any, Any, Any, Any], op: str, dtype: str, layout: str,
) -> ConvProblem:  # fmt: skip
    """Return the gradient's problem, its sizes checked; the arguments are canonical."""
    groups = arguments[3]
    if groups < 1 or weight_shape[1] * groups != x_shape[1]:
        raise ShapeError(
            f"groups: got {groups} with an input of {x_shape[1]} channels and a weight of "
            f"{weight_shape[1]} input channels a group, want as many groups as make up the input"
        )
    problem = problem_of_shapes(x_shape, weight_shape, arguments, dtype, layout)
    if grad_shape != problem.out_shape:
        raise ShapeError(
            f"grad_output: got shape {grad_shape}, want {problem.out_shape}, the output of an "
            f"input of shape {x_shape} and a weight of shape {weight_shape}"
        )
    return problem.with_(op=op)


#: A gradient whose arguments have been checked: of an operand and the gradient for the output.
_Call = Callable[[Array, Array], Array]

_calls: dict[tuple[Any, ...], _Call] = {}
_MOST_CALLS = 1024


def _gradient(
    prepare: Callable[..., _Call], ndim: int, size: Any, array: Any, grad_output: Any,
    arguments: tuple[Any, Any, Any, Any], padding_mode: Any,
) -> Array:  # fmt: skip
    """Compute a gradient; what was prepared for equal shapes, strides and arguments is kept."""
    key: tuple[Any, ...] | None = None
    boundary = canonical_mode(padding_mode)
    if type(array) is np.ndarray is type(grad_output) and is_plain((size, *arguments)):
        key = (
            prepare, ndim, size, array.shape, array.strides, array.dtype, grad_output.shape,
            grad_output.strides, grad_output.dtype, arguments, boundary, settings(),
        )  # fmt: skip
        call = _calls.get(key)
        if call is not None:
            return call(array, grad_output)
    call = prepare(ndim, size, array, grad_output, arguments, boundary)
    if key is not None:
        if len(_calls) >= _MOST_CALLS:
            _calls.clear()
        _calls[key] = call
    return call(plain(array), plain(grad_output))


def _unpadded(arguments: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
    """Return the arguments of the convolution of an input with its boundary."""
    stride, _, dilation, groups = arguments
    return stride, 0, dilation, groups


def _input_call(
    ndim: int, input_size: Sequence[int], weight: Array, grad_output: Array,
    arguments: tuple[Any, Any, Any, Any], boundary: Boundary,
) -> _Call:  # fmt: skip
    weight, grad_output = check_operands(ndim, "weight", weight, grad_output)
    check_weight(weight, ndim, "output channels, input channels / groups, kernel size")
    check_groups(arguments[3], weight)
    size = check_shape("input_size", input_size, ndim)
    told = canonical_arguments(ndim, arguments)
    dtype = dtype_name("grad_output", grad_output.dtype)
    shapes = size, weight.shape, grad_output.shape
    with renamed({"in_size": "input_size"}):
        problem = _problem(*shapes, told, "conv", dtype, "channels_first")
    if boundary != NO_BOUNDARY:
        of = BoundaryProblem(problem, *boundary)
        padded = padded_shape(of)
        unpadded = _unpadded(told)
        inner = _input_call(ndim, padded, weight, grad_output, unpadded, NO_BOUNDARY)
        return lambda weight, grad: gather_samples(of, inner(weight, grad))
    transposed = input_gradient(problem)
    function, sizes = _TRANSPOSED[ndim], (
        transposed.stride, transposed.padding, transposed.output_padding, transposed.groups,
        transposed.dilation,
    )  # fmt: skip
    return lambda weight, grad: function(grad, weight, None, *sizes)


def _weight_call(
    ndim: int, weight_size: Sequence[int], x: Array, grad_output: Array,
    arguments: tuple[Any, Any, Any, Any], boundary: Boundary,
) -> _Call:  # fmt: skip
    x, grad_output = check_operands(ndim, "input", x, grad_output)
    size = check_shape("weight_size", weight_size, ndim)
    told = canonical_arguments(ndim, arguments)
    where = "conv_weight_grad", dtype_name("grad_output", grad_output.dtype), memory_layout(x)
    with renamed({"in_size": "input", "weight": "weight_size"}):
        problem = _problem(x.shape, size, grad_output.shape, told, *where)
    if boundary != NO_BOUNDARY:
        of = BoundaryProblem(problem.with_(op="conv"), *boundary)
        padded = empty_output(x, padded_shape(of), memory_layout(x))
        unpadded = _unpadded(told)
        inner = _weight_call(ndim, size, padded, grad_output, unpadded, NO_BOUNDARY)
        return lambda x, grad: inner(pad_input(of, x), grad)
    if problem.batch == 0:
        return lambda x, grad: np.zeros(size, x.dtype)
    weight_strides = dense_strides(size, x.dtype.itemsize)
    binding = Binding(normal_strides(x), weight_strides, normal_strides(grad_output))
    with steady_choice():
        plan: ConvPlan = make_plan(problem, binding)[1]

    def run(x: Array, grad: Array) -> Array:
        out = empty_output(x, size, "channels_first")
        plan.run(x, grad, None, None, out)
        return out

    return run


def conv1d_input(
    input_size: Sequence[int],
    weight: Array,
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
) -> Array:
    """Return the gradient of `fastconv.conv1d` for its input; see `conv2d_input`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> weight, grad = np.ones((1, 1, 3), np.float32), np.ones((1, 1, 4), np.float32)
    >>> fastconv.grad.conv1d_input((1, 1, 6), weight, grad)
    array([[[1., 2., 3., 3., 2., 1.]]], dtype=float32)
    """
    arguments = (stride, padding, dilation, groups)
    return _gradient(_input_call, 1, input_size, weight, grad_output, arguments, padding_mode)


def conv2d_input(
    input_size: Sequence[int],
    weight: Array,
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
) -> Array:
    """Return the gradient of `fastconv.conv2d` for its input: a transposed convolution.

    Parameters
    ----------
    input_size : tuple of int
        Shape ``(N, C, H, W)`` of the input.
    weight : ndarray, shape (K, C / groups, kh, kw)
        Filters.
    grad_output : ndarray, shape of the output
        Gradient for the convolution's output, of the weight's dtype and any strides.
    stride, padding, dilation, groups, padding_mode
        Of the convolution, as for `fastconv.conv2d`.

    Returns
    -------
    ndarray, shape (N, C, H, W)

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
    >>> weight, grad = np.ones((8, 3, 3, 3), np.float32), np.ones((1, 8, 5, 5), np.float32)
    >>> fastconv.grad.conv2d_input((1, 3, 10, 9), weight, grad, stride=2, padding=1).shape
    (1, 3, 10, 9)
    """
    arguments = (stride, padding, dilation, groups)
    return _gradient(_input_call, 2, input_size, weight, grad_output, arguments, padding_mode)


def conv3d_input(
    input_size: Sequence[int],
    weight: Array,
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
) -> Array:
    """Return the gradient of `fastconv.conv3d` for its input; see `conv2d_input`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> weight, grad = np.ones((2, 1, 2, 2, 2), np.float32), np.ones((1, 2, 3, 3, 3), np.float32)
    >>> fastconv.grad.conv3d_input((1, 1, 4, 4, 4), weight, grad).shape
    (1, 1, 4, 4, 4)
    """
    arguments = (stride, padding, dilation, groups)
    return _gradient(_input_call, 3, input_size, weight, grad_output, arguments, padding_mode)


def conv1d_weight(
    input: Array,
    weight_size: Sequence[int],
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
) -> Array:
    """Return the gradient of `fastconv.conv1d` for its weight; see `conv2d_weight`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(6, dtype=np.float32).reshape(1, 1, 6)
    >>> fastconv.grad.conv1d_weight(x, (1, 1, 3), np.ones((1, 1, 4), np.float32))
    array([[[ 6., 10., 14.]]], dtype=float32)
    """
    arguments = (stride, padding, dilation, groups)
    return _gradient(_weight_call, 1, weight_size, input, grad_output, arguments, padding_mode)


def conv2d_weight(
    input: Array,
    weight_size: Sequence[int],
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
) -> Array:
    """Return the gradient of `fastconv.conv2d` for its weight: a matrix product over pixels.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W)
        The convolution's input, of any strides.
    weight_size : tuple of int
        Shape ``(K, C / groups, kh, kw)`` of the weight.
    grad_output : ndarray, shape of the output
        Gradient for the convolution's output, of the input's dtype and any strides.
    stride, padding, dilation, groups, padding_mode
        Of the convolution, as for `fastconv.conv2d`.

    Returns
    -------
    ndarray, shape (K, C / groups, kh, kw)
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
    >>> x, grad = np.ones((1, 3, 9, 9), np.float32), np.ones((1, 8, 5, 5), np.float32)
    >>> fastconv.grad.conv2d_weight(x, (8, 3, 3, 3), grad, stride=2, padding=1)[0, 0]
    array([[16., 20., 16.],
           [20., 25., 20.],
           [16., 20., 16.]], dtype=float32)
    """
    arguments = (stride, padding, dilation, groups)
    return _gradient(_weight_call, 2, weight_size, input, grad_output, arguments, padding_mode)


def conv3d_weight(
    input: Array,
    weight_size: Sequence[int],
    grad_output: Array,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
) -> Array:
    """Return the gradient of `fastconv.conv3d` for its weight; see `conv2d_weight`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, grad = np.ones((1, 1, 4, 4, 4), np.float32), np.ones((1, 2, 3, 3, 3), np.float32)
    >>> fastconv.grad.conv3d_weight(x, (2, 1, 2, 2, 2), grad).shape
    (2, 1, 2, 2, 2)
    """
    arguments = (stride, padding, dilation, groups)
    return _gradient(_weight_call, 3, weight_size, input, grad_output, arguments, padding_mode)


def conv1d_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.conv1d` for its bias; see `conv2d_bias`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.conv1d_bias(np.ones((2, 3, 4), np.float32))
    array([8., 8., 8.], dtype=float32)
    """
    return sum_channels(check_gradient("grad_output", grad_output, 1))


def conv2d_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.conv2d` for its bias: sums over images and pixels.

    Parameters
    ----------
    grad_output : ndarray, shape (N, K, H_out, W_out)
        Gradient for the output, of any strides.

    Returns
    -------
    ndarray, shape (K,)
        Summed in float64 and rounded once.

    Raises
    ------
    ShapeError
        For another number of axes.
    DTypeError
        For unsupported element types.
    DeviceError
        For arrays on a GPU.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.conv2d_bias(np.ones((2, 3, 4, 4), np.float32))
    array([32., 32., 32.], dtype=float32)
    """
    return sum_channels(check_gradient("grad_output", grad_output, 2))


def conv3d_bias(grad_output: Array) -> Array:
    """Return the gradient of `fastconv.conv3d` for its bias; see `conv2d_bias`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.conv3d_bias(np.ones((1, 2, 3, 3, 3), np.float32))
    array([27., 27.], dtype=float32)
    """
    return sum_channels(check_gradient("grad_output", grad_output, 3))
