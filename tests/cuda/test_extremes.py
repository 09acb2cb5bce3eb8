"""CUDA kernels where numbers mean nothing or are as large as they come.

Strides of axes of length 1 may be anything; strides, pads and dilations about the powers of two at
which words end are computed rightly, or refused by every kernel with a reason.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

import fastconv
from cuda_helpers import DEVICE, KERNELS, convolve, planner, supported
from fastconv.array_libraries import EmulatedArray
from fastconv.contract.errors import DTypeError, ShapeError
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import KernelSpec
from fastconv.kernels.cuda.common.launch import emulation
from fastconv.kernels.cuda.common.params import element_strides
from fastconv.kernels.cuda.emulator import Checks
from helpers import Tensors, assert_exact, expected, nan_output, run_function, small_integers
from problem_matrix import problem

#: What NumPy, a slice or another library may leave as the stride of an axis of length 1.
MEANINGLESS = (0, 3, -8, 2**33 + 4, 2**40, -(2**40), 2**62, -(2**63) + 8)
#: Every axis of every operand has length 1 in one of them.
OF_ONES = [
    each.with_(device="cuda")
    for each in (
        problem((4, 6), (9,), 3, padding=1),
        problem((4, 6), (1,), 1, batch=2),
        problem((1, 3), (9,), 3, padding=1, dilation=2),
        problem((16, 16), (9, 1), 3, padding=1, groups=16, batch=2),
        problem((8, 1), (1, 7), (1, 3), padding=((0, 0), (1, 1))),
        problem((6, 4), (5, 1), 3, padding=2, dilation=2, layout="channels_last"),
        problem((1, 1), (1, 1), 1),
        problem((3, 4), (1, 5, 1), (1, 3, 1), padding=((0, 0), (1, 1), (0, 0)), dtype="float16"),
        problem((5, 6), (1, 6), 3, padding=1, batch=2, dtype="float64"),
    )
]


def with_stride(array: np.ndarray, step: int) -> np.ndarray:
    """The same memory, in which every axis of length 1 has this stride."""
    pairs = zip(array.shape, array.strides, strict=True)
    strides = tuple(step if size == 1 else own for size, own in pairs)
    return np.lib.stride_tricks.as_strided(array, array.shape, strides)


@pytest.mark.parametrize(("spec", "each"), supported(OF_ONES))
def test_strides_of_axes_of_one_mean_nothing(
    spec: KernelSpec, each: ConvProblem, rng: np.random.Generator
) -> None:
    tensors = small_integers(each, rng)
    truth = expected(each, tensors, epilogue=True)
    for step in MEANINGLESS:
        x, weight, bias, residual, out = (
            with_stride(array, step)
            for array in (tensors.x, tensors.weight, tensors.bias, tensors.residual,
                          nan_output(each))
        )  # fmt: skip
        lying = Tensors(x, weight, bias, residual)
        with emulation(checks=Checks.BOUNDS):
            result = convolve(planner(spec), each, lying, epilogue=True, out=out)
        if spec.exact:
            assert_exact(result, truth, f"stride {step}")
        else:
            np.testing.assert_allclose(result, truth, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("step", MEANINGLESS)
def test_functions_take_strides_that_mean_nothing(step: int, rng: np.random.Generator) -> None:
    each = problem((4, 6), (1, 7), (1, 3), padding=((0, 0), (1, 1)))
    t = small_integers(each, rng)
    truth = expected(each, t, epilogue=True)
    x, weight, bias, residual, out = (
        EmulatedArray(with_stride(array, step))
        for array in (t.x, t.weight, t.bias, t.residual, nan_output(each))
    )
    padding = [(0, 0), (1, 1)]
    y = fastconv.conv2d(x, weight, bias, padding=padding, residual=residual, out=out)
    assert y is out
    assert_exact(y.memory, truth, "conv2d")
    layer = fastconv.Conv2d(weight, bias, padding=padding)
    assert_exact(layer(x, residual=residual).memory, truth, "Conv2d")


@pytest.mark.parametrize("name", ["input", "weight", "out", "residual"])
def test_strides_that_end_within_an_element_name_their_argument(name: str) -> None:
    arrays = {
        "input": np.ones((1, 2, 5), np.float32), "weight": np.ones((2, 2, 3), np.float32),
        "out": np.ones((1, 2, 3), np.float32), "residual": np.ones((1, 2, 3), np.float32),
    }  # fmt: skip
    packed = np.rec.fromarrays([arrays[name], np.zeros(arrays[name].shape, "u1")], names="a,b")
    arrays[name] = np.asarray(packed)["a"]
    x, weight, out, residual = map(EmulatedArray, arrays.values())
    with pytest.raises(ShapeError, match=rf"^{name}: got strides of .* want multiples of .* 4"):
        fastconv.conv1d(x, weight, residual=residual, out=out)


def test_strides_beyond_32_bits_name_their_argument() -> None:
    assert element_strides("weight", (2, 3), (12, 4), 4) == (3, 1)
    assert element_strides("weight", (2, 1), (4, 2**60 + 1), 4)[0] == 1
    for strides in ((2**34, 4), (-(2**34), 4), (4, 2**33)):
        with pytest.raises(ShapeError, match=r"^weight: got strides of .* span 2\*\*32 elements"):
            element_strides("weight", (2, 3), strides, 4)


#: About every power of two at which a word, or half of one, ends.
EXTREMES = [2**k + d for k in (15, 16, 31, 32, 33, 44, 45) for d in (-1, 0, 1)]


def extreme(what: str, value: int, groups: int) -> ConvProblem:
    """A small output of three taps, one of whose numbers is extreme."""
    about = {
        "stride": {"stride": value, "padding": 1},
        "dilation, same": {"dilation": value, "padding": ((value, value),)},
        "dilation, low": {"dilation": value, "padding": ((2 * value, 0),)},
        "dilation, high": {"dilation": value, "padding": ((0, 2 * value),)},
        "padding and stride": {"stride": value, "padding": ((2 * value, 2 * value),)},
        "dilation of one tap": {"dilation": value, "kernel_size": 1},
    }[what]
    kernel = about.pop("kernel_size", 3)
    return problem((6, 6), (5,), kernel, groups=groups, batch=2, **about).with_(device="cuda")


_WHATS = ["stride", "dilation, same", "dilation, low", "dilation, high", "padding and stride",
          "dilation of one tap"]  # fmt: skip


def truth_of(each: ConvProblem, t: Tensors) -> np.ndarray:
    """The convolution in Python's integers, without an array of the padded size."""
    (size,), (low, _) = each.in_size, each.padding[0]
    out = np.zeros(each.out_shape)
    inputs, outputs = each.in_channels // each.groups, each.out_channels // each.groups
    for group, place, tap in itertools.product(
        range(each.groups), range(each.out_size[0]), range(each.kernel_size[0])
    ):
        at = place * each.stride[0] - low + tap * each.dilation[0]
        if 0 <= at < size:
            samples = t.x[:, group * inputs : (group + 1) * inputs, at].astype(np.float64)
            rows = slice(group * outputs, (group + 1) * outputs)
            out[:, rows, place] += samples @ t.weight[rows, :, tap].astype(np.float64).T
    return out


