"""Every registered CPU convolution kernel on every problem of the matrix.

The tests are generated from the registry, so a new kernel is tested with no new test code. A pair
that the kernel refuses is not skipped: it must raise `NoKernelError` with the kernel's sentences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from fastconv import dispatch
from fastconv.arrays import memory_layout
from fastconv.contract.errors import NoKernelError
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import ACTIVATIONS, KernelSpec
from fastconv.kernels import reference
from helpers import (
    CALLS,
    DTYPES,
    Tensors,
    assert_close,
    assert_exact,
    bits,
    expected,
    functional,
    gaussians,
    memory_orders,
    nan_output,
    refusals,
    small_integers,
)
from problem_matrix import matrix, problem

KERNELS = dispatch.kernels(op="conv", device="cpu")
MATRIX = matrix()
EPILOGUES = (None, "relu", ("leaky_relu", 0.25), "relu6", "prelu")  # exact on small integers
SMALL_PROBLEMS = (
    problem((5, 19), (6, 35), 3, padding=1),
    problem((3, 3), (6, 35), 3, padding=1, groups=3),
    problem((1, 2), (9, 35), 5, padding=2),
    problem((6, 9), (9, 35), 3, padding=2, dilation=2),
    problem((17, 33), (37,), 1),
    problem((5, 19), (6, 35), 3, padding=1, layout="channels_last"),
    problem((3, 3), (6, 35), 3, padding=1, groups=3, layout="channels_last"),
    problem((2, 2), (20, 33), (9, 12), padding=4, groups=2),  # taps enough for Fourier transforms
)


def supported(problems: Iterable[ConvProblem]) -> list[Any]:
    """Every pair of a kernel and a problem that it runs, for parametrize."""
    pairs = [(spec, each) for each in problems for spec in KERNELS if not refusals(spec, each)]
    pairs.sort(key=lambda pair: pair[0].name)  # stable: the problems stay in their order
    return [pytest.param(*pair, id=f"{pair[0].name}-{pair[1].line()}") for pair in pairs]


def epilogue_of(of: ConvProblem) -> object:
    """A different activation from problem to problem, the same in every run."""
    chosen = EPILOGUES[(sum(of.in_size) + of.out_channels) % len(EPILOGUES)]
    return prelu_of(of) if chosen == "prelu" else chosen


def prelu_of(of: ConvProblem) -> object:
    """PReLU with slopes that are powers of two and enlarge no error, neighbours' different."""
    slopes = np.resize([0.25, -1.0, 0.5, -0.125], of.out_channels)
    return "prelu", slopes.astype(DTYPES[of.weight_dtype])


def with_slopes(of: ConvProblem, name: str) -> tuple[Any, Any]:
    """An activation for a call, and its parameter as the reference takes it."""
    if name != "prelu":
        return name, None
    activation: Any = prelu_of(of)
    return activation, activation[1].astype(np.float64).reshape(-1, *(1,) * of.ndim)


def test_registry_is_not_empty_and_every_kernel_has_work() -> None:
    assert {spec.name for spec in KERNELS} >= {
        "cpu.im2col_gemm",
        "cpu.direct",
        "cpu.depthwise",
        "cpu.dilated",
    }
    for spec in KERNELS:
        assert sum(not refusals(spec, each) for each in MATRIX) >= 10, spec.name


def test_every_problem_is_the_one_that_its_arrays_make(rng: np.random.Generator) -> None:
    for each in (each for each in MATRIX if each.batch):  # nothing has no order
        assert memory_layout(small_integers(each, rng).x) == each.layout, each.line()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_every_problem_has_a_kernel(dtype: str) -> None:
    for each in MATRIX:
        assert dispatch.choose(each.with_(dtype=dtype, out_dtype="")) in KERNELS


@pytest.mark.matrix
@pytest.mark.parametrize(("spec", "each"), supported(MATRIX))
def test_small_integers_are_exact(
    spec: KernelSpec, each: ConvProblem, rng: np.random.Generator
) -> None:
    tensors = small_integers(each, rng)
    for epilogue, activation in ((False, None), (True, epilogue_of(each))):
        truth = expected(each, tensors, epilogue=epilogue, activation=activation)
        sums = expected(each, tensors, epilogue=epilogue)
        for how, call in CALLS.items():
            out = nan_output(each)
            with dispatch.use_kernel(spec.name):
                result = call(each, tensors, epilogue=epilogue, activation=activation, out=out)
            assert result is out
            what = f"{how} {activation}"
            if spec.exact:
                assert_exact(result, truth, what)
            else:
                assert_close(result, truth, spec.tolerance[each.dtype], what, sums)


