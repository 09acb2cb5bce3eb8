"""separable_conv2d, conv2d_pair and their objects: against the definition, by one band and many."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

import fastconv
from fastconv.contract import pair_problem
from fastconv.contract.pair_problem import PairProblem
from fastconv.contract.problem_line import parse_any_line
from fastconv.kernels import reference
from fastconv.kernels.tolerance import TOLERANCE
from fastconv.ops import pair_calls, pair_plan
from fastconv.ops.pair_checks import PAIR
from helpers import DTYPES, bits, in_layout, memory_orders

LINES = (
    "g6mb2ic6ih21iw13oc6kh3ph1+oc5kh1",
    "g6ic6ih21iw13oc12kh5sh2ph2+oc33kh1",  # a multiplier
    "g4ic4ih20iw9oc4kh3ph2dh1+oc8kh1",
    "ic4mb2ih23iw17oc6kh1kw7ph0pw3+oc5kh7kw1ph3pw0",
    "g2ic2ih40iw9oc2kh9kw1ph4pw0+g2oc2kh1kw9ph0pw4",
    "ic3ih24iw11oc4kh3ph1+g2oc6kh3kw5sh2sw1ph1pw2",
    "ic3ih24iw11oc4kh2+oc4kh4ph9dh1",  # rows of zeros alone
    "ic2ih30iw60oc3kh3ph1sh3+oc4kh1sh3",  # rows of the middle that nothing reads
)


def problem(line: str, **changes: Any) -> PairProblem:
    of = parse_any_line(f"--op=conv_pair {line}")[0]
    assert isinstance(of, PairProblem)
    return of.with_(**changes)


class Given:
    """Arrays for a pair."""

    def __init__(self, of: PairProblem, rng: np.random.Generator, integers: bool = True) -> None:
        def draw(shape: tuple[int, ...]) -> np.ndarray:
            values = rng.integers(-2, 3, shape) if integers else rng.standard_normal(shape)
            return values.astype(DTYPES[of.dtype])

        self.x = in_layout(draw(of.x_shape), of.layout)
        self.weights = draw(of.first.weight_shape), draw(of.second.weight_shape)
        self.biases = draw((of.first.out_channels,)), draw((of.second.out_channels,))
        self.residual = draw(of.out_shape)


def told(of: PairProblem) -> list[dict[str, Any]]:
    names = ("stride", "padding", "dilation", "groups")
    return [{name: getattr(part, name) for name in names} for part in (of.first, of.second)]


def keywords(of: PairProblem) -> dict[str, Any]:
    parts = zip(("first", "second"), told(of), strict=True)
    return {f"{part}_{name}": value for part, given in parts for name, value in given.items()}


def truth(of: PairProblem, g: Given, between: str | None = None, **more: Any) -> np.ndarray:
    first, second = told(of)
    return reference.conv_pair(
        g.x, *g.weights, *g.biases, first=first | {"activation": between}, second=second | more
    )


@pytest.fixture(params=["whole", "bands"])
def bands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Bands of a few rows, as large images have them, and images at once."""
    if request.param == "bands":
        monkeypatch.setattr(pair_problem, "_WHOLE_BYTES", 0)
        monkeypatch.setattr(pair_problem, "_BAND_BYTES", 700)
        monkeypatch.setattr(pair_plan, "_MOST_STEPS", 6)  # of some of the lines there are more
    pair_calls._prepared.clear()
    return str(request.param)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last", "strided"])
