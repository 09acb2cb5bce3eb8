"""What is written into an optimised model's weights, norms and numbers counts at its next call."""

from __future__ import annotations

import copy
import ctypes
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="package torch is not installed")

from torch import nn  # noqa: E402

import fastconv  # noqa: E402
import fastconv.torch  # noqa: E402
from torch_models import Residual, model_of, same  # noqa: E402

pytestmark = pytest.mark.program


@torch.no_grad()
def test_what_is_loaded_or_moved_counts() -> None:
    model = model_of(Residual)
    fast = fastconv.torch.optimize(model)
    x = torch.randn(1, 3, 16, 16)
    fast(x)
    state = {k: v + 0.1 if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    fast.load_state_dict(state)
    same(fast(x), model(x))
    same(fast.double()(x.double()), model.double()(x.double()))
    model.stem.weight.data.mul_(2)
    fast.stem.weight.data.mul_(2)
    assert not torch.equal(fast(x.double()), model(x.double()) * 2)


@torch.no_grad()
def test_whatever_is_put_into_a_weight_counts() -> None:
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
    model, x = model_of(lambda: nn.Sequential(*layers)), torch.randn(1, 2, 6, 6)
    fast = fastconv.torch.optimize(model)

    def check() -> None:
        same(fast(x), model(x))
        same(fast[0](x), model[0](x))

    check()
    for _ in range(4):  # each is likely to lie where the one before the last did
        fast[0].weight.data = (weight := torch.randn(4, 2, 3, 3)).clone()
        model[0].weight.data = weight
        check()
    for number in (2.0, 3.0):
        for each in (fast, model):
            each[0].weight = nn.Parameter(torch.full((4, 2, 3, 3), number), requires_grad=False)
        check()
        for each in (fast, model):
            each[0].weight.data.mul_(-number)
        check()
        for each in (fast, model):
            each[1].running_var.data.mul_(4)
            each[1].weight.data[1] = float("nan")
        torch.testing.assert_close(fast(x), model(x), equal_nan=True)
        for each in (fast, model):
            state = {name: torch.full_like(t, number) for name, t in each.state_dict().items()}
            each.load_state_dict(state, assign=True)
        check()
    for each in (fast, model):
        each[1].eps, each[0].stride, each[0].padding = 1.0, (2, 1), (1, 1)
    check()


def _fused_step(weight: Any) -> None:
    weight.grad = torch.zeros_like(weight)
    weight.grad[5, 7, 1, 1] = 1
    torch.optim.SGD([weight], lr=1.0, fused=True).step()
    weight.grad = None


def _set_one(values: Any) -> None:
    values[5, 7, 1, 1] = 3


#: Ways to write into a weight, and whether PyTorch's counter of its changes is raised.
_WAYS: dict[str, tuple[Any, bool]] = {
    "operator": (_set_one, True),
    "data": (lambda weight: _set_one(weight.data), False),
    "numpy": (lambda weight: _set_one(weight.detach().numpy()), False),
    "dlpack": (lambda weight: _set_one(torch.from_dlpack(weight.detach())), False),
    "fused": (_fused_step, False),
    "C": (lambda weight: ctypes.memset(weight.data_ptr() + 4 * 4711, 0, 4), False),
}


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("way", _WAYS)
@torch.no_grad()
def test_one_element_written_by_any_way_counts(way: str, normed: bool) -> None:
    """Of a large weight; that some ways raise no counter is why all bits are read."""
    model = nn.Sequential(nn.Conv2d(32, 64, 3), *([nn.BatchNorm2d(64)] if normed else [])).eval()
    fast, x = fastconv.torch.optimize(model), torch.randn(1, 32, 6, 6)
    before = fast(x)
    write, raises = _WAYS[way]
    for each in (model, fast):
        weight = each[0].weight.requires_grad_(False)
        version, place = weight._version, weight.data_ptr()
        write(weight)
        assert (weight._version > version, weight.data_ptr()) == (raises, place)
    after = fast(x)
    same(after, model(x))
    assert not torch.equal(after, before)
    assert torch.equal(fast(x), after)


@torch.no_grad()
def test_a_weight_is_packed_once() -> None:
    """And again where its bits differ alone, not where they were written as they are."""
    fast = fastconv.torch.optimize(nn.Sequential(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64)).eval())
    x, pack = torch.randn(1, 32, 6, 6), fast.__dict__["forward"].fused_0
    objects = []
    for number in (0, 0, 1, 0):
        fast[0].weight.data[0] += number
        fast(x)
        objects.append(pack._made[torch.float32, True][1])
    assert objects[0] is objects[1] is not objects[2] and objects[2] is objects[3]


class InSequence(nn.Module):
    """A sequence in what cannot be traced."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def __getitem__(self, place: int) -> nn.Module:
        return self.layers[place]

    def forward(self, x: Any) -> Any:
        return self.layers(x if x.sum() > 0 else -x)


@pytest.mark.parametrize("whole", [nn.Sequential, InSequence])
@torch.no_grad()
def test_what_becomes_of_fused_modules_is_seen(whole: Any) -> None:
    layers = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.LeakyReLU(0.1)
    model, x = model_of(lambda: whole(*layers)), torch.randn(1, 2, 4, 4)
    fast, report = fastconv.torch.optimize(model, report=True)
    (what,) = report.swapped.values()
    assert what.startswith("Conv2d + BatchNorm2d + ")
    same(fast(x), model(x))
    seen: list[str] = []
    for place in range(3):  # of what is fused no module is called itself
        handle = fast[place].register_forward_hook(lambda *given: seen.append("seen"))
        same(fast(x), model(x))
        same(copy.deepcopy(fast)(x), model(x))
        handle.remove()
        same(fast(x), model(x))
        assert len(seen) == 2 * (place + 1)
    with nn.modules.module.register_module_forward_hook(lambda *given: seen.append("all")):
        fast(x)
    assert seen.count("all") >= 3
    for each in (fast, model):
        each[2].negative_slope = 0.9
    same(fast(x), model(x))
    for each in (fast, model):
        (each if whole is nn.Sequential else each.layers)[2] = nn.Sigmoid()
    same(fast(x), model(x))


@torch.no_grad()
def test_numbers_of_a_model_are_seen() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.scale, self.down = nn.Conv2d(1, 1, 1), 2.0, None

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.conv(x)) * self.scale
            return x if self.down is None else self.down(x)

    model, x = model_of(Scaled), torch.randn(1, 1, 2, 2)
    fast, report = fastconv.torch.optimize(model, report=True)
    assert report.traced
    for each in (fast, model):
        each.scale = 3.0
    same(fast(x), model(x))
    for each in (fast, model):
        each.down = nn.MaxPool2d(2)
    same(fast(x), model(x))
