"""Sparse tensors joined and taken apart, against dictionaries of sites; gradients by adjoints."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import sparse
from fastconv.array_libraries import EmulatedArray
from fastconv.contract.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from fastconv.kernels.reference import sparse_sets as reference
from fastconv.sparse import SparseTensor, parts, set_grad, sets
from helpers import DTYPES
from sparse_helpers import random_tensor, whole

Array = np.ndarray[Any, Any]
SHAPES = {1: (40,), 2: (9, 7), 3: (5, 4, 6), 4: (4, 3, 3, 2)}
OPERATIONS = ("add", "subtract", "multiply", "concat")


def pair(
    rng: np.random.Generator, ndim: int, dtype: str = "float32"
) -> tuple[SparseTensor, SparseTensor]:
    x, y = (random_tensor(rng, SHAPES[ndim], 3, share=0.4, dtype=dtype) for _ in range(2))
    return x, y


@pytest.mark.parametrize("module", [sets, parts, set_grad])
def test_the_examples_run(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0


def by_site(x: SparseTensor) -> reference.Values:
    return reference.values(x.indices, x.features)


def assert_same(x: SparseTensor, expected: reference.Values) -> None:
    found = by_site(x)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[site], row) for site, row in expected.items())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize("name", OPERATIONS)
def test_values(name: str, ndim: int, dtype: str, rng: np.random.Generator) -> None:
    x, y = pair(rng, ndim, dtype)
    made = getattr(sparse, name)(x, y)
    assert_same(made, getattr(reference, name)(by_site(x), by_site(y)))
    assert made.dtype == x.dtype and made.batch_size == 2 and made.spatial_shape == SHAPES[ndim]


@pytest.mark.parametrize("ndim", [1, 3])
def test_a_union_has_the_rows_of_the_first_first(ndim: int, rng: np.random.Generator) -> None:
    x, y = pair(rng, ndim)
    a, b = sparse.union(x, y)
    assert np.array_equal(a.indices, b.indices)
    assert np.array_equal(a.indices[: len(x)], x.indices)
    known = {tuple(site) for site in x.indices.tolist()}
    fresh = [site for site in y.indices.tolist() if tuple(site) not in known]
    assert a.indices[len(x) :].tolist() == fresh
    assert np.array_equal(sparse.concat(x, y).features, np.hstack([a.features, b.features]))
    assert_same(sparse.add(a, b), reference.add(by_site(x), by_site(y)))


@pytest.mark.parametrize("turned", [False, True])
def test_sites_that_one_tensor_has_keep_its_rulebooks(
    turned: bool, rng: np.random.Generator
) -> None:
    x = random_tensor(rng, (9, 7), 3)
    sparse.subm_conv(x, whole(rng, (3, 3, 3, 3)), indice_key="k")
    part = sparse.prune(x, rng.random(len(x)) < 0.5)
    assert not part.rulebooks
    total = sparse.add(part, x) if turned else sparse.add(x, part)
    assert np.array_equal(total.indices, x.indices) and list(total.rulebooks) == ["k"]
    sparse.subm_conv(total, whole(rng, (3, 3, 3, 3)), indice_key="k")
    assert_same(total, reference.add(by_site(x), by_site(part)))


def test_the_same_sites_are_not_compared(rng: np.random.Generator) -> None:
    x = random_tensor(rng, (9, 7), 3)
    y = x.replace(whole(rng, x.features.shape))
    assert np.array_equal(sparse.add(x, y).features, x.features + y.features)
    assert np.array_equal(sparse.multiply(x, y).features, x.features * y.features)
    assert sparse.add(x, y).rulebooks == x.rulebooks


def empty(x: SparseTensor) -> SparseTensor:
    return sparse.prune(x, np.zeros(len(x), bool))


def test_tensors_without_a_site(rng: np.random.Generator) -> None:
    x = random_tensor(rng, (9, 7), 3)
    nothing = empty(x)
    assert_same(sparse.add(x, nothing), by_site(x))
    assert_same(sparse.add(nothing, x), by_site(x))
    assert np.array_equal(sparse.subtract(nothing, x).features, -x.features)
    assert len(sparse.multiply(x, nothing)) == len(sparse.add(nothing, empty(x))) == 0
    grads = sparse.grad.multiply_inputs(x, nothing, np.zeros((0, 3), np.float32))
    assert not grads[0].any() and grads[1].shape == (0, 3)


def test_prune_and_crop(rng: np.random.Generator) -> None:
    x = random_tensor(rng, (9, 7, 5), 3)
    mask = rng.random(len(x)) < 0.5
    kept = sparse.prune(x, mask)
    assert np.array_equal(kept.indices, x.indices[mask])
    assert np.array_equal(kept.features, x.features[mask])
    box = sparse.crop(x, (2, 0, 1), (9, 4, 3))
    assert box.spatial_shape == (7, 4, 2) and box.batch_size == x.batch_size
    assert np.array_equal(box.dense(), x.dense()[:, :, 2:9, 0:4, 1:3])


def test_batches(rng: np.random.Generator) -> None:
    x = random_tensor(rng, (9, 7), 3, batch_size=4)
    x = sparse.prune(x, x.indices[:, 0] != 2)
    parts = sparse.split_batch(x)
    assert [part.batch_size for part in parts] == [1] * 4 and len(parts[2]) == 0
    joined = sparse.join_batch(parts)
    assert joined.batch_size == 4 and np.array_equal(joined.dense(), x.dense())
    twice = sparse.join_batch([x, x])
    assert np.array_equal(twice.dense(), np.concatenate([x.dense(), x.dense()]))


def emulated(x: SparseTensor) -> SparseTensor:
    """The same tensor in what stands for a GPU's memory."""
    parts = EmulatedArray(x.features), EmulatedArray(x.indices.copy())
    return SparseTensor(*parts, x.spatial_shape, x.batch_size)


