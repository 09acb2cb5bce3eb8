"""padding_mode of convolutions: against np.pad and the definition, and PyTorch's padding."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import fastconv
from fastconv import calls
from fastconv.array_libraries import EmulatedArray
from fastconv.contract.boundary_problem import BoundaryProblem, Part
from fastconv.contract.errors import (
    ArgumentError,
    DeviceError,
    NoKernelError,
    ShapeError,
)
from fastconv.contract.pad_problem import MODES, source_indices
from fastconv.contract.padding import normalise_padding
from fastconv.contract.problem_line import parse_any_line
from fastconv.contract.settings import get_num_threads, set_num_threads
from fastconv.kernels import reference
from fastconv.kernels.tolerance import TOLERANCE
from fastconv.ops import boundary_calls
from helpers import DTYPES, FUNCTIONS, MODULES, bits, in_layout, memory_orders

WORDS = {"replicate": "edge", "circular": "wrap"}
ALL = ("reflect", "symmetric", "replicate", "circular", ("constant", 1.5))


@dataclass(frozen=True)
class Case:
    """A convolution, small enough for the definition."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    padding: Any = 1
    stride: Any = 1
    dilation: Any = 1
    channels: tuple[int, int, int] = (3, 4, 1)  # of a group, filters of a group, groups
    batch: int = 2
    layout: str = "channels_first"

    @property
    def arguments(self) -> dict[str, Any]:
        told = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return told | {"groups": self.channels[2]}

    def sides(self) -> dict[str, Any]:
        ndim = len(self.size)
        steps = {
            name: value if isinstance(value, tuple) else (value,) * ndim
            for name, value in (("stride", self.stride), ("dilation", self.dilation))
        }
        pads = normalise_padding(self.padding, self.size, self.kernel, **steps)
        return steps | {"padding": pads, "groups": self.channels[2]}


CASES = (
    Case((9, 11), (3, 3)),
    Case((23, 40), (3, 3), batch=1),
    Case((12, 31), (5, 7), (2, 3), channels=(1, 1, 1), batch=1),
    Case((20, 33), (3, 3), 1, 2, channels=(5, 7, 2)),
    Case((9, 8), (3, 3), ((1, 0), (0, 2))),
    Case((9, 8), (2, 4), "same", dilation=(2, 1)),
    Case((14, 17), (3, 3), 2, dilation=2, channels=(4, 3, 2)),
    Case((14, 35), (3, 3), 1, channels=(1, 2, 9)),
    Case((9, 10), (3, 3), layout="channels_last", channels=(20, 6, 1)),
    Case((9, 10), (3, 3), layout="channels_last", channels=(1, 1, 18)),
    Case((9, 10), (3, 3), layout="strided"),
    Case((3, 2), (3, 3), (2, 1)),  # no wider pads can be mirrored
    Case((6, 7), (1, 1), 2, 3),
    Case((70,), (9,), 4, channels=(2, 3, 1)),
    Case((300,), (16,), (((5, 9),)), 3, channels=(1, 1, 5)),
    Case((4, 6, 9), (3, 3, 3), 1, channels=(4, 4, 1)),
    Case((4, 6, 9), (2, 1, 3), (1, 0, 2), (1, 2, 2), channels=(2, 2, 3)),
    Case((5, 6), (3, 3), batch=0),
)


def word(mode: Any) -> str:
    return mode if isinstance(mode, str) else f"constant {mode[1]}"


def drawn(
    case: Case, rng: np.random.Generator, dtype: str = "float32", integers: bool = True
) -> Any:
    c, k, groups = case.channels

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        values = rng.integers(-4, 5, shape) if integers else rng.standard_normal(shape)
        return values.astype(DTYPES[dtype])

    x = in_layout(draw((case.batch, c * groups, *case.size)), case.layout)
    return x, draw((k * groups, c, *case.kernel)), draw((k * groups,))


def padded(x: np.ndarray, pads: Any, mode: Any) -> np.ndarray:
    """The input with its boundary, as NumPy makes it."""
    told: dict[str, Any] = {} if isinstance(mode, str) else {"constant_values": mode[1]}
    name: Any = WORDS.get(mode, mode) if isinstance(mode, str) else "constant"
    return np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), *pads), name, **told)


def truth(case: Case, mode: Any, x: Any, w: Any, bias: Any, **more: Any) -> np.ndarray:
    sides = case.sides()
    around = padded(x, sides.pop("padding"), mode)
    nothing = ((0, 0),) * len(case.size)
    return reference.conv(around, w, bias, padding=nothing, **sides, **more)


