"""Optimised models compute what they did, and keep what they are."""

from __future__ import annotations

import copy
import io
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="package torch is not installed")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fastconv  # noqa: E402
import fastconv.torch  # noqa: E402
from torch_models import Bottlenecks, Branching, Hourglass, Residual, model_of, same  # noqa: E402

pytestmark = pytest.mark.program


class Traps(nn.Module):
    """What must not be fused as it seems."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.relu, self.norm = nn.ReLU(inplace=True), nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        x = x * 1
        read_twice = self.a(x)
        changed = self.b(x)
        x.mul_(2)  # between the convolution and its sum
        summed = torch.relu(changed + x)
        broadcast = self.c(x) + x.mean((2, 3), keepdim=True)
        x += self.norm(read_twice)  # its memory is read below
        return summed + self.relu(read_twice) + torch.tanh(broadcast) + x


@pytest.mark.parametrize("kind", [Residual, Bottlenecks, Branching, Hourglass])
@pytest.mark.parametrize("order", ["contiguous_format", "channels_last"])
@torch.no_grad()
def test_networks(kind: Any, order: str) -> None:
    model = model_of(kind)
    fast = fastconv.torch.optimize(model)
    assert type(fast) is kind and list(fast.state_dict()) == list(model.state_dict())
    assert isinstance(fast.stem if kind is not Hourglass else fast.last, nn.Conv2d)
    for size in (16, 24):
        x = torch.randn(2, 3, size, size).contiguous(memory_format=getattr(torch, order))
        wanted, kept = model(x), x.clone()
        made = fast(x)
        same(made, wanted)
        assert torch.equal(x, kept) and made.stride() == wanted.stride()


@torch.no_grad()
def test_what_must_not_be_fused() -> None:
    model = model_of(Traps)
    fast, report = fastconv.torch.optimize(model, report=True)
    x = torch.randn(2, 4, 6, 6)
    same(fast(x), model(x))
    assert report.left["norm"] == "2 read the output of the Conv2d before it"
    assert "sum" not in report.swapped["b"]


@torch.no_grad()
def test_parts_of_a_model_stay_what_they_are() -> None:
    model = model_of(Residual)
    fast = fastconv.torch.optimize(model)
    x = torch.randn(1, 8, 8, 8)
    same(fast.blocks(x), model.blocks(x))
    same(fast.norm(fast.stem(x[:, :3])), model.norm(model.stem(x[:, :3])))
    tail = model_of(Branching)
    fast_tail = fastconv.torch.optimize(tail)
    same(fast_tail.tail[:2](x), tail.tail[:2](x))
    same(fast_tail.tail[0](x), tail.tail[0](x))


@torch.no_grad()
def test_a_sum_of_other_shapes_broadcasts() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 1)

        def forward(self, x: Any, y: Any) -> Any:
            return F.leaky_relu(self.conv(x) + y) + torch.relu(self.conv(x) + y)

    model = model_of(Sum)
    fast, report = fastconv.torch.optimize(model, report=True)
    assert report.swapped["conv"].startswith("Conv2d + sum")
    x = torch.randn(2, 2, 4, 4)
    for y in (torch.randn(2, 3, 4, 4), torch.randn(3, 1, 1), torch.tensor(2.0)):
        same(fast(x, y), model(x, y))
    same(fast(x[0], torch.randn(3, 4, 4)).shape, torch.Size([3, 4, 4]))


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
@torch.no_grad()
def test_a_sum_behind_a_dense_layer(shape: tuple[int, ...]) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Linear(3, 3)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.flat(x) + x)

    model, x = model_of(Sum), torch.randn(shape)
    wanted, kept = model(x), x.clone()
    same(fastconv.torch.optimize(model)(x), wanted)
    assert torch.equal(x, kept)


@torch.no_grad()
def test_copies_and_pickles() -> None:
    for kind in (Residual, Branching):
        model = model_of(kind)
        fast = fastconv.torch.optimize(model)
        x = torch.randn(1, 3, 16, 16)
        wanted = fast(x)
        file = io.BytesIO()
        torch.save(fast, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        other = copy.deepcopy(fast)
        fast.stem.weight.zero_()
        assert torch.equal(loaded(x), wanted) and torch.equal(other(x), wanted)


@torch.no_grad()
def test_in_place_and_twice() -> None:
    model = model_of(Residual)
    x = torch.randn(1, 3, 16, 16)
    wanted = model(x)
    assert fastconv.torch.optimize(model, inplace=True) is model
    same(model(x), wanted)
    again = fastconv.torch.optimize(model)
    assert again is not model
    same(again(x), wanted)


def test_around_it() -> None:
    """Autocast, inference_mode, threads and torch.compile."""
    model = model_of(Residual)
    fast, x = fastconv.torch.optimize(model), torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        wanted = model(x)
        same(fast(x), wanted)
    with torch.no_grad(), torch.autocast("cpu"):
        made, lower = fast(x), model(x)
        assert made.dtype == lower.dtype == torch.bfloat16
        assert (made - lower).abs().max() < 0.05 * lower.abs().max()
    made, results = fast(x), []  # gradients are on, and nothing wants one
    threads = [threading.Thread(target=lambda: results.append(fast(x))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(torch.equal(each, made) for each in results)
    same(torch.compile(fast, backend="eager")(x), made)


def test_no_result_is_detached_without_a_word() -> None:
    fast, x = fastconv.torch.optimize(model_of(Residual)), torch.randn(1, 3, 16, 16)
    with pytest.raises(fastconv.DTypeError, match=r"input: .*fastconv\.torch\.patch"):
        fast(x.requires_grad_())
    fast.blocks[0].conv1.weight.requires_grad_()
    with pytest.raises(fastconv.DTypeError, match=r"weight: .*requires gradients"):
        fast(x.detach())
    with torch.no_grad():
        fast(x)

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x: Any, y: Any) -> Any:
            return self.conv(x) + y

    fast, report = fastconv.torch.optimize(model_of(Sum), report=True)
    assert report.swapped["conv"] == "Conv2d + sum"
    x, y = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2, requires_grad=True)
    with pytest.raises(fastconv.DTypeError, match=r"residual: .*requires gradients"):
        fast(x, y)
    fast.conv.bias.requires_grad_()
    with pytest.raises(fastconv.DTypeError, match=r"bias: .*requires gradients"):
        fast(x, y.detach())
