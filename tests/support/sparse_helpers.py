"""What the tests of the sparse operators share: random sites, and the answers of dense grids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.contract.padding import Pads
from fastconv.sparse import SparseTensor
from helpers import DTYPES

Array = np.ndarray[Any, Any]


def whole(rng: np.random.Generator, shape: Sequence[int], dtype: str = "float32") -> Array:
    """Small whole numbers, whose sums are exact in every type."""
    return rng.integers(-2, 3, tuple(shape)).astype(DTYPES[dtype])


def random_sites(
    rng: np.random.Generator, shape: tuple[int, ...], batch_size: int, share: float
) -> Array:
    """A share of all sites, in no order."""
    total = batch_size * math.prod(shape)
    picked = rng.permutation(total)[: round(share * total)]
    return np.stack(np.unravel_index(picked, (batch_size, *shape)), axis=1)


def random_tensor(
    rng: np.random.Generator, shape: tuple[int, ...], channels: int, *, batch_size: int = 2,
    share: float = 0.3, dtype: str = "float32",
) -> SparseTensor:  # fmt: skip
    sites = random_sites(rng, shape, batch_size, share)
    features = whole(rng, (len(sites), channels), dtype)
    return SparseTensor(features, sites, shape, batch_size)


def _taps(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[tuple[Any, Any]]:
    every = itertools.product(*map(range, kernel))
    return [(tap, tuple(t * d for t, d in zip(tap, dilation, strict=True))) for tap in every]


def dense_conv(
    x: Array, w: Array, stride: tuple[int, ...], pads: Pads, dilation: tuple[int, ...],
    groups: int = 1,
) -> Array:  # fmt: skip
    """The convolution of a dense grid of any number of axes, in float64, a tap at a time."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *pads))
    kernel = w.shape[2:]
    size = [
        (length - d * (k - 1) - 1) // s + 1
        for length, k, s, d in zip(padded.shape[2:], kernel, stride, dilation, strict=True)
    ]
    taps = w.astype(np.float64).reshape(groups, -1, *w.shape[1:])
    out = np.zeros((len(x), groups, taps.shape[1], *size))
    split = padded.reshape(len(x), groups, -1, *padded.shape[2:])
    for tap, start in _taps(kernel, dilation):
        window = tuple(
            slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(start, size, stride, strict=True)
        )
        part = split[(..., *window)]
        out += np.einsum("gkc,ngc...->ngk...", taps[(..., *tap)], part)
    return out.reshape(len(x), -1, *size)


def dense_spread(
    x: Array, w: Array, stride: tuple[int, ...], pads: Pads, dilation: tuple[int, ...],
    size: tuple[int, ...], groups: int = 1,
) -> Array:  # fmt: skip
    """The transposed convolution onto a grid of `size`; the weight is (K, C / groups, ...)."""
    kernel = w.shape[2:]
    full = [
        max((n - 1) * s + d * (k - 1) + 1, low + out)
        for n, s, d, k, (low, _), out in zip(
            x.shape[2:], stride, dilation, kernel, pads, size, strict=True
        )
    ]
    taps = w.astype(np.float64).reshape(groups, -1, *w.shape[1:])
    made = np.zeros((len(x), groups, taps.shape[1], *full))
    split = x.astype(np.float64).reshape(len(x), groups, -1, *x.shape[2:])
    for tap, start in _taps(kernel, dilation):
        window = tuple(
            slice(a, a + (n - 1) * s + 1, s)
            for a, n, s in zip(start, x.shape[2:], stride, strict=True)
        )
        made[(..., *window)] += np.einsum("gkc,ngc...->ngk...", taps[(..., *tap)], split)
    crop = tuple(slice(low, low + out) for (low, _), out in zip(pads, size, strict=True))
    return made[(..., *crop)].reshape(len(x), -1, *size)


def occupancy(x: SparseTensor) -> Array:
    """1 at the active sites of a dense grid with one channel."""
    return x.replace(np.ones((len(x), 1))).dense()


def at_sites(dense: Array, sites: Array) -> Array:
    """The features of a dense grid at some sites."""
    return dense[(sites[:, 0], slice(None), *sites[:, 1:].T)]


def sites_of(reached: Array) -> Array:
    """The sites of a dense grid with one channel that are not zero, sorted."""
    return np.argwhere(reached[:, 0] != 0).astype(np.int32)


def in_order(x: SparseTensor) -> Array:
    """Features sorted by site."""
    order = np.lexsort(tuple(x.indices.T[::-1]))
    return x.features[order]
