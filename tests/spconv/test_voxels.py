"""Point clouds into voxels, beside spconv's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from fastconv.contract.errors import ShapeError  # noqa: E402
from fastconv.spconv.pytorch import utils  # noqa: E402

RANGE = [0, -1, 0.5, 10, 10, 2.5]


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
