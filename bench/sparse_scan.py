"""The scan whose voxels the sparse rows are timed on.

It is the file that ``FASTCONV_SCAN`` names; else a recorded scan where a checkout has one beside
it; else the demo's simulated sweep. Every process finds the same.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fastconv
from fastconv.scans.lidar import sweep
from fastconv.scans.read import read_scan

__all__ = ["VARIABLE", "Sites", "scan_name", "sites"]

VARIABLE = "FASTCONV_SCAN"
_RECORDED = Path("shared/data/benchmark-pc.npz")
#: The grid of detectors on Waymo's scans, metres; axes z, y, x.
_LOW, _HIGH = np.array([-2.0, -75.2, -75.2]), np.array([4.0, 75.2, 75.2])
_VOXEL = np.array([0.15, 0.1, 0.1])


@dataclass(frozen=True, eq=False)
class Sites:
    """The active sites of a scan.

    Parameters
    ----------
    indices : ndarray of int32, shape (rows, 4)
        Batch (0), z, y, x; sorted by the place in the grid.
    spatial_shape : tuple of int
        Of the grid.
    """

    indices: np.ndarray
    spatial_shape: tuple[int, ...]


def _file() -> Path | None:
    if named := os.environ.get(VARIABLE):
        return Path(named)
    checkout = Path(fastconv.__file__).resolve().parent.parent
    recorded = checkout.parent / _RECORDED
    return recorded if recorded.is_file() else None


def scan_name() -> str:
    """Return what the report calls the scan, with the number of its voxels."""
    file = _file()
    origin = f"simulated sweep ({VARIABLE} names another)" if file is None else str(file)
    grid = "x".join(map(str, sites().spatial_shape))
    size = " x ".join(f"{edge:g}" for edge in _VOXEL[::-1])
    return f"{origin}: {len(sites().indices):,} voxels of {size} m in {grid} (z, y, x)"


@functools.cache
def sites() -> Sites:
    """Return the voxels of the scan.

    Raises
    ------
    FastconvError
        Where the file cannot be read, or lies outside of the grid.
    """
    file = _file()
    points = sweep() if file is None else read_scan(file).points
    shape = tuple(int(size) for size in np.rint((_HIGH - _LOW) / _VOXEL))
    cells = np.floor((points[:, 2::-1] - _LOW) / _VOXEL).astype(np.int64)
    cells = cells[((cells >= 0) & (cells < shape)).all(1)]
    if not len(cells):
        raise fastconv.FastconvError(
            f"{VARIABLE}: {file} has no point from {_LOW[::-1]} to {_HIGH[::-1]} m (x, y, z)"
        )
    cells_met = np.unravel_index(np.unique(np.ravel_multi_index(tuple(cells.T), shape)), shape)
    indices = np.stack([np.zeros_like(cells_met[0]), *cells_met], 1).astype(np.int32)
    return Sites(indices, shape)