def test_small_integers_are_exact(
    bands: str, line: str, layout: str, rng: np.random.Generator
) -> None:
    of = problem(line, layout=layout)
    assert of.band_count == len(list(of.bands())) > (bands == "bands")
    g = Given(of, rng)
    wanted = truth(of, g, "relu", residual=g.residual, activation="relu6")
    more = {"first_activation": "relu", "second_activation": "relu6"} | keywords(of)
    with fastconv.precision("exact"):
        out = np.full(of.out_shape, np.nan, g.x.dtype)
        made = fastconv.conv2d_pair(
            g.x, *g.weights, *g.biases, residual=g.residual, out=out, **more
        )
        assert made is out
        np.testing.assert_array_equal(out, wanted)
        layer = fastconv.Conv2dPair(*g.weights, *g.biases, **more)
        assert layer.problem(g.x) == of and layer.prepare(g.x).startswith("cpu.")
        result = pickle.loads(pickle.dumps(layer))(g.x, g.residual)
    np.testing.assert_array_equal(result, wanted)
    assert result.dtype == g.x.dtype
    if layout == "channels_last":
        assert np.moveaxis(result, 1, -1).flags.c_contiguous


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_numbers_are_within_both_tolerances(
    bands: str, dtype: str, rng: np.random.Generator
) -> None:
    of = problem("g32ic32ih24oc32kh3ph1+oc48kh1", dtype=dtype)
    g = Given(of, rng, integers=False)
    depthwise, pointwise = g.weights
    made = fastconv.separable_conv2d(
        g.x, depthwise, pointwise[:, :, 0, 0], g.biases[1], padding=1, depthwise_bias=g.biases[0],
        depthwise_activation="silu", activation="gelu",
    )  # fmt: skip
    wanted = truth(of, g, "silu", activation="gelu")
    error = np.abs(made.astype(np.float64) - wanted).max() / np.abs(wanted).max()
    assert error <= 2 * TOLERANCE[dtype].relative + (2e-5 if dtype != "float64" else 4e-14)


def test_it_is_pytorch_s_and_keras_s(rng: np.random.Generator) -> None:
    of = problem("g8ic8ih16oc16kh3sh2ph1+oc24kh1")
    g = Given(of, rng, integers=False)
    made = fastconv.separable_conv2d(g.x, *g.weights, stride=2, padding=1)
    x, depthwise, pointwise = (torch.from_numpy(array) for array in (g.x, *g.weights))
    convolve = torch.nn.functional.conv2d
    theirs = convolve(convolve(x, depthwise, None, 2, 1, groups=8), pointwise)
    np.testing.assert_allclose(made, theirs.numpy(), rtol=0, atol=1e-4)
    # Keras keeps (kh, kw, C, m) and (1, 1, C * m, K); each channel's m filters lie together.
    keras = np.ascontiguousarray(g.weights[0].reshape(8, 2, 3, 3).transpose(2, 3, 0, 1))
    again = keras.transpose(2, 3, 0, 1).reshape(-1, 1, 3, 3)
    np.testing.assert_array_equal(again, g.weights[0])


@pytest.mark.parametrize("argument", ["x", "first", "second", "residual"])
def test_any_strides(bands: str, argument: str, rng: np.random.Generator) -> None:
    of = problem(LINES[3])
    g = Given(of, rng)
    wanted = truth(of, g, residual=g.residual)
    arrays = {
        "x": g.x, "first": g.weights[0], "second": g.weights[1], "residual": g.residual,
    }  # fmt: skip
    with fastconv.precision("exact"):
        for name, variant in memory_orders(arrays[argument]).items():
            a = arrays | {argument: variant}
            result = fastconv.conv2d_pair(
                a["x"], a["first"], a["second"], *g.biases, residual=a["residual"], **keywords(of)
            )
            np.testing.assert_array_equal(result, wanted, name)


def test_unbatched_empty_and_over_its_own_input(bands: str, rng: np.random.Generator) -> None:
    of = problem("g6mb2ic6ih21iw13oc6kh3ph1+oc6kh1")
    g = Given(of, rng)
    wanted, more = truth(of, g), {"padding": 1, "depthwise_bias": g.biases[0]}
    with fastconv.precision("exact"):
        layer = fastconv.SeparableConv2d(*g.weights, g.biases[1], **more)
        np.testing.assert_array_equal(layer(g.x[0]), wanted[0])
        layer.prepare(g.x[0])
        none = fastconv.separable_conv2d(g.x[:0], *g.weights, g.biases[1], **more)
        assert none.shape == (0, *wanted.shape[1:]) and layer(g.x[:0]).shape == none.shape
        fastconv.separable_conv2d(g.x, *g.weights, g.biases[1], out=g.x, **more)
    np.testing.assert_array_equal(g.x, wanted)


