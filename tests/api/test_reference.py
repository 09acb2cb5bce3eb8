"""The reference in float64 against SciPy, PyTorch and a loop that spells out every product."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import ACTIVATIONS
from fastconv.kernels import reference
from helpers import geometry
from problem_matrix import matrix, problem

signal = pytest.importorskip("scipy.signal", reason="package scipy is not installed")
ndimage = pytest.importorskip("scipy.ndimage", reason="package scipy is not installed")


def by_hand(x: np.ndarray, weight: np.ndarray, of: ConvProblem) -> np.ndarray:
    """One product at a time; a tap outside the image multiplies a zero."""
    out = np.zeros(of.out_shape)
    group_in, group_out = of.in_channels // of.groups, of.out_channels // of.groups
    for index in np.ndindex(*of.out_shape):
        n, o, *pixel = index
        for c, *tap in np.ndindex(*of.weight_shape[1:]):
            at = [
                p * s + t * d - lo
                for p, s, t, d, (lo, _) in zip(
                    pixel, of.stride, tap, of.dilation, of.padding, strict=True
                )
            ]
            inside = all(0 <= a < size for a, size in zip(at, of.in_size, strict=True))
            value = x[(n, o // group_out * group_in + c, *at)] if inside else 0.0
            out[index] += value * weight[(o, c, *tap)]
    return out


HAND_PROBLEMS = (
    problem((2, 3), (5, 6), (2, 3), padding=((1, 0), (0, 2)), stride=(2, 1)),
    problem((4, 6), (7,), 3, groups=2, dilation=2, padding=((2, 1),), batch=2),
    problem((3, 6), (3, 4, 3), 2, groups=3, stride=(1, 2, 1), padding=1),
    problem((1, 1), (1, 1), 3, padding=((1, 2), (2, 1))),
)


@pytest.mark.parametrize("of", HAND_PROBLEMS, ids=lambda of: of.line())
def test_against_the_definition(of: ConvProblem, rng: np.random.Generator) -> None:
    x = rng.integers(-9, 10, of.x_shape).astype(np.float64)
    weight = rng.integers(-9, 10, of.weight_shape).astype(np.float64)
    np.testing.assert_array_equal(reference.conv(x, weight, **geometry(of)), by_hand(x, weight, of))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("argument", ["x", "weight"])
@pytest.mark.parametrize("of", HAND_PROBLEMS, ids=lambda of: of.line())
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_and_infinity_spread_as_in_the_definition(
    of: ConvProblem, argument: str, value: float, rng: np.random.Generator
) -> None:
    arrays = {
        "x": rng.integers(-9, 10, of.x_shape).astype(np.float64),
        "weight": rng.integers(-9, 10, of.weight_shape).astype(np.float64),
    }
    array = arrays[argument]
    array[tuple(rng.integers(size) for size in array.shape)] = value
    truth = by_hand(arrays["x"], arrays["weight"], of)
    assert not np.isfinite(truth).all() or of.in_size == (1, 1)
    actual = reference.conv(arrays["x"], arrays["weight"], **geometry(of))
    np.testing.assert_array_equal(actual, truth)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_against_scipy_signal(ndim: int, size: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 8, 7)[:ndim])
    kernel = rng.standard_normal((size,) * ndim)
    for mode, pads in (("valid", 0), ("full", size - 1)):
        truth = signal.correlate(x, kernel, mode=mode, method="direct")
        actual = reference.conv(
            x[None, None],
            kernel[None, None],
            stride=(1,) * ndim,
            padding=((pads, pads),) * ndim,
            dilation=(1,) * ndim,
        )
        np.testing.assert_allclose(actual[0, 0], truth, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_against_scipy_ndimage(ndim: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 8, 7)[:ndim])
    for size in (1, 3, 5):
        kernel = rng.standard_normal((size,) * ndim)
        truth = ndimage.correlate(x, kernel, mode="constant")
        actual = reference.conv(
            x[None, None],
            kernel[None, None],
            stride=(1,) * ndim,
            padding=((size // 2, size // 2),) * ndim,
            dilation=(1,) * ndim,
        )
        np.testing.assert_allclose(actual[0, 0], truth, rtol=1e-12, atol=1e-13)


def test_against_pytorch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="package torch is not installed")
    convolutions = {
        1: torch.nn.functional.conv1d,
        2: torch.nn.functional.conv2d,
        3: torch.nn.functional.conv3d,
    }
    for of in dict.fromkeys(each.with_(dtype="float64", out_dtype="") for each in matrix()):
        x = rng.standard_normal(of.x_shape)
        weight = rng.standard_normal(of.weight_shape)
        bias = rng.standard_normal(of.out_channels)
        pads = [pad for pair in reversed(of.padding) for pad in pair]
        padded = torch.nn.functional.pad(torch.from_numpy(x), pads)
        truth = convolutions[of.ndim](
            padded,
            torch.from_numpy(weight),
            torch.from_numpy(bias),
            of.stride,
            0,
            of.dilation,
            of.groups,
        ).numpy()
        actual = reference.conv(x, weight, bias, **geometry(of))
        np.testing.assert_allclose(actual, truth, rtol=1e-10, atol=1e-10, err_msg=of.line())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_against_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="package torch is not installed")
    values = [-np.inf, -800.0, -20.0, -3.0, -1.0, -1e-9, -0.0, 0.0, 1e-9, 2.9, 6.5, 40.0, np.nan]
    y = np.array(values)
    function = getattr(torch.nn.functional, name)
    np.testing.assert_allclose(
        reference.activate(y, name), function(torch.from_numpy(y)).numpy(), rtol=1e-12, atol=1e-300
    )
    if name in ("leaky_relu", "elu"):
        truth = function(torch.from_numpy(y), 0.3).numpy()
        np.testing.assert_allclose(reference.activate(y, name, 0.3), truth, rtol=1e-12)


def test_prelu_against_pytorch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="package torch is not installed")
    y, slopes = rng.standard_normal((2, 3, 4)), np.array([0.25, -2.0, np.inf])
    truth = torch.nn.functional.prelu(torch.from_numpy(y), torch.from_numpy(slopes)).numpy()
    np.testing.assert_allclose(reference.activate(y, "prelu", slopes[:, None]), truth, rtol=1e-12)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_order_is_bias_then_residual_then_activation(
    with_bias: bool, with_residual: bool, rng: np.random.Generator
) -> None:
    of = problem((2, 3), (4, 5), 3, batch=2, padding=1)
    x, weight = rng.standard_normal(of.x_shape), rng.standard_normal(of.weight_shape)
    bias = rng.standard_normal(of.out_channels) if with_bias else None
    residual = rng.standard_normal(of.out_shape) if with_residual else None
    truth = reference.conv(x, weight, **geometry(of))
    truth = truth + (0 if bias is None else bias[:, None, None])
    truth = np.maximum(truth + (0 if residual is None else residual), 0)
    actual = reference.conv(x, weight, bias, residual=residual, activation="relu", **geometry(of))
    np.testing.assert_allclose(actual, truth, rtol=1e-14)


def test_unknown_activation_is_an_error() -> None:
    with pytest.raises(KeyError):
        reference.activate(np.zeros(1), "swish")
    with pytest.raises(TypeError):
        reference.activate(np.zeros(1), "relu", 0.5)
