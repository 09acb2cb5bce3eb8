"""Pools over windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "adaptive_avg_pool",
    "adaptive_avg_pool_grad",
    "adaptive_max_pool",
    "avg_pool",
    "avg_pool_grad",
    "lp_pool",
    "max_pool",
    "max_pool_grad",
    "max_unpool",
    "max_unpool_grad",
]

Array = NDArray[np.float64]
Sizes = tuple[int, ...]


def _windows(
    in_size: tuple[int, ...], out_size: tuple[int, ...], kernel_size: tuple[int, ...],
    stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...],
) -> Iterator[tuple[tuple[int, ...], tuple[list[int], ...]]]:  # fmt: skip
    """Yield each output position and, along each axis, the samples that its window sees."""
    axes = list(zip(in_size, kernel_size, stride, padding, dilation, strict=True))
    for position in np.ndindex(*out_size):
        yield (
            position,
            tuple(
                [p for t in range(k) if 0 <= (p := o * s - pad + d * t) < size]
                for o, (size, k, s, pad, d) in zip(position, axes, strict=True)
            ),
        )


def pooled_size(
    size: int, kernel: int, stride: int, pad: int, dilation: int, ceil_mode: bool
) -> int:
    """Return the outputs along one axis, by counting windows.

    A window must begin within the samples or the padding before them; where sizes are rounded down
    it must end within the padding behind them, too.
    """
    reach, outputs = dilation * (kernel - 1) + 1, 0
    for start in itertools.count(-pad, stride):
        if start + reach > size + pad and (not ceil_mode or start >= size):
            return outputs
        outputs += 1
        if ceil_mode and start + reach >= size + pad:
            return outputs
    raise AssertionError


def _axes(value: int | Sizes, axes: int) -> Sizes:
    """Return one number an axis."""
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _largest(window: Array, places: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
    """Return the maxima of the last axis and their places: the first one's, or the last NaN's."""
    nan = np.isnan(window)
    first = np.where(nan.any(-1), nan.shape[-1] - 1 - nan[..., ::-1].argmax(-1), window.argmax(-1))
    return np.take_along_axis(window, first[..., None], -1)[..., 0], places[first]


def _maxima(x: Array, out_size: Sizes, windows: Any) -> tuple[Array, NDArray[np.int64]]:
    """Return the largest sample of each window, and its place in the channel."""
    numbers = np.arange(math.prod(x.shape[2:])).reshape(x.shape[2:])
    out = np.full((*x.shape[:2], *out_size), -np.inf)
    places = np.zeros(out.shape, np.int64)
    everything: Any = (slice(None), slice(None))
    for position, seen in windows:
        count = math.prod(map(len, seen))
        window = x[(*everything, *np.ix_(*seen))].reshape(*x.shape[:2], count)
        if count:
            made = _largest(window, numbers[np.ix_(*seen)].reshape(-1))
            out[(*everything, *position)], places[(*everything, *position)] = made
    return out, places


def max_pool(
    x: ArrayLike,
    *,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest sample of each window, NaN where it holds one; and places.

    Examples
    --------
    >>> x = np.array([[[3.0, 1.0, 2.0, 5.0]]])
    >>> max_pool(x, kernel_size=(2,), stride=(2,), padding=(0,), dilation=(1,)).tolist()
    [[[3.0, 5.0]]]
    """
    x = np.asarray(x).astype(np.float64)
    in_size = x.shape[2:]
    axes = zip(in_size, kernel_size, stride, padding, dilation, strict=True)
    out_size = tuple(pooled_size(*axis, ceil_mode) for axis in axes)
    windows = _windows(in_size, out_size, kernel_size, stride, padding, dilation)
    made = _maxima(x, out_size, windows)
    return made if return_indices else made[0]


def _average_windows(
    in_size: Sizes, kernel_size: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None,
) -> tuple[Sizes, list[Any]]:  # fmt: skip
    """Return the sizes of a mean; each position, the samples of its window, and its divisor."""
    ones = (1,) * len(in_size)
    axes = list(zip(in_size, kernel_size, stride, padding, strict=True))
    out_size = tuple(pooled_size(n, k, s, p, 1, ceil_mode) for n, k, s, p in axes)
    listed = []
    for position, seen in _windows(in_size, out_size, kernel_size, stride, padding, ones):
        counted = [
            min(o * s - p + k, n + p) - (o * s - p)
            for o, (n, k, s, p) in zip(position, axes, strict=True)
        ]
        count = math.prod(counted if count_include_pad else map(len, seen))
        listed.append((position, seen, divisor_override or count))
    return out_size, listed


def _means(x: Array, out_size: Sizes, windows: Any) -> Array:
    out = np.zeros((*x.shape[:2], *out_size))
    everything: Any = (slice(None), slice(None))
    for position, seen, divisor in windows:
        window = x[(*everything, *np.ix_(*seen))]
        out[(*everything, *position)] = window.sum(axis=tuple(range(2, x.ndim))) / divisor
    return out


