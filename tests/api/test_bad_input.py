"""Bad input: the right error, a message that says what came and what is wanted, `out` untouched."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import fastconv
from fastconv.array_libraries import EmulatedArray
from fastconv.contract.errors import ArgumentError, DeviceError, DTypeError, ShapeError

SENTINEL = 12345.0


def array(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def on_another_device(*shape: int) -> EmulatedArray:
    return EmulatedArray(array(*shape))


@dataclass
class Case:
    """One mistake in an otherwise good call of `conv2d`.

    `words` are patterns that the message must hold: the argument, what it got, what it wants.
    """

    name: str
    error: type[Exception]
    words: tuple[str, ...]
    changes: dict[str, Any] = field(default_factory=dict)


GOOD: dict[str, Any] = {"input": array(2, 4, 8, 8), "weight": array(6, 4, 3, 3)}
GOOD_OUT = (2, 6, 6, 6)

CASES = (
    Case("input_rank_2", ShapeError, ("input", r"8, 8", "4"), {"input": array(8, 8)}),
    Case("input_rank_5", ShapeError, ("input", "5", "4"), {"input": array(1, 2, 4, 8, 8)}),
    Case("weight_rank_3", ShapeError, ("weight", "3", "4"), {"weight": array(6, 4, 3)}),
    Case("weight_rank_5", ShapeError, ("weight", "5", "4"), {"weight": array(6, 4, 3, 3, 3)}),
    Case("channels", ShapeError, ("weight|input", "4", "5"), {"weight": array(6, 5, 3, 3)}),
    Case("channels_of_groups", ShapeError, ("weight|input", "4", "2"), {"groups": 2}),
    Case(
        "groups_do_not_divide_input",
        ShapeError,
        ("groups", "4", "3"),
        {"groups": 3, "weight": array(6, 1, 3, 3)},
    ),
    Case(
        "groups_do_not_divide_output",
        ShapeError,
        ("groups", "6", "4"),
        {"groups": 4, "weight": array(6, 1, 3, 3)},
    ),
    Case("groups_zero", ShapeError, ("groups", "0", "1"), {"groups": 0}),
    Case("groups_negative", ShapeError, ("groups", "-2", "1"), {"groups": -2}),
    Case("groups_half", ShapeError, ("groups", "1.5"), {"groups": 1.5}),
    Case("stride_zero", ShapeError, ("stride", "0", "1"), {"stride": 0}),
    Case("stride_negative", ShapeError, ("stride", "-1", "1"), {"stride": (1, -1)}),
    Case("stride_too_many", ShapeError, ("stride", "3", "2"), {"stride": (1, 1, 1)}),
    Case("stride_half", ShapeError, ("stride", "1.5"), {"stride": 1.5}),
    Case("stride_float", ShapeError, ("stride", r"1\.0"), {"stride": 1.0}),
    Case("dilation_float", ShapeError, ("dilation", r"1\.0"), {"dilation": (1, 1.0)}),
    Case("padding_float", ShapeError, ("padding", r"0\.0"), {"padding": 0.0}),
    Case("groups_float", ShapeError, ("groups", r"1\.0"), {"groups": 1.0}),
    Case("stride_word", ShapeError, ("stride", "'two'"), {"stride": "two"}),
    Case("stride_none", ShapeError, ("stride", "None"), {"stride": None}),
    Case("dilation_zero", ShapeError, ("dilation", "0", "1"), {"dilation": (0, 1)}),
    Case("dilation_negative", ShapeError, ("dilation", "-3", "1"), {"dilation": -3}),
    Case("dilation_none_at_all", ShapeError, ("dilation", "0", "2"), {"dilation": ()}),
    Case("stride_beyond_64_bits", ShapeError, ("stride", str(2**63)), {"stride": 2**63}),
    Case("dilation_beyond_64_bits", ShapeError, ("dilation", str(2**70)), {"dilation": (1, 2**70)}),
    Case("padding_beyond_64_bits", ShapeError, ("padding", str(2**64)), {"padding": 2**64}),
    Case("groups_beyond_64_bits", ShapeError, ("groups", str(2**64)), {"groups": 2**64}),
    Case("output_of_an_exabyte", ShapeError, ("output", "2147483654"), {"padding": 2**30}),
    Case("padding_negative", ShapeError, ("padding", "-1"), {"padding": -1}),
    Case("padding_negative_side", ShapeError, ("padding", "-1"), {"padding": ((0, -1), (0, 0))}),
    Case("padding_too_many", ShapeError, ("padding", "1, 1, 1", "2 of"), {"padding": (1, 1, 1)}),
    Case(
        "padding_three_sides",
        ShapeError,
        ("padding", "1, 1, 1", "low"),
        {"padding": ((1, 1, 1), (0, 0))},
    ),
    Case(
        "padding_flat_four",
        ShapeError,
        ("padding", "1, 1, 1, 1", r"\(\(low, high\), \(low, high\)\)"),
        {"padding": (1, 1, 1, 1)},
    ),
    Case("padding_half", ShapeError, ("padding", "0.5", r"\(low, high\)"), {"padding": 0.5}),
    Case("padding_word", ShapeError, ("padding", "'full'", "same"), {"padding": "full"}),
    Case("same_strided", ShapeError, ("padding", "same", "2"), {"padding": "same", "stride": 2}),
    Case(
        "kernel_too_large", ShapeError, ("weight|kernel", "9", "8"), {"weight": array(6, 4, 9, 3)}
    ),
    Case("dilated_kernel_too_large", ShapeError, ("weight|kernel", "9", "8"), {"dilation": (4, 1)}),
    Case("kernel_empty", ShapeError, ("weight|kernel", "0"), {"weight": array(6, 4, 0, 3)}),
    Case("no_output_channels", ShapeError, ("weight", "0"), {"weight": array(0, 4, 3, 3)}),
    Case(
        "no_input_channels",
        ShapeError,
        ("input|weight", "0"),
        {"input": array(2, 0, 8, 8), "weight": array(6, 0, 3, 3)},
    ),
    Case("bias_shape", ShapeError, ("bias", "5", "6"), {"bias": array(5)}),
    Case("bias_rank", ShapeError, ("bias", "6, 1", "6"), {"bias": array(6, 1)}),
    Case("bias_scalar", ShapeError, ("bias", r"\(\)", "6"), {"bias": array()}),
    Case(
        "residual_shape", ShapeError, ("residual", "8, 8", "6, 6"), {"residual": array(2, 6, 8, 8)}
    ),
    Case(
        "residual_broadcastable",
        ShapeError,
        ("residual", "1, 1", "6, 6"),
        {"residual": array(2, 6, 1, 1)},
    ),
    Case("out_shape", ShapeError, ("out", "8, 8", "6, 6"), {"out": array(2, 6, 8, 8)}),
    Case(
        "weight_dtype",
        DTypeError,
        ("input", "weight of float64", "want one type: weight.astype"),
        {"weight": array(6, 4, 3, 3, dtype=np.float64)},
    ),
    Case(
        "bias_dtype",
        DTypeError,
        ("bias", "float64", "float32"),
        {"bias": array(6, dtype=np.float64)},
    ),
    Case(
        "residual_dtype",
        DTypeError,
        ("residual", "float16", "float32"),
        {"residual": array(*GOOD_OUT, dtype=np.float16)},
    ),
    Case(
        "out_dtype",
        DTypeError,
        ("out", "float64", "float32"),
        {"out": array(*GOOD_OUT, dtype=np.float64)},
    ),
    Case("input_list", DTypeError, ("input", "list", "asarray"), {"input": [[[[1.0]]]]}),
    Case(
        "input_one_image_of_one_channel",
        ShapeError,
        ("input", "x\\[None, None\\]"),
        {"input": array(8, 8)},
    ),
    Case(
        "input_channels_last",
        ShapeError,
        ("input", "last axis has 4", r"moveaxis\(input, -1, -3\)"),
        {"input": array(2, 8, 8, 4)},
    ),
    *(
        Case(
            f"{name}_masked",
            DTypeError,
            (name, "masked", "filled"),
            {name: np.ma.ones(shape, "f4")},
        )
        for name, shape in {
            "input": (2, 4, 8, 8),
            "weight": (6, 4, 3, 3),
            "bias": (6,),
            "residual": GOOD_OUT,
            "out": GOOD_OUT,
        }.items()
    ),
    *(
        Case(f"{name}_in_the_other_byte_order", DTypeError, (name, "byte order"), {name: swapped})
        for name, swapped in {
            "input": array(2, 4, 8, 8).astype(">f4"),
            "weight": array(6, 4, 3, 3).astype(">f4"),
            "bias": np.ones(6, np.dtype(ml_dtypes.bfloat16).newbyteorder()),
        }.items()
    ),
    Case(
        "out_overlaps_itself",
        ShapeError,
        ("out", "share memory"),
        {"out": np.lib.stride_tricks.as_strided(array(600), GOOD_OUT, (864, 144, 20, 4))},
    ),
    Case("bias_number", DTypeError, ("bias", "float"), {"bias": 1.0}),
    Case("activation_alone", ValueError, ("activation", "relu"), {"activation": ("relu",)}),
    Case(
        "activation_without_parameter",
        ValueError,
        ("activation", "0.1", "relu", "leaky_relu and elu"),
        {"activation": ("relu", 0.1)},
    ),
    Case("tune_word", ValueError, ("tune", "'no'", "True or False"), {"tune": "no"}),
    Case("tune_array", ValueError, ("tune", "True or False"), {"tune": np.array([1, 2])}),
    *(
        Case(f"{name}_array", ShapeError, (name, "array", "whole number"), {name: np.array([2, 2])})
        for name in ("stride", "padding", "dilation", "groups")
    ),
    Case(
        "input_torch",
        DeviceError,
        ("weight|out", "PyTorch", r"torch\.from_numpy\((weight|out)\)"),
        {"input": torch.ones(1, 4, 8, 8)},
    ),
    Case("activation_number", ValueError, ("activation", "3"), {"activation": 3}),
    Case("activation_truth", ValueError, ("activation", "True"), {"activation": ("elu", True)}),
    Case("activation_large", ValueError, ("activation", "elu"), {"activation": ("elu", 10**400)}),
    Case("input_none", DTypeError, ("input", "None"), {"input": None}),
    Case("weight_none", DTypeError, ("weight", "None"), {"weight": None}),
    Case(
        "input_device",
        DeviceError,
        ("weight", "on the CPU", "emulated array as the input"),
        {"input": on_another_device(2, 4, 8, 8)},
    ),
    Case(
        "weight_device",
        DeviceError,
        ("weight", "on a GPU", "NumPy"),
        {"weight": on_another_device(6, 4, 3, 3)},
    ),
    Case("bias_device", DeviceError, ("bias", "on a GPU", "NumPy"), {"bias": on_another_device(6)}),
    Case(
        "residual_device",
        DeviceError,
        ("residual", "on a GPU", "NumPy"),
        {"residual": on_another_device(*GOOD_OUT)},
    ),
    Case(
        "activation_word", ValueError, ("activation", "'swish9'", "relu"), {"activation": "swish9"}
    ),
    Case("activation_alpha", ValueError, ("activation",), {"activation": ("elu", "big")}),
)
UNSUPPORTED = ("int8", "int64", "uint32", "bool", "complex64", "longdouble", "object", ">f4", "U3")


def attempt(case: Case) -> Exception:
    # A good call first: what it leaves behind for the next one must not hide the mistake.
    fastconv.conv2d(**GOOD, bias=array(6), residual=array(*GOOD_OUT), out=array(*GOOD_OUT))
    fastconv.conv2d(**GOOD, bias=array(6), out=array(*GOOD_OUT))
    fastconv.conv2d(**GOOD, out=array(*GOOD_OUT))
    arguments = {**GOOD, "out": array(*GOOD_OUT), **case.changes}
    out = arguments["out"]
    out[...] = SENTINEL
    with pytest.raises(case.error) as caught:
        fastconv.conv2d(**arguments)
    assert np.all(out == SENTINEL), "out was written"
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_functional_refuses(case: Case) -> None:
    error = attempt(case)
    for word in case.words:
        assert re.search(word, str(error)), f"{word!r} is not in: {error}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layer_refuses(case: Case) -> None:
    arguments = {**GOOD, "out": array(*GOOD_OUT), **case.changes}
    call = {name: arguments.pop(name) for name in ("input", "out")}
    call["residual"] = arguments.pop("residual", None)
    call["out"][...] = SENTINEL
    with pytest.raises(case.error) as caught:
        fastconv.Conv2d(**arguments)(call["input"], residual=call["residual"], out=call["out"])
    assert np.all(call["out"] == SENTINEL), "out was written"
    for word in case.words:
        assert re.search(word, str(caught.value)), f"{word!r} is not in: {caught.value}"


@pytest.mark.parametrize("dtype", UNSUPPORTED)
@pytest.mark.parametrize("argument", ["input", "weight", "bias", "residual", "out"])
def test_unsupported_dtypes_name_the_supported_ones(argument: str, dtype: str) -> None:
    shape = {"bias": (6,), "residual": GOOD_OUT, "out": GOOD_OUT}
    wrong = np.zeros(shape.get(argument) or GOOD[argument].shape, dtype)
    arguments = {**GOOD, argument: wrong}
    with pytest.raises(DTypeError) as caught:
        fastconv.conv2d(**arguments)
    assert argument in str(caught.value)
    assert "float32" in str(caught.value)
    if argument == "input":
        for supported in ("float64", "float16", "bfloat16"):
            assert supported in str(caught.value)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ((array(2, 2),), ("what", "array", "problem or its line")),
        ((max, array(2, 2)), ("what", "max", "conv2d")),
        ((fastconv.conv2d,), ("missing a required argument: 'input'", "conv2d")),
        ((fastconv.Conv2d(array(2, 2, 3, 3)),), ("missing a required argument: 'input'",)),
    ],
)
def test_explain_says_what_it_takes(what: tuple[Any, ...], words: tuple[str, ...]) -> None:
    with pytest.raises(ArgumentError) as caught:
        fastconv.explain(*what)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"weight": [[1.0]]}, DTypeError, ("weight", "list")),
        ({"weight": np.ones((4, 2), int)}, DTypeError, ("weight", "int64", "float32")),
        ({"mean": np.ma.zeros(4)}, DTypeError, ("mean", "masked")),
        ({"mean": np.zeros(3)}, ShapeError, ("mean", "(3,)", "(4,)")),
        ({"gamma": np.zeros(4, complex)}, DTypeError, ("gamma", "complex128")),
        ({"beta": np.array(list("abcd"))}, DTypeError, ("beta", "<U1")),
        ({"var": np.float64([1, 1, -4, 1])}, ArgumentError, ("var", "-4.0", "channel 2")),
        ({"var": np.full(4, np.nan)}, ArgumentError, ("var", "nan")),
        ({"bias": torch.ones(4, device="meta")}, DTypeError, ("bias", "meta")),
    ],
)
def test_fold_batch_norm_refuses(
    change: dict[str, Any], error: type[Exception], words: tuple[str, ...]
) -> None:
    good = {"weight": array(4, 2), "bias": None, "mean": np.zeros(4), "var": np.ones(4)}
    with pytest.raises(error) as caught:
        fastconv.fold_batch_norm(**{**good, **change})
    assert all(word in str(caught.value) for word in words), caught.value


def test_fold_batch_norm_takes_tensors_as_modules_hold_them() -> None:
    """They require gradients, and may be of a type that NumPy has not."""
    layer, norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4).eval()
    norm.running_var.fill_(0.25)  # type: ignore[union-attr, operator]
    weight, bias = fastconv.fold_batch_norm(
        layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias
    )
    x = torch.rand(1, 3, 8, 8)
    wanted = norm(layer(x)).detach().numpy()
    with fastconv.precision("exact"):
        made = fastconv.conv2d(x.numpy(), weight, bias)
    np.testing.assert_allclose(made, wanted, atol=1e-5)
    half = layer.weight.to(torch.bfloat16)
    folded, _ = fastconv.fold_batch_norm(half, None, torch.zeros(4), torch.ones(4), eps=0.0)
    assert folded.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(folded.astype(np.float32), half.detach().float().numpy())


def test_read_only_out_is_refused() -> None:
    out = array(*GOOD_OUT)
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"out.*(read-only|writ)"):
        fastconv.conv2d(**GOOD, out=out)
    assert np.all(out == 1)


def test_out_that_overlaps_itself_is_refused() -> None:
    base = array(1, 6, 6, 6)
    out = np.lib.stride_tricks.as_strided(base, GOOD_OUT, (0, *base.strides[1:]))
    with pytest.raises(ShapeError, match="out"):
        fastconv.conv2d(**GOOD, out=out)
    assert np.all(base == 1)


@pytest.mark.parametrize("name", ["conv1d", "conv3d"])
def test_the_other_ranks_name_their_own_rank(name: str) -> None:
    with pytest.raises(ShapeError, match="input"):
        getattr(fastconv, name)(array(1, 2, 3, 4, 5, 6), array(1, 2, 3))


def test_unbatched_residual_and_out_must_be_unbatched() -> None:
    for argument in ("residual", "out"):
        with pytest.raises(ShapeError, match=argument):
            fastconv.conv2d(array(4, 8, 8), array(6, 4, 3, 3), **{argument: array(1, 6, 6, 6)})


def test_one_unsupported_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="pad"):
        fastconv.conv2d(**GOOD, pad=1)


def test_errors_are_also_the_built_in_classes() -> None:
    assert issubclass(ShapeError, ValueError)
    assert issubclass(DTypeError, TypeError)
    assert issubclass(DeviceError, RuntimeError)
    assert issubclass(fastconv.NoKernelError, NotImplementedError)


def test_huge_numbers_do_not_overflow() -> None:
    x, weight = array(1, 1, 4, 4), array(1, 1, 1, 1)
    huge = 1 << 40
    assert fastconv.conv2d(x, weight, stride=huge).shape == (1, 1, 1, 1)
    np.testing.assert_array_equal(fastconv.conv2d(x, weight, dilation=huge), x)
    with pytest.raises(ShapeError, match=str(huge + 1)):
        fastconv.conv2d(x, array(1, 1, 2, 2), dilation=huge)


@pytest.mark.parametrize("kernel", ["cpu.direct", "cpu.depthwise", "cpu.im2col_gemm"])
def test_samples_that_a_stride_passes_over_take_no_memory(kernel: str) -> None:
    x, weight = array(1, 1, 4, 9), array(1, 1, 3, 5)
    with fastconv.use_kernel(kernel):
        result = fastconv.conv2d(x, weight, stride=1 << 40)
    np.testing.assert_array_equal(result, [[[[15.0]]]])
