"""What Python's users expect of any object: copies, pickles, subclasses, arguments left alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.array_libraries import EmulatedArray
from fastconv.arrays import check_writable
from fastconv.contract.errors import NoKernelError, ShapeError
from fastconv.contract.problem import ConvProblem

pytestmark = pytest.mark.program


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Let no two ways of calling differ in the last bits, by kernels that transform."""
    with fastconv.precision("exact"):
        yield


X = np.ones((1, 3, 8, 8), np.float32)
WEIGHT = np.ones((4, 3, 3, 3), np.float32)


def by_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


COPIES = {"pickle": by_pickle, "deepcopy": copy.deepcopy, "copy": copy.copy}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("called", [False, True])
def test_a_copy_of_an_object_computes_the_same(
    how: str, called: bool, rng: np.random.Generator
) -> None:
    weight = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    layer = fastconv.Conv2d(
        weight, weight[:, 0, 0, 0], stride=(1, 2), padding=[[1, 0], [1, 1]],
        activation=("elu", 0.5),
    )  # fmt: skip
    if called:
        layer(X)
    twin = COPIES[how](layer)
    assert type(twin) is fastconv.Conv2d and repr(twin) == repr(layer)
    np.testing.assert_array_equal(twin(X), layer(X), strict=True)
    assert not twin.weight.flags.writeable


def test_a_pickle_holds_no_packed_weight() -> None:
    layer = fastconv.Conv2d(WEIGHT, padding=1)
    before = len(pickle.dumps(layer))
    layer(X)
    assert len(pickle.dumps(layer)) == before < 2 * WEIGHT.nbytes


def test_an_object_on_a_gpu_is_pickled_with_its_kind_of_array() -> None:
    layer = by_pickle(fastconv.Conv2d(EmulatedArray(WEIGHT), padding=1))
    result = layer(EmulatedArray(X))
    assert isinstance(result, EmulatedArray)
    np.testing.assert_array_equal(result.memory, fastconv.conv2d(X, WEIGHT, padding=1))


def test_values_and_errors_are_pickled() -> None:
    problem = ConvProblem(1, 4, 4, (8,), (3,), padding=((1, 1),))
    explanation = fastconv.explain(problem)
    assert by_pickle(problem) == copy.deepcopy(problem) == problem
    assert str(by_pickle(explanation)) == str(explanation)
    with pytest.raises(NoKernelError) as caught, fastconv.use_kernel("cpu.depthwise"):
        fastconv.conv2d(X, WEIGHT)
    assert str(by_pickle(caught.value)) == str(caught.value)


def test_what_an_object_was_given_cannot_be_changed_afterwards() -> None:
    weight, bias, padding = WEIGHT.copy(), np.ones(4, np.float32), [[1, 1], [1, 1]]
    layer = fastconv.Conv2d(weight, bias, padding=padding)
    first = layer(X)
    weight[...], bias[...], padding[0][0] = 7, 7, 5
    np.testing.assert_array_equal(layer(X), first)
    wider = np.ones((2, 3, 9, 70), np.float32)  # another shape packs the weight anew
    np.testing.assert_array_equal(
        layer(wider), fastconv.conv2d(wider, WEIGHT, np.ones(4, np.float32), padding=1)
    )
    for array in (layer.weight, layer.bias):
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


class Tagged(np.ndarray):
    """A subclass as applications make them: it refuses to be indexed."""

    def __getitem__(self, key: object) -> Any:
        raise AssertionError("a kernel has no business here")


@pytest.mark.parametrize("batched", [True, False])
def test_subclasses_are_computed_on_as_plain_arrays(batched: bool) -> None:
    x, residual = (
        (X, np.ones((1, 4, 6, 6), np.float32)) if batched else (X[0], np.ones((4, 6, 6), "f4"))
    )
    out = np.empty_like(residual).view(Tagged)
    truth = fastconv.conv2d(x, WEIGHT, residual=residual)
    for weight in (WEIGHT, WEIGHT.view(Tagged)):
        result = fastconv.conv2d(x.view(Tagged), weight, residual=residual.view(Tagged), out=out)
        assert result is out
        np.testing.assert_array_equal(out.view(np.ndarray), truth)
    for kernel in (
        "cpu.fft",
        "cpu.fast_fir",
    ):  # these two slice arrays, for filters that are outer products
        taps, signal = np.ones((3, 1, 9, 9), np.float32), np.ones((2, 3, 20, 33), np.float32)
        with fastconv.use_kernel(kernel), fastconv.precision("fast"):
            made = fastconv.conv2d(signal.view(Tagged), taps.view(Tagged), groups=3)
        np.testing.assert_allclose(made, np.full((2, 3, 12, 25), 81), rtol=1e-4)
    made = fastconv.Conv2d(WEIGHT.view(Tagged))(x.view(Tagged), residual.view(Tagged))
    assert type(made) is np.ndarray
    np.testing.assert_array_equal(made, truth)


