"""What rearrangements, windows and dense layers promise beside what every kernel is tested for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch.nn import functional

import fastconv
from helpers import bits, memory_orders

SHUFFLES: dict[str, Callable[[Any], Any]] = {
    "pixel_shuffle": lambda x: fastconv.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: fastconv.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: fastconv.channel_shuffle(x, 4),
    "unfold": lambda x: fastconv.unfold(x, 2),
}


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


@pytest.mark.parametrize("name", SHUFFLES)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_bits_are_moved_as_they_are(name: str, dtype: Any, rng: np.random.Generator) -> None:
    """Signalling NaN, denormals and both zeros of every element type."""
    size = np.dtype(dtype).itemsize
    words = rng.integers(0, 256, (2, 8, 6, 40, size)).astype(np.uint8).view(f"u{size}")[..., 0]
    for array in (words, np.moveaxis(np.ascontiguousarray(np.moveaxis(words, 1, -1)), -1, 1)):
        moved = SHUFFLES[name](array.view(dtype))
        wanted = SHUFFLES[name](array.astype(np.float64)) if size < 8 else None
        if wanted is not None:  # whole numbers below 2**32 are exact in float64
            np.testing.assert_array_equal(moved.view(f"u{size}"), wanted.astype(f"u{size}"))
        assert sorted(np.unique(moved.view(f"u{size}"))) <= sorted(np.unique(words))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3), (0, 2)])
def test_pixels_have_any_axes_in_front(lead: tuple[int, ...], rng: np.random.Generator) -> None:
    x = rng.standard_normal((*lead, 8, 4, 6)).astype(np.float32)
    wanted = functional.pixel_shuffle(tensor(x), 2).numpy()
    for name, ordered in memory_orders(x).items() if x.size else [("empty", x)]:
        np.testing.assert_array_equal(fastconv.pixel_shuffle(ordered, 2), wanted, err_msg=name)
    np.testing.assert_array_equal(fastconv.pixel_unshuffle(wanted, 2), x)
    out = np.asfortranarray(np.zeros_like(wanted))
    assert fastconv.pixel_shuffle(x, 2, out=out) is out
    np.testing.assert_array_equal(out, wanted)


def test_an_output_over_the_input_with_axes_in_front(rng: np.random.Generator) -> None:
    memory = rng.standard_normal(2 * 3 * 4 * 4 * 4).astype(np.float32)
    x, out = memory.reshape(2, 3, 4, 4, 4), memory.reshape(2, 3, 1, 8, 8)
    wanted = fastconv.pixel_shuffle(x.copy(), 2)
    np.testing.assert_array_equal(fastconv.pixel_shuffle(x, 2, out=out), wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [3, (3,), (3, 2), (2, 2, 2)])
def test_windows_without_a_batch(size: Any, dtype: Any, rng: np.random.Generator) -> None:
    ndim = len(size) if isinstance(size, tuple) else 2
    x = rng.standard_normal((3, *(7, 6, 5)[:ndim])).astype(dtype)
    columns = fastconv.unfold(x, size, padding=1)
    np.testing.assert_array_equal(columns, fastconv.unfold(x[None], size, padding=1)[0])
    out = np.zeros_like(columns)
    assert fastconv.unfold(x, size, padding=1, out=out) is out
    np.testing.assert_array_equal(out, columns)
    if ndim == 2:
        theirs = functional.unfold(tensor(x), size, padding=1).numpy()
        np.testing.assert_array_equal(columns, theirs)
    image = fastconv.fold(columns, x.shape[1:], size, padding=1)
    assert image.shape == x.shape
    out = np.zeros_like(image)
    assert fastconv.fold(columns, x.shape[1:], size, padding=1, out=out) is out
    np.testing.assert_array_equal(out, image)


def test_a_window_that_is_nan_is_nan_where_it_was(rng: np.random.Generator) -> None:
    columns = rng.standard_normal((1, 2 * 9, 30)).astype(np.float32)
    columns[0, 4, 7] = np.nan
    told = {"output_size": (5, 6), "kernel_size": 3, "padding": 1}
    image = fastconv.fold(columns, **told)
    theirs = functional.fold(tensor(columns), **told).numpy()
    np.testing.assert_array_equal(np.isnan(image), np.isnan(theirs))
    assert np.isnan(image).sum() == 1


def _adjoint(
    function: Callable[[np.ndarray], np.ndarray], gradient: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray, rng: np.random.Generator,
) -> None:  # fmt: skip
    """A linear function's gradient: products with it are those with the function."""
    y = function(x)
    grad = rng.standard_normal(y.shape)
    back = gradient(grad)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(y, grad), np.vdot(x, back), rtol=1e-10)
    index = tuple(rng.integers(0, size) for size in x.shape)
    moved = x.copy()
    moved[index] += 0.5
    slope = np.vdot(function(moved) - y, grad) / 0.5
    np.testing.assert_allclose(slope, back[index], rtol=1e-9, atol=1e-9)


