"""The sparse demo on small scans: readers, the simulated sweep, the encoder, table and picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastconv import FastconvError
from fastconv.cli import main
from fastconv.demo import encoder, sparse, sparse_picture, sparse_report
from fastconv.demo.encoder import LAYERS, Run, Weights
from fastconv.kernels.reference import sparse as reference_sparse
from fastconv.scans import las, lidar
from fastconv.scans.read import Scan, read_scan
from fastconv.sparse import Geometry, SparseTensor
from scan_writer import POINTS, write_scan

pytestmark = pytest.mark.program


def test_a_sweep_is_the_same_for_a_seed() -> None:
    points = lidar.sweep(1)
    np.testing.assert_array_equal(points, lidar.sweep(1))
    assert len(points) != len(lidar.sweep(2))
    assert points.dtype == np.float32 and 80_000 < len(points) < 131_072
    assert np.linalg.norm(points[:, :3] - [0, 0, 1.8], axis=1).max() < 75.1
    assert points[:, 2].min() > -0.2 and 0 < points[:, 3].min() <= points[:, 3].max() <= 1


def _boxes(*rows: tuple[float, ...]) -> lidar.Boxes:
    table = np.array(rows, np.float32)
    return lidar.Boxes(table[:, :3], table[:, 3:6], table[:, 6], table[:, 7])


def test_rays_meet_the_nearest_surface() -> None:
    far = (20, 0, 1, 1, 4, 3, 0, 0.5)
    near = (10, 0, 1, 1, 1, 1, np.pi / 4, 0.7)  # an edge points at the sensor
    behind = (-10, 0, 1, 2, 1, 2, 0, 0.9)  # across the azimuth at which the turn starts
    rays = lidar.cast(_boxes(far, near, behind), 1.0, [-np.pi / 6, 0.0], 360)
    ahead, back, aside = 180, 0, 270
    assert rays.distance[ahead, 1] == pytest.approx(10 - np.sqrt(2), abs=1e-5)
    assert rays.cosine[ahead, 1] == pytest.approx(np.sqrt(0.5), abs=1e-5)
    assert rays.albedo[ahead, 1] == np.float32(0.7)
    assert rays.distance[back, 1] == pytest.approx(8) and rays.albedo[back, 1] == np.float32(0.9)
    assert rays.distance[359, 1] == pytest.approx(8 / np.cos(np.pi / 180), abs=1e-5)
    assert rays.distance[aside, 0] == pytest.approx(2) and np.isinf(rays.distance[aside, 1])
    assert rays.cosine[aside, 0] == pytest.approx(0.5)
    sideways = rays.distance[ahead + 9, 1]  # past the near box, onto the far one
    assert sideways == pytest.approx(19 / np.cos(np.radians(9)), abs=1e-4)


def test_only_azimuths_that_miss_a_box_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = lidar.street(np.random.default_rng(5))
    found = lidar.cast(boxes, 1.8, np.radians([-8, -1, 3]), 256)
    monkeypatch.setattr(lidar, "_spanned", lambda corners, azimuths: np.arange(azimuths))
    everything = lidar.cast(boxes, 1.8, np.radians([-8, -1, 3]), 256)
    np.testing.assert_array_equal(found.distance, everything.distance)
    np.testing.assert_array_equal(found.albedo, everything.albedo)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.bin", "a.PLY", "a.ply", "a.las", "a.laz"])
def test_every_format_holds_the_same_points(name: str, tmp_path: Path) -> None:
    lower = write_scan(tmp_path / name.lower(), POINTS, text=name == "a.PLY")
    found = read_scan(lower.rename(tmp_path / name))
    assert found.name == name and found.has_intensity and found.points.dtype == np.float32
    wanted = POINTS.copy()
    if name.startswith("a.la"):
        wanted[:, 3] = np.round(POINTS[:, 3] * 65535)
        wanted[:, 3] /= wanted[:, 3].max()
    np.testing.assert_allclose(found.points, wanted, atol=6e-5)


def test_points_alone_have_no_intensity_and_stray_ones_are_left_out(tmp_path: Path) -> None:
    points = POINTS[:, :3].astype(np.float64)
    points[7, 1], points[9, 2] = np.nan, np.inf
    np.save(tmp_path / "a.npy", points)
    found = read_scan(tmp_path / "a.npy")
    assert not found.has_intensity and not found.points[:, 3].any()
    np.testing.assert_array_equal(found.points[:, :3], np.delete(POINTS[:, :3], [7, 9], 0))


def test_a_far_origin_is_moved_in_full_precision(tmp_path: Path) -> None:
    points = POINTS[:, :3] + np.array([4.5e6, 5.3e6, 0])
    np.save(tmp_path / "a.npy", points)
    moved = read_scan(tmp_path / "a.npy").points[:, :3] - POINTS[:, :3]
    np.testing.assert_allclose(moved - np.round(moved), 0, atol=1e-5)
    assert np.abs(moved[:, :2]).max() < 2


def _broken(folder: Path, name: str) -> Path:
    path = folder / name
    if name.endswith(".npz"):
        np.savez(path, a=np.zeros((4, 3)), b=np.zeros((5, 3)))
    elif name == "flat.npy":
        np.save(path, np.zeros(12))
    elif name == "words.npy":
        np.save(path, np.full((3, 3), "a"))
    elif name == "empty.npy":
        np.save(path, np.zeros((0, 3)))
    else:
        path.write_bytes(b"some 18 bytes here")
    return path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cloud.pcd", r"cloud\.pcd', want a file in \.npz, \.npy, \.ply"),
        ("two.npz", r"holds a \(4, 3\), b \(5, 3\); want one array"),
        ("flat.npy", r"shape \(12,\); want numbers, \(points, 3 or more\)"),
        ("words.npy", "want numbers"),
        ("bytes.npy", "cannot be read: "),
        ("odd.bin", "18 bytes; want a multiple of 16"),
        ("bytes.ply", "cannot be read: "),
        ("bytes.las", "cannot be read: "),
        ("empty.npy", "holds no point with finite coordinates"),
    ],
)
def test_a_bad_file_is_one_sentence(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(FastconvError, match=said) as caught:
        read_scan(_broken(tmp_path, name))
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_missing_file_or_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FastconvError, match=r"none\.npy', which is no file"):
        read_scan(tmp_path / "none.npy")
    path = write_scan(tmp_path / "a.laz", POINTS)
    monkeypatch.setattr(las, "find_spec", lambda name: None)
    with pytest.raises(FastconvError, match=r"\.laz needs lazrs.*'fastconv\[scan\]'"):
        read_scan(path)


def test_voxels_are_means_in_a_grid_about_the_origin() -> None:
    points = np.array([[1.02, 2.03, 0.5, 0.2], [1.04, 2.05, 0.52, 0.4], [-3, 4, 1, 1]], np.float32)
    voxels, low = sparse.to_voxels(Scan("three", points, True))
    assert voxels.spatial_shape == (40, 1504, 1504) and len(voxels) == 2
    cells = np.floor((points[:, 2::-1] - low) / sparse.VOXEL).astype(int)
    np.testing.assert_array_equal(voxels.indices[:, 1:], cells[[0, 2]])
    np.testing.assert_allclose(voxels.features[0, 1:], [2.04 / 75.2, 1.03 / 75.2, 0.3], atol=1e-6)


def test_a_scan_around_nothing_is_named() -> None:
    points = np.array([[100, 100, 0, 0], [-100, -100, 0, 0]], np.float32)
    with pytest.raises(FastconvError, match=r"ring has no point within 75\.2 m"):
        sparse.to_voxels(Scan("ring", points, True))


@pytest.fixture(scope="module")
def scan() -> Scan:
    """A heap of points and one wall."""
    random = np.random.default_rng(0)
    heap = random.uniform((-1, -1, 0, 0), (1, 1, 2, 1), (400, 4))
    wall = random.uniform((2, -2, 0, 0), (2.05, 2, 3, 1), (300, 4))
    return Scan("heap.npy", np.vstack([heap, wall]).astype(np.float32), True)


@pytest.fixture(scope="module")
def voxels(scan: Scan) -> SparseTensor:
    return sparse.to_voxels(scan)[0]


@pytest.fixture(scope="module")
def weights(voxels: SparseTensor) -> list[Weights]:
    return encoder.calibrate(voxels)


@pytest.fixture(scope="module")
def run(voxels: SparseTensor, weights: list[Weights]) -> Run:
    return encoder.run_encoder(voxels, weights)


def test_encoder_agrees_with_the_reference(
    voxels: SparseTensor, weights: list[Weights], run: Run
) -> None:
    x, sites, shape = voxels.features.astype(np.float64), voxels.indices, voxels.spatial_shape
    for layer, given, measured in zip(LAYERS, weights, run.layers, strict=True):
        kind = "submanifold" if layer.is_submanifold else "regular"
        pads = tuple((pad, pad) for pad in layer.padding)
        steps = (layer.kernel_size, layer.stride, (1, 1, 1), pads, (0, 0, 0))
        geometry = Geometry(kind, shape, 1, *steps)
        after, table = reference_sparse.build(geometry, sites)
        x = np.maximum(reference_sparse.conv(x, given.weight, table, given.bias), 0)
        assert (measured.in_rows, measured.out_rows) == (len(sites), len(after))
        assert measured.pairs == (table >= 0).sum()
        sites, shape = after, geometry.out_shape
    last = run.stages[-1]
    np.testing.assert_array_equal(last.indices, sites)
    np.testing.assert_allclose(last.features, x, rtol=0, atol=2e-5 * np.abs(x).max())


def test_normalisation_keeps_features_alive(run: Run) -> None:
    assert [tensor.channels for tensor in run.stages] == [16, 32, 64, 64, 128]
    for tensor in run.stages:
        # Of a normal distribution with unit variance half is cut off: a mean square of a half.
        assert 0.3 < np.square(tensor.features, dtype=np.float64).mean() < 0.7


def test_layers_tell_kernels_and_rulebooks(run: Run) -> None:
    assert [measured.layer for measured in run.layers] == list(LAYERS)
    assert {measured.kernel.split(".")[0] for measured in run.layers} == {"cpu"}
    built = [measured.layer.key for measured in run.layers if measured.rulebook_ms is not None]
    assert built == list(dict.fromkeys(layer.key for layer in LAYERS))


def test_too_few_voxels_are_named() -> None:
    # In the grid's topmost voxels, which no kernel of stage 4 reaches.
    top = SparseTensor(np.ones((1, 4), np.float32), [[0, 39, 8, 8]], (40, 16, 16))
    with pytest.raises(FastconvError, match="too few voxels, none is left at stage 4"):
        encoder.calibrate(top)


def test_spconv_agrees(voxels: SparseTensor, weights: list[Weights], run: Run) -> None:
    pytest.importorskip("spconv", reason="spconv is not installed")
    found = encoder.run_spconv(voxels, weights)
    assert not isinstance(found, str), found
    ours = run.stages[-1].features
    np.testing.assert_allclose(found.features, ours, rtol=0, atol=2e-5 * np.abs(ours).max())
    known = [measured.rulebook_ms is None for measured in run.layers]
    assert [each is None for each in found.rulebook_ms] == known
    text = sparse_report.table(Scan("x", POINTS, True), voxels, run, found)
    assert "its rulebook ms" in text and "spconv: one thread" in text


def test_without_spconv_the_table_says_so(
    scan: Scan,
    voxels: SparseTensor,
    weights: list[Weights],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder, "find_spec", lambda name: None)
    reason = encoder.run_spconv(voxels, weights)
    lines = sparse_report.table(scan, voxels, run, reason).splitlines()
    assert lines[0].split()[-3:] == ["ms", "rulebook", "ms"]
    assert len(lines[2 : lines.index("")]) == len(LAYERS) + 1
    assert "spconv: spconv and torch not installed." in lines
    total = sum(measured.milliseconds for measured in run.layers)
    assert lines[lines.index("") - 1].split()[:2] == ["all", f"{total:.2f}"]
    assert f"heap.npy: 700 points; {len(voxels):,} voxels" in lines[lines.index("") + 1]


def test_a_broken_spconv_is_a_reason(
    voxels: SparseTensor, weights: list[Weights], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch is missing')\n")
    monkeypatch.syspath_prepend(tmp_path)  # the new process starts with this one's path
    monkeypatch.setattr(encoder, "find_spec", lambda name: object())
    assert encoder.run_spconv(voxels, weights) == "failed (libtorch is missing)"


def test_a_map_joins_what_stands_above_each_other() -> None:
    sites = [[0, 0, 1, 2], [0, 3, 1, 2], [0, 1, 0, 0]]
    tensor = SparseTensor(np.ones((3, 1), np.float32), sites, (4, 2, 3))
    values = np.array([5, 2, -1], np.float32)
    nan = np.nan
    count = sparse_picture.from_above(tensor, np.ones(3, np.float32), np.add)
    np.testing.assert_array_equal(count, [[1, nan, nan], [nan, nan, 2]])
    largest = sparse_picture.from_above(tensor, values, np.maximum)
    np.testing.assert_array_equal(largest, [[0, nan, nan], [nan, nan, 5]])


def test_fine_cells_are_joined_and_stay_in_place() -> None:
    plane = np.full((5, 7), np.nan, np.float32)
    plane[4, 6], plane[0, 0], plane[1, 1] = 3, 1, 2
    cells = 2 / 580
    sides = (0.0, 7 * cells, 0.0, 5 * cells)
    joined, shown = sparse_picture._at_resolution(plane, sides, 2 * cells * 580)
    np.testing.assert_array_equal(joined[[0, 2], [0, 3]], [2, 3])
    assert joined.shape == (3, 4) and np.isnan(joined).sum() == 10
    assert shown == pytest.approx((0, 8 * cells, 0, 6 * cells))


def test_command_runs_end_to_end(
    scan: Scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib.image import imread

    np.save(tmp_path / scan.name, scan.points)
    out = tmp_path / "small.png"
    assert main(["demo", "sparse", str(tmp_path / scan.name), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("subm 3x3x3") == 8 and f"wrote {out}" in printed
    page = imread(out)[..., :3]
    assert (page.min(axis=(0, 2)) == 1)[:20].all(), "the margin is not white"
    for row in np.array_split(page, 2):
        for panel in np.array_split(row, 3, axis=1):
            assert panel.std() > 0.05, "a panel is blank"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.npy"], "fastconv: SCAN: got 'none.npy', which is no file\n"),
        (["none.npy", "--out", "a.jpg"], "fastconv: --out: got 'a.jpg', want a .png file in a"),
    ],
)
def test_a_bad_argument_is_one_sentence(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "sparse", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(said)
    assert captured.err.count("\n") == 1
