"""What optimisation refuses, leaves and cannot trace is said, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="package torch is not installed")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fastconv  # noqa: E402
import fastconv.torch  # noqa: E402
from torch_models import Branching, Residual, model_of, same  # noqa: E402

pytestmark = pytest.mark.program


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