def plain(made: Any) -> Any:
    """The arrays of a result, in the host's memory."""
    if isinstance(made, (list, tuple)):
        return [plain(each) for each in made]
    if isinstance(made, SparseTensor):
        return [plain(made.features), plain(made.indices)]
    assert isinstance(made, EmulatedArray)
    return made.copy_to_host()


@pytest.mark.parametrize("name", [*OPERATIONS, "union", "prune", "crop", "split_batch", "join"])
def test_on_a_gpu_results_stay_there(name: str, rng: np.random.Generator) -> None:
    x, y = pair(rng, 2)
    mask = rng.random(len(x)) < 0.5
    calls: dict[str, Callable[..., Any]] = {
        "prune": lambda a, _: sparse.prune(a, mask),
        "crop": lambda a, _: sparse.crop(a, 1, 5),
        "split_batch": lambda a, _: sparse.split_batch(a),
        "join": lambda a, b: sparse.join_batch([a, b]),
    }
    call = calls.get(name) or getattr(sparse, name)
    made, expected = plain(call(emulated(x), emulated(y))), call(x, y)
    parts = expected if isinstance(expected, (list, tuple)) else [expected]
    found = made if isinstance(expected, (list, tuple)) else [made]
    for arrays, part in zip(found, parts, strict=True):
        assert np.array_equal(arrays[0], part.features)
        assert np.array_equal(arrays[1], part.indices)


def test_gradients_stay_on_a_gpu(rng: np.random.Generator) -> None:
    x, y = pair(rng, 2)
    grads = whole(rng, sparse.add(x, y).features.shape)
    made = plain(sparse.grad.add_inputs(emulated(x), emulated(y), EmulatedArray(grads)))
    for found, expected in zip(made, sparse.grad.add_inputs(x, y, grads), strict=True):
        assert np.array_equal(found, expected)
    with pytest.raises(DeviceError, match="y: got an array elsewhere"):
        sparse.add(emulated(x), y)


def inner(x: Any, y: Any) -> float:
    return float(np.vdot(np.float64(x), np.float64(y)))


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_of_two_tensors(name: str, rng: np.random.Generator) -> None:
    """All are linear in each tensor: what a step changes is its product with the gradient."""
    x, y = pair(rng, 2)
    operation = getattr(sparse, name)
    out = operation(x, y)
    grads = whole(rng, out.features.shape)
    of_x, of_y = getattr(sparse.grad, f"{name}_inputs")(x, y, grads)
    step_x, step_y = whole(rng, x.features.shape), whole(rng, y.features.shape)
    moved_x = operation(x.replace(x.features + step_x), y).features - out.features
    moved_y = operation(x, y.replace(y.features + step_y)).features - out.features
    assert inner(grads, moved_x) == inner(of_x, step_x)
    assert inner(grads, moved_y) == inner(of_y, step_y)
    assert of_x.flags.c_contiguous and of_y.flags.c_contiguous


def test_gradients_of_a_union(rng: np.random.Generator) -> None:
    x, y = pair(rng, 2)
    a, b = sparse.union(x, y)
    grad_a, grad_b = whole(rng, a.features.shape), whole(rng, b.features.shape)
    of_x, of_y = sparse.grad.union_inputs(x, y, grad_a, grad_b)
    assert inner(grad_a, a.features) == inner(of_x, x.features)
    assert inner(grad_b, b.features) == inner(of_y, y.features)


