"""Transposed convolutions of arrays, with the signatures of ``torch.nn.functional``."""

from __future__ import annotations

from ..arrays import Array
from ..contract.arguments import Activation, Padding, Sizes
from ..functional import convolve
from .transposed_calls import CONV_TRANSPOSE

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


def conv_transpose1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    activation: Activation = None,
    residual: Array | None = None,
    out: Array | None = None,
    tune: bool = False,
) -> Array:
    """Convolve signals, transposed: `conv_transpose2d` with one spatial axis.

    Parameters
    ----------
    input : ndarray, shape (N, C, L) or (C, L)
        Signals.
    weight : ndarray, shape (C, K / groups, k)
        Filters.
    bias, stride, padding, output_padding, groups, dilation, activation, residual, out, tune
        As for `conv_transpose2d`.

    Returns
    -------
    ndarray, shape (N, K, L_out) or (K, L_out)

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[1.0, 2.0, 3.0]], np.float32)
    >>> fastconv.conv_transpose1d(x, np.ones((1, 1, 2), np.float32), stride=2)
    array([[1., 1., 2., 2., 3., 3.]], dtype=float32)
    """
    arguments = (stride, padding, output_padding, groups, dilation)
    return convolve(
        CONV_TRANSPOSE, 1, input, weight, bias, arguments, activation, residual, out, tune
    )


def conv_transpose2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    activation: Activation = None,
    residual: Array | None = None,
    out: Array | None = None,
    tune: bool = False,
) -> Array:
    """Convolve images, transposed: each pixel of the input adds a filter to the output.

    It is the gradient of `conv2d` with respect to its input, and makes images larger by its stride:
    ``out[f - padding] += weight[t] * input[i]`` for ``f = stride * i + dilation * t``.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
        Images, of any strides. float32, float64, float16 or bfloat16.
    weight : ndarray, shape (C, K / groups, kh, kw)
        Filters, of the input's dtype.
    bias : ndarray, shape (K,), optional
        Added to each output channel.
    stride : int or tuple of int
        Output pixels from one input pixel to the next.
    padding : int or tuple
        Output pixels that are cropped at each border: one number, one an axis, or ``((low, high),
        ...)``.
    output_padding : int or tuple of int
        Output pixels more at the high side; below the stride or the dilation.
    groups : int
        Independent groups of channels.
    dilation : int or tuple of int
        Step between the taps of the kernel, in output pixels.
    activation, residual, out, tune
        As for `fastconv.conv2d`.

    Returns
    -------
    ndarray, shape (N, K, H_out, W_out) or (K, H_out, W_out)
        ``H_out = (H - 1) * stride - 2 * padding + dilation * (kh - 1) + output_padding + 1``;
        `out` where it was given.

    Raises
    ------
    ShapeError
        For sizes, strides, pads or groups that do not fit.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Notes
    -----
    Outputs that leave the same remainder modulo the stride meet the same taps. Each such phase is a
    dense convolution of stride 1, by the kernel that is fastest for it: no zeros are put between
    pixels, and no sum is scattered, so results are the same bits for any number of threads.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 8, 7, 7), np.float32)
    >>> w = np.ones((8, 3, 4, 4), np.float32)
    >>> fastconv.conv_transpose2d(x, w, stride=2, padding=1).shape
    (1, 3, 14, 14)
    """
    arguments = (stride, padding, output_padding, groups, dilation)
    return convolve(
        CONV_TRANSPOSE, 2, input, weight, bias, arguments, activation, residual, out, tune
    )


def conv_transpose3d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    activation: Activation = None,
    residual: Array | None = None,
    out: Array | None = None,
    tune: bool = False,
) -> Array:
    """Convolve volumes, transposed: `conv_transpose2d` with three spatial axes.

    Parameters
    ----------
    input : ndarray, shape (N, C, D, H, W) or (C, D, H, W)
        Volumes.
    weight : ndarray, shape (C, K / groups, kd, kh, kw)
        Filters.
    bias, stride, padding, output_padding, groups, dilation, activation, residual, out, tune
        As for `conv_transpose2d`.

    Returns
    -------
    ndarray, shape (N, K, D_out, H_out, W_out) or (K, D_out, H_out, W_out)

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 4, 3, 3, 3), np.float32)
    >>> fastconv.conv_transpose3d(x, np.ones((4, 2, 2, 2, 2), np.float32), stride=2).shape
    (1, 2, 6, 6, 6)
    """
    arguments = (stride, padding, output_padding, groups, dilation)
    return convolve(
        CONV_TRANSPOSE, 3, input, weight, bias, arguments, activation, residual, out, tune
    )
