"""Gradients of rearrangements: what was moved is moved back, what was copied is summed up."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..arrays import Array, require_array
from ..contract.arguments import Sizes, per_axis, whole_number
from ..contract.errors import ShapeError, renamed
from ..ops.rearrange import channel_shuffle, pixel_shuffle, pixel_unshuffle
from ..ops.unfold import fold, unfold

__all__ = [
    "channel_shuffle_input",
    "fold_input",
    "pixel_shuffle_input",
    "pixel_unshuffle_input",
    "unfold_input",
]


def pixel_shuffle_input(grad_output: Array, upscale_factor: int) -> Array:
    """Return the gradient of `fastconv.pixel_shuffle` for its input.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.pixel_shuffle_input(np.ones((1, 3, 4, 6), np.float32), 2).shape
    (1, 12, 2, 3)
    """
    with renamed({"input": "grad_output", "downscale_factor": "upscale_factor"}):
        return pixel_unshuffle(grad_output, upscale_factor)


def pixel_unshuffle_input(grad_output: Array, downscale_factor: int) -> Array:
    """Return the gradient of `fastconv.pixel_unshuffle` for its input.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.pixel_unshuffle_input(np.ones((1, 12, 2, 3), np.float32), 2).shape
    (1, 3, 4, 6)
    """
    with renamed({"input": "grad_output", "upscale_factor": "downscale_factor"}):
        return pixel_shuffle(grad_output, downscale_factor)


def channel_shuffle_input(grad_output: Array, groups: int) -> Array:
    """Return the gradient of `fastconv.channel_shuffle` for its input.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(6, dtype=np.float32).reshape(1, 6, 1)
    >>> fastconv.grad.channel_shuffle_input(fastconv.channel_shuffle(x, 2), 2).ravel()
    array([0., 1., 2., 3., 4., 5.], dtype=float32)
    """
    number, grad = whole_number("groups", groups), require_array("grad_output", grad_output)
    channels = grad.shape[1] if grad.ndim > 2 else 0
    if number < 1 or channels % number:
        raise ShapeError(
            f"groups: got {groups} with an output of {channels} channels, want a divisor of the "
            "channels"
        )
    with renamed({"input": "grad_output"}):
        return channel_shuffle(grad_output, max(1, channels // number))


def unfold_input(
    input_size: Sequence[int],
    grad_output: Array,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Array:
    """Return the gradient of `fastconv.unfold` for its input: each sample's sum over its windows.

    Parameters
    ----------
    input_size : tuple of int
        Shape ``(N, C, *spatial)`` or ``(C, *spatial)`` of the input.
    grad_output : ndarray, shape of the output
        Gradient for the columns, of any strides.
    kernel_size, dilation, padding, stride
        As for `fastconv.unfold`.

    Returns
    -------
    ndarray, shape `input_size`

    Raises
    ------
    ShapeError
        Where no columns have these sizes.
    DTypeError, DeviceError
        As for `fastconv.fold`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.unfold_input((1, 1, 3, 3), np.ones((1, 4, 4), np.float32), 2)
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]], dtype=float32)
    """
    grad = require_array("grad_output", grad_output)
    if grad.ndim not in (2, 3):
        raise ShapeError(
            f"grad_output: got {grad.ndim} axes {grad.shape}, want 3 (batch, channels times taps, "
            "windows) or 2 without the batch"
        )
    if not isinstance(input_size, (tuple, list)) or not grad.ndim <= len(input_size) <= 5:
        raise ShapeError(
            f"input_size: got {input_size!r}, want a whole number an axis, say input.shape"
        )
    shape = tuple(whole_number("input_size", size) for size in input_size)
    size = shape[grad.ndim - 1 :]
    taps = math.prod(per_axis("kernel_size", kernel_size, len(size)))
    leading = (*grad.shape[:-2], grad.shape[-2] // max(1, taps))
    if shape[: grad.ndim - 1] != leading:
        raise ShapeError(
            f"grad_output: got shape {grad.shape} with a window of {taps} taps, want columns of "
            f"an input of shape {shape}"
        )
    with renamed({"input": "grad_output", "output_size": "input_size"}):
        return fold(grad_output, size, kernel_size, dilation, padding, stride)


def fold_input(
    grad_output: Array,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Array:
    """Return the gradient of `fastconv.fold` for its input: the windows of the output's gradient.

    Parameters
    ----------
    grad_output : ndarray, shape of the output
        Gradient for the images, of any strides.
    kernel_size, dilation, padding, stride
        As for `fastconv.unfold`, whose rule tells how many spatial axes there are.

    Returns
    -------
    ndarray, shape (N, C * taps, L) or (C * taps, L)

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        As for `fastconv.unfold`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.grad.fold_input(np.ones((1, 1, 3, 3), np.float32), 2).shape
    (1, 4, 4)
    """
    with renamed({"input": "grad_output"}):
        return unfold(grad_output, kernel_size, dilation, padding, stride)
