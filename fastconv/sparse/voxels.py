"""Points into voxels: which cell of a grid each point is in, and one row of features a cell.

Cells are told in float64, whatever the points' type, so that a coordinate of float32 is compared
as the number that it is.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import require_array
from ..contract.errors import ArgumentError, DeviceError, ShapeError
from ..contract.geometry import LONGEST_AXIS, MOST_KEYS, is_word
from ..device_arrays import DeviceArray
from .sites import check_rows, group_sites, join_groups

__all__ = ["REDUCTIONS", "voxelize"]

#: How the points of a cell become one row.
REDUCTIONS = ("mean", "sum", "max", "first")

#: A range that is a whole number of voxels but for rounding is taken for one.
_SLACK = 1e-6

Points = NDArray[Any]
Reals = NDArray[np.float64]


class _Grid(NamedTuple):
    """Where cells are: the corners (the high one infinite: all are inside), sizes, how many."""

    low: Reals
    high: Reals
    size: Reals
    shape: tuple[int, ...]


def voxelize(
    points: Points | Sequence[Points],
    voxel_size: float | Sequence[float],
    range: Sequence[float] | Sequence[Sequence[float]] | None = None,
    reduce: str = "mean",
) -> tuple[Points, NDArray[np.int32], tuple[int, ...]]:
    """Return the cells that points fall into, and one row of features for each.

    Parameters
    ----------
    points : (P, ndim + extra) ndarray, or a list of them
        Coordinates, then any further values (intensity, time, colour), in a supported float type.
        A list is a batch, of arrays alike in type and columns.
    voxel_size : sequence of float, or float beside a range
        Size of a cell, one for each of 1 to 4 axes, in the coordinates' unit. One number serves all
        axes of `range`; without a range it would not say how many there are.
    range : sequence of float, optional
        Low corner, then high corner: 2 * ndim numbers, nested or not. A point is inside where
        ``low <= coordinate < high`` on every axis; others are left out. By default the grid is laid
        about all points, with corners at multiples of the voxel size.
    reduce : {"mean", "sum", "max", "first"}
        How each column of the points in a cell, coordinates too, becomes one number. Sums and means
        are formed in float64 in the points' order and rounded once; the first is that of the lowest
        row.

    Returns
    -------
    features : (cells, ndim + extra) ndarray
        In the points' type, one row a cell that holds a point.
    indices : (cells, 1 + ndim) int32 array
        Number in the batch, then the cell on each axis, in the order of the points' columns; sorted
        by these.
    spatial_shape : tuple of int
        Cells on each axis: the range over the voxel size, rounded up.

    Raises
    ------
    ShapeError
        For points that are no table or have fewer columns than axes, NaN coordinates, voxel sizes
        that are not positive, a range that is empty, and a grid with more cells than 64 bits count.
    DTypeError
        For points that are no floats.
    DeviceError
        For points on a GPU.

    Notes
    -----
    The cell is ``floor((coordinate - low) / voxel_size)``. Libraries that order a grid's axes
    ``(z, y, x)`` want the columns of `indices` and the shape turned around; sites may come in any
    order: ``indices[:, [0, 3, 2, 1]], spatial_shape[::-1]``.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.array([[0.1, 0.2, 5.0], [0.3, 0.1, 7.0], [2.6, 0.9, 1.0]])
    >>> features, indices, shape = voxelize(points, 0.5, (0, 0, 3, 1))
    >>> indices.tolist(), shape
    ([[0, 0, 0], [0, 5, 1]], (6, 2))
    >>> features.round(2).tolist()
    [[0.2, 0.15, 6.0], [2.6, 0.9, 1.0]]
    """
    if not is_word(reduce, REDUCTIONS):
        raise ArgumentError(
            f"reduce: got {reduce!r}, want one of {', '.join(map(repr, REDUCTIONS))}"
        )
    clouds = _check_points(points)
    sizes, bounds = _check_sizes(voxel_size, range)
    coordinates = [
        _coordinates(_name(clouds, number), cloud, len(sizes))
        for number, cloud in enumerate(clouds)
    ]
    grid = _grid(coordinates, sizes, bounds)
    cells = math.prod(grid.shape) * len(clouds)
    check_rows(sum(map(len, clouds)))
    if max(grid.shape) > LONGEST_AXIS or cells > MOST_KEYS:
        raise ShapeError(
            f"voxel_size: got {tuple(sizes.tolist())}, which makes a grid of {grid.shape} for a "
            f"batch of {len(clouds)}; want no axis above {LONGEST_AXIS} and at most 2**63 - 1 "
            "cells"
        )
    cells_of_clouds = [_cells(values, number, grid) for number, values in enumerate(coordinates)]
    sites = np.concatenate([sites for sites, _ in cells_of_clouds])
    kept = np.concatenate(
        [cloud if inside.all() else cloud[inside]
         for cloud, (_, inside) in zip(clouds, cells_of_clouds, strict=True)]
    )  # fmt: skip
    order, starts = group_sites(sites, grid.shape, len(clouds))
    return join_groups(kept, order, starts, reduce), sites[order[starts[:-1]]], grid.shape


def _name(clouds: list[Points], number: int) -> str:
    return f"points[{number}]" if len(clouds) > 1 else "points"


def _check_points(points: Points | Sequence[Points]) -> list[Points]:
    """Return the clouds of a batch."""
    clouds: list[Any] = list(points) if isinstance(points, (list, tuple)) else [points]
    if not clouds:
        raise ShapeError("points: got an empty list, want at least one array")
    for number, cloud in enumerate(clouds):
        name = _name(clouds, number)
        require_array(name, cloud)
        if isinstance(cloud, DeviceArray):
            raise DeviceError(f"{name}: got an array on a GPU, want a NumPy array")
        if cloud.ndim != 2:
            raise ShapeError(f"{name}: got shape {cloud.shape}, want (points, columns)")
        if cloud.dtype != clouds[0].dtype or cloud.shape[1] != clouds[0].shape[1]:
            raise ShapeError(
                f"{name}: got {cloud.shape[1]} columns of {cloud.dtype}, want "
                f"{clouds[0].shape[1]} of {clouds[0].dtype} as points[0] has"
            )
    return clouds


def _check_sizes(voxel_size: Any, bounds: Any) -> tuple[Reals, Reals | None]:
    """Return the voxels' size by axis, and the corners ``(2, ndim)``."""
    sizes = _numbers("voxel_size", voxel_size)
    if bounds is not None:
        bounds = _numbers("range", bounds).reshape(-1)
        if bounds.size % 2 or not 2 <= bounds.size <= 8:
            raise ShapeError(
                f"range: got {bounds.size} numbers, want 2 for each of 1 to 4 axes: the low "
                "corner, then the high corner"
            )
        bounds = bounds.reshape(2, -1)
        if sizes.ndim == 0:
            sizes = np.full(bounds.shape[1], sizes)
    if sizes.ndim != 1 or not 1 <= sizes.size <= 4:
        raise ShapeError(
            f"voxel_size: got {voxel_size!r}, want one number for each of 1 to 4 axes"
            + (
                ""
                if sizes.ndim or bounds is not None
                else ", or a range, whose axes one number serves"
            )
        )
    if not (np.isfinite(sizes).all() and sizes.min() > 0):
        raise ShapeError(f"voxel_size: got {voxel_size!r}, want positive numbers")
    if bounds is None:
        return sizes, None
    if bounds.shape[1] != sizes.size:
        raise ShapeError(
            f"range: got {bounds.size} numbers, want {2 * sizes.size} as voxel_size has "
            f"{sizes.size} axes"
        )
    if not (np.isfinite(bounds).all() and (bounds[0] < bounds[1]).all()):
        raise ShapeError(
            f"range: got {bounds[0].tolist()} to {bounds[1].tolist()}, want the high corner above "
            "the low one on every axis"
        )
    return sizes, bounds


