"""The training demo: gradients of the whole network, a short course, the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastconv.cli import main
from fastconv.demo import lenet, train, train_picture

pytestmark = pytest.mark.program

FEW, HELD = 256, 64


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, ...]:
    images, labels, held, held_labels = train.digits()
    return images[:FEW], labels[:FEW], held[:HELD], held_labels[:HELD]


def theirs(network: lenet.Network, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """PyTorch's logits of the same weights, dropout left out, and its parameters."""
    parameters = [
        torch.from_numpy(value.copy()).requires_grad_()
        for layer in network.layers
        for value in layer.values
    ]
    w = iter(parameters)
    functional = torch.nn.functional
    for pooled in (True, True, False):
        x = functional.conv2d(x, next(w), next(w)).relu()
        x = functional.max_pool2d(x, 2) if pooled else x
    x = functional.linear(x.flatten(1), next(w), next(w)).relu()
    return functional.linear(x, next(w), next(w)), parameters


def test_gradients_are_pytorch_s(data: tuple[np.ndarray, ...], rng: np.random.Generator) -> None:
    images, labels = data[0][:16], data[1][:16]
    network = lenet.lenet5(rng, dropout=0.0)
    logits = network.forward(images, training=True)
    loss, gradient = train.loss_and_gradient(logits, labels)
    network.backward(gradient)
    wanted, parameters = theirs(network, torch.from_numpy(images))
    their_loss = torch.nn.functional.cross_entropy(wanted, torch.from_numpy(labels))
    their_loss.backward()
    np.testing.assert_allclose(logits, wanted.detach().numpy(), rtol=1e-4, atol=1e-4)
    assert loss == pytest.approx(their_loss.item(), rel=1e-5)
    for (_, made), parameter in zip(network.parameters(), parameters, strict=True):
        right = parameter.grad.numpy()
        assert np.abs(made - right).max() <= 1e-4 * np.abs(right).max()


def test_a_short_course_learns(data: tuple[np.ndarray, ...]) -> None:
    network = lenet.lenet5(np.random.default_rng(2))
    course = train.learn(network, *data, epochs=6)
    assert len(course.losses) == 6 * (FEW // 32) and len(course.accuracies) == 6
    assert np.mean(course.losses[-8:]) < 0.5 * np.mean(course.losses[:8])
    assert course.accuracies[-1] > 0.6


def test_a_course_is_the_same_every_time(data: tuple[np.ndarray, ...]) -> None:
    losses = [
        train.learn(lenet.lenet5(np.random.default_rng(2)), *data, epochs=1).losses
        for _ in range(2)
    ]
    assert losses[0] == losses[1]


def test_the_command_writes_its_picture(
    data: tuple[np.ndarray, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from matplotlib.image import imread

    monkeypatch.setattr(train, "digits", lambda: data)
    monkeypatch.setattr(train, "_EPOCHS", 2)
    out = tmp_path / "learned.png"
    assert main(["demo", "train", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"of {HELD} held-out digits are told right" in printed and f"wrote {out}" in printed
    page = imread(out)[..., :3]
    assert page.shape[0] > 700 and page.shape[1] > 1500
    for panel in np.array_split(page[100:], 3, axis=1):
        assert panel.std() > 0.05, "a panel is blank"


def test_confusions_count_every_image(rng: np.random.Generator) -> None:
    labels, told = rng.integers(0, 10, 500), rng.integers(0, 10, 500)
    table = train_picture.confusions(labels, told)
    assert table.sum() == 500 and np.trace(table) == (labels == told).sum()
