"""conv1d, conv2d and conv3d: the signature's meaning, memory orders, and PyTorch's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import ACTIVATIONS, Tolerance
from fastconv.kernels import reference
from helpers import (
    CALLS,
    DTYPES,
    FUNCTIONS,
    MODULES,
    assert_close,
    assert_exact,
    bits,
    expected,
    functional,
    in_layout,
    memory_orders,
    small_integers,
)
from problem_matrix import problem

PROBLEMS = (
    problem((6, 8), (9, 33), 3, batch=2, padding=1),
    problem((6, 6), (9, 33), 3, batch=2, padding=1, groups=6),
    problem((1, 2), (9, 33), 5, batch=2),
    problem((6, 8), (33,), 3, batch=2, padding=1),
    problem((6, 8), (4, 5, 9), 3, batch=2, padding=1),
    problem((6, 9), (9, 33), 1, batch=2),
    problem((6, 9), (9, 33), 3, batch=2, dilation=3, padding=3),
)


def per_problem(function: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("of", PROBLEMS, ids=lambda of: of.line())(function)


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Kernels that sum the products as they are, so that small integers come out exactly."""
    with fastconv.precision("exact"):
        yield


# The signature


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_ints_tuples_pairs_and_words_mean_the_same(ndim: int, rng: np.random.Generator) -> None:
    conv = FUNCTIONS[ndim]
    x = rng.integers(-4, 5, (2, 4, *(9, 8, 7)[:ndim])).astype(np.float32)
    weight = rng.integers(-4, 5, (6, 2, *(3,) * ndim)).astype(np.float32)
    axes = (1,) * ndim
    truth = reference.conv(
        x, weight, stride=axes, padding=((2, 2),) * ndim, dilation=(2,) * ndim, groups=2
    )
    pads: list[Any] = [2, (2,) * ndim, [2] * ndim, ((2, 2),) * ndim, "same", np.int64(2)]
    for padding in pads:
        assert_exact(conv(x, weight, None, axes, padding, (2,) * ndim, 2), truth, str(padding))
    assert_exact(conv(x, weight, stride=1, padding=2, dilation=2, groups=2), truth)
    valid = reference.conv(
        x, weight, stride=(2,) * ndim, padding=((0, 0),) * ndim, dilation=axes, groups=2
    )
    for padding in (0, "valid"):
        assert_exact(conv(x, weight, stride=2, padding=padding, groups=2), valid, str(padding))


def test_same_puts_the_odd_zero_after(rng: np.random.Generator) -> None:
    x = rng.integers(-4, 5, (1, 2, 6, 7)).astype(np.float32)
    weight = rng.integers(-4, 5, (3, 2, 2, 4)).astype(np.float32)
    actual = fastconv.conv2d(x, weight, padding="same")
    assert actual.shape == (1, 3, 6, 7)
    pads = ((0, 1), (1, 2))
    truth = reference.conv(x, weight, stride=(1, 1), padding=pads, dilation=(1, 1))
    assert_exact(actual, truth)


@per_problem
def test_unbatched_input(of: ConvProblem, rng: np.random.Generator) -> None:
    t = small_integers(of, rng)
    truth = expected(of, t, epilogue=True)[0]
    keywords = {"stride": of.stride, "padding": of.padding, "dilation": of.dilation}
    actual = FUNCTIONS[of.ndim](
        t.x[0], t.weight, t.bias, groups=of.groups, residual=t.residual[0], **keywords
    )
    assert_exact(actual, truth)
    layer = MODULES[of.ndim](t.weight, t.bias, groups=of.groups, **keywords)
    out = np.full(truth.shape, np.nan, t.x.dtype)
    assert layer(t.x[0], residual=t.residual[0], out=out) is out
    assert_exact(out, truth)


@per_problem
def test_empty_batch(of: ConvProblem, rng: np.random.Generator) -> None:
    of = of.with_(batch=0)
    t = small_integers(of, rng)
    for call in CALLS.values():
        result = call(of, t, epilogue=True, activation="relu", out=None)
        assert result.shape == of.out_shape and result.dtype == t.x.dtype


@pytest.mark.parametrize("name", [*ACTIVATIONS, ("leaky_relu", 0.3), ("elu", 0.5)])
def test_activation_at_awkward_values(name: Any) -> None:
    values = [-800, -100, -20, -6, -3, -1, -1e-3, -1e-6, -0.0, 0, 1e-6, 1e-3, 0.7, 3, 6, 50, 800]
    for dtype, relative in ((np.float32, 1e-6), (np.float64, 1e-13)):
        x = np.array([[values]], dtype)
        actual = fastconv.conv1d(x, np.ones((1, 1, 1), dtype), activation=name)
        word, alpha = name if isinstance(name, tuple) else (name, None)
        truth = reference.activate(x.astype(np.float64), word, alpha)
        # Relative to each value, or to the unit where a sum with 1 cancels (elu, gelu, tanh).
        np.testing.assert_allclose(actual, truth, rtol=4 * relative, atol=relative)


