"""Module samples of PyTorch's own tests: the same outputs and gradients under `patch()`."""

from __future__ import annotations

import contextlib
import copy
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="package torch is not installed")
pytest.importorskip("expecttest", reason="package expecttest, which torch's samples want, is not")

from torch.autograd import forward_ad  # noqa: E402
from torch.testing._internal.common_modules import module_db  # noqa: E402

import fastconv.torch  # noqa: E402
from fastconv.torch import patching  # noqa: E402

pytestmark = pytest.mark.program

F = torch.nn.functional
WORDS = ("Conv", "Pool", "Linear", "BatchNorm", "GroupNorm", "LayerNorm", "Softmax", "PReLU")
INFOS = {
    info.name: info
    for info in module_db
    if any(each in info.name for each in WORDS) and "Softmax2d" not in info.name
}
#: Of which PyTorch computes all, or some, itself.
THEIRS = ("FractionalMaxPool", "MaxUnpool", "BatchNorm", "WithLoss", "EntropyLoss")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the functions of fastconv's that have computed under `patch`."""
    made: list[str] = []
    whole = patching._standing_in

    def counted(own: Any, theirs: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = own(*args, **kwargs)
            made.append(own.__name__)
            return result

        return whole(call, theirs)

    monkeypatch.setattr(patching, "_standing_in", counted)
    return made


def outcome(module: Any, sample: Any, patched: bool) -> tuple[Any, list[Any]]:
    """Output and gradients of a module's sample."""
    module = copy.deepcopy(module)
    args = [
        each.detach().clone().requires_grad_(each.requires_grad)
        if isinstance(each, torch.Tensor)
        else each
        for each in sample.forward_input.args
    ]
    torch.manual_seed(0)  # lazy modules draw their weights, fractional pools their windows
    with fastconv.torch.patch() if patched else contextlib.nullcontext():
        out = module(*args, **sample.forward_input.kwargs)
        parts = [o for o in (out if isinstance(out, tuple) else (out,)) if o.requires_grad]
        draw = torch.Generator().manual_seed(0)
        weights = [torch.randn(part.shape, generator=draw, dtype=part.dtype) for part in parts]
        torch.autograd.backward(parts, weights)
    given = [each for each in args if isinstance(each, torch.Tensor)]
    return out, [each.grad for each in (*given, *module.parameters())]


def test_there_are_as_many_modules_as_pytorch_has() -> None:
    assert sum("Conv" in name or "Pool" in name for name in INFOS) >= 29


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(INFOS))
def test_module_samples(name: str, dtype: str, calls: list[str]) -> None:
    info, kind, ran = INFOS[name], getattr(torch, dtype), 0
    if dtype == "float32" and "Fractional" in name:
        pytest.skip("the samples' windows are drawn in float64")
    tolerance = {"rtol": 2e-5, "atol": 2e-5} if dtype == "float32" else {}
    for training in (False, True):
        samples = info.module_inputs_func(
            info, device="cpu", dtype=kind, requires_grad=True, training=training
        )
        for sample in samples:
            built = sample.constructor_input
            module = info.module_cls(*built.args, **built.kwargs).to(kind).train(training)
            wanted = outcome(module, sample, False)
            made = outcome(module, sample, True)  # roots of negative sums are NaN in both
            torch.testing.assert_close(made, wanted, equal_nan=True, **tolerance)
            given = [*sample.forward_input.args, *sample.forward_input.kwargs.values()]
            ran += given[0].dim() > 0  # a lone number is left to PyTorch
    assert ran > 0
    if not any(each in name for each in THEIRS):
        assert len(calls) >= ran, "PyTorch computed what fastconv should have"