@pytest.mark.matrix
@pytest.mark.parametrize(("spec", "each"), supported(MATRIX))
def test_random_values_are_within_tolerance(
    spec: KernelSpec, each: ConvProblem, rng: np.random.Generator
) -> None:
    tensors = gaussians(each, rng)
    activation = list(ACTIVATIONS)[sum(each.in_size) % len(ACTIVATIONS)]
    tolerance = spec.tolerance[each.dtype]
    with dispatch.use_kernel(spec.name):
        plain = functional(each, tensors, out=None)
        fused = functional(each, tensors, epilogue=True, activation=activation, out=None)
    assert plain.dtype == fused.dtype == tensors.residual.dtype
    assert_close(plain, expected(each, tensors), tolerance, "plain")
    sums = expected(each, tensors, epilogue=True)
    assert_close(fused, reference.activate(sums, activation), tolerance, activation, sums)


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_refused_problems_raise_the_kernels_own_sentences(
    spec: KernelSpec, rng: np.random.Generator
) -> None:
    for each in MATRIX:
        sentences = refusals(spec, each)
        if not sentences or each.batch == 0:  # an empty batch runs no kernel
            continue
        assert all(len(sentence.split()) > 2 for sentence in sentences), sentences
        with dispatch.use_kernel(spec.name), pytest.raises(NoKernelError) as caught:
            functional(each, small_integers(each, rng), out=None)
        assert spec.name in str(caught.value)
        for sentence in sentences:
            assert sentence in str(caught.value), each.line()


@pytest.mark.matrix
@pytest.mark.parametrize("activation", [*ACTIVATIONS, "prelu"])
@pytest.mark.parametrize(("spec", "each"), supported(SMALL_PROBLEMS))
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_every_activation(
    spec: KernelSpec, each: ConvProblem, activation: str, dtype: str, rng: np.random.Generator
) -> None:
    each = each.with_(dtype=dtype)
    if sentences := refusals(spec, each):  # the pair was generated for float32
        with dispatch.use_kernel(spec.name), pytest.raises(NoKernelError) as caught:
            functional(each, gaussians(each, rng), out=None)
        assert sentences[0] in str(caught.value)
        return
    tensors = gaussians(each, rng)
    tensors.residual *= 8  # reach the saturated ends as well
    told, parameter = with_slopes(each, activation)
    with dispatch.use_kernel(spec.name):
        actual = functional(each, tensors, epilogue=True, activation=told, out=None)
    sums = expected(each, tensors, epilogue=True)
    truth = reference.activate(sums, activation, parameter)
    assert_close(actual, truth, spec.tolerance[dtype], activation, sums)


@pytest.mark.parametrize(("spec", "each"), supported(SMALL_PROBLEMS))
def test_every_memory_order(spec: KernelSpec, each: ConvProblem, rng: np.random.Generator) -> None:
    tensors = gaussians(each, rng)
    truth = expected(each, tensors, epilogue=True)
    orders = {
        argument: memory_orders(getattr(tensors, argument))
        for argument in ("x", "weight", "residual")
    }
    outputs = memory_orders(np.full(each.out_shape, np.nan, tensors.x.dtype))
    checked = 0
    for name in outputs:  # every argument in the same kind of order, then one after another
        for changed in (tuple(orders), *((argument,) for argument in orders), ()):
            arrays = {argument: orders[argument][name] for argument in changed}
            now = dataclasses.replace(tensors, **arrays)
            out = outputs[name] if outputs[name].flags.writeable and not changed else None
            layout = memory_layout(now.x)
            if refusals(spec, each.with_(layout=layout)):
                continue
            with dispatch.use_kernel(spec.name):
                result = functional(each, now, epilogue=True, out=out)
            assert_close(result, truth, spec.tolerance[each.dtype], f"{name} {changed}")
            checked += 1
    assert checked >= len(outputs)


def poisoned(tensors: Tensors, value: float, argument: str, rng: np.random.Generator) -> None:
    array = getattr(tensors, argument)
    array[tuple(rng.integers(size) for size in array.shape)] = value