# Memory


@per_problem
def test_any_strides_of_input_weight_and_residual(
    of: ConvProblem, rng: np.random.Generator
) -> None:
    t = small_integers(of, rng)
    truth = expected(of, t, epilogue=True)
    for argument in ("x", "weight", "residual"):
        original = getattr(t, argument)
        for name, variant in memory_orders(original).items():
            setattr(t, argument, variant)
            for how, call in CALLS.items():
                result = call(of, t, epilogue=True, out=None)
                assert_exact(result, truth, f"{argument} {name} {how}")
        setattr(t, argument, original)


@per_problem
def test_broadcast_input_weight_bias_and_residual(
    of: ConvProblem, rng: np.random.Generator
) -> None:
    t = small_integers(of, rng)
    for argument in ("x", "weight", "bias", "residual"):
        original = getattr(t, argument)
        for axis in range(original.ndim):
            first = original[(slice(None),) * axis + (slice(0, 1),)]
            setattr(t, argument, np.broadcast_to(first, original.shape))
            assert 0 in getattr(t, argument).strides
            result = functional(of, t, epilogue=True, out=None)
            assert_exact(result, expected(of, t, epilogue=True), f"{argument} axis {axis}")
        setattr(t, argument, original)
    t.x = np.broadcast_to(t.x.dtype.type(2), of.x_shape)
    t.weight = np.broadcast_to(t.x.dtype.type(3), of.weight_shape)
    assert_exact(functional(of, t, out=None), expected(of, t))


@per_problem
def test_out_of_any_strides_is_filled_and_nothing_beside_it(
    of: ConvProblem, rng: np.random.Generator
) -> None:
    t = small_integers(of, rng)
    truth = expected(of, t, epilogue=True, activation="relu")
    for name, out in memory_orders(np.zeros(of.out_shape, t.x.dtype)).items():
        if not out.flags.writeable:
            continue
        out[...] = np.nan
        for how, call in CALLS.items():
            assert call(of, t, epilogue=True, activation="relu", out=out) is out
            assert_exact(out, truth, f"{name} {how}")
        base = out.base
        if name == "sliced" and base is not None:
            assert np.isnan(base).sum() == base.size - out.size


@per_problem
def test_channels_last_input_gives_channels_last_output(
    of: ConvProblem, rng: np.random.Generator
) -> None:
    t = small_integers(of, rng)
    truth = expected(of, t)
    for layout in ("channels_first", "channels_last"):
        t.x = in_layout(np.ascontiguousarray(t.x), layout)
        for how, call in CALLS.items():
            result = call(of, t, out=None)
            assert_exact(result, truth, f"{layout} {how}")
            last = np.moveaxis(result, 1, -1)
            dense = [
                layout
                for layout, view in (("channels_first", result), ("channels_last", last))
                if view.flags.c_contiguous
            ]
            # One channel lies in memory the same way in both orders.
            assert layout in dense or (of.in_channels == 1 and dense), how


@per_problem
def test_inputs_are_left_alone(of: ConvProblem, rng: np.random.Generator) -> None:
    t = small_integers(of, rng)
    arrays = (t.x, t.weight, t.bias, t.residual)
    before = [bits(array) for array in arrays]
    functional(of, t, epilogue=True, activation="gelu", out=None)
    assert [bits(array) for array in arrays] == before


@per_problem
def test_residual_may_be_the_output(of: ConvProblem, rng: np.random.Generator) -> None:
    t = small_integers(of, rng)
    truth = expected(of, t, epilogue=True, activation="relu")
    for call in CALLS.values():
        kept, t.residual = t.residual, t.residual.copy()
        assert_exact(call(of, t, epilogue=True, activation="relu", out=t.residual), truth)
        t.residual = kept


