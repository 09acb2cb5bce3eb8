"""The demo on small pictures: every engine computes the same, table and picture are whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastconv import dispatch
from fastconv.cli import main
from fastconv.demo import cases, engines, picture, report
from fastconv.demo.cases import Array, Case
from fastconv.demo.engines import Measured, PeerMeasured

pytestmark = pytest.mark.program

_NAMES = [
    "Gaussian 15x15",
    "Sharpen 3x3",
    "Blur 5x5, dilation 1, 2, 4",
    "Sobel 3x3, x and y",
    "Depthwise-separable",
    "Stem 7x7, stride 2",
    "Residual block",
]


@pytest.fixture(scope="module")
def photographs() -> tuple[Array, Array]:
    """Two small pictures with edges in them; odd sizes, as the real ones have."""
    random = np.random.default_rng(0)
    china, flower = random.random((2, 3, 13, 11), dtype=np.float32).repeat(5, 2).repeat(5, 3)
    return china[..., :61, :51], flower[..., :61, :51]


@pytest.fixture(scope="module")
def all_cases(photographs: tuple[Array, Array]) -> list[Case]:
    chosen = cases.image_cases(*photographs)
    stem = engines.run_reference(chosen[-1]).astype(np.float32)
    return [*chosen, cases.block_case(stem)]


@pytest.fixture(scope="module")
def truth(all_cases: list[Case]) -> list[np.ndarray]:
    return [engines.run_reference(case) for case in all_cases]


@pytest.fixture(scope="module")
def results(all_cases: list[Case]) -> list[Measured]:
    return [engines.run_fastconv(case) for case in all_cases]


def _assert_close(y: np.ndarray | None, truth: np.ndarray, relative: float = 1e-5) -> None:
    assert y is not None and y.dtype == np.float32 and y.shape == truth.shape
    np.testing.assert_allclose(y, truth, rtol=0, atol=relative * float(np.abs(truth).max()))


def test_cases_are_the_announced_ones(all_cases: list[Case]) -> None:
    assert [case.name for case in all_cases] == _NAMES


def test_filters_keep_what_they_should() -> None:
    stem = cases.stem_weight()
    assert stem.shape == (64, 3, 7, 7)
    np.testing.assert_allclose(stem.sum((2, 3)), 0, atol=1e-6)  # flat areas give no edge
    flat = np.full((3, 40, 40), 0.5, np.float32)
    for case in cases.image_cases(flat, flat)[:3]:
        middle = engines.run_reference(case)[:, 15:25, 15:25]
        np.testing.assert_allclose(middle, 0.5, atol=1e-6)  # blurs and sharpening keep the mean


@pytest.mark.parametrize("index", range(len(_NAMES)), ids=_NAMES)
def test_fastconv_agrees_with_the_reference(
    index: int, results: list[Measured], truth: list[np.ndarray]
) -> None:
    allowed = {spec.name: spec.tolerance["float32"].relative for spec in dispatch.kernels("conv")}
    # A layer passes the error of the one before on, at most a few times as large.
    bound = 4 * sum(allowed[name] for name in results[index].kernels)
    _assert_close(results[index].y, truth[index], bound)


def test_kernels_are_registered_ones(results: list[Measured]) -> None:
    known = {spec.name for spec in dispatch.kernels(op="conv", device="cpu")}
    for result in results:
        assert len(result.kernels) == len(result.case.layers)
        assert set(result.kernels) <= known


def test_scipy_agrees_with_the_reference(all_cases: list[Case], truth: list[np.ndarray]) -> None:
    for peer, expected in zip(engines.run_scipy(all_cases), truth, strict=True):
        _assert_close(peer.y, expected)
        assert peer.milliseconds is not None and peer.milliseconds > 0


def test_torch_in_its_own_process_agrees_with_the_reference(
    all_cases: list[Case], truth: list[np.ndarray]
) -> None:
    for peer, expected in zip(engines.run_torch(all_cases), truth, strict=True):
        _assert_close(peer.y, expected)


def test_a_broken_torch_is_a_note_and_no_crash(
    all_cases: list[Case], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch is missing')\n")
    monkeypatch.syspath_prepend(tmp_path)  # the new process starts with this one's path
    assert {peer.reason for peer in engines.run_torch(all_cases)} == {
        "failed (libtorch is missing)"
    }


def test_scipy_is_given_up_when_it_is_slow(
    all_cases: list[Case], results: list[Measured], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "SCIPY_SECONDS", 0.0)
    peers = engines.run_scipy(all_cases)
    assert all(peer.y is None for peer in peers)
    text = report.table(results, {"SciPy": peers})
    assert "SciPy: needs more than 0 s." in text


def test_missing_peers_leave_the_reference_as_the_measure(
    all_cases: list[Case], results: list[Measured], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    peers = {"SciPy": engines.run_scipy(all_cases), "PyTorch": engines.run_torch(all_cases)}
    lines = report.table(results, peers).splitlines()
    assert lines[0].split()[-2:] == ["ms", "difference"]
    for line, name in zip(lines[2:], _NAMES, strict=False):
        assert line.startswith(name)
        assert line.split()[-3:-1] == ["-", "-"]
        assert float(line.split()[-1]) < 1e-4
    assert "SciPy: not installed." in lines and "PyTorch: not installed." in lines


def test_a_reason_for_some_cases_names_them(results: list[Measured]) -> None:
    peers = [PeerMeasured(result.y, 1.0) for result in results]
    peers[-1] = PeerMeasured(reason="needs more than 3 s")
    text = report.table(results, {"SciPy": peers})
    assert "SciPy: needs more than 3 s for Residual block." in text


def test_picture_shows_every_panel(
    tmp_path: Path, photographs: tuple[Array, Array], results: list[Measured]
) -> None:
    from matplotlib.image import imread

    out = tmp_path / "demo.png"
    picture.draw(out, *photographs, results)
    page = imread(out)[..., :3]
    assert page.shape[0] > 1000 and page.shape[1] > 2000
    assert (page.min(axis=(0, 2)) == 1)[:30].all(), "the margin is not white"
    for row in np.array_split(page, 3):
        for panel in np.array_split(row, 4, axis=1):
            assert panel.std() > 0.05, "a panel is blank"


def test_command_runs_end_to_end(
    tmp_path: Path,
    photographs: tuple[Array, Array],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cases, "photographs", lambda: photographs)
    out = tmp_path / "small.png"
    assert main(["demo", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in _NAMES)
    assert f"wrote {out}" in printed and out.stat().st_size > 10_000


@pytest.mark.parametrize("name", ["missing/demo.png", "demo.jpg"])
def test_bad_output_path_is_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("fastconv: --out: got ")
    assert captured.err.count("\n") == 1


def test_real_photographs_are_what_the_picture_expects() -> None:
    for photograph in cases.photographs():
        assert photograph.shape == (3, 427, 640) and photograph.dtype == np.float32
        assert photograph.min() >= 0 and photograph.max() <= 1