def touched_by_padding(of: ConvProblem) -> np.ndarray:
    """Mask of the output pixels whose window holds some padding."""
    image = np.ones((1, 1, *of.in_size))
    taps = np.ones((1, 1, *of.kernel_size))
    inside = reference.conv(image, taps, stride=of.stride, padding=of.padding, dilation=of.dilation)
    return inside[0, 0] < taps.size


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize(("spec", "each"), supported(SMALL_PROBLEMS))
def test_a_nan_or_infinity_reaches_its_outputs_and_no_other(
    spec: KernelSpec, each: ConvProblem, value: float, rng: np.random.Generator
) -> None:
    for argument in ("x", "weight"):
        tensors = gaussians(each, rng)
        poisoned(tensors, value, argument, rng)
        with dispatch.use_kernel(spec.name):
            actual = functional(each, tensors, out=None)
        truth = expected(each, tensors)
        if argument == "weight":  # a tap on padding may be multiplied (0 * inf) or left out
            touched = touched_by_padding(each)
            actual, truth = actual.copy(), truth.copy()
            actual[..., touched] = truth[..., touched] = 0
        if not spec.exact:  # a transform mixes the pixels of one tile
            spread = ~np.isfinite(actual)
            assert np.all(spread >= ~np.isfinite(truth)), argument
            assert not spread.all(), argument
            actual = np.where(spread, truth.astype(actual.dtype), actual)
        assert_close(actual, truth, spec.tolerance[each.dtype], argument)


@pytest.mark.parametrize(("spec", "each"), supported(SMALL_PROBLEMS))
def test_a_nan_survives_every_activation(
    spec: KernelSpec, each: ConvProblem, rng: np.random.Generator
) -> None:
    tensors = gaussians(each, rng)
    tensors.residual[(0,) * each.ndim] = np.nan
    with dispatch.use_kernel(spec.name):
        for activation in (*ACTIVATIONS, "prelu"):
            told, parameter = with_slopes(each, activation)
            actual = functional(each, tensors, epilogue=True, activation=told, out=None)
            sums = expected(each, tensors, epilogue=True)
            truth = reference.activate(sums, activation, parameter)
            assert_close(actual, truth, spec.tolerance[each.dtype], activation, sums)


@pytest.mark.parametrize(("spec", "each"), supported(SMALL_PROBLEMS))
def test_two_calls_agree_to_the_last_bit(
    spec: KernelSpec, each: ConvProblem, rng: np.random.Generator
) -> None:
    tensors = gaussians(each, rng)
    with dispatch.use_kernel(spec.name):
        results = {
            bits(call(each, tensors, epilogue=True, activation="silu", out=None))
            for call in CALLS.values()
            for _ in range(3)
        }
    assert len(results) == 1


@pytest.mark.parametrize(
    ("spec", "each"), supported(each.with_(dtype="float16") for each in SMALL_PROBLEMS)
)
def test_float16_overflows_to_infinity(spec: KernelSpec, each: ConvProblem) -> None:
    channels = np.arange(each.out_channels).reshape(-1, *(1,) * (each.ndim + 1)) % 3
    weight = np.choose(channels, [256.0, 2.0**-8, -256.0]).astype(np.float16)
    x = np.full(each.x_shape, 256, np.float16)
    tensors = small_integers(each, np.random.default_rng(0))
    tensors.x[...], tensors.weight[...], tensors.bias[...] = x, weight, 0
    tensors.residual[...] = 0
    truth = expected(each, tensors)
    with np.errstate(over="ignore"):
        truth = truth.astype(np.float16).astype(np.float64)
    assert np.isinf(truth).any() and np.isfinite(truth).any()
    with dispatch.use_kernel(spec.name):
        for epilogue in (False, True):
            actual = functional(each, tensors, epilogue=epilogue, out=None)
            assert_close(actual, truth, spec.tolerance["float16"], f"epilogue {epilogue}")


@pytest.mark.parametrize("argument", ["x", "weight"])
@pytest.mark.parametrize(("spec", "each"), supported(SMALL_PROBLEMS))
def test_denormals_count_as_zero_but_those_of_float16(
    spec: KernelSpec, each: ConvProblem, argument: str, rng: np.random.Generator
) -> None:
    for dtype, tiny in (("float32", 1e-40), ("float64", 1e-310), ("float16", 2.0**-24)):
        of = each.with_(dtype=dtype)
        if refusals(spec, of):
            continue
        tensors = small_integers(of, rng)
        getattr(tensors, argument)[...] *= tensors.x.dtype.type(tiny)
        tensors.bias[...] = tensors.residual[...] = 0
        truth = expected(of, tensors) if dtype == "float16" else np.zeros(of.out_shape)
        scale = max(np.max(np.abs(truth)), tiny)
        with dispatch.use_kernel(spec.name):
            for epilogue in (False, True):
                actual = functional(of, tensors, epilogue=epilogue, out=None)
                error = np.max(np.abs(actual.astype(np.float64) - truth))
                assert error <= spec.tolerance[dtype].relative * scale, dtype
