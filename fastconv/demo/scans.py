"""Readers of point clouds: NumPy's files, PLY, LAS and LAZ, and the raw floats of KITTI.

Whatever the format, a scan comes out as points about an origin near its middle, since national
grids have coordinates of millions of metres and float32 holds seven digits.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import FastconvError
from .cases import Array

__all__ = ["SUFFIXES", "Scan", "read_scan"]

_Table = npt.NDArray[Any]
#: Names that scanners and converters give to the strength of a return in a PLY file.
_INTENSITIES = ("intensity", "scalar_Intensity", "scalar_intensity", "reflectance", "reflectivity")


@dataclass(frozen=True, slots=True)
class Scan:
    """A point cloud.

    Parameters
    ----------
    name : str
        What to call it.
    points : ndarray of float32, shape (points, 4)
        ``x``, ``y``, ``z`` and intensity from 0 to 1, all finite; at least one point.
    has_intensity : bool
        Whether the file tells it; else it is 0.
    """

    name: str
    points: Array
    has_intensity: bool


def read_scan(path: str | os.PathLike[str]) -> Scan:
    """Read a point cloud; its suffix tells the format.

    Parameters
    ----------
    path : str or path
        A file of a suffix in `SUFFIXES`. ``.npy`` and ``.npz`` hold an array (points, 3 or more),
        whose fourth column is intensity; ``.bin`` holds float32 ``x, y, z, intensity`` (KITTI).

    Returns
    -------
    Scan
        Points that are not finite are left out. Where the origin of ``x`` and ``y`` lies beyond the
        points, it is moved to their middle.

    Raises
    ------
    FastconvError
        Where there is no such file, its suffix is unknown, a library for it is missing, it holds
        something else, or no point.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> path = Path(tempfile.mkdtemp(), "two.npy")
    >>> np.save(path, np.array([[0.0, 0, 0], [1, 2, 3]]))
    >>> read_scan(path).points.shape
    (2, 4)
    """
    file = Path(path)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise FastconvError(f"SCAN: got {str(file)!r}, want a file in {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise FastconvError(f"SCAN: got {str(file)!r}, which is no file")
    try:
        table = reader(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise FastconvError(f"SCAN: {str(file)!r} cannot be read: {first}") from None
    return _scan(file, table)


def _scan(file: Path, table: _Table) -> Scan:
    """Return the finite points of ``x, y, z`` and maybe intensity, about an origin among them."""
    found = table[np.isfinite(table).all(1)]
    if not len(found):
        raise FastconvError(f"SCAN: {str(file)!r} holds no point with finite coordinates")
    place, intensity = found[:, :3].astype(np.float64), found[:, 3:4].astype(np.float64)
    low, high = place[:, :2].min(0), place[:, :2].max(0)
    if (low > 0).any() or (high < 0).any():
        place[:, :2] -= np.round((low + high) / 2)
    if intensity.size:
        intensity = np.clip(intensity / max(1.0, float(intensity.max())), 0, 1)
    else:
        intensity = np.zeros((len(place), 1))
    points = np.hstack([place, intensity]).astype(np.float32)
    return Scan(file.name, points, has_intensity=table.shape[1] > 3)


def _read_npy(file: Path) -> _Table:
    return _columns(np.load(file), "the array")


def _read_npz(file: Path) -> _Table:
    """Return the one array that looks like points."""
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    clouds = [name for name, array in arrays.items() if array.ndim == 2 and array.shape[1] >= 3]
    if len(clouds) != 1:
        held = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no array"
        raise ValueError(f"it holds {held}; want one array of shape (points, 3 or more)")
    return _columns(arrays[clouds[0]], clouds[0])


def _columns(array: _Table, name: str) -> _Table:
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} is {array.dtype} of shape {array.shape}; want numbers, (points, 3 or more)"
        )
    return array[:, :4]


def _read_bin(file: Path) -> _Table:
    size = file.stat().st_size
    if size % 16:
        raise ValueError(f"it has {size} bytes; want a multiple of 16, four float32 a point")
    return np.fromfile(file, "<f4").reshape(-1, 4)


def _read_ply(file: Path) -> _Table:
    _require("plyfile", "plyfile", file)
    from plyfile import PlyData, PlyParseError

    try:
        elements = {element.name: element for element in PlyData.read(file).elements}
    except PlyParseError as error:
        raise ValueError(str(error)) from None
    vertex = elements.get("vertex")
    held = [] if vertex is None else [each.name for each in vertex.properties]
    if vertex is None or not {"x", "y", "z"} <= set(held):
        raise ValueError("it has no element vertex with x, y and z")
    names = ["x", "y", "z", *[name for name in _INTENSITIES if name in held][:1]]
    return np.column_stack([vertex[name] for name in names])


def _read_las(file: Path) -> _Table:
    _require("laspy", "laspy[lazrs]", file)
    import laspy

    try:
        found = laspy.read(file)
    except laspy.LaspyException as error:
        raise ValueError(str(error)) from None
    return np.column_stack([found.x, found.y, found.z, found.intensity])


def _require(module: str, package: str, file: Path) -> None:
    if find_spec(module) is None:
        raise FastconvError(
            f"SCAN: {file.suffix} needs {package}, which is not installed: "
            "pip install 'fastconv[scan]'"
        )


_READERS: dict[str, Callable[[Path], _Table]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".ply": _read_ply,
    ".las": _read_las,
    ".laz": _read_las,
    ".bin": _read_bin,
}
#: Suffixes of the files that `read_scan` takes.
SUFFIXES = tuple(_READERS)
