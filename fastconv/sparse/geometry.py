"""Which rulebook a call uses: the geometry of its arguments, and a rulebook that fits it."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from typing import Any

import numpy as np

from ..arrays import Array, on_host
from ..calls import Padding, Sizes, per_axis
from ..device_arrays import DeviceArray
from ..errors import DTypeError, ShapeError
from ..padding import normalise_padding
from .rulebook import Geometry, Rulebook
from .sites import check_grid
from .tensor import SparseTensor

__all__ = ["find_rulebook", "in_force", "make_geometry", "named_rulebook", "require_tensor"]


def require_tensor(x: Any) -> SparseTensor:
    """Return `x` if it is a `SparseTensor`, else raise."""
    if not isinstance(x, SparseTensor):
        raise DTypeError(f"x: got {type(x).__name__}, want a fastconv.sparse.SparseTensor")
    return x


def in_force(array: Array) -> contextlib.AbstractContextManager[None]:
    """Compute on the device of an array."""
    return array.in_force() if isinstance(array, DeviceArray) else contextlib.nullcontext()


def make_geometry(
    kind: str, x: SparseTensor, kernel_size: Sizes, stride: Sizes = 1, padding: Padding = 0,
    dilation: Sizes = 1, output_padding: Sizes = 0,
) -> Geometry:  # fmt: skip
    """Check the arguments of an operator on `x` and return the geometry that they describe."""
    ndim, shape = x.ndim, x.spatial_shape
    sizes = {
        "kernel_size": per_axis("kernel_size", kernel_size, ndim),
        "stride": per_axis("stride", stride, ndim),
        "dilation": per_axis("dilation", dilation, ndim),
    }
    for name, values in sizes.items():
        if min(values) < 1:
            raise ShapeError(f"{name}: got {values}, want every value to be at least 1")
    pads = normalise_padding(
        padding, shape, sizes["kernel_size"], sizes["stride"], sizes["dilation"]
    )
    more = per_axis("output_padding", output_padding, ndim)
    if min(min(pair) for pair in pads) < 0:
        raise ShapeError(f"padding: got {padding!r}, want no negative value")
    limits = tuple(map(max, sizes["stride"], sizes["dilation"]))
    if any(not 0 <= extra < limit for extra, limit in zip(more, limits, strict=True)):
        raise ShapeError(
            f"output_padding: got {more}, want values of at least 0 and below the stride or the "
            f"dilation, {limits}"
        )
    geometry = Geometry(
        kind=kind, in_shape=shape, batch_size=x.batch_size, padding=pads, output_padding=more,
        **sizes,
    )  # fmt: skip
    if min(geometry.out_shape) < 1:
        raise ShapeError(
            f"kernel_size: got {geometry.kernel_size} with dilation={geometry.dilation} and "
            f"padding={pads} over spatial_shape={shape}, which leaves an output of "
            f"{geometry.out_shape}, want every axis to be at least 1"
        )
    check_grid(geometry.out_shape, x.batch_size)
    return geometry


def find_rulebook(
    x: SparseTensor, geometry: Geometry, indice_key: str | None, rulebook: Rulebook | None
) -> Rulebook:
    """Return the rulebook of a geometry: the one given, the one of that name, or a new one."""
    if rulebook is not None:
        if indice_key is not None:
            raise ValueError("rulebook: got one and an indice_key, want one of the two")
        _check_match("rulebook", rulebook, geometry, x)
        rulebook.check()
        return rulebook
    known = None if indice_key is None else x.rulebooks.get(indice_key)
    if known is not None:
        _check_match(f"indice_key={indice_key!r}", known, geometry, x)
        return known
    with in_force(x.feature_array):
        built = Rulebook.build(geometry, x.index_array)
    return built if indice_key is None else x.keep(indice_key, built)


def named_rulebook(
    x: SparseTensor, kernel_size: tuple[int, ...], indice_key: str | None, rulebook: Rulebook | None
) -> Rulebook:
    """Return the rulebook that led to the sites of `x`, for an operator that goes back."""
    if (indice_key is None) == (rulebook is None):
        raise ValueError("indice_key: want the name of an earlier rulebook, or rulebook=, not both")
    name = "rulebook" if indice_key is None else f"indice_key={indice_key!r}"
    if indice_key is not None:
        rulebook = x.rulebooks.get(indice_key)
        if rulebook is None:
            known = ", ".join(map(repr, x.rulebooks)) or "there is none yet"
            raise ShapeError(f"indice_key: got {indice_key!r}, want one that is known: {known}")
    assert rulebook is not None
    if indice_key is None:
        rulebook.check()
    differences = []
    if rulebook.geometry.kernel_size != kernel_size:
        differences.append(f"kernel_size {rulebook.geometry.kernel_size}, not {kernel_size}")
    if rulebook.out_shape != x.spatial_shape or rulebook.geometry.batch_size != x.batch_size:
        differences.append(f"a grid of {rulebook.out_shape} after, not {x.spatial_shape}")
    elif not _same_sites(rulebook.out_indices, x.index_array):
        differences.append("other sites after than those of x")
    _refuse(name, differences)
    return rulebook


def _check_match(name: str, rulebook: Rulebook, geometry: Geometry, x: SparseTensor) -> None:
    """Raise where a rulebook is not what a call over `x` needs."""
    differences = ["sites before and after changed"] if rulebook.is_reversed else []
    for each in fields(Geometry):
        had, needed = getattr(rulebook.geometry, each.name), getattr(geometry, each.name)
        if had != needed:
            differences.append(f"{each.name} {had}, not {needed}")
    if not differences and not _same_sites(rulebook.in_indices, x.index_array):
        differences.append("other sites before than those of x")
    _refuse(name, differences)


def _refuse(name: str, differences: list[str]) -> None:
    if differences:
        raise ShapeError(f"{name}: got {'; '.join(differences)}, want a rulebook that fits")


def _same_sites(one: Array, other: Array) -> bool:
    if one is other:
        return True
    return one.shape == other.shape and np.array_equal(on_host(one), on_host(other))
