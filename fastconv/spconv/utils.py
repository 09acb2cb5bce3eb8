"""Point clouds into voxels, by the names of ``spconv.utils``: those of spconv 2 and of spconv 1.

What else is there, boxes and their overlaps, is no convolution's, and what is of a GPU is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..contract.errors import ArgumentError, DeviceError, DTypeError, NoKernelError, ShapeError
from .pytorch.utils import PointToVoxel

__all__ = [
    "Point2VoxelCPU1d",
    "Point2VoxelCPU2d",
    "Point2VoxelCPU3d",
    "Point2VoxelCPU4d",
    "VoxelGenerator",
    "VoxelGeneratorV2",
]

Tensor = torch.Tensor
_BOXES = ("non_max_suppression", "rbbox_", "rotate_non_max_suppression")


def __getattr__(name: str) -> Any:
    if name.startswith("Point2VoxelGPU"):
        raise DeviceError(f"{name}: got a GPU's, want {name.replace('GPU', 'CPU')}")
    if name.startswith(_BOXES):
        raise NoKernelError(
            f"{name}: fastconv has nothing for boxes, want torchvision.ops, or spconv's own"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Point2Voxel:
    """What the ranks share.

    Parameters
    ----------
    vsize_xyz, coors_range_xyz : sequence of float
        Size of a voxel, and low corner, then high corner, in the order of the points' columns.
    num_point_features : int
        Columns of a point.
    max_num_voxels, max_num_points_per_voxel : int
        Most voxels, and most points that one keeps.

    Raises
    ------
    ShapeError
        For sizes that do not fit.

    Examples
    --------
    >>> make = Point2VoxelCPU3d([1, 1, 1], [0, 0, 0, 4, 4, 4], 3, 100, 5)
    >>> voxels, indices, counts = make.point_to_voxel(np.array([[0.5, 1.5, 2.5]], np.float32))
    >>> indices.numpy().tolist()
    [[2, 1, 0]]
    """

    _ndim: int

    def __init__(
        self, vsize_xyz: Sequence[float], coors_range_xyz: Sequence[float],
        num_point_features: int, max_num_voxels: int, max_num_points_per_voxel: int,
    ) -> None:  # fmt: skip
        if len(vsize_xyz) != self._ndim:
            raise ShapeError(f"vsize_xyz: got {list(vsize_xyz)}, want {self._ndim} numbers")
        self._make = PointToVoxel(
            vsize_xyz, coors_range_xyz, num_point_features, max_num_voxels,
            max_num_points_per_voxel,
        )  # fmt: skip

    @property
    def grid_size(self) -> list[int]:
        """Voxels along each axis, in the opposite order (z, y, x)."""
        return self._make.grid_size

    def point_to_voxel(
        self, points: Any, clear_voxels: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return voxels, their indices (z, y, x), and how many points each keeps.

        Parameters
        ----------
        points : ndarray, torch.Tensor, or what has ``numpy()``, shape (points, features)
            float32.
        clear_voxels : bool
            Without an effect: voxels are new ones.
        """
        return self._make(torch.from_numpy(_points(points)))

    def point_to_voxel_empty_mean(
        self, points: Any, clear_voxels: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same, where places without a point hold the mean of the voxel's points."""
        return self._make(torch.from_numpy(_points(points)), empty_mean=True)


class Point2VoxelCPU1d(_Point2Voxel):
    """Voxels of a point cloud over one axis, as spconv 2 has them for a CPU."""

    _ndim = 1


class Point2VoxelCPU2d(_Point2Voxel):
    """Voxels of a point cloud over two axes, as spconv 2 has them for a CPU."""

    _ndim = 2


class Point2VoxelCPU3d(_Point2Voxel):
    """Voxels of a point cloud over three axes, as spconv 2 has them for a CPU."""

    _ndim = 3


class Point2VoxelCPU4d(_Point2Voxel):
    """Voxels of a point cloud over four axes, as spconv 2 has them for a CPU."""

    _ndim = 4


class VoxelGenerator:
    """Voxels of a point cloud as spconv 1 had them: arrays in, arrays out.

    Parameters
    ----------
    voxel_size, point_cloud_range : sequence of float
        Size of a voxel, and low corner, then high corner, in the order of the points' columns.
    max_num_points : int
        Points that a voxel keeps: its first.
    max_voxels : int
        Most voxels; points of further ones are left out.
    full_mean : bool
        Whether places without a point hold the mean of the voxel's points, not 0.

    Examples
    --------
    >>> make = VoxelGenerator([1, 1, 1], [0, 0, 0, 4, 4, 4], 5)
    >>> voxels, indices, counts = make.generate(np.array([[0.5, 1.5, 2.5, 9]], np.float32))
    >>> voxels.shape, indices.tolist(), counts.tolist()
    ((1, 5, 4), [[2, 1, 0]], [1])
    """

    def __init__(
        self, voxel_size: Sequence[float], point_cloud_range: Sequence[float],
        max_num_points: int, max_voxels: int = 20000, full_mean: bool = False,
    ) -> None:  # fmt: skip
        self.voxel_size = np.array(voxel_size, np.float32)
        self.point_cloud_range = np.array(point_cloud_range, np.float32)
        self.max_num_points_per_voxel, self._max_voxels = max_num_points, max_voxels
        self._full_mean = full_mean
        made = self._maker(len(self.voxel_size), max_voxels)
        self.grid_size = np.array(made.grid_size[::-1], np.int64)

    def _maker(self, features: int, max_voxels: int) -> PointToVoxel:
        return PointToVoxel(
            self.voxel_size.tolist(), self.point_cloud_range.tolist(), features, max_voxels,
            self.max_num_points_per_voxel,
        )  # fmt: skip

    def _arrays(self, points: Any, max_voxels: int | None) -> tuple[NDArray[Any], ...]:
        given = _points(points)
        make = self._maker(given.shape[1], max_voxels or self._max_voxels)
        made = make(torch.from_numpy(given), empty_mean=self._full_mean)
        return tuple(each.numpy() for each in made)

    def generate(self, points: Any, max_voxels: int | None = None) -> Any:
        """Return voxels, their indices (z, y, x), and how many points each keeps."""
        return self._arrays(points, max_voxels)


class VoxelGeneratorV2(VoxelGenerator):
    """The same, whose results have names: "voxels", "coordinates" and "num_points_per_voxel".

    Raises
    ------
    ArgumentError
        For ``block_filtering=True``, which leaves out blocks of voxels by their height.
    """

    def __init__(
        self, voxel_size: Sequence[float], point_cloud_range: Sequence[float],
        max_num_points: int, max_voxels: int = 20000, full_mean: bool = False,
        block_filtering: bool = False,
    ) -> None:  # fmt: skip
        if block_filtering:
            raise ArgumentError("block_filtering: got True, want False: all voxels are kept")
        super().__init__(voxel_size, point_cloud_range, max_num_points, max_voxels, full_mean)

    def generate(self, points: Any, max_voxels: int | None = None) -> dict[str, NDArray[Any]]:
        """Return voxels, coordinates (z, y, x), points of each, and 1 where a place has a point."""
        voxels, coordinates, counts = self._arrays(points, max_voxels)
        places = np.arange(self.max_num_points_per_voxel)
        mask = (places < counts[:, None]).astype(voxels.dtype)[..., None]
        return {
            "voxels": voxels,
            "coordinates": coordinates,
            "num_points_per_voxel": counts,
            "voxel_point_mask": mask,
        }


def _points(points: Any) -> NDArray[np.float32]:
    """Return points as an array of float32."""
    has_array = not isinstance(points, np.ndarray) and hasattr(points, "numpy")
    array = points.numpy() if has_array else points
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        kind = array.dtype if isinstance(array, np.ndarray) else type(points).__name__
        raise DTypeError(f"points: got {kind}, want an array of float32")
    if array.ndim != 2:
        raise ShapeError(f"points: got shape {array.shape}, want (points, features)")
    return np.ascontiguousarray(array, np.float32)
