"""Two convolutions in a row as one call: depthwise separable ones, and any pair.

The second reads what the first one has just made, from a cache: an image is made at once where it
is small, and band by band of rows where it is large.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, is_masked, plain
from ..contract.arguments import Activation, Padding, Sizes
from ..tensors import holds_tensors
from .pair_calls import compute_pair
from .pair_checks import PAIR, SEPARABLE
from .pair_plan import PairOperands

__all__ = ["conv2d_pair", "pointwise_filters", "separable_conv2d"]

#: Stride, padding, dilation and groups of a convolution of a single tap.
POINTWISE = (1, 0, 1, 1)


def pointwise_filters(weight: Any) -> Any:
    """Return a matrix as filters of one tap, anything else as it is."""
    if holds_tensors(weight):
        return weight[:, :, None, None] if weight.ndim == 2 else weight
    if not isinstance(weight, np.ndarray) or is_masked(weight):
        return weight
    matrix = plain(weight)
    return matrix[:, :, None, None] if matrix.ndim == 2 else weight


def separable_conv2d(
    input: Array,
    depthwise_weight: Array,
    pointwise_weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    *,
    depthwise_bias: Array | None = None,
    depthwise_activation: Activation = None,
    activation: Activation = None,
    residual: Array | None = None,
    out: Array | None = None,
    tune: bool = False,
) -> Array:
    """Convolve images by a depthwise separable convolution: each channel, then across channels.

    ``conv2d(conv2d(input, depthwise_weight, ..., groups=C), pointwise_weight, ...)`` in one call,
    as MobileNet, Xception and EfficientNet have it.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
        Images, of any strides. float32, float64, float16 or bfloat16.
    depthwise_weight : ndarray, shape (C * m, 1, kh, kw)
        Filters of each channel, of the input's dtype; those of a channel lie together.
    pointwise_weight : ndarray, shape (K, C * m) or (K, C * m, 1, 1)
        How the channels that these make are mixed.
    bias : ndarray, shape (K,), optional
        Added to each output channel.
    stride, padding, dilation : int or tuple
        Of the depthwise convolution, as for `fastconv.conv2d`.
    depthwise_bias : ndarray, shape (C * m,), optional
        Added to each channel between the two.
    depthwise_activation, activation : str or (str, float), optional
        After the depthwise convolution and after all, as for `fastconv.conv2d`.
    residual : ndarray, shape of the output, optional
        Added before the last activation.
    out, tune
        As for `fastconv.conv2d`.

    Returns
    -------
    ndarray, shape (N, K, H_out, W_out) or (K, H_out, W_out)
        `out` where it was given.

    Raises
    ------
    ShapeError
        For sizes, strides or pads that do not fit.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Notes
    -----
    What lies between the two is of the input's dtype: halves are rounded there, as two calls would
    do. NaN, infinities and denormal numbers are treated as by `fastconv.conv2d`. The bits are the
    same for any number of threads. TensorFlow's weights are ``(kh, kw, C, m)`` and ``(1, 1, C * m,
    K)``: give ``w.transpose(2, 3, 0, 1).reshape(-1, 1, kh, kw)`` and ``w[0, 0].T``. Gradients are
    those of two convolutions, `fastconv.grad.conv2d_input` and `conv2d_weight`.

    After L. Sifre and S. Mallat, "Rigid-motion scattering for texture classification" (2014),
    arXiv:1403.1687, and F. Chollet, "Xception" (2016), arXiv:1610.02357.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 8, 14, 14), np.float32)
    >>> depthwise, pointwise = np.ones((8, 1, 3, 3), np.float32), np.ones((16, 8), np.float32)
    >>> y = fastconv.separable_conv2d(
    ...     x, depthwise, pointwise, padding=1, depthwise_activation="relu6", activation="relu"
    ... )
    >>> y.shape, float(y[0, 0, 1, 1])
    ((1, 16, 14, 14), 48.0)
    """
    given = PairOperands(
        (depthwise_weight, pointwise_filters(pointwise_weight)),
        (depthwise_bias, bias),
        ((stride, padding, dilation, 1), POINTWISE),
        (depthwise_activation, activation),
        tune,
    )
    return compute_pair(SEPARABLE, input, given, residual, out)


def conv2d_pair(
    input: Array,
    first_weight: Array,
    second_weight: Array,
    first_bias: Array | None = None,
    second_bias: Array | None = None,
    *,
    first_stride: Sizes = 1,
    first_padding: Padding = 0,
    first_dilation: Sizes = 1,
    first_groups: int = 1,
    first_activation: Activation = None,
    second_stride: Sizes = 1,
    second_padding: Padding = 0,
    second_dilation: Sizes = 1,
    second_groups: int = 1,
    second_activation: Activation = None,
    residual: Array | None = None,
    out: Array | None = None,
    tune: bool = False,
) -> Array:
    """Convolve images twice: by ``1 x k`` and ``k x 1`` filters, say, as Inception does.

    ``conv2d(conv2d(input, first_weight, ...), second_weight, ...)`` in one call. A filter that is
    an outer product, such as a Gaussian, is such a pair of a column and a row.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
        Images, of any strides. float32, float64, float16 or bfloat16.
    first_weight, second_weight : ndarray, shape (K, C / groups, kh, kw)
        Filters of each convolution, of the input's dtype; the second one's ``C`` is the first one's
        ``K``.
    first_bias, second_bias : ndarray, shape (K,), optional
        Added to each convolution's channels.
    first_stride, first_padding, first_dilation, first_groups, first_activation
        Of the first convolution, as for `fastconv.conv2d`.
    second_stride, second_padding, second_dilation, second_groups, second_activation
        Of the second.
    residual : ndarray, shape of the output, optional
        Added before the second activation.
    out, tune
        As for `fastconv.conv2d`.

    Returns
    -------
    ndarray, shape (N, K, H_out, W_out) or (K, H_out, W_out)
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
    As for `separable_conv2d`. What lies between the two takes 4 MiB at most, or, where outputs read
    rows that lie far apart, three times as many as the second convolution reaches over or a quarter
    of those of the first. Rows that two bands read are kept, not made again.

    After C. Szegedy et al., "Rethinking the Inception architecture for computer vision" (2015),
    arXiv:1512.00567.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> image = np.ones((1, 6, 6), np.float32)
    >>> row = np.full((1, 1, 1, 3), 1 / 3, np.float32)
    >>> column = row.reshape(1, 1, 3, 1)
    >>> fastconv.conv2d_pair(image, column, row).shape
    (1, 4, 4)
    """
    given = PairOperands(
        (first_weight, second_weight),
        (first_bias, second_bias),
        (
            (first_stride, first_padding, first_dilation, first_groups),
            (second_stride, second_padding, second_dilation, second_groups),
        ),
        (first_activation, second_activation),
        tune,
    )
    return compute_pair(PAIR, input, given, residual, out)
