"""Points into voxels, against a dictionary; and what ``explain sparse`` tells of them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from fastconv import sparse
from fastconv.cli import main
from fastconv.contract.errors import DTypeError, ShapeError
from fastconv.sparse.explanation import describe_rulebook
from fastconv.sparse.voxels import REDUCTIONS, voxelize


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_voxelize_against_a_dictionary(reduce: str, dtype: type, rng: np.random.Generator) -> None:
    # Quarters: cells and sums are exact, so both ways must agree to the last bit.
    clouds = [(rng.integers(-20, 60, (rows, 4)) / 4).astype(dtype) for rows in (400, 0, 300)]
    low, high, size = (-2, 0, 1), (9.5, 10, 11), (0.5, 1, 2.5)
    features, indices, shape = voxelize(clouds, size, (*low, *high), reduce)
    assert shape == (23, 10, 4)
    cells: dict[tuple[int, ...], list[np.ndarray]] = {}
    for number, cloud in enumerate(clouds):
        for point in cloud.astype(np.float64):
            if all(a <= v < b for a, v, b in zip(low, point[:3], high, strict=True)):
                place = [int((v - a) // s) for v, a, s in zip(point[:3], low, size, strict=True)]
                cells.setdefault((number, *place), []).append(point)
    wanted = sorted(cells)
    join = {"mean": np.mean, "sum": np.sum, "max": np.max, "first": lambda p, axis: p[0]}[reduce]
    assert indices.dtype == np.int32 and indices.tolist() == [list(site) for site in wanted]
    expected = np.array([join(np.array(cells[site]), axis=0) for site in wanted]).astype(dtype)
    np.testing.assert_array_equal(features, expected, strict=True)


def test_voxelize_without_a_range_keeps_every_point(rng: np.random.Generator) -> None:
    points = rng.normal(0, 30, (2000, 3)).astype(np.float32)
    features, indices, shape = voxelize(points, (0.1, 0.1, 0.15), reduce="sum")
    np.testing.assert_allclose(features.sum(0), points.sum(0), rtol=1e-3, atol=0.05)
    assert (indices.min(0) == 0).all() and (indices.max(0)[1:] == np.array(shape) - 1).all()


def test_voxelize_at_the_edges_of_cells() -> None:
    points = np.array([[0.0], [0.7], [0.1 * 7], [np.nextafter(7.0, 0)], [7.0], [-1e-30]])
    features, indices, shape = voxelize(points, 0.1, (0, 7), reduce="first")
    assert shape == (70,)
    assert indices[:, 1].tolist() == [0, 6, 7, 69] or indices[:, 1].tolist() == [0, 7, 69]
    assert features[-1, 0] == np.nextafter(7.0, 0)


def test_voxelize_of_no_points() -> None:
    features, indices, shape = voxelize(np.empty((0, 5), np.float32), (1, 1), (0, 0, 3, 4))
    assert (features.shape, indices.shape, shape) == ((0, 5), (0, 3), (3, 4))


POINTS = np.zeros((3, 4), np.float32)
BAD = {
    "points: got int64": (POINTS.astype(int), 1, (0, 1)),
    r"points: got shape \(3,\)": (POINTS[:, 0], 1, (0, 1)),
    "range: got 10 numbers": (POINTS, 1, (0,) * 5 + (1,) * 5),
    "points: got 1 columns, want at least 2": (POINTS[:, :1], (1, 1), (0, 0, 1, 1)),
    "points: got an empty list": ([], 1, (0, 1)),
    r"points\[1\]: got 3 columns": ([POINTS, POINTS[:, :3]], 1, (0, 1)),
    "points: got NaN in the coordinates of 1 of 3 points, row 1": (
        np.array([[0], [np.nan], [1]]), 1, (0, 1),
    ),
    "voxel_size: got 0": (POINTS, 0, (0, 1)),
    "voxel_size: got 0.1, want one number for each .*, or a range": (POINTS, 0.1, None),
    "range: got 3 numbers": (POINTS, 1, (0, 1, 2)),
    "range: got 4 numbers, want 6": (POINTS, (1, 1, 1), (0, 0, 1, 1)),
    "range: got .* want the high corner above": (POINTS, 1, (1, 0)),
    "voxel_size: got .* want no axis above": (POINTS, 1e-9, (0, 100)),
    "points: got infinite": (np.array([[np.inf]]), (1,), None),
}  # fmt: skip


@pytest.mark.parametrize("said", list(BAD))
def test_voxelize_names_what_is_wrong(said: str) -> None:
    with pytest.raises((ShapeError, DTypeError), match=said):
        voxelize(*BAD[said])


def test_voxelize_names_an_unknown_reduction() -> None:
    with pytest.raises(ValueError, match="reduce: got 'median'"):
        voxelize(POINTS, 1, (0, 1), "median")


def test_explain_tells_what_a_rulebook_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    cells = rng.choice(20 * 20 * 10, 500, replace=False)
    points = np.stack(np.unravel_index(cells, (20, 20, 10)), 1) - (9.5, 9.5, -0.5)
    np.save(tmp_path / "scan.npy", points)
    words = ["explain", "sparse", str(tmp_path / "scan.npy"), "--voxel", "1,1,1"]
    assert main([*words, "--range=-10,-10,0,10,10,10", "--channels", "8,16"]) == 0
    told = capsys.readouterr().out
    sites = np.column_stack([np.zeros(500, int), *np.unravel_index(np.sort(cells), (20, 20, 10))])
    x = sparse.SparseTensor(np.ones((500, 1)), sites, (20, 20, 10))
    table = sparse.make_rulebook(x, 3).neighbours
    assert f"pairs       {np.count_nonzero(table >= 0):,}, " in told
    assert "sites       500 > 500, 12.5% of the grid" in told
    for row in table.reshape(9, 3, -1):
        assert "  ".join(f"{np.count_nonzero(k >= 0):3}" for k in row) in told
    offsets = np.count_nonzero(table >= 0, axis=0)
    for count in np.unique(offsets):
        assert f"{count:>11}  {np.count_nonzero(offsets == count):>9,} #" in told
    assert "1,024 slots, 49% full" in told
    assert "cpu.sparse_gemm" in told


def test_explain_counts_the_rows_of_tiles() -> None:
    # Rows 0 to 39 have the middle alone, and 40 to 79 the one behind too: a tile mixes both.
    sites = np.array([(0, 2 * i) for i in range(40)] + [(0, 100 + i) for i in range(41)], np.int32)
    book = sparse.make_rulebook(sparse.SparseTensor(np.ones((81, 1)), sites, (200,)), 3)
    masks = [sum(1 << k for k in range(3) if column[k] >= 0) for column in book.neighbours.T]
    for order, told in ((range(81), "as the rows are"), (book.order, "with rows sorted by mask")):
        rows = [masks[row] for row in order]
        joined = [functools.reduce(int.__or__, rows[at : at + 32]) for at in range(0, 81, 32)]
        computed = 32 * sum(mask.bit_count() for mask in joined)
        assert f"{computed / book.pairs:.2f} " in describe_rulebook(book).split("tiles")[1]
        assert told in describe_rulebook(book)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--voxel", "0.1;2"], "--voxel: got '0.1;2', want numbers"),
        (["--kernel", "3,3"], "--kernel: got '3,3', want one number or 3"),
        (["--channels", "8"], "--channels: got '8', want input channels, output channels"),
        (["no/such/scan.npy"], "scan.npy"),
    ],
)
def test_explain_names_what_is_wrong(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "sparse", *words]) == 2
    assert said in capsys.readouterr().err


def test_explain_takes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "ic8ih8oc8kh3", "other"]) == 2
    assert "behind a problem line" in capsys.readouterr().err
