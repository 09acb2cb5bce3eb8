"""What the demo computes: each case is an input and the convolutions it goes through.

All weights are written out or drawn from a fixed seed, so every run shows the same picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "ANGLES",
    "STEM_ROWS",
    "Array",
    "Case",
    "Layer",
    "block_case",
    "image_cases",
    "photographs",
    "stem_weight",
]

Array = npt.NDArray[np.float32]

#: Edge directions of the oriented filters, in radians.
ANGLES = np.arange(8) * np.pi / 8
#: What the stem's filters look at: a name, weights of red, green and blue, wavelength in pixels.
STEM_ROWS = (
    ("grey, fine", (1.0, 1.0, 1.0), 4.0),
    ("grey, coarse", (1.0, 1.0, 1.0), 8.0),
    ("red / green", (1.0, -1.0, 0.0), 8.0),
    ("yellow / blue", (0.5, 0.5, -1.0), 8.0),
)


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution: ``activation(conv(x) + residual)``, padded to keep ``size / stride``.

    Parameters
    ----------
    weight : ndarray of float32, shape (K, C / groups, k, k)
        Square kernels of odd size.
    stride, dilation, groups : int
        As for `fastconv.conv2d`.
    relu : bool
        Whether ReLU follows.
    residual : bool
        Whether the case's own input is added before the activation.
    """

    weight: Array
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    relu: bool = False
    residual: bool = False

    @property
    def padding(self) -> int:
        """Zeros on every side."""
        return self.dilation * (int(self.weight.shape[-1]) // 2)


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    Parameters
    ----------
    name : str
        Title in table and picture.
    x : ndarray of float32, shape (C, H, W)
        Input.
    layers : tuple of Layer
        Applied in turn.
    """

    name: str
    x: Array
    layers: tuple[Layer, ...]


def photographs() -> tuple[Array, Array]:
    """Return scikit-learn's two photographs as (3, 427, 640) arrays, values from 0 to 1."""
    from sklearn.datasets import load_sample_image

    china, flower = (
        _float32(load_sample_image(name)).transpose(2, 0, 1) / np.float32(255)
        for name in ("china.jpg", "flower.jpg")
    )
    return china.copy(), flower.copy()


def image_cases(china: Array, flower: Array) -> list[Case]:
    """Return the cases that start from a photograph; the stem is the last."""
    grey = np.tensordot(_float32([0.299, 0.587, 0.114]), china, 1)[None]
    sobel_x = _float32([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    sobel = np.stack([sobel_x, sobel_x.T])[:, None]
    sharpen = _float32([[0, -1, 0], [-1, 5, -1], [0, -1, 0]])
    return [
        Case("Gaussian 15x15", china, (_each_channel(_gaussian(15, 3.0)),)),
        Case("Sharpen 3x3", china, (_each_channel(sharpen),)),
        Case("Blur 5x5, dilation 1, 2, 4", china, _a_trous()),
        Case("Sobel 3x3, x and y", grey, (Layer(sobel),)),
        Case("Depthwise-separable", flower, _separable()),
        Case("Stem 7x7, stride 2", flower, (Layer(stem_weight(), stride=2, relu=True),)),
    ]


def block_case(stem: Array) -> Case:
    """Return the residual block ``relu(x + conv(relu(conv(x))))`` on the pooled stem output."""
    random = np.random.default_rng(0)
    channels = stem.shape[0]
    scale = np.sqrt(2 / (9 * channels))  # He et al. 2015: keeps the variance through a ReLU
    first, second = _float32(random.normal(0, scale, (2, channels, channels, 3, 3)))
    layers = (Layer(first, relu=True), Layer(second, relu=True, residual=True))
    return Case("Residual block", _max_pool(stem), layers)


def stem_weight() -> Array:
    """Return 64 Gabor filters of 7x7, shape (64, 3, 7, 7): 4 kinds x 2 phases x 8 angles."""
    planes = [
        _oriented(7, wavelength, phase)[:, None] * _float32(colour)[:, None, None]
        for _, colour, wavelength in STEM_ROWS
        for phase in (0.0, np.pi / 2)
    ]
    return np.concatenate(planes)


def _each_channel(plane: Array, dilation: int = 1) -> Layer:
    """Filter red, green and blue alike."""
    weight = np.ascontiguousarray(np.broadcast_to(plane, (3, 1, *plane.shape)))
    return Layer(weight, dilation=dilation, groups=3)


def _a_trous() -> tuple[Layer, ...]:
    """Return a wide blur from small kernels: one B3 spline at dilations 1, 2 and 4.

    That is the smoothing half of the a trous wavelet transform (Holschneider et al. 1989).
    """
    line = _float32([1, 4, 6, 4, 1]) / 16
    return tuple(_each_channel(_float32(np.outer(line, line)), dilation) for dilation in (1, 2, 4))


def _gaussian(size: int, sigma: float) -> Array:
    line = np.exp(-(((np.arange(size) - size // 2) / sigma) ** 2) / 2)
    return _float32(np.outer(line, line) / line.sum() ** 2)


def _oriented(size: int, wavelength: float, phase: float) -> Array:
    """Return one zero-mean Gabor filter for each angle, shape (8, size, size)."""
    y, x = np.mgrid[:size, :size] - size // 2
    along = np.cos(ANGLES)[:, None, None] * x + np.sin(ANGLES)[:, None, None] * y
    envelope = np.exp(-(x**2 + y**2) / (2 * (size / 4) ** 2))
    planes = envelope * np.cos(2 * np.pi * along / wavelength + phase)
    planes -= envelope * planes.sum((1, 2), keepdims=True) / envelope.sum()
    return _float32(planes / np.abs(planes).sum((1, 2), keepdims=True))


def _separable() -> tuple[Layer, Layer]:
    """Return a depthwise 3x3 (eight edge filters a colour) and a 1x1 to 32 channels, with ReLU."""
    edges = _oriented(3, 4.0, np.pi / 2)[:, None]
    depthwise = Layer(np.concatenate([edges] * 3), groups=3, relu=True)
    mixing = np.random.default_rng(1).normal(0, np.sqrt(2 / 24), (32, 24, 1, 1))
    return depthwise, Layer(_float32(mixing), relu=True)


def _max_pool(x: Array) -> Array:
    """Return the largest of every 2x2 pixels; an odd last row or column is left out."""
    channels, height, width = x.shape
    whole = x[:, : height // 2 * 2, : width // 2 * 2]
    return _float32(whole.reshape(channels, height // 2, 2, width // 2, 2).max((2, 4)))


def _float32(values: npt.ArrayLike) -> Array:
    return np.asarray(values, np.float32)
