"""Deformable convolutions of arrays, with the signature of ``torchvision.ops``."""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, dtype_name, memory_layout, require_array
from ..companions import check_companion, check_weight
from ..contract.arguments import PRELU, Activation, Sizes, parse_activation, per_axis
from ..contract.deform_problem import DeformProblem
from ..contract.errors import ShapeError
from ..packing import PackedWeights
from ..slopes import slopes_of
from .array_calls import ArrayOp, check_axes, compute_batch

__all__ = ["compute_deform", "deform_conv2d", "make_deform_problem"]


def make_deform_problem(
    arrays: tuple[Any, ...], arguments: tuple[Any, ...], op: str = "deform_conv"
) -> DeformProblem:
    """Return the problem of arrays (input, offset, weight, bias, mask), the last two or None.

    Slopes of PReLU may follow them.
    """
    x, offset, weight, bias, mask, *_ = arrays
    stride, padding, dilation, activation = arguments
    check_axes("input", x, 2)
    check_axes("offset", offset, 2)
    check_weight(weight, 2, "output channels, input channels / groups, height, width")
    if x.shape[1] < 1 or x.shape[1] % weight.shape[1]:
        raise ShapeError(
            f"input: got {x.shape[1]} channels (axis 1 of {x.shape}), want a multiple of the "
            f"weight's {weight.shape[1]} (axis 1 of {weight.shape})"
        )
    name, alpha = parse_activation(activation)
    return DeformProblem(
        op, x.shape[0], x.shape[1], weight.shape[0], x.shape[2:], weight.shape[2:],
        per_axis("stride", stride, 2), per_axis("padding", padding, 2),
        per_axis("dilation", dilation, 2), x.shape[1] // weight.shape[1],
        _offset_groups(offset, weight.shape[2:], x.shape[1]), mask is not None, bias is not None,
        name or "", alpha, dtype_name("input", x.dtype), memory_layout(x),
    )  # fmt: skip


def _offset_groups(offset: Array, kernel_size: tuple[int, ...], channels: int) -> int:
    """Return the groups of channels that offsets are for."""
    taps = math.prod(kernel_size)
    groups, rest = divmod(offset.shape[1], 2 * taps)
    if rest or groups < 1 or channels % groups:
        raise ShapeError(
            f"offset: got {offset.shape[1]} channels (axis 1 of {offset.shape}), want {2 * taps}, "
            f"two for each tap of a {kernel_size[0]}x{kernel_size[1]} kernel, for each offset "
            f"group, whose number divides the input's {channels} channels"
        )
    return groups


_DEFORM_CONV = ArrayOp(
    "deform_conv", ("input", "offset", "weight", "bias", "mask", "slopes"), make_deform_problem,
    optional=("bias", "mask", "slopes"), weight="weight",
)  # fmt: skip


def compute_deform(
    arrays: tuple[Any, ...], arguments: tuple[Any, ...], out: Array | None,
    kept: PackedWeights | None = None,
) -> Array:  # fmt: skip
    """Compute a call; arrays and arguments are those of `make_deform_problem`."""
    batched = ("input", "offset", "mask")
    *window, activation = arguments
    slopes = slopes_of(activation)
    if slopes is not None:
        activation = PRELU
        weight = require_array("weight", arrays[2])
        check_companion("activation", slopes, weight.shape[:1], weight, "weight")
    result: Array = compute_batch(
        _DEFORM_CONV, 2, (*arrays, slopes), (*window, activation), out, batched, kept
    )
    return result


def deform_conv2d(
    input: Array,
    offset: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    mask: Array | None = None,
    *,
    activation: Activation = None,
    out: Array | None = None,
) -> Array:
    """Convolve images at displaced places: deformable convolution, version 1 or with a mask 2.

    Each tap of each output pixel reads the input at a place of its own, by bilinear interpolation;
    outside the image there are zeros.

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W)
        Images, of any strides. float32, float64, float16 or bfloat16.
    offset : ndarray, shape (N, 2 * G * kh * kw, H_out, W_out)
        How far each tap is displaced, down and to the right, in pixels: the two numbers of a tap
        are neighbours, the taps of an offset group lie side by side. Each of G offset groups has
        C / G channels. What is no number leads out of the image.
    weight : ndarray, shape (K, C / groups, kh, kw)
        Filters; their second axis says how many groups of channels there are.
    bias : ndarray, shape (K,), optional
        Added to each output channel.
    stride, padding, dilation : int or (int, int)
        As for `fastconv.conv2d`, with as many zeros at both sides.
    mask : ndarray, shape (N, G * kh * kw, H_out, W_out), optional
        What each sample is multiplied by.
    activation, out
        As for `fastconv.conv2d`.

    Returns
    -------
    ndarray, shape (N, K, H_out, W_out) or (K, H_out, W_out)
        `out` where it was given.

    Raises
    ------
    ShapeError
        For sizes, offsets, masks or groups that do not fit.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Notes
    -----
    The packed weight is remembered from call to call as that of `fastconv.conv2d`;
    `fastconv.DeformConv2d` packs it once.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    >>> right = np.zeros((1, 2, 3, 3), np.float32)
    >>> right[:, 1] = 0.5
    >>> fastconv.deform_conv2d(x, right, np.ones((1, 1, 1, 1), np.float32))
    array([[[[0.5, 1.5, 1. ],
             [3.5, 4.5, 2.5],
             [6.5, 7.5, 4. ]]]], dtype=float32)
    """
    arrays, arguments = (input, offset, weight, bias, mask), (stride, padding, dilation, activation)
    return compute_deform(arrays, arguments, out)
