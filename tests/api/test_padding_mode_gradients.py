"""padding_mode of pools, and of the gradients of convolutions: against PyTorch and differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import fastconv
from boundary_cases import ALL, CASES, Case, drawn, padded, truth, word
from fastconv.contract.errors import (
    ArgumentError,
    ShapeError,
)
from helpers import in_layout

POOLS = {
    f"{op}_pool{ndim}d": (op, ndim) for op in ("max", "avg") for ndim in (1, 2, 3)
}  # fmt: skip


@pytest.mark.parametrize("mode", ALL, ids=word)
@pytest.mark.parametrize("name", POOLS)
def test_pools(name: str, mode: Any, rng: np.random.Generator) -> None:
    _, ndim = POOLS[name]
    function = getattr(fastconv, name)
    for layout, pad in (("channels_first", 1), ("channels_last", 4), ("strided", 0)):
        values = rng.integers(-40, 40, (2, 5, 9, 7, 6)[: ndim + 2]).astype(np.float32)
        x = in_layout(values, layout)
        around = padded(x, ((pad, pad),) * ndim, mode).astype(np.float32)
        told = {"kernel_size": 3, "stride": 2, "ceil_mode": True}
        wanted = function(around, **told)
        out = np.full(wanted.shape, np.nan, np.float32)
        made = function(x, padding=pad, padding_mode=mode, out=out, **told)
        assert made is out
        np.testing.assert_array_equal(out, wanted)
        one = function(x[0], padding=pad, padding_mode=mode, **told)
        np.testing.assert_array_equal(one, wanted[0])
    explained = fastconv.explain(function, x, 3, padding=1, padding_mode=mode)
    assert explained.problem.x_shape == (2, 5, *(n + 2 for n in x.shape[2:]))
    assert "of a copy of the input with its boundary: cpu.pad" in str(explained)


def test_places_of_maxima_are_samples(rng: np.random.Generator) -> None:
    x = rng.permutation(2 * 3 * 8 * 9).reshape(2, 3, 8, 9).astype(np.float32)
    for mode in ALL[:4]:
        made, places = fastconv.max_pool2d(
            x, 3, 1, 5, return_indices=True, padding_mode=mode
        )  # fmt: skip
        found = np.take_along_axis(x.reshape(2, 3, -1), places.reshape(2, 3, -1), 2)
        np.testing.assert_array_equal(found.reshape(made.shape), made)


def test_bad_pools() -> None:
    x = np.ones((1, 2, 5, 5), np.float32)
    with pytest.raises(ArgumentError, match=r"return_indices: got True.*constant"):
        fastconv.max_pool2d(x, 3, return_indices=True, padding_mode=("constant", 1.0))
    with pytest.raises(ArgumentError, match=r"count_include_pad: got False.*reflect"):
        fastconv.avg_pool2d(x, 3, count_include_pad=False, padding_mode="reflect")
    with pytest.raises(ArgumentError, match=r"padding_mode: got 'mirror'"):
        fastconv.avg_pool2d(x, 3, padding_mode="mirror")
    with pytest.raises(ShapeError, match=r"padding: got \(-1, -1\)"):
        fastconv.max_pool2d(x, 3, padding=-1, padding_mode="reflect")
    with pytest.raises(ShapeError, match=r"input: got a size of \(0, 5\)"):
        fastconv.max_pool2d(x[:, :, :0], 3, padding=2, padding_mode="reflect")


@pytest.mark.parametrize("mode", ALL, ids=word)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_those_of_pytorch(case: Case, mode: Any, rng: np.random.Generator) -> None:
    x, w, _ = drawn(case, rng, "float64", integers=False)
    sides, ndim = case.sides(), len(case.size)
    grad = rng.standard_normal(truth(case, mode, x, w, None).shape)
    # PyTorch knows the gradient of an index: 0 is the constant, then come the samples.
    places = np.arange(1, 1 + math.prod(case.size)).reshape(1, 1, *case.size)
    index = padded(places, sides["padding"], mode if isinstance(mode, str) else ("constant", 0))
    xt, wt = (torch.from_numpy(np.ascontiguousarray(a)).requires_grad_() for a in (x, w))
    flat = torch.cat([torch.full((*x.shape[:2], 1), 1.5).double(), xt.flatten(2)], 2)
    around = flat[:, :, torch.from_numpy(index[0, 0].astype(np.int64))]
    conv = getattr(torch.nn.functional, f"conv{ndim}d")
    y = conv(around, wt, None, sides["stride"], 0, sides["dilation"], case.channels[2])
    y.backward(torch.from_numpy(grad))
    told = {"padding_mode": mode, **case.arguments}
    grad_x = getattr(fastconv.grad, f"conv{ndim}d_input")(x.shape, w, grad, **told)
    grad_w = getattr(fastconv.grad, f"conv{ndim}d_weight")(x, w.shape, grad, **told)
    np.testing.assert_allclose(grad_x, xt.grad.numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(grad_w, wt.grad.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", ALL, ids=word)
def test_gradients_are_central_differences(mode: Any, rng: np.random.Generator) -> None:
    case = Case((4, 5), (3, 3), ((1, 2), (3, 0)), (2, 1), channels=(2, 1, 2), batch=1)
    x, w, _ = drawn(case, rng, "float64", integers=False)
    told = {"padding_mode": mode, **case.arguments}
    grad = rng.standard_normal(fastconv.conv2d(x, w, **told).shape)
    made = {
        0: fastconv.grad.conv2d_input(x.shape, w, grad, **told),
        1: fastconv.grad.conv2d_weight(x, w.shape, grad, **told),
    }
    for operand, gradient in made.items():
        for place in rng.integers(0, gradient.size, 12):
            values = []
            for step in (1e-3, -1e-3):
                moved = [x.copy(), w.copy()]
                moved[operand].flat[place] += step
                values.append((fastconv.conv2d(*moved, **told) * grad).sum())
            difference = (values[0] - values[1]) / 2e-3
            assert gradient.flat[place] == pytest.approx(difference, rel=1e-8, abs=1e-8)


def test_gradients_of_halves_and_bad_ones(rng: np.random.Generator) -> None:
    case = Case((9, 11), (5, 5), 9)
    x, w, _ = drawn(case, rng, "float16")
    grad = rng.integers(-1, 2, (2, 4, 23, 25)).astype(np.float16)
    told = {"padding": 9, "padding_mode": "circular"}
    made = fastconv.grad.conv2d_input(x.shape, w, grad, **told)
    wide = fastconv.grad.conv2d_input(x.shape, w.astype("f8"), grad.astype("f8"), **told)
    assert made.dtype == np.float16
    np.testing.assert_allclose(made, wide, rtol=2e-3, atol=1e-2)
    told["padding_mode"] = "mirror"
    with pytest.raises(ArgumentError, match=r"padding_mode: got 'mirror'"):
        fastconv.grad.conv2d_weight(x, w.shape, grad, **told)
    told["padding_mode"] = "reflect"
    with pytest.raises(ShapeError, match=r"padding: got \(\(9, 9\), \(9, 9\)\).*\(8, 10\)"):
        fastconv.grad.conv2d_input(x.shape, w, grad, **told)
