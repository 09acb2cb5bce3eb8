"""Integers with a boundary mode: equal to the convolution of what `numpy.pad` makes of them."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fastconv
from boundary_cases import WORDS, by_parts
from fastconv.contract.boundary_problem import BoundaryProblem
from fastconv.contract.errors import ArgumentError, DTypeError, NoKernelError, ShapeError
from fastconv.contract.problem import INTEGERS
from fastconv.contract.problem_line import parse_any_line
from helpers import FUNCTIONS, MODULES, bits, in_layout, memory_orders

MODES = ("reflect", "symmetric", "replicate", "circular", ("constant", 200), "zeros")
#: Element types of input and output; None is the default.
TYPES = (
    ("uint8", None), ("uint8", "uint8"), ("uint16", "uint8"), ("int16", "int16"),
    ("uint8", "int16"), ("uint16", "uint16"), ("float32", "uint8"), ("int16", None),
)  # fmt: skip
BLUR = np.full((1, 1, 3, 3), 1 / 8, np.float32)


@dataclass(frozen=True)
class Case:
    """A small convolution: size, kernel, pads an axis, and channels and filters of a group."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    channels: tuple[int, int, int] = (2, 3, 1)
    stride: int = 1
    dilation: int = 1
    layout: str = "channels_first"

    @property
    def arguments(self) -> dict[str, Any]:
        told = {"stride": self.stride, "dilation": self.dilation}
        return told | {"groups": self.channels[2]}


CASES = (
    Case((23, 41), (3, 3), ((1, 1), (1, 1))),
    Case((14, 35), (5, 5), ((2, 2), (2, 2)), (1, 1, 3), layout="channels_last"),
    Case((14, 35), (3, 3), ((1, 1), (1, 1)), (5, 4, 1), layout="channels_last"),
    Case((19, 22), (3, 5), ((2, 1), (0, 4)), (2, 1, 3), 2, layout="strided"),
    Case((17, 30), (3, 3), ((2, 2), (2, 2)), (1, 2, 5), 1, 2),
    Case((301,), (9,), ((4, 3),), (1, 1, 2)),
    Case((5, 6, 19), (3, 3, 3), ((1, 1), (1, 0), (1, 1))),
)


def padded(x: np.ndarray, pads: Any, mode: Any) -> np.ndarray:
    """The integers with their boundary, in their own type, as NumPy makes it."""
    told: dict[str, Any] = {} if isinstance(mode, str) else {"constant_values": mode[1]}
    plain = mode if isinstance(mode, str) and mode != "zeros" else "constant"
    made = np.pad(x, ((0, 0), (0, 0), *pads), WORDS.get(plain, plain), **told)
    assert made.dtype == x.dtype
    return made


