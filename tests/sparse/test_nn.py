"""Layers with spconv's names, and gradients, against PyTorch's and by their definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import sparse
from fastconv.sparse import SparseTensor, nn
from helpers import assert_exact, bits
from sparse_helpers import Array, in_order, random_sites, random_tensor, whole

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

KINDS = ("SubMConv", "SparseConv", "SparseConvTranspose", "SparseInverseConv")


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_the_operators(kind: str, ndim: int, rng: np.random.Generator) -> None:
    x = random_tensor(rng, (6, 5, 4, 5)[:ndim], 4)
    w, b = whole(rng, (6, *(3,) * ndim, 2)), whole(rng, (6,))
    make = getattr(nn, f"{kind}{ndim}d")
    more: dict[str, Any] = {"groups": 2, "activation": "relu"}
    operator = {"bias": b, "weight_layout": "KRSC", **more}
    if kind == "SubMConv":
        layer = make(4, 6, 3, padding=1, indice_key="a", **more)
        expected = sparse.subm_conv(x, w, **operator)
    elif kind == "SparseInverseConv":
        x = sparse.sparse_conv(x, whole(rng, (4, 4, *(3,) * ndim)), None, 2, 1, indice_key="down")
        layer = make(4, 6, 3, "down", **more)
        expected = sparse.sparse_inverse_conv(x, w, indice_key="down", **operator)
    else:
        layer = make(4, 6, 3, 2, 1, **more)
        name = {"SparseConv": "sparse_conv", "SparseConvTranspose": "sparse_conv_transpose"}[kind]
        expected = getattr(sparse, name)(x, w, stride=2, padding=1, **operator)
    y = layer.load(w, b)(x)
    assert bits(y.features) == bits(expected.features)
    assert np.array_equal(y.indices, expected.indices)
    assert y.spatial_shape == expected.spatial_shape
    assert np.array_equal(layer.weight, w) and np.array_equal(layer.bias, b)
    assert type(layer).__name__ in repr(layer)
    assert fastconv.explain(layer, x).packed


def test_pools_are_the_operators(rng: np.random.Generator) -> None:
    for ndim in (1, 2, 3, 4):
        x = random_tensor(rng, (6, 5, 4, 5)[:ndim], 4)
        for name in ("Max", "Avg"):
            layer = getattr(nn, f"Sparse{name}Pool{ndim}d")(3, 2, 1, indice_key="pool")
            function = getattr(sparse, f"sparse_{name.lower()}_pool")
            assert bits(layer(x).features) == bits(function(x, 3, 2, 1).features)
        assert list(x.rulebooks) == ["pool"]


def test_a_layer_packs_its_weight_once(rng: np.random.Generator) -> None:
    w = whole(rng, (6, 3, 3, 4))
    layer = nn.SubMConv2d(4, 6, 3, bias=False).load(w)
    kept = w.copy()
    x = random_tensor(rng, (9, 9), 4)
    first = layer(x)
    w[...] = np.nan
    packed = layer._filters.packed  # type: ignore[union-attr]
    (before,) = packed.values()  # type: ignore[union-attr]
    again = layer(random_tensor(rng, (9, 9), 4))
    (after,) = packed.values()  # type: ignore[union-attr]
    assert before is after and np.isfinite(again.features).all()
    assert np.array_equal(layer.weight, kept)
    layer.load(2 * kept)
    assert np.array_equal(layer(x).features, 2 * first.features)


@pytest.mark.parametrize("changed", ["weight", "bias"])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_layer_keeps_its_weights_when_the_arrays_change(
    changed: str, groups: int, rng: np.random.Generator
) -> None:
    """Before its first call too, which packs them."""
    w, b = whole(rng, (4, 3, 3, 4 // groups)), whole(rng, (4,))
    x, other = random_tensor(rng, (9, 9), 4), random_tensor(rng, (30, 20), 4)
    options: Any = {"bias": b, "groups": groups, "weight_layout": "KRSC"}
    truths = [sparse.subm_conv(each, w, **options).features for each in (x, other)]
    given = {"weight": w.copy(), "bias": b.copy()}
    layer = nn.SubMConv2d(4, 4, 3, padding=1, groups=groups)
    layer.load(given["weight"][:], given["bias"][:])
    given[changed][...] = np.nan
    for each, truth in zip((x, other), truths, strict=True):
        assert_exact(layer(each).features, truth)
    assert_exact(layer.weight, w)
    assert_exact(layer.bias, b)


def test_what_a_layer_shows_of_its_weights_is_not_what_it_computes_with(
    rng: np.random.Generator,
) -> None:
    weight, bias = rng.standard_normal((4, 3, 3, 3), np.float32), np.ones(4, np.float32)
    layer = sparse.nn.SubMConv2d(3, 4, 3, padding=1).load(weight, bias)
    x = sparse.SparseTensor(np.ones((2, 3), np.float32), [[0, 1, 1], [0, 4, 7]], (8, 8))
    before = layer(x).features
    for shown in (layer.bias, layer.weight):
        while isinstance(shown, np.ndarray):
            shown.dtype, shown.shape = np.int32, (1, *shown.shape)
            shown = shown.base
    np.testing.assert_array_equal(layer(x).features, before)


def test_tensors_load_as_modules_hold_them() -> None:
    """They require gradients, and may be of a type that NumPy has not."""
    weight = torch.nn.Parameter(torch.rand(4, 3, 3, 3).to(torch.bfloat16))
    layer = sparse.nn.SubMConv2d(3, 4, 3, bias=False).load_state_dict({"weight": weight})
    np.testing.assert_array_equal(layer.weight.astype(np.float32), weight.detach().float().numpy())


def test_batch_normalisation_is_folded(rng: np.random.Generator) -> None:
    x = random_tensor(rng, (9, 9), 4, dtype="float64")
    norm = torch.nn.BatchNorm1d(6, eps=1e-3).double().eval()
    for value in (*norm.parameters(), norm.running_mean, norm.running_var):
        value.data = torch.from_numpy(rng.random(6) + 0.5)
    w, b = rng.standard_normal((6, 3, 3, 4)), rng.standard_normal(6)
    for bias in (None, b):
        plain = nn.SubMConv2d(4, 6, 3, bias=bias is not None).load(w, bias)
        with torch.no_grad():
            expected = norm(torch.from_numpy(plain(x).features)).relu().numpy()
        state = {"0.weight": w, "0.bias": b}
        state |= {f"1.{name}": value for name, value in norm.state_dict().items()}
        folded = nn.SubMConv2d(4, 6, 3, bias=bias is not None, activation="relu")
        folded.load_state_dict(state, "0.", batch_norm="1.", eps=1e-3)
        np.testing.assert_allclose(folded(x).features, expected, rtol=0, atol=1e-12)
        assert folded.bias is not None


def test_sequential_gives_features_to_functions(rng: np.random.Generator) -> None:
    x = random_tensor(rng, (9, 9), 4)
    conv = nn.SubMConv2d(4, 4, 3, bias=False).load(whole(rng, (4, 3, 3, 4)))
    net = nn.SparseSequential(conv, nn.SparseSequential(np.abs, nn.SparseMaxPool2d(2)))
    expected = sparse.sparse_max_pool(conv(x).replace(np.abs(conv(x).features)), 2)
    assert np.array_equal(net(x).features, expected.features)
    assert len(net) == 2 and net[0] is conv and "SubMConv2d" in repr(net)


def torch_conv(kind: str, book: sparse.Rulebook, x: Any, w: Any, groups: int) -> Any:
    """The sums of a rulebook's pairs in PyTorch, with gradients."""
    table = torch.from_numpy(np.array(book.neighbours)).long()
    taps = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1)
    padded = torch.cat([x, torch.zeros(1, x.shape[1], dtype=x.dtype)]).reshape(
        len(x) + 1, groups, -1
    )
    rows = padded[torch.where(table < 0, len(x), table)]
    return torch.einsum("vngc,gkcv->ngk", rows, taps).reshape(table.shape[1], -1)


