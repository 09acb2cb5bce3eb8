"""What a tensor of spconv's name holds, its rulebooks, sums of several, and bad input."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import fastconv.spconv.pytorch as spconv  # noqa: E402
from fastconv.contract.errors import (  # noqa: E402
    ArgumentError,
    DeviceError,
    DTypeError,
    ShapeError,
)
from spconv_helpers import order_of, random_parts  # noqa: E402

SHAPE = (9, 8, 7)


@pytest.mark.parametrize("name", ["", ".core", ".functional", ".modules", ".utils", ".weights"])
def test_the_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"fastconv.spconv.pytorch{name}"))
    assert result.attempted > 0 and result.failed == 0


@pytest.fixture
def x(rng: np.random.Generator) -> Any:
    features, sites = random_parts(rng, SHAPE, 4, 0.2)
    return spconv.SparseConvTensor(features, sites, list(SHAPE), 2)


def test_neither_pytorch_nor_spconv_is_loaded_before() -> None:
    code = (
        "import sys, fastconv, fastconv.spconv\n"
        "assert 'torch' not in sys.modules\n"
        "import fastconv.spconv.pytorch\n"
        "assert 'torch' in sys.modules and 'spconv' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_in_the_modules_that_spconv_has_them_in() -> None:
    """Those that fastconv has; `tables`, `utils` and others hold names that spconv's do not."""
    theirs = pytest.importorskip("spconv.pytorch", reason="spconv is not installed")
    for module in ("conv", "core", "functional", "modules", "pool", "tables", "utils"):
        like = importlib.import_module(f"spconv.pytorch.{module}")
        ours = importlib.import_module(f"fastconv.spconv.pytorch.{module}")
        missing = {
            name for name, value in vars(like).items()
            if isinstance(value, type) and issubclass(value, torch.nn.Module)
            and value.__module__ == like.__name__ and not hasattr(ours, name)
        }  # fmt: skip
        assert missing <= {
            "PrintCurrentTime", "PrintTensorMeta", "SparseGlobalMaxOrAvgPool",
            "SparseSyncBatchNorm",
        }  # fmt: skip
    assert {name for name in spconv.__all__ if not hasattr(theirs, name)} | {"hash"} == {
        "Activation", "SparseAvgPool4d", "hash", "load_state_dict"
    }  # fmt: skip


def test_dense_and_back(x: Any) -> None:
    dense = x.dense()
    assert dense.shape == (2, 4, *SHAPE)
    last = x.dense(channels_first=False)
    assert torch.equal(last.movedim(-1, 1), dense)
    back = spconv.SparseConvTensor.from_dense(last)
    assert back.spatial_shape == list(SHAPE) and back.batch_size == 2
    assert torch.equal(back.indices, x.indices[order_of(x)])
    assert torch.equal(back.features, x.features[order_of(x)])
    assert torch.equal(spconv.ToDense()(x), dense)


def test_dense_has_a_gradient(x: Any) -> None:
    features = x.features.requires_grad_()
    for first in (True, False):
        (x.dense(first) * 2).sum().backward()
        assert torch.equal(features.grad, torch.full_like(features, 2))
        features.grad = None


def test_arithmetic(x: Any) -> None:
    assert torch.equal((x + x).features, 2 * x.features)
    assert torch.equal((x + x.features).features, 2 * x.features)
    assert torch.equal((3.0 * x - x).features, 3 * x.features - x.features)
    assert torch.equal((x * x).features, x.features**2)
    assert torch.equal(x.minus().features, -x.features)
    total = x
    total += x
    assert torch.equal(total.features, 2 * x.features)


def test_tensors_with_other_sites_are_added_by_site(x: Any) -> None:
    part = x.select_by_index(torch.arange(len(x.features) - 1, -1, -2))
    features, sites = random_parts(np.random.default_rng(1), SHAPE, 4, 0.1)
    other = spconv.SparseConvTensor(features, sites, SHAPE, 2)
    for one, two in ((x, part), (part, x), (x, other), (other, x)):
        assert torch.equal((one + two).dense(), one.dense() + two.dense())
        assert torch.equal((one * two).dense(), one.dense() * two.dense())
    three = spconv.functional.sparse_add(x, part, other)
    assert torch.equal(three.dense(), x.dense() + part.dense() + other.dense())