def image(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Numbers of the whole range, or for float32 of that of bytes."""
    limits = np.iinfo("uint8" if dtype == "float32" else dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


@pytest.fixture(params=["chosen", "frame", "turned"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How a call is parted, see `by_parts`."""
    with by_parts(request.param, monkeypatch):
        yield request.param


#: Every case in every mode, by types and parts that differ from one to the next.
CALLS = [
    (case, mode, TYPES[number % len(TYPES)], ("chosen", "frame", "turned")[number % 3])
    for number, (case, mode) in enumerate(itertools.product(CASES, MODES))
]


@pytest.mark.parametrize(("case", "mode", "types", "parts"), CALLS, ids=str, indirect=["parts"])
def test_equal_to_numpy_pad(
    case: Case, mode: Any, types: tuple[str, str | None], parts: str, rng: np.random.Generator
) -> None:
    dtype, result = types
    c, k, groups = case.channels
    x = in_layout(image((2, c * groups, *case.size), dtype, rng), case.layout)
    around = in_layout(padded(x, case.pads, mode), case.layout)
    w = rng.integers(-2, 3, (k * groups, c, *case.kernel)).astype(np.float32)
    bias = rng.integers(-50, 300, k * groups).astype(np.float32)
    function, ndim = FUNCTIONS[len(case.size)], len(case.size)
    told = {"padding": case.pads, "padding_mode": mode, **case.arguments}
    with fastconv.precision("exact"):
        wanted = function(around, w, bias, out_dtype=result, **case.arguments)
        made = function(x, w, bias, out_dtype=result, **told)
        layer = MODULES[ndim](w, bias, out_dtype=result, **told)
        packed, one = pickle.loads(pickle.dumps(layer))(x), layer(x[0])
        out = np.full_like(wanted, 77)
        residual = image(wanted.shape, str(wanted.dtype), rng)
        more = {"residual": residual, "activation": "relu"}
        added = function(around, w, bias, out_dtype=result, **more, **case.arguments)
        assert function(x, w, bias, out=out, out_dtype=result, **more, **told) is out
    assert made.dtype == (result or "float32")
    for each in (made, packed):
        assert each.strides == wanted.strides
        np.testing.assert_array_equal(each, wanted, strict=True)
    np.testing.assert_array_equal(one, wanted[0], strict=True)
    np.testing.assert_array_equal(out, added)
    assert layer.problem(x).out_shape == made.shape


@pytest.mark.parametrize("dtype", INTEGERS)
def test_an_output_of_integers_says_what_becomes_of_them(
    dtype: str, parts: str, rng: np.random.Generator
) -> None:
    x = image((1, 1, 21, 34), dtype, rng)
    told = {"padding": 1, "padding_mode": "symmetric"}
    wanted = fastconv.conv2d(x, BLUR, out_dtype=dtype, **told)
    out = np.zeros_like(x)
    assert fastconv.conv2d(x, BLUR, out=out, **told) is out
    np.testing.assert_array_equal(out, wanted)
    floats = np.zeros(x.shape, np.float32)
    fastconv.Conv2d(BLUR, **told)(x, out=floats)
    near = np.clip(floats, np.iinfo(dtype).min, np.iinfo(dtype).max)
    assert np.abs(near - wanted).max() <= 0.51
    one = x[0, :, ::-1]
    assert fastconv.conv2d(one, BLUR, out=one, **told) is one  # which is its own input
    np.testing.assert_array_equal(one, wanted[0, :, ::-1])


def test_any_memory(parts: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 256, (2, 3, 8, 9)).astype(np.uint8)
    w = rng.integers(-4, 5, (3, 3, 3, 3)).astype(np.float32)
    told = {"padding": 1, "padding_mode": "circular", "out_dtype": "uint8"}
    wanted = bits(fastconv.conv2d(x, w, **told))
    for name, ordered in memory_orders(x).items():
        assert bits(fastconv.conv2d(ordered, w, **told)) == wanted, name
        if name != "read_only":
            ordered[...] = 0
            assert fastconv.conv2d(x, w, out=ordered, **told) is ordered
            assert bits(ordered) == wanted, name


def test_halves_round_to_even_and_nan_is_zero_at_the_border() -> None:
    x, half = np.array([[[1, 3, 255, 5]]], np.uint8), np.array([[[0.5, 0, 0]]], np.float32)
    made = fastconv.conv1d(x, half, padding=1, padding_mode="circular", out_dtype="uint8")
    assert made[0, 0].tolist() == [2, 0, 2, 128]
    floats = np.ones((1, 1, 4), np.float32)
    told = {"padding": 1, "padding_mode": ("constant", np.nan), "out_dtype": "uint8"}
    assert fastconv.conv1d(floats, 2 * half, **told)[0, 0].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("value", [1.5, -1, 256, np.nan, np.inf, -np.inf])
def test_a_constant_lies_among_the_integers(value: float) -> None:
    x, mode = np.ones((1, 1, 5, 6), np.uint8), ("constant", value)
    out = np.full((1, 1, 5, 6), 7, np.uint8)
    words = r"(padding_mode|value): got a constant of .*uint8, want a whole number from 0 to 255"
    for call in (
        lambda: fastconv.conv2d(x, BLUR, padding=1, padding_mode=mode, out=out),
        lambda: fastconv.Conv2d(BLUR, padding=1, padding_mode=mode)(x, out=out),
        lambda: parse_any_line(f"--padding_mode=constant:{value} --dt=u8:f32:u8 ic1ih5oc1kh3ph1"),
        lambda: parse_any_line(f"--op=pad --dt=u8 --value={value} ic1ih5ph1"),
    ):
        with pytest.raises(ArgumentError, match=words):
            call()
    assert (out == 7).all()
    with fastconv.precision("exact"):  # float32 holds it, whatever the output is
        fastconv.conv2d(x.astype("f4"), BLUR, padding=1, padding_mode=mode, out_dtype="uint8")


def test_companions_gradients_and_pools_as_without_a_mode() -> None:
    x, told = np.ones((1, 1, 5, 6), np.uint8), {"padding": 1, "padding_mode": "reflect"}
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"residual": x}, "residual: got uint8, want float32 as the result has"),
        ({"out": x.astype("f8")}, "out: got float64, want float32 or uint8"),
        ({"out": np.zeros_like(x), "out_dtype": "int16"}, "out: got uint8, want int16"),
        ({"bias": np.zeros(1)}, "bias: got float64, want float32 as the weight has"),
        ({"out_dtype": "float16"}, "out_dtype: got float16, want float32 or uint8"),
        ({"weight": BLUR.astype("f8")}, "weight: got float64 with an input of uint8"),
    )
    for changes, words in wrong:
        with pytest.raises(DTypeError, match=words):
            fastconv.conv2d(**{"input": x, "weight": BLUR, **told, **changes})
    for call in (
        lambda: fastconv.grad.conv2d_weight(x, BLUR.shape, x.astype("f4"), **told),
        lambda: fastconv.grad.conv2d_input(x.shape, BLUR, x, **told),
        lambda: fastconv.max_pool2d(x, 3, **told),
        lambda: fastconv.conv2d(x.astype(np.int32), BLUR, **told),
    ):
        with pytest.raises(DTypeError, match=r"got u?int(8|32), want (one of )?float32"):
            call()
    with fastconv.use_kernel("cpu.brgemm"), pytest.raises(NoKernelError, match="uint8"):
        fastconv.conv2d(x, BLUR, **told)


