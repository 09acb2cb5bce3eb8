"""Whole networks with the same weights: SECOND's encoder and a U-Net, beside spconv's."""

from __future__ import annotations

import copy
import gc
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from fastconv.spconv import pytorch as ours  # noqa: E402
from fastconv.spconv.pytorch import fusing  # noqa: E402
from spconv_helpers import (  # noqa: E402
    assert_near,
    assert_same_gradients,
    assert_same_tensor,
    random_parts,
    threads,
)

SHAPE = (41, 40, 36)


def block(library: Any, kind: str, channels: tuple[int, int], **arguments: Any) -> Any:
    return library.SparseSequential(
        getattr(library, f"{kind}3d")(*channels, 3, bias=False, **arguments),
        torch.nn.BatchNorm1d(channels[1], eps=1e-3, momentum=0.01),
        torch.nn.ReLU(),
    )


class Second(torch.nn.Module):
    """The middle encoder of SECOND: submanifold blocks, and three steps down."""

    def __init__(self, library: Any) -> None:
        super().__init__()
        self.library = library
        layers = [
            block(library, "SubMConv", (4, 16), padding=1, indice_key="subm1"),
            block(library, "SubMConv", (16, 16), padding=1, indice_key="subm1"),
        ]
        for number, (before, after) in enumerate(((16, 32), (32, 64), (64, 64)), 2):
            padding = 1 if number < 4 else (0, 1, 1)
            layers += [
                block(library, "SparseConv", (before, after), stride=2, padding=padding,
                      indice_key=f"spconv{number}"),
                block(library, "SubMConv", (after, after), padding=1, indice_key=f"subm{number}"),
                block(library, "SubMConv", (after, after), padding=1, indice_key=f"subm{number}"),
            ]  # fmt: skip
        layers += [library.SparseConv3d(64, 128, (3, 1, 1), (2, 1, 1), bias=False)]
        self.layers = library.SparseSequential(*layers)

    def forward(self, features: Any, sites: Any) -> Any:
        return self.layers(self.library.SparseConvTensor(features, sites, SHAPE, 2))


