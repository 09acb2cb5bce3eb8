"""Every layer against spconv's own, forward and backward, on the one thread that it is right on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
theirs = pytest.importorskip("spconv.pytorch", reason="spconv is not installed")

from fastconv.spconv import pytorch as ours  # noqa: E402
from spconv_helpers import (  # noqa: E402
    assert_near,
    assert_same_gradients,
    assert_same_tensor,
    random_parts,
    threads,
)

SHAPE = (19, 13, 11, 9)
GEOMETRIES = {
    "3": (3, 1, 1, 1),
    "3s2": (3, 2, 1, 1),
    "2s2p0": (2, 2, 0, 1),
    "5s3p2": (5, 3, 2, 1),
    "3d2": (3, 1, 2, 2),
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Their gradients ask for a CUDA stream, which those on a CPU make no use of."""
    monkeypatch.setattr("spconv.pytorch.ops.get_current_stream", lambda: 0)
    with threads(1):
        yield


def compare(module: Any, like: Any, parts: Any, shape: Any) -> None:
    """Load the weights of one module into another, and compare results and gradients."""
    module.load_state_dict(like.state_dict())
    x, y = (parts[0].clone().requires_grad_() for _ in range(2))
    made = module(ours.SparseConvTensor(x, parts[1], shape, 2))
    expected = like(theirs.SparseConvTensor(y, parts[1], shape, 2))
    assert_same_tensor(made, expected)
    assert_same_gradients(made, expected, x, y, module, like)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["SubMConv", "SparseConv", "SparseConvTranspose"])
def test_convolutions(
    kind: str, ndim: int, geometry: str, bias: bool, rng: np.random.Generator
) -> None:
    kernel, stride, padding, dilation = GEOMETRIES[geometry]
    if kind == "SubMConv" and kernel % 2 == 0:
        kernel = 3  # theirs has no other submanifold kernels than odd ones
    if kind == "SparseConvTranspose":
        dilation = 1  # theirs counts the grid after as if there were none
    parts = random_parts(rng, SHAPE[:ndim], 8, 0.1 if ndim < 4 else 0.01)
    name, arguments = f"{kind}{ndim}d", (8, 12, kernel, stride, padding, dilation)
    like = getattr(theirs, name)(*arguments, bias=bias)
    compare(getattr(ours, name)(*arguments, bias=bias), like, parts, SHAPE[:ndim])


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_down_and_back(ndim: int, rng: np.random.Generator) -> None:
    parts = random_parts(rng, SHAPE[:ndim], 8, 0.1 if ndim < 4 else 0.01)

    def net(library: Any) -> Any:
        return library.SparseSequential(
            getattr(library, f"SparseConv{ndim}d")(8, 12, 3, 2, 1, bias=True, indice_key="down"),
            getattr(library, f"SubMConv{ndim}d")(12, 12, 3, bias=True, indice_key="subm"),
            getattr(library, f"SubMConv{ndim}d")(12, 12, 3, bias=True, indice_key="subm"),
            getattr(library, f"SparseInverseConv{ndim}d")(12, 6, 3, "down", bias=True),
        )

    compare(net(ours), net(theirs), parts, SHAPE[:ndim])


@pytest.mark.parametrize("kind", ["SubMConv", "SparseConv"])
def test_kernels_of_one_tap(kind: str, rng: np.random.Generator) -> None:
    """Theirs reads a (K, 1, 1, 1, C) weight as if it were (C, K)."""
    parts = random_parts(rng, SHAPE[:3], 8, 0.1)
    like = getattr(theirs, f"{kind}3d")(8, 12, 1)
    compare(getattr(ours, f"{kind}3d")(8, 12, 1), like, parts, SHAPE[:3])


def test_the_same_seed_draws_the_same_weights() -> None:
    torch.manual_seed(3)
    like = theirs.SparseConv3d(5, 7, 3)
    torch.manual_seed(3)
    module = ours.SparseConv3d(5, 7, 3)
    assert_near(module.weight, like.weight, 1e-7)
    assert_near(module.bias, like.bias, 1e-7)


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_max_pools(ndim: int, rng: np.random.Generator) -> None:
    """Of features that are not negative: theirs takes no maximum below 0 on a CPU."""
    features, sites = random_parts(rng, SHAPE[:ndim], 8, 0.1 if ndim < 4 else 0.01)
    name = f"SparseMaxPool{ndim}d"
    parts = features.abs(), sites
    compare(getattr(ours, name)(3, 2, 1), getattr(theirs, name)(3, 2, 1), parts, SHAPE[:ndim])