@pytest.fixture(params=["chosen", "frame", "turned"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """By the parts of the lowest cost, by a frame wherever there is one, and by turned slabs."""

    def framed(of: BoundaryProblem, packed: bool) -> list[Part]:
        parts = of.frame() or [of.whole()]
        if request.param == "frame":
            return parts
        return [part._replace(turned=of.can_turn(part)) for part in parts]

    if request.param != "chosen":
        monkeypatch.setattr(boundary_calls, "choose_parts", framed)
    calls._prepared.clear()
    yield request.param
    calls._prepared.clear()


#: Every case in every mode, and by parts that are not chosen in one.
CALLS = [
    *itertools.product(CASES, ALL, ["chosen"]),
    *((case, ALL[n % 5], how) for how in ("frame", "turned") for n, case in enumerate(CASES)),
]


@pytest.mark.parametrize(("case", "mode", "parts"), CALLS, ids=str, indirect=["parts"])
def test_small_integers_are_exact(
    case: Case, mode: Any, parts: str, rng: np.random.Generator
) -> None:
    x, w, bias = drawn(case, rng)
    function, layer = FUNCTIONS[len(case.size)], MODULES[len(case.size)]
    with fastconv.precision("exact"):
        made = function(x, w, bias, padding_mode=mode, **case.arguments)
    wanted = truth(case, mode, x, w, bias)
    np.testing.assert_array_equal(made, wanted)
    residual = rng.integers(-4, 5, made.shape).astype(np.float32)
    out = np.full(made.shape, np.nan, np.float32)
    told = {"padding_mode": mode, "activation": "relu", **case.arguments}
    packed = layer(w, bias, **told)
    again = copy.copy(pickle.loads(pickle.dumps(packed)))
    with fastconv.precision("exact"):
        assert packed(x, residual, out) is out
        np.testing.assert_array_equal(again(x), np.maximum(wanted, 0))
    np.testing.assert_array_equal(out, np.maximum(wanted + residual, 0))
    assert packed.problem(x).out_shape == made.shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ALL, ids=word)
def test_random_numbers(mode: Any, dtype: str, parts: str, rng: np.random.Generator) -> None:
    for case in CASES[1:11:3]:
        x, w, bias = drawn(case, rng, dtype, integers=False)
        made = FUNCTIONS[len(case.size)](x, w, bias, padding_mode=mode, **case.arguments)
        wanted = truth(case, mode, x, w, bias)
        assert made.dtype == x.dtype
        error = np.abs(made.astype(np.float64) - wanted).max() / np.abs(wanted).max()
        assert error <= TOLERANCE[dtype].relative + (2e-5 if dtype != "float64" else 4e-14)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_pytorch_pads_alike(mode: str, rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((2, 3, 9, 12)), rng.standard_normal((4, 3, 3, 5))
    theirs = torch.nn.Conv2d(3, 4, (3, 5), 2, (1, 2), bias=False, padding_mode=mode).double()
    theirs.weight.data = torch.from_numpy(w)
    wanted = theirs(torch.from_numpy(x)).detach().numpy()
    made = fastconv.conv2d(x, w, stride=2, padding=(1, 2), padding_mode=mode)
    np.testing.assert_allclose(made, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_samples_are_those_of_numpy(mode: str) -> None:
    for size, low, high in itertools.product((1, 2, 3, 7), (0, 1, 5, 16), (0, 2, 9)):
        name: Any = WORDS.get(mode, mode)
        told: dict[str, Any] = {"constant_values": -1} if mode == "constant" else {}
        wanted = np.pad(np.arange(size), (low, high), name, **told)
        assert source_indices(mode, size, -low, low + size + high).tolist() == wanted.tolist()


def test_parts_write_every_output_once() -> None:
    for case in CASES[:-1]:
        sides = case.sides()
        c, k, groups = case.channels
        line = fastconv.ConvProblem(
            1, c * groups, k * groups, case.size, case.kernel, sides["stride"], sides["padding"],
            sides["dilation"], groups,
        )  # fmt: skip
        of = BoundaryProblem(line, "reflect")
        for parts in ([of.whole()], of.frame()):
            written = np.zeros(of.out_size, int)
            for part in parts:
                assert of.dense(part).out_size == written[part.outputs].shape
                assert part.inside or of.copy(part).out_size == part.size
                written[part.outputs] += 1
            assert not parts or (written == 1).all()


def test_kernels_that_are_forced(rng: np.random.Generator) -> None:
    case = Case((13, 18), (3, 3), channels=(16, 16, 1), batch=1)
    x, w, bias = drawn(case, rng)
    wanted = truth(case, "reflect", x, w, bias)
    told = fastconv.explain(fastconv.conv2d, x, w)
    for row in told.rows:
        if row.milliseconds is None:
            continue
        with fastconv.use_kernel(row.kernel):
            made = fastconv.conv2d(x, w, bias, padding=1, padding_mode="reflect")
            explained = fastconv.explain(fastconv.conv2d, x, w, padding=1, padding_mode="reflect")
        assert explained.chosen == row.kernel
        np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    with fastconv.use_kernel("cpu.depthwise"), pytest.raises(NoKernelError, match=r"depthwise"):
        fastconv.conv2d(x, w, padding=1, padding_mode="reflect")


def test_any_memory_and_aliases(parts: str, rng: np.random.Generator) -> None:
    x = rng.integers(-4, 5, (2, 3, 8, 9)).astype(np.float32)
    w = rng.integers(-4, 5, (3, 3, 3, 3)).astype(np.float32)
    told = {"padding": 1, "padding_mode": "symmetric"}
    wanted = bits(fastconv.conv2d(x, w, **told))
    for ordered in memory_orders(x).values():
        assert bits(fastconv.conv2d(ordered, w, **told)) == wanted
    for name, out in memory_orders(np.zeros_like(x)).items():
        if name != "read_only":
            assert fastconv.conv2d(x, w, out=out, **told) is out
            assert bits(out) == wanted
    one = fastconv.conv2d(x[0], w, **told)
    assert bits(one) == bits(fastconv.conv2d(x, w, **told)[0])
    assert fastconv.conv2d(x, w, residual=x, out=x, **told) is x


def test_bits_do_not_depend_on_threads(rng: np.random.Generator) -> None:
    image = rng.standard_normal((1, 24, 61, 67), np.float32)
    w = rng.standard_normal((24, 24, 3, 3), np.float32)
    last, grad, told = (
        in_layout(image, "channels_last"),
        image[:, ::-1],
        {"padding_mode": "reflect"},
    )
    signal, taps = image.reshape(1, 8, -1), w.reshape(24, 8, -1)[..., :9]
    volume, cube = signal[..., :6144].reshape(1, 8, 16, 16, 24), w[:, :, 0].reshape(8, 8, 3, 3, 3)
    made: dict[Any, list[bytes]] = {}
    before = get_num_threads()
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            for number, y in enumerate((
                fastconv.conv2d(image, w, padding=1, **told),
                fastconv.conv2d(last, w, padding=1, **told),
                fastconv.Conv2d(w, padding=1, **told)(image),
                fastconv.conv1d(signal, taps, padding=4, **told),
                fastconv.conv3d(volume, cube, padding=1, **told),
                fastconv.max_pool2d(image, 3, 1, 1, **told),
                fastconv.avg_pool2d(last, 5, 2, 4, **told),
                fastconv.grad.conv2d_input(image.shape, w, grad, padding=1, **told),
                fastconv.grad.conv2d_weight(image, w.shape, grad, padding=1, **told),
            )):  # fmt: skip
                made.setdefault(number, []).append(bits(y))
    finally:
        set_num_threads(before)
    assert all(len(set(each)) == 1 for each in made.values())


def test_zeros_are_the_plain_call(rng: np.random.Generator) -> None:
    x, w, _ = drawn(CASES[0], rng)
    wanted = fastconv.conv2d(x, w, padding=1)
    for mode in ("zeros", ("constant", 0), ["constant", -0.0]):
        assert bits(fastconv.conv2d(x, w, padding=1, padding_mode=mode)) == bits(wanted)
    unpadded = fastconv.conv2d(x, w, padding_mode="circular")
    assert bits(unpadded) == bits(fastconv.conv2d(x, w))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_constants_reach_the_border_alone(value: float) -> None:
    x, w = np.zeros((1, 1, 5, 6), np.float32), np.ones((1, 1, 3, 3), np.float32)
    for _ in range(2):
        y = fastconv.conv2d(x, w, padding=1, padding_mode=("constant", value))
        assert not y[..., 1:-1, 1:-1].any()
        y[..., 1:-1, 1:-1] = y[0, 0, 0, 0]
        np.testing.assert_array_equal(np.isnan(y), np.isnan(value))


@pytest.mark.parametrize(
    "line",
    [
        "--padding_mode=reflect ic4ih9oc4kh3ph1", "--padding_mode=constant:1.5 ic4iw90oc4kw3pw1",
        "--padding_mode=circular --dt=f64 --tag=axb g4ic4ih9oc4kh3sh2ph1",
        "--padding_mode=symmetric ic1id4ih9oc1kd3ph1",
    ],
)  # fmt: skip
def test_lines_and_explanations(line: str, rng: np.random.Generator) -> None:
    of, _ = parse_any_line(line)
    assert isinstance(of, BoundaryProblem)
    assert parse_any_line(of.line("a b")) == (of, "a b")
    x = in_layout(rng.standard_normal(of.x_shape).astype(DTYPES[of.dtype]), of.layout)
    w = rng.standard_normal(of.weight_shape).astype(x.dtype)
    mode = ("constant", of.value) if of.mode == "constant" else of.mode
    told = {name: getattr(of, name) for name in ("stride", "padding", "dilation", "groups")}
    layer = MODULES[of.ndim](w, padding_mode=mode, **told)
    assert layer.problem(x) == of and mode in (layer._options["padding_mode"], None)
    told["padding_mode"] = mode
    explained = fastconv.explain(FUNCTIONS[of.ndim], x, w, **told)
    assert explained.problem == of and "cpu.pad" in str(explained)
    assert str(fastconv.explain(layer, x)).partition("  ")[0] == of.line()


BAD = (
    ("mirror", ArgumentError, r"padding_mode: got 'mirror', want .*'reflect'.*'constant', NUMBER"),
    ("constant", ArgumentError, r"padding_mode: got 'constant'"),
    (None, ArgumentError, r"padding_mode: got None"),
    (np.ones(3), ArgumentError, r"padding_mode: got array"),
    (("constant", "1"), ArgumentError, r"padding_mode: got '1', want a number"),
    (("constant", True), ArgumentError, r"padding_mode: got True, want a number"),
    (("reflect", 1.0), ArgumentError, r"padding_mode: got \('reflect', 1.0\)"),
    (("constant", 1.0, 2), ArgumentError, r"padding_mode: got \('constant', 1.0, 2\)"),
)


@pytest.mark.parametrize(("mode", "error", "words"), BAD, ids=lambda value: str(value)[:30])
def test_bad_modes(mode: Any, error: type[Exception], words: str) -> None:
    x, w = np.ones((1, 2, 5, 5), np.float32), np.ones((2, 2, 3, 3), np.float32)
    out = np.full((1, 2, 5, 5), 7, np.float32)
    with pytest.raises(error, match=words):
        fastconv.conv2d(x, w, padding=1, padding_mode=mode, out=out)
    with pytest.raises(error, match=words):
        fastconv.Conv2d(w, padding=1, padding_mode=mode)
    assert (out == 7).all()


def test_other_bad_input() -> None:
    x, w = np.ones((1, 2, 0, 5), np.float32), np.ones((2, 2, 3, 3), np.float32)
    with pytest.raises(ShapeError, match=r"input: got a size of \(0, 5\).*reflect.*one sample"):
        fastconv.conv2d(x, w, padding=2, padding_mode="reflect")
    some = np.ones((1, 2, 5, 5), np.float32)
    with pytest.raises(ShapeError, match=r"padding: got .*replicate.*at most 1048576"):
        fastconv.conv2d(some, w, padding=2**21, stride=2**20, padding_mode="replicate")
    out = np.full((1, 2, 4, 15), 7, np.float32)
    for mode, most in (("reflect", 4), ("symmetric", 5), ("circular", 5)):
        fastconv.conv2d(some, w, padding=most, padding_mode=mode)
        bad = {"padding": (0, most + 1), "padding_mode": mode}
        wanted = rf"padding: got .*{mode}.* input of size \(5, 5\), want at most \({most}, {most}\)"
        with pytest.raises(ShapeError, match=wanted):
            fastconv.conv2d(some, w, out=out, **bad)
        with pytest.raises(ShapeError, match=wanted):
            fastconv.Conv2d(w, **bad)(some, out=out)
        with pytest.raises(ShapeError, match=wanted):
            fastconv.avg_pool2d(some, 3, 1, out=out, **bad)
        assert (out == 7).all()
    with pytest.raises(ShapeError, match=r"stride"):
        fastconv.conv2d(some, w, stride=0, padding_mode="reflect")
    on_gpu = EmulatedArray(some), EmulatedArray(w)
    with pytest.raises(DeviceError, match=r"input: got an array on a GPU.*padding_mode='reflect'"):
        fastconv.conv2d(*on_gpu, padding=1, padding_mode="reflect")
    with pytest.raises(DeviceError, match=r"padding_mode='reflect' has no kernels for GPUs"):
        fastconv.explain("--padding_mode=reflect ic4ih9oc4kh3ph1", gpu="A100")
    for line in ("--padding_mode=mirror ic4ih9oc4kh3", "--padding_mode=constant:x ic4ih9oc4kh3"):
        with pytest.raises(ShapeError, match=r"problem line: got --padding_mode="):
            parse_any_line(line)


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