def test_sums_keep_the_rulebooks_of_all_sites(x: Any) -> None:
    y = spconv.SubMConv3d(4, 4, 3, indice_key="subm")(x)
    part = y.select_by_index(torch.arange(0, len(y.features), 2))
    assert not part.indice_dict and "subm" in y.indice_dict
    for total in (y + part, part + y):
        assert total.find_indice_pair("subm") is y.find_indice_pair("subm")
        assert torch.equal(total.indices, y.indices)


def test_gradients_of_sums(x: Any) -> None:
    features, sites = random_parts(np.random.default_rng(1), SHAPE, 4, 0.1)
    mine, other = x.features.requires_grad_(), features.requires_grad_()
    y = spconv.SparseConvTensor(other, sites, SHAPE, 2)
    factors = torch.randn(x.dense().shape)
    for sparse, dense in (
        ((x + y).dense(), x.dense() + y.dense()), ((x * y).dense(), x.dense() * y.dense())
    ):  # fmt: skip
        found = torch.autograd.grad((sparse * factors).sum(), (mine, other))
        expected = torch.autograd.grad((dense * factors).sum(), (mine, other))
        assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))


def test_tables(x: Any) -> None:
    assert torch.equal(spconv.AddTable()([x, x]).features, 2 * x.features)
    assert spconv.JoinTable()([x, x]).features.shape == (len(x.features), 8)
    both = spconv.ConcatTable().add(spconv.Identity()).add(spconv.SubMConv3d(4, 2, 3))(x)
    assert both[0] is x and both[1].features.shape[1] == 2
    part = x.select_by_index(torch.arange(5))
    with pytest.raises(ShapeError, match=r"input\[1\]: got other sites"):
        spconv.AddTable()([x, part])
    misaligned = spconv.tables.AddTableMisaligned()([x, part])
    assert torch.equal(misaligned.dense(), x.dense() + part.dense())


