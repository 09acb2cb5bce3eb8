"""LeNet-5 for the training demo: layers whose forward and backward steps are fastconv's.

After Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document
recognition", Proceedings of the IEEE (1998), with rectified linear units, max pools and dropout in
place of its sigmoids, sub-sampling and radial basis functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import fastconv
import fastconv.grad as grad

__all__ = ["Array", "Layer", "Network", "lenet5"]

Array = npt.NDArray[np.float32]


class Layer:
    """A step of the network. `forward` keeps what `backward` needs."""

    #: What is learned, and its gradients after `backward`.
    values: tuple[Array, ...] = ()
    gradients: tuple[Array, ...] = ()

    def forward(self, x: Array, training: bool) -> Array:
        """Return the layer's output."""
        raise NotImplementedError

    def backward(self, given: Array) -> Array:
        """Return the loss's gradient for the input, from that for the output."""
        raise NotImplementedError


class Convolution(Layer):
    """A convolution with bias and ReLU."""

    def __init__(self, rng: np.random.Generator, channels: int, filters: int, taps: int) -> None:
        scale = math.sqrt(2 / (channels * taps * taps))
        weight = rng.standard_normal((filters, channels, taps, taps), np.float32)
        self.values = weight * np.float32(scale), np.zeros(filters, np.float32)

    def forward(self, x: Array, training: bool) -> Array:
        """Convolve."""
        weight, bias = self.values
        self._x, self._y = x, fastconv.conv2d(x, weight, bias, activation="relu")
        return self._y

    def backward(self, given: Array) -> Array:
        """Return the input's gradient and keep those of weight and bias."""
        weight, _ = self.values
        given = given * (self._y > 0)
        self.gradients = (
            grad.conv2d_weight(self._x, weight.shape, given),
            given.sum((0, 2, 3)),
        )
        made: Array = grad.conv2d_input(self._x.shape, weight, given)
        return made


class MaxPool(Layer):
    """The largest of each 2 x 2 pixels."""

    def forward(self, x: Array, training: bool) -> Array:
        """Pool."""
        y, self._indices = fastconv.max_pool2d(x, 2, return_indices=True)
        self._x = x
        return y

    def backward(self, given: Array) -> Array:
        """Give each gradient to the pixel that was the largest."""
        made: Array = grad.max_pool2d_input(self._x.shape, self._indices, given)
        return made


class Flatten(Layer):
    """Channels and pixels of an image as one vector."""

    def forward(self, x: Array, training: bool) -> Array:
        """Reshape."""
        self._shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, given: Array) -> Array:
        """Reshape back."""
        return given.reshape(self._shape)


class Linear(Layer):
    """A fully connected layer, with ReLU unless it is the last."""

    def __init__(self, rng: np.random.Generator, before: int, after: int, last: bool) -> None:
        weight = rng.standard_normal((after, before), np.float32)
        self.values = weight * np.float32(math.sqrt(2 / before)), np.zeros(after, np.float32)
        self._activation = None if last else "relu"

    def forward(self, x: Array, training: bool) -> Array:
        """Multiply."""
        weight, bias = self.values
        self._x = x
        self._y = fastconv.linear(x, weight, bias, activation=self._activation)
        return self._y

    def backward(self, given: Array) -> Array:
        """Return the input's gradient and keep those of weight and bias."""
        weight, _ = self.values
        if self._activation is not None:
            given = given * (self._y > 0)
        self.gradients = grad.linear_weight(self._x, given), grad.linear_bias(given)
        made: Array = grad.linear_input(weight, given)
        return made


class Dropout(Layer):
    """Leaves out a share of the numbers while training, and scales the others up."""

    def __init__(self, rng: np.random.Generator, share: float) -> None:
        self._rng, self._share = rng, share

    def forward(self, x: Array, training: bool) -> Array:
        """Draw which stay."""
        if not training:
            return x
        kept = self._rng.random(x.shape, np.float32) >= self._share
        self._scale = kept.astype(np.float32) / np.float32(1 - self._share)
        return x * self._scale

    def backward(self, given: Array) -> Array:
        """Leave out the same."""
        return given * self._scale


class Network:
    """Layers in a row."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the logits of a batch of images."""
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, given: Array) -> None:
        """Let every layer keep the gradients of what it learns."""
        for layer in reversed(self.layers):
            given = layer.backward(given)

    def parameters(self) -> Iterator[tuple[Array, Array]]:
        """Yield what is learned and its gradient."""
        for layer in self.layers:
            yield from zip(layer.values, layer.gradients, strict=True)

    @property
    def size(self) -> int:
        """How many numbers are learned."""
        return sum(value.size for layer in self.layers for value in layer.values)


def lenet5(rng: np.random.Generator, dropout: float = 0.3) -> Network:
    """Return LeNet-5 with fresh weights, for images of 1 x 32 x 32 and ten classes.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws weights and what dropout leaves out.
    dropout : float
        Share of the 84 numbers before the last layer that is left out while training.
    """
    layers: list[Any] = [
        Convolution(rng, 1, 6, 5),
        MaxPool(),
        Convolution(rng, 6, 16, 5),
        MaxPool(),
        Convolution(rng, 16, 120, 5),
        Flatten(),
        Linear(rng, 120, 84, last=False),
        Dropout(rng, dropout),
        Linear(rng, 84, 10, last=True),
    ]
    return Network(layers)