LIES = {
    "shape": (1, 3, 4000, 4000),
    "strides": (2**40, 2**38, 2**30, 4),
    "dtype": np.dtype(np.float64),
    "ndim": 4,
    "itemsize": 8,
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("argument", ["input", "weight", "bias", "residual", "out"])
def test_a_subclass_has_no_say_in_where_a_kernel_goes(argument: str, lie: str) -> None:
    liar = type("Liar", (np.ndarray,), {lie: property(lambda _: LIES[lie])})
    arrays = {
        "input": X, "weight": WEIGHT, "bias": np.ones(4, np.float32),
        "residual": np.ones((1, 4, 6, 6), np.float32), "out": np.empty((1, 4, 6, 6), np.float32),
    }  # fmt: skip
    truth = fastconv.conv2d(**{**arrays, "out": None})
    given = arrays | {argument: arrays[argument].view(liar)}
    made = fastconv.conv2d(**given)
    assert made is given["out"]
    np.testing.assert_array_equal(np.ndarray.view(made, np.ndarray), truth)
    layer = fastconv.Conv2d(given["weight"], given["bias"])
    made = layer(given["input"], residual=given["residual"])
    np.testing.assert_array_equal(made, truth)


def test_what_an_object_shows_of_its_weight_is_not_what_it_computes_with() -> None:
    layer = fastconv.Conv2d(WEIGHT, np.ones(4, np.float32))
    before = layer(X)
    for shown in (layer.weight, layer.bias):
        assert not isinstance(shown.base, np.ndarray)
        shown.dtype = np.uint16
        shown.shape = -1
    np.testing.assert_array_equal(layer(X), before)
    np.testing.assert_array_equal(layer.weight, WEIGHT)
    np.testing.assert_array_equal(fastconv.Conv2d(layer.weight, layer.bias)(X), before)


def test_a_matrix_is_a_signal_of_one_batch() -> None:
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(np.ones((3, 9), np.float32))
    weight = np.ones((2, 3, 3), np.float32)
    result = fastconv.conv1d(matrix, weight)
    np.testing.assert_array_equal(result, np.full((2, 7), 9, np.float32), strict=True)


@pytest.mark.parametrize("argument", ["stride", "padding", "dilation"])
@pytest.mark.parametrize("kind", [list, tuple])
def test_one_entry_stands_for_every_axis(argument: str, kind: type) -> None:
    given = fastconv.conv2d(X, WEIGHT, **{argument: kind([2])})
    np.testing.assert_array_equal(given, fastconv.conv2d(X, WEIGHT, **{argument: 2}))
    layer = fastconv.Conv2d(WEIGHT, **{argument: kind([2])})
    np.testing.assert_array_equal(layer(X), given)


def test_an_activation_is_checked_though_an_equal_one_was_accepted() -> None:
    fastconv.conv2d(X, WEIGHT, activation=("elu", 1.0))
    with pytest.raises(ValueError, match="activation"):
        fastconv.conv2d(X, WEIGHT, activation=("elu", True))
    exact = fastconv.conv2d(X, WEIGHT, activation=("elu", np.float32(1)))
    np.testing.assert_array_equal(fastconv.conv2d(X, WEIGHT, activation="elu"), exact)


def test_axes_that_reach_over_each_other_and_share_nothing_may_be_written_to() -> None:
    memory = np.zeros(20, np.float32)
    out = np.lib.stride_tricks.as_strided(memory, (1, 1, 2, 2), (80, 80, 12, 8))
    fastconv.conv2d(np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 2, 2), np.float32), out=out)
    np.testing.assert_array_equal(np.flatnonzero(memory), [0, 2, 3, 5])


@pytest.mark.parametrize(
    ("shape", "strides", "share"),
    [
        ((1, 1, 2**20, 2**20), (4, 4, 4, 4), True),  # there is no room for so many
        ((1, 1, 4096, 4096), (4, 4, 4 * 8191, 8), False),
        ((1, 1, 4096, 4096), (4, 4, 4 * 8190, 8), True),
        ((1, 64, 56, 56), (4, 8, 4 * 129, 4 * 129 * 111), False),
        ((8, 64, 56, 56), (2**24, 4 * 3, 4 * 5, 4 * 7), True),
        ((1, 1, 3, 4), (4, 4, 6, 24), False),
        ((1, 1, 3, 4), (4, 4, 6, 2), True),
    ],
)
def test_elements_that_share_memory_are_found_by_arithmetic(
    shape: tuple[int, ...], strides: tuple[int, ...], share: bool
) -> None:
    """Not by their addresses, which for the largest would be terabytes."""
    memory = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), shape, strides)
    if share:
        with pytest.raises(ShapeError, match="share memory"):
            check_writable("out", memory)
    else:
        check_writable("out", memory)


def test_axes_that_interleave_in_too_many_ways_are_refused() -> None:
    sizes, strides = (500, 500, 500, 500), (4 * 7, 4 * 11, 4 * 13, 4 * 10**9)
    memory = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), sizes, strides)
    with pytest.raises(ShapeError, match=r"out: got .*(share memory|too many ways)"):
        check_writable("out", memory)


class TestTrim:
    """Taps that meet only padding are left out before any kernel sees the problem."""

    @pytest.mark.parametrize("dilation", [1 << 16, 1 << 20, 1 << 30, 1 << 32, (1 << 33) + 1])
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_far_taps(self, dilation: int, dtype: str) -> None:
        for ndim, function in enumerate((fastconv.conv1d, fastconv.conv2d, fastconv.conv3d), 1):
            x, size = np.ones((10, 4, *(9,) * ndim), dtype), 3 if ndim > 1 else 9
            dense = np.ones((2, 4, *(size,) * ndim), dtype)
            depthwise = np.ones((4, 1, *(size,) * ndim), dtype)
            geometry = {"padding": "same", "dilation": dilation}
            assert np.all(function(x, dense, **geometry) == 4)
            assert np.all(function(x, depthwise, groups=4, **geometry) == 1)

    def test_an_object_packs_what_each_shape_needs(self, rng: np.random.Generator) -> None:
        weight = rng.integers(-4, 5, (6, 3, 5)).astype(np.float32)
        layer = fastconv.Conv1d(weight, padding="same", dilation=4)
        for length in (3, 40, 5, 9, 40, 3):
            x = rng.integers(-4, 5, (2, 3, length)).astype(np.float32)
            padded = np.pad(x, ((0, 0), (0, 0), (8, 8)))
            np.testing.assert_array_equal(layer(x), fastconv.conv1d(padded, weight, dilation=4))
