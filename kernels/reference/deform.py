"""Deformable convolution: each sample is read at a place of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .conv import activate

__all__ = [
    "deform_conv",
    "deform_conv_grad_input",
    "deform_conv_grad_offset",
    "deform_conv_grad_weight",
]

Array = NDArray[np.float64]


def _read(x: Array, y: Array, z: Array) -> Array:
    """Return the samples of maps (C, H, W) at whole positions, zero outside."""
    height, width = x.shape[1:]
    inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
    rows, columns = np.where(inside, y, 0).astype(int), np.where(inside, z, 0).astype(int)
    return np.where(inside, x[:, rows, columns], 0.0)


def _corners(
    y: Array, z: Array, height: int, width: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Array, NDArray[np.bool_]]]:
    """Yield of four samples around each position: row, column, weight and whether it is there.

    Those that are not have the place of the first and a weight of zero.
    """
    inside = (y > -1) & (y < height) & (z > -1) & (z < width)  # no NaN is
    y, z = np.where(inside, y, -9.0), np.where(inside, z, -9.0)
    low, left = np.floor(y).astype(np.int64), np.floor(z).astype(np.int64)
    for down in (0, 1):
        for right in (0, 1):
            row, column = low + down, left + right
            factor = (1 - abs(y - row)) * (1 - abs(z - column))
            there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            row, column = np.where(there, row, 0), np.where(there, column, 0)
            yield row, column, np.where(there, factor, 0.0), there


def _bilinear(x: Array, y: Array, z: Array) -> Array:
    """Return the samples of maps (C, H, W) at positions; zero where none of them is within one."""
    made = np.zeros((len(x), *y.shape))
    for row, column, factor, there in _corners(y, z, *x.shape[1:]):
        made += np.where(there, factor * x[:, row, column], 0.0)
    return made


_Place = tuple[int, int, slice, int, int, Array, Array]


def _places(
    offset: Array, channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...],
    padding: tuple[int, ...], dilation: tuple[int, ...],
) -> Iterator[_Place]:  # fmt: skip
    """Yield image, offset group, its channels, tap and the positions that output pixels see."""
    batch, _, height, width = offset.shape
    groups = offset.shape[1] // (2 * math.prod(kernel_size))
    by_tap = offset.reshape(batch, groups, *kernel_size, 2, height, width)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    for n, group, i, j in np.ndindex(batch, groups, *kernel_size):
        dy, dx = by_tap[n, group, i, j]
        y = rows * stride[0] - padding[0] + i * dilation[0] + dy
        z = columns * stride[1] - padding[1] + j * dilation[1] + dx
        own = slice(group * channels // groups, (group + 1) * channels // groups)
        yield n, group, own, i, j, y, z


def _columns(
    x: Array, offset: Array, mask: Array | None, kernel_size: tuple[int, ...],
    stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...],
) -> Array:  # fmt: skip
    """Return what the taps of each output pixel see: (N, C, kh, kw, H_out, W_out)."""
    batch, channels = x.shape[:2]
    made = np.zeros((batch, channels, *kernel_size, *offset.shape[2:]))
    where = (kernel_size, stride, padding, dilation)
    for n, group, own, i, j, y, z in _places(offset, channels, *where):
        made[n, own, i, j] = _bilinear(x[n, own], y, z)
        if mask is not None:
            made[n, own, i, j] *= mask[n].reshape(-1, *kernel_size, *y.shape)[group, i, j]
    return made


def deform_conv(
    x: ArrayLike, offset: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *,
    mask: ArrayLike | None = None, stride: tuple[int, ...], padding: tuple[int, ...],
    dilation: tuple[int, ...], activation: str | tuple[str, Any] | None = None,
) -> Any:  # fmt: skip
    """Return the deformable convolution; a mask of None is one of ones.

    Examples
    --------
    >>> x = np.array([[[[1.0, 2.0, 4.0]]]])
    >>> along = np.array([[[[0.0, 0.0, 0.0]], [[0.5, 0.5, 0.5]]]])
    >>> unit = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    >>> deform_conv(x, along, np.ones((1, 1, 1, 1)), **unit).tolist()
    [[[[1.5, 3.0, 2.0]]]]
    """
    x, offset, weight = (np.asarray(a).astype(np.float64) for a in (x, offset, weight))
    mask = None if mask is None else np.asarray(mask).astype(np.float64)
    kernel_size = weight.shape[2:]
    columns = _columns(x, offset, mask, kernel_size, stride, padding, dilation)
    batch, channels = x.shape[:2]
    groups = channels // weight.shape[1]
    by_group = columns.reshape(batch, groups, math.prod(weight.shape[1:]), *offset.shape[2:])
    filters = weight.reshape(groups, weight.shape[0] // groups, -1)
    out = np.einsum("gkc,ngchw->ngkhw", filters, by_group)
    out = out.reshape(batch, weight.shape[0], *offset.shape[2:])
    if bias is not None:
        out += np.asarray(bias).astype(np.float64)[:, None, None]
    name, alpha = activation if isinstance(activation, tuple) else (activation, None)
    if name == "prelu":
        alpha = np.asarray(alpha).astype(np.float64)[:, None, None]
    return activate(out, name, alpha)


def _weighted(
    grad_output: Array, weight: Array, kernel_size: tuple[int, ...], channels: int
) -> Array:
    """Return the gradient for what the taps of each output pixel see."""
    batch, k, height, width = grad_output.shape
    groups = channels // weight.shape[1]
    by_group = grad_output.reshape(batch, groups, k // groups, height, width)
    filters = weight.reshape(groups, k // groups, math.prod(weight.shape[1:]))
    made = np.einsum("gkc,ngkhw->ngchw", filters, by_group)
    return made.reshape(batch, channels, *kernel_size, height, width)


def deform_conv_grad_input(
    *, grad_output: ArrayLike, offset: ArrayLike, weight: ArrayLike, mask: ArrayLike | None = None,
    input_size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Any:  # fmt: skip
    """Return the gradient for the input: each sample's goes to the pixels that it was made of."""
    grads, offset, weight = (
        np.asarray(a).astype(np.float64) for a in (grad_output, offset, weight)
    )
    mask = None if mask is None else np.asarray(mask).astype(np.float64)
    kernel_size, (channels, *_) = weight.shape[2:], input_size[1:]
    columns = _weighted(grads, weight, kernel_size, channels)
    where = (kernel_size, stride, padding, dilation)
    made = np.zeros(input_size)
    for n, group, own, i, j, y, z in _places(offset, channels, *where):
        samples = columns[n, own, i, j]
        if mask is not None:
            samples = samples * mask[n].reshape(-1, *kernel_size, *y.shape)[group, i, j]
        for row, column, factor, _ in _corners(y, z, *input_size[2:]):
            at: Any = (slice(None), row, column)
            np.add.at(made[n, own], at, samples * factor)
    return made