def test_gradients_of_rearrangements(rng: np.random.Generator) -> None:
    grad = fastconv.grad
    x = rng.standard_normal((2, 12, 6, 4))
    _adjoint(
        lambda x: fastconv.pixel_shuffle(x, 2), lambda g: grad.pixel_shuffle_input(g, 2), x, rng
    )
    _adjoint(
        lambda x: fastconv.pixel_unshuffle(x, 2), lambda g: grad.pixel_unshuffle_input(g, 2), x, rng
    )
    _adjoint(
        lambda x: fastconv.channel_shuffle(x, 3), lambda g: grad.channel_shuffle_input(g, 3), x, rng
    )


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((2, 3, 9, 8), {"kernel_size": 3, "padding": 1, "stride": 2}),
        ((2, 3, 9), {"kernel_size": (3,), "dilation": 2}),
        ((3, 9, 8), {"kernel_size": (2, 3), "padding": (0, 1)}),
        ((1, 2, 4, 5, 6), {"kernel_size": 2, "stride": 2}),
    ],
)
def test_gradients_of_windows(shape: Any, told: Any, rng: np.random.Generator) -> None:
    grad = fastconv.grad
    x = rng.standard_normal(shape)
    _adjoint(
        lambda x: fastconv.unfold(x, **told), lambda g: grad.unfold_input(shape, g, **told), x, rng
    )
    columns = fastconv.unfold(x, **told)
    size = shape[columns.ndim - 1 :]
    _adjoint(
        lambda c: fastconv.fold(c, size, **told), lambda g: grad.fold_input(g, **told), columns, rng
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: fastconv.pixel_shuffle(x, 3), "input: got 8 channels with upscale_factor=3"),
        (lambda x: fastconv.pixel_shuffle(x, 0), "upscale_factor: got 0"),
        (lambda x: fastconv.pixel_shuffle(x, 1.5), "upscale_factor: got 1.5"),
        (lambda x: fastconv.pixel_shuffle(x[0, 0], 2), "input: got 2 axes"),
        (lambda x: fastconv.pixel_unshuffle(x, 4), "input: got (6, 6) pixels"),
        (lambda x: fastconv.channel_shuffle(x, 3), "groups: got 3 with an input of 8 channels"),
        (lambda x: fastconv.channel_shuffle(x[0, 0], 2), "input: got 2 axes"),
        (lambda x: fastconv.unfold(x, 9), "kernel_size: got (9, 9)"),
        (lambda x: fastconv.unfold(x, (3,)), "input: got 4 axes"),
        (lambda x: fastconv.unfold(x, (1,) * 4), "kernel_size: got 4 values"),
        (lambda x: fastconv.unfold(x, 3, padding=-1), "padding: got (-1, -1)"),
        (lambda x: fastconv.fold(x[:, :, 0], 3, 2), "input: got 6 windows"),
        (lambda x: fastconv.fold(x[:, :, 0], 3, 3), "input: got 8 rows"),
        (lambda x: fastconv.fold(x, 3, 2), "input: got 4 axes"),
        (lambda x: fastconv.fold(x[:, :, 0], 0, 2), "output_size: got (0, 0)"),
        (lambda x: fastconv.grad.pixel_shuffle_input(x, 4), "grad_output: got (6, 6) pixels"),
        (lambda x: fastconv.grad.channel_shuffle_input(x, 3), "groups: got 3"),
        (lambda x: fastconv.grad.unfold_input((1, 3, 6, 6), x[:, :, 0], 3), "grad_output: got"),
        (lambda x: fastconv.grad.unfold_input(5, x[:, :, 0], 3), "input_size: got 5"),
        (lambda x: fastconv.grad.fold_input(x[0, 0], 3), "grad_output: got 2 axes"),
        (lambda x: fastconv.linear(x, np.ones((2, 5), np.float32)), "input: got shape"),
        (lambda x: fastconv.linear(x, np.ones(6, np.float32)), "weight: got shape (6,)"),
        (
            lambda x: fastconv.linear(x, np.ones((2, 6), np.float32), np.ones(3, np.float32)),
            "bias: got shape (3,), want (2,)",
        ),
        (
            lambda x: fastconv.linear(
                x, np.ones((2, 6), np.float32), out=np.zeros((2, 8, 6, 3), np.float32)
            ),
            "out: got shape (2, 8, 6, 3), want (2, 8, 6, 2)",
        ),
        (lambda x: fastconv.linear(x, np.ones((2, 6))), "input: got float32 with a weight of"),
        (
            lambda x: fastconv.pixel_shuffle(x[None], 2, out=np.zeros((2, 2, 12, 12), np.float32)),
            "out: got shape (2, 2, 12, 12)",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(call: Callable[[np.ndarray], Any], message: str) -> None:
    with pytest.raises(fastconv.FastconvError) as caught:
        call(np.ones((2, 8, 6, 6), np.float32))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 17), (2, 0)])
