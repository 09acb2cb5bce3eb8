"""padding_mode of convolutions: against np.pad and the definition, and PyTorch's padding."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import fastconv
from boundary_cases import ALL, CASES, WORDS, Case, by_parts, drawn, truth, word
from fastconv.array_libraries import EmulatedArray
from fastconv.contract.boundary_problem import BoundaryProblem
from fastconv.contract.errors import (
    ArgumentError,
    DeviceError,
    NoKernelError,
    ShapeError,
)
from fastconv.contract.pad_problem import MODES, source_indices
from fastconv.contract.problem_line import parse_any_line
from fastconv.contract.settings import get_num_threads, set_num_threads
from fastconv.kernels.tolerance import TOLERANCE
from helpers import DTYPES, FUNCTIONS, MODULES, bits, in_layout, memory_orders


@pytest.fixture(params=["chosen", "frame", "turned"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How a call is parted, see `by_parts`."""
    with by_parts(request.param, monkeypatch):
        yield request.param


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