@pytest.mark.parametrize("size", [1, 3])
def test_out_that_overlaps_the_input_is_right_or_refused(
    size: int, rng: np.random.Generator
) -> None:
    of = problem((16, 16), (33, 70), size, batch=2, padding=size // 2)
    t = small_integers(of, rng)
    truth = expected(of, t)
    try:
        result = functional(of, t, out=t.x)
    except fastconv.ShapeError as error:
        assert "out" in str(error)
    else:
        assert_exact(result, truth)


@pytest.mark.parametrize("step", [2, -3])
def test_out_that_is_the_input_and_has_gaps_between_its_elements(
    step: int, rng: np.random.Generator
) -> None:
    base = rng.integers(-4, 5, (2, 4, 9, 36)).astype(np.float32)
    weight = rng.integers(-4, 5, (4, 4, 3, 3)).astype(np.float32)
    x, kept = base[..., ::step], base.copy()
    truth = fastconv.conv2d(x.copy(), weight, padding=1)
    fastconv.conv2d(x, weight, padding=1, out=x)
    kept[..., ::step] = truth
    np.testing.assert_array_equal(base, kept)


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("changed", ["weight", "bias"])
def test_a_layer_keeps_its_weights_when_the_array_changes(
    changed: str, called: bool, rng: np.random.Generator
) -> None:
    """Whether they were packed before, and where a new size or order packs them again."""
    of = PROBLEMS[0]
    t = small_integers(of, rng)
    truth = expected(of, t, epilogue=True)
    given = {"weight": t.weight.copy(), "bias": t.bias.copy()}
    layer = fastconv.Conv2d(given["weight"][:], given["bias"][:], padding=1)  # views: not alone
    first = layer(t.x, residual=t.residual) if called else None
    given[changed][...] = np.nan
    for other in (np.ascontiguousarray(t.x[:, :, :5, :9]), in_layout(t.x, "channels_last"), t.x):
        small = of.with_(in_size=other.shape[2:])
        assert_exact(layer(other), expected(small, small_with(t, other), epilogue=False) + bias(t))
    assert_exact(layer.weight, t.weight)
    assert_exact(layer.bias, t.bias)
    if first is not None:
        assert_exact(first, truth)


def small_with(t: Any, x: np.ndarray) -> Any:
    return type(t)(x, t.weight, t.bias, t.residual)


def bias(t: Any) -> np.ndarray:
    return t.bias.astype(np.float64)[:, None, None]


# Against PyTorch


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_to_pytorch(ndim: int, dtype: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="package torch is not installed")
    function = getattr(torch.nn.functional, f"conv{ndim}d")
    cases: tuple[dict[str, Any], ...] = (
        {},
        {"stride": 2},
        {"padding": "same"},
        {"padding": "same", "dilation": 2},
        {"padding": "valid", "stride": 2},
        {"padding": 2, "groups": 2},
        {"padding": 1, "groups": 4, "stride": 3},
        {"dilation": 3, "padding": (3,) * ndim},
    )
    for keywords in cases:
        groups = keywords.get("groups", 1)
        x = rng.standard_normal((2, 4, *(13, 11, 9)[:ndim])).astype(DTYPES[dtype])
        weight = rng.standard_normal((8, 4 // groups, *(3,) * ndim)).astype(DTYPES[dtype])
        offset = rng.standard_normal(8).astype(DTYPES[dtype])
        arrays = [torch.from_numpy(each.astype(np.float64)) for each in (x, weight, offset)]
        truth = function(*arrays, **keywords).numpy()
        bound = {"float32": 1e-5, "float64": 1e-13, "float16": 2e-3, "bfloat16": 1e-2}[dtype]
        actual = FUNCTIONS[ndim](x, weight, offset, **keywords)
        assert actual.dtype == DTYPES[dtype]
        assert_close(actual, truth, Tolerance(bound), str(keywords))
        unbatched = FUNCTIONS[ndim](x[0], weight, offset, **keywords)
        assert_close(unbatched, truth[0], Tolerance(bound), str(keywords))


def test_fold_batch_norm_equals_the_layer_it_replaces(rng: np.random.Generator) -> None:
    of = problem((6, 8), (9, 14), 3, dtype="float64", groups=2, padding=1)
    x, weight = rng.standard_normal(of.x_shape), rng.standard_normal(of.weight_shape)
    offset, mean, gamma, beta = rng.standard_normal((4, 8))
    var = rng.uniform(0.1, 2.0, 8)
    truth = fastconv.conv2d(x, weight, offset, padding=1, groups=2)
    for scale, shift in ((None, None), (gamma, beta)):
        channel = (slice(None), None, None)
        normal = (truth - mean[channel]) / np.sqrt(var[channel] + 1e-5)
        if scale is not None and shift is not None:
            normal = normal * scale[channel] + shift[channel]
        folded = fastconv.fold_batch_norm(weight, offset, mean, var, scale, shift)
        actual = fastconv.conv2d(x, *folded, padding=1, groups=2)
        np.testing.assert_allclose(actual, normal, rtol=1e-9, atol=1e-9)
    without, shifted = fastconv.fold_batch_norm(weight, None, mean, var)
    actual = fastconv.conv2d(x, without, shifted, padding=1, groups=2)
    normal = (truth - offset[:, None, None] - mean[:, None, None]) / np.sqrt(var + 1e-5)[
        :, None, None
    ]
    np.testing.assert_allclose(actual, normal, rtol=1e-9, atol=1e-9)
