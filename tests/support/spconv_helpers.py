"""What the tests beside spconv share: random tensors, and results in one order of sites."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

import fastconv
from sparse_helpers import random_sites

#: Both sum in float32, each in an order of its own, at most 27 x 64 products.
TOLERANCE = 1e-5


@contextmanager
def threads(count: int) -> Iterator[None]:
    """A number of threads of both libraries: spconv's results on a CPU are right on one alone."""
    theirs, ours = torch.get_num_threads(), fastconv.get_num_threads()
    torch.set_num_threads(count)
    fastconv.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(theirs)
        fastconv.set_num_threads(ours)


def random_parts(
    rng: np.random.Generator, shape: tuple[int, ...], channels: int, share: float,
    batch_size: int = 2,
) -> tuple[Any, Any]:  # fmt: skip
    """Features and sites, in no order."""
    sites = random_sites(rng, shape, batch_size, share).astype(np.int32)
    features = rng.standard_normal((len(sites), channels)).astype(np.float32)
    return torch.from_numpy(features), torch.from_numpy(sites)


def order_of(x: Any) -> torch.Tensor:
    """The order that sorts the rows of a tensor by site."""
    return torch.from_numpy(np.lexsort(x.indices.numpy().T[::-1]))


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    """The largest difference is within a share of the largest value."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    largest = max(1.0, float(theirs.detach().abs().max())) if theirs.numel() else 1.0
    error = float((ours.detach() - theirs.detach()).abs().max()) if theirs.numel() else 0.0
    assert error <= tolerance * largest, error / largest


def assert_same_tensor(ours: Any, theirs: Any) -> None:
    """The same grid and sites, and features that are near."""
    assert list(ours.spatial_shape) == list(theirs.spatial_shape)
    mine, other = order_of(ours), order_of(theirs)
    assert torch.equal(ours.indices[mine], theirs.indices[other])
    assert_near(ours.features[mine], theirs.features[other])


def assert_same_gradients(ours: Any, theirs: Any, x: Any, y: Any, net: Any, like: Any) -> None:
    """Gradients of a sum with random factors: of the features `x`, `y` and of all parameters."""
    mine, other = order_of(ours), order_of(theirs)
    factors = torch.randn(ours.features.shape, generator=torch.Generator().manual_seed(1))
    factors = factors.to(ours.features.dtype)
    (ours.features[mine] * factors).sum().backward()
    (theirs.features[other] * factors).sum().backward()
    assert_near(x.grad, y.grad)
    expected = dict(like.named_parameters())
    for name, parameter in net.named_parameters():
        assert parameter.grad.shape == expected[name].grad.shape
        assert_near(parameter.grad, expected[name].grad)
