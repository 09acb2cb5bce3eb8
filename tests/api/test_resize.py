"""fastconv.interpolate and its gradient: what the generated tests of array operators do not see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fastconv
from fastconv import grad
from fastconv.contract.errors import ArgumentError, DTypeError, FastconvError, ShapeError
from fastconv.contract.resize_problem import ResizeProblem
from fastconv.kernels import reference
from fastconv.kernels.cpu.resize import costs
from helpers import bits, in_layout

MODES = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2, "nearest": 2, "nearest-exact": 2}


def torch_interpolate(x: np.ndarray, **keywords: Any) -> np.ndarray:
    made: np.ndarray = torch.nn.functional.interpolate(torch.from_numpy(x), **keywords).numpy()
    return made


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_nearest_takes_pytorch_s_samples(mode: str) -> None:
    """Over many pairs of sizes, and of a size and a factor: positions are float32's."""
    sizes = [*range(1, 33), 50, 63, 85, 100, 171, 224, 1000]
    for inputs in sizes[::3]:
        x = np.arange(inputs, dtype=np.float32).reshape(1, 1, inputs)
        for outputs in sizes:
            wanted = torch_interpolate(x, size=outputs, mode=mode)
            assert (fastconv.interpolate(x, outputs, mode=mode) == wanted).all(), (inputs, outputs)
        for factor in (0.3, 0.5, 1.1, 1.7, 2.0, 3.3, 1 / 3, 0.7):
            if int(inputs * factor) > 0:
                wanted = torch_interpolate(x, scale_factor=factor, mode=mode)
                made = fastconv.interpolate(x, scale_factor=factor, mode=mode)
                assert (made == wanted).all(), (inputs, factor)


