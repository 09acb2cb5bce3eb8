"""The truth about sparse operators: plain NumPy in float64, slow and obvious.

Nothing here is ever dispatched to. Sites are found in a dictionary and sums are taken a pair at a
time; the features of whole numbers come out exact.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.contract.geometry import Geometry

__all__ = [
    "avg_pool",
    "avg_pool_grad",
    "build",
    "conv",
    "global_avg_pool",
    "global_max_pool",
    "max_pool",
    "max_pool_grad",
    "reverse",
    "weight_grad",
]

Array = NDArray[np.float64]
Indices = NDArray[np.int32]


def _meets(geometry: Geometry, site: tuple[int, ...], offset: tuple[int, ...]) -> Any:
    """Return the output site that an input site meets at an offset, None where there is none."""
    site_met = [site[0]]
    for axis, (i, k) in enumerate(zip(site[1:], offset, strict=True)):
        step, hole = geometry.stride[axis], geometry.dilation[axis]
        low = geometry.padding[axis][0]
        if geometry.kind == "transposed":
            o = i * step - low + k * hole
        else:
            o, rest = divmod(i + low - k * hole, step)
            if rest:
                return None
        if not 0 <= o < geometry.out_shape[axis]:
            return None
        site_met.append(o)
    return tuple(site_met)


def build(geometry: Geometry, indices: ArrayLike) -> tuple[Indices, NDArray[np.int32]]:
    """Return the sites after, and the table of neighbours."""
    sites = [tuple(row) for row in np.asarray(indices).tolist()]
    offsets = list(itertools.product(*map(range, geometry.kernel_size)))
    met = {
        (row, k): out
        for row, site in enumerate(sites)
        for k, offset in enumerate(offsets)
        if (out := _meets(geometry, site, offset)) is not None
    }
    outputs = sites if geometry.kind == "submanifold" else sorted(set(met.values()))
    rows = {site: row for row, site in enumerate(outputs)}
    table = np.full((len(offsets), len(outputs)), -1, np.int32)
    for (row, k), out in met.items():
        if out in rows:
            table[k, rows[out]] = row
    return np.array(outputs, np.int32).reshape(len(outputs), 1 + geometry.ndim), table


def reverse(neighbours: ArrayLike, in_rows: int) -> NDArray[np.int32]:
    """Return the table whose inputs are the outputs of another."""
    table = np.asarray(neighbours)
    back = np.full((len(table), in_rows), -1, np.int32)
    for k, out in zip(*np.nonzero(table >= 0), strict=True):
        back[k, table[k, out]] = out
    return back


def conv(
    x: ArrayLike,
    weight: ArrayLike,
    neighbours: ArrayLike,
    bias: ArrayLike | None = None,
    groups: int = 1,
) -> Array:
    """Return ``(out_rows, K)`` sums over ``weight (K, C / groups, *kernel_size)``, and the bias."""
    samples, table = np.asarray(x, np.float64), np.asarray(neighbours)
    taps = np.asarray(weight, np.float64)
    taps = taps.reshape(groups, len(taps) // groups, taps.shape[1], -1)
    out = np.zeros((table.shape[1], groups, taps.shape[1]))
    split = samples.reshape(len(samples), groups, samples.shape[1] // groups)
    for k, out_row in zip(*np.nonzero(table >= 0), strict=True):
        out[out_row] += np.einsum("gc,gkc->gk", split[table[k, out_row]], taps[..., k])
    flat = out.reshape(len(out), len(taps) * taps.shape[1])
    return flat if bias is None else flat + np.asarray(bias, np.float64)


def weight_grad(x: ArrayLike, grad_out: ArrayLike, neighbours: ArrayLike, groups: int = 1) -> Array:
    """Return the gradient for the weight, ``(K, C / groups, volume)``."""
    samples, grads = np.asarray(x, np.float64), np.asarray(grad_out, np.float64)
    table = np.asarray(neighbours)
    split = samples.reshape(len(samples), groups, samples.shape[1] // groups)
    by_group = grads.reshape(len(grads), groups, grads.shape[1] // groups)
    total = np.zeros((len(table), groups, by_group.shape[2], split.shape[2]))
    for k, out_row in zip(*np.nonzero(table >= 0), strict=True):
        total[k] += np.einsum("gk,gc->gkc", by_group[out_row], split[table[k, out_row]])
    return np.moveaxis(total, 0, -1).reshape(grads.shape[1], split.shape[2], len(table))


def max_pool(x: ArrayLike, neighbours: ArrayLike) -> Array:
    """Return the largest of the rows that each output meets; a NaN among them is the largest."""
    samples, table = np.asarray(x, np.float64), np.asarray(neighbours)
    out = np.full((table.shape[1], samples.shape[1]), -math.inf)
    for k, out_row in zip(*np.nonzero(table >= 0), strict=True):
        out[out_row] = np.maximum(out[out_row], samples[table[k, out_row]])
    return out


def max_pool_grad(
    x: ArrayLike, out: ArrayLike, grad_out: ArrayLike, neighbours: ArrayLike
) -> Array:
    """Return the gradient for `x`: that of an output goes to the first offset with its value."""
    samples, largest = np.asarray(x, np.float64), np.asarray(out, np.float64)
    grads, table = np.asarray(grad_out, np.float64), np.asarray(neighbours)
    total = np.zeros_like(samples)
    for out_row, channel in np.ndindex(*largest.shape):
        for row in table[:, out_row]:
            wanted = largest[out_row, channel]
            if row >= 0 and np.array_equal(samples[row, channel], wanted, equal_nan=True):
                total[row, channel] += grads[out_row, channel]
                break
    return total


def avg_pool(x: ArrayLike, neighbours: ArrayLike) -> Array:
    """Return the mean of the rows that each output meets."""
    table = np.asarray(neighbours)
    sums = conv(x, _ones(x, table), table, groups=np.shape(x)[1])
    return sums / (table >= 0).sum(0)[:, None]


def avg_pool_grad(grad_out: ArrayLike, neighbours: ArrayLike, in_rows: int) -> Array:
    """Return the gradient for the features of `avg_pool`."""
    table = np.asarray(neighbours)
    shares = np.asarray(grad_out, np.float64) / (table >= 0).sum(0)[:, None]
    back = reverse(table, in_rows)
    return conv(shares, _ones(shares, table), back, groups=shares.shape[1])


def global_max_pool(x: ArrayLike, batches: ArrayLike, batch_size: int) -> Array:
    """Return the largest of each grid's rows, ``(batch_size, C)``; 0 for a grid without a site."""
    samples, numbers = np.asarray(x, np.float64), np.asarray(batches)
    out = np.zeros((batch_size, samples.shape[1]))
    for batch in np.unique(numbers):
        out[batch] = np.max(samples[numbers == batch], axis=0)
    return out


def global_avg_pool(x: ArrayLike, batches: ArrayLike, batch_size: int) -> Array:
    """Return the mean of each grid's rows, ``(batch_size, C)``; 0 for a grid without a site."""
    samples, numbers = np.asarray(x, np.float64), np.asarray(batches)
    out = np.zeros((batch_size, samples.shape[1]))
    for batch in np.unique(numbers):
        out[batch] = np.mean(samples[numbers == batch], axis=0)
    return out


def _ones(x: ArrayLike, table: NDArray[Any]) -> Array:
    return np.ones((np.shape(x)[1], 1, len(table)))
