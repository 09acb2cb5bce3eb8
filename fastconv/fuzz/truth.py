"""The convolution of an input of which the padding could never be laid out in memory.

`fastconv.kernels.reference` pads with zeros, so pads of 2**40 are beyond it. Here each tap is added
to the outputs that it reaches inside the input, and to no other: a definition as plain, in which
padding is left out rather than multiplied.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["conv"]


def _reached(out: int, size: int, step: int, start: int) -> tuple[slice, slice]:
    """Return the outputs of one axis whose tap, at ``output * step + start``, meets the input."""
    first = max(0, -(start // step))
    last = min(out - 1, (size - 1 - start) // step)
    if last < first:
        return slice(0, 0), slice(0, 0)
    begin = first * step + start
    return slice(first, last + 1), slice(begin, begin + (last - first) * step + 1, step)


def conv(
    x: NDArray[Any],
    weight: NDArray[Any],
    *,
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int = 1,
) -> NDArray[np.float64]:
    """Return the sums of `fastconv.kernels.reference.conv`, padding left out.

    Examples
    --------
    >>> x, w = np.arange(1.0, 4.0).reshape(1, 1, 3), np.ones((1, 1, 3))
    >>> conv(x, w, stride=(1,), padding=((2**40, 2**40),), dilation=(2**40,)).tolist()
    [[[1.0, 2.0, 3.0]]]
    """
    batch, channels, *size = x.shape
    filters, _, *kernel = weight.shape
    axes = list(zip(size, kernel, stride, padding, dilation, strict=True))
    out_size = [(n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]
    split: Any = x.astype(np.float64).reshape(batch, groups, channels // groups, *size)
    taps: Any = weight.astype(np.float64).reshape(
        groups, filters // groups, channels // groups, *kernel
    )
    out = np.zeros((batch, groups, filters // groups, *out_size))
    for tap in itertools.product(*map(range, kernel)):
        meets = [
            _reached(o, n, s, t * d - low)
            for o, t, (n, _, s, (low, _), d) in zip(out_size, tap, axes, strict=True)
        ]
        out_places: Any = (..., *(outputs for outputs, _ in meets))
        in_places: Any = (..., *(inputs for _, inputs in meets))
        at_tap: Any = (..., *tap)
        with np.errstate(over="ignore", invalid="ignore"):
            out[out_places] += np.einsum("gkc,ngc...->ngk...", taps[at_tap], split[in_places])
    return out.reshape(batch, filters, *out_size)
