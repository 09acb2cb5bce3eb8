"""A sparse row's arrays and its true output, made alike in every process.

Sites are looked up by binary search among sorted keys, and each offset of the kernel is one matrix
product in float64: the sums of `fastconv.kernels.reference.sparse`, which a test holds it against,
at a speed that a scan of 100,000 voxels needs.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib

import numpy as np

from . import truth
from .sparse import SparseLayer
from .sparse_scan import Sites, scan_name, sites

__all__ = ["arrays", "expected", "flops", "neighbours", "setting", "wrong"]


def arrays(layer: SparseLayer) -> tuple[np.ndarray, ...]:
    """Return sites, features and weight: normal numbers from a seed that the line decides.

    Returns
    -------
    indices : ndarray of int32, shape (rows, 4)
        The scan's sites.
    x : ndarray, shape (input rows, C)
        Features; positive for a pool, as after a ReLU.
    weight : ndarray, shape (K, C / groups, *kernel_size)
        Scaled so that outputs are about 1.
    """
    rng = np.random.default_rng(zlib.crc32(layer.line().encode()))
    scan = sites()
    rows = len(scan.indices)
    if layer.op == "sparse_inverse_conv":
        rows = len(_after(layer)[0])
    x = rng.standard_normal((rows, layer.in_channels), dtype=np.float32)
    if layer.op == "sparse_max_pool":
        x = np.abs(x)
    weight = rng.standard_normal(layer.weight_shape, dtype=np.float32)
    weight /= np.float32(np.sqrt(math.prod(layer.weight_shape[1:])))
    return scan.indices, x, weight


def expected(layer: SparseLayer, indices: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the output features in float64, rows sorted by site; for a rulebook, its table."""
    table = neighbours(layer)
    if layer.op == "rulebook":
        return table
    if layer.op == "sparse_max_pool":
        return _max_pool(x, table)
    if layer.op == "sparse_inverse_conv":
        table = _reversed(table, len(indices))
    return _conv(x.astype(np.float64), w.astype(np.float64), table, layer.groups)


def neighbours(layer: SparseLayer) -> np.ndarray:
    """Return the row before that each row after meets at each offset, (volume, rows), or -1."""
    return _after(layer)[1]


def flops(layer: SparseLayer) -> int:
    """Return the useful floating point operations: two a pair and product of channels."""
    return layer.flops(int((neighbours(layer) >= 0).sum()))


def setting() -> str:
    """Return what the report says about the data: the scan that all rows are over."""
    return f"scan: {scan_name()}"


def wrong(layer: SparseLayer, result: np.ndarray, true: np.ndarray) -> str | None:
    """Return the sentence that says why a result gets no figure, or None for a right one."""
    allowed = 0.0 if layer.op == "rulebook" else truth.TOLERANCE[layer.dtype]
    return truth.verdict(result, true, allowed)


def _after(layer: SparseLayer) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of the sites after, and the table that leads to them."""
    window = (layer.is_submanifold, layer.kernel_size, layer.stride, layer.padding)
    return _tables(sites(), *window)


@functools.cache
def _tables(
    scan: Sites,
    submanifold: bool,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Meet every site with every offset: after ``a``, before ``b = a * stride - padding + k``."""
    sizes = zip(scan.spatial_shape, kernel_size, stride, padding, strict=True)
    shape = tuple((size + 2 * pad - taps) // step + 1 for size, taps, step, pad in sizes)
    if submanifold:
        shape = scan.spatial_shape
    met = []
    for offset in itertools.product(*map(range, kernel_size)):
        place, rest = np.divmod(scan.indices[:, 1:] + padding - np.array(offset), stride)
        here = ((rest == 0) & (place >= 0) & (place < shape)).all(1)
        rows = np.flatnonzero(here)
        met.append((rows, np.ravel_multi_index(tuple(place[rows].T), shape)))
    if submanifold:  # sites are sorted
        after = np.ravel_multi_index(tuple(scan.indices[:, 1:].T), shape)
    else:
        after = np.unique(np.concatenate([keys for _, keys in met]))
    table = np.full((len(met), len(after)), -1, np.int32)
    for k, (rows, keys) in enumerate(met):
        at = np.minimum(np.searchsorted(after, keys), len(after) - 1)
        is_site = after[at] == keys
        table[k, at[is_site]] = rows[is_site]
    return after, table


def _reversed(table: np.ndarray, rows: int) -> np.ndarray:
    back = np.full((len(table), rows), -1, np.int32)
    k, after = np.nonzero(table >= 0)
    back[k, table[k, after]] = after
    return back


def _conv(x: np.ndarray, w: np.ndarray, table: np.ndarray, groups: int) -> np.ndarray:
    taps = w.reshape(groups, len(w) // groups, w.shape[1], -1)
    split = x.reshape(len(x), groups, -1)
    out = np.zeros((table.shape[1], groups, taps.shape[1]))
    for k, row in enumerate(table):
        after = np.flatnonzero(row >= 0)
        met = split[row[after]].transpose(1, 0, 2)  # (groups, pairs, C / groups)
        out[after] += np.matmul(met, taps[..., k].transpose(0, 2, 1)).transpose(1, 0, 2)
    return out.reshape(len(out), -1)


def _max_pool(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    out = np.full((table.shape[1], x.shape[1]), -np.inf)
    for row in table:
        after = np.flatnonzero(row >= 0)
        out[after] = np.maximum(out[after], x[row[after]])
    return out
