"""A case's arrays and its true output, made alike in every process.

`arrays` draws the same numbers for a problem wherever it runs. `expected` is the float64 output:
the same sum as `fastconv.kernels.reference.conv`, in an order that BLAS runs fast (many taps
gathered into one matrix product), and by FFT for large depthwise kernels, whose error in float64
is some 1e-15 of the largest output. A test holds it against the reference.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import Any

import numpy as np

from fastconv.contract.problem import ConvProblem, DenseSizes, ElementSizes

__all__ = [
    "TOLERANCE",
    "arrays",
    "draw",
    "expected",
    "flops",
    "lay_out",
    "numpy_dtype",
    "relative_error",
    "setting",
    "verdict",
    "windows",
    "wrong",
]

#: Largest accepted error, relative to the largest output. float32: benchdnn's threshold for
#: Winograd; float64: room for an FFT; the halves: two roundings of the result.
TOLERANCE = {"float32": 2e-5, "float64": 1e-12, "float16": 2e-3, "bfloat16": 1.6e-2}

_COLUMN_BYTES = 128 << 20
_PRODUCT_DEPTH = 64
_FFT_TAPS = 64


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return NumPy's dtype for a problem's, ``bfloat16`` through ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def arrays(problem: ConvProblem) -> tuple[np.ndarray, np.ndarray]:
    """Return input and weight of a problem: normal numbers from a seed that its line decides.

    The input lies in memory as ``problem.layout`` says; the weight is scaled so that outputs are
    about 1.
    """
    return draw(problem, prod(problem.weight_shape[1:]))


def draw(problem: DenseSizes, terms: float) -> tuple[np.ndarray, np.ndarray]:
    """Return input and weight of any dense problem, of whose outputs each sums so many terms."""
    rng = np.random.default_rng(zlib.crc32(problem.line().encode()))
    single = np.float64 if problem.dtype == "float64" else np.float32
    dtype = numpy_dtype(problem.dtype)
    x = rng.standard_normal(problem.x_shape, dtype=single)
    w = rng.standard_normal(problem.weight_shape, dtype=single)
    w /= np.sqrt(terms)
    return lay_out(x.astype(dtype, copy=False), problem.layout), w.astype(dtype, copy=False)


def lay_out(x: np.ndarray, layout: str) -> np.ndarray:
    """Return the same values in the memory order of a layout."""
    if layout == "channels_last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    if layout == "strided":
        return np.repeat(x, 2, axis=-1)[..., ::2]
    return x


def expected(problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the convolution in float64, shape ``problem.out_shape``."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *problem.padding))
    weight = w.astype(np.float64)
    dense = set(problem.stride) == {1} == set(problem.dilation)
    if dense and problem.is_depthwise and prod(problem.kernel_size) >= _FFT_TAPS:
        return _by_fft(problem, padded, weight)
    return _by_taps(problem, padded, weight)


def _by_taps(problem: ConvProblem, padded: np.ndarray, w: np.ndarray) -> np.ndarray:
    n, groups, pixels = problem.batch, problem.groups, prod(problem.out_size)
    depth = problem.in_channels // groups
    room = _COLUMN_BYTES // max(1, 8 * n * problem.in_channels * pixels)
    chunk = max(1, min(_PRODUCT_DEPTH // depth, room))
    out = np.zeros((n, groups, problem.out_channels // groups, pixels))
    matrix = w.reshape(groups, problem.out_channels // groups, depth, -1)
    taps = np.ndindex(*problem.kernel_size)
    for start in range(0, prod(problem.kernel_size), chunk):
        columns = np.stack(list(windows(problem, padded, islice(taps, chunk))), axis=2)
        part = matrix[..., start : start + chunk]
        rows = depth * part.shape[-1]
        out += np.matmul(part.reshape(groups, -1, rows), columns.reshape(n, groups, rows, pixels))
    return out.reshape(problem.out_shape)


def windows(
    problem: ConvProblem, padded: np.ndarray, taps: Iterator[tuple[int, ...]]
) -> Iterator[np.ndarray]:
    """Yield, for each tap, the input that it meets: shape ``(N, C, *out_size)``."""
    axes = list(zip(problem.stride, problem.dilation, problem.out_size, strict=True))
    for tap in taps:
        cut = [
            slice(t * d, t * d + (o - 1) * s + 1, s) for t, (s, d, o) in zip(tap, axes, strict=True)
        ]
        yield padded[(slice(None), slice(None), *cut)]


def _by_fft(problem: ConvProblem, padded: np.ndarray, w: np.ndarray) -> np.ndarray:
    axes = tuple(range(2, 2 + problem.ndim))
    sizes = tuple(_smooth(size) for size in padded.shape[2:])
    multiplier = problem.out_channels // problem.groups
    # A correlation is the product with the conjugate; what wraps around lies beyond the crop.
    kernel = np.fft.rfftn(w[:, 0], sizes, tuple(axis - 1 for axis in axes)).conj()
    out = np.empty(problem.out_shape)
    crop = tuple(slice(size) for size in problem.out_size)
    for n, k in np.ndindex(problem.batch, problem.out_channels):
        spectrum = np.fft.rfftn(padded[n, k // multiplier], sizes, tuple(a - 2 for a in axes))
        plane = np.fft.irfftn(spectrum * kernel[k], sizes, tuple(a - 2 for a in axes))
        out[n, k] = plane[crop]
    return out


def _smooth(size: int) -> int:
    """Return the next size that has no prime factor above 5, which the FFT runs fast."""
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 1


def relative_error(result: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest error, relative to the largest true output; infinite where NaN is."""
    if not truth.size:
        return 0.0
    difference = np.abs(np.subtract(result, truth, dtype=np.float64))
    error = float(difference.max()) / max(float(np.abs(truth).max()), np.finfo(np.float64).tiny)
    return error if np.isfinite(error) else float("inf")


def flops(problem: Any) -> int:
    """Return the floating point operations."""
    return problem.flops


def setting() -> str:
    """Return what the report says about the data: nothing, as lines tell all sizes."""
    return ""


def wrong(problem: ElementSizes, result: np.ndarray, truth: np.ndarray) -> str | None:
    """Return the sentence that says why a result gets no figure, or None for a right one."""
    return verdict(result, truth, TOLERANCE[problem.dtype])


def verdict(result: np.ndarray, truth: np.ndarray, allowed: float) -> str | None:
    """Return why a result is wrong where its relative error is larger than allowed."""
    if result.shape != truth.shape:
        return f"wrong result: got shape {result.shape}, want {truth.shape}"
    error = relative_error(result, truth)
    if error <= allowed:
        return None
    return f"wrong result: error {error:.1e} of the largest output, allowed {allowed:.1e}"