def test_rulebooks_by_name(x: Any) -> None:
    first, second = (spconv.SubMConv3d(4, 4, 3, indice_key="a") for _ in range(2))
    y = first(x)
    data = y.find_indice_pair("a")
    assert x.find_indice_pair("a") is None and x.find_indice_pair(None) is None
    assert second(y).find_indice_pair("a") is data
    assert (data.ksize, data.is_subm, data.spatial_shape) == ([3] * 3, True, list(SHAPE))
    z = spconv.SparseConv3d(4, 4, 3, 2, 1, indice_key="down")(y)
    down = z.find_indice_pair("down")
    assert down.stride == [2] * 3 and down.padding == [1] * 3 and down.dilation == [1] * 3
    assert down.out_spatial_shape == z.spatial_shape and not down.is_subm
    assert torch.equal(down.out_indices, z.indices) and torch.equal(down.indices, x.indices)
    pairs, counts = down.indice_pairs, down.indice_pair_num
    for offset, count in enumerate(counts.tolist()):
        before = x.indices[pairs[0, offset, :count].long()]
        after = z.indices[pairs[1, offset, :count].long()]
        place = [offset // 9, offset // 3 % 3, offset % 3]
        assert torch.equal(before[:, 1:], after[:, 1:] * 2 - 1 + torch.tensor(place))
        assert bool((pairs[:, offset, count:] == -1).all())
    back = spconv.SparseInverseConv3d(4, 2, 3, "down")(z)
    assert torch.equal(back.indices, x.indices)


def test_sites_are_checked_once(x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    check = spconv.core.check_unique
    monkeypatch.setattr(spconv.core, "check_unique", lambda *a: (seen.append(a), check(*a)))
    layer = spconv.SubMConv3d(4, 4, 3)
    y = layer(layer(x.replace_feature(2 * x.features)))
    assert len(y.indices) and len(layer(y).features) and len(layer(x).features)
    assert len(seen) == 1


def test_sites_that_a_caller_changes_are_seen(x: Any) -> None:
    layer = spconv.SubMConv3d(4, 4, 3)
    y = layer(x)
    y.indices[:, 1] = SHAPE[0] - 1 - y.indices[:, 1]
    turned = spconv.SparseConvTensor(y.features, y.indices.clone(), SHAPE, 2)
    assert torch.equal(layer(y).features, layer(turned).features)
    y.indices = y.indices.flip(0)
    assert torch.equal(layer(y).indices, turned.indices.flip(0))


def test_a_sequence(x: Any) -> None:
    named = OrderedDict(first=spconv.SubMConv3d(4, 6, 3), second=torch.nn.ReLU())
    net = spconv.SparseSequential(named)
    net.add(spconv.SparseConv3d(6, 2, 3))
    assert len(net) == 3 and net[-1] is net[2] and list(net._modules) == ["first", "second", "2"]
    assert net(x).features.shape[1] == 2
    with pytest.raises(KeyError, match="'first'"):
        net.add(torch.nn.ReLU(), "first")
    spconv.assign_name_for_sparse_modules(net)
    assert net[0]._sparse_unique_name == "first"


def test_modules_of_features(x: Any) -> None:
    for made, like in (
        (spconv.SparseBatchNorm(4), torch.nn.BatchNorm1d(4)),
        (spconv.SparseReLU(), torch.nn.ReLU()),
        (spconv.SparseIdentity(), torch.nn.Identity()),
    ):
        assert torch.equal(made(x).features, like(x.features))
        assert torch.equal(made(x.features), like(x.features))


@pytest.mark.parametrize("layout", ["RSCK", "RSKC"])
@pytest.mark.parametrize("kernel", [3, (1, 3, 2)])
def test_weights_of_earlier_versions(x: Any, layout: str, kernel: Any) -> None:
    net = spconv.SparseSequential(spconv.SubMConv3d(4, 6, kernel), torch.nn.BatchNorm1d(6))
    state = net.state_dict()
    order = (1, 2, 3, 4, 0) if layout == "RSCK" else (1, 2, 3, 0, 4)
    stored = {**state, "0.weight": state["0.weight"].permute(*order).contiguous()}
    other = spconv.SparseSequential(spconv.SubMConv3d(4, 6, kernel), torch.nn.BatchNorm1d(6))
    spconv.load_state_dict(other, stored, weight_layout=layout)
    assert torch.equal(other[0].weight, net[0].weight)
    assert torch.equal(other(x).features, net(x).features)


def test_a_matrix_of_version_1(x: Any) -> None:
    layer, matrix = spconv.SubMConv3d(4, 6, 1, bias=False), torch.randn(4, 6)
    spconv.load_state_dict(layer, {"weight": matrix.view(1, 1, 1, 4, 6)}, weight_layout="RSCK")
    assert torch.allclose(layer(x).features, x.features @ matrix, atol=1e-6)


def _x(**changes: Any) -> Any:
    given: dict[str, Any] = {
        "features": torch.ones(2, 3),
        "indices": torch.tensor([[0, 1, 1], [0, 4, 7]], dtype=torch.int32),
        "spatial_shape": [8, 8],
        "batch_size": 1,
    }
    return spconv.SparseConvTensor(**(given | changes))


def sites(*extra: list[int]) -> Any:
    return torch.tensor([[0, 1, 1], *extra], dtype=torch.int32)


def run(x: Any) -> Any:
    return spconv.SubMConv2d(3, 4, 3)(x)


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "array": (lambda: _x(features=np.ones((2, 3))), DTypeError, "features: got ndarray, want a t"),
    "device": (lambda: _x(features=torch.ones(2, 3, device="meta")), DeviceError,
               "features: got a tensor on meta, want one on the CPU"),
    "axes": (lambda: _x(features=torch.ones(2)), ShapeError, r"features: got shape \(2,\)"),
    "int64": (lambda: _x(indices=sites([0, 4, 7]).long()), DTypeError,
              "indices: got torch.int64, want torch.int32"),
    "columns": (lambda: _x(spatial_shape=[8, 8, 8]), ShapeError, "spatial_shape: got"),
    "rows": (lambda: run(_x(features=torch.ones(3, 3))), ShapeError,
             "features: got 3 rows, want 2"),
    "outside": (lambda: run(_x(indices=sites([0, 8, 1]))), ShapeError,
                "indices: got 8 in row 1, column 1, want 0 to 7"),
    "batch": (lambda: run(_x(indices=sites([1, 7, 1]))), ShapeError,
              "indices: got 1 in row 1, column 0, want 0 to 0"),
    "twice": (lambda: run(_x(indices=sites([0, 1, 1]))), ShapeError,
              r"indices: got the site \(0, 1, 1\) in row 0 and in row 1, want each site once$"),
    "set": (lambda: setattr(_x(), "features", torch.ones(2, 3)), ValueError, "replace_feature"),
    "integers": (lambda: run(_x(features=torch.ones(2, 3, dtype=torch.int64))), DTypeError,
                 "features: got int64, want one of float32"),
    "types": (lambda: run(_x(features=torch.ones(2, 3, dtype=torch.float64))), DTypeError,
              "float64"),
    "no tensor": (lambda: run(torch.ones(2, 3)), DTypeError, "input: got Tensor, want a Sparse"),
    "dimensions": (lambda: spconv.SparseConv3d(3, 4, 3)(_x()), ShapeError,
                   "input: got 2 spatial axes, want 3"),
    "channels": (lambda: spconv.SubMConv2d(5, 4, 3)(_x()), ShapeError,
                 "input: got 3 channels, want in_channels=5"),
    "groups": (lambda: spconv.SubMConv2d(3, 4, 3, groups=2), ShapeError, "groups: got 2, want a"),
    "kernel": (lambda: spconv.SubMConv2d(3, 4, (3, 3, 3)), ShapeError, "want 2 whole numbers"),
    "no key": (lambda: spconv.SparseInverseConv2d(3, 4, 3, None), ArgumentError,
               "indice_key: got None"),
    "unknown key": (lambda: spconv.SparseInverseConv2d(3, 4, 3, "a")(_x()), ShapeError,
                    "indice_key: got 'a', want one that is known: there is none yet"),
    "other kernel": (lambda: spconv.SparseSequential(
                         spconv.SubMConv2d(3, 3, 3, indice_key="a"),
                         spconv.SubMConv2d(3, 3, 5, indice_key="a"))(_x()), ShapeError,
                     r"indice_key='a': got kernel_size \(3, 3\), not \(5, 5\)"),
    "other way": (lambda: spconv.SparseSequential(
                      spconv.SparseConv2d(3, 3, 3, 2, indice_key="a"),
                      spconv.SparseInverseConv2d(3, 3, 2, "a"))(_x()), ShapeError,
                  r"indice_key='a': got kernel_size \(3, 3\), not \(2, 2\)"),
    "padded matrix": (lambda: spconv.SparseConv2d(3, 4, 1, padding=1), ShapeError, "padding: got"),
    "sum": (lambda: _x() + _x(features=torch.ones(2, 4), indices=sites([0, 4, 6])), ShapeError,
            "tensors: got channels 3 and 4"),
    "nothing": (spconv.functional.sparse_add, ShapeError, "tensors: got none"),
    "layout": (lambda: spconv.load_state_dict(torch.nn.Identity(), {}, weight_layout="CKRS"),
               ArgumentError, "weight_layout: got 'CKRS', want one of 'KRSC'"),
    "stored shape": (lambda: spconv.load_state_dict(
                         spconv.SubMConv2d(3, 4, 3), {"weight": torch.ones(4, 3, 3, 3)},
                         weight_layout="RSCK"), ShapeError,
                     r"weight: got shape \(4, 3, 3, 3\), want \(3, 3, 3, 4\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, words = BAD[name]
    with pytest.raises(error, match=words):
        call()
