"""What a sparse tensor holds, how it is made, and how it shares its rulebooks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fastconv import sparse
from fastconv.sparse import SparseTensor
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
