"""Tables of pairs and what is computed by them, activations, hash tables, beside spconv's own."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from fastconv.contract.errors import (  # noqa: E402
    ArgumentError,
    DeviceError,
    DTypeError,
    NoKernelError,
    ShapeError,
)
from fastconv.spconv import pytorch as ours  # noqa: E402
from fastconv.spconv import utils  # noqa: E402
from fastconv.spconv.pytorch import functional, hash, ops  # noqa: E402
from spconv_helpers import assert_near, random_parts, threads  # noqa: E402

SHAPE = (13, 11, 9, 8)
NATIVE = ours.ConvAlgo.Native


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


@pytest.mark.parametrize("module", [ops, functional, hash, utils])
def test_the_examples_run(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0


def sizes(kind: str, ndim: int, kernel: Any, stride: int = 1, padding: int = 1) -> tuple[Any, ...]:
    told = ([stride] * ndim, [padding] * ndim, [1] * ndim, [0] * ndim)
    return ([kernel] * ndim, *told, kind == "subm", kind == "transposed")


def joined(pairs: Any, counts: Any, before: Any, after: Any, subm: bool) -> list[Any]:
    """The sites that meet at each offset, in one order."""
    found = []
    for offset, count in enumerate(counts.tolist()):
        rows = pairs[:, offset, :count].long()
        found.append(sorted(zip(before[rows[0]].tolist(), after[rows[1]].tolist(), strict=True)))
    return found


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("kind", "kernel", "stride", "padding"),
    [
        ("subm", 3, 1, 1),
        ("subm", 1, 1, 0),
        ("regular", 3, 2, 1),
        ("regular", 2, 2, 0),
        ("regular", 3, 1, 1),
        ("transposed", 3, 2, 1),
        ("transposed", 2, 2, 0),
    ],
)
def test_pairs_and_what_they_compute(
    kind: str, kernel: int, stride: int, padding: int, ndim: int, rng: np.random.Generator
) -> None:
    theirs = pytest.importorskip("spconv.pytorch", reason="spconv is not installed")
    shape = SHAPE[:ndim]
    x, sites = random_parts(rng, shape, 5, 0.3)
    told = sizes(kind, ndim, kernel, stride, padding)
    after, pairs, counts = ops.get_indice_pairs(sites, 2, list(shape), NATIVE, *told)
    expected = theirs.ops.get_indice_pairs(sites, 2, list(shape), theirs.ConvAlgo.Native, *told)
    assert pairs.shape == expected[1].shape and pairs.dtype == torch.int32
    if kind == "subm":
        assert after is sites
    assert joined(pairs, counts, sites, after, kind == "subm") == joined(
        expected[1], expected[2], sites, expected[0], kind == "subm"
    )
    filters = torch.randn(7, *[kernel] * ndim, 5)
    made = ops.indice_conv(x, filters, pairs, counts, len(after), subm=kind == "subm")
    theirs_made = theirs.ops.indice_conv(
        x, filters, expected[1], expected[2], len(after), subm=kind == "subm"
    )
    mine, other = (
        torch.from_numpy(np.lexsort(each.numpy().T[::-1])) for each in (after, expected[0])
    )
    assert_near(made[mine], theirs_made[other])


@pytest.mark.parametrize("kind", ["subm", "regular", "inverse"])
def test_gradients_are_those_of_sums(kind: str, rng: np.random.Generator) -> None:
    """Of products that are gathered and added pair by pair, in PyTorch."""
    x, sites = random_parts(rng, SHAPE[:3], 4, 0.3)
    told = sizes("subm" if kind == "subm" else "regular", 3, 3, 1 if kind == "subm" else 2)
    after, pairs, counts = ops.get_indice_pairs(sites, 2, list(SHAPE[:3]), NATIVE, *told)
    subm, back = kind == "subm", kind == "inverse"
    rows = len(sites) if back else len(after)
    x = torch.randn(len(after), 4) if back else x
    filters, bias = torch.randn(6, 3, 3, 3, 4), torch.randn(6)
    given = [each.clone().requires_grad_() for each in (x, filters, bias)]
    name = {"subm": "indice_subm_conv", "inverse": "indice_inverse_conv"}.get(kind, "indice_conv")
    act = {"act_type": ours.Activation.LeakyReLU, "act_alpha": 0.25}
    made = getattr(functional, name)(
        given[0], given[1], pairs, counts, rows, NATIVE, None, given[2], **act
    )
    likes = [each.clone().requires_grad_() for each in (x, filters, bias)]
    total = likes[2].expand(rows, 6)
    for offset, taps in enumerate(likes[1].reshape(6, 27, 4).unbind(1)):
        count = int(counts[26 - offset if subm and offset > 13 else offset])
        first, second = pairs[:, offset, :count].long() if not subm or offset != 13 else (
            torch.arange(rows).expand(2, rows)
        )  # fmt: skip
        if back:
            first, second = second, first
        total = total.index_add(0, second, likes[0][first] @ taps.T)
    expected = torch.nn.functional.leaky_relu(total, 0.25)
    assert_near(made, expected)
    factors = torch.randn_like(made)
    made.backward(factors)
    expected.backward(factors)
    for one, two in zip(given, likes, strict=True):
        assert_near(one.grad, two.grad)
    made = functional.indice_conv(given[0], given[1], pairs, counts, rows) if not back else None
    if made is not None and not subm:
        for_x, for_filters = ops.indice_conv_backward(x, filters, factors, pairs, counts)
        given[0].grad = given[1].grad = None
        made.backward(factors)
        assert torch.equal(given[0].grad, for_x) and torch.equal(given[1].grad, for_filters)


def test_the_largest_of_rows_that_meet(rng: np.random.Generator) -> None:
    x, sites = random_parts(rng, SHAPE[:2], 4, 0.3)
    x -= 3  # spconv's are 0 then
    after, pairs, counts = ops.get_indice_pairs(
        sites, 2, list(SHAPE[:2]), NATIVE, *sizes("", 2, 3, 2)
    )
    x.requires_grad_()
    made = functional.indice_maxpool(x, pairs, counts, len(after))
    expected = torch.full((len(after), 4), -torch.inf)
    for offset, count in enumerate(counts.tolist()):
        first, second = pairs[:, offset, :count].long()
        rows = second[:, None].expand(-1, 4)
        expected = expected.scatter_reduce(0, rows, x.detach()[first], "amax")
    assert torch.equal(made, expected)
    assert torch.equal(ops.indice_maxpool(x, pairs, counts, len(after)), expected)
    factors = torch.randn_like(made)
    made.backward(factors)
    gradient = ops.indice_maxpool_backward(x.detach(), expected, factors, pairs, counts)
    assert torch.equal(x.grad, gradient)
    assert_near(gradient.sum(0), factors.sum(0))


def test_pairs_of_a_layer_compute_what_it_does(rng: np.random.Generator) -> None:
    x, sites = random_parts(rng, SHAPE[:3], 4, 0.3)
    for layer in (
        ours.SubMConv3d(4, 6, 3, bias=False, indice_key="a"),
        ours.SparseConv3d(4, 6, 3, 2, bias=False, indice_key="a"),
    ):
        made = layer(ours.SparseConvTensor(x, sites, list(SHAPE[:3]), 2))
        data = made.find_indice_pair("a")
        again = ops.indice_conv(
            x, layer.weight, data.indice_pairs, data.indice_pair_num, len(made.indices),
            subm=data.is_subm,
        )  # fmt: skip
        assert torch.equal(made.features, again)


ACTIVATIONS = {
    "None_": lambda x: x,
    "ReLU": torch.relu,
    "Sigmoid": torch.sigmoid,
    "LeakyReLU": lambda x: torch.nn.functional.leaky_relu(x, 0.125),
}


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_layer_ends_with_its_activation(name: str, kernel: int, rng: np.random.Generator) -> None:
    from fastconv.spconv.pytorch.convolution import SparseConvolution

    parts = random_parts(rng, SHAPE[:3], 4, 0.3)
    act = ours.Activation[name]
    layer = SparseConvolution(3, 4, 6, kernel, subm=True, act_type=act, act_alpha=0.125)
    plain = SparseConvolution(3, 4, 6, kernel, subm=True)
    plain.load_state_dict(layer.state_dict())
    x = ours.SparseConvTensor(*parts, list(SHAPE[:3]), 2)
    expected = plain(x, add_input=plain(x)).features
    assert_near(layer(x, add_input=plain(x)).features, ACTIVATIONS[name](expected))
    assert (f"act={name}" in repr(layer)) == (name != "None_")
    # A norm behind it is not folded over the activation.
    norm = torch.nn.BatchNorm1d(6).eval()
    norm.running_mean += 1
    with torch.no_grad():
        made = ours.SparseSequential(layer, norm, torch.nn.ReLU()).eval()(x).features
        assert_near(made, torch.relu(norm(ACTIVATIONS[name](plain(x).features))))


def test_their_activations_are_taken() -> None:
    view = pytest.importorskip("cumm.tensorview", reason="cumm is not installed")
    from fastconv.spconv.pytorch.convolution import SparseConvolution

    assert list(view.gemm.Activation.__members__) == list(ours.Activation.__members__)
    layer = SparseConvolution(2, 3, 4, act_type=view.gemm.Activation.Sigmoid)
    assert layer.act_type is ours.Activation.Sigmoid
    for wrong in ("relu", 3, torch.nn.ReLU()):
        with pytest.raises(ArgumentError, match=r"act_type: got .* one of None_, ReLU"):
            SparseConvolution(2, 3, 4, act_type=wrong)


@pytest.mark.parametrize("key_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("value_dtype", [torch.int64, torch.float32])
def test_a_hash_table_is_a_dictionary(
    key_dtype: Any, value_dtype: Any, rng: np.random.Generator
) -> None:
    table, like = hash.HashTable(torch.device("cpu"), key_dtype, value_dtype), {}
    asked = torch.arange(-5, 45, dtype=key_dtype)
    assert bool(table.query(asked)[1].all()) and table.items()[2].item() == 0
    for _ in range(4):
        keys = torch.from_numpy(rng.integers(-5, 40, 12)).to(key_dtype)
        values = torch.from_numpy(rng.integers(0, 1000, 12)).to(value_dtype)
        table.insert(keys, values)
        like.update(zip(keys.tolist(), values.tolist(), strict=True))
        found, is_missing = table.query(asked)
        assert is_missing.tolist() == [key not in like for key in asked.tolist()]
        assert found.dtype == value_dtype
        assert found[~is_missing].tolist() == [like[k] for k in asked.tolist() if k in like]
    failed = table.insert_exist_keys(asked, torch.full((50,), 7).to(value_dtype))
    assert failed.dtype == torch.uint8 and torch.equal(failed > 0, is_missing)
    out = torch.zeros(50, dtype=value_dtype)
    assert table.query(asked, out)[0] is out and out[~is_missing].unique().tolist() == [7]
    keys, values, count = table.items()
    assert count.item() == len(keys) == len(like) and sorted(keys.tolist()) == sorted(like)
    if value_dtype == torch.int64:
        assert table.assign_arange_().item() == len(like)
        assert table.query(keys)[0].tolist() == list(range(len(like)))
    else:
        with pytest.raises(DTypeError, match="want whole numbers"):
            table.assign_arange_()
    table.insert(torch.tensor([99], dtype=key_dtype))
    assert table.query(torch.tensor([99], dtype=key_dtype))[0].item() == 0


SITES = torch.tensor([[0, 1], [0, 2], [0, 4]], dtype=torch.int32)
PAIRS = torch.tensor([[[0, 1], [2, -1]], [[0, 1], [0, -1]]], dtype=torch.int32)
COUNTS = torch.tensor([2, 1], dtype=torch.int32)
X, W = torch.ones(3, 4), torch.ones(5, 2, 4)


@pytest.mark.parametrize(
    ("pairs", "counts", "rows", "error", "words"),
    [
        (PAIRS.long(), COUNTS, 2, DTypeError, "indice_pairs: got int64"),
        (PAIRS, COUNTS.long(), 2, DTypeError, "indice_pair_num: got int64"),
        (PAIRS[:, :1], COUNTS, 2, ShapeError, "indice_pairs: got shape .* 2 offsets"),
        (PAIRS, COUNTS[:1], 2, ShapeError, "indice_pair_num: got .2., want 2 numbers"),
        (PAIRS, COUNTS + 1, 2, ShapeError, "indice_pair_num: got .* at most 2"),
        (PAIRS, COUNTS - 3, 2, ShapeError, "indice_pair_num: got .* at most 2"),
        (PAIRS, COUNTS, 1, ShapeError, "none of 1"),
        (PAIRS, torch.tensor([2, 2], dtype=torch.int32), 2, ShapeError, "none of 2"),
        (PAIRS + 1, COUNTS, 4, ShapeError, "neighbours: got 3 in the table"),
        (
            PAIRS * torch.tensor([1, 0])[:, None, None].int(),
            COUNTS,
            2,
            ShapeError,
            "row after twice",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    pairs: Any, counts: Any, rows: int, error: type[Exception], words: str
) -> None:
    assert ops.indice_conv(X, W, PAIRS, COUNTS, 2).shape == (2, 5)
    with pytest.raises(error, match=words):
        ops.indice_conv(X, W, pairs, counts, rows)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ops.implicit_gemm, NoKernelError, "implicit_gemm: spconv has it for a GPU alone"),
        (lambda: ops.get_indice_pairs_implicit_gemm, NoKernelError, "for a GPU alone"),
        (lambda: functional.implicit_gemm, NoKernelError, "for a GPU alone"),
        (lambda: ops.nothing, AttributeError, "no attribute 'nothing'"),
        (lambda: functional.nothing, AttributeError, "no attribute 'nothing'"),
        (lambda: utils.Point2VoxelGPU3d, DeviceError, "want Point2VoxelCPU3d"),
        (lambda: utils.rbbox_iou, NoKernelError, "nothing for boxes"),
        (lambda: utils.nothing, AttributeError, "no attribute 'nothing'"),
        (
            lambda: ops.get_indice_pairs(
                SITES, 1, [6], ours.ConvAlgo.MaskImplicitGemm, *sizes("subm", 1, 3)
            ),
            ArgumentError,
            "algo: got",
        ),
        (
            lambda: ops.get_indice_pairs(SITES, 1, [6], NATIVE, *sizes("subm", 1, 2)),
            ShapeError,
            "ksize: got .2., want odd",
        ),
        (
            lambda: ops.get_indice_pairs(SITES, 1, [6], NATIVE, *sizes("", 1, 3), 5),
            ArgumentError,
            "num_out_act_bound: got 5",
        ),
        (
            lambda: ops.get_indice_pairs(SITES, 1, [3], NATIVE, *sizes("", 1, 3)),
            ShapeError,
            "indices: got",
        ),
        (lambda: ops.indice_conv(X, W[:, 0], PAIRS, COUNTS, 2), ShapeError, "filters: got shape"),
        (
            lambda: hash.HashTable(torch.device("cuda:0"), torch.int32, torch.int32),
            DeviceError,
            "device: got cuda:0",
        ),
        (
            lambda: hash.HashTable("cpu", torch.float32, torch.int32),
            DTypeError,
            "key_dtype: got torch.float32",
        ),
        (
            lambda: hash.HashTable("cpu", torch.int32, torch.int8),
            DTypeError,
            "value_dtype: got torch.int8",
        ),
        (
            lambda: hash.HashTable("cpu", torch.int32, torch.int32).insert(X),
            DTypeError,
            "keys: got torch.float32",
        ),
        (
            lambda: hash.HashTable("cpu", torch.int32, torch.int32).insert(COUNTS, COUNTS[:1]),
            ShapeError,
            r"values: got shape \(1,\), want shape \(2,\)",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