def _numbers(name: str, value: Any) -> Reals:
    """Return a caller's numbers as float64."""
    try:
        given = np.asarray(value)
        if given.dtype.kind in "iufO":
            return given.astype(np.float64)
        raise TypeError
    except (OverflowError, TypeError, ValueError):
        raise ShapeError(f"{name}: got {reprlib.repr(value)}, want numbers") from None


def _coordinates(name: str, cloud: Points, ndim: int) -> Reals:
    """Return the coordinates of a cloud, one row an axis; raise where they are missing or NaN."""
    if cloud.shape[1] < ndim:
        raise ShapeError(
            f"{name}: got {cloud.shape[1]} columns, want at least {ndim}, the axes of voxel_size"
        )
    values = np.ascontiguousarray(cloud[:, :ndim].T, np.float64)
    if np.isnan(values.min(initial=np.inf)):
        missing = np.isnan(values).any(0)
        raise ShapeError(
            f"{name}: got NaN in the coordinates of {int(missing.sum())} of {len(cloud)} points, "
            f"row {int(missing.argmax())} the first, want numbers"
        )
    return values


def _grid(coordinates: list[Reals], sizes: Reals, bounds: Reals | None) -> _Grid:
    """Return the grid of a range, or one about all points."""
    if bounds is not None:
        with np.errstate(over="ignore"):
            shape = np.ceil((bounds[1] - bounds[0]) / sizes - _SLACK)
        return _Grid(bounds[0], bounds[1], sizes, _whole(shape))
    filled = [values for values in coordinates if values.size] or [np.zeros((sizes.size, 1))]
    low = np.min([values.min(1) for values in filled], axis=0)
    high = np.max([values.max(1) for values in filled], axis=0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ShapeError("points: got infinite coordinates, want numbers as there is no range")
    with np.errstate(over="ignore", invalid="ignore"):
        first, last = np.floor(low / sizes), np.floor(high / sizes)
        shape = _whole(np.where(np.isfinite(high - first * sizes), last - first + 1, np.inf))
    # Rounding may put a point on the wrong side of a corner: every point counts as inside.
    everywhere = np.full(sizes.size, np.inf)
    return _Grid(first * sizes, everywhere, sizes, shape)


def _whole(shape: Reals) -> tuple[int, ...]:
    if not np.isfinite(shape).all():
        raise ShapeError(
            "voxel_size: got so small a size, or so wide a range, that the number of voxels "
            "overflows; want one that fits the range"
        )
    return tuple(max(1, int(size)) for size in shape)


def _cells(
    coordinates: Reals, number: int, grid: _Grid
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return the cells of the points inside, batch first, and which points are."""
    inside = np.ones(coordinates.shape[1], bool)
    for values, low, high in zip(coordinates, grid.low, grid.high, strict=True):
        if np.isfinite(high):
            inside &= (values >= low) & (values < high)
    kept = coordinates if inside.all() else coordinates[:, inside]
    sites = np.empty((kept.shape[1], 1 + len(grid.shape)), np.int32)
    sites[:, 0] = number
    for axis, size in enumerate(grid.shape):
        place = np.floor((kept[axis] - grid.low[axis]) / grid.size[axis])
        sites[:, 1 + axis] = np.clip(place, 0, size - 1, out=place)
    return sites, inside