@pytest.mark.parametrize("mode", ["linear", "bilinear", "trilinear", "bicubic"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("recompute", [None, True])
def test_factors_mean_what_they_mean_in_pytorch(
    mode: str, aligned: bool, recompute: bool | None, rng: np.random.Generator
) -> None:
    ndim = MODES[mode]
    x = rng.standard_normal((2, 3, 7, 9, 11)[: 2 + ndim])
    for factor in (1.3, 0.4, 2.0, 2.55, 1.05, (0.5, 1.7, 3.1)[:ndim]):
        given = {"scale_factor": factor, "mode": mode, "align_corners": aligned}
        given["recompute_scale_factor"] = recompute
        wanted = torch_interpolate(x, **given)
        made = fastconv.interpolate(x, **given)
        np.testing.assert_allclose(made, wanted, rtol=1e-12, atol=1e-12)


def test_the_batch_may_be_missing(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 6, 5)).astype(np.float32)
    for keywords in ({"mode": "bilinear", "size": 9}, {"size": (4, 7)}, {"scale_factor": (2, 3.0)}):
        wanted = fastconv.interpolate(x, **keywords)
        assert bits(fastconv.interpolate(x[1], **keywords)) == bits(wanted[1])
        size = wanted.shape[2:]
        grads = grad.interpolate_input(x.shape, wanted, **keywords)
        one = grad.interpolate_input(x[1].shape, wanted[1], **keywords)
        assert size and bits(one) == bits(grads[1])
    # Where nothing says how many axes are spatial, all behind the first two are: PyTorch's meaning.
    assert fastconv.interpolate(x[0], 8).shape == (3, 6, 8)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("mode", MODES)
def test_not_a_number_spreads_as_in_pytorch(
    mode: str, layout: str, rng: np.random.Generator
) -> None:
    shape = (1, 20, 5, 6, 7)[: 2 + MODES[mode]]
    for value in (np.nan, np.inf):
        x = rng.integers(-4, 5, shape).astype(np.float32)
        x[(0, 3, *(2,) * MODES[mode])] = value
        wanted = torch_interpolate(x, size=(9, 8, 10)[: MODES[mode]], mode=mode)
        made = fastconv.interpolate(
            in_layout(x, layout), (9, 8, 10)[: MODES[mode]], mode=mode
        )  # fmt: skip
        assert (np.isnan(made) == np.isnan(wanted)).all()
        assert (np.isposinf(made) == np.isposinf(wanted)).all()


def test_nearest_keeps_every_bit() -> None:
    """Zeros keep their sign and denormals their value."""
    x = np.array([-0.0, 1e-42, -1e-42, np.inf, 0.0], np.float32).reshape(1, 1, 5)
    assert bits(fastconv.interpolate(x, 10)) == bits(np.repeat(x, 2, axis=2))


def test_an_axis_that_does_not_change_is_left_alone() -> None:
    x = np.array([[[[1.0, np.inf, 3.0], [2.0, 5.0, 7.0]]]], np.float32)
    made = fastconv.interpolate(x, (4, 3), mode="bilinear")
    assert not np.isnan(made).any() and (made[0, 0, 0] == x[0, 0, 0]).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("aligned", [False, True])
def test_the_gradient_is_pytorch_s(mode: str, aligned: bool, rng: np.random.Generator) -> None:
    ndim = MODES[mode]
    given: dict[str, Any] = {"mode": mode}
    if not mode.startswith("nearest"):
        given["align_corners"] = aligned
    for shape, size in (
        ((2, 3, 5, 7, 6), (9, 13, 20)),
        ((1, 18, 8, 9, 7), (3, 4, 2)),
        ((1, 2, 1, 1, 1), (7, 90, 5)),
        ((1, 5, 4, 3, 40), (1, 1, 1)),
    ):
        x = torch.from_numpy(rng.standard_normal(shape[: 2 + ndim])).requires_grad_()
        y = torch.nn.functional.interpolate(x, size=size[:ndim], **given)
        grad_output = rng.standard_normal(tuple(y.shape))
        y.backward(torch.from_numpy(grad_output))
        assert x.grad is not None
        for layout in ("channels_first", "channels_last"):
            made = grad.interpolate_input(
                tuple(x.shape), in_layout(grad_output, layout), size[:ndim], **given
            )
            np.testing.assert_allclose(made, x.grad.numpy(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_is_that_of_central_differences(mode: str, rng: np.random.Generator) -> None:
    ndim = MODES[mode]
    x, size = rng.standard_normal((1, 1, 3, 4, 2)[: 2 + ndim]), (5, 3, 4)[:ndim]
    weights = rng.standard_normal((1, 1, *size))
    made = grad.interpolate_input(x.shape, weights, size, mode=mode)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = 0.5
        above, below = (fastconv.interpolate(x + s, size, mode=mode) for s in (step, -step))
        slope = ((above - below) * weights).sum()
        assert slope == pytest.approx(made[place], abs=1e-12)


def test_long_sums_of_a_gradient_are_accurate() -> None:
    """A sample that thousands of outputs are made of, along each axis: equal terms, the worst."""
    for shape, size in (
        ((1, 1, 1), (30000,)),
        ((1, 17, 1, 1), (5000, 7)),
        ((1, 1, 2, 1), (9, 4000)),
    ):
        ones = np.full((*shape[:2], *size), 0.1, np.float32)
        mode = "linear" if len(size) == 1 else "bilinear"
        made = grad.interpolate_input(shape, ones, size, mode=mode)
        wanted = float(np.float32(0.1)) * np.prod(size) / np.prod(shape[2:])
        np.testing.assert_allclose(made, wanted, rtol=2e-5)


def test_long_rows_are_resized_without_a_table(rng: np.random.Generator) -> None:
    """Positions of a signal of a million samples are found by its tasks."""
    x = rng.standard_normal((1, 2, 1_000_003))
    for size in (1_300_007, 700_001, 30_000):
        made = fastconv.interpolate(x, size, mode="linear")
        # PyTorch rounds places to float32 to find the sample, so it is 1e-4 off here.
        places = (np.arange(size) + 0.5) * (x.shape[2] / size) - 0.5
        wanted = [np.interp(places, np.arange(x.shape[2]), channel) for channel in x[0]]
        np.testing.assert_allclose(made[0], wanted, rtol=1e-8, atol=1e-8)
    wide = in_layout(rng.standard_normal((1, 20, 3, 70_000)), "channels_last")
    made = fastconv.interpolate(wide, (2, 90_000), mode="bilinear")
    wanted = fastconv.interpolate(np.ascontiguousarray(wide), (2, 90_000), mode="bilinear")
    np.testing.assert_allclose(made, wanted, rtol=1e-12, atol=1e-12)


X = np.zeros((1, 2, 4, 4), np.float32)
BAD: list[tuple[dict[str, Any], type[FastconvError], str]] = [
    ({}, ArgumentError, "size: got neither"),
    ({"size": 3, "scale_factor": 2.0}, ArgumentError, "size: got both"),
    ({"size": 0}, ShapeError, "size: got 0"),
    ({"size": 2.5}, ShapeError, "size: got 2.5"),
    ({"size": (2, 3, 4), "mode": "bilinear"}, ShapeError, "size: got 3 values"),
    ({"scale_factor": 0.1}, ShapeError, "scale_factor: got"),
    ({"scale_factor": -1.0}, ShapeError, "scale_factor: got -1.0"),
    ({"scale_factor": np.nan}, ShapeError, "scale_factor: got nan"),
    ({"scale_factor": "2"}, ShapeError, "scale_factor: got '2'"),
    ({"scale_factor": True}, ShapeError, "scale_factor: got True"),
    ({"size": 3, "mode": "area"}, ArgumentError, "mode: got 'area'"),
    ({"size": 3, "mode": "cubic"}, ArgumentError, "mode: got 'cubic'"),
    ({"size": 3, "mode": None}, ArgumentError, "mode: got None"),
    ({"size": 3, "mode": np.array(["nearest", "linear"])}, ArgumentError, "mode: got array"),
    ({"size": 3, "mode": "linear"}, ShapeError, "input: got 4 axes"),
    ({"size": 3, "align_corners": False}, ArgumentError, "align_corners: got False"),
    ({"size": 3, "mode": "bilinear", "align_corners": 1}, ArgumentError, "align_corners: got 1"),
    ({"size": 3, "recompute_scale_factor": True}, ArgumentError, "recompute_scale_factor: got"),
    ({"size": 2**46}, ShapeError, "out: got shape"),
]


@pytest.mark.parametrize(("keywords", "error", "message"), BAD)
def test_what_does_not_fit_is_refused(
    keywords: dict[str, Any], error: type[FastconvError], message: str
) -> None:
    with pytest.raises(error, match=message):
        fastconv.interpolate(X, **keywords)


def test_gradients_refuse_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="grad_output: got shape"):
        grad.interpolate_input((1, 2, 4, 4), X, 5)
    with pytest.raises(ShapeError, match="input_size: got 3"):
        grad.interpolate_input(3, X, 4)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="input_size: got"):
        grad.interpolate_input((1, 2, 0, 4), X, 4)
    with pytest.raises(DTypeError, match="grad_output: got list"):
        grad.interpolate_input((1, 2, 4, 4), X.tolist(), 4)


def test_an_empty_batch_stays_empty() -> None:
    x = np.zeros((0, 2, 4, 4), np.float32)
    assert fastconv.interpolate(x, 9).shape == (0, 2, 9, 9)
    assert grad.interpolate_input(x.shape, np.zeros((0, 2, 9, 9), np.float32), 9).shape == x.shape


def test_a_gradient_s_tables_hold_every_output_of_a_sample(rng: np.random.Generator) -> None:
    for _ in range(500):
        inputs, outputs = int(rng.integers(1, 30)), int(rng.integers(1, 200))
        mode = str(rng.choice(["nearest", "nearest-exact", "bilinear", "bicubic"]))
        aligned = bool(rng.integers(2)) and not mode.startswith("nearest")
        factor = None if rng.integers(2) else max(float(rng.uniform(0.2, 8)), 1.01 / inputs)
        size = () if factor else (outputs, 1)
        scale = (factor, 1.0) if factor else ()
        of = ResizeProblem("interpolate_grad", 1, 1, (inputs, 1), size, mode, aligned, scale)
        ones = np.eye(of.out_size[0])[None, :, :, None]
        given = {"mode": mode, "scale_factor": of.scale or None}
        given |= {"size": None if of.scale else of.out_size}
        if not mode.startswith("nearest"):
            given["align_corners"] = aligned
        shares = reference.interpolate_grad(
            ones, input_size=(1, of.out_size[0], inputs, 1), **given
        )
        reached = (shares != 0).sum(axis=1).max()
        assert reached <= costs.axes(of)[1].taps
