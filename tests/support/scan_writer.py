"""A small point cloud, and files of every format that hold it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

POINTS = np.random.default_rng(3).uniform((-9, -9, 0, 0), (9, 9, 3, 1), (40, 4)).astype(np.float32)


def write_scan(path: Path, points: np.ndarray, text: bool = False) -> Path:
    """Write points with intensity in the format that the suffix tells."""
    if path.suffix == ".npy":
        np.save(path, points)
    elif path.suffix == ".npz":
        np.savez(path, cloud=points, stamp=np.arange(3))
    elif path.suffix == ".bin":
        points.astype("<f4").tofile(path)
    elif path.suffix == ".ply":
        from plyfile import PlyData, PlyElement

        names = ["x", "y", "z", "intensity"]
        rows = np.rec.fromarrays(points.T, names=names)
        PlyData([PlyElement.describe(np.asarray(rows), "vertex")], text=text).write(path)
    else:
        import laspy

        cloud = laspy.LasData(laspy.LasHeader(point_format=3, version="1.4"))
        cloud.header.scales, cloud.header.offsets = [1e-4] * 3, [0.0] * 3
        cloud.x, cloud.y, cloud.z = points[:, :3].astype(np.float64).T
        cloud.intensity = np.round(points[:, 3] * 65535).astype(np.uint16)
        cloud.write(path)
    return path
