"""The sparse operators on arrays of a GPU, in the emulator where there is none."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import sparse
from fastconv.array_libraries import EmulatedArray
from fastconv.sparse import SparseTensor, nn
from sparse_helpers import random_sites, random_tensor, whole

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)
on_gpu = EmulatedArray


def twins(rng: np.random.Generator, channels: int) -> tuple[SparseTensor, SparseTensor]:
    """The same tensor on the CPU and on the device."""
    x = random_tensor(rng, (5, 6, 4), channels)
    return x, SparseTensor(on_gpu(x.features), on_gpu(x.indices), x.spatial_shape, 2)


def assert_same(found: SparseTensor, expected: SparseTensor) -> None:
    assert isinstance(found.features, EmulatedArray) and isinstance(found.indices, EmulatedArray)
    assert np.array_equal(found.indices.memory, expected.indices)
    assert np.array_equal(found.features.memory, expected.features)
    assert found.spatial_shape == expected.spatial_shape


def test_a_tensor_lives_where_its_features_do(rng: np.random.Generator) -> None:
    x, there = twins(rng, 3)
    assert repr(there).endswith("emulated)")
    assert np.array_equal(there.dense().memory, x.dense())
    assert_same(SparseTensor.from_dense(on_gpu(x.dense())), SparseTensor.from_dense(x.dense()))
    sites = np.concatenate([x.indices, x.indices])
    rows = np.concatenate([x.features, x.features])
    joined = SparseTensor(on_gpu(rows), on_gpu(sites), x.spatial_shape, 2, duplicates="sum")
    assert_same(joined, SparseTensor(rows, sites, x.spatial_shape, 2, duplicates="sum"))


@pytest.mark.parametrize("kind", ["subm_conv", "sparse_conv", "sparse_conv_transpose"])
@pytest.mark.parametrize(("channels", "groups"), [((5, 7), 1), ((6, 6), 6), ((4, 6), 2)])
def test_convolutions(
    kind: str, channels: tuple[int, int], groups: int, rng: np.random.Generator
) -> None:
    x, there = twins(rng, channels[0])
    w, b = whole(rng, (channels[1], channels[0] // groups, 3, 2, 3)), whole(rng, channels[1:])
    more: dict[str, Any] = {"groups": groups, "activation": "relu"}
    if kind != "subm_conv":
        more |= {"stride": 2, "padding": 1}
    function = getattr(sparse, kind)
    expected = function(x, w, b, **more)
    assert_same(function(there, on_gpu(w), on_gpu(b), **more), expected)
    krsc = np.ascontiguousarray(np.moveaxis(w, 1, -1))
    assert_same(function(there, on_gpu(krsc), on_gpu(b), weight_layout="KRSC", **more), expected)


def test_down_and_back_by_layers(rng: np.random.Generator) -> None:
    x, there = twins(rng, 4)
    w, back = whole(rng, (6, 3, 3, 3, 4)), whole(rng, (4, 3, 3, 3, 6))

    def net(move: Any) -> nn.SparseSequential:
        return nn.SparseSequential(
            nn.SparseConv3d(4, 6, 3, 2, 1, bias=False, indice_key="down").load(move(w)),
            nn.SparseInverseConv3d(6, 4, 3, "down", bias=False).load(move(back)),
        )

    assert_same(net(on_gpu)(there), net(np.asarray)(x))
    assert list(there.rulebooks) == ["down"]
    explained = fastconv.explain(net(on_gpu)[0], there)
    assert {row.kernel.partition(".")[0] for row in explained.rows} == {"cuda"}


def test_pools(rng: np.random.Generator) -> None:
    x, there = twins(rng, 5)
    assert_same(sparse.sparse_max_pool(there, 2), sparse.sparse_max_pool(x, 2))
    found, expected = (sparse.sparse_avg_pool(each, 2) for each in (there, x))
    np.testing.assert_allclose(found.features.memory, expected.features, rtol=0, atol=1e-6)
    for function in (sparse.global_max_pool, sparse.global_avg_pool):
        np.testing.assert_allclose(function(there).memory, function(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients(groups: int, rng: np.random.Generator) -> None:
    x, there = twins(rng, 4)
    w = whole(rng, (6, 4 // groups, 3, 3, 3))
    books = [sparse.make_rulebook(each, 3, 2, 1, kind="regular") for each in (x, there)]
    grads = whole(rng, (books[0].out_rows, 6))
    grad = sparse.grad
    for layout in ("KCRS", "KRSC"):
        found = grad.conv_weight(
            books[1], there.features, on_gpu(grads), groups, weight_layout=layout
        )
        expected = grad.conv_weight(books[0], x.features, grads, groups, weight_layout=layout)
        assert np.array_equal(found.memory, expected)
    found = grad.conv_input(books[1], on_gpu(w), on_gpu(grads), groups)
    assert np.array_equal(found.memory, grad.conv_input(books[0], w, grads, groups))
    assert np.array_equal(grad.conv_bias(on_gpu(grads)).memory, grads.sum(0))


def test_gradients_of_global_pools(rng: np.random.Generator) -> None:
    x, there = twins(rng, 4)
    largest = sparse.global_max_pool(x)
    grads, grad = whole(rng, largest.shape), sparse.grad
    found = grad.global_max_pool_input(there, on_gpu(largest), on_gpu(grads))
    assert np.array_equal(found.memory, grad.global_max_pool_input(x, largest, grads))
    found = grad.global_avg_pool_input(there, on_gpu(grads))
    assert np.array_equal(found.memory, grad.global_avg_pool_input(x, grads))


def test_an_empty_tensor() -> None:
    none = SparseTensor(on_gpu(np.zeros((0, 3), np.float32)), on_gpu(np.zeros((0, 3), int)), (8, 8))
    w = on_gpu(np.ones((4, 3, 3, 3), np.float32))
    assert sparse.subm_conv(none, w).features.shape == (0, 4)
    assert sparse.sparse_conv(none, w, stride=2).indices.shape == (0, 3)


def test_sites_on_a_device_are_checked(rng: np.random.Generator) -> None:
    sites = random_sites(rng, (4, 4), 1, 0.5)
    sites[1] = sites[0]
    with pytest.raises(
        fastconv.ShapeError, match=r"indices: got the site .* in row 0 and in row 1"
    ):
        SparseTensor(on_gpu(whole(rng, (len(sites), 2))), on_gpu(sites), (4, 4))
