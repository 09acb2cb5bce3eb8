"""Norms, softmax and PReLU: what the generated tests do not cover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import fastconv
from fastconv import ArgumentError, DTypeError, ShapeError, grad
from fastconv.kernels import reference

Array = np.ndarray


def tensor(array: Array | None, grads: bool = False) -> Any:
    return None if array is None else torch.from_numpy(array.copy()).requires_grad_(grads)


def channels(rng: np.random.Generator, count: int, dtype: Any = np.float64) -> tuple[Array, ...]:
    """A mean, a variance, a weight and a bias."""
    drawn = (rng.standard_normal(count), rng.uniform(0.5, 2, count), rng.standard_normal(count))
    return tuple(each.astype(dtype) for each in (*drawn, rng.standard_normal(count)))


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5), (1, 2, 3, 2, 3, 2)])
@pytest.mark.parametrize("op", ["batch_norm", "instance_norm"])
def test_running_statistics_are_updated_as_pytorch_s(
    op: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    if op == "instance_norm" and len(shape) < 3:
        pytest.skip("an instance norm has a spatial axis")
    x, (mean, var, weight, bias) = rng.standard_normal(shape), channels(rng, shape[1])
    theirs = [tensor(each) for each in (mean, var)]
    told = {"training": True} if op == "batch_norm" else {}
    made = getattr(fastconv, op)(x, mean, var, weight, bias, momentum=0.3, **told)
    wanted = getattr(functional, op)(
        tensor(x), *theirs, tensor(weight), tensor(bias), momentum=0.3, **told
    )
    np.testing.assert_allclose(made, wanted.numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(mean, theirs[0].numpy(), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(var, theirs[1].numpy(), rtol=1e-12)


def test_instance_norm_by_running_statistics(rng: np.random.Generator) -> None:
    x, (mean, var, weight, bias) = rng.standard_normal((2, 3, 8)), channels(rng, 3)
    made = fastconv.instance_norm(x, mean, var, weight, bias, use_input_stats=False)
    np.testing.assert_array_equal(made, fastconv.batch_norm(x, mean, var, weight, bias))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("first", [0.0, 1e4])
def test_means_far_from_zero_cost_no_accuracy(
    dtype: Any, layout: str, first: float, rng: np.random.Generator
) -> None:
    """Not even where the element that sums are taken about is far from the others."""
    x = (rng.standard_normal((2, 6, 40, 50)) + 1e4).astype(dtype)
    x[0, :, 0, 0] = first
    truths = {
        "batch_norm": reference.batch_norm(x, training=True),
        "group_norm": reference.group_norm(x, num_groups=2),
        "instance_norm": reference.instance_norm(x),
        "layer_norm": reference.layer_norm(x, normalized_shape=(50,)),
    }
    given = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    x = x if layout == "first" else given
    made = {
        "batch_norm": fastconv.batch_norm(x, None, None, training=True),
        "group_norm": fastconv.group_norm(x, 2),
        "instance_norm": fastconv.instance_norm(x),
        "layer_norm": fastconv.layer_norm(x, 50),
    }
    for name, truth in truths.items():
        error = np.abs(made[name] - truth).max() / np.abs(truth).max()
        assert error < (2e-6 if dtype == np.float32 else 1e-9), name


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (2, 3, 4, 5), (2, 2, 3, 2, 2, 3)])
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax_along_every_axis(
    op: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = rng.standard_normal(shape).astype(np.float32)
    for dim in range(-len(shape), len(shape)):
        for given in (x, np.asfortranarray(x), x[..., ::-1]):
            wanted = getattr(functional, op)(torch.from_numpy(given.copy()), dim).numpy()
            made = getattr(fastconv, op)(given, dim)
            np.testing.assert_allclose(made, wanted, rtol=2e-6, atol=2e-6)
            out = np.full(shape[::-1], np.nan, np.float32).T
            assert getattr(fastconv, op)(given, dim, out=out) is out
            np.testing.assert_array_equal(out, made)


SPECIAL = {
    "nan": [1.0, np.nan, 2.0, 0.0],
    "infinity": [1.0, np.inf, 2.0, 0.0],
    "masked": [1.0, -np.inf, 2.0, -np.inf],
    "all masked": [-np.inf] * 4,
    "large": [1e30, 1e30, -1e30, 0.0],
    "far": [0.0, -90.0, -1000.0, -5.0],
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax_of_special_values(op: str, dtype: Any, name: str) -> None:
    """With the axis along the lanes, and across them."""
    rows = np.tile(np.array(SPECIAL[name], dtype), (37, 6))
    for given, dim in ((rows, 1), (np.ascontiguousarray(rows.T), 0)):
        wanted = getattr(functional, op)(torch.from_numpy(given), dim).numpy()
        made = getattr(fastconv, op)(given, dim)
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_spreads_as_far_as_its_statistic(value: float, layout: str) -> None:
    x = np.random.default_rng(3).standard_normal((2, 4, 5, 6)).astype(np.float32)
    x[1, 2, 3, 4] = value
    theirs = {
        "batch_norm": functional.batch_norm(tensor(x), None, None, training=True),
        "group_norm": functional.group_norm(tensor(x), 2),
        "instance_norm": functional.instance_norm(tensor(x)),
        "layer_norm": functional.layer_norm(tensor(x), (6,)),
        "local_response_norm": functional.local_response_norm(tensor(x), 3),
        "prelu": functional.prelu(tensor(x), torch.tensor([0.5])),
    }
    given = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    x = x if layout == "first" else given
    made = {
        "batch_norm": fastconv.batch_norm(x, None, None, training=True),
        "group_norm": fastconv.group_norm(x, 2),
        "instance_norm": fastconv.instance_norm(x),
        "layer_norm": fastconv.layer_norm(x, 6),
        "local_response_norm": fastconv.local_response_norm(x, 3),
        "prelu": fastconv.prelu(x, np.array([0.5], np.float32)),
    }
    for name, wanted in theirs.items():
        np.testing.assert_array_equal(np.isnan(made[name]), np.isnan(wanted.numpy()), name)


@pytest.mark.parametrize(("k", "alpha", "beta"), [(0.0, 1.0, 0.75), (2.0, 1.0, -0.5), (1, -1, 0.5)])
def test_local_response_norm_of_any_parameters(
    k: float, alpha: float, beta: float, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((1, 7, 40))
    x[:, :, 3] = 0.0
    wanted = functional.local_response_norm(tensor(x), 3, alpha, beta, k).numpy()
    made = fastconv.local_response_norm(x, 3, alpha, beta, k)
    np.testing.assert_allclose(made, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4, 2, 2, 2)])
def test_prelu_of_any_shape(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x, slope = rng.standard_normal(shape), np.array([0.25])
    wanted = functional.prelu(tensor(np.asarray(x)), tensor(slope)).numpy()
    np.testing.assert_array_equal(fastconv.prelu(np.asarray(x), slope), wanted)


#: By gradient: the forward call of tensors, the operand, and the gradient's own call.
GRADIENTS: dict[str, tuple[Callable[..., Any], str, Callable[..., Any]]] = {}


def gradient_of(name: str, forward: Callable[..., Any], **calls: Callable[..., Any]) -> None:
    for operand, call in calls.items():
        GRADIENTS[f"{name}_{operand}"] = (forward, operand, call)


gradient_of(
    "batch_norm_training",
    lambda a: functional.batch_norm(a.input, None, None, a.weight, a.bias, True),
    input=lambda a, g: grad.batch_norm_input(a.input, None, None, a.weight, g, True),
    weight=lambda a, g: grad.batch_norm_weight(a.input, None, None, g, True),
    bias=lambda a, g: grad.batch_norm_bias(g),
)
gradient_of(
    "batch_norm",
    lambda a: functional.batch_norm(a.input, a.mean, a.var, a.weight, a.bias),
    input=lambda a, g: grad.batch_norm_input(a.input, a.mean, a.var, a.weight, g),
    weight=lambda a, g: grad.batch_norm_weight(a.input, a.mean, a.var, g),
    bias=lambda a, g: grad.batch_norm_bias(g),
)
gradient_of(
    "group_norm",
    lambda a: functional.group_norm(a.input, 2, a.weight, a.bias),
    input=lambda a, g: grad.group_norm_input(a.input, a.weight, g, 2),
    weight=lambda a, g: grad.group_norm_weight(a.input, g, 2),
    bias=lambda a, g: grad.group_norm_bias(g),
)
gradient_of(
    "instance_norm",
    lambda a: functional.instance_norm(a.input, None, None, a.weight, a.bias),
    input=lambda a, g: grad.instance_norm_input(a.input, a.weight, g),
    weight=lambda a, g: grad.instance_norm_weight(a.input, g),
    bias=lambda a, g: grad.instance_norm_bias(g),
)
gradient_of(
    "layer_norm",
    lambda a: functional.layer_norm(a.input, (4, 5), a.table, a.table2),
    input=lambda a, g: grad.layer_norm_input(a.input, a.table, g, (4, 5)),
    table=lambda a, g: grad.layer_norm_weight(a.input, g, (4, 5)),
    table2=lambda a, g: grad.layer_norm_bias(g, (4, 5)),
)
gradient_of(
    "local_response_norm",
    lambda a: functional.local_response_norm(a.input, 4, 0.5, 0.75, 2.0),
    input=lambda a, g: grad.local_response_norm_input(a.input, g, 4, 0.5, 0.75, 2.0),
)
gradient_of(
    "softmax",
    lambda a: functional.softmax(a.input, 1),
    input=lambda a, g: grad.softmax_input(fastconv.softmax(a.input, 1), g, 1),
)
gradient_of(
    "log_softmax",
    lambda a: functional.log_softmax(a.input, -1),
    input=lambda a, g: grad.log_softmax_input(fastconv.log_softmax(a.input, -1), g, -1),
)
gradient_of(
    "prelu",
    lambda a: functional.prelu(a.input, a.weight),
    input=lambda a, g: grad.prelu_input(a.input, a.weight, g),
    weight=lambda a, g: grad.prelu_weight(a.input, a.weight, g),
)
gradient_of(
    "prelu_shared",
    lambda a: functional.prelu(a.input, a.slope),
    input=lambda a, g: grad.prelu_input(a.input, a.slope, g),
    slope=lambda a, g: grad.prelu_weight(a.input, a.slope, g),
)


class Operands:
    """Arrays by name."""

    def __init__(self, **arrays: Any) -> None:
        self.__dict__.update(arrays)


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_autograd_s(name: str, layout: str, rng: np.random.Generator) -> None:
    mean, var, weight, bias = channels(rng, 6)
    x, grads = rng.standard_normal((3, 6, 4, 5)), rng.standard_normal((3, 6, 4, 5))
    arrays = {
        "input": x, "mean": mean, "var": var, "weight": weight, "bias": bias,
        "table": rng.standard_normal((4, 5)), "table2": rng.standard_normal((4, 5)),
        "slope": rng.standard_normal(1),
    }  # fmt: skip
    forward, operand, call = GRADIENTS[name]
    tensors = Operands(**{key: tensor(array, key == operand) for key, array in arrays.items()})
    forward(tensors).backward(tensor(grads))
    if layout == "last":
        for key in ("input",):
            arrays[key] = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    made = call(Operands(**arrays), grads)
    np.testing.assert_allclose(made, getattr(tensors, operand).grad.numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("op", ["batch_norm", "group_norm", "layer_norm", "softmax"])
def test_gradients_are_central_differences(op: str, rng: np.random.Generator) -> None:
    x, grads, weight = (rng.standard_normal(shape) for shape in ((2, 4, 3), (2, 4, 3), (4,)))
    calls: dict[str, tuple[Callable[[Array], Array], Array]] = {
        "batch_norm": (
            lambda x: fastconv.batch_norm(x, None, None, weight, training=True),
            grad.batch_norm_input(x, None, None, weight, grads, True),
        ),
        "group_norm": (
            lambda x: fastconv.group_norm(x, 2, weight),
            grad.group_norm_input(x, weight, grads, 2),
        ),
        "layer_norm": (
            lambda x: fastconv.layer_norm(x, 3),
            grad.layer_norm_input(x, None, grads, 3),
        ),
        "softmax": (
            lambda x: fastconv.softmax(x, 1),
            grad.softmax_input(fastconv.softmax(x, 1), grads, 1),
        ),
    }
    forward, made = calls[op]
    step, wanted = 1e-6, np.empty_like(x)
    for place in np.ndindex(*x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        high, low = (float((forward(each) * grads).sum()) for each in moved)
        wanted[place] = (high - low) / (2 * step)
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-8)


X = np.ones((2, 4, 6), np.float32)
C = np.ones(4, np.float32)
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no such axis": (lambda: fastconv.softmax(X, 3), ShapeError, "dim: got 3, want an axis of 3"),
    "no axis": (lambda: fastconv.softmax(np.float32(1)[()], 0), DTypeError, "input: got"),
    "dim": (lambda: fastconv.softmax(X, 1.0), ShapeError, "dim: got 1.0, want a whole"),
    "out": (lambda: fastconv.softmax(X, 0, out=X[:1]), ShapeError, r"out: got shape \(1, 4, 6\)"),
    "out type": (
        lambda: fastconv.softmax(X, 0, out=np.ones(X.shape)), DTypeError, "out: got float64",
    ),
    "one statistic": (
        lambda: fastconv.batch_norm(X, C, None, training=True), ArgumentError, "running_var: got",
    ),
    "no statistics": (lambda: fastconv.batch_norm(X, None, None), ArgumentError, "running_mean"),
    "mean": (lambda: fastconv.batch_norm(X, C[:3], C), ShapeError, r"running_mean: got shape \(3"),
    "mean type": (
        lambda: fastconv.batch_norm(X, C.astype(np.float64), C), DTypeError, "running_mean: got fl",
    ),
    "one value": (
        lambda: fastconv.batch_norm(X[:1, :, :1], None, None, training=True), ShapeError,
        "input: got shape",
    ),
    "one pixel": (lambda: fastconv.instance_norm(X[..., :1]), ShapeError, "input: got shape"),
    "training": (lambda: fastconv.batch_norm(X, C, C, training=1), ArgumentError, "training: got"),
    "eps": (lambda: fastconv.batch_norm(X, C, C, eps="small"), ArgumentError, "eps: got 'small'"),
    "groups": (lambda: fastconv.group_norm(X, 3), ShapeError, "num_groups: got 3 with 4 channels"),
    "few axes": (lambda: fastconv.group_norm(C, 1), ShapeError, "input: got 1 axes"),
    "sizes": (lambda: fastconv.layer_norm(X, 5), ShapeError, r"normalized_shape: got \(5,\)"),
    "weight": (lambda: fastconv.layer_norm(X, 6, C), ShapeError, r"weight: got shape \(4,\)"),
    "slopes": (lambda: fastconv.prelu(X, C[:2]), ShapeError, r"weight: got shape \(2,\)"),
    "window": (lambda: fastconv.local_response_norm(X, 0), ShapeError, "size: got 0"),
    "plane": (lambda: fastconv.local_response_norm(X[0], 3), ShapeError, "input: got 2 axes"),
    "read-only": (
        lambda: fastconv.batch_norm(X, np.broadcast_to(C[:1], 4), C, training=True), ShapeError,
        "running_mean: got a",
    ),
    "gradient": (
        lambda: grad.group_norm_input(X, None, X[:1], 2), ShapeError, "grad_output: got shape",
    ),
    "gradient's axis": (lambda: grad.softmax_input(X, X, 5), ShapeError, "dim: got 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name: str) -> None:
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


#: Calls and gradients of an array that may be empty, of 4 channels.
EMPTY: dict[str, Callable[[Array], Array]] = {
    "softmax": lambda x: fastconv.softmax(x, 1),
    "log_softmax": lambda x: fastconv.log_softmax(x, -1),
    "batch_norm": lambda x: fastconv.batch_norm(x, C, C),
    "batch_norm, training": lambda x: fastconv.batch_norm(x, None, None, training=True),
    "group_norm": lambda x: fastconv.group_norm(x, 2),
    "instance_norm": fastconv.instance_norm,
    "prelu": lambda x: fastconv.prelu(x, C),
    "local_response_norm": lambda x: fastconv.local_response_norm(x, 3),
    "batch_norm_input": lambda x: grad.batch_norm_input(x, None, None, C, x, training=True),
    "batch_norm_input, given": lambda x: grad.batch_norm_input(x, C, C, C, x),
    "group_norm_input": lambda x: grad.group_norm_input(x, C, x, 2),
    "instance_norm_input": lambda x: grad.instance_norm_input(x, C, x),
    "prelu_input": lambda x: grad.prelu_input(x, C, x),
    "local_response_norm_input": lambda x: grad.local_response_norm_input(x, x, 3),
}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("shape", [(0, 4, 5, 6), (2, 4, 0), (2, 4, 0, 6), (2, 4, 3, 1, 0, 2)])
def test_an_empty_array_gives_one(name: str, shape: tuple[int, ...]) -> None:
    made = EMPTY[name](np.empty(shape, X.dtype))
    assert made.shape == shape and made.dtype == X.dtype


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(0, 4, 5, 6), (2, 4, 0)])
def test_parameters_of_an_empty_array_have_no_gradient(shape: tuple[int, ...]) -> None:
    none = np.empty(shape, X.dtype)
    gradients = (
        grad.batch_norm_weight(none, None, None, none, training=True),
        grad.batch_norm_weight(none, C, C, none), grad.batch_norm_bias(none),
        grad.group_norm_weight(none, none, 2), grad.instance_norm_weight(none, none),
        grad.prelu_weight(none, C, none),
    )  # fmt: skip
    for made in gradients:
        np.testing.assert_array_equal(made, np.zeros(4, X.dtype))


def test_nothing_along_the_axis_and_no_channels() -> None:
    none = np.empty((2, 0), np.float32)
    assert fastconv.softmax(none, 1).shape == (2, 0)
    assert fastconv.prelu(none[0], C[:1].astype(np.float32)).shape == (0,)


#: An empty array's calls whose other arguments do not fit.
BAD_EMPTY: dict[str, tuple[Callable[[Array], Any], type[Exception], str]] = {
    "out": (lambda x: fastconv.layer_norm(x, 6, out=X), ShapeError, "out: got shape"),
    "out's type": (lambda x: fastconv.layer_norm(x, 6, out=[x]), DTypeError, "out: got list"),
    "eps": (lambda x: fastconv.layer_norm(x, 6, eps="1"), ArgumentError, "eps: got '1'"),
    "weight's type": (
        lambda x: fastconv.layer_norm(x, 6, np.ones(6, np.float16)), DTypeError,
        "weight: got float16",
    ),
    "gradient's out": (
        lambda x: grad.layer_norm_input(x, None, x, 6, out=X), ShapeError, "out: got shape",
    ),
    "gradient's groups": (
        lambda x: grad.group_norm_input(x, None, x, 3), ShapeError, "num_groups: got 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_EMPTY)
def test_bad_arguments_beside_an_empty_array_are_named(name: str) -> None:
    call, error, message = BAD_EMPTY[name]
    with pytest.raises(error, match=message):
        call(X[:0])
    assert fastconv.layer_norm(X[:0], 6).shape == X[:0].shape