def _shares(grad: Array, in_size: Sizes, windows: Any) -> Array:
    """Return the gradient of means for their input: each window's samples share its output's."""
    out = np.zeros((*grad.shape[:2], *in_size))
    everything: Any = (slice(None), slice(None))
    for position, seen, divisor in windows:
        share = grad[(*everything, *position)] / divisor
        out[(*everything, *np.ix_(*seen))] += share.reshape(*share.shape, *(1,) * len(in_size))
    return out


def avg_pool(
    x: ArrayLike,
    *,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Return the mean of each window."""
    x = np.asarray(x).astype(np.float64)
    return _means(x, *_average_windows(
        x.shape[2:], kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    ))  # fmt: skip


def avg_pool_grad(
    grad_output: ArrayLike,
    *,
    input_size: Sizes,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Return the gradient of `avg_pool` for its input."""
    grad = np.asarray(grad_output).astype(np.float64)
    _, windows = _average_windows(
        input_size[2:], kernel_size, stride, padding, ceil_mode, count_include_pad,
        divisor_override,
    )  # fmt: skip
    return _shares(grad, input_size[2:], windows)


def lp_pool(
    x: ArrayLike,
    *,
    norm_type: float,
    kernel_size: int | Sizes,
    stride: int | Sizes,
    ceil_mode: bool = False,
) -> Array:
    """Return the root of the mean of each window's powers, times the taps of a window."""
    x = np.asarray(x).astype(np.float64)
    ndim = x.ndim - 2
    kernel_size, stride = _axes(kernel_size, ndim), _axes(stride, ndim)
    with np.errstate(all="ignore"):
        means = _means(x**norm_type, *_average_windows(
            x.shape[2:], kernel_size, stride, (0,) * ndim, ceil_mode, True, None
        ))  # fmt: skip
        made: Array = (means * math.prod(kernel_size)) ** (1 / norm_type)
    return made


def _adaptive_windows(in_size: Sizes, out_size: Sizes) -> list[Any]:
    """Return each position, the samples of its window, and their number."""
    axes = list(zip(in_size, out_size, strict=True))
    listed = []
    for position in np.ndindex(*out_size):
        seen = tuple(
            list(range(o * size // outputs, -(-(o + 1) * size // outputs)))
            for o, (size, outputs) in zip(position, axes, strict=True)
        )
        listed.append((position, seen, math.prod(map(len, seen))))
    return listed


def adaptive_max_pool(x: ArrayLike, *, output_size: Sizes, return_indices: bool = False) -> Any:
    """Return the largest sample of each of so many windows, and places."""
    x = np.asarray(x).astype(np.float64)
    windows = [each[:2] for each in _adaptive_windows(x.shape[2:], output_size)]
    made = _maxima(x, output_size, windows)
    return made if return_indices else made[0]


def adaptive_avg_pool(x: ArrayLike, *, output_size: Sizes) -> Array:
    """Return the mean of each of so many windows."""
    x = np.asarray(x).astype(np.float64)
    return _means(x, output_size, _adaptive_windows(x.shape[2:], output_size))


def adaptive_avg_pool_grad(grad_output: ArrayLike, *, input_size: Sizes) -> Array:
    """Return the gradient of `adaptive_avg_pool` for its input."""
    grad = np.asarray(grad_output).astype(np.float64)
    windows = _adaptive_windows(input_size[2:], grad.shape[2:])
    return _shares(grad, input_size[2:], windows)


def _at_places(x: ArrayLike, indices: ArrayLike, out_size: Sizes, add: bool) -> Array:
    """Return zeros with samples at their places: the last one's of each, or all together."""
    x, places = np.asarray(x).astype(np.float64), np.asarray(indices)
    out = np.zeros((x.shape[0] * x.shape[1], math.prod(out_size)))
    rows = zip(out, x.reshape(len(out), -1), places.reshape(len(out), -1), strict=True)
    for row, values, at in rows:
        for value, place in zip(values, at, strict=True):
            row[place] = value + (row[place] if add else 0)
    return out.reshape(*x.shape[:2], *out_size)


def max_unpool(
    x: ArrayLike,
    indices: ArrayLike,
    *,
    output_size: Sizes,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
) -> Array:
    """Return zeros with samples at their places; the window does not matter."""
    return _at_places(x, indices, output_size, add=False)


def max_pool_grad(grad_output: ArrayLike, indices: ArrayLike, *, input_size: Sizes) -> Array:
    """Return the gradient of a maximum for its input, by the places of the maxima."""
    return _at_places(grad_output, indices, input_size[2:], add=True)


def max_unpool_grad(grad_output: ArrayLike, indices: ArrayLike) -> Array:
    """Return the gradient of `max_unpool` for its input: what lies at the places."""
    grad, places = np.asarray(grad_output).astype(np.float64), np.asarray(indices)
    flat = grad.reshape(*grad.shape[:2], -1)
    found: Array = np.take_along_axis(flat, places.reshape(*places.shape[:2], -1), -1)
    return found.reshape(places.shape)