def test_linear_is_a_product(lead: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> None:
    x = rng.integers(-4, 5, (*lead, 37)).astype(dtype)
    weight, bias = (rng.integers(-4, 5, shape).astype(dtype) for shape in ((19, 37), (19,)))
    wanted = np.maximum(x.astype(np.float64) @ weight.astype(np.float64).T + bias, 0)
    layer = fastconv.Linear(weight, bias, activation="relu")
    np.testing.assert_array_equal(fastconv.linear(x, weight, bias, activation="relu"), wanted)
    np.testing.assert_array_equal(layer(x), wanted)
    assert layer(x).flags.c_contiguous and layer.prepare(x).startswith("cpu.") == bool(x.size)
    if x.size and lead:
        for name, ordered in memory_orders(x).items():
            np.testing.assert_array_equal(layer(ordered), wanted, err_msg=name)
        out = np.asfortranarray(np.full(wanted.shape, np.nan, dtype))
        assert layer(x, out=out) is out
        np.testing.assert_array_equal(out, wanted)


def test_gradients_of_linear(rng: np.random.Generator) -> None:
    x, weight, grad = (rng.standard_normal(s) for s in ((2, 5, 37), (19, 37), (2, 5, 19)))
    theirs = [tensor(a).requires_grad_() for a in (x, weight, np.zeros(19))]
    functional.linear(*theirs).backward(tensor(grad))
    made = (
        fastconv.grad.linear_input(weight, grad),
        fastconv.grad.linear_weight(x, grad),
        fastconv.grad.linear_bias(grad),
    )
    for ours, theirs_ in zip(made, theirs, strict=True):
        np.testing.assert_allclose(ours, theirs_.grad.numpy(), rtol=1e-10, atol=1e-10)


def test_bits_of_linear_do_not_depend_on_the_batch_s_threads(rng: np.random.Generator) -> None:
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((1, 3000), (701, 3000)))
    before, made = fastconv.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fastconv.set_num_threads(threads)
            made.append(bits(fastconv.Linear(weight)(x)))
    finally:
        fastconv.set_num_threads(before)
    assert made[0] == made[1] == made[2]


def test_a_dense_layer_is_explained(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((40, 30)).astype(np.float32)
    few, many = (rng.standard_normal((rows, 30)).astype(np.float32) for rows in (2, 100))
    assert fastconv.explain(fastconv.linear, few, weight).chosen == "cpu.linear"
    told = fastconv.explain(fastconv.linear, many, weight)
    assert told.problem.op == "conv" and told.problem.out_shape == (1, 40, 100)
    packed = fastconv.explain(fastconv.Linear(weight), many)
    assert packed.problem == told.problem and packed.packed and not told.packed


@pytest.mark.parametrize("activation", ["relu", ("leaky_relu", 0.25), ("elu", 2.0), "gelu"])
def test_activations_of_a_few_rows(activation: Any, rng: np.random.Generator) -> None:
    x, weight, bias = (
        rng.standard_normal(s).astype(np.float32) for s in ((2, 100), (33, 100), (66,))
    )
    few = fastconv.linear(x, weight, bias[::2], activation=activation)
    many = fastconv.linear(np.repeat(x, 10, axis=0), weight, bias[::2], activation=activation)
    np.testing.assert_allclose(few, many[::10], rtol=1e-4, atol=1e-5)
