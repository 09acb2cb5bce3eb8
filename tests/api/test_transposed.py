"""conv_transpose1d to 3d: against the definition and PyTorch, in all types and memory orders."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import fastconv
from fastconv.contract.problem_line import parse_any_line, parse_line
from fastconv.contract.transposed_problem import TransposedProblem
from fastconv.kernels import reference
from fastconv.kernels.tolerance import TOLERANCE
from helpers import DTYPES, Tensors, bits, in_layout, memory_orders

FUNCTIONS = {
    1: fastconv.conv_transpose1d,
    2: fastconv.conv_transpose2d,
    3: fastconv.conv_transpose3d,
}
LAYERS = {
    1: fastconv.ConvTranspose1d,
    2: fastconv.ConvTranspose2d,
    3: fastconv.ConvTranspose3d,
}
SIZES = {1: (19,), 2: (7, 9), 3: (3, 5, 4)}


def problem(
    ndim: int, kernel: int, stride: int, *, pad: Any = 0, extra: int = 0, hole: int = 1,
    channels: tuple[int, int] = (6, 8), groups: int = 1, batch: int = 2, **more: Any,
) -> TransposedProblem:  # fmt: skip
    sides = pad if isinstance(pad, tuple) else ((pad, pad),) * ndim
    return TransposedProblem(
        batch, *channels, SIZES[ndim], (kernel,) * ndim, (stride,) * ndim, sides, (extra,) * ndim,
        (hole,) * ndim, groups, **more,
    )  # fmt: skip


def matrix() -> list[TransposedProblem]:
    """Kernels below, at and beyond the stride, dilations that share factors with it, and pads."""
    made = []
    for ndim, kernel, stride, hole in itertools.product(
        (1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3), (1, 2)
    ):
        if ndim == 3 and kernel > 3:
            continue
        reach = hole * (kernel - 1) + 1
        for pad, extra in {(0, 0), (min(1, reach - 1), max(stride, hole) - 1)}:
            made.append(problem(ndim, kernel, stride, pad=pad, extra=extra, hole=hole))
    made += [
        problem(2, 3, 2, pad=((0, 2), (1, 0))),
        problem(2, 4, 2, pad=1, groups=2),
        problem(2, 4, 2, pad=1, groups=6, channels=(6, 6)),
        problem(1, 5, 2, pad=2, groups=6, channels=(6, 12)),
        problem(2, 3, 4, extra=3),
        problem(2, 3, 6, hole=4, extra=5),
        problem(1, 8, 4, pad=9),  # outputs that no sample is near
        problem(2, 1, 3, extra=2),
        problem(2, 3, 1, pad=2, hole=1, batch=1),
        problem(2, 4, 2, pad=1, layout="channels_last"),
        problem(2, 4, 2, pad=1, layout="strided"),
        problem(3, 2, 2, layout="channels_last"),
        problem(2, 2, 2, channels=(33, 17)),
    ]
    return made


MATRIX = matrix()


def tensors(of: TransposedProblem, rng: np.random.Generator, integers: bool = True) -> Tensors:
    def draw(shape: tuple[int, ...]) -> np.ndarray:
        values = rng.integers(-4, 5, shape) if integers else rng.standard_normal(shape)
        return values.astype(DTYPES[of.dtype])

    t = Tensors(
        draw(of.x_shape), draw(of.weight_shape), draw((of.out_channels,)), draw(of.out_shape)
    )
    t.x, t.residual = in_layout(t.x, of.layout), in_layout(t.residual, of.layout)
    return t


def arguments(of: TransposedProblem) -> dict[str, Any]:
    names = ("stride", "padding", "output_padding", "dilation", "groups")
    return {name: getattr(of, name) for name in names}


def truth(of: TransposedProblem, t: Tensors, **more: Any) -> np.ndarray:
    return reference.conv_transpose(t.x, t.weight, t.bias, **arguments(of), **more)


def per_problem(function: Any) -> Any:
    return pytest.mark.parametrize("of", MATRIX, ids=lambda of: of.line())(function)


@per_problem
def test_small_integers_are_exact(of: TransposedProblem, rng: np.random.Generator) -> None:
    t = tensors(of, rng)
    wanted = truth(of, t, residual=t.residual, activation="relu")
    with fastconv.precision("exact"):
        out = np.full(of.out_shape, np.nan, t.x.dtype)
        function = FUNCTIONS[of.ndim]
        epilogue = {"residual": t.residual, "activation": "relu"}
        assert function(t.x, t.weight, t.bias, out=out, **epilogue, **arguments(of)) is out
        np.testing.assert_array_equal(out, wanted)
        layer = LAYERS[of.ndim](t.weight, t.bias, activation="relu", **arguments(of))
        result = layer(t.x, t.residual)
    np.testing.assert_array_equal(result, wanted)
    assert result.dtype == t.x.dtype and layer.problem(t.x).out_shape == result.shape


@pytest.mark.parametrize(
    "of",
    [
        of.with_(dtype=dtype)
        for i, dtype in enumerate(DTYPES)
        for of in (MATRIX if dtype == "float32" else MATRIX[i::5])
    ],
    ids=lambda of: of.line(),
)
def test_random_numbers_are_pytorch_s(of: TransposedProblem, rng: np.random.Generator) -> None:
    dtype = of.dtype
    t = tensors(of, rng, integers=False)
    actual = FUNCTIONS[of.ndim](t.x, t.weight, t.bias, **arguments(of)).astype(np.float64)
    wanted = truth(of, t)
    error = np.abs(actual - wanted).max() / np.abs(wanted).max()
    assert error <= TOLERANCE[dtype].relative + (2e-5 if dtype != "float64" else 4e-14)
    if all(low == high for low, high in of.padding):
        x, weight, bias = (torch.from_numpy(a.astype(np.float64)) for a in (t.x, t.weight, t.bias))
        theirs = getattr(torch.nn.functional, f"conv_transpose{of.ndim}d")(
            x, weight, bias, of.stride, tuple(low for low, _ in of.padding), of.output_padding,
            of.groups, of.dilation,
        )  # fmt: skip
        np.testing.assert_allclose(wanted, theirs.numpy(), rtol=1e-12, atol=1e-12)


@per_problem
def test_phases_write_every_output(of: TransposedProblem) -> None:
    """Those with taps each output once at most, and the first one the others."""
    written = np.zeros(of.out_size, int)
    filled = False
    for phase in of.phases():
        assert of.dense(phase).out_size == written[phase.outputs].shape
        if phase.taps is None:
            filled = True
        else:
            written[phase.outputs] += 1
    assert written.max() == 1 and filled == (written.min() == 0)


@per_problem
def test_lines_are_read_back(of: TransposedProblem) -> None:
    if all(low == high for low, high in of.padding):
        assert parse_any_line(of.line("a name")) == (of, "a name")


def test_a_line_of_a_convolution_alone() -> None:
    with pytest.raises(fastconv.ShapeError, match="got --op=conv_transpose, want a convolution"):
        parse_line("--op=conv_transpose ic8ih5oc3kh3")


@pytest.mark.parametrize("argument", ["x", "weight", "residual"])
def test_any_strides(argument: str, rng: np.random.Generator) -> None:
    of = problem(2, 4, 2, pad=1)
    t = tensors(of, rng)
    wanted = truth(of, t, residual=t.residual)
    with fastconv.precision("exact"):
        for name, variant in memory_orders(getattr(t, argument)).items():
            setattr(t, argument, variant)
            result = fastconv.conv_transpose2d(
                t.x, t.weight, t.bias, residual=t.residual, **arguments(of)
            )
            np.testing.assert_array_equal(result, wanted, name)


def test_out_of_any_strides_and_over_its_own_input(rng: np.random.Generator) -> None:
    of = problem(2, 3, 1, pad=1, channels=(6, 6))
    t = tensors(of, rng)
    wanted = truth(of, t)
    with fastconv.precision("exact"):
        wide = np.zeros((*of.out_shape[:-1], 3 * of.out_shape[-1]), np.float32)
        out = wide[..., ::3]
        fastconv.conv_transpose2d(t.x, t.weight, t.bias, out=out, **arguments(of))
        np.testing.assert_array_equal(out, wanted)
        assert np.count_nonzero(wide) == np.count_nonzero(wanted)
        fastconv.conv_transpose2d(t.x, t.weight, t.bias, out=t.x, **arguments(of))
    np.testing.assert_array_equal(t.x, wanted)


def test_unbatched_and_empty(rng: np.random.Generator) -> None:
    of = problem(2, 4, 2, pad=1)
    t = tensors(of, rng)
    with fastconv.precision("exact"):
        one = fastconv.conv_transpose2d(t.x[0], t.weight, t.bias, **arguments(of))
        np.testing.assert_array_equal(one, truth(of, t)[0])
    none = fastconv.conv_transpose2d(t.x[:0], t.weight, t.bias, **arguments(of))
    assert none.shape == (0, *of.out_shape[1:]) and none.dtype == np.float32


def test_memory_order_is_the_input_s(rng: np.random.Generator) -> None:
    of = problem(2, 4, 2, pad=1, layout="channels_last")
    t = tensors(of, rng)
    result = fastconv.conv_transpose2d(t.x, t.weight, **arguments(of))
    assert np.moveaxis(result, 1, -1).flags.c_contiguous


@pytest.mark.parametrize("of", [
    problem(2, 4, 2, pad=1, channels=(32, 48)),
    problem(2, 2, 1, channels=(1, 33), dtype="float16"),  # two kernels cost about the same
], ids=lambda of: of.line())  # fmt: skip
def test_same_bits_for_any_threads_and_as_a_layer(
    of: TransposedProblem, rng: np.random.Generator
) -> None:
    t = tensors(of, rng, integers=False)
    results = []
    for threads in (1, 2, 2):
        fastconv.set_num_threads(threads)
        results.append(bits(fastconv.conv_transpose2d(t.x, t.weight, t.bias, **arguments(of))))
    layer = pickle.loads(pickle.dumps(fastconv.ConvTranspose2d(t.weight, t.bias, **arguments(of))))
    results.append(bits(layer(t.x)))
    assert all(np.array_equal(results[0], each) for each in results)


def test_gradient_of_a_convolution(rng: np.random.Generator) -> None:
    """<conv(x), y> = <x, conv_transpose(y)> for every x and y: the operator is the transpose."""
    x, y = rng.standard_normal((1, 6, 15, 13)), rng.standard_normal((1, 8, 8, 7))
    weight = rng.standard_normal((8, 6, 3, 3))
    forward = fastconv.conv2d(x, weight, stride=2, padding=1)
    back = fastconv.conv_transpose2d(y, weight, stride=2, padding=1)
    assert back.shape == x.shape
    np.testing.assert_allclose((forward * y).sum(), (x * back).sum(), rtol=1e-12)


X, W = np.zeros((1, 6, 7, 9), np.float32), np.zeros((6, 8, 4, 4), np.float32)
REFUSALS = {
    "input_axes": ({"input": X[0, 0]}, "input: got 2 axes"),
    "input_channels": ({"input": X[:, :5]}, "input: got 5 channels"),
    "weight_axes": ({"weight": W[0]}, "weight: got 3 axes"),
    "dtype": ({"weight": W.astype(np.float64)}, "input: got float32 with a weight of float64"),
    "bias": ({"bias": np.zeros(6, np.float32)}, r"bias: got shape \(6,\), want \(8,\)"),
    "groups": ({"groups": 4}, "groups: got 4, want a divisor of the weight's 6 input channels"),
    "groups_zero": ({"groups": 0}, "groups: got 0"),
    "stride": ({"stride": 0}, r"stride: got \(0, 0\)"),
    "dilation": ({"dilation": 0}, r"dilation: got \(0, 0\)"),
    "padding_word": ({"padding": "same"}, "padding: got 'same'"),
    "padding_negative": ({"padding": -1}, "padding: got"),
    "padding_large": ({"padding": 9}, r"input: got a size of \(7, 9\) and padding="),
    "output_padding": ({"output_padding": 1}, "output_padding: got .* want every value below"),
    "output_padding_negative": ({"output_padding": -1}, "output_padding: got"),
    "output_padding_float": ({"output_padding": 0.5}, "output_padding: got 0.5"),
    "out": ({"out": np.zeros((1, 8, 9, 9), np.float32)}, "out: got shape"),
    "residual": ({"residual": np.zeros((1, 8, 9, 9), np.float32)}, "residual: got shape"),
    "activation": ({"activation": "swish"}, "activation: got 'swish'"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name: str) -> None:
    changes, sentence = REFUSALS[name]
    given: dict[str, Any] = {"input": X, "weight": W} | changes
    with pytest.raises(fastconv.FastconvError, match=sentence):
        fastconv.conv_transpose2d(**given)


def test_a_layer_refuses_sizes_and_other_biases() -> None:
    with pytest.raises(fastconv.DTypeError, match="weight: got the number 6, want the filters"):
        fastconv.ConvTranspose2d(6)  # type: ignore[arg-type]
    with pytest.raises(fastconv.ShapeError, match=r"bias: got shape \(6,\), want \(8,\)"):
        fastconv.ConvTranspose2d(W, np.zeros(6, np.float32))
    assert "output_padding=0" in repr(fastconv.ConvTranspose2d(W))


def test_explain_tells_of_each_phase() -> None:
    told = fastconv.explain("--op=conv_transpose ic64ih28oc32kh3sh2ph1")
    assert len(told.rows) == 4 and "4" in told.note
    assert all(row.kernel.startswith("cpu.") for row in told.rows)
    assert "1x2 taps, outputs [0::2, 1::2]" in str(told)
    x = np.zeros((1, 6, 7, 9), np.float32)
    of_call = fastconv.explain(fastconv.conv_transpose2d, x, W, stride=2, padding=1)
    assert of_call.problem == fastconv.ConvTranspose2d(W, stride=2, padding=1).problem(x)
    assert len(of_call.rows) == 1 and "one convolution of all phases" in of_call.note
    assert "3x3 taps, outputs [0:14]" in str(of_call) and not of_call.packed


def test_a_kernel_as_large_as_its_stride_is_one_product_by_bands(rng: np.random.Generator) -> None:
    of = parse_any_line("--op=conv_transpose mb2ic9ih70iw33oc40kh2sh2")[0]
    assert isinstance(of, TransposedProblem) and of.is_product
    bands = of.bands()
    assert len(bands) > 1 and (bands[0].start, bands[-1].stop) == (0, 70)
    assert all(first.stop == second.start for first, second in itertools.pairwise(bands))
    told = fastconv.explain(of)
    assert f"by bands of samples: {len(bands)}" in told.note and "1x1 taps" in str(told)
    t = tensors(of, rng)
    with fastconv.precision("exact"):
        made = fastconv.conv_transpose2d(t.x, t.weight, t.bias, activation="relu", stride=2)
    np.testing.assert_array_equal(made, truth(of, t, activation="relu"))
    for changed in ({"padding": ((1, 1), (0, 0))}, {"layout": "channels_last"}):
        assert not of.with_(**changed).is_product


def test_a_product_is_planned_without_a_look_at_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are as many as the stride has outputs, a million here."""
    of = parse_any_line("--op=conv_transpose ic1iw2oc1ow2000000kw1000000sw1000000")[0]

    def refuse(problem: TransposedProblem) -> None:
        raise AssertionError(f"phases of {problem.line()} were listed")

    monkeypatch.setattr(TransposedProblem, "phases", refuse)
    assert "one product" in fastconv.explain(of).note


