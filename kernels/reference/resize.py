"""Resizing by interpolation, one axis after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["interpolate", "interpolate_grad"]

Array = NDArray[np.float64]
#: Samples of one output, and the weight of each.
Samples = list[tuple[int, float]]


def _cubic(distance: float) -> float:
    """Return the weight of a sample at a distance, by Keys' kernel with A = -0.75."""
    a = -0.75
    if distance <= 1:
        return ((a + 2) * distance - (a + 3)) * distance * distance + 1
    return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a


def _nearest(mode: str, output: int, inputs: int, outputs: int, scale: float | None) -> int:
    """Return the sample that an output copies; positions are float32's."""
    one = np.float32
    step = one(inputs) / one(outputs) if scale is None else one(1 / scale)
    if mode == "nearest":
        place = one(output) * step
    else:
        place = one((output + 0.5) * float(step))
    return min(int(place), inputs - 1)


def _samples(
    mode: str, output: int, inputs: int, outputs: int, scale: float | None, align_corners: bool
) -> Samples:
    """Return the samples that an output is made of, along one axis."""
    if mode.startswith("nearest"):
        return [(_nearest(mode, output, inputs, outputs, scale), 1.0)]
    if inputs == outputs and (mode != "bicubic" or inputs == 1):
        return [(output, 1.0)]
    if align_corners:
        place = output * ((inputs - 1) / (outputs - 1)) if outputs > 1 else 0.0
    else:
        place = (output + 0.5) * (inputs / outputs if scale is None else 1 / scale) - 0.5
    if mode != "bicubic":
        place = max(place, 0.0)
    first = min(int(np.floor(place)), inputs - 1)
    t = min(max(place - first, 0.0), 1.0)
    if mode != "bicubic":
        return [(first, 1 - t), (min(first + 1, inputs - 1), t)]
    weights = (_cubic(t + 1), _cubic(t), _cubic(1 - t), _cubic(1 - t + 1))
    return [
        (min(max(first + number - 1, 0), inputs - 1), weight)
        for number, weight in enumerate(weights)
    ]


def _axes(
    in_size: tuple[int, ...], size: tuple[int, ...] | None, scale_factor: tuple[float, ...] | None,
    mode: str, align_corners: bool,
) -> list[list[Samples]]:  # fmt: skip
    """Return the samples of each output, for every axis."""
    if size is None:
        assert scale_factor is not None
        size = tuple(int(n * scale) for n, scale in zip(in_size, scale_factor, strict=True))
    scales = scale_factor or (None,) * len(in_size)
    return [
        [_samples(mode, o, inputs, outputs, scale, align_corners) for o in range(outputs)]
        for inputs, outputs, scale in zip(in_size, size, scales, strict=True)
    ]


def interpolate(
    x: ArrayLike,
    *,
    size: tuple[int, ...] | None = None,
    scale_factor: tuple[float, ...] | None = None,
    mode: str,
    align_corners: bool = False,
) -> Any:
    """Return an array with its spatial axes resized.

    Examples
    --------
    >>> interpolate([[[0.0, 2.0]]], size=(4,), mode="linear").tolist()
    [[[0.0, 0.5, 1.5, 2.0]]]
    """
    out = np.asarray(x).astype(np.float64)
    axes = _axes(out.shape[2:], size, scale_factor, mode, align_corners)
    for axis, samples in enumerate(axes, 2):
        planes = np.moveaxis(out, axis, 0)
        made = [_sum_of(planes, of) for of in samples]
        out = np.moveaxis(np.stack(made), 0, axis)
    return out


def _sum_of(planes: Array, samples: Samples) -> Any:
    """Return the weighted sum of some planes; a plane of weight 1 alone stays as it is."""
    if len(samples) == 1:
        return planes[samples[0][0]]
    return sum(weight * planes[index] for index, weight in samples)


def interpolate_grad(
    grad_output: ArrayLike,
    *,
    input_size: tuple[int, ...],
    size: tuple[int, ...] | None = None,
    scale_factor: tuple[float, ...] | None = None,
    mode: str,
    align_corners: bool = False,
) -> Any:
    """Return the gradient of `interpolate` for its input.

    Each output's is shared out among the samples that it was made of, by their weights.

    Examples
    --------
    >>> shape = (1, 1, 2)
    >>> interpolate_grad([[[1.0, 2.0, 4.0]]], input_size=shape, size=(3,), mode="nearest").tolist()
    [[[3.0, 4.0]]]
    """
    out = np.asarray(grad_output).astype(np.float64)
    axes = _axes(input_size[2:], size, scale_factor, mode, align_corners)
    for axis, samples in enumerate(axes, 2):
        planes = np.moveaxis(out, axis, 0)
        made = np.zeros((input_size[axis], *planes.shape[1:]))
        for plane, of in zip(planes, samples, strict=True):
            for index, weight in of:
                made[index] += weight * plane
        out = np.moveaxis(made, 0, axis)
    return out
