"""Integer images and sounds: element types, what is refused, and how calls and objects agree."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.contract.errors import DTypeError, NoKernelError, ShapeError
from fastconv.contract.problem import INTEGERS, ConvProblem
from fastconv.contract.problem_line import parse_line
from fastconv.kernels import reference

SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)[None, None]


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (1, 1, 33, 70), np.uint8)


def sums(x: np.ndarray, weight: np.ndarray, **told: Any) -> np.ndarray:
    return reference.conv(
        x, weight, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), **told
    )


def test_the_result_is_float32_unless_dtype_or_out_says_otherwise(image: np.ndarray) -> None:
    truth = sums(image, SOBEL)
    plain = fastconv.conv2d(image, SOBEL, padding=1)
    assert plain.dtype == np.float32
    np.testing.assert_array_equal(plain, truth)
    for dtype in INTEGERS:
        for told in (dtype, np.dtype(dtype), getattr(np, dtype)):
            made = fastconv.conv2d(image, SOBEL, padding=1, out_dtype=told)
            assert made.dtype == dtype
            np.testing.assert_array_equal(made, reference.as_integers(truth, dtype))
        out = np.empty(truth.shape, dtype)
        assert fastconv.conv2d(image, SOBEL, padding=1, out=out) is out
        np.testing.assert_array_equal(out, made)
        assert fastconv.conv2d(image, SOBEL, padding=1, out=out, out_dtype=dtype) is out
        layer = fastconv.Conv2d(SOBEL, padding=1, out_dtype=dtype)
        np.testing.assert_array_equal(layer(image), made)
        np.testing.assert_array_equal(layer(image[0]), made[0])
    np.testing.assert_array_equal(fastconv.Conv2d(SOBEL, padding=1)(image), plain)
    floats = fastconv.conv2d(image.astype(np.float32), SOBEL, padding=1, out_dtype=np.float32)
    np.testing.assert_array_equal(floats, plain)


def test_halves_round_to_even_and_nan_is_zero() -> None:
    x = np.array([[[1, 3, 5, 255, 0]]], np.uint8)
    half = np.full((1, 1, 1), 0.5, np.float32)
    assert fastconv.conv1d(x, half, out_dtype="uint8")[0, 0].tolist() == [0, 2, 2, 128, 0]
    assert fastconv.conv1d(x, -half, out_dtype="int16")[0, 0].tolist() == [0, -2, -2, -128, 0]
    for value, low, high in ((np.nan, 0, 0), (np.inf, 255, 32767), (-np.inf, 0, -32768)):
        bias = np.array([value], np.float32)
        assert np.all(fastconv.conv1d(x, half, bias, out_dtype="uint8") == low)
        assert np.all(fastconv.conv1d(x, half, bias, out_dtype="int16") == high)


def test_sound_of_16_bits_saturates(rng: np.random.Generator) -> None:
    sound = rng.integers(-32768, 32768, (2, 4000)).astype(np.int16)
    taps = rng.integers(-2, 3, (2, 1, 33)).astype(np.float32)
    with fastconv.precision("exact"):
        made = fastconv.conv1d(sound, taps, padding="same", groups=2, out_dtype="int16")
    truth = reference.conv(
        sound[None], taps, stride=(1,), padding=((16, 16),), dilation=(1,), groups=2
    )
    assert (np.abs(truth) > 32768).any()
    np.testing.assert_array_equal(made, reference.as_integers(truth[0], "int16"))


def test_colours_of_a_photograph_are_filtered_where_they_lie(rng: np.random.Generator) -> None:
    photo = rng.integers(0, 256, (40, 51, 3), np.uint8)
    box = np.full((3, 1, 3, 3), 1.0, np.float32)
    told = {"padding": 1, "groups": 3, "out_dtype": "uint8"}
    made = fastconv.conv2d(np.moveaxis(photo, -1, 0), box, **told)
    assert np.moveaxis(made, 0, -1).flags.c_contiguous
    planes = np.ascontiguousarray(np.moveaxis(photo, -1, 0))
    np.testing.assert_array_equal(made, fastconv.conv2d(planes, box, **told))


def test_an_image_may_be_its_own_result(image: np.ndarray) -> None:
    blur = np.full((1, 1, 3, 3), 1 / 9, np.float32)
    want = fastconv.conv2d(image, blur, padding=1, out_dtype="uint8")
    assert fastconv.conv2d(image, blur, padding=1, out=image) is image
    np.testing.assert_array_equal(image, want)


def test_residual_and_activation_come_before_rounding(image: np.ndarray) -> None:
    residual = np.full(image.shape, 3, np.uint8)
    third = np.zeros((1, 1, 3, 3), np.float32)
    third[0, 0, 1, 1] = 0.25
    made = fastconv.conv2d(
        image, third, np.array([-40], np.float32), padding=1, residual=residual, out_dtype="uint8",
        activation=("leaky_relu", -1.0),
    )  # fmt: skip
    truth = reference.as_integers(np.abs(image * 0.25 - 37.0), "uint8")
    np.testing.assert_array_equal(made, truth)


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint32", "int64", "bool"])
def test_other_integers_name_those_that_are_supported(image: np.ndarray, dtype: str) -> None:
    wrong = image.astype(dtype)
    with pytest.raises(
        DTypeError, match=rf"input: got {dtype}, want .*float32.*uint8, uint16, int16"
    ):
        fastconv.conv2d(wrong, SOBEL)
    with pytest.raises(DTypeError, match=rf"out: got {dtype}, want .*uint8"):
        fastconv.conv2d(image, SOBEL, padding=1, out=np.zeros(image.shape, dtype))
    with pytest.raises(DTypeError, match=rf"out_dtype: got .*{dtype}.*, want .*uint8"):
        fastconv.conv2d(image, SOBEL, padding=1, out_dtype=dtype)


def test_companions_have_the_types_of_weight_and_result(image: np.ndarray) -> None:
    good: dict[str, Any] = {"input": image, "weight": SOBEL, "padding": 1}
    out = np.full(image.shape, 7, np.uint8)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"weight": SOBEL.astype(np.float64)}, "weight: got float64 .*uint8, want float32"),
        ({"weight": SOBEL.astype(np.uint8)}, "weight: got uint8"),
        ({"bias": np.zeros(1)}, "bias: got float64, want float32 as the weight has"),
        ({"residual": np.zeros(image.shape, np.uint8)}, "residual: got uint8, want float32"),
        ({"residual": np.zeros(image.shape, np.float32), "out": out}, "residual: .*want uint8"),
        ({"out": out, "out_dtype": "int16"}, "out: got uint8, want int16"),
        (
            {"out": np.zeros(image.shape)},
            "out: got float64, want float32 or uint8 or uint16 or int16",
        ),
        (
            {"out_dtype": "float64"},
            "out_dtype: got float64, want float32 or uint8 or uint16 or int16",
        ),
        (
            {
                "input": image.astype(np.float16),
                "weight": SOBEL.astype(np.float16),
                "out_dtype": "uint8",
            },
            "out_dtype: got uint8, want float16",
        ),
        ({"out_dtype": "colour"}, "out_dtype: got 'colour', want"),
    )
    for changes, words in wrong:
        with pytest.raises(DTypeError, match=words):
            fastconv.conv2d(**{**good, **changes})
    with pytest.raises(DTypeError, match="out_dtype: got 'int32'"):
        fastconv.Conv2d(SOBEL, out_dtype="int32")
    assert np.all(out == 7)


def test_other_operators_and_gradients_refuse_integers(image: np.ndarray) -> None:
    grad = np.zeros(image.shape, np.float32)
    for call in (
        lambda: fastconv.grad.conv2d_weight(image, (1, 1, 3, 3), grad, padding=1),
        lambda: fastconv.grad.conv2d_input(image.shape, SOBEL, image, padding=1),
        lambda: fastconv.conv_transpose2d(image, SOBEL),
        lambda: fastconv.ConvTranspose2d(SOBEL)(image),
        lambda: fastconv.Conv2d(image),
        lambda: fastconv.max_pool2d(image, 2),
    ):
        with pytest.raises(DTypeError, match=r"got uint8, want (one of )?float32"):
            call()


def test_objects_keep_their_type(image: np.ndarray) -> None:
    layer = fastconv.Conv2d(SOBEL, padding=1, out_dtype=np.uint8)
    assert "dtype=uint8" in repr(layer) and "dtype" not in repr(fastconv.Conv2d(SOBEL))
    copy = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(copy(image), layer(image))
    assert layer.problem(image).result_dtype == "uint8"
    assert "uint8 to uint8" in str(fastconv.explain(layer, image))
    told = fastconv.explain(fastconv.conv2d, image, SOBEL, padding=1)
    assert "uint8 to float32" in str(told)
    empty = layer(image[:0])
    assert empty.shape == (0, *image.shape[1:]) and empty.dtype == np.uint8


def test_lines_tell_the_types_of_input_weight_and_output() -> None:
    for dtype, short in INTEGERS.items():
        for result, name in {"float32": "f32", **INTEGERS}.items():
            of = ConvProblem(1, 3, 8, (9, 9), (3, 3), dtype=dtype, out_dtype=result)
            assert of.line().startswith(f"--dt={short}:f32:{name} ")
            assert parse_line(of.line())[0] == of
    same = parse_line("--dt=f16:f16:f16 ic3ih9oc8kh3")[0]
    assert same == parse_line("--dt=f16 ic3ih9oc8kh3")[0]
    for wrong in ("u8", "u8:u8:u8", "u8:f32:f64", "f64:f64:u8", "u8:f32"):
        with pytest.raises(ShapeError, match="problem line: got --dt="):
            parse_line(f"--dt={wrong} ic3ih9oc8kh3")
    with pytest.raises(ShapeError, match="want --op=conv"):
        fastconv.explain("--op=conv_transpose --dt=u8:f32:u8 ic3ih9oc8kh3")


def test_results_are_the_same_bits_for_any_number_of_threads(rng: np.random.Generator) -> None:
    x = rng.integers(-3000, 3000, (1, 3, 60, 70)).astype(np.int16)
    weight = rng.standard_normal((8, 3, 5, 5)).astype(np.float32)
    made, before = [], fastconv.get_num_threads()
    try:
        for threads in (1, 2, 3):
            fastconv.set_num_threads(threads)
            with fastconv.use_kernel("cpu.direct"):
                made.append(fastconv.conv2d(x, weight, padding=2, out_dtype="int16"))
    finally:
        fastconv.set_num_threads(before)
    assert all(np.array_equal(made[0], each) for each in made[1:])


def test_floats_become_bytes_too(image: np.ndarray) -> None:
    floats, truth = image.astype(np.float32), sums(image, SOBEL)
    made = fastconv.conv2d(floats, SOBEL, padding=1, out_dtype="uint8")
    np.testing.assert_array_equal(made, reference.as_integers(truth, "uint8"))
    with pytest.raises(DTypeError, match="out: got uint8, want"):
        fastconv.conv2d(floats, SOBEL, padding=1, out=np.empty_like(image))
    line = fastconv.Conv2d(SOBEL, padding=1, out_dtype="uint8").problem(floats).line()
    assert line.startswith("--dt=f32:f32:u8 ")
    with fastconv.use_kernel("cpu.brgemm"), pytest.raises(NoKernelError, match="stores no uint8"):
        fastconv.conv2d(floats, SOBEL, padding=1, out_dtype="uint8")


@pytest.mark.parametrize("kernel", ["cpu.fast_fir", "cpu.depthwise"])
def test_a_gaussian_of_a_photograph(kernel: str, rng: np.random.Generator) -> None:
    photo = np.moveaxis(rng.integers(0, 256, (50, 61, 3), np.uint8), -1, 0)
    bell = np.exp(-((np.arange(15) - 7.0) ** 2) / 18)
    bell /= bell.sum()
    gauss = np.repeat(np.outer(bell, bell)[None, None].astype(np.float32), 3, axis=0)
    shift = np.array([-20, 0, 200], np.float32)
    extra = np.ones_like(photo)
    with fastconv.use_kernel(kernel):
        layer = fastconv.Conv2d(gauss, shift, padding=7, groups=3, out_dtype="uint8")
        made = layer(photo, residual=extra)
    truth = reference.conv(
        photo[None], gauss, stride=(1, 1), padding=((7, 7), (7, 7)), dilation=(1, 1), groups=3
    )
    truth = np.clip(truth[0] + shift[:, None, None] + 1.0, 0, 255)
    assert made.dtype == np.uint8 and np.abs(made - truth).max() <= 0.51
    assert (made == 255).any()
