"""Filters that are outer products: found by value, run as two passes, right to rounding."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import fastconv
from fastconv.kernels import reference
from fastconv.kernels.cpu.window.separable import factors

TAPS = 9
GAUSSIAN = np.exp(-(np.linspace(-2, 2, TAPS) ** 2))
BINOMIAL = np.array([1, 8, 28, 56, 70, 56, 28, 8, 1.0])
EDGE = np.array([-1, -2, -3, -4, 0, 4, 3, 2, 1.0])
SEPARABLE = {
    "gaussian": np.outer(GAUSSIAN, GAUSSIAN),
    "box": np.full((TAPS, TAPS), 1 / TAPS**2),
    "sobel": np.outer(BINOMIAL, EDGE),
    "thirds": np.outer(np.arange(1.0, TAPS + 1), np.arange(3.0, TAPS + 3)),
    "zero": np.zeros((TAPS, TAPS)),
    "one tap": np.eye(1, TAPS * TAPS, 11).reshape(TAPS, TAPS),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SEPARABLE)
def test_factors_multiply_to_the_filter(name: str, dtype: type) -> None:
    filters = SEPARABLE[name].astype(dtype)[None]
    found = factors(filters)
    assert found is not None
    u, v = (part.astype(np.float64) for part in found)
    error = np.abs(u[:, :, None] * v[:, None, :] - filters).max()
    assert error <= 2 * np.finfo(dtype).eps * np.abs(filters).max()
    if np.all(filters == np.rint(filters)):
        assert np.all(u == np.rint(u)), "whole numbers stay whole"
        assert np.all(v == np.rint(v)), "whole numbers stay whole"
        assert error == 0


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("f4", 1e-30), ("f4", 1e30), ("f8", 1e-163), ("f8", 1e-290), ("f8", 1e200), ("f8", 1e300)],
)
@pytest.mark.parametrize("name", ["gaussian", "sobel", "thirds"])
def test_factors_of_tiny_and_huge_filters(name: str, dtype: str, scale: float) -> None:
    kind = np.finfo(dtype)
    one = SEPARABLE[name] / np.abs(SEPARABLE[name]).max()
    filters = np.stack([one * scale, one, one * scale / 3]).astype(dtype)
    found = factors(filters)
    assert found is not None, "the rank does not depend on the scale"
    for part in found:
        sizes = np.abs(part[part != 0]).astype(np.float64)
        assert sizes.min() > kind.tiny and sizes.max() < kind.max
    u, v = (part.astype(np.longdouble) for part in found)
    largest = np.abs(filters).max(axis=(1, 2))[:, None, None]
    error = np.abs(u[:, :, None] * v[:, None, :] - filters) / largest
    assert error.max() <= 2 * kind.eps
    skewed = filters.copy()
    skewed[0, 3, 5] *= 1 + 100 * kind.eps
    skewed[0, 4, 5] *= 1 - 100 * kind.eps
    assert factors(skewed) is None, "nor does a filter that is none become one"


@pytest.mark.parametrize(("dtype", "scale"), [("f4", 1e-30), ("f8", 1e-163), ("f8", 1e200)])
def test_two_passes_of_a_scaled_filter(dtype: str, scale: float, rng: np.random.Generator) -> None:
    taps = np.hanning(33)[1:-1]
    weight = (np.outer(taps, taps)[None, None] * scale).astype(dtype)
    x = rng.standard_normal((1, 1, 40, 45)).astype(dtype)
    truth = reference.conv(x, weight, stride=(1, 1), padding=((15, 15), (15, 15)), dilation=(1, 1))
    for kernel in ("cpu.fast_fir", "cpu.fft"):
        with fastconv.use_kernel(kernel):
            result = fastconv.conv2d(x, weight, padding=15)
        error = np.abs(result - truth).max() / np.abs(truth).max()
        assert error <= (1e-6 if dtype == "f4" else 4e-15), kernel


def test_other_filters_have_no_factors(rng: np.random.Generator) -> None:
    assert factors(rng.standard_normal((1, TAPS, TAPS)).astype(np.float32)) is None
    nearly = SEPARABLE["gaussian"].astype(np.float32)
    nearly[3, 4] *= np.float32(1 + 1e-5)
    assert factors(nearly[None]) is None
    both = np.stack([SEPARABLE["box"], np.eye(TAPS)]).astype(np.float32)
    assert factors(both) is None, "every filter of a layer must be one"
    for value in (np.nan, np.inf):
        filled = SEPARABLE["box"].copy()
        filled[2, 2] = value
        assert factors(filled[None]) is None


def test_the_first_filter_tells_of_most_layers(rng: np.random.Generator) -> None:
    """A functional call asks each time: the other filters are then not read."""
    filters = rng.standard_normal((500, 31, 31)).astype(np.float32)
    tracemalloc.start()
    try:
        assert factors(filters) is None
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < filters.nbytes / 8


@pytest.mark.parametrize("kernel", ["cpu.fast_fir", "cpu.fft"])
@pytest.mark.parametrize("name", SEPARABLE)
def test_two_passes_agree_with_the_definition(
    name: str, kernel: str, rng: np.random.Generator
) -> None:
    weight = np.repeat(SEPARABLE[name].astype(np.float32)[None, None], 2, axis=0)
    weight[1] *= 2
    x = rng.integers(-3, 4, (3, 2, 20, 33)).astype(np.float32)
    bias = np.array([1, -2], np.float32)
    residual = rng.integers(-9, 9, (3, 2, 20, 32)).astype(np.float32)
    padding = ((4, 4), (3, 4))
    with fastconv.use_kernel(kernel):
        result = fastconv.conv2d(
            x, weight, bias, padding=padding, groups=2, residual=residual, activation="relu"
        )
    truth = reference.conv(
        x, weight, bias, stride=(1, 1), padding=padding, dilation=(1, 1), groups=2,
        residual=residual, activation="relu",
    )  # fmt: skip
    assert np.abs(result - truth).max() <= 2e-6 * max(np.abs(truth).max(), 1)
    if np.all(weight == np.rint(weight)):
        assert np.array_equal(result, truth), "whole numbers are exact in two passes"


def test_one_object_serves_sizes_that_pack_apart(rng: np.random.Generator) -> None:
    """The packed weight of an object is kept under a name that tells both ways apart."""
    weight = SEPARABLE["gaussian"].astype(np.float32)[None, None]
    layer = fastconv.Conv2d(weight, padding=4)
    for size in (20, 45):
        x = rng.standard_normal((1, 1, size, size)).astype(np.float32)
        for kernel in ("cpu.fast_fir", "cpu.depthwise", "cpu.fft"):
            with fastconv.use_kernel(kernel):
                result = layer(x)
            pads = ((4, 4), (4, 4))
            truth = reference.conv(x, weight, stride=(1, 1), padding=pads, dilation=(1, 1))
            assert np.abs(result - truth).max() <= 2e-5 * np.abs(truth).max()
