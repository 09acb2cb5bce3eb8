"""What a sparse tensor holds, how it is made, and how it shares its rulebooks."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fastconv import sparse
from fastconv.array_libraries import EmulatedArray
from fastconv.contract.errors import ShapeError
from fastconv.sparse import SparseTensor, nn
from helpers import assert_exact
from sparse_helpers import random_sites, random_tensor, whole


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i8"])
def test_any_integer_type_of_indices(dtype: str) -> None:
    sites = np.array([[0, 3, 5], [1, 0, 0]])
    x = SparseTensor(np.ones((2, 1), np.float32), sites.astype(dtype), (8, 8))
    assert x.indices.dtype == np.int32 and np.array_equal(x.indices, sites)
    assert x.batch_size == 2


def test_from_dense_and_back(rng: np.random.Generator) -> None:
    for ndim in (1, 2, 3, 4):
        dense = whole(rng, (2, 3, *(5, 4, 3, 6)[:ndim])) * (rng.random((2, 1, *(1,) * ndim)) < 2)
        dense[:, :, 1] = 0
        x = SparseTensor.from_dense(dense)
        assert np.array_equal(x.dense(), dense)
        assert len(x) == int((dense != 0).any(1).sum())
        assert np.array_equal(x.features, x.replace(x.features).features)


@pytest.mark.parametrize("how", ["sum", "mean", "max", "first"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_duplicates_are_joined(how: str, dtype: str, rng: np.random.Generator) -> None:
    sites = random_sites(rng, (6, 5), 2, 0.5)
    sites = np.concatenate([sites, sites[::2], sites[::3]])
    features = whole(rng, (len(sites), 3), dtype)
    x = SparseTensor(features, sites, (6, 5), 2, duplicates=how)
    unique = np.unique(sites, axis=0)
    assert np.array_equal(x.indices, unique)
    for row, site in enumerate(unique):
        group = features[(sites == site).all(1)].astype(np.float64)
        truth = {"sum": group.sum(0), "mean": group.mean(0), "max": group.max(0)}.get(how, group[0])
        assert_exact(x.features[row], truth)


def test_rulebooks_are_shared_by_name(rng: np.random.Generator) -> None:
    x = random_tensor(rng, (9, 9), 4)
    w = whole(rng, (4, 4, 3, 3))
    y = sparse.subm_conv(x, w, indice_key="subm")
    book = x.rulebooks["subm"]
    z = sparse.subm_conv(y.replace(np.maximum(y.features, 0)), w, indice_key="subm")
    assert z.rulebooks["subm"] is book and list(x.rulebooks) == ["subm"]
    explicit = sparse.subm_conv(x, w, rulebook=book)
    assert np.array_equal(explicit.features, y.features)
    fresh = SparseTensor(x.features, x.indices, (9, 9), 2)
    assert np.array_equal(sparse.subm_conv(fresh, w, rulebook=book).features, y.features)
    assert not fresh.rulebooks


def test_a_tensor_is_a_value(rng: np.random.Generator) -> None:
    sites = random_sites(rng, (10, 10), 2, 0.5).astype(np.int32)
    x = SparseTensor(whole(rng, (len(sites), 2)), sites, (10, 10), 2)
    kept = x.indices.copy()
    sites[...] = 0
    assert np.array_equal(x.indices, kept)
    with pytest.raises(ValueError, match="read-only"):
        x.indices[0] = 1
    with pytest.raises(AttributeError):
        x.features = None  # type: ignore[misc]
    assert repr(x) == f"SparseTensor({len(x)} sites of 2 x 10x10 (50%), 2 channels, float32, NumPy)"


def test_importing_loads_no_compiler() -> None:
    program = (
        "import sys, fastconv; fastconv.sparse; fastconv.sparse.SparseTensor;"
        "fastconv.sparse.nn.SubMConv3d; fastconv.sparse.grad; fastconv.sparse.subm_conv;"
        "sys.exit(bool({'numba', 'llvmlite', 'torch', 'cupy', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_compute_the_same(how: Any, rng: np.random.Generator) -> None:
    """Of a tensor after keyed calls, of its rulebooks, and of layers that have packed a weight."""
    x = random_tensor(rng, (9, 9), 4)
    layers = [
        nn.SubMConv2d(4, 5, 3, indice_key="subm", activation="relu").load(
            whole(rng, (5, 3, 3, 4)), whole(rng, (5,))
        ),
        nn.SparseConv2d(5, 5, 3, 2, [1, 1], groups=5, bias=False, indice_key="down").load(
            whole(rng, (5, 3, 3, 1))
        ),
        nn.SparseMaxPool2d(2, indice_key="pool"),
    ]
    net = nn.SparseSequential(*layers)
    truth = net(x)
    net_again, again = how((net, x))
    if how is not copy.copy:
        assert again is not x and again.rulebooks["down"].pairs == x.rulebooks["down"].pairs
        assert again.rulebooks["subm"].in_indices.base is again.indices.base
    for network, tensor in ((net_again, again), (net_again, x), (net, again)):
        found = network(tensor)
        assert np.array_equal(found.features, truth.features)
        assert np.array_equal(found.indices, truth.indices)
        assert list(tensor.rulebooks) == ["subm", "down", "pool"]
    book, back = how((x.rulebooks["down"], x.rulebooks["down"].reverse()))
    assert np.array_equal(book.reverse().neighbours, back.neighbours) and back.is_reversed
    with pytest.raises(ValueError, match="read-only"):
        again.indices[0] = 1


def test_a_copy_goes_its_own_way(rng: np.random.Generator) -> None:
    x = random_tensor(rng, (9, 9), 4)
    other = copy.deepcopy(x)
    other.features[...] = 0
    sparse.sparse_max_pool(other, 2, indice_key="pool")
    assert x.features.any() and not x.rulebooks
    layer = nn.SubMConv2d(4, 5, 3, bias=False).load(whole(rng, (5, 3, 3, 4)))
    truth = layer(x).features
    copied = pickle.loads(pickle.dumps(layer))
    with pytest.raises(ValueError, match="read-only"):
        copied.weight[...] = 0
    assert np.array_equal(copied(x).features, truth)


def test_a_pickle_is_checked_as_what_a_caller_gives(rng: np.random.Generator) -> None:
    book = sparse.make_rulebook(random_tensor(rng, (9, 9), 4), 3)
    restore, parts = book.__reduce__()
    with pytest.raises(ShapeError, match="neighbours: got 99999"):
        restore(*parts[:3], np.full(book.neighbours.shape, 99999, np.int32), *parts[4:])


def strides_of_one(array: np.ndarray) -> list[np.ndarray]:
    """The same elements with every kind of stride on its axes of length 1."""
    found = [array]
    for step in (0, 1, -8, 2**40, -(2**62), 2**63 - 1):
        strides = [step if size == 1 else old for size, old in
                   zip(array.shape, array.strides, strict=True)]  # fmt: skip
        found.append(np.lib.stride_tricks.as_strided(array, array.shape, strides))
    return found


@pytest.mark.parametrize("emulated", [False, True], ids=["host", "device"])
@pytest.mark.parametrize(
    ("channels", "filters", "groups", "kernel"),
    [(1, 1, 1, (3, 3)), (4, 1, 1, (3, 1)), (1, 5, 1, (1, 1)), (6, 6, 6, (1, 3)), (4, 2, 2, (1, 1))],
)
def test_strides_of_axes_of_length_1_mean_nothing(
    channels: int, filters: int, groups: int, kernel: tuple[int, int], emulated: bool,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    if emulated:
        pytest.importorskip("numba_cuda")
    wrap: Any = EmulatedArray if emulated else np.asarray
    sites = random_sites(rng, (6, 7), 2, 0.3)
    for count in (1, len(sites)):
        features = whole(rng, (count, channels))
        weight = whole(rng, (filters, channels // groups, *kernel))
        truth = None
        grads = whole(rng, (count, filters))
        book = None
        for rows, taps, back in zip(*map(strides_of_one, (features, weight, grads)), strict=True):
            x = SparseTensor(wrap(rows), wrap(sites[:count]), (6, 7), 2)
            book = sparse.make_rulebook(x, kernel) if book is None else book
            y = sparse.subm_conv(x, wrap(taps), groups=groups, rulebook=book)
            layer = nn.SubMConv2d(channels, filters, kernel, groups=groups, bias=False)
            arrays = [
                y.features,
                layer.load(wrap(taps), weight_layout="KCRS")(x).features,
                sparse.sparse_max_pool(x, 2).features,
                sparse.global_avg_pool(x),
                sparse.grad.conv_input(book, wrap(taps), wrap(back), groups),
                sparse.grad.conv_weight(book, wrap(rows), wrap(back), groups),
            ]
            found = [np.array(each.memory if emulated else each) for each in arrays]
            truth = found if truth is None else truth
            for one, other in zip(found, truth, strict=True):
                assert_exact(one, other)


def test_one_layer_for_tensors_and_weights_in_turn(rng: np.random.Generator) -> None:
    """A layer keeps packed weights and plans: none of them is taken for another one's."""
    layer = nn.SubMConv2d(4, 4, (3, 1), bias=False, groups=2)
    for _ in range(2):
        for dtype in ("float32", "float64", "float16", "bfloat16"):
            weight = whole(rng, (4, 2, 3, 1), dtype)
            for layout, given in (
                ("KCRS", weight), ("KRSC", weight.transpose(0, 2, 3, 1)),
                ("KCRS", np.asfortranarray(weight)), ("KCRS", weight[::-1][::-1]),
                ("KRSC", np.ascontiguousarray(weight.transpose(0, 2, 3, 1))),
            ):  # fmt: skip
                layer.load(given, weight_layout=layout)
                for size, share in ((5, 0.1), (9, 0.5), (5, 0.9)):
                    x = random_tensor(rng, (size, size), 4, dtype=dtype, share=share)
                    for each in (x, x.replace(np.asfortranarray(x.features))):
                        truth = sparse.subm_conv(each, weight, groups=2).features
                        assert_exact(layer(each).features, truth)
