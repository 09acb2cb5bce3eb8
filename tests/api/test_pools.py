"""Pools of arrays: bad input, special values, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fastconv
from fastconv.contract.errors import ArgumentError, DTypeError, ShapeError

X = np.arange(2 * 3 * 6 * 8, dtype=np.float32).reshape(2, 3, 6, 8)
PLACES = np.zeros((2, 3, 3, 4), np.int64)
POOLED = np.ones((2, 3, 3, 4), np.float32)

BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "kernel": (lambda: fastconv.avg_pool2d(X, 0), ShapeError, r"kernel_size: got \(0, 0\), want"),
    "pad": (lambda: fastconv.avg_pool2d(X, 2, padding=2), ShapeError, "padding: got 2 along"),
    "window": (lambda: fastconv.max_pool2d(X, 9), ShapeError, "kernel_size: got .* want a window"),
    "axes": (lambda: fastconv.max_pool1d(X, 2), ShapeError, "input: got 4 axes"),
    "divisor": (
        lambda: fastconv.avg_pool2d(X, 2, divisor_override=0), ShapeError,
        "divisor_override: got 0, want None",
    ),
    "counted": (
        lambda: fastconv.avg_pool2d(X, 2, count_include_pad=1), ArgumentError,
        "count_include_pad: got 1, want True or False",
    ),
    "indices": (
        lambda: fastconv.max_pool2d(X, 2, return_indices=None), ArgumentError,
        "return_indices: got None",
    ),
    "norm": (lambda: fastconv.lp_pool2d(X, 0, 2), ArgumentError, "norm_type: got 0, want a finite"),
    "norm word": (lambda: fastconv.lp_pool2d(X, "2", 2), ArgumentError, "norm_type: got '2'"),
    "outputs": (
        lambda: fastconv.adaptive_avg_pool2d(X, (0, 1)), ShapeError, r"output_size: got \(0, 1\)"
    ),
    "three outputs": (
        lambda: fastconv.adaptive_max_pool2d(X, (1, 2, 3)), ShapeError, "output_size: got 3 values"
    ),
    "place before": (
        lambda: fastconv.max_unpool2d(POOLED, PLACES - 1, 2), ArgumentError,
        "indices: got -1, want whole numbers from 0 to 47",
    ),
    "place behind": (
        lambda: fastconv.max_unpool2d(POOLED, PLACES + 48, 2), ArgumentError, "indices: got 48"
    ),
    "places of int32": (
        lambda: fastconv.max_unpool2d(POOLED, PLACES.astype(np.int32), 2), DTypeError,
        "indices: got int32, want int64",
    ),
    "fewer places": (
        lambda: fastconv.max_unpool2d(POOLED, PLACES[:1], 2), ShapeError, "indices: got shape"
    ),
    "unpooled size": (
        lambda: fastconv.max_unpool2d(POOLED, PLACES, 2, output_size=(8, 8)), ShapeError,
        "output_size: got 8 along spatial axis 0",
    ),
    "gradient's shape": (
        lambda: fastconv.grad.avg_pool2d_input(X.shape, POOLED, 3), ShapeError,
        "grad_output: got shape",
    ),
    "gradient's place": (
        lambda: fastconv.grad.max_pool2d_input(X.shape, PLACES + 99, POOLED), ArgumentError,
        "indices: got 99",
    ),
    "input's size": (
        lambda: fastconv.grad.adaptive_avg_pool2d_input((2, 4, 6, 8), POOLED), ShapeError,
        "input_size: got",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_nothing_is_written_before_a_place_is_refused() -> None:
    out = np.full((2, 3, 6, 8), 7, np.float32)
    wrong = PLACES.copy()
    wrong[-1, -1, -1, -1] = 48
    for _ in range(2):  # the second call finds its plan
        with pytest.raises(ArgumentError):
            fastconv.max_unpool2d(POOLED, wrong, 2, out=out)
        assert (out == 7).all()
        fastconv.max_unpool2d(POOLED, PLACES, 2)


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, 1.0]


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("size", [5, 40])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 1, 0), (5, 5, 2)])
def test_special_values_are_pytorch_s(
    kernel: int, stride: int, padding: int, size: int, layout: str, rng: np.random.Generator
) -> None:
    """NaN and infinities come out where PyTorch has them, and so do their places."""
    x = rng.choice(SPECIAL, (2, 20, size, size), p=[0.1, 0.1, 0.4, 0.2, 0.2]).astype(np.float32)
    if layout == "last":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    given = torch.from_numpy(np.ascontiguousarray(x))
    theirs = torch.nn.functional.max_pool2d(
        given, kernel, stride, padding, return_indices=True
    )  # fmt: skip
    ours = fastconv.max_pool2d(x, kernel, stride, padding, return_indices=True)
    np.testing.assert_array_equal(ours[0], theirs[0].numpy())
    np.testing.assert_array_equal(ours[1], theirs[1].numpy())
    np.testing.assert_array_equal(fastconv.max_pool2d(x, kernel, stride, padding), ours[0])
    means = torch.nn.functional.avg_pool2d(given, kernel, stride, padding)
    np.testing.assert_allclose(
        fastconv.avg_pool2d(x, kernel, stride, padding), means.numpy(), rtol=1e-6
    )


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (5, 1, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_nan_is_in_every_maximum_over_it(
    dtype: type, kernel: int, stride: int, padding: int, rng: np.random.Generator
) -> None:
    """Each channel has its NaN in another place, among negative and positive samples."""
    size = 21
    x = rng.standard_normal((1, size * size, size, size)).astype(dtype)
    np.put_along_axis(
        x.reshape(1, size * size, -1), np.arange(size * size)[None, :, None], np.nan, 2
    )
    theirs = torch.nn.functional.max_pool2d(torch.from_numpy(x), kernel, stride, padding)
    np.testing.assert_array_equal(fastconv.max_pool2d(x, kernel, stride, padding), theirs.numpy())


def test_a_global_maximum_keeps_nan() -> None:
    x = np.full((1, 2, 7, 9), -np.inf, np.float32)
    x[0, 1, 6, 8] = np.nan
    assert np.isneginf(fastconv.adaptive_max_pool2d(x, 1)[0, 0])
    assert np.isnan(fastconv.adaptive_max_pool2d(x, 1)[0, 1])


CALLS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "avg": (
        "avg_pool2d", "avg_pool2d_input",
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1, "count_include_pad": False},
    ),
    "avg, rounded up": (
        "avg_pool2d", "avg_pool2d_input", {"kernel_size": 3, "stride": 3, "ceil_mode": True}
    ),
    "avg 1-D": ("avg_pool1d", "avg_pool1d_input", {"kernel_size": 3, "stride": 1, "padding": 1}),
    "avg 3-D": ("avg_pool3d", "avg_pool3d_input", {"kernel_size": 2, "divisor_override": 3}),
    "adaptive": ("adaptive_avg_pool2d", "adaptive_avg_pool2d_input", {"output_size": (3, 5)}),
    "max": ("max_pool2d", "max_pool2d_input", {"kernel_size": 3, "stride": 1, "padding": 1}),
    "max 3-D": ("max_pool3d", "max_pool3d_input", {"kernel_size": 2}),
    "adaptive max": ("adaptive_max_pool1d", "adaptive_max_pool1d_input", {"output_size": 4}),
    "lp": ("lp_pool2d", "lp_pool2d_input", {"norm_type": 3.0, "kernel_size": 2, "stride": 1}),
    "lp, rounded up": (
        "lp_pool2d", "lp_pool2d_input", {"norm_type": 2, "kernel_size": 3, "ceil_mode": True}
    ),
}  # fmt: skip


def _ours(name: str, x: np.ndarray, grad: np.ndarray) -> np.ndarray:
    forward, backward, keywords = CALLS[name]
    function = getattr(fastconv.grad, backward)
    if "max" in forward:
        _, places = getattr(fastconv, forward)(x, **keywords, return_indices=True)
        return np.asarray(function(x.shape, places, grad))
    if "lp" in forward:
        return np.asarray(function(x, grad, **keywords))
    keywords = {key: value for key, value in keywords.items() if key != "output_size"}
    return np.asarray(function(x.shape, grad, **keywords))


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_autograd_s(name: str, layout: str, rng: np.random.Generator) -> None:
    forward, _, keywords = CALLS[name]
    axes = int(forward[-2])
    x = np.abs(rng.standard_normal((2, 5, 9, 8, 7)[: axes + 2])) + 0.1
    given = torch.from_numpy(x).requires_grad_()
    y = getattr(torch.nn.functional, forward)(given, **keywords)
    grad = rng.standard_normal(tuple(y.shape))
    y.backward(torch.from_numpy(grad))
    if layout == "last":
        x, grad = (np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)
                   for a in (x, grad))  # fmt: skip
    assert given.grad is not None
    np.testing.assert_allclose(_ours(name, x, grad), given.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["avg", "adaptive", "lp", "avg, rounded up"])
def test_gradients_are_differences(name: str, rng: np.random.Generator) -> None:
    forward, _, keywords = CALLS[name]
    x = rng.random((1, 2, 5, 6)) + 0.5
    function = getattr(fastconv, forward)
    grad = rng.standard_normal(function(x, **keywords).shape)
    made, step = _ours(name, x, grad), 1e-5
    for place in [(0, 0, 0, 0), (0, 1, 2, 3), (0, 1, 4, 5)]:
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        up, down = (float((function(each, **keywords) * grad).sum()) for each in moved)
        assert made[place] == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=1e-8)


def test_unpooling_and_its_gradient_are_pytorch_s(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 5, 6, 8))
    y, places = fastconv.max_pool2d(x, 2, return_indices=True)
    given = torch.from_numpy(y).requires_grad_()
    theirs = torch.nn.functional.max_unpool2d(given, torch.from_numpy(places), 2)
    np.testing.assert_array_equal(fastconv.max_unpool2d(y, places, 2), theirs.detach().numpy())
    grad = rng.standard_normal(tuple(theirs.shape))
    theirs.backward(torch.from_numpy(grad))
    assert given.grad is not None
    np.testing.assert_array_equal(
        fastconv.grad.max_unpool2d_input(places, grad), given.grad.numpy()
    )


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 1.5])
def test_norms_of_any_power(power: float, rng: np.random.Generator) -> None:
    x = rng.random((2, 3, 9, 20))
    theirs = torch.nn.functional.lp_pool2d(torch.from_numpy(x), power, 3, 2)
    np.testing.assert_allclose(fastconv.lp_pool2d(x, power, 3, 2), theirs.numpy(), rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 3, 4, 5), (2, 3, 1 << 30, 1 << 20), (3, 3, 4)])
def test_a_norm_s_gradient_looks_at_shapes_first(shape: tuple[int, ...]) -> None:
    grad = np.broadcast_to(np.float32(1), shape)
    with pytest.raises(ShapeError, match=r"grad_output: got shape .* want \(2, 3, 3, 4\)"):
        fastconv.grad.lp_pool2d_input(X, grad, 2, 2)


def test_without_a_batch_and_with_an_empty_one() -> None:
    y, places = fastconv.max_pool2d(X[0], 2, return_indices=True)
    assert y.shape == places.shape == (3, 3, 4)
    assert fastconv.adaptive_avg_pool2d(X[:0], 1).shape == (0, 3, 1, 1)
    assert fastconv.grad.avg_pool2d_input(X.shape[1:], POOLED[0], 2).shape == X.shape[1:]
    out = np.empty((3, 6, 8), np.float32)
    assert fastconv.max_unpool2d(y, places, 2, out=out) is out
