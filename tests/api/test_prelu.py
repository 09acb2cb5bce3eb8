"""PReLU as an activation of convolutions: one slope for each output channel."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.array_libraries import EmulatedArray
from fastconv.contract.errors import DeviceError, DTypeError, FastconvError, ShapeError
from fastconv.kernels import reference
from helpers import assert_exact, bits, memory_orders

DTYPES = ("float32", "float64", "float16")


def whole(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> np.ndarray:
    return rng.integers(-3, 4, shape).astype(dtype)


def slopes_of(channels: int, dtype: str = "float32") -> np.ndarray:
    return np.resize([0.25, -1.0, 0.5, 2.0, 0.0], channels).astype(dtype)


def told(ndim: int, **more: Any) -> dict[str, Any]:
    return {"stride": (1,) * ndim, "padding": ((1, 1),) * ndim, "dilation": (1,) * ndim, **more}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_functions_and_layers(ndim: int, dtype: str, rng: np.random.Generator) -> None:
    x, w = whole(rng, 2, 3, *(6, 5, 7)[:ndim], dtype=dtype), whole(rng, 5, 3, *(3,) * ndim)
    w, slopes = w.astype(dtype), slopes_of(5, dtype)
    bias, window = whole(rng, 5, dtype=dtype), {"padding": 1}
    wanted = reference.conv(x, w, bias, **told(ndim), activation="prelu", alpha=slopes)
    call, make = getattr(fastconv, f"conv{ndim}d"), getattr(fastconv, f"Conv{ndim}d")
    with fastconv.precision("exact"):
        for order in memory_orders(slopes).values():
            assert_exact(call(x, w, bias, **window, activation=("prelu", order)), wanted)
        layer = make(w, bias, **window, activation=("prelu", slopes))
        slopes[:] = np.nan  # a layer keeps what it was given
        assert_exact(layer(x), wanted)
        assert_exact(pickle.loads(pickle.dumps(layer))(x), wanted)
        assert_exact(layer(x[0]), wanted[0])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "window"),
    [
        ((2, 2), {"stride": 2}),  # one product
        ((4, 4), {"stride": 2, "padding": 1}),  # phases side by side
        ((3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
        ((1, 1), {"stride": 2}),  # phases without taps
    ],
)
def test_transposed(
    kernel: tuple[int, int], window: dict[str, int], bias: bool, rng: np.random.Generator
) -> None:
    x, w = whole(rng, 2, 4, 5, 6), whole(rng, 4, 3, *kernel)
    slopes, b = slopes_of(3), whole(rng, 3) if bias else None
    call = {"activation": ("prelu", slopes), **window}
    pad = window.get("padding", 0)
    wanted = reference.conv_transpose(
        x, w, b, stride=(2, 2), padding=((pad, pad),) * 2, dilation=(1, 1),
        output_padding=(window.get("output_padding", 0),) * 2, activation="prelu", alpha=slopes,
    )  # fmt: skip
    assert_exact(fastconv.conv_transpose2d(x, w, b, **call), wanted)
    assert_exact(fastconv.ConvTranspose2d(w, b, **call)(x), wanted)


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear(rows: int, bias: bool, dtype: str, rng: np.random.Generator) -> None:
    x, w = whole(rng, rows, 21, dtype=dtype), whole(rng, 35, 21, dtype=dtype)
    b, slopes = whole(rng, 35, dtype=dtype) if bias else None, slopes_of(35, dtype)
    wanted = reference.linear(x, w, b, activation=("prelu", slopes))
    layer = fastconv.Linear(w, b, activation=("prelu", slopes))
    assert_exact(layer(x), wanted)
    assert layer.prepare(x)
    for order in memory_orders(slopes).values():
        assert_exact(fastconv.linear(x, w, b, activation=("prelu", order)), wanted)


@pytest.mark.parametrize("more", [(), ("bias",), ("mask",), ("bias", "mask")])
def test_deformable(more: tuple[str, ...], rng: np.random.Generator) -> None:
    given = {"bias": whole(rng, 35), "mask": whole(rng, 1, 9, 5, 7)}
    given = {name: given[name] for name in more}
    x, offset, w = whole(rng, 1, 4, 5, 7), whole(rng, 1, 18, 5, 7), whole(rng, 35, 4, 3, 3)
    call = {"activation": ("prelu", slopes_of(35)), "padding": (1, 1)}
    wanted = reference.deform_conv(x, offset, w, **given, **call, stride=(1, 1), dilation=(1, 1))
    assert_exact(fastconv.deform_conv2d(x, offset, w, **given, **call), wanted)
    layer = fastconv.DeformConv2d(w, given.get("bias"), **call)
    assert_exact(layer(x, offset, given.get("mask")), wanted)
    assert_exact(pickle.loads(pickle.dumps(layer))(x, offset, given.get("mask")), wanted)
    assert fastconv.explain(layer, x, offset).problem.activation == "prelu"


def test_a_folded_batch_norm_is_followed_by_it(rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((1, 3, 8, 8)), rng.standard_normal((4, 3, 3, 3))
    mean, var, gamma, beta = rng.uniform(0.5, 1.5, (4, 4))
    slopes = rng.uniform(-1, 1, 4)
    folded = fastconv.fold_batch_norm(w, None, mean, var, gamma, beta)
    y = fastconv.batch_norm(fastconv.conv2d(x, w), mean, var, gamma, beta)
    made = fastconv.Conv2d(*folded, activation=("prelu", slopes))(x)
    np.testing.assert_allclose(made, fastconv.prelu(y, slopes), atol=1e-12)


def test_it_is_the_operator_after_the_convolution_bit_by_bit(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 8, 20, 20), dtype=np.float32)
    w = rng.standard_normal((16, 8, 3, 3), dtype=np.float32)
    slopes = rng.standard_normal(16, dtype=np.float32)
    for order in (x, memory_orders(x)["channels_last"]):
        fused = fastconv.conv2d(order, w, padding=1, activation=("prelu", slopes))
        assert bits(fused) == bits(fastconv.prelu(fastconv.conv2d(order, w, padding=1), slopes))


X, W = np.ones((1, 2, 4, 4), np.float32), np.ones((3, 2, 3, 3), np.float32)
GOOD = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("activation", "error", "words"),
    [
        ("prelu", FastconvError, "with an array of one slope"),
        (("prelu", 0.25), DTypeError, "got float"),
        (("prelu", None), DTypeError, "got None"),
        (("prelu", GOOD, GOOD), FastconvError, "got 3 values"),
        (("prelu",), FastconvError, "got 1 values"),
        (("prelu", GOOD[:2]), ShapeError, r"\(2,\)"),
        (("prelu", GOOD[:, None]), ShapeError, r"\(3, 1\)"),
        (("prelu", GOOD.astype(np.float64)), DTypeError, "float64"),
        (("prelu", GOOD.astype(np.int32)), DTypeError, "int32"),
    ],
)
@pytest.mark.parametrize("bias", [None, np.zeros(3, np.float32)])
def test_bad_slopes(activation: Any, error: Any, words: str, bias: Any) -> None:
    out = np.full((1, 3, 2, 2), 7, np.float32)
    for call in (
        lambda: fastconv.conv2d(X, W, bias, activation=activation, out=out),
        lambda: fastconv.Conv2d(W, bias, activation=activation),
        lambda: fastconv.linear(X[0, 0], W[:, 0, 0, [0, 1, 2, 0]], bias, activation=activation),
        lambda: fastconv.deform_conv2d(
            X, np.zeros((1, 18, 2, 2), np.float32), W, bias, activation=activation
        ),
    ):
        with pytest.raises(error, match=f"activation: .*{words}"):
            call()
    assert (out == 7).all()


def test_arrays_on_a_gpu_are_refused() -> None:
    activation = ("prelu", GOOD)
    with pytest.raises(DeviceError, match="activation: got 'prelu'"):
        fastconv.conv2d(EmulatedArray(X), EmulatedArray(W), activation=activation)
    with pytest.raises(DeviceError, match="activation: got 'prelu'"):
        fastconv.Conv2d(EmulatedArray(W), activation=activation)