def test_gradients_of_parts(rng: np.random.Generator) -> None:
    x = random_tensor(rng, (9, 7), 3, batch_size=3)
    mask = rng.random(len(x)) < 0.5
    kept, box, parts = sparse.prune(x, mask), sparse.crop(x, 2, 6), sparse.split_batch(x)
    grads = whole(rng, kept.features.shape)
    assert inner(sparse.grad.prune_input(x, mask, grads), x.features) == inner(grads, kept.features)
    grads = whole(rng, box.features.shape)
    assert inner(sparse.grad.crop_input(x, 2, 6, grads), x.features) == inner(grads, box.features)
    each = [whole(rng, part.features.shape) for part in parts]
    total = sum(inner(grad, part.features) for grad, part in zip(each, parts, strict=True))
    assert inner(sparse.grad.split_batch_input(x, each), x.features) == total
    joined = sparse.join_batch(parts)
    grads = whole(rng, joined.features.shape)
    back = sparse.grad.join_batch_inputs(parts, grads)
    assert np.array_equal(np.concatenate(back), grads)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_same_bits_with_any_threads(name: str, rng: np.random.Generator) -> None:
    x, y = (
        each.replace(rng.standard_normal(each.features.shape).astype(np.float32))
        for each in (random_tensor(rng, (60, 50), 8) for _ in range(2))
    )
    before, made = fastconv.get_num_threads(), []
    for threads in (1, 2):
        fastconv.set_num_threads(threads)
        made.append(getattr(sparse, name)(x, y))
    fastconv.set_num_threads(before)
    assert made[0].features.tobytes() == made[1].features.tobytes()
    assert made[0].indices.tobytes() == made[1].indices.tobytes()


X = SparseTensor(np.ones((2, 3), np.float32), [[0, 1], [1, 4]], (8,))
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no tensor": (lambda: sparse.add(np.ones(3), X), DTypeError, "x: got ndarray, want"),
    "no other": (lambda: sparse.add(X, np.ones(3)), DTypeError, "y: got ndarray, want"),
    "grid": (lambda: sparse.add(X, SparseTensor(X.features, X.indices, (9,))), ShapeError,
             r"y: got a grid of \(9,\), want \(8,\)"),
    "batch": (lambda: sparse.union(X, SparseTensor(X.features, X.indices, (8,), 3)), ShapeError,
              "y: got batch_size=3, want 2"),
    "channels": (lambda: sparse.multiply(X, X.replace(X.features[:, :2])), ShapeError,
                 "y: got 2 channels, want 3"),
    "type": (lambda: sparse.concat(X, X.replace(X.features.astype(np.float64))), DTypeError,
             "y: got float64, want float32"),
    "mask": (lambda: sparse.prune(X, np.array([0, 1])), DTypeError, "mask: got int64, want bool"),
    "mask shape": (lambda: sparse.prune(X, np.ones(3, bool)), ShapeError,
                   r"mask: got shape \(3,\), want \(2,\)"),
    "low": (lambda: sparse.crop(X, -1, 5), ShapeError, r"low: got \(-1,\)"),
    "high": (lambda: sparse.crop(X, 2, 9), ShapeError, r"high: got \(9,\) with low=\(2,\)"),
    "empty box": (lambda: sparse.crop(X, 2, 2), ShapeError, r"high: got \(2,\)"),
    "axes": (lambda: sparse.crop(X, (1, 2), 5), ShapeError, "low: got"),
    "no list": (lambda: sparse.join_batch([]), ShapeError, r"tensors: got \[\], want a list"),
    "no batch": (lambda: sparse.join_batch(X), ShapeError, "tensors: got SparseTensor"),
    "joined": (lambda: sparse.join_batch([X, SparseTensor(X.features, X.indices, (9,))]),
               ShapeError, r"tensors\[1\]: got a grid of \(9,\)"),
    "rows": (lambda: sparse.grad.add_inputs(X, X, np.ones((3, 3), np.float32)), ShapeError,
             r"grad_output: got shape \(3, 3\), want \(2, 3\)"),
    "gradient type": (lambda: sparse.grad.prune_input(X, [True, True], np.ones((2, 3))), DTypeError,
                      "grad_output: got float64, want float32"),
    "gradients": (lambda: sparse.grad.split_batch_input(X, []), ShapeError,
                  "grad_outputs: got 0 arrays, want 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, words = BAD[name]
    with pytest.raises(error, match=words):
        call()


def test_a_batch_that_cannot_be_counted() -> None:
    wide = SparseTensor(np.ones((1, 1), np.float32), [[0, 0, 0]], (2**31 - 1, 2**31 - 1), 2)
    with pytest.raises((ShapeError, ArgumentError), match="want at most 2\\*\\*63"):
        sparse.join_batch([wide] * 2)
