"""Resize: which of ONNX's many rules for places are those of fastconv's modes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastconv
from fastconv.contract.resize_problem import ResizeProblem

from .node import Node, Refusal
from .windows import spatial_axes

__all__ = ["RESIZING"]

#: Outputs along an axis whose places are compared.
_MOST = 1 << 20
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class _Target(NamedTuple):
    """Sizes of an output by spatial axis, and the factors that places are computed with."""

    sizes: tuple[int, ...]
    factors: tuple[float, ...]
    #: Whether the factors were given, and not the sizes.
    scaled: bool


def _resize(
    node: Node, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None
) -> tuple[Any, ...]:
    if node.version < 11:  # the second input was the factors
        roi, scales = None, roi
    ndim = spatial_axes(x)
    if node.get("antialias", 0) or node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refusal("fastconv resizes without antialias, and to the sizes that are given")
    target = _read_target(node, x.shape, scales, sizes)
    mode = node.get("mode", "nearest")
    default = "half_pixel" if node.version >= 11 else "asymmetric"
    where = node.get("coordinate_transformation_mode", default)
    if mode == "linear" and where == "asymmetric":
        return (_from_the_first(x, target),)
    if mode == "nearest":
        name, aligned = _nearest(node, x.shape[2:], target, where), None
    elif mode == "linear":
        name, aligned = _LINEAR[ndim], _corners(x.shape[2:], target, where)
    elif mode == "cubic" and ndim == 2 and not node.get("exclude_outside", 0):
        if not math.isclose(node.get("cubic_coeff_a", -0.75), -0.75):
            raise Refusal("fastconv's cubics have the coefficient -0.75")
        name, aligned = "bicubic", _corners(x.shape[2:], target, where)
    else:
        raise Refusal(f"fastconv has no such mode: {mode} over {ndim} axes")
    chosen: dict[str, Any] = {"size": target.sizes}
    if target.scaled and not aligned:
        chosen = {"scale_factor": target.factors}
    return (fastconv.interpolate(x, **chosen, mode=name, align_corners=aligned),)


def _from_the_first(x: Any, target: _Target) -> Any:
    """Return an enlarged input whose first samples stay in their place.

    By a whole factor, those up to the last sample are what aligned corners make of as many; behind
    it all are the last sample.
    """
    if any(factor != round(factor) for factor in target.factors):
        raise Refusal("fastconv aligns first samples where factors are whole numbers")
    behind = [round(factor) - 1 for factor in target.factors]
    sizes = tuple(made - more for made, more in zip(target.sizes, behind, strict=True))
    made = fastconv.interpolate(x, sizes, mode=_LINEAR[x.ndim - 2], align_corners=True)
    return np.pad(made, ((0, 0), (0, 0), *((0, more) for more in behind)), mode="edge")


def _read_target(node: Node, shape: tuple[int, ...], scales: Any, sizes: Any) -> _Target:
    """Return the sizes of the output; batch and channels must stay as they are."""
    axes = [axis % len(shape) for axis in node.get("axes", None) or range(len(shape))]
    scaled = scales is not None and scales.size > 0
    given = scales if scaled else sizes
    if given is None or given.shape != (len(axes),):
        raise Refusal("neither scales nor sizes have a number for each axis")
    if scaled and not np.all(np.isfinite(given) & (given > 0)):
        raise Refusal(f"scales: got {given.tolist()}, want positive numbers")
    factors, wanted = [1.0] * len(shape), list(shape)
    for axis, number in zip(axes, given.tolist(), strict=True):
        wanted[axis] = int(shape[axis] * number) if scaled else int(number)
        factors[axis] = float(number) if scaled else number / max(1, shape[axis])
    if tuple(wanted[:2]) != shape[:2] or factors[:2] != [1.0, 1.0]:
        raise Refusal("fastconv resizes spatial axes alone")
    if min(wanted[2:]) < 1 or max(wanted[2:]) > _MOST:
        raise Refusal(f"the output {tuple(wanted)} has no elements, or too many")
    return _Target(tuple(wanted[2:]), tuple(factors[2:]), scaled)


def _corners(in_size: tuple[int, ...], target: _Target, where: str) -> bool:
    """Return whether corners are aligned, where places are those of fastconv's modes."""
    whole = all(
        math.isclose(size * factor, made)
        for size, factor, made in zip(in_size, target.factors, target.sizes, strict=True)
    )
    along = zip(in_size, target.sizes, target.factors, strict=True)
    if any(size == made and factor != 1 for size, made, factor in along):
        raise Refusal("fastconv leaves an axis as it is whose size does not change")
    lone = any(made == 1 < size for size, made in zip(in_size, target.sizes, strict=True))
    if where == "align_corners" and whole:
        return True
    if where == "half_pixel" or (where == "half_pixel_symmetric" and whole):
        return False
    if where == "pytorch_half_pixel" and not lone:
        return False
    raise Refusal(f"fastconv has no such places of samples: {where} to {target.sizes}")


