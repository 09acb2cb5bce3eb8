"""The training demo: LeNet-5 learns scikit-learn's handwritten digits, by fastconv alone.

Convolutions, pools, fully connected layers and their gradients are fastconv's; the loss, dropout
and stochastic gradient descent are a few lines of NumPy. `lenet` is the network, `train_picture`
draws what came of it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

import fastconv

from . import check_picture, say
from .lenet import Array, Network, lenet5

__all__ = ["Course", "digits", "evaluate", "learn", "loss_and_gradient", "run"]

Labels = npt.NDArray[np.int64]

_EPOCHS, _BATCH = 20, 32
_RATE, _MOMENTUM, _DECAY = 0.02, 0.9, 1e-4
#: One image of four is held out.
_HELD_OUT = 4


@dataclass(slots=True)
class Course:
    """How training went.

    Parameters
    ----------
    losses : list of float
        Mean loss of each batch.
    accuracies : list of float
        Share of the held-out images that were told right, after each epoch.
    seconds : float
        Of all epochs.
    """

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    seconds: float = 0.0


def digits() -> tuple[Array, Labels, Array, Labels]:
    """Return images (N, 1, 32, 32) and digits, to learn from and held out.

    The images of 8 x 8 are made larger by `fastconv.interpolate`.
    """
    from sklearn.datasets import load_digits

    told = load_digits()
    small = (told.images / 8 - 1).astype(np.float32)[:, None]
    images = fastconv.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], told.target[order].astype(np.int64)
    count = len(images) // _HELD_OUT
    return images[count:], labels[count:], images[:count], labels[:count]


def loss_and_gradient(logits: Array, labels: Labels) -> tuple[float, Array]:
    """Return the mean cross-entropy of a batch and its gradient for the logits."""
    log = logits - logits.max(1, keepdims=True)
    log -= np.log(np.exp(log).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(log)
    gradient[rows, labels] -= 1
    return -float(log[rows, labels].mean()), gradient / np.float32(len(labels))


class Descent:
    """Stochastic gradient descent with momentum and weight decay."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._speeds = [np.zeros_like(v) for layer in network.layers for v in layer.values]

    def step(self, rate: float) -> None:
        """Move every parameter."""
        for (value, gradient), speed in zip(self._network.parameters(), self._speeds, strict=True):
            speed *= np.float32(_MOMENTUM)
            speed -= np.float32(rate) * (gradient + np.float32(_DECAY) * value)
            value += speed


def evaluate(network: Network, images: Array) -> Labels:
    """Return the digits that a network tells."""
    parts = [network.forward(images[i : i + 256]) for i in range(0, len(images), 256)]
    told: Labels = np.concatenate(parts).argmax(1)
    return told


def learn(
    network: Network, images: Array, labels: Labels, held: Array, held_labels: Labels,
    epochs: int,
) -> Course:  # fmt: skip
    """Train a network; the rate falls along half a cosine.

    Parameters
    ----------
    network : Network
        What learns, in place.
    images, labels : ndarray
        To learn from.
    held, held_labels : ndarray
        To judge by after each epoch.
    epochs : int
        How often each image is seen.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    rng, descent, course = np.random.default_rng(1), Descent(network), Course()
    steps, start = epochs * (len(images) // _BATCH), time.perf_counter()
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling or loading kernels", total=steps)
        for epoch in range(epochs):
            order = rng.permutation(len(images))
            for first in range(0, len(images) - _BATCH + 1, _BATCH):
                chosen = order[first : first + _BATCH]
                rate = _RATE * (1 + math.cos(math.pi * len(course.losses) / steps)) / 2
                logits = network.forward(images[chosen], training=True)
                loss, gradient = loss_and_gradient(logits, labels[chosen])
                network.backward(gradient)
                descent.step(rate)
                course.losses.append(loss)
                bar.advance(task)
            right = float((evaluate(network, held) == held_labels).mean())
            course.accuracies.append(right)
            bar.update(task, description=f"epoch {epoch + 1} of {epochs}: {right:.1%} held out")
    course.seconds = time.perf_counter() - start
    return course


def run(out: Path) -> int:
    """Train LeNet-5, print what it learned and draw the loss and the confusions.

    Parameters
    ----------
    out : Path
        PNG file to write.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    FastconvError
        Where `out` cannot be written; nothing has been computed then.
    """
    check_picture(out)
    from . import train_picture

    images, labels, held, held_labels = digits()
    network = lenet5(np.random.default_rng(2))
    say(
        f"LeNet-5 of {network.size:,} weights, {len(images)} images of 32 x 32, "
        f"{len(held)} held out"
    )
    course = learn(network, images, labels, held, held_labels, _EPOCHS)
    told = evaluate(network, held)
    right = int((told == held_labels).sum())
    print(f"{'epoch':>5}  {'loss':>7}  held out")
    batches = len(course.losses) // len(course.accuracies)
    for epoch, share in enumerate(course.accuracies, 1):
        mean = float(np.mean(course.losses[(epoch - 1) * batches : epoch * batches]))
        print(f"{epoch:>5}  {mean:7.4f}  {share:8.2%}")
    print(
        f"\n{right} of {len(held)} held-out digits are told right, {right / len(held):.2%}, after "
        f"{course.seconds:.1f} s: {1e3 * course.seconds / len(course.losses):.2f} ms a batch of "
        f"{_BATCH}, forward and backward"
    )
    train_picture.draw(out, course, held, held_labels, told)
    print(f"wrote {out}")
    return 0