def _calls(x: Any) -> Any:
    """Return what functions of each kind make of images, as one sum for each of them."""
    w, ones = torch.linspace(-1, 1, 27, dtype=x.dtype).reshape(1, 3, 3, 3), x.new_ones(3)
    made = (
        F.conv2d(x, w), F.conv_transpose2d(x, w.transpose(0, 1)), F.linear(x, w[0, 0]),
        F.max_pool2d(x, 2), F.avg_pool2d(x, 2), F.lp_pool2d(x, 2, 2), F.adaptive_avg_pool2d(x, 1),
        F.softmax(x, 1), F.batch_norm(x, 0 * ones, ones), F.group_norm(x, 1), F.prelu(x, ones / 2),
        F.layer_norm(x, x.shape[2:]), F.interpolate(x, scale_factor=2), torch.conv2d(x, w),
    )  # fmt: skip
    return torch.stack([each.square().sum() for each in made])


def test_other_ways_to_derive_are_pytorchs() -> None:
    x, direction = torch.randn(2, 1, 3, 4, 3, dtype=torch.float64)
    ways: dict[str, Any] = {
        "jvp": lambda: torch.func.jvp(_calls, (x,), (direction,)),
        "jacrev": lambda: torch.func.jacrev(_calls)(x),
        "grad": lambda: torch.func.grad(lambda x: _calls(x).sum())(x),
        "vmap": lambda: torch.func.vmap(_calls)(torch.stack([x, direction])),
        "jacobian": lambda: torch.autograd.functional.jacobian(_calls, x),
    }

    def dual() -> Any:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(_calls(forward_ad.make_dual(x, direction))).tangent

    for name, way in {**ways, "dual": dual}.items():
        wanted = way()
        with fastconv.torch.patch():
            made = way()
        torch.testing.assert_close(made, wanted, msg=lambda text, name=name: f"{name}: {text}")
    with forward_ad.dual_level():
        assert fastconv.torch.linear(x, x[0, 0]).shape == (1, 3, 4, 4)  # has no tangent
        with pytest.raises(fastconv.DTypeError, match=r"input: .* tangent"):
            fastconv.torch.softmax(forward_ad.make_dual(x, direction), 1)


def test_everything_is_put_back() -> None:
    before = {name: getattr(F, name) for name in patching.functional.__all__}
    with fastconv.torch.patch():
        assert F.conv2d is not before["conv2d"]
        with fastconv.torch.patch():
            inner = F.conv2d
        assert F.conv2d is inner is not before["conv2d"]
    assert {name: getattr(F, name) for name in before} == before
    with pytest.raises(KeyError), fastconv.torch.patch():
        raise KeyError
    assert F.conv2d is before["conv2d"]


def test_blocks_of_several_threads_end_with_the_last() -> None:
    before, entered, done = F.conv2d, threading.Event(), threading.Event()

    def other() -> None:
        with fastconv.torch.patch():
            entered.set()
            done.wait()

    thread = threading.Thread(target=other)
    with fastconv.torch.patch():
        thread.start()
        entered.wait()
    assert F.conv2d is not before
    done.set()
    thread.join()
    assert F.conv2d is before


def test_what_is_not_supported_is_pytorchs(calls: list[str]) -> None:
    x, weight = torch.arange(16).reshape(1, 1, 4, 4), torch.ones(1, 1, 2, 2, dtype=torch.int64)
    complex_x = torch.randn(1, 1, 4, 4, dtype=torch.complex64)
    with fastconv.torch.patch():
        assert torch.equal(F.conv2d(x, weight), torch.ops.aten.conv2d(x, weight))
        made = F.conv2d(complex_x, torch.ones(1, 1, 2, 2, dtype=torch.complex64))
        assert made.dtype == torch.complex64
        assert F.conv2d(torch.ones(1, 1, 4, 4, device="meta"), weight.to("meta").float()).is_meta
        with pytest.raises(RuntimeError, match="stride should not be zero"):
            F.max_pool2d(torch.ones(1, 1, 4, 4), 2, stride=0)
        with pytest.raises(RuntimeError, match="channels"):
            F.conv2d(torch.ones(1, 2, 4, 4), torch.ones(1, 3, 1, 1))
    assert calls in ([], ["conv2d"])  # a meta tensor has a shape, which is all that is wanted
