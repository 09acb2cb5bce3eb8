"""Point clouds out of files of any format, as points about an origin near their middle.

National grids have coordinates of millions of metres and float32 holds seven digits, hence the
origin. Each format has a reader; here they become one thing, and what cannot be a scan is
refused.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract.errors import FastconvError
from .checks import Table
from .las import read_las
from .lidar import Array
from .numpy_files import read_floats, read_npy, read_npz
from .ply import read_ply

__all__ = ["SUFFIXES", "Scan", "ScanError", "read_scan"]

#: Readers by suffix; those of ``.bin`` need to know the columns and are not here.
_READERS: dict[str, Callable[[Path], Table]] = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".ply": read_ply,
    ".las": read_las,
    ".laz": read_las,
}
#: Suffixes of the files that `read_scan` takes.
SUFFIXES = (*_READERS, ".bin")
#: Metres: no survey on Earth has coordinates as large, and their squares are still float32.
_FARTHEST = 1e12
#: Metres that a laser sees: a raw file whose points lie farther has been cut into points wrongly.
_RANGE = 1000.0
#: Share of implausible points that is put down to noise.
_STRAY = 0.01


class ScanError(FastconvError, ValueError):
    """A file that is no scan, or not the one that its name or header says."""


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
    left_out : int
        Points of the file that are not finite, or farther away than Earth is wide.
    """

    name: str
    points: Array
    has_intensity: bool
    left_out: int = 0


def read_scan(path: str | os.PathLike[str], columns: int | None = None) -> Scan:
    """Read a point cloud; its suffix tells the format.

    Parameters
    ----------
    path : str or path
        A file of a suffix in `SUFFIXES`. ``.npy`` and ``.npz`` hold an array (points, 3 or more),
        whose fourth column is intensity; ``.bin`` holds float32 ``x, y, z, intensity`` (KITTI),
        ``.pcd.bin`` a fifth, the laser's number (nuScenes).
    columns : int, optional
        Numbers a point of a ``.bin`` file where it is neither. What is given is believed; what the
        name says is not where the points would be implausible.

    Returns
    -------
    Scan
        Points that are not finite are left out and counted. Where the origin of ``x`` and ``y``
        lies beyond the points, it is moved to their middle.

    Raises
    ------
    ScanError
        Where there is no such file, its suffix is unknown, it holds something else, or no point.
    FastconvError
        Where a library for it is missing.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> path = Path(tempfile.mkdtemp(), "two.npy")
    >>> np.save(path, np.array([[0.0, 0, 0], [1, 2, 3]]))
    >>> read_scan(path).points.shape
    (2, 4)
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise ScanError(f"SCAN: got {str(file)!r}, want a file in {', '.join(SUFFIXES)}")
    if columns is not None and (suffix != ".bin" or not 3 <= columns <= 256):
        raise ScanError(f"columns: got {columns} for {str(file)!r}, want 3 to 256 for a .bin file")
    if not file.is_file():
        raise ScanError(f"SCAN: got {str(file)!r}, which is no file")
    try:
        table = _READERS[suffix](file) if suffix in _READERS else _read_bin(file, columns)
    except ImportError as error:
        raise FastconvError(
            f"SCAN: {file.suffix} needs {error}, which is not installed: "
            "pip install 'fastconv[scan]'"
        ) from None
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ScanError(f"SCAN: {str(file)!r} cannot be read: {first}") from None
    return _scan(file, table)


def _scan(file: Path, table: Table) -> Scan:
    """Return the finite points of ``x, y, z`` and maybe intensity, about an origin among them."""
    with np.errstate(over="ignore"):
        place, intensity = table[:, :3].astype(np.float64), table[:, 3:4].astype(np.float64)
    is_usable = (np.abs(place) < _FARTHEST).all(1) & np.isfinite(intensity).all(1)
    place, intensity = place[is_usable], intensity[is_usable]
    if not len(place):
        raise ScanError(
            f"SCAN: {str(file)!r} holds no point with finite coordinates (of {len(table)})"
        )
    low, high = place[:, :2].min(0), place[:, :2].max(0)
    if (low > 0).any() or (high < 0).any():
        place[:, :2] -= np.round((low + high) / 2)
    if intensity.size:
        intensity = np.clip(intensity / max(1.0, float(intensity.max())), 0, 1)
    else:
        intensity = np.zeros((len(place), 1))
    points = np.hstack([place, intensity]).astype(np.float32)
    return Scan(file.name, points, table.shape[1] > 3, left_out=len(table) - len(place))


def _read_bin(file: Path, columns: int | None) -> Table:
    """Raw floats; how many make a point the name says, and the points must bear it out."""
    if columns is not None:
        return read_floats(file, columns)[:, :4]
    columns = 5 if file.name.lower().endswith(".pcd.bin") else 4
    table = read_floats(file, columns)[:, :4]
    finite = table[np.isfinite(table).all(1)]
    far = np.abs(finite[:, :3]).max(1, initial=0) > _RANGE
    bright = (finite[:, 3] < 0) | (finite[:, 3] > 1)
    told = [(float(far.mean()) if far.size else 0.0, f"lie beyond {_RANGE:g} m")]
    if columns == 4:
        told.append((float(bright.mean()) if far.size else 0.0, "have no intensity from 0 to 1"))
    doubts = [f"{share:.0%} of the points {what}" for share, what in told if share > _STRAY]
    if doubts:
        raise ValueError(
            f"its name says {columns} float32 a point, but then {' and '.join(doubts)}; say how "
            "many there are: --columns, 4 for KITTI, 5 for nuScenes, 6 for points with colours"
        )
    return table
