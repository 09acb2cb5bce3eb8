"""Optimised models compute what they did, keep what they are, and say truly what was done."""

from __future__ import annotations

import copy
import ctypes
import io
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="package torch is not installed")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fastconv  # noqa: E402
import fastconv.torch  # noqa: E402

pytestmark = pytest.mark.program


class Block(nn.Module):
    """A residual block, as in ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        down = nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        self.down = nn.Sequential(*down) if stride > 1 else nn.Identity()

    def forward(self, x: Any) -> Any:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.down(x)
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 5, 2, 2, bias=False), nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Block(8, 8), Block(8, 16, 2))
        self.drop, self.last = nn.Dropout(), nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = self.blocks(self.pool(F.relu(self.norm(self.stem(x)))))
        return self.last(self.drop(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)))


class Branching(Residual):
    """Cannot be traced: what is computed depends on the input's values."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.PReLU(8), nn.Tanh())

    def forward(self, x: Any) -> Any:
        x = self.norm(self.stem(x))
        return self.tail(x) if x.sum() > 0 else self.tail(-x)


class Bottlenecks(Residual):
    """Ends blocks without an activation, as MobileNet v2 does: a layer reads a layer's norm."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16),
            nn.ReLU6(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 16, 1), nn.ReLU6(),
        )  # fmt: skip


class Hourglass(nn.Module):
    """Goes down and up again, beside what it was, as a U-Net does."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2))
        self.deep = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, padding_mode="reflect"), nn.BatchNorm2d(8),
            nn.Hardswish(), nn.Conv2d(8, 16, 1), nn.ELU(0.5),
        )  # fmt: skip
        self.up, self.norm = nn.ConvTranspose2d(16, 8, 4, 2, 1, groups=4), nn.BatchNorm2d(8)
        self.act, self.last = nn.PReLU(8), nn.Conv2d(11, 2, 1)

    def forward(self, x: Any) -> Any:
        up = self.act(self.norm(self.up(self.deep(self.down(x)))))
        return self.last(torch.cat([up, x], 1)).sigmoid()


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


def model_of(kind: Any, *args: Any) -> Any:
    torch.manual_seed(0)
    model = kind(*args).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model


def same(made: Any, wanted: Any) -> None:
    torch.testing.assert_close(made, wanted, rtol=2e-4, atol=2e-4)


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


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (3, fastconv.DTypeError, "model: got int"),
        (nn.Conv2d(1, 1, 1), fastconv.ArgumentError, r"the model in training mode.*model\.eval"),
        (nn.Sequential(nn.BatchNorm2d(1).eval()), fastconv.ArgumentError, "training mode"),
        (torch.jit.script(nn.ReLU().eval()), fastconv.ArgumentError, "before torch.compile"),
        (torch.compile(nn.ReLU().eval()), fastconv.ArgumentError, "before torch.compile"),
    ],
)
def test_other_models_are_refused(model: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fastconv.torch.optimize(model)


def test_a_model_that_cannot_be_copied_is_refused_or_left() -> None:
    with pytest.warns(FutureWarning):
        model = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(1, 2, 1)), nn.Conv2d(2, 2, 1)).eval()
    with pytest.raises(fastconv.ArgumentError, match=r"model: .*cannot be copied.*inplace=True"):
        fastconv.torch.optimize(model)
    x = torch.randn(1, 1, 2, 2)
    with torch.no_grad():
        wanted = model(x)
        fast, report = fastconv.torch.optimize(model, inplace=True, report=True)
        assert set(report.swapped) == {"1"} and report.left["0"] == "hooks are called with it"
        same(fast(x), wanted)


def test_training_afterwards_is_refused() -> None:
    fast = fastconv.torch.optimize(model_of(Residual)).train()
    with pytest.raises(fastconv.ArgumentError, match="in training mode"):
        fast(torch.ones(1, 3, 16, 16))


class Own(nn.Conv2d):
    """Is no plain convolution."""

    def forward(self, input: Any) -> Any:
        return super().forward(input) + 1