def check_extremes(what: str) -> None:
    """Run every kernel on every extreme; in a process of its own, since a mistake ends it."""
    rng = np.random.default_rng(0)
    computed = refused = 0
    for value, groups in itertools.product(EXTREMES, (1, 6)):
        each = extreme(what, value, groups)
        tensors = small_integers(each, rng)
        truth = truth_of(each, tensors)
        able = [spec for spec in KERNELS if not spec.reasons(each, DEVICE)]
        for spec in able:
            with emulation(checks=Checks.BOUNDS):
                result = convolve(planner(spec), each, tensors, epilogue=False)
            np.testing.assert_array_equal(result, truth, f"{spec.name}, {value}")
            computed += 1
        if not able:
            reasons = {reason for spec in KERNELS for reason in spec.reasons(each, DEVICE)}
            assert any("indexes in 32 bits; taps reach" in reason for reason in reasons), reasons
            refused += 1
    print(computed, refused)


@pytest.mark.parametrize("what", _WHATS)
def test_extremes_are_right_or_refused(what: str) -> None:
    run = run_function(__file__, f"check_extremes({what!r})")
    assert run.returncode == 0, f"{run.returncode}: {run.stderr[-3000:]}"
    computed, refused = map(int, run.stdout.split())
    assert computed >= 2 * 3 * 2 and (refused > 0) == (what not in ("stride", _WHATS[-1]))


def test_functions_say_why_a_reach_is_refused() -> None:
    x = EmulatedArray(np.ones((10, 10, 9), np.float32))
    weight = EmulatedArray(np.ones((2, 10, 9), np.float32))
    for dilation in (2**28, 2**32):  # all taps but the middle one meet only padding
        result = fastconv.conv1d(x, weight, padding="same", dilation=dilation)
        assert (result.memory == 10).all()
    far = {"stride": 2**33, "padding": 2**33, "dilation": 2**33}  # both taps meet the one sample
    one, taps = EmulatedArray(x.memory[..., :1]), EmulatedArray(weight.memory[..., :2])
    with pytest.raises(fastconv.NoKernelError, match="32 bits; taps reach from sample -8589934592"):
        fastconv.conv1d(one, taps, **far)


def test_panels_that_32_bits_do_not_reach_are_refused() -> None:
    each = problem((65535, 65535 * 8400), (1,), 1, groups=65535).with_(device="cuda")
    (spec,) = [spec for spec in KERNELS if spec.name == "cuda.implicit_gemm"]
    assert each.weight_shape == (65535 * 8400, 1, 1)
    reasons = spec.reasons(each, DEVICE)
    assert len(reasons) == 1 and "32 bits; the packed weight would hold" in reasons[0]


def test_emulated_arrays_are_values_to_copy_and_show() -> None:
    array = EmulatedArray(np.arange(6, dtype=np.float32).reshape(2, 3))
    for other in (pickle.loads(pickle.dumps(array)), copy.deepcopy(array)):
        np.testing.assert_array_equal(other.memory, array.memory)
        assert other.memory is not array.memory
    assert copy.copy(array).memory is array.memory
    assert repr(array).startswith("EmulatedArray(memory=array(")
    assert array != EmulatedArray(array.memory) and {array: 1}[array] == 1
    for wrong in ([1.0], 1.0, None, array):
        with pytest.raises(DTypeError, match=r"memory: got .*, want a NumPy array"):
            EmulatedArray(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["input", "weight", "bias", "residual", "out"])
def test_the_other_byte_order_is_refused(name: str) -> None:
    arrays: dict[str, Any] = {
        "input": np.ones((1, 2, 5), "<f4"), "weight": np.ones((2, 2, 3), "<f4"),
        "bias": np.ones(2, "<f4"), "residual": np.ones((1, 2, 3), "<f4"),
        "out": np.ones((1, 2, 3), "<f4"),
    }  # fmt: skip
    arrays[name] = arrays[name].astype(">f4")
    x, weight, bias, residual, out = map(EmulatedArray, arrays.values())
    with pytest.raises(DTypeError, match=rf"^{name}: got >f4"):
        fastconv.conv1d(x, weight, bias, residual=residual, out=out)