def test_a_subclass_of_arrays_has_no_say_in_its_indexing(rng: np.random.Generator) -> None:
    class Doubling(np.ndarray):
        def __getitem__(self, index: Any) -> Any:
            return np.ndarray.__getitem__(self, index) * 2

    of = problem(LINES[0])
    g = Given(of, rng)
    with fastconv.precision("exact"):
        result = fastconv.separable_conv2d(
            g.x.view(Doubling), g.weights[0].view(Doubling), g.weights[1].view(Doubling),
            g.biases[1], padding=1, depthwise_bias=g.biases[0],
        )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(result), truth(of, g))


def test_same_bits_for_any_threads_and_as_a_layer(bands: str, rng: np.random.Generator) -> None:
    of = problem("g32ic32ih40oc32kh3ph1+oc48kh1")
    g = Given(of, rng, integers=False)
    results = []
    for threads in (1, 2, 3, 2):
        fastconv.set_num_threads(threads)
        results.append(bits(fastconv.separable_conv2d(g.x, *g.weights, padding=1)))
    results.append(bits(fastconv.SeparableConv2d(*g.weights, padding=1)(g.x)))
    assert all(np.array_equal(results[0], each) for each in results)


def test_a_remembered_weight_that_changes_is_packed_again(rng: np.random.Generator) -> None:
    of = problem("g96ic96ih8oc96kh3ph1+oc128kh1")
    g = Given(of, rng)
    with fastconv.precision("exact"):
        for change in (1, 1, 1, 2):
            g.weights[1][...] *= change
            made = fastconv.separable_conv2d(g.x, *g.weights, padding=1)
        g.biases = (np.zeros(96, np.float32), np.zeros(128, np.float32))
        np.testing.assert_array_equal(made, truth(of, g))


@pytest.mark.parametrize(
    "line",
    [
        *LINES,
        "ic1ih90iw8oc1kh9kw1ph40pw0dh6+oc1kh3kw1ph70pw0dh9",
        "mb2ic1ih99iw8oc1kh5kw1sh2sw1ph60pw0dh19+oc1kh2kw1sh3sw1ph9pw0dh30",
        "mb0ic1ih9iw8oc1kh3+oc1kh3",
    ],
)
def test_bands_make_every_row_once(bands: str, line: str) -> None:
    of = problem(line)
    made = np.zeros((of.batch, of.second.out_size[0]), int)
    for band in of.bands():
        made[band.images, band.outputs] += 1
        first, second = of.parts(band)
        assert second.out_size[0] == band.outputs.stop - band.outputs.start
        if first is not None:
            assert first.out_size[0] == band.middle.stop - band.middle.start - band.kept
    assert (made == 1).all()
    counted: dict[Any, int] = {}
    for band, count in of.kinds():
        counted[of.parts(band)] = counted.get(of.parts(band), 0) + count
    found: dict[Any, int] = {}
    for band in of.bands():
        found[of.parts(band)] = found.get(of.parts(band), 0) + 1
    assert counted == found and len(found) < 40


@pytest.mark.parametrize("line", LINES)
def test_lines_are_read_back(line: str) -> None:
    of = problem(line, dtype="float64", layout="channels_last")
    assert parse_any_line(of.line("a+name")) == (of, "a+name")


def test_lines_that_are_no_pair() -> None:
    with pytest.raises(fastconv.ShapeError, match=r"got ic9 behind \+"):
        parse_any_line("--op=conv_pair ic4ih8oc6kh3+ic9oc4kh1")
    with pytest.raises(fastconv.ShapeError, match="want at least ic, oc"):
        parse_any_line("--op=conv_pair ic4ih8oc6kh3")
    first = fastconv.ConvProblem(1, 4, 6, (8, 8), (3, 3))
    with pytest.raises(fastconv.ShapeError, match="second convolution: got an input of"):
        PairProblem(first, first)


