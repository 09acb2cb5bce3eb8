"""The sparse demo: a LiDAR scan as voxels, through an encoder, drawn from above.

`scans` and `lidar` bring points, `encoder` computes, `sparse_report` prints and `sparse_picture`
draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..contract.errors import FastconvError
from ..scans.lidar import sweep
from ..scans.read import Scan, read_scan
from . import check_picture, say

if TYPE_CHECKING:
    from ..sparse import SparseTensor

__all__ = ["VOXEL", "run", "to_voxels"]

#: Metres of a voxel: z, y, x.
VOXEL = (0.15, 0.1, 0.1)
#: Metres from the middle that are kept on either side, and the height that is.
_REACH, _HEIGHT = 75.2, 6.0


def run(scan: Path | None, out: Path, columns: int | None = None) -> int:
    """Voxelise a scan, run the encoder, draw a picture and print a table.

    Parameters
    ----------
    scan : Path or None
        A file for `fastconv.scans.read.read_scan`; None simulates a sweep.
    out : Path
        PNG file to write.
    columns : int, optional
        Numbers a point of a ``.bin`` file, where its name does not tell.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    FastconvError
        Where the scan cannot be read, or `out` not be written; nothing has been computed then.
    """
    check_picture(out)
    given = Scan("simulated sweep", sweep(), True) if scan is None else read_scan(scan, columns)
    from . import encoder, sparse_picture, sparse_report

    say("fastconv: compiling or loading kernels, then timing")
    voxels, low = to_voxels(given)
    weights = encoder.calibrate(voxels)
    result = encoder.run_encoder(voxels, weights)
    say("spconv, in a process of its own, where it is installed")
    spconv = encoder.run_spconv(voxels, weights)
    print(sparse_report.table(given, voxels, result, spconv))
    sparse_picture.draw(out, given, voxels, low, result)
    print(f"\nwrote {out}")
    return 0


def to_voxels(scan: Scan) -> tuple[SparseTensor, tuple[float, float, float]]:
    """Return the voxels about a scan's origin, and the corner of their grid.

    Returns
    -------
    SparseTensor
        Axes z, y, x; the means of the points' z, y, x and intensity in each voxel, scaled to -1..1.
    tuple of float
        Metres of the low corner: z, y, x.
    """
    from ..sparse import SparseTensor

    floor = float(np.percentile(scan.points[:, 2], 1)) - 1.0
    low = (floor, -_REACH, -_REACH)
    high = (floor + _HEIGHT, _REACH, _REACH)
    voxels = SparseTensor.from_points(scan.points[:, [2, 1, 0, 3]], VOXEL, (low, high))
    if not len(voxels):
        raise FastconvError(f"SCAN: {scan.name} has no point within {_REACH} m of its middle")
    middle = np.array([floor + _HEIGHT / 2, 0, 0, 0], np.float32)
    half = np.array([_HEIGHT / 2, _REACH, _REACH, 1], np.float32)
    return voxels.replace((voxels.features - middle) / half), low
