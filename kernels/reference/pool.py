"""Pools over windows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["max_pool"]

Array = NDArray[np.float64]


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


def max_pool(
    x: ArrayLike,
    *,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool = False,
) -> Any:
    """Return the largest sample of each window; NaN where it holds one.

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
    out = np.full((*x.shape[:2], *out_size), -np.inf)
    for position, seen in _windows(in_size, out_size, kernel_size, stride, padding, dilation):
        everything: Any = (slice(None), slice(None))
        window = x[(*everything, *np.ix_(*seen))]
        out[(*everything, *position)] = window.max(axis=tuple(range(2, x.ndim)))
    return out
