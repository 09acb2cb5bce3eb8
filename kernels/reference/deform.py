"""Deformable convolution: each sample is read at a place of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .conv import activate

__all__ = ["deform_columns", "deform_conv"]

Array = NDArray[np.float64]


def _read(x: Array, y: Array, z: Array) -> Array:
    """Return the samples of maps (C, H, W) at whole positions, zero outside."""
    height, width = x.shape[1:]
    inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
    rows, columns = np.where(inside, y, 0).astype(int), np.where(inside, z, 0).astype(int)
    return np.where(inside, x[:, rows, columns], 0.0)


def _bilinear(x: Array, y: Array, z: Array) -> Array:
    """Return the samples of maps (C, H, W) at positions; zero where none of them is within one."""
    height, width = x.shape[1:]
    inside = (y > -1) & (y < height) & (z > -1) & (z < width)  # no NaN is
    y, z = np.where(inside, y, -9.0), np.where(inside, z, -9.0)
    low, left = np.floor(y), np.floor(z)
    down, right = y - low, z - left
    return (
        (1 - down) * (1 - right) * _read(x, low, left)
        + (1 - down) * right * _read(x, low, left + 1)
        + down * (1 - right) * _read(x, low + 1, left)
        + down * right * _read(x, low + 1, left + 1)
    )


def deform_columns(
    x: Array, offset: Array, mask: Array | None, kernel_size: tuple[int, ...],
    stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...],
) -> Array:  # fmt: skip
    """Return what the taps of each output pixel see: (N, C, kh, kw, H_out, W_out)."""
    batch, channels = x.shape[:2]
    height, width = offset.shape[2:]
    by_tap = offset.reshape(batch, -1, *kernel_size, 2, height, width)
    groups = by_tap.shape[1]
    columns = np.zeros((batch, groups, channels // groups, *kernel_size, height, width))
    rows, places = np.arange(height)[:, None], np.arange(width)[None]
    for n, group, i, j in np.ndindex(batch, groups, *kernel_size):
        dy, dx = by_tap[n, group, i, j]
        y = rows * stride[0] - padding[0] + i * dilation[0] + dy
        z = places * stride[1] - padding[1] + j * dilation[1] + dx
        own = slice(group * channels // groups, (group + 1) * channels // groups)
        columns[n, group, :, i, j] = _bilinear(x[n, own], y, z)
    if mask is not None:
        columns *= mask.reshape(batch, groups, 1, *kernel_size, height, width)
    return columns.reshape(batch, channels, *kernel_size, height, width)


def deform_conv(
    x: ArrayLike, offset: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *,
    mask: ArrayLike | None = None, stride: tuple[int, ...], padding: tuple[int, ...],
    dilation: tuple[int, ...], activation: str | tuple[str, float] | None = None,
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
    columns = deform_columns(x, offset, mask, kernel_size, stride, padding, dilation)
    batch, channels = x.shape[:2]
    groups = channels // weight.shape[1]
    by_group = columns.reshape(batch, groups, -1, *offset.shape[2:])
    filters = weight.reshape(groups, weight.shape[0] // groups, -1)
    out = np.einsum("gkc,ngchw->ngkhw", filters, by_group)
    out = out.reshape(batch, weight.shape[0], *offset.shape[2:])
    if bias is not None:
        out += np.asarray(bias).astype(np.float64)[:, None, None]
    name, alpha = activation if isinstance(activation, tuple) else (activation, None)
    return activate(out, name, alpha)
