"""Deformable convolution: what the generated tests of tests/cpu do not show."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import fastconv
from fastconv.contract.deform_problem import DeformProblem
from fastconv.contract.errors import ArgumentError, DTypeError, ShapeError
from fastconv.kernels import reference
from helpers import DTYPES, bits

WINDOW = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
X, OFFSET = np.zeros((1, 4, 5, 6), np.float32), np.zeros((1, 18, 3, 4), np.float32)
WEIGHT, MASK = np.zeros((2, 4, 3, 3), np.float32), np.zeros((1, 9, 3, 4), np.float32)


def arrays(
    rng: np.random.Generator, of: DeformProblem, spread: float = 2.0
) -> dict[str, np.ndarray]:
    """Random operands of a problem by name, in its own element type."""
    made = {
        operand.name: rng.standard_normal(operand.shape)
        * (spread if operand.name == "offset" else 1)
        for operand in of.inputs
    }
    return {name: array.astype(DTYPES[of.dtype]) for name, array in made.items()}


def problem(**changes: Any) -> DeformProblem:
    of = DeformProblem(
        "deform_conv", 2, 24, 20, (9, 12), (3, 3), groups=2, offset_groups=3, mask=True, bias=True,
        **WINDOW,
    )  # fmt: skip
    return of.with_(**changes)


def torch_deform(
    x: Any, offset: Any, weight: Any, bias: Any = None, mask: Any = None, *, stride: Any,
    padding: Any, dilation: Any,
) -> Any:  # fmt: skip
    """Deformable convolution as PyTorch's autograd can follow it, written out tap by tap."""
    n, c, height, width = x.shape
    k, _, kh, kw = weight.shape
    oh, ow = offset.shape[2:]
    sets = offset.shape[1] // (2 * kh * kw)
    by_tap = offset.reshape(n, sets, kh, kw, 2, oh, ow)
    # Zeros around the image, as far as any clamped place reaches.
    framed = torch.nn.functional.pad(x, (2, 2, 2, 2)).reshape(n, sets, c // sets, -1)
    taps = []
    for i in range(kh):
        for j in range(kw):
            y = torch.arange(oh)[:, None] * stride[0] - padding[0] + i * dilation[0]
            z = torch.arange(ow)[None] * stride[1] - padding[1] + j * dilation[1]
            y, z = y + by_tap[:, :, i, j, 0], z + by_tap[:, :, i, j, 1]
            low, left = y.detach().floor(), z.detach().floor()
            value = 0.0
            for down in (0, 1):
                for right in (0, 1):
                    row = (low + down).clamp(-2, height + 1).long() + 2
                    column = (left + right).clamp(-2, width + 1).long() + 2
                    at = (row * (width + 4) + column).reshape(n, sets, 1, -1)
                    corner = framed.gather(3, at.expand(-1, -1, c // sets, -1))
                    factor = (1 - (y - low - down).abs()) * (1 - (z - left - right).abs())
                    value = value + corner.reshape(n, sets, -1, oh, ow) * factor[:, :, None]
            if mask is not None:
                value = value * mask.reshape(n, sets, kh, kw, oh, ow)[:, :, None, i, j]
            taps.append(value.reshape(n, c, oh, ow))
    groups = c // weight.shape[1]
    columns = torch.stack(taps, 2).reshape(n, groups, -1, oh, ow)
    filters = weight.reshape(groups, k // groups, -1)
    out = torch.einsum("gkc,ngchw->ngkhw", filters, columns).reshape(n, k, oh, ow)
    return out if bias is None else out + bias[:, None, None]


CASES = [
    problem(), problem(mask=False, bias=False), problem(groups=1, offset_groups=1),
    problem(groups=4, offset_groups=24), problem(in_size=(3, 30), kernel_size=(1, 2)),
]  # fmt: skip


def given_to(of: DeformProblem, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Operands under the names of the reference's arguments and of `torch_deform`."""
    made = arrays(rng, of)
    return {"x": made.pop("input")} | made


def call(given: dict[str, np.ndarray], **more: Any) -> np.ndarray:
    named = {"input" if name == "x" else name: array for name, array in given.items()}
    return fastconv.deform_conv2d(**named, **WINDOW, **more)


@pytest.mark.parametrize("of", CASES, ids=lambda of: of.line())
def test_the_reference_is_a_composition_of_pytorch_s(
    of: DeformProblem, rng: np.random.Generator
) -> None:
    given = given_to(of.with_(dtype="float64"), rng)
    wanted = torch_deform(**{name: torch.from_numpy(a) for name, a in given.items()}, **WINDOW)
    actual = reference.deform_conv(**given, **WINDOW)
    np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not importlib.util.find_spec("torchvision"), reason="torchvision is missing")
@pytest.mark.parametrize("of", CASES, ids=lambda of: of.line())
def test_the_reference_is_torchvision_s(of: DeformProblem, rng: np.random.Generator) -> None:
    from torchvision.ops import deform_conv2d

    given = given_to(of.with_(dtype="float64"), rng)
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    wanted = deform_conv2d(tensors.pop("x"), **tensors, **WINDOW)
    actual = reference.deform_conv(**given, **WINDOW)
    np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("of", CASES, ids=lambda of: of.line())
def test_any_offsets(of: DeformProblem, dtype: str, rng: np.random.Generator) -> None:
    given = given_to(of.with_(dtype=dtype), rng)
    wanted = reference.deform_conv(**given, **WINDOW)
    bound = {"float32": 2e-6, "float64": 4e-15}[dtype] * np.abs(wanted).max()
    assert np.abs(call(given) - wanted).max() <= bound


def test_without_offsets_it_is_a_convolution(rng: np.random.Generator) -> None:
    x = rng.integers(-9, 10, (2, 16, 11, 13)).astype(np.float32)
    weight = rng.integers(-9, 10, (24, 8, 3, 3)).astype(np.float32)
    offset = np.zeros((2, 18, 11, 13), np.float32)
    wanted = fastconv.conv2d(x, weight, padding=1, groups=2)
    np.testing.assert_array_equal(fastconv.deform_conv2d(x, offset, weight, padding=1), wanted)


def test_places_far_outside_or_nowhere_read_nothing(rng: np.random.Generator) -> None:
    x = np.full((1, 3, 4, 5), np.inf, np.float32)
    weight = np.ones((2, 3, 1, 1), np.float32)
    for far in (-6, 6, 1e9, -1e30, 3e38, np.inf, -np.inf, np.nan):
        offset = np.full((1, 2, 4, 5), far, np.float32)
        assert not fastconv.deform_conv2d(x, offset, weight).any(), far
        offset[:, 0] = 0
        assert not fastconv.deform_conv2d(x, offset, weight).any(), far


def test_what_is_exactly_one_outside_reads_nothing() -> None:
    x = np.full((1, 1, 1, 1), np.nan, np.float32)
    weight = np.ones((1, 1, 1, 1), np.float32)
    for step in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        offset = np.array(step, np.float32).reshape(1, 2, 1, 1)
        assert fastconv.deform_conv2d(x, offset, weight) == 0
    offset = np.array((0.5, 0), np.float32).reshape(1, 2, 1, 1)
    assert np.isnan(fastconv.deform_conv2d(x, offset, weight)).all()


def test_large_maps_keep_their_fractions() -> None:
    """A place 20 million pixels along an axis, where float32 has no fractions."""
    x = np.zeros((1, 1, 1, 20_000_001), np.float32)
    x[..., -2:] = 1, 2
    offset = np.zeros((1, 2, 1, 2), np.float32)
    offset[0, 1, 0] = 0.25
    made = fastconv.deform_conv2d(
        x, offset, np.ones((1, 1, 1, 1), np.float32), stride=(1, 19_999_999)
    )
    assert made.tolist() == [[[[0.0, 1.25]]]]


GRADS = {
    "input": ("offset", "weight", "mask"),
    "offset": ("input", "offset", "weight", "mask"),
    "weight": ("input", "offset", "mask"),
}


def gradients(given: dict[str, np.ndarray], grad_output: np.ndarray) -> dict[str, np.ndarray]:
    """All gradients by the name of their operand."""
    own = {"input": given["x"]} | given
    made: dict[str, np.ndarray] = {}
    for of, names in GRADS.items():
        named = {name: own[name] for name in names if name in own}
        if of != "offset":
            named[f"{of}_size"] = own[of].shape
        function = getattr(fastconv.grad, f"deform_conv2d_{of}")
        made[of] = function(**named, grad_output=grad_output, **WINDOW)
    if "mask" in given:
        made["offset"], made["mask"] = made["offset"]
    if "bias" in given:
        made["bias"] = fastconv.grad.deform_conv2d_bias(grad_output)
    return made


@pytest.mark.parametrize("of", CASES, ids=lambda of: of.line())
def test_gradients_are_autograd_s(of: DeformProblem, rng: np.random.Generator) -> None:
    given = given_to(of.with_(dtype="float64"), rng)
    grad_output = rng.standard_normal((of.batch, of.out_channels, *of.out_size))
    tensors = {name: torch.from_numpy(a).requires_grad_() for name, a in given.items()}
    torch_deform(**tensors, **WINDOW).backward(torch.from_numpy(grad_output))
    for name, made in gradients(given, grad_output).items():
        wanted = tensors["x" if name == "input" else name].grad.numpy()
        np.testing.assert_allclose(made, wanted, rtol=1e-9, atol=1e-10, err_msg=name)


def test_gradients_are_central_differences(rng: np.random.Generator) -> None:
    of = problem(in_size=(4, 5), dtype="float64")
    given, step = given_to(of, rng), 1e-6
    grad_output = rng.standard_normal(of.out_shape)
    for name, made in gradients(given, grad_output).items():
        own = given["x" if name == "input" else name]
        for index in rng.integers(0, own.size, 20):
            place = np.unravel_index(index, own.shape)
            before, sums = own[place], []
            for way in (-step, step):
                own[place] = before + way
                sums.append((call(given) * grad_output).sum())
            own[place] = before
            slope = (sums[1] - sums[0]) / (2 * step)
            assert made[place] == pytest.approx(slope, rel=1e-5, abs=1e-6), (name, place)


def test_gradients_of_an_empty_batch(rng: np.random.Generator) -> None:
    of = problem(batch=0)
    made = gradients(given_to(of, rng), np.zeros(of.out_shape, np.float32))
    assert made["input"].shape == (0, 24, 9, 12) and made["mask"].shape == (0, 27, 5, 12)
    assert made["weight"].shape == of.weight_shape and not made["weight"].any()
    assert not made["bias"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"grad_output": np.zeros((1, 2, 3, 3), np.float32)},
            r"grad_output: .* want \(1, 2, 3, 4\)",
        ),
        ({"weight_size": (2, 4, 3)}, "weight_size: got .* want 4 whole numbers, say weight.shape"),
        ({"weight_size": (2, 3, 3, 3)}, "input: got 4 channels"),
        ({"mask": MASK[:, :8]}, "mask: got shape"),
    ],
)
def test_bad_input_of_gradients_is_named(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"input": X, "offset": OFFSET, "weight_size": (2, 4, 3, 3)}
    given["grad_output"] = np.zeros((1, 2, 3, 4), np.float32)
    with pytest.raises(ShapeError, match=message):
        fastconv.grad.deform_conv2d_weight(**{**given, **change})


@pytest.mark.parametrize("activation", ["relu", "silu", ("leaky_relu", 0.2)])
def test_activations(activation: Any, rng: np.random.Generator) -> None:
    given = given_to(problem(), rng)
    wanted = reference.deform_conv(**given, **WINDOW, activation=activation)
    np.testing.assert_allclose(call(given, activation=activation), wanted, atol=2e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_objects(dtype: str, rng: np.random.Generator) -> None:
    of = problem(dtype=dtype)
    given = given_to(of, rng)
    x, offset, mask = given["x"], given["offset"], given["mask"]
    layer = fastconv.DeformConv2d(given["weight"], given["bias"], **WINDOW, activation="relu")
    wanted = call(given, activation="relu")
    for each in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert bits(each(x, offset, mask)) == bits(wanted)
    out = np.empty_like(wanted)
    assert layer(x, offset, mask, out) is out and bits(out) == bits(wanted)
    assert bits(layer(x[0], offset[0], mask[0])) == bits(wanted[:1])
    assert layer.prepare(x, offset) == "cpu.deform_conv"
    assert layer.problem(x, offset, mask) == of.with_(activation="relu")
    assert fastconv.explain(layer, x, offset).problem == of.with_(mask=False, activation="relu")
    assert "stride=(2, 1)" in repr(layer)


def test_one_object_takes_inputs_of_other_groups(rng: np.random.Generator) -> None:
    weight = rng.integers(-4, 5, (6, 4, 1, 1)).astype(np.float32)
    layer = fastconv.DeformConv2d(weight)
    for channels in (4, 8, 12, 4):
        x = rng.integers(-4, 5, (1, channels, 3, 3)).astype(np.float32)
        offset = np.zeros((1, 2, 3, 3), np.float32)
        wanted = reference.deform_conv(
            x, offset, weight, stride=(1, 1), padding=(0, 0), dilation=(1, 1)
        )
        np.testing.assert_array_equal(layer(x, offset), wanted)


def test_an_empty_batch(rng: np.random.Generator) -> None:
    given = given_to(problem(batch=0), rng)
    assert call(given).shape == (0, 20, 5, 12)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"offset": OFFSET[:, :17]}, ShapeError, "offset: got 17 channels .*, want 18"),
        ({"offset": OFFSET[..., :3]}, ShapeError, r"offset: got shape .* want \(1, 18, 3, 4\)"),
        ({"offset": np.zeros((1, 54, 3, 4), np.float32)}, ShapeError, "offset: .* divides .* 4"),
        ({"offset": OFFSET[0]}, ShapeError, "offset: got 3 axes .*, want 4"),
        ({"offset": OFFSET.astype(np.float64)}, DTypeError, "offset: got float64, want float32"),
        ({"offset": None}, DTypeError, "offset: got NoneType"),
        ({"mask": MASK[:, :8]}, ShapeError, r"mask: got shape .* want \(1, 9, 3, 4\)"),
        ({"mask": MASK.astype(np.float16)}, DTypeError, "mask: got float16, want float32"),
        ({"bias": np.zeros(3, np.float32)}, ShapeError, r"bias: got shape \(3,\), want \(2,\)"),
        ({"weight": WEIGHT[:, :3]}, ShapeError, "input: got 4 channels .* multiple of .* 3"),
        ({"weight": WEIGHT[:1, :2]}, ShapeError, "weight: got 1 output channels"),
        ({"weight": WEIGHT[0]}, ShapeError, "weight: got 3 axes"),
        ({"input": X[:, :, 0]}, ShapeError, "offset: got 4 axes .* want 3 as the input has"),
        ({"input": X[:, :, :2]}, ShapeError, "weight: got a kernel .* input's"),
        ({"stride": 0}, ShapeError, "stride: got"),
        ({"padding": "same"}, ShapeError, "padding: got 'same', want a whole number"),
        ({"dilation": (1, 1, 1)}, ShapeError, "dilation: got 3 values"),
        ({"activation": "nope"}, ArgumentError, "activation: got 'nope'"),
        ({"out": np.zeros((1, 2, 3, 3), np.float32)}, ShapeError, "out: got shape"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type, message: str) -> None:
    given: dict[str, Any] = {"input": X, "offset": OFFSET, "weight": WEIGHT}
    with pytest.raises(error, match=message):
        fastconv.deform_conv2d(**{**given, **change})


def test_bad_objects_are_named() -> None:
    with pytest.raises(DTypeError, match="weight: got the number 64"):
        fastconv.DeformConv2d(64, 64, 3)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"stride: got 1\.5"):
        fastconv.DeformConv2d(WEIGHT, stride=1.5)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="bias: got shape"):
        fastconv.DeformConv2d(WEIGHT, np.zeros(3, np.float32))
