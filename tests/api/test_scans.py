"""Point clouds out of files that lie, are cut, or are something else: one sentence each.

Nothing that a file says of itself may cost memory or time beyond a small multiple of its size.
"""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastconv import FastconvError
from fastconv.cli import main
from fastconv.scans.read import ScanError, read_scan
from helpers import run_function
from scan_writer import POINTS, write_scan

pytestmark = pytest.mark.program

#: Bytes beyond the file's own that reading may take whatever the file is.
_SLACK = 4 << 20


def refused(path: Path, said: str, **options: int) -> None:
    """The file is refused in one sentence that names it, at the price of its size."""
    tracemalloc.start()
    with pytest.raises(FastconvError, match=said) as caught:
        read_scan(path, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    text = str(caught.value)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, ScanError)
    assert "\n" not in text and path.name in text and len(text) < 900
    assert peak < 16 * path.stat().st_size + _SLACK


def npy(shape: object, descr: object = "<f4", data: bytes = b"", version: int = 1) -> bytes:
    head = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(head)) + head + data


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            npy((10**12, 3)),
            r"says that it holds 3000000000000 numbers of 4 bytes and has room for 0",
        ),
        (npy((10**400, 3)), "says that it holds 3000"),
        (npy((5, 3), data=bytes(59)), "holds 15 numbers of 4 bytes and has room for 14"),
        (npy((-5, 3)), "header is damaged"),
        (npy((True, 3)), "header is damaged"),
        (npy(7), "header is damaged"),
        (npy("(" * 5000), "header is damaged|want numbers"),
        (npy((1,) * 33), "header is damaged"),
        (npy((2, 3), "|O", b"\x80\4."), "Python objects, which could run code"),
        (npy((2, 3), "<c8", bytes(48)), "complex64 of shape"),
        (npy((2, 3), [("a", "<f4")], bytes(48)), "want numbers"),
        (npy((2, 3), "<U1000000", bytes(9)), "room for 0"),
        (npy((2, 3), "nonsense", bytes(24)), "want numbers|damaged"),
        (npy((2, 3), version=9), "version 1, 2 or 3"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{}", "said to take 2147483648 bytes"),
        (b"\x93NUMPY\x01\x00\xff\x7f" + b"(" * 40000, "said to take 32767|damaged"),
        (b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10000, "damaged"),
        (b"", "does not begin as a .npy"),
        (pickle.dumps(np.zeros((4, 3))), "does not begin as a .npy"),
    ],
)
def test_npy_headers_are_held_against_the_file(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "cloud.npy"
    path.write_bytes(content)
    refused(path, said)


def test_object_arrays_are_refused_unread(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('code of the file ran')",)

    objects = np.full((2, 3), Bomb(), object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", cloud=objects)
    for name in ("a.npy", "a.npz"):
        refused(tmp_path / name, "Python objects, which could run code")
    np.savez(tmp_path / "b.npz", cloud=POINTS, notes=np.array([{"a": 1}], object))
    np.testing.assert_allclose(read_scan(tmp_path / "b.npz").points, POINTS)


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_npz_bombs(tmp_path: Path) -> None:
    zeros = npy((10**7 // 3, 3), data=bytes(4 * (10**7 // 3 * 3)))
    path = zipped(tmp_path / "bomb.npz", {"cloud.npy": zeros})
    refused(path, "times as many; want at most 32 times")
    # Another array may be as large as it likes: it is not read.
    path = zipped(tmp_path / "other.npz", {"cloud.npy": npy((2, 3), data=bytes(24)), "o.npy": npy(
        (10**9,), data=zeros[:100])})  # fmt: skip
    assert len(read_scan(path).points) == 2
    path = zipped(tmp_path / "lying.npz", {"cloud.npy": npy((10**12, 3))})
    refused(path, "times as many")
    path = zipped(tmp_path / "short.npz", {"cloud.npy": npy((20, 3), data=bytes(24))})
    refused(path, "ends after 24 of the array's 240 bytes")
    path = zipped(tmp_path / "lzma.npz", {"cloud.npy": npy((2, 3), data=bytes(24))}, 14)
    refused(path, "packed by another method")
    path = zipped(tmp_path / "none.npz", {"cloud.txt": b"1 2 3"})
    refused(path, "holds no array")
    many = {f"array{i}.npy": npy((2, 3), data=bytes(24)) for i in range(500)}
    refused(zipped(tmp_path / "many.npz", many), r"\.\.\.; want one array")


def test_npz_with_a_password(tmp_path: Path) -> None:
    path = zipped(tmp_path / "locked.npz", {"cloud.npy": npy((2, 3), data=bytes(24))})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\1\2") + 8] |= 1
    content[6] |= 1
    path.write_bytes(content)
    refused(path, "password")


def ply(header: str, data: bytes = b"", form: str = "binary_little_endian") -> bytes:
    return f"ply\nformat {form} 1.0\n{header}end_header\n".encode() + data


_XYZ = "property float x\nproperty float y\nproperty float z\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ply(f"element vertex 1000000000000\n{_XYZ}"), "holds 1000000000000 vertices of 12 bytes"),
        (ply(f"element vertex 10\n{_XYZ}", bytes(119)), "holds 10 vertices .* room for 9"),
        (ply(f"element vertex 9999999999\n{_XYZ}", b"1 2 3\n", "ascii"), "holds 9999999999 vertex"),
        (ply(f"element vertex 2\n{_XYZ}", b"1 2 3\n\n\n\n\n\n", "ascii"), "2 vertices and holds 1"),
        (ply(f"element vertex 1\n{_XYZ}", b"one two 3\n", "ascii"), "could not convert"),
        (ply(f"element vertex 2\n{_XYZ}", b"1 2 3 4 5 6\n7 8\n", "ascii"), "cannot be read"),
        (ply(f"element vertex -3\n{_XYZ}"), "header has the line 'element vertex -3'"),
        (ply(f"element vertex {'9' * 4000}\n{_XYZ}"), "header has the line"),
        (ply(f"element face {10**17}\nproperty int i\nelement vertex 1\n{_XYZ}"), "face"),
        (
            ply(f"element face {10**17}\nelement vertex 1\n{_XYZ}", b"1 2 3", "ascii"),
            "face of 1 bytes",
        ),
        (ply(f"element face 1\nproperty list uchar int i\nelement vertex 1\n{_XYZ}"), "has lists"),
        (ply(f"element vertex 1\n{_XYZ}property float x\n"), "header has the line 'property fl"),
        (ply(f"element vertex 1\n{_XYZ}property quad w\n"), "header has the line 'property quad"),
        (ply("element vertex 1\nproperty float x\n"), "no element vertex with x, y and z"),
        (ply(f"element vertex 1\n{_XYZ}", bytes(12), "binary"), "has the line 'format binary 1.0"),
        (b"ply\nelement vertex 1\n" + b"comment a\n" * 200_000, "header has no end"),
        (b"ply\n" + b"x" * 5_000_000, "header has no end"),
        (b"ply", "header has no end"),
        (b"", "does not begin with the line ply"),
    ],
)
def test_ply_headers_are_held_against_the_file(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "cloud.ply"
    path.write_bytes(content)
    refused(path, said)


def test_ply_after_other_elements(tmp_path: Path) -> None:
    head = f"comment made by hand\nelement camera 2\nproperty double f\nelement vertex 2\n{_XYZ}"
    path = tmp_path / "cloud.ply"
    rows = np.array([[1, 2, 3], [-4, -5, -6]], np.float32)
    wanted = np.hstack([rows, np.zeros((2, 1))])
    for form, order in (("binary_little_endian", "<"), ("binary_big_endian", ">")):
        path.write_bytes(ply(head, bytes(16) + rows.astype(f"{order}f4").tobytes(), form))
        np.testing.assert_array_equal(read_scan(path).points, wanted)
    path.write_bytes(ply(head, b"1\n2\n1 2 3\r\n-4 -5 -6 \n", "ascii"))
    np.testing.assert_array_equal(read_scan(path).points, wanted)


def las(path: Path, *patches: tuple[int, str, float]) -> Path:
    """Write a LAS or LAZ file of forty points and overwrite fields of its header."""
    content = bytearray(write_scan(path, POINTS).read_bytes())
    for place, form, value in patches:
        struct.pack_into(f"<{form}", content, place, value)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize(
    ("patches", "said"),
    [
        ([(247, "Q", 10**15)], "holds 1000000000000000 points|times as many"),
        ([(247, "Q", 2**64 - 1)], "holds 18446744073709551615 points|times as many"),
        ([(247, "Q", 60_000)], "room for 40|times as many"),
        ([(247, "Q", 0)], r"no point with finite coordinates \(of 0\)"),
        ([(24, "B", 2)], "LAS of version 2.4; want 1.0 to 1.4"),
        ([(25, "B", 9)], "LAS of version 1.9"),
        ([(94, "H", 10)], "header of 10 bytes"),
        ([(96, "I", 2**32 - 1)], "points at byte 4294967295, does not fit"),
        ([(105, "H", 3)], "format 3 in 3 bytes"),
        ([(104, "B", 60)], "format 60"),
        ([(131, "d", 0.0)], "want finite ones, scale > 0"),
        ([(139, "d", float("nan"))], "want finite ones, scale > 0"),
        ([(155, "d", float("inf"))], "want finite ones, scale > 0"),
        ([(131, "d", 1e300)], r"no point with finite coordinates \(of 40\)"),
        ([(155, "d", 1e300)], r"no point with finite coordinates \(of 40\)"),
        ([(0, "I", 0)], "does not begin as a LAS file"),
    ],
)
def test_las_headers_are_held_against_the_file(
    suffix: str, patches: list[tuple[int, str, float]], said: str, tmp_path: Path
) -> None:
    refused(las(tmp_path / f"cloud{suffix}", *patches), said)


@pytest.mark.parametrize("version", ["1.2", "1.3", "1.4"])
@pytest.mark.parametrize("form", [0, 1, 3, 6, 7])
def test_las_of_every_version_and_format(version: str, form: int, tmp_path: Path) -> None:
    laspy = pytest.importorskip("laspy", reason="laspy is not installed")
    if form > 5 and version != "1.4":
        return
    for suffix in (".las", ".laz"):
        cloud = laspy.LasData(laspy.LasHeader(point_format=form, version=version))
        cloud.header.scales, cloud.header.offsets = [1e-4] * 3, [-2.0, 0.0, 3.0]
        cloud.x, cloud.y, cloud.z = POINTS[:, :3].astype(np.float64).T
        cloud.intensity = np.round(POINTS[:, 3] * 255).astype(np.uint16)
        cloud.write(tmp_path / f"a{suffix}")
        found = read_scan(tmp_path / f"a{suffix}").points
        np.testing.assert_allclose(found[:, :3], POINTS[:, :3], atol=6e-5)


def test_laz_records_that_do_not_fit(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "cloud.laz", POINTS)
    content = path.read_bytes()
    at = content.index(b"laszip encoded")
    start = struct.unpack_from("<I", content, 96)[0]
    for place, form, value, said in (
        (at, "B", 0, "no record of LASzip that fits"),
        (at + 52 + 12, "I", 0, "no record of LASzip that fits"),
        (at + 52 + 12, "I", 10, "has 1 chunks, and its 40 points make 4"),
        (at + 52 + 32, "H", 9999, "no record of LASzip that fits"),
        (at + 52 + 36, "H", 2, "no record of LASzip that fits"),
        (start, "q", 2**60, "list of chunks lies at byte"),
        (start, "q", -5, "list of chunks lies at byte"),
        (struct.unpack_from("<q", content, start)[0] + 4, "I", 2**32 - 1, "4294967295 chunks"),
    ):
        changed = bytearray(content)
        struct.pack_into(f"<{form}", changed, place, value)
        path.write_bytes(changed)
        refused(path, said)


def test_points_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    points = POINTS.astype(np.float64)
    points[3, 0], points[5, 1], points[7, 2], points[9, 3] = np.inf, 1e300, -1e39, np.nan
    np.save(tmp_path / "a.npy", points)
    found = read_scan(tmp_path / "a.npy")
    assert found.left_out == 4 and len(found.points) == 36
    np.testing.assert_allclose(found.points, np.delete(POINTS, [3, 5, 7, 9], 0))
    points[:, 0] = np.inf
    np.save(tmp_path / "a.npy", points)
    refused(tmp_path / "a.npy", r"no point with finite coordinates \(of 40\)")


def test_long_doubles_and_large_integers(tmp_path: Path) -> None:
    points = POINTS[:, :3].astype(np.longdouble)
    points[0, 0] = np.finfo(np.longdouble).max
    np.save(tmp_path / "a.npy", points)
    assert read_scan(tmp_path / "a.npy").left_out == 1
    np.save(tmp_path / "a.npy", np.array([[2**63, 0, 0], [1, 2, 3]], np.uint64))
    assert read_scan(tmp_path / "a.npy").left_out == 1


def raw(path: Path, columns: int) -> tuple[Path, np.ndarray]:
    """A data set's raw floats: KITTI's four, nuScenes' five, ScanNet's six."""
    random = np.random.default_rng(columns)
    rows = random.uniform(-40, 40, (600, columns)).astype("<f4")
    if columns == 4:
        rows[:, 3] = random.uniform(0, 1, 600)
    else:
        rows[:, 3:] = random.integers(0, 256, (600, columns - 3))
    rows.tofile(path)
    return path, rows


@pytest.mark.parametrize(
    ("name", "columns"), [("a.bin", 4), ("a.pcd.bin", 5), ("LIDAR_TOP__1.PCD.BIN", 5)]
)
def test_the_name_tells_the_columns_of_raw_floats(name: str, columns: int, tmp_path: Path) -> None:
    path, rows = raw(tmp_path / name, columns)
    found = read_scan(path)
    assert len(found.points) == len(rows)
    np.testing.assert_array_equal(found.points[:, :3], rows[:, :3])


@pytest.mark.parametrize("columns", [3, 5, 6])
def test_raw_floats_that_are_not_what_the_name_says(columns: int, tmp_path: Path) -> None:
    path, rows = raw(tmp_path / "a.bin", columns)
    refused(path, r"4 float32 a point, but then .*% of the points .*--columns, 4 for KITTI")
    found = read_scan(path, columns=columns)
    np.testing.assert_array_equal(found.points[:, :3], rows[:, :3])
    assert found.has_intensity == (columns > 3)


def test_raw_floats_far_away_or_of_another_size(tmp_path: Path) -> None:
    path, rows = raw(tmp_path / "a.pcd.bin", 5)
    (rows * 1e6).astype("<f4").tofile(path)
    refused(path, r"5 float32 a point, but then .*lie beyond 1000 m")
    assert len(read_scan(path, columns=5).points) == 600
    rows[:-1].tofile(path)
    path.write_bytes(path.read_bytes() + bytes(4))
    refused(path, "11984 bytes; want a multiple of 20, 5 float32 a point; points of .* would fit")
    path.write_bytes(bytes(17))
    refused(path, "17 bytes; want a multiple of 20, 5 float32 a point$")
    refused(path, "columns: got 2 for", columns=2)
    path = write_scan(tmp_path / "b.npy", POINTS)
    refused(path, "columns: got 4 for .* for a .bin file", columns=4)


def test_columns_reach_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = raw(tmp_path / "a.bin", 6)
    assert main(["explain", "sparse", str(path)]) == 2
    assert "say how many there are: --columns" in capsys.readouterr().err
    assert main(["explain", "sparse", str(path), "--columns", "6", "--voxel", "1,1,1"]) == 0
    assert "600 points" in capsys.readouterr().out
    assert main(["demo", "sparse", str(path), "--out", str(tmp_path / "a.png")]) == 2
    assert "say how many there are: --columns" in capsys.readouterr().err


def _samples(folder: Path) -> dict[str, bytes]:
    """A valid file of each format."""
    samples = {}
    for name in ("a.npy", "a.npz", "a.bin", "t.ply", "b.ply", "a.las", "a.laz"):
        path = write_scan(folder / name, POINTS, text=name[0] == "t")
        samples[name] = path.read_bytes()
    compressed = io.BytesIO()
    np.savez_compressed(compressed, cloud=POINTS)
    return {**samples, "z.npz": compressed.getvalue()}


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[float, int]]:
    """Places in a file, as shares of its length, and what is written there; a last cut."""
    places = st.floats(0, 1) | st.floats(0, 0.1)
    return draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8))


def _damaged(content: bytes, changes: list[tuple[float, int]], cut: float) -> bytes:
    out = bytearray(content)
    for share, value in changes:
        out[min(int(share * len(out)), len(out) - 1)] = value
    return bytes(out[: int(cut * len(out))])


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "z.npz", "a.bin", "t.ply", "b.ply", "a.las"])
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=damages(), cut=st.just(1.0) | st.floats(0, 1))
def test_damaged_files_are_scans_or_sentences(
    name: str, changes: list[tuple[float, int]], cut: float, tmp_path: Path
) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    path = tmp_path / name
    path.write_bytes(_damaged(_samples(tmp_path)[name], changes, cut))
    _read_or_refuse(path)