LINES = (
    "--padding_mode=reflect --dt=u8:f32:u8 ic1ih48iw64oc1oh48ow64kh3ph1",
    "--padding_mode=constant:7.0 --dt=s16:f32:f32 ic4iw90oc4ow90kw3pw1",
    "--padding_mode=circular --dt=u16:f32:s16 --tag=axb g4ic4ih9oc4oh5kh3sh2ph1",
    "--padding_mode=symmetric --dt=f32:f32:u8 ic1id4ih9iw9oc1od4oh9ow9kd3pd1",
)


@pytest.mark.parametrize("line", LINES)
def test_lines_and_explanations(line: str, rng: np.random.Generator) -> None:
    of, _ = parse_any_line(line)
    assert isinstance(of, BoundaryProblem) and of.line() == line
    assert parse_any_line(of.line("a b")) == (of, "a b")
    x = in_layout(image(of.x_shape, of.dtype, rng), of.layout)
    w = rng.standard_normal(of.weight_shape).astype(of.weight_dtype)
    told = {name: getattr(of, name) for name in ("stride", "padding", "dilation", "groups")}
    told["padding_mode"] = ("constant", of.value) if of.mode == "constant" else of.mode
    told["out_dtype"] = of.result_dtype
    assert MODULES[of.ndim](w, **told).problem(x) == of
    explained = fastconv.explain(FUNCTIONS[of.ndim], x, w, **told)
    assert explained.problem == of and "cpu.pad" in str(explained)
    assert f"{of.dtype} to {of.result_dtype}" in str(explained)
    if of.dtype in INTEGERS and of.result_dtype in INTEGERS:
        out = np.zeros(of.out_shape, of.result_dtype)
        del told["out_dtype"]
        assert fastconv.explain(FUNCTIONS[of.ndim], x, w, out=out, **told).problem == of


def test_copies_keep_the_type_of_the_input() -> None:
    of, _ = parse_any_line(LINES[0])
    slabs = [of.copy(part) for part in of.frame() if not part.inside]
    assert len(slabs) == 4 and {slab.dtype for slab in slabs} == {"uint8"}
    assert slabs[0].line() == "--op=pad --dt=u8 --mode=reflect ic1ih48iw64ph1oh3ow66"
    assert parse_any_line(slabs[0].line())[0] == slabs[0]
    with pytest.raises(ShapeError, match="problem line: got --dt=u8"):
        parse_any_line("--op=max_pool --dt=u8 ic1ih9kh3")
