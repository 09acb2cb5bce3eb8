"""Convolution, transposed convolution, the gradient for a weight, and activations.

A convolution is written as its definition: pad the input with explicit zeros, then add up one
matrix product for each kernel tap over the strided window of pixels which that tap touches:

    padded = zeros(N, C, in_size + pads);  padded[inside] = x
    for tap in kernel_size:                                    # (i, j) of a 3x3, say
        window = padded[..., tap * dilation :: stride]         # out_size pixels, every channel
        for g in groups:
            out[:, g] += weight[g, :, :, tap] @ window[:, g]   # (O/g, C/g) @ (C/g, pixels)
    out = activation(out + bias + residual)

Padding is a zero like any other: it is multiplied and added, so an infinite or NaN weight makes a
NaN wherever its tap meets padding, just as a NaN or an infinity of the input reaches every output
whose window holds it, and no other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_erf: Callable[[Array], Array] = np.vectorize(math.erf, otypes=[np.float64])


def relu(y: Array) -> Array:
    """``max(y, 0)``; NaN stays NaN."""
    return np.maximum(y, 0.0)


def leaky_relu(y: Array, alpha: float = 0.01) -> Array:
    """``y`` where it is positive, else ``alpha * y``."""
    return np.where(y > 0, y, alpha * y)


def elu(y: Array, alpha: float = 1.0) -> Array:
    """``y`` where it is positive, else ``alpha * (exp(y) - 1)``."""
    return np.where(y > 0, y, alpha * np.expm1(np.minimum(y, 0.0)))


def sigmoid(y: Array) -> Array:
    """``1 / (1 + exp(-y))``."""
    return 1.0 / (1.0 + np.exp(-y))


def silu(y: Array) -> Array:
    """``y * sigmoid(y)``."""
    return y / (1.0 + np.exp(-y))


def relu6(y: Array) -> Array:
    """``min(max(y, 0), 6)``."""
    return np.minimum(np.maximum(y, 0.0), 6.0)


def hardswish(y: Array) -> Array:
    """``y * relu6(y + 3) / 6``."""
    return y * relu6(y + 3.0) / 6.0


def gelu(y: Array) -> Array:
    """``y * (1 + erf(y / sqrt(2))) / 2``: the exact form, not the tanh approximation."""
    return y * (0.5 * (1.0 + _erf(y / math.sqrt(2.0))))


def prelu(y: Array, alpha: Array) -> Array:
    """``y`` where it is positive, else ``alpha * y``: a slope for each channel."""
    return np.where(y > 0, y, alpha * y)


ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "silu": silu,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu6": relu6,
    "hardswish": hardswish,
    "gelu": gelu,
    "prelu": prelu,
}


def activate(y: Array, activation: str | None, alpha: ArrayLike | None = None) -> Array:
    """Apply an activation by name.

    Parameters
    ----------
    y : float64 array of any shape
    activation : str or None
        A key of `ACTIVATIONS`, or None for none.
    alpha : float or array, optional
        Slope of ``leaky_relu`` (default 0.01), scale of ``elu`` (default 1.0), slopes of ``prelu``
        (of a shape that is broadcast to `y`).

    Returns
    -------
    float64 array of the same shape

    Raises
    ------
    KeyError
        The name is unknown.
    TypeError
        `alpha` is given to an activation that has none, or missing for ``prelu``.

    Examples
    --------
    >>> activate(np.array([-2.0, 3.0]), "leaky_relu", 0.5).tolist()
    [-1.0, 3.0]
    """
    if activation is None:
        return y
    function = ACTIVATIONS[activation]
    with np.errstate(over="ignore", invalid="ignore"):
        return function(y) if alpha is None else function(y, alpha)


def as_integers(y: Array, dtype: str) -> NDArray[Any]:
    """Return the nearest integers, halves to even, saturated; NaN is 0.

    Parameters
    ----------
    y : float64 array of any shape
    dtype : {"uint8", "int16"}

    Returns
    -------
    array of the same shape and of that dtype

    Examples
    --------
    >>> as_integers(np.array([2.5, -3.0, 300.0, np.nan]), "uint8").tolist()
    [2, 0, 255, 0]
    """
    limits = np.iinfo(dtype)
    whole = np.rint(np.where(np.isnan(y), 0.0, y))
    return np.clip(whole, limits.min, limits.max).astype(dtype)


def _out_size(
    in_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> list[int]:
    return [
        (size + lo + hi - d * (k - 1) - 1) // s + 1
        for size, k, s, (lo, hi), d in zip(
            in_size, kernel_size, stride, padding, dilation, strict=True
        )
    ]


def _touched_by(
    tap: Sequence[int], out_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[slice, ...]:
    """The index of the padded pixels, one an output pixel, that one tap is multiplied with."""
    pixels = [
        slice(t * d, t * d + (size - 1) * s + 1, s)
        for t, size, s, d in zip(tap, out_size, stride, dilation, strict=True)
    ]
    return (slice(None), slice(None), *pixels)


def _finish(
    sums: Array,
    bias: ArrayLike | None,
    residual: ArrayLike | None,
    activation: str | None,
    alpha: ArrayLike | None,
) -> Array:
    """Add a bias a channel, then a residual, then apply the activation."""
    if bias is not None:
        sums = sums + np.asarray(bias).astype(np.float64).reshape(-1, *[1] * (sums.ndim - 2))
    if residual is not None:
        sums = sums + np.asarray(residual).astype(np.float64)
    if activation == "prelu":
        alpha = np.asarray(alpha).astype(np.float64).reshape(-1, *[1] * (sums.ndim - 2))
    return activate(sums, activation, alpha)


def conv(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int = 1,
    residual: ArrayLike | None = None,
    activation: str | None = None,
    alpha: ArrayLike | None = None,
) -> Array:
    """Convolution of one to three spatial dimensions: the definition, in float64.

    Deep learning's convolution, which signal processing calls correlation: the kernel is not
    flipped. The order is convolution, bias, residual, activation.

    Parameters
    ----------
    x : array of shape (batch, in_channels, *in_size)
        Any real dtype; it is converted to float64 first.
    weight : array of shape (out_channels, in_channels / groups, *kernel_size)
    bias : array of shape (out_channels,), optional
    stride, dilation : tuple of int
        One an axis, in pixels.
    padding : tuple of (int, int)
        Zeros before and after each axis, in pixels.
    groups : int
        Output channel ``o`` sees only the input channels of group ``o // (out_channels/groups)``.
    residual : array of the output's shape, optional
    activation : str, optional
        A key of `ACTIVATIONS`.
    alpha : float or array of shape (out_channels,), optional
        Parameter of ``leaky_relu`` and ``elu``; slopes of ``prelu``.

    Returns
    -------
    float64 array of shape (batch, out_channels, *out_size)
        ``out_size = (in_size + lo + hi - dilation * (kernel_size - 1) - 1) // stride + 1``

    Examples
    --------
    A difference of neighbours, on a ramp with one zero of padding on the left:

    >>> x = np.array([[[1.0, 2.0, 4.0, 8.0]]])
    >>> weight = np.array([[[-1.0, 1.0]]])
    >>> conv(x, weight, stride=(1,), padding=((1, 0),), dilation=(1,)).tolist()
    [[[1.0, 1.0, 2.0, 4.0]]]
    """
    x = np.asarray(x).astype(np.float64)
    weight = np.asarray(weight).astype(np.float64)
    batch, in_channels, *in_size = x.shape
    out_channels, channels_per_group, *kernel_size = weight.shape
    assert channels_per_group * groups == in_channels, "channels do not match groups"
    out_size = _out_size(in_size, kernel_size, stride, padding, dilation)
    pixels = math.prod(out_size)
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    # As matrices: one (O/g, C/g) a group and tap, one (C/g, pixels) an image and group.
    filters = weight.reshape(groups, out_channels // groups, channels_per_group, *kernel_size)
    out = np.zeros((batch, groups, out_channels // groups, pixels))
    for tap in np.ndindex(*kernel_size):
        window = padded[_touched_by(tap, out_size, stride, dilation)]
        window = window.reshape(batch, groups, channels_per_group, pixels)
        filter_tap = (slice(None), slice(None), slice(None), *tap)
        with np.errstate(over="ignore", invalid="ignore"):
            out += filters[filter_tap] @ window
    out = out.reshape(batch, out_channels, *out_size)
    return _finish(out, bias, residual, activation, alpha)


def conv_transpose(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    output_padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int = 1,
    residual: ArrayLike | None = None,
    activation: str | None = None,
    alpha: ArrayLike | None = None,
) -> Array:
    """Transposed convolution: every sample adds a filter to the outputs, then borders are cropped.

    Parameters
    ----------
    x : array of shape (batch, in_channels, *in_size)
        Any real dtype; it is converted to float64 first.
    weight : array of shape (in_channels, out_channels / groups, *kernel_size)
    bias : array of shape (out_channels,), optional
    stride, dilation, output_padding : tuple of int
        One an axis; the first two in outputs from sample to sample and from tap to tap, the last
        one outputs more at the high side.
    padding : tuple of (int, int)
        Outputs that are cropped before and after each axis.
    groups, residual, activation, alpha
        As for `conv`.

    Returns
    -------
    float64 array of shape (batch, out_channels, *out_size)
        ``out_size = (in_size - 1) * stride + dilation * (kernel_size - 1) + 1 + output_padding
        - lo - hi``

    Examples
    --------
    >>> x, weight = np.array([[[1.0, 10.0]]]), np.array([[[1.0, 2.0, 3.0]]])
    >>> conv_transpose(x, weight, stride=(2,), padding=((0, 1),), output_padding=(0,),
    ...                dilation=(1,)).tolist()
    [[[1.0, 2.0, 13.0, 20.0]]]
    """
    x = np.asarray(x).astype(np.float64)
    weight = np.asarray(weight).astype(np.float64)
    batch, in_channels, *in_size = x.shape
    _, channels_per_group, *kernel_size = weight.shape
    full_size = [
        (size - 1) * s + d * (k - 1) + 1 + extra
        for size, s, d, k, extra in zip(
            in_size, stride, dilation, kernel_size, output_padding, strict=True
        )
    ]
    samples = x.reshape(batch, groups, in_channels // groups, math.prod(in_size))
    filters = weight.reshape(groups, in_channels // groups, channels_per_group, *kernel_size)
    full = np.zeros((batch, groups * channels_per_group, *full_size))
    for tap in np.ndindex(*kernel_size):
        filter_tap = filters[(slice(None), slice(None), slice(None), *tap)]
        with np.errstate(over="ignore", invalid="ignore"):
            products = np.swapaxes(filter_tap, 1, 2) @ samples
            full[_touched_by(tap, in_size, stride, dilation)] += products.reshape(
                batch, groups * channels_per_group, *in_size
            )
    kept = (slice(lo, size - hi) for size, (lo, hi) in zip(full_size, padding, strict=True))
    return _finish(full[(slice(None), slice(None), *kept)], bias, residual, activation, alpha)


def conv_weight_grad(
    x: ArrayLike,
    grad_output: ArrayLike,
    *,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int = 1,
) -> Array:
    """Gradient of `conv` for its weight: each tap's products of its windows and the gradient.

    Parameters
    ----------
    x : array of shape (batch, in_channels, *in_size)
    grad_output : array of shape (batch, out_channels, *out_size)
    kernel_size, stride, padding, dilation, groups
        Of the convolution.

    Returns
    -------
    float64 array of shape (out_channels, in_channels / groups, *kernel_size)

    Examples
    --------
    >>> x, grad = np.arange(6.0).reshape(1, 1, 6), np.ones((1, 1, 4))
    >>> conv_weight_grad(
    ...     x, grad, kernel_size=(3,), stride=(1,), padding=((0, 0),), dilation=(1,)
    ... ).tolist()
    [[[6.0, 10.0, 14.0]]]
    """
    x = np.asarray(x).astype(np.float64)
    grad = np.asarray(grad_output).astype(np.float64)
    batch, in_channels = x.shape[:2]
    out_channels, *out_size = grad.shape[1:]
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    pixels = math.prod(out_size)
    by_group = grad.reshape(batch, groups, out_channels // groups, pixels)
    made = np.zeros((out_channels, in_channels // groups, *kernel_size))
    for tap in np.ndindex(*kernel_size):
        window = padded[_touched_by(tap, out_size, stride, dilation)]
        window = window.reshape(batch, groups, in_channels // groups, pixels)
        with np.errstate(over="ignore", invalid="ignore"):
            products = by_group @ np.swapaxes(window, 2, 3)
            products = products.sum(0).reshape(out_channels, in_channels // groups)
            made[(slice(None), slice(None), *tap)] = products
    return made