def _nearest(node: Node, in_size: tuple[int, ...], target: _Target, where: str) -> str:
    """Return the mode that takes the same samples."""
    default = "round_prefer_floor" if node.version >= 11 else "floor"
    rounding = node.get("nearest_mode", default)
    along = list(zip(in_size, target.sizes, target.factors, strict=True))
    if node.version < 11 and min(target.factors) < 1:
        raise Refusal("what the nearest sample is was not told then")
    wanted = [_rounded(_places(*axis, where), rounding, axis[0]) for axis in along]
    for name in ("nearest", "nearest-exact"):
        scale = target.factors if target.scaled else ()
        problem = ResizeProblem("interpolate", 1, 1, in_size, target.sizes, name, scale=scale)
        shift = np.float32(0.5 if name == "nearest-exact" else 0)
        own = [
            np.minimum((np.arange(made, dtype=np.float32) + shift) * np.float32(step), size - 1)
            for (size, made, _), step in zip(along, problem.steps(), strict=True)
        ]
        if all(np.array_equal(a.astype(np.int64), b) for a, b in zip(own, wanted, strict=True)):
            return name
    raise Refusal(f"fastconv takes other samples than {where} with {rounding}")


def _places(size: int, made: int, factor: float, where: str) -> NDArray[np.float64]:
    """Return where outputs lie among the samples of an axis."""
    outputs = np.arange(made, dtype=np.float64)
    if where == "asymmetric":
        return outputs / factor
    if where == "align_corners":
        whole = factor * size
        return outputs * 0 if whole == 1 else outputs * (size - 1) / (whole - 1)
    if where == "pytorch_half_pixel" and made == 1:
        return outputs - 0.5
    places = (outputs + 0.5) / factor - 0.5
    if where == "half_pixel_symmetric":
        return size / 2 * (1 - made / (factor * size)) + places
    if where in ("half_pixel", "pytorch_half_pixel"):
        return places
    raise Refusal(f"fastconv has no such places of samples: {where}")


def _rounded(places: NDArray[np.float64], rounding: str, size: int) -> NDArray[np.int64]:
    """Return the sample that is taken at each place."""
    if rounding == "floor":
        taken = np.floor(places)
    elif rounding == "ceil":
        taken = np.ceil(places)
    elif rounding == "round_prefer_floor":
        taken = np.ceil(places - 0.5)
    elif rounding == "round_prefer_ceil":
        taken = np.floor(places + 0.5)
    else:
        raise Refusal(f"fastconv rounds no place by {rounding}")
    return np.clip(taken, 0, size - 1).astype(np.int64)


def _upsample(node: Node, x: Any, scales: Any = None) -> tuple[Any, ...]:
    """Compute what Resize was called before version 10."""
    given = node.get("scales", ()) if scales is None else scales
    attributes = {
        "mode": node.get("mode", "nearest"),
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    resize = node._replace(version=11, attributes=attributes)
    return _resize(resize, x, None, np.asarray(given, np.float32))


RESIZING: dict[str, Callable[..., tuple[Any, ...]]] = {"Resize": _resize, "Upsample": _upsample}
