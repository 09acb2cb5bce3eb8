"""Point clouds into voxels that keep their points, by the names of spconv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...contract.errors import ShapeError
from ...contract.geometry import MOST_KEYS
from .arrays import array_of

__all__ = ["PointToVoxel", "gather_features_by_pc_voxel_id"]


class PointToVoxel:
    """Voxels of a point cloud, in the order in which their first points come.

    Parameters
    ----------
    vsize_xyz : sequence of float
        Size of a voxel on each axis, in the order of the points' columns.
    coors_range_xyz : sequence of float
        Low corner, then high corner.
    num_point_features : int
        Columns of a point.
    max_num_voxels : int
        Voxels that are made; points of further ones are left out.
    max_num_points_per_voxel : int
        Points that a voxel keeps: its first.
    device : torch.device
        The CPU.

    Examples
    --------
    >>> make = PointToVoxel([0.5, 0.5], [0, 0, 3, 1], 3, 10, 2)
    >>> voxels, indices, counts = make(torch.tensor([[0.1, 0.2, 5], [2.6, 0.9, 1], [0.3, 0.1, 7]]))
    >>> indices.tolist(), counts.tolist()
    ([[0, 0], [1, 5]], [2, 1])
    """

    def __init__(
        self, vsize_xyz: Sequence[float], coors_range_xyz: Sequence[float],
        num_point_features: int, max_num_voxels: int, max_num_points_per_voxel: int,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.ndim = len(vsize_xyz)
        if len(coors_range_xyz) != 2 * self.ndim:
            raise ShapeError(
                f"coors_range_xyz: got {len(coors_range_xyz)} numbers, want {2 * self.ndim} as "
                f"vsize_xyz has {self.ndim}"
            )
        if num_point_features < self.ndim:
            raise ShapeError(
                f"num_point_features: got {num_point_features}, want at least {self.ndim}, the axes"
            )
        self.device = torch.device(device)
        self.num_point_features = num_point_features
        self.max_num_voxels = max_num_voxels
        self.max_num_points_per_voxel = max_num_points_per_voxel
        sizes = np.asarray(vsize_xyz, np.float32)
        bounds = np.asarray(coors_range_xyz, np.float32).reshape(2, -1)
        positive = bool((sizes > 0).all())
        cells = np.round((bounds[1] - bounds[0]) / sizes) if positive else np.zeros(self.ndim)
        if not (cells >= 1).all() or math.prod(map(int, cells)) > MOST_KEYS:
            raise ShapeError(
                f"vsize_xyz: got {list(vsize_xyz)} for a range of {list(coors_range_xyz)}, want "
                "positive sizes of at least one and at most 2**63 - 1 voxels"
            )
        self._low, self._sizes = bounds[0], sizes
        self.grid_size = [int(size) for size in cells[::-1]]
        self.vsize = [float(size) for size in sizes[::-1]]

    def __call__(
        self, pc: torch.Tensor, clear_voxels: bool = True, empty_mean: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the voxels of a cloud.

        Parameters
        ----------
        pc : torch.Tensor, shape (points, num_point_features)
            float32.
        clear_voxels : bool
            Without an effect: voxels are new ones.
        empty_mean : bool
            Whether places without a point hold the mean of the voxel's points, not 0.

        Returns
        -------
        voxels : torch.Tensor, shape (voxels, max_num_points_per_voxel, num_point_features)
        indices : torch.Tensor, shape (voxels, ndim)
            int32, the axes in the opposite order (z, y, x).
        num_per_voxel : torch.Tensor, shape (voxels,)
            int32, the points that a voxel keeps.
        """
        voxels, indices, counts, _ = self.generate_voxel_with_id(pc, clear_voxels, empty_mean)
        return voxels, indices, counts

    def generate_voxel_with_id(
        self, pc: torch.Tensor, clear_voxels: bool = True, empty_mean: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the voxels, and the voxel of every point, (points,) int64, -1 where there is none.

        A point that its voxel does not keep has the voxel's number too.
        """
        points = array_of("pc", pc)
        if points.ndim != 2 or points.shape[1] != self.num_point_features:
            raise ShapeError(
                f"pc: got shape {points.shape}, want (points, {self.num_point_features})"
            )
        points = points.astype(np.float32, copy=False)
        cells, inside = self._cells(points)
        own, first = _numbers(cells, self.grid_size)
        kept = own < self.max_num_voxels
        number = np.full(len(points), -1, np.int64)
        number[inside] = np.where(kept, own, -1)
        rows, own = inside[kept], own[kept]
        place = _places(own)
        fits = place < self.max_num_points_per_voxel
        count = min(len(first), self.max_num_voxels)
        voxels = np.zeros(
            (count, self.max_num_points_per_voxel, self.num_point_features), np.float32
        )
        voxels[own[fits], place[fits]] = points[rows[fits]]
        counts = np.bincount(own[fits], minlength=count).astype(np.int32)
        if empty_mean and count:
            means = voxels.sum(1) / counts[:, None].astype(np.float32)
            empty = np.arange(self.max_num_points_per_voxel) >= counts[:, None]
            voxels = np.where(empty[..., None], means[:, None], voxels)
        indices = np.ascontiguousarray(cells[first[:count]], np.int32)
        made = (voxels, indices, counts, number)
        return tuple(torch.from_numpy(each) for each in made)  # type: ignore[return-value]

    def _cells(self, points: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the cells (z, y, x) of the points inside, and which points are."""
        places = np.floor((points[:, : self.ndim] - self._low) / self._sizes)[:, ::-1]
        inside = np.flatnonzero(((places >= 0) & (places < self.grid_size)).all(1))
        return places[inside].astype(np.int64), inside


def _numbers(
    cells: NDArray[np.int64], shape: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each row's number among the different ones, by first row, and those first rows."""
    keys = np.zeros(len(cells), np.int64)
    for axis, size in enumerate(shape):
        keys = keys * size + cells[:, axis]
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[group.ravel()], first[order]


def _places(own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many earlier rows have the same number."""
    order = np.argsort(own, kind="stable")
    ranked = own[order]
    starts = np.flatnonzero(np.diff(ranked, prepend=-1))
    place = np.empty(len(own), np.int64)
    place[order] = np.arange(len(own)) - np.repeat(starts, np.diff([*starts, len(own)]))
    return place


def gather_features_by_pc_voxel_id(
    seg_res_features: torch.Tensor, pc_voxel_id: torch.Tensor, invalid_value: float = 0
) -> torch.Tensor:
    """Return each point's voxel's features.

    Parameters
    ----------
    seg_res_features : torch.Tensor, shape (voxels, ...)
        One row a voxel.
    pc_voxel_id : torch.Tensor, shape (points,)
        Of `PointToVoxel.generate_voxel_with_id`.
    invalid_value : float
        For points without a voxel.

    Examples
    --------
    >>> gather_features_by_pc_voxel_id(torch.tensor([[5.0], [6.0]]), torch.tensor([1, -1, 0]))
    tensor([[6.],
            [0.],
            [5.]])
    """
    valid = pc_voxel_id >= 0
    shape: Any = (len(pc_voxel_id), *seg_res_features.shape[1:])
    made = seg_res_features.new_full(shape, invalid_value)
    made[valid] = seg_res_features[pc_voxel_id[valid]]
    return made