def test_a_line_of_any_size_is_explained_at_once() -> None:
    told = fastconv.explain("--op=conv_pair ic8ih1073741824iw64oc8kh1kw3+oc8kh3kw1")
    assert told.problem.band_count > 10**6  # type: ignore[union-attr]
    assert {row.reasons[0].split()[1] for row in told.rows} >= {"taps,"}


def test_what_is_prepared_does_not_grow_with_the_bands() -> None:
    of = problem("g2mb5ic2ih4096iw999oc2kh3ph1+oc1kh9sh4sw9")
    x = np.broadcast_to(np.float32(0), of.x_shape)
    weights = [np.zeros(part.weight_shape, np.float32) for part in (of.first, of.second)]
    layer = fastconv.Conv2dPair(*weights, **keywords(of))
    prepared = pair_calls.prepare_pair(PAIR, x, layer._given, None, None, True)
    assert of.band_count > pair_plan._MOST_STEPS and prepared.steps is None
    assert len(prepared.calls) <= 4 and sum(map(len, prepared.orders)) == 2


@pytest.mark.parametrize(
    "line", ["ic8ih512iw9999oc8kh3+oc8kh9", "ic8ih512iw9999oc8kh3+oc8kh3sh2dh9"]
)
def test_a_band_keeps_no_more_rows_than_it_makes(line: str) -> None:
    *bands, _ = problem(line).bands()
    assert all(band.kept <= band.middle.stop - band.middle.start - band.kept for band in bands)
    assert any(band.kept for band in bands)


def test_explain_tells_of_both_convolutions() -> None:
    told = fastconv.explain("--op=conv_pair g64ic64ih28oc64kh3ph1+oc32kh1")
    assert next(row.kernel for row in told.rows) == "cpu.depthwise" and len(told.rows) == 2
    assert "two convolutions" in str(told) and "second convolution" in str(told)
    x, depthwise = np.zeros((1, 64, 28, 28), np.float32), np.zeros((64, 1, 3, 3), np.float32)
    pointwise = np.zeros((32, 64), np.float32)
    of_call = fastconv.explain(fastconv.separable_conv2d, x, depthwise, pointwise, padding=1)
    layer = fastconv.SeparableConv2d(depthwise, pointwise, padding=1)
    assert of_call.problem == told.problem == fastconv.explain(layer, x).problem
    assert not of_call.packed and fastconv.explain(layer, x).packed
    assert str(fastconv.explain("--op=conv_pair mb0ic4ih8oc4kh3+oc4kh1")).count("\n") == 2
    with pytest.raises(fastconv.DeviceError, match="a pair of convolutions has no kernels"):
        fastconv.explain(told.problem, gpu="A100")