def dense_mean(x: Any, size: int) -> Any:
    """The mean of the active sites in windows of a dense grid, differentiable."""
    active = x.replace_feature(torch.ones_like(x.features[:, :1])).dense()
    sums, counts = (
        torch.nn.functional.avg_pool3d(each, size, divisor_override=1)
        for each in (x.dense(), active)
    )
    return sums / counts.clamp(min=1)


def test_mean_pools(rng: np.random.Generator) -> None:
    """Theirs has none on a CPU."""
    features, sites = random_parts(rng, (8, 6, 4), 5, 0.2)
    x = features.requires_grad_()
    made = ours.SparseAvgPool3d(2)(ours.SparseConvTensor(x, sites, [8, 6, 4], 2)).dense()
    factors = torch.randn(made.shape)
    (made * factors).sum().backward()
    found, x.grad = x.grad, None
    expected = dense_mean(ours.SparseConvTensor(x, sites, [8, 6, 4], 2), 2)
    assert_near(made, expected)
    (expected * factors).sum().backward()
    assert_near(found, x.grad)


@pytest.mark.parametrize("kind", ["Max", "Avg"])
def test_pools_of_whole_grids(kind: str, rng: np.random.Generator) -> None:
    features, sites = random_parts(rng, (8, 6, 4), 5, 0.2)
    x = features.requires_grad_()
    made = getattr(ours, f"SparseGlobal{kind}Pool")()(ours.SparseConvTensor(x, sites, [8, 6, 4], 3))
    assert made.shape == (3, 5) and not made[2].any()
    factors = torch.randn(made.shape)
    (made * factors).sum().backward()
    found, x.grad = x.grad, None
    grids = [x[sites[:, 0] == batch] for batch in range(2)]
    expected = torch.stack([rows.max(0)[0] if kind == "Max" else rows.mean(0) for rows in grids])
    assert_near(made[:2], expected)
    (expected * factors[:2]).sum().backward()
    assert_near(found, x.grad)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_element_types(dtype: str, rng: np.random.Generator) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    features, sites = random_parts(rng, SHAPE[:3], 8, 0.1)
    kind = getattr(torch, dtype)
    module = ours.SubMConv3d(8, 12, 3).to(kind)
    like = ours.SubMConv3d(8, 12, 3)
    like.load_state_dict(module.state_dict())
    made = module(ours.SparseConvTensor(features.to(kind), sites, SHAPE[:3], 2)).features
    assert made.dtype == kind
    expected = like(ours.SparseConvTensor(features.to(kind).float(), sites, SHAPE[:3], 2)).features
    precision = {"float64": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    assert_near(made.float(), expected, precision)


def test_grouped_and_even_kernels_are_those_of_fastconv(rng: np.random.Generator) -> None:
    """Spconv has neither."""
    from fastconv import sparse

    features, sites = random_parts(rng, SHAPE[:3], 8, 0.1)
    module = ours.SubMConv3d(8, 12, (2, 3, 4), groups=4)
    made = module(ours.SparseConvTensor(features, sites, SHAPE[:3], 2)).features
    x = sparse.SparseTensor(features.numpy(), sites.numpy(), SHAPE[:3], 2)
    weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
    expected = sparse.subm_conv(x, weight, bias, groups=4, weight_layout="KRSC").features
    assert np.array_equal(made.detach().numpy(), expected)


def test_a_residual_is_added(rng: np.random.Generator) -> None:
    features, sites = random_parts(rng, SHAPE[:3], 8, 0.1)
    x = ours.SparseConvTensor(features, sites, SHAPE[:3], 2)
    module = ours.SubMConv3d(8, 8, 3)
    assert torch.equal(module(x, add_input=x).features, module(x).features + features)


def test_sites_are_counted_where_that_is_asked_for(rng: np.random.Generator) -> None:
    features, sites = random_parts(rng, SHAPE[:3], 8, 0.1)
    x = ours.SparseConvTensor(features, sites, SHAPE[:3], 2)
    module = ours.SparseConv3d(8, 8, 3, 2, record_voxel_count=True)
    made = module(x)
    assert module.get_max_num_voxels().tolist() == [len(made.features)]
    module.load_state_dict(ours.SparseConv3d(8, 8, 3, 2).state_dict())
    assert module.get_max_num_voxels().tolist() == [0]


def test_a_tensor_without_a_site(rng: np.random.Generator) -> None:
    x = ours.SparseConvTensor(torch.ones(0, 8), torch.ones(0, 4, dtype=torch.int32), [9] * 3, 1)
    net = ours.SparseSequential(
        ours.SubMConv3d(8, 4, 3), torch.nn.BatchNorm1d(4), ours.SparseConv3d(4, 6, 3, 2)
    )
    made = net(x)
    assert made.features.shape == (0, 6) and made.spatial_shape == [4] * 3
    assert not made.dense().any()
