"""Point clouds into voxels, beside spconv's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from fastconv.contract.errors import ArgumentError, DTypeError, ShapeError  # noqa: E402
from fastconv.spconv import utils as of_spconv  # noqa: E402
from fastconv.spconv.pytorch import utils  # noqa: E402

RANGE = [0, -1, 0.5, 10, 10, 2.5]
INTEGERS = np.ones((2, 2), np.int64)


def cloud(rng: np.random.Generator, points: int = 3000) -> Any:
    scale = np.array([12, 12, 4, 1])
    return torch.from_numpy((rng.random((points, 4)) * scale - 1).astype(np.float32))


@pytest.mark.parametrize(("most", "kept"), [(10_000, 50), (200, 3), (1, 1)])
def test_against_spconv(most: int, kept: int, rng: np.random.Generator) -> None:
    theirs = pytest.importorskip("spconv.pytorch.utils", reason="spconv is not installed")
    arguments = ([0.5, 0.5, 0.4], RANGE, 4, most, kept)
    points = cloud(rng)
    found = utils.PointToVoxel(*arguments).generate_voxel_with_id(points)
    expected = theirs.PointToVoxel(*arguments).generate_voxel_with_id(points)
    for one, two in zip(found, expected, strict=True):
        assert one.dtype == two.dtype and torch.equal(one, two)


def test_empty_places_hold_the_mean(rng: np.random.Generator) -> None:
    """That of spconv on a CPU adds the points of earlier voxels too."""
    make = utils.PointToVoxel([0.5, 0.5, 0.4], RANGE, 4, 200, 3)
    points = cloud(rng)
    voxels, _, counts = make(points)
    filled, _, _ = make(points, empty_mean=True)
    for bare, full, count in zip(voxels, filled, counts.tolist(), strict=True):
        assert torch.equal(full[:count], bare[:count])
        for row in full[count:]:
            assert torch.allclose(row, bare[:count].mean(0))


def test_points_get_their_voxels_features(rng: np.random.Generator) -> None:
    points = cloud(rng)
    make = utils.PointToVoxel([0.5, 0.5, 0.4], RANGE, 4, 200, 3)
    _, indices, _, number = make.generate_voxel_with_id(points)
    found = utils.gather_features_by_pc_voxel_id(indices, number, -1)
    low, size = torch.tensor(RANGE[:3]), torch.tensor([0.5, 0.5, 0.4])
    cells = ((points[:, :3] - low) / size).floor().int().flip(1)
    inside = number >= 0
    assert torch.equal(found[inside], cells[inside]) and bool((found[~inside] == -1).all())


def test_no_point() -> None:
    make = utils.PointToVoxel([0.5, 0.5, 0.4], RANGE, 4, 200, 3)
    voxels, indices, counts = make(torch.ones(0, 4), empty_mean=True)
    assert voxels.shape == (0, 3, 4) and indices.shape == (0, 3) and counts.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.5, 0.5], RANGE, 4, 9, 9), "coors_range_xyz: got 6 numbers, want 4"),
        (([0.5, 0.5, 0.0], RANGE, 4, 9, 9), "vsize_xyz: got"),
        (([0.5, 0.5, 9.0], RANGE, 4, 9, 9), "vsize_xyz: got"),
        (([0.5, 0.5, 0.4], RANGE, 2, 9, 9), "num_point_features: got 2, want at least 3"),
    ],
)
def test_bad_arguments(arguments: Any, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        utils.PointToVoxel(*arguments)


def test_bad_points() -> None:
    with pytest.raises(ShapeError, match=r"pc: got shape \(5, 3\), want \(points, 4\)"):
        utils.PointToVoxel([0.5, 0.5, 0.4], RANGE, 4, 9, 9)(torch.ones(5, 3))


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_by_the_names_of_spconv_2(ndim: int, rng: np.random.Generator) -> None:
    theirs = pytest.importorskip("spconv.utils", reason="spconv is not installed")
    view = pytest.importorskip("cumm.tensorview", reason="cumm is not installed")
    points = (rng.random((400, 5)) * 10 - 1).astype(np.float32)
    name, bounds = f"Point2VoxelCPU{ndim}d", [0.0] * ndim + [8.0] * ndim
    arguments = ([0.5] * ndim, bounds, 5, 100, 3)
    ours, other = getattr(of_spconv, name)(*arguments), getattr(theirs, name)(*arguments)
    assert list(ours.grid_size) == list(other.grid_size)
    expected = [each.numpy().copy() for each in other.point_to_voxel(view.from_numpy(points))]
    for given in (points, torch.from_numpy(points), view.from_numpy(points)):
        for one, two in zip(ours.point_to_voxel(given), expected, strict=True):
            assert one.numpy().dtype == two.dtype and np.array_equal(one.numpy(), two)
    means = utils.PointToVoxel(*arguments)(torch.from_numpy(points), empty_mean=True)[0]
    assert torch.equal(ours.point_to_voxel_empty_mean(points)[0], means)


def test_by_the_names_of_spconv_1(rng: np.random.Generator) -> None:
    points = cloud(rng)
    make = of_spconv.VoxelGenerator([0.5, 0.5, 0.4], RANGE, 3, max_voxels=200)
    expected = utils.PointToVoxel([0.5, 0.5, 0.4], RANGE, 4, 200, 3)(points)
    for one, two in zip(make.generate(points.numpy()), expected, strict=True):
        assert isinstance(one, np.ndarray) and np.array_equal(one, two.numpy())
    assert len(make.generate(points.numpy(), max_voxels=50)[0]) == 50
    assert make.grid_size.tolist() == [20, 22, 5] and make.max_num_points_per_voxel == 3
    named = of_spconv.VoxelGeneratorV2([0.5, 0.5, 0.4], RANGE, 3, 200).generate(points.numpy())
    for name, two in zip(("voxels", "coordinates", "num_points_per_voxel"), expected, strict=True):
        assert np.array_equal(named[name], two.numpy())
    assert np.array_equal(named["voxel_point_mask"].sum((1, 2)), named["num_points_per_voxel"])
    mean = of_spconv.VoxelGenerator([0.5, 0.5, 0.4], RANGE, 3, 200, full_mean=True)
    assert np.array_equal(
        mean.generate(points.numpy())[0],
        utils.PointToVoxel([0.5, 0.5, 0.4], RANGE, 4, 200, 3)(points, empty_mean=True)[0].numpy(),
    )


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: of_spconv.Point2VoxelCPU3d([1, 1], [0, 0, 9, 9], 3, 9, 9),
            ShapeError,
            "vsize_xyz: got .1, 1., want 3 numbers",
        ),
        (
            lambda: of_spconv.VoxelGeneratorV2([1, 1], [0, 0, 9, 9], 3, block_filtering=True),
            ArgumentError,
            "block_filtering: got True",
        ),
        (
            lambda: of_spconv.VoxelGenerator([1, 1], [0, 0, 9, 9], 3).generate([[1.0, 2.0]]),
            DTypeError,
            "points: got list",
        ),
        (
            lambda: of_spconv.VoxelGenerator([1, 1], [0, 0, 9, 9], 3).generate(
                np.ones((2, 2), int)
            ),
            DTypeError,
            "points: got int64",
        ),
        (
            lambda: of_spconv.VoxelGenerator([1, 1], [0, 0, 9, 9], 3).generate(np.ones(2)),
            ShapeError,
            "points: got shape",
        ),
    ],
)
def test_what_is_refused(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
