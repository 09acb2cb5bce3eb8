"""What a rulebook is made of, checked: nothing that a kernel reads may lead it out of an array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..array_libraries import view_array, view_beside
from ..arrays import Array, is_masked, on_host
from ..contract.arguments import whole_number
from ..contract.errors import DeviceError, DTypeError, ShapeError
from ..contract.geometry import Geometry
from ..device_arrays import DeviceArray
from .frozen import private
from .sites import check_range, check_rows, check_sites, check_unique

__all__ = ["check_parts", "sites_of"]


def check_parts(
    geometry: Any, in_indices: Any, out_indices: Any, neighbours: Any, pairs: Any, is_reversed: Any
) -> tuple[Array, Array, Array, int]:
    """Return copies of a rulebook's arrays that have been checked, and the number of pairs."""
    require_geometry(geometry)
    before = _copy("in_indices", in_indices, None)
    after = before if out_indices is in_indices else _copy("out_indices", out_indices, before)
    table = _copy("neighbours", neighbours, before)
    shapes = (geometry.in_shape, geometry.out_shape)
    for name, sites, shape in zip(
        ("in_indices", "out_indices"), (before, after), shapes[::-1] if is_reversed else shapes,
        strict=True,
    ):  # fmt: skip
        _check_sites(name, on_host(sites), geometry.batch_size, shape)
    count = _check_table(geometry, on_host(table), int(before.shape[0]), int(after.shape[0]))
    if whole_number("pairs", pairs) != count:
        raise ShapeError(f"pairs: got {pairs}, want {count}, the rows in neighbours")
    return before, after, table, count


def sites_of(geometry: Any, indices: Any) -> Array:
    """Return the sites before, for a table to be built: frozen, checked where they were not."""
    require_geometry(geometry)
    view = view_array("indices", indices)
    given = as_integers("indices", indices) if view is None else view.to_host()
    sites, batch_size = check_sites(given, geometry.in_shape, geometry.batch_size)
    check_unique("indices", sites, geometry.in_shape, batch_size)
    return sites if view is None else private(require_int32("indices", view))


def require_geometry(value: Any) -> Geometry:
    """Return a value if it is a `Geometry`, else raise."""
    if not isinstance(value, Geometry):
        raise DTypeError(f"geometry: got {type(value).__name__}, want a fastconv.sparse.Geometry")
    return value


def as_integers(name: str, value: Any) -> NDArray[Any]:
    """Return a caller's whole numbers as an array of NumPy's own type."""
    if is_masked(value):
        raise DTypeError(
            f"{name}: got a masked array, want a plain one: array.compressed() or .data"
        )
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"{name}: got {type(value).__name__}, want an array: {error}") from None


def require_int32(name: str, array: Array) -> Array:
    """Return an array of int32, else raise."""
    if array.dtype != np.int32:
        raise DTypeError(f"{name}: got {array.dtype}, want int32 in this machine's byte order")
    return array


def _copy(name: str, value: Any, like: Array | None) -> Array:
    """Return a copy of a caller's array that nobody else can change."""
    if isinstance(like, DeviceArray):
        view: Array = view_beside(name, value, "in_indices", like)
    else:
        view = view_array(name, value)
        if view is not None and like is not None:
            raise DeviceError(f"{name}: got an array on a GPU, want NumPy's as in_indices is")
        view = as_integers(name, value) if view is None else view
    if view.ndim != 2:
        raise ShapeError(f"{name}: got shape {view.shape}, want two axes")
    return private(require_int32(name, view))


def _check_sites(
    name: str, sites: NDArray[np.int32], batch_size: int, shape: tuple[int, ...]
) -> None:
    if sites.shape[1] != 1 + len(shape):
        raise ShapeError(
            f"{name}: got shape {sites.shape}, want (rows, {1 + len(shape)}), batch first"
        )
    check_rows(len(sites))
    check_range(name, sites, (batch_size, *shape))
    check_unique(name, sites, shape, batch_size)


def _check_table(geometry: Geometry, table: NDArray[np.int32], in_rows: int, out_rows: int) -> int:
    """Raise where a table's rows are none, or one comes twice; return the number of pairs."""
    if table.shape != (geometry.volume, out_rows):
        raise ShapeError(
            f"neighbours: got shape {table.shape}, want {(geometry.volume, out_rows)}, offsets of "
            f"a kernel of {geometry.kernel_size} by rows of out_indices"
        )
    for row in (table.min(initial=-1), table.max(initial=-1)):
        if not -1 <= row < in_rows:
            raise ShapeError(
                f"neighbours: got {row} in the table, want -1 or one of the {in_rows} rows of "
                "in_indices"
            )
    pairs = 0
    for offset, rows in enumerate(table):
        present = rows[rows >= 0]
        pairs += len(present)
        met = np.bincount(present)
        if met.max(initial=0) > 1:
            raise ShapeError(
                f"neighbours: got row {met.argmax()} {met.max()} times at offset {offset}, want "
                "an input row to be met by one output row there"
            )
    return pairs