@pytest.mark.parametrize("kind", ["submanifold", "regular", "transposed", "inverse"])
@pytest.mark.parametrize(("channels", "groups"), [((5, 7), 1), ((4, 6), 2), ((8, 8), 8)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_convolutions(
    kind: str, channels: tuple[int, int], groups: int, dtype: str, rng: np.random.Generator
) -> None:
    c_in, c_out = channels
    x = random_tensor(rng, (6, 7, 5), c_in)
    geometry = {} if kind == "submanifold" else {"stride": 2, "padding": 1}
    book = sparse.make_rulebook(
        x, (3, 2, 3), **geometry, kind="regular" if kind == "inverse" else kind
    )
    book = book.reverse() if kind == "inverse" else book
    rows, grads = whole(rng, (book.in_rows, c_in), dtype), whole(rng, (book.out_rows, c_out), dtype)
    w = whole(rng, (c_out, c_in // groups, 3, 2, 3), dtype)
    samples, taps = (torch.from_numpy(array).double().requires_grad_() for array in (rows, w))
    torch_conv(kind, book, samples, taps, groups).backward(torch.from_numpy(grads).double())
    krsc = np.ascontiguousarray(np.moveaxis(w, 1, -1))
    assert_exact(sparse.grad.conv_input(book, w, grads, groups), samples.grad.numpy())
    assert_exact(
        sparse.grad.conv_input(book, krsc, grads, groups, weight_layout="KRSC"),
        samples.grad.numpy(),
    )
    found = sparse.grad.conv_weight(book, rows, grads, groups)
    assert_exact(found, taps.grad.numpy())
    layout = sparse.grad.conv_weight(book, rows, grads, groups, weight_layout="KRSC")
    assert bits(np.moveaxis(layout, -1, 1)) == bits(found)
    assert_exact(sparse.grad.conv_bias(grads), grads.astype(np.float64).sum(0))


def windows(book: sparse.Rulebook, x: Any, nothing: float) -> Any:
    table = torch.from_numpy(np.array(book.neighbours)).long()
    padded = torch.cat([x, torch.full((1, x.shape[1]), nothing, dtype=x.dtype)])
    return padded[torch.where(table < 0, len(x), table)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_pools(dtype: str, rng: np.random.Generator) -> None:
    x = random_tensor(rng, (6, 7, 5), 5, dtype=dtype)
    # No two values are equal, so that there is one largest.
    x = x.replace(rng.permutation(x.features.size).reshape(x.features.shape).astype(dtype))
    y = sparse.sparse_max_pool(x, 3, 2, 1, indice_key="pool")
    book = x.rulebooks["pool"]
    grads = whole(rng, y.features.shape, dtype)
    given = torch.from_numpy(grads).double()
    rows = torch.from_numpy(x.features).double().requires_grad_()
    windows(book, rows, -np.inf).amax(0).backward(given)
    assert_exact(sparse.grad.max_pool_input(book, x.features, y.features, grads), rows.grad.numpy())
    rows.grad = None
    counts = torch.from_numpy((np.asarray(book.neighbours) >= 0).sum(0))[:, None]
    (windows(book, rows, 0.0).sum(0) / counts).backward(given)
    found = sparse.grad.avg_pool_input(book, grads)
    np.testing.assert_allclose(found, rows.grad.numpy(), rtol=0, atol=1e-6)


def test_gradients_over_no_sites() -> None:
    x = SparseTensor(np.zeros((0, 3), np.float32), np.zeros((0, 3), int), (8, 8))
    book = sparse.make_rulebook(x, 3)
    w, none = np.ones((5, 3, 3, 3), np.float32), np.zeros((0, 5), np.float32)
    assert sparse.grad.conv_input(book, w, none).shape == (0, 3)
    assert np.array_equal(sparse.grad.conv_weight(book, x.features, none), np.zeros_like(w))
    assert np.array_equal(sparse.grad.conv_bias(none), np.zeros(5))


def second_style(w: dict[str, Array]) -> nn.SparseSequential:
    """The encoder of SECOND: 4 > 16 > 16, then stages of 32, 64 and 64 channels."""

    def subm(c_in: int, c_out: int, key: str) -> Any:
        return nn.SubMConv3d(c_in, c_out, 3, padding=1, bias=False, indice_key=key,
                             activation="relu")  # fmt: skip

    def down(c_in: int, c_out: int, key: str, padding: Any = 1) -> Any:
        return nn.SparseConv3d(c_in, c_out, 3, 2, padding, bias=False, indice_key=key,
                               activation="relu")  # fmt: skip

    layers = (
        subm(4, 16, "subm1"), subm(16, 16, "subm1"),
        down(16, 32, "spconv2"), subm(32, 32, "subm2"), subm(32, 32, "subm2"),
        down(32, 64, "spconv3"), subm(64, 64, "subm3"), subm(64, 64, "subm3"),
        down(64, 64, "spconv4", (0, 1, 1)), subm(64, 64, "subm4"),
    )  # fmt: skip
    for number, layer in enumerate(layers):
        layer.load_state_dict(w, f"{number}.0.", batch_norm=f"{number}.1.", eps=1e-3)
    return nn.SparseSequential(*layers)


def second_state(rng: np.random.Generator) -> dict[str, Array]:
    sizes = [(4, 16), (16, 16), (16, 32), (32, 32), (32, 32), (32, 64), *[(64, 64)] * 4]
    state = {}
    for number, (c_in, c_out) in enumerate(sizes):
        scale = np.sqrt(2 / (9 * c_in))
        w = scale * rng.standard_normal((c_out, 3, 3, 3, c_in))
        norm = ("running_mean", "running_var", "weight", "bias")
        state |= {f"{number}.0.weight": w.astype(np.float32)}
        state |= {
            f"{number}.1.{name}": (0.5 + rng.random(c_out)).astype(np.float32) for name in norm
        }
    return state


def test_a_second_style_backbone_shares_its_rulebooks(rng: np.random.Generator) -> None:
    net = second_style(second_state(rng))
    x = random_tensor(rng, (21, 40, 36), 4, share=0.02)
    y = net(x)
    assert y.spatial_shape == (2, 5, 5) and y.channels == 64
    assert list(x.rulebooks) == [
        "subm1", "spconv2", "subm2", "spconv3", "subm3", "spconv4", "subm4"
    ]  # fmt: skip
    order = rng.permutation(len(x))
    shuffled = SparseTensor(x.features[order], x.indices[order], x.spatial_shape, 2)
    assert bits(net(shuffled).features) == bits(y.features)
    assert bits(in_order(net(x))) == bits(y.features)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_gradients_of_global_pools(dtype: str, rng: np.random.Generator) -> None:
    """Of three grids the middle one has no sites."""
    sites = random_sites(rng, (5, 6), 2, 0.5)
    sites[:, 0] *= 2
    order = rng.permutation(len(sites))
    x = sparse.SparseTensor(whole(rng, (len(sites), 7), dtype), sites[order], (5, 6), 3)
    grads = whole(rng, (3, 7), dtype)
    truth = np.zeros((len(x), 7))
    for batch in (0, 2):
        own = np.flatnonzero(x.indices[:, 0] == batch)
        truth[own[x.features[own].argmax(0)], np.arange(7)] = grads[batch]
    y = sparse.global_max_pool(x)
    assert_exact(sparse.grad.global_max_pool_input(x, y, grads), truth)
    rows = x.features.copy()
    rows[own[2], 1] = rows[own[4], 1] = np.nan
    x = x.replace(rows)
    spread = sparse.grad.global_max_pool_input(x, sparse.global_max_pool(x), grads)
    assert spread[own[2], 1] == grads[2, 1] and not spread[np.delete(own, 2), 1].any()
    counts = np.bincount(x.indices[:, 0], minlength=3)
    shares = (grads / np.maximum(counts, 1)[:, None].astype(np.float64))[x.indices[:, 0]]
    found = sparse.grad.global_avg_pool_input(x, grads)
    assert found.dtype == x.dtype and np.array_equal(found, shares.astype(dtype))
    with pytest.raises(fastconv.ShapeError, match=r"grad_output: got \(2, 7\), want \(3, 7\)"):
        sparse.grad.global_avg_pool_input(x, grads[:2])
