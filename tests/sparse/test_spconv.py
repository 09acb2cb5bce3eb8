"""Against spconv's own modules, whose weights are loaded, on its one correct setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastconv.sparse import SparseTensor, nn
from sparse_helpers import random_tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
spconv = pytest.importorskip("spconv.pytorch", reason="spconv is not installed")

#: Both sum in float32, in orders of their own, at most 27 x 64 products.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """With more threads spconv's results on a CPU are wrong, and differ from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def theirs_of(x: SparseTensor) -> Any:
    return spconv.SparseConvTensor(
        torch.from_numpy(x.features), torch.from_numpy(x.indices.copy()), list(x.spatial_shape),
        x.batch_size,
    )  # fmt: skip


def in_theirs_order(y: Any, like: SparseTensor) -> np.ndarray[Any, Any]:
    """Their features in the order of our sites, which must be theirs."""
    assert list(y.spatial_shape) == list(like.spatial_shape)
    sites = y.indices.numpy()
    theirs, ours = (np.lexsort(each.T[::-1]) for each in (sites, like.indices))
    assert np.array_equal(sites[theirs], like.indices[ours])
    found = np.empty_like(y.features.detach().numpy())
    found[ours] = y.features.detach().numpy()[theirs]
    return found


def assert_near(ours: SparseTensor, theirs: Any) -> None:
    expected = in_theirs_order(theirs, ours)
    assert expected.shape == ours.features.shape
    error = np.abs(ours.features - expected).max(initial=0)
    assert error <= TOLERANCE * max(np.abs(expected).max(initial=0), 1)


def random_features(x: SparseTensor, rng: np.random.Generator) -> SparseTensor:
    return x.replace(rng.standard_normal(x.features.shape).astype(np.float32))


GEOMETRIES = {
    "3": (3, 1, 1, 1),
    "3s2": (3, 2, 1, 1),
    "3s2p0": (3, 2, 0, 1),
    "5s3p2": (5, 3, 2, 1),
    "3d2": (3, 1, 2, 2),
}


@pytest.mark.parametrize("geometry", list(GEOMETRIES))
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["SubMConv", "SparseConv", "SparseConvTranspose"])
def test_convolutions(kind: str, ndim: int, geometry: str, rng: np.random.Generator) -> None:
    kernel, stride, padding, dilation = GEOMETRIES[geometry]
    if kind == "SparseConvTranspose":
        dilation = 1  # theirs counts the grid after as if there were none
    stride = 1 if kind == "SubMConv" else stride
    share = 0.1 if ndim < 4 else 0.01
    x = random_features(random_tensor(rng, (19, 13, 11, 9)[:ndim], 8, share=share), rng)
    arguments = (8, 12, kernel, stride, padding, dilation)
    module = getattr(spconv, f"{kind}{ndim}d")(*arguments, bias=False)
    with torch.no_grad():
        theirs = module(theirs_of(x))
    layer = getattr(nn, f"{kind}{ndim}d")(*arguments, bias=False)
    assert_near(layer.load_state_dict(module.state_dict())(x), theirs)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_down_and_back(ndim: int, rng: np.random.Generator) -> None:
    x = random_features(random_tensor(rng, (19, 13, 11)[:ndim], 8, share=0.1), rng)
    down = getattr(spconv, f"SparseConv{ndim}d")(8, 12, 3, 2, 1, bias=False, indice_key="down")
    up = getattr(spconv, f"SparseInverseConv{ndim}d")(12, 6, 3, "down", bias=False)
    net = spconv.SparseSequential(down, up)
    with torch.no_grad():
        theirs = net(theirs_of(x))
    state = net.state_dict()
    own_down = getattr(nn, f"SparseConv{ndim}d")(8, 12, 3, 2, 1, bias=False, indice_key="down")
    own_up = getattr(nn, f"SparseInverseConv{ndim}d")(12, 6, 3, "down", bias=False)
    ours = nn.SparseSequential(
        own_down.load_state_dict(state, "0."), own_up.load_state_dict(state, "1.")
    )(x)
    assert_near(ours, theirs)
    assert np.array_equal(ours.indices, x.indices)


def test_max_pool(rng: np.random.Generator) -> None:
    """Of features that are not negative: theirs takes no maximum below 0 on a CPU."""
    x = random_tensor(rng, (19, 13, 11), 8, share=0.1)
    x = x.replace(rng.random(x.features.shape).astype(np.float32))
    theirs = spconv.SparseMaxPool3d(3, 2, 1)(theirs_of(x))
    ours = nn.SparseMaxPool3d(3, 2, 1)(x)
    assert np.array_equal(ours.features, in_theirs_order(theirs, ours))


def test_kernels_of_one_tap(rng: np.random.Generator) -> None:
    """Theirs reads a (K, 1, 1, 1, C) weight as if it were (C, K), and so must a trained one."""
    x = random_features(random_tensor(rng, (19, 13, 11), 8, share=0.1), rng)
    module = spconv.SubMConv3d(8, 12, 1, bias=False)
    with torch.no_grad():
        theirs = module(theirs_of(x))
    w = module.weight.detach().numpy().reshape(8, 12).T
    assert_near(nn.SubMConv3d(8, 12, 1, bias=False).load(w.reshape(12, 1, 1, 1, 8))(x), theirs)


def test_a_trained_backbone_loads(rng: np.random.Generator) -> None:
    """SECOND's layers, batch normalisations and rectifiers as spconv's users write them."""

    def block(conv: Any, channels: int) -> Any:
        return spconv.SparseSequential(
            conv, torch.nn.BatchNorm1d(channels, eps=1e-3), torch.nn.ReLU()
        )

    sizes = [
        (spconv.SubMConv3d, nn.SubMConv3d, 4, 16, 1, "subm1"),
        (spconv.SubMConv3d, nn.SubMConv3d, 16, 16, 1, "subm1"),
        (spconv.SparseConv3d, nn.SparseConv3d, 16, 32, 2, "spconv2"),
        (spconv.SubMConv3d, nn.SubMConv3d, 32, 32, 1, "subm2"),
        (spconv.SparseConv3d, nn.SparseConv3d, 32, 64, 2, "spconv3"),
        (spconv.SubMConv3d, nn.SubMConv3d, 64, 64, 1, "subm3"),
    ]
    theirs = spconv.SparseSequential(
        *[
            block(make(c, k, 3, s, padding=1, bias=False, indice_key=key), k)
            for make, _, c, k, s, key in sizes
        ]
    ).eval()
    for name, value in theirs.state_dict().items():
        if ".1." in name and value.dtype == torch.float32:
            value.copy_(torch.from_numpy(0.5 + rng.random(value.shape)))
    ours = nn.SparseSequential(
        *[
            make(c, k, 3, s, padding=1, bias=False, indice_key=key, activation="relu")
            .load_state_dict(
                theirs.state_dict(), f"{number}.0.", batch_norm=f"{number}.1.", eps=1e-3
            )
            for number, (_, make, c, k, s, key) in enumerate(sizes)
        ]
    )  # fmt: skip
    x = random_features(random_tensor(rng, (21, 40, 36), 4, share=0.02), rng)
    with torch.no_grad():
        expected = theirs(theirs_of(x))
    assert_near(ours(x), expected)