X = np.zeros((1, 6, 7, 9), np.float32)
DEPTHWISE, POINTWISE = np.zeros((12, 1, 3, 3), np.float32), np.zeros((5, 12), np.float32)
REFUSALS = {
    "none": ({"input": None}, "input: got NoneType"),
    "no_weight": ({"pointwise_weight": None}, "pointwise_weight: got NoneType"),
    "list": ({"input": [[1.0]]}, "input: got list"),
    "axes": ({"input": X[0, 0]}, "input: got 2 axes"),
    "channels": ({"input": X[:, :5]}, "depthwise_weight: got 12 filters"),
    "depthwise_axes": ({"depthwise_weight": DEPTHWISE[0]}, "depthwise_weight: got 3 axes"),
    "depthwise_depth": (
        {"depthwise_weight": np.zeros((12, 2, 3, 3), np.float32)},
        "depthwise_weight: got 2 input channels a group",
    ),
    "kernel": (
        {"depthwise_weight": np.zeros((12, 1, 9, 9), np.float32)},
        "depthwise_weight: got a kernel that reaches over 9",
    ),
    "pointwise": ({"pointwise_weight": POINTWISE[:, :9]}, "pointwise_weight: got 9 input channels"),
    "pointwise_mask": (
        {"pointwise_weight": np.ma.masked_array(POINTWISE)},
        "pointwise_weight: got a masked array",
    ),
    "pointwise_size": (
        {"pointwise_weight": np.zeros((5, 12, 3, 3), np.float32)},
        r"pointwise_weight: got shape \(5, 12, 3, 3\), want \(K, 12\) or \(K, 12, 1, 1\)",
    ),
    "pointwise_dtype": (
        {"pointwise_weight": POINTWISE.astype(np.float64)},
        "pointwise_weight: got float64, want float32 as the depthwise_weight has",
    ),
    "dtype": ({"input": X.astype(np.float64)}, "input: got float64 with a weight of float32"),
    "bias": ({"bias": np.zeros(6, np.float32)}, r"bias: got shape \(6,\), want \(5,\)"),
    "depthwise_bias": (
        {"depthwise_bias": np.zeros(6, np.float32)}, r"depthwise_bias: got shape \(6,\), want"
    ),
    "stride": ({"stride": 0}, r"stride: got \(0, 0\)"),
    "padding": ({"padding": "full"}, "padding: got 'full'"),
    "dilation": ({"dilation": 1.5}, "dilation: got 1.5"),
    "activation": ({"activation": "swish"}, "activation: got 'swish'"),
    "between": ({"depthwise_activation": "swish"}, "depthwise_activation: got 'swish'"),
    "out": ({"out": np.zeros((1, 5, 9, 9), np.float32)}, "out: got shape"),
    "residual": ({"residual": np.zeros((1, 5, 9, 9), np.float32)}, "residual: got shape"),
    "tune": ({"tune": 2}, "tune: got 2"),
    "tunes": ({"tune": [True]}, "tune: got"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name: str) -> None:
    changes, sentence = REFUSALS[name]
    given: dict[str, Any] = {
        "input": X, "depthwise_weight": DEPTHWISE, "pointwise_weight": POINTWISE
    } | changes  # fmt: skip
    with pytest.raises(fastconv.FastconvError, match=f"^{sentence}"):
        fastconv.separable_conv2d(**given)


def test_a_pair_names_its_own_arguments() -> None:
    first, second = np.zeros((4, 6, 1, 3), np.float32), np.zeros((8, 4, 3, 1), np.float32)
    for changes, sentence in (
        ({"second_stride": 0}, "second_stride: got"),
        ({"first_groups": 0}, "first_groups: got 0"),
        ({"first_groups": 5}, "first_groups: got 5"),
        ({"second_groups": 2}, "second_weight: got 4 input channels a group"),
        ({"second_padding": -1}, "second_padding: got"),
        ({"first_activation": ("relu", 2)}, "first_activation: got"),
        ({"second_bias": np.zeros(4, np.float32)}, "second_bias: got shape"),
    ):
        with pytest.raises(fastconv.FastconvError, match=f"^{sentence}"):
            fastconv.conv2d_pair(X, first, second, **changes)  # type: ignore[arg-type]
        if "stride" not in sentence and "padding" not in sentence:
            with pytest.raises(fastconv.FastconvError, match=f"^{sentence}"):
                fastconv.Conv2dPair(first, second, **changes)  # type: ignore[arg-type]


def test_a_layer_keeps_what_it_was_given(rng: np.random.Generator) -> None:
    of = problem(LINES[0])
    g = Given(of, rng)
    layer = fastconv.SeparableConv2d(*g.weights, g.biases[1], padding="same")
    wanted = layer(g.x)
    for array in (*g.weights, *g.biases):
        array[...] = np.nan
    np.testing.assert_array_equal(layer(g.x), wanted)
    assert layer.biases[0] is None and layer.weights[1].shape == (5, 6, 1, 1)
    assert "padding=same" in repr(layer)