class Residual(torch.nn.Module):
    """Two submanifold convolutions and a shortcut, a matrix where the channels change."""

    def __init__(self, library: Any, before: int, after: int, key: str) -> None:
        super().__init__()
        self.shortcut = library.SparseSequential(
            library.SubMConv3d(before, after, 1, bias=False) if before != after
            else library.Identity()
        )  # fmt: skip
        self.body = library.SparseSequential(
            torch.nn.BatchNorm1d(before), torch.nn.ReLU(),
            library.SubMConv3d(before, after, 3, padding=1, bias=False, indice_key=key),
            torch.nn.BatchNorm1d(after), torch.nn.ReLU(),
            library.SubMConv3d(after, after, 3, padding=1, bias=False, indice_key=key),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        made = self.body(x)
        return made.replace_feature(made.features + self.shortcut(x).features)


class Unet(torch.nn.Module):
    """A U-Net as of MinkUNet: residual blocks, two steps down and back, channels joined."""

    def __init__(self, library: Any, widths: tuple[int, ...] = (16, 24, 32)) -> None:
        super().__init__()
        self.library = library
        self.first = library.SubMConv3d(4, widths[0], 3, padding=1, bias=False, indice_key="s0")
        self.down, self.deep, self.up, self.back = (torch.nn.ModuleList() for _ in range(4))
        for number, (wide, wider) in enumerate(itertools.pairwise(widths)):
            self.down.append(Residual(library, wide, wide, f"s{number}"))
            self.deep.append(
                library.SparseConv3d(wide, wider, 2, 2, bias=False, indice_key=f"d{number}")
            )
            self.up.append(library.SparseInverseConv3d(wider, wide, 2, f"d{number}", bias=False))
            self.back.append(Residual(library, 2 * wide, wide, f"s{number}"))
        self.lowest = Residual(library, widths[-1], widths[-1], "lowest")
        self.head = torch.nn.Linear(widths[0], 5)

    def forward(self, features: Any, sites: Any) -> Any:
        x = self.first(self.library.SparseConvTensor(features, sites, SHAPE, 2))
        kept = []
        for residual, step in zip(self.down, self.deep, strict=True):
            x = residual(x)
            kept.append(x)
            x = step(x)
        x = self.lowest(x)
        for residual, step, beside in zip(
            reversed(self.back), reversed(self.up), reversed(kept), strict=True
        ):
            x = step(x)
            x = residual(x.replace_feature(torch.cat([beside.features, x.features], 1)))
        return x.replace_feature(self.head(x.features))


NETWORKS: dict[str, Callable[[Any], Any]] = {"second": Second, "unet": Unet}


def warmed(net: Any, seed: int) -> Any:
    """Batch normalisations as after training, which those in evaluation mode read."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            for values in (module.running_var, module.weight.data):
                values.copy_(0.5 + torch.rand(values.shape, generator=generator))
            for values in (module.running_mean, module.bias.data):
                values.copy_(0.1 * torch.randn(values.shape, generator=generator))
    return net


def smooth(net: Any) -> Any:
    """A network without kinks, whose gradients differ as its values do.

    Where two libraries' float32 values lie on either side of 0, their rectifiers' gradients do too.
    """
    for module in net.modules():
        for name, part in module.named_children():
            if isinstance(part, torch.nn.ReLU):
                setattr(module, name, torch.nn.SiLU())
    return net


@pytest.mark.parametrize(
    ("dtype", "training"), [("float32", False), ("float64", False), ("float64", True)]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_against_spconv(
    name: str, dtype: str, training: bool, rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In training in float64: normalised by their own spread, sums of float32 differ by 2e-5."""
    theirs = pytest.importorskip("spconv.pytorch", reason="spconv is not installed")
    # Their gradients ask for a CUDA stream, which those on a CPU make no use of.
    monkeypatch.setattr("spconv.pytorch.ops.get_current_stream", lambda: 0)
    features, sites = random_parts(rng, SHAPE, 4, 0.015)
    net, like = NETWORKS[name](ours), warmed(NETWORKS[name](theirs), 0)
    if dtype == "float32":
        with torch.no_grad(), threads(1):
            net.load_state_dict(like.state_dict())
            assert_same_tensor(net(features, sites), like(features, sites))
        net, like = smooth(net), smooth(like)
    features = features.to(getattr(torch, dtype))
    net, like = net.to(features.dtype), like.to(features.dtype)
    net.load_state_dict(like.state_dict())
    net.train(training)
    like.train(training)
    if not training:  # theirs adds no bias on a CPU in evaluation mode
        for module in like.modules():
            if isinstance(module, theirs.conv.SparseConvolution):
                module.training = True
    x, y = (features.clone().requires_grad_() for _ in range(2))
    with threads(1):
        made, expected = net(x, sites), like(y, sites)
        assert_same_tensor(made, expected)
        assert_same_gradients(made, expected, x, y, net, like)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_bits_with_any_threads(name: str, rng: np.random.Generator) -> None:
    """In evaluation mode: the means of PyTorch's batch normalisation depend on its threads."""
    features, sites = random_parts(rng, SHAPE, 4, 0.015)
    net, made = warmed(NETWORKS[name](ours), 0).eval(), []
    for count in (1, 2):
        with threads(count):
            net.zero_grad()
            x = features.clone().requires_grad_()
            y = net(x, sites).features
            y.square().sum().backward()
            grads = [
                parameter.grad for module in net.modules() for parameter in module.parameters(False)
                if isinstance(module, ours.conv.SparseConvolution)
            ]  # fmt: skip
            with torch.inference_mode():
                made.append([y.detach(), x.grad, *grads, net(features, sites).features])
    assert len(made[0]) > 10
    assert all(torch.equal(one, two) for one, two in zip(*made, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_inference_is_what_autograd_sees(name: str, rng: np.random.Generator) -> None:
    """But for rounding, where normalisations and rectifiers are folded into convolutions."""
    features, sites = random_parts(rng, SHAPE, 4, 0.015)
    net = warmed(NETWORKS[name](ours), 0).eval()
    expected = net(features, sites).features.detach()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            made = [net(features, sites).features for _ in range(3)]
        assert_near(made[0], expected)
        assert torch.equal(made[0], made[2])  # which finds packed weights


@pytest.mark.parametrize("name", NETWORKS)
def test_a_compiler_leaves_sparse_layers_as_they_are(name: str, rng: np.random.Generator) -> None:
    features, sites = random_parts(rng, SHAPE, 4, 0.015)
    net = warmed(NETWORKS[name](ours), 0).eval()
    expected = net(features, sites).features
    expected.sum().backward()
    grads = {key: parameter.grad for key, parameter in net.named_parameters()}
    net.zero_grad()
    made = torch.compile(net, backend="eager")(features, sites).features
    assert torch.equal(made, expected)
    made.sum().backward()
    assert all(torch.equal(parameter.grad, grads[key]) for key, parameter in net.named_parameters())


def folded(rng: np.random.Generator) -> tuple[Any, Any]:
    features, sites = random_parts(rng, SHAPE, 32, 0.01)
    net = warmed(block(ours, "SubMConv", (32, 48)), 0).eval()
    return net, ours.SparseConvTensor(features, sites, SHAPE, 2)


def apart(net: Any, x: Any) -> Any:
    """What the modules of a block make of a tensor, one after another."""
    y = net[0](x).features
    for module in list(net)[1:]:
        y = module(y)
    return y


@pytest.mark.parametrize("what", ["weight", "gamma", "beta", "mean", "var", "eps", "rectifier"])
def test_what_changes_behind_a_folded_convolution_is_seen(
    what: str, rng: np.random.Generator
) -> None:
    net, x = folded(rng)
    with torch.inference_mode():
        before = net(x).features
        assert_near(before, apart(net, x))
        tensors = {
            "weight": net[0].weight, "gamma": net[1].weight, "beta": net[1].bias,
            "mean": net[1].running_mean, "var": net[1].running_var,
        }  # fmt: skip
        if what in tensors:
            tensors[what].detach().numpy()[...] += 0.25
        elif what == "eps":
            net[1].eps = 0.5
        else:
            net._modules["2"] = torch.nn.Identity()
        after = net(x).features
    assert not torch.equal(before, after)
    assert_near(after, apart(net, x).detach())


@pytest.mark.parametrize("what", ["hook", "training", "subclass", "forward"])
def test_what_is_no_plain_normalisation_is_called(what: str, rng: np.random.Generator) -> None:
    net, x = folded(rng)
    seen: list[int] = []

    class Counted(torch.nn.BatchNorm1d):
        def forward(self, input: Any) -> Any:
            seen.append(1)
            return super().forward(input)

    if what == "subclass":
        net._modules["1"] = Counted(48).eval()
    elif what == "hook":
        net[1].register_forward_hook(lambda *_: seen.append(1))
    elif what == "forward":
        forward = net[1].forward
        net[1].forward = lambda input: (seen.append(1), forward(input))[1]
    else:
        net[1].train()
    with torch.inference_mode():
        made = net(x).features
    if what == "training":
        assert net[1].num_batches_tracked == 1
        assert_near(made, apart(net, x).detach())
    else:
        assert seen == [1]


def test_folded_filters_go_with_their_convolution(rng: np.random.Generator) -> None:
    net, x = folded(rng)
    with torch.inference_mode():
        expected = net(x).features
        other = copy.deepcopy(net)
        assert torch.equal(other(x).features, expected)
        gc.collect()
        kept = len(fusing._FOLDED)
        del other
        gc.collect()
        assert len(fusing._FOLDED) == kept - 1


def test_several_threads_may_call_one_network(rng: np.random.Generator) -> None:
    features, sites = random_parts(rng, SHAPE, 4, 0.015)
    net = warmed(Second(ours), 0).eval()

    def run(factor: float) -> Any:
        with torch.inference_mode():
            return net(factor * features, sites).features

    factors = [1.0, 2.0, 0.5, 1.0] * 2
    with ThreadPoolExecutor(4) as callers:
        made = list(callers.map(run, factors))
    assert all(torch.equal(y, run(factor)) for y, factor in zip(made, factors, strict=True))


def test_changed_weights_are_seen(rng: np.random.Generator) -> None:
    """Whether PyTorch counts the change or not."""
    features, sites = random_parts(rng, SHAPE, 32, 0.01)
    layer = ours.SubMConv3d(32, 48, 3, bias=False)
    x = ours.SparseConvTensor(features, sites, SHAPE, 2)
    with torch.inference_mode():
        before = [layer(x).features for _ in range(3)][-1]
        layer.weight.data.mul_(2)
        assert torch.equal(layer(x).features, 2 * before)
        layer.weight.detach().numpy()[0] = 0
        assert not layer(x).features[:, 0].any()


def test_a_network_learns(rng: np.random.Generator) -> None:
    features, sites = random_parts(rng, SHAPE, 4, 0.015)
    torch.manual_seed(0)
    net = Unet(ours)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    labels = (features[:, 0] > 0).long()
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(features, sites).features, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