def _read_or_refuse(path: Path) -> None:
    try:
        found = read_scan(path)
    except ScanError as error:
        assert "\n" not in str(error) and path.name in str(error)
    else:
        assert found.points.dtype == np.float32 and len(found.points)
        assert np.isfinite(found.points).all()


def damaged_laz(named: str, cases: int) -> None:
    """Read so many damaged LAZ files; in a process of its own, since compiled code reads them."""
    folder = Path(named)
    random = np.random.default_rng(0)
    content = write_scan(folder / "a.laz", POINTS).read_bytes()
    for _ in range(cases):
        shares = random.random(random.integers(1, 5))
        changes = [(float(share), int(random.integers(256))) for share in shares]
        cut = 1.0 if random.random() < 0.6 else float(random.random())
        (folder / "a.laz").write_bytes(_damaged(content, changes, cut))
        _read_or_refuse(folder / "a.laz")
    print("all were scans or sentences")


def test_damaged_laz_files_are_scans_or_sentences(tmp_path: Path) -> None:
    pytest.importorskip("lazrs", reason="lazrs is not installed")
    run = run_function(__file__, f"damaged_laz({str(tmp_path)!r}, 300)")
    assert run.returncode == 0, run.stderr[-2000:]
    assert "all were scans or sentences" in run.stdout
