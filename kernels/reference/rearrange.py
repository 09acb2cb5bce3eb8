"""Arrays whose elements change their places, and windows taken out and put back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "channel_shuffle",
    "fold",
    "interleave",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "unfold",
]


def _as_float64(x: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(x).astype(np.float64)


def pixel_shuffle(x: ArrayLike, *, upscale_factor: int) -> Any:
    """Spread ``r * r`` channels over a square of ``r`` by ``r`` pixels.

    Examples
    --------
    >>> pixel_shuffle(np.arange(4.0).reshape(1, 4, 1, 1), upscale_factor=2).tolist()
    [[[[0.0, 1.0], [2.0, 3.0]]]]
    """
    x, r = _as_float64(x), upscale_factor
    n, c, h, w = x.shape
    parts = x.reshape(n, c // r**2, r, r, h, w)
    return parts.transpose(0, 1, 4, 2, 5, 3).reshape(n, c // r**2, h * r, w * r)


def interleave(x: ArrayLike, *, stride: tuple[int, ...]) -> Any:
    """Put maps of neighbouring channels between each other, by turns along each axis.

    Examples
    --------
    >>> interleave(np.arange(6.0).reshape(1, 2, 3), stride=(2,)).tolist()
    [[[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]]]
    """
    x = _as_float64(x)
    n, c, *size = x.shape
    channels, out_size = (
        c // int(np.prod(stride)),
        [k * s for k, s in zip(size, stride, strict=True)],
    )
    out = np.zeros((n, channels, *out_size))
    for number, starts in enumerate(np.ndindex(*stride)):
        places = tuple(slice(a, None, s) for a, s in zip(starts, stride, strict=True))
        out[(slice(None), slice(None), *places)] = x[:, number :: int(np.prod(stride))]
    return out


_PAD_MODES = {"replicate": "edge", "circular": "wrap"}


def pad(
    x: ArrayLike, *, padding: tuple[int, ...], out_size: tuple[int, ...], mode: str, value: float
) -> Any:
    """Put a boundary around an array by `numpy.pad`, or take a box of one that lies within.

    Examples
    --------
    >>> x = np.arange(3.0).reshape(1, 1, 3)
    >>> pad(x, padding=(1,), out_size=(5,), mode="symmetric", value=0.0).tolist()
    [[[0.0, 0.0, 1.0, 2.0, 2.0]]]
    """
    x = _as_float64(x)
    high = [n - size - low for n, size, low in zip(out_size, x.shape[2:], padding, strict=True)]
    sides = [(max(low, 0), max(over, 0)) for low, over in zip(padding, high, strict=True)]
    told: Any = {"constant_values": value} if mode == "constant" else {}
    made = np.pad(x, ((0, 0), (0, 0), *sides), _PAD_MODES.get(mode, mode), **told)  # type: ignore[call-overload]
    starts = [max(-low, 0) for low in padding]
    box = [slice(start, start + n) for start, n in zip(starts, out_size, strict=True)]
    return made[(slice(None), slice(None), *box)]


def pixel_unshuffle(x: ArrayLike, *, downscale_factor: int) -> Any:
    """Put each pixel of a square of ``r`` by ``r`` into a channel of its own.

    Examples
    --------
    >>> pixel_unshuffle(np.arange(4.0).reshape(1, 1, 2, 2), downscale_factor=2).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    x, r = _as_float64(x), downscale_factor
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // r, r, w // r, r)
    return parts.transpose(0, 1, 3, 5, 2, 4).reshape(n, c * r**2, h // r, w // r)


def channel_shuffle(x: ArrayLike, *, groups: int) -> Any:
    """Take channels by turns from each group.

    Examples
    --------
    >>> channel_shuffle(np.arange(6.0).reshape(1, 6, 1), groups=2).ravel().tolist()
    [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    """
    x = _as_float64(x)
    n, c, *size = x.shape
    return x.reshape(n, groups, c // groups, *size).swapaxes(1, 2).reshape(x.shape)


def _windows(
    padded: tuple[int, ...], kernel_size: tuple[int, ...], dilation: tuple[int, ...],
    stride: tuple[int, ...],
) -> Iterator[tuple[int, tuple[slice, ...]]]:  # fmt: skip
    """Yield each tap's number and the samples that it meets in all windows."""
    axes = list(zip(padded, kernel_size, dilation, stride, strict=True))
    for tap, places in enumerate(itertools.product(*map(range, kernel_size))):
        yield (
            tap,
            tuple(
                slice(t * d, size - d * (k - 1) + t * d, s)
                for t, (size, k, d, s) in zip(places, axes, strict=True)
            ),
        )


def unfold(
    x: ArrayLike,
    *,
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[int, ...],
    stride: tuple[int, ...],
) -> Any:
    """Return what each window holds as a column: channel by channel, tap by tap.

    Examples
    --------
    >>> x = np.array([[[1.0, 2.0, 3.0]]])
    >>> unfold(x, kernel_size=(2,), dilation=(1,), padding=(0,), stride=(1,)).tolist()
    [[[1.0, 2.0], [2.0, 3.0]]]
    """
    x = _as_float64(x)
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    n, c, *padded = x.shape
    everything: Any = (slice(None), slice(None))
    seen = [
        x[(*everything, *places)]
        for _, places in _windows(tuple(padded), kernel_size, dilation, stride)
    ]
    windows = int(np.prod(seen[0].shape[2:]))
    return np.stack(seen, axis=2).reshape(n, c * len(seen), windows)


def fold(
    x: ArrayLike,
    *,
    output_size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[int, ...],
    stride: tuple[int, ...],
) -> Any:
    """Return the sums of the columns' numbers where their windows were.

    Examples
    --------
    >>> x, told = np.array([[[1.0, 2.0], [3.0, 4.0]]]), {"dilation": (1,), "padding": (0,)}
    >>> fold(x, output_size=(3,), kernel_size=(2,), stride=(1,), **told).tolist()
    [[[1.0, 5.0, 4.0]]]
    """
    x = _as_float64(x)
    taps = int(np.prod(kernel_size))
    padded = tuple(size + 2 * p for size, p in zip(output_size, padding, strict=True))
    columns = x.reshape(x.shape[0], x.shape[1] // taps, taps, x.shape[2])
    out = np.zeros((*columns.shape[:2], *padded))
    everything: Any = (slice(None), slice(None))
    for tap, places in _windows(padded, kernel_size, dilation, stride):
        target = out[(*everything, *places)]
        target += columns[:, :, tap].reshape(target.shape)
    inside = (slice(p, p + size) for p, size in zip(padding, output_size, strict=True))
    return out[(*everything, *inside)]