def test_phases_side_by_side_are_interleaved(rng: np.random.Generator) -> None:
    """Outputs that fill no band, two strides and groups; without a residual, as most calls are."""
    for line in ("ic4ih7iw20oc6oh14ow60kh4kw3sh2sw3ph1pw0", "g2ic4iw33oc6ow264kw16sw8pw4"):
        of = parse_any_line(f"--op=conv_transpose {line}")[0]
        t = tensors(of, rng)
        with fastconv.precision("exact"):
            made = FUNCTIONS[of.ndim](t.x, t.weight, t.bias, **arguments(of))
        np.testing.assert_array_equal(made, truth(of, t))


def test_explain_knows_that_there_are_no_kernels_for_gpus() -> None:
    with pytest.raises(
        fastconv.DeviceError, match="transposed convolution has no kernels for GPUs"
    ):
        fastconv.explain("--op=conv_transpose ic64ih28oc32kh3sh2ph1", gpu="A100")


def test_a_subclass_of_arrays_has_no_say_in_its_indexing(rng: np.random.Generator) -> None:
    class Doubling(np.ndarray):
        def __getitem__(self, index: Any) -> Any:
            return np.ndarray.__getitem__(self, index) * 2

    of = problem(1, 4, 2)
    t = tensors(of, rng)
    with fastconv.precision("exact"):
        result = fastconv.conv_transpose1d(
            t.x.view(Doubling), t.weight.view(Doubling), t.bias, **arguments(of)
        )
    np.testing.assert_array_equal(np.asarray(result), truth(of, t))