class Parts(nn.Module):
    """A part for each reason why one is left."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.plain, self.unused = Own(2, 2, 1), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.hooked = nn.Conv2d(2, 2, 1)
        self.hooked.register_forward_hook(lambda *given: None)
        self.after_own, self.free = nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False)
        self.softplus, self.flat, self.rows = nn.Softplus(), nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.whole = nn.Conv2d(2, 2, 1).to(torch.complex64)
        self.idle = nn.Dropout()

    def forward(self, x: Any) -> Any:
        x = self.idle(x)
        x = self.softplus(self.free(self.plain(self.after_own(self.own(self.hooked(x))))))
        x = F.conv2d(x, self.plain.weight)
        return self.rows(self.flat(F.max_pool2d(x, 2).mean((2, 3))))


def test_reasons_are_true() -> None:
    model = Parts().eval()
    fast, report = fastconv.torch.optimize(model, report=True)
    assert report.traced and set(report.swapped) == {"plain", "flat", "max_pool2d"}
    wanted = {
        "own": "Own is no plain Conv2d, and may compute something else",
        "hooked": "hooks are called with it",
        "after_own": "its input comes from add, which takes in nothing",
        "free": "it takes its statistics from the input",
        "softplus": "fastconv has no layer for Softplus",
        "rows": "after a dense layer it may normalise along another axis",
        "idle": "Dropout hands its input on",
        "whole": "its weight is of torch.complex64",
        "unused": "the model does not call it",
        "conv2d": "a function, whose weight no module keeps packed",  # within `own`
        "conv2d_1": "a function, whose weight no module keeps packed",
    }
    assert set(report.left) == set(wanted)
    for name, words in wanted.items():
        assert report.left[name].startswith(words), (name, report.left[name])
        assert f"  {name}: left, {words}" in str(report)
    x = torch.randn(2, 2, 4, 4)
    with torch.no_grad():
        same(fast(x), model(x))


@torch.no_grad()
def test_arguments_that_may_be_missing() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.down = nn.Conv2d(1, 1, 1), None

        def forward(self, x: Any, y: Any = None, double: Any = False, *, name: str = "a") -> Any:
            x = torch.relu(self.conv(x)) if self.down is None else x
            x = x if y is None else x + y
            return (x * 2 if double else x) + len(name)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Optional()

        def forward(self, x: Any, y: Any) -> Any:
            return self.inner(self.inner(x, double=True), y)

    x, y = torch.randn(2, 1, 1, 2, 2)
    model = model_of(Optional)
    fast, report = fastconv.torch.optimize(model, report=True)
    assert report.traced and report.swapped["conv"] == "Conv2d + relu"
    for args, words in (
        ((x,), {}), ((), {"x": x}), ((x, y), {}), ((x, None), {}), ((x,), {"y": y}),
        ((x, y, True), {}), ((x,), {"double": True}), ((x,), {"name": "abc"}),
    ):  # fmt: skip
        same(fast(*args, **words), model(*args, **words))
    model = model_of(Twice)
    fast, report = fastconv.torch.optimize(model, report=True)
    assert report.traced
    same(fast(x, y), model(x, y))
    same(fast(x, None), model(x, None))


@pytest.mark.parametrize("what", ["buffer", "list", "dict", "append", "outside", "random"])
@torch.no_grad()
def test_what_a_run_changes_is_changed_by_every_call(what: str) -> None:
    seen: list[int] = [0]

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.calls, self.all, self.feats = nn.Conv2d(1, 1, 1), [0], [], {}
            self.register_buffer("n", torch.zeros(1))

        def forward(self, x: Any) -> Any:
            if what == "buffer":
                self.n.add_(1)
            elif what == "list":
                self.calls[0] += 1
            elif what == "append":
                self.all.append(1)
            elif what == "outside":
                seen[0] += 1
            elif what == "random":
                torch.manual_seed(int(torch.empty(1).exponential_()[0]))
            x = self.conv(x)
            if what == "dict":
                self.feats["conv"] = x
            return x

    model = model_of(Keeps)
    before = torch.get_rng_state()
    fast, report = fastconv.torch.optimize(model, inplace=True, report=True)
    assert not report.traced and "changes what" in report.note.replace("the model's", "what")
    assert torch.equal(before, torch.get_rng_state())
    assert (
        not fast.n.any() and fast.calls == [0] and not fast.all and not fast.feats and seen == [0]
    )
    for _ in range(2):
        made = fast(torch.ones(1, 1, 2, 2))
    found = {
        "buffer": int(fast.n[0]), "list": fast.calls[0], "append": len(fast.all),
        "outside": seen[0], "random": 2, "dict": 2 * (fast.feats.get("conv") is made),
    }  # fmt: skip
    assert found[what] == 2


def test_what_cannot_be_traced_says_why() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.calls = nn.Conv2d(1, 1, 1), nn.ReLU(), 0

    class Types(Asks):
        def forward(self, x: Any) -> Any:
            return self.relu(self.conv(x)) if isinstance(x, torch.Tensor) else x

    class Counts(Asks):
        def forward(self, x: Any) -> Any:
            self.calls += 1
            return self.conv(x) * self.calls

    class Draws(Asks):
        def forward(self, x: Any) -> Any:
            return self.conv(x) + torch.rand(1)

    class Member(Asks):
        def forward(self, x: Any) -> Any:
            return self.conv(x) if x.dim() in {4} else x

    class Grad(Asks):
        def forward(self, x: Any) -> Any:
            return self.conv(x) if x.grad is None else x

    class Helper(Asks):
        def rows(self, x: Any) -> Any:
            return self.conv(x) if (x.dim() == 4) is True else x

        def forward(self, x: Any) -> Any:
            return self.rows(x)

    class Sure(Asks):
        def forward(self, x: Any, double: Any = False) -> Any:
            return self.conv(x) if double is True else x

    class Looks(Asks):
        def forward(self, x: Any) -> Any:
            return self.conv(x) * {3: 2.0}.get(x.dim(), 1.0)

    class Names(Asks):
        def forward(self, x: Any) -> Any:
            return self.conv(x) * {"3": 2.0}.get(f"{x.dim()}", 1.0)

    class Makes(Asks):
        def forward(self, x: Any) -> Any:
            return self.conv(x) + torch.arange(2.0).sum()

    for kind, words in (
        (Types, "asks for the types"),
        (Counts, "changes the model's attributes"),
        (Draws, "draws random numbers"),
        (Member, "by `is` or `in`"),
        (Grad, "by `is` or `in`"),
        (Sure, "by `is` or `in`"),
        (Helper, "by `is` or `in`"),
        (Looks, "values are looked up"),
        (Names, "values are written out"),
        (Makes, "its forward makes tensors"),
        (Branching, "torch.fx cannot trace its control flow (TraceError"),
    ):
        _, report = fastconv.torch.optimize(model_of(kind), report=True)
        assert not report.traced and words in report.note and words in str(report), report.note
        assert report.swapped
    assert report.left["norm"].startswith("it is in no Sequential")
    assert report.fused["tail.1"] == report.fused["tail.2"] == "tail.0"
    assert report.left["tail.3"].startswith("its input comes from PReLU")
    one = fastconv.torch.optimize(nn.Conv2d(1, 1, 1).eval(), report=True)[1]
    assert one.note == "the model is one Conv2d" and one.swapped == {"": "Conv2d"}
