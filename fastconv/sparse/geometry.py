"""Which rulebook a call uses: the geometry of its arguments, and a rulebook that fits it."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from typing import Any

from ..arrays import Array
from ..contract.arguments import Padding, Sizes, is_plain, per_axis
from ..contract.errors import ArgumentError, DTypeError, ShapeError
from ..contract.geometry import Geometry
from ..contract.padding import normalise_padding
from ..device_arrays import DeviceArray
from .rulebook import Rulebook, build_trusted, require_rulebook
from .tensor import SparseTensor, require_key

__all__ = [
    "find_rulebook",
    "make_geometry",
    "named_rulebook",
    "on_device",
    "require_match",
    "require_return",
    "require_tensor",
]

_geometries: dict[tuple[Any, ...], Geometry] = {}
_MOST_GEOMETRIES = 4096


def require_tensor(x: Any) -> SparseTensor:
    """Return `x` if it is a `SparseTensor`, else raise."""
    if not isinstance(x, SparseTensor):
        raise DTypeError(f"x: got {type(x).__name__}, want a fastconv.sparse.SparseTensor")
    return x


def on_device(array: Array) -> contextlib.AbstractContextManager[None]:
    """Compute on the device of an array."""
    return array.on_device() if isinstance(array, DeviceArray) else contextlib.nullcontext()


def make_geometry(
    kind: str, x: SparseTensor, kernel_size: Sizes, stride: Sizes = 1, padding: Padding = 0,
    dilation: Sizes = 1, output_padding: Sizes = 0,
) -> Geometry:  # fmt: skip
    """Check the arguments of an operator on `x` and return the geometry that they describe.

    Geometries are kept under arguments that are integers and tuples of them, which are equal only
    where they mean the same.
    """
    key = (
        kind, x.spatial_shape, x.batch_size, kernel_size, stride, padding, dilation, output_padding
    )  # fmt: skip
    words = (key[2], kernel_size, stride, dilation, output_padding)
    if not is_plain(words if type(padding) is str else (*words, padding)):
        return _make_geometry(*key)
    geometry = _geometries.get(key)
    if geometry is None:
        geometry = _make_geometry(*key)
        if len(_geometries) >= _MOST_GEOMETRIES:
            _geometries.clear()
        _geometries[key] = geometry
    return geometry


def _make_geometry(
    kind: str, shape: tuple[int, ...], batch_size: int, kernel_size: Sizes, stride: Sizes,
    padding: Padding, dilation: Sizes, output_padding: Sizes,
) -> Geometry:  # fmt: skip
    ndim = len(shape)
    sizes = {
        "kernel_size": per_axis("kernel_size", kernel_size, ndim),
        "stride": per_axis("stride", stride, ndim),
        "dilation": per_axis("dilation", dilation, ndim),
    }
    pads = normalise_padding(
        padding, shape, sizes["kernel_size"], sizes["stride"], sizes["dilation"]
    )
    more = per_axis("output_padding", output_padding, ndim)
    return Geometry(
        kind=kind, in_shape=shape, batch_size=batch_size, padding=pads, output_padding=more,
        **sizes,
    )  # fmt: skip


def find_rulebook(
    x: SparseTensor, geometry: Geometry, indice_key: str | None, rulebook: Rulebook | None
) -> Rulebook:
    """Return the rulebook of a geometry: the one given, the one of that name, or a new one."""
    if rulebook is not None:
        if indice_key is not None:
            raise ArgumentError("rulebook: got one and an indice_key, want one of the two")
        require_match("rulebook", require_rulebook(rulebook), geometry, x)
        return rulebook
    known = None if indice_key is None else x.rulebooks.get(require_key(indice_key))
    if known is not None:
        require_match(f"indice_key={indice_key!r}", known, geometry, x)
        return known
    with on_device(x.feature_array):
        built = build_trusted(geometry, x._indices)
    return built if indice_key is None else x.keep(indice_key, built)


def named_rulebook(
    x: SparseTensor, kernel_size: tuple[int, ...], indice_key: str | None, rulebook: Rulebook | None
) -> Rulebook:
    """Return the rulebook that led to the sites of `x`, for an operator that goes back."""
    if (indice_key is None) == (rulebook is None):
        raise ArgumentError(
            f"indice_key: got {'none' if rulebook is None else 'one and a rulebook='}, want "
            "the name of an earlier rulebook, or a rulebook="
        )
    name = "rulebook" if indice_key is None else f"indice_key={indice_key!r}"
    if indice_key is not None:
        rulebook = x.rulebooks.get(require_key(indice_key))
        if rulebook is None:
            known = ", ".join(map(repr, x.rulebooks)) or "there is none yet"
            raise ShapeError(f"indice_key: got {indice_key!r}, want one that is known: {known}")
    return require_return(name, require_rulebook(rulebook), kernel_size, x)


def require_return(
    name: str, rulebook: Rulebook, kernel_size: tuple[int, ...], x: SparseTensor
) -> Rulebook:
    """Return a rulebook that led to the sites of `x` with such a kernel, else raise."""
    differences = []
    if rulebook.geometry.kernel_size != kernel_size:
        differences.append(f"kernel_size {rulebook.geometry.kernel_size}, not {kernel_size}")
    if rulebook.out_shape != x.spatial_shape or rulebook.geometry.batch_size != x.batch_size:
        differences.append(f"a grid of {rulebook.out_shape} after, not {x.spatial_shape}")
    elif not rulebook.leads_to(x._indices):
        differences.append("other sites after than those of x")
    _refuse(name, differences)
    return rulebook


def require_match(name: str, rulebook: Rulebook, geometry: Geometry, x: SparseTensor) -> None:
    """Raise where a rulebook is not what a call over `x` needs."""
    differences = ["sites before and after changed"] if rulebook.is_reversed else []
    if rulebook.geometry is not geometry:
        for field in fields(Geometry):
            had, needed = getattr(rulebook.geometry, field.name), getattr(geometry, field.name)
            if had != needed:
                differences.append(f"{field.name} {had}, not {needed}")
    if not differences and not rulebook.starts_at(x._indices):
        differences.append("other sites before than those of x")
    _refuse(name, differences)


def _refuse(name: str, differences: list[str]) -> None:
    if differences:
        raise ShapeError(f"{name}: got {'; '.join(differences)}, want a rulebook that fits")