def deform_conv_grad_offset(
    input: ArrayLike, *, grad_output: ArrayLike, offset: ArrayLike, weight: ArrayLike,
    mask: ArrayLike | None = None, stride: tuple[int, ...], padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Any:  # fmt: skip
    """Return the gradient for the offset and, where there is a mask, that for the mask.

    At a whole place, where interpolation has a kink, the slope is that of the pixels behind it.
    """
    grads, x, offset, weight = (
        np.asarray(a).astype(np.float64) for a in (grad_output, input, offset, weight)
    )
    mask = None if mask is None else np.asarray(mask).astype(np.float64)
    kernel_size, channels = weight.shape[2:], x.shape[1]
    columns = _weighted(grads, weight, kernel_size, channels)
    made = np.zeros((offset.shape[0], offset.shape[1] // 2, 2, *offset.shape[2:]))
    of_mask = np.zeros((offset.shape[0], offset.shape[1] // 2, *offset.shape[2:]))
    taps = math.prod(kernel_size)
    for n, group, own, i, j, y, z in _places(
        offset, channels, kernel_size, stride, padding, dilation
    ):
        number = group * taps + i * kernel_size[1] + j
        inside = np.isfinite(y) & np.isfinite(z)
        y, z = np.where(inside, y, -9.0), np.where(inside, z, -9.0)
        low, left = np.floor(y), np.floor(z)
        down, right = y - low, z - left
        a, b, c, d = (
            (columns[n, own, i, j] * _read(x[n, own], low + below, left + beside)).sum(0)
            for below in (0, 1) for beside in (0, 1)
        )  # fmt: skip
        factor = 1.0 if mask is None else mask[n, number]
        made[n, number, 0] = factor * ((1 - right) * (c - a) + right * (d - b))
        made[n, number, 1] = factor * ((1 - down) * (b - a) + down * (d - c))
        above, under = (1 - right) * a + right * b, (1 - right) * c + right * d
        of_mask[n, number] = (1 - down) * above + down * under
    made = made.reshape(offset.shape)
    return made if mask is None else (made, of_mask)


def deform_conv_grad_weight(
    input: ArrayLike, *, grad_output: ArrayLike, offset: ArrayLike, mask: ArrayLike | None = None,
    weight_size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Any:  # fmt: skip
    """Return the gradient for the weight: gradients times samples, over images and pixels."""
    grads, x, offset = (np.asarray(a).astype(np.float64) for a in (grad_output, input, offset))
    mask = None if mask is None else np.asarray(mask).astype(np.float64)
    columns = _columns(x, offset, mask, weight_size[2:], stride, padding, dilation)
    k, groups = weight_size[0], x.shape[1] // weight_size[1]
    shape = grads.shape[2:]
    by_group = columns.reshape(x.shape[0], groups, math.prod(weight_size[1:]), *shape)
    grads = grads.reshape(x.shape[0], groups, k // groups, *shape)
    return np.einsum("ngkhw,ngchw->gkc", grads, by_group).reshape(weight_size)