def test_a_module_of_pytorch_is_no_weight() -> None:
    module = torch.nn.ConvTranspose2d(8, 6, 3)
    for call in (fastconv.ConvTranspose2d, fastconv.Conv2d):
        with pytest.raises(fastconv.FastconvError, match="weight: got a PyTorch"):
            call(module)  # type: ignore[arg-type]


def test_a_phase_that_no_sample_reaches_is_the_bias() -> None:
    bias = np.array([3.0], np.float32)
    x = np.full((1, 1, 2, 2), np.nan, np.float32)
    y = fastconv.conv_transpose2d(x, np.ones((1, 1, 1, 1), np.float32), bias, stride=2)
    assert np.isnan(y[0, 0, ::2, ::2]).all() and (y[0, 0, 1, :] == 3).all()


def test_exact_precision_spreads_no_infinity() -> None:
    """Its phases may not be made in one window, whose zeros would meet it."""
    x, weight = np.ones((1, 4, 5, 5), np.float32), np.ones((4, 2, 3, 3), np.float32)
    x[0, 0, 2, 2] = np.inf
    with fastconv.precision("exact"):
        made = fastconv.conv_transpose2d(x, weight, None, 2, 1, 1)
    wanted = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(x), torch.from_numpy(weight), None, 2, 1, 1
    )
    assert np.array_equal(made, wanted.numpy())
