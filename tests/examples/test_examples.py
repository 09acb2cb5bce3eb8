"""Each example runs as its first lines say, and finds what is there to find."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def needs(*modules: str) -> None:
    """Skip a test for whose example a package is missing."""
    for name in modules:
        if find_spec(name) is None:
            pytest.skip(f"package {name} is not installed")


def run(name: str, *words: str | Path) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, words)],
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def module(path: Path) -> ModuleType:
    """An example, imported."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def lines_read(printed: str) -> dict[str, list[tuple[str, float]]]:
    """By picture, the lines of text that `ocr.py` printed and their scores."""
    found: dict[str, list[tuple[str, float]]] = {}
    for line in printed.splitlines():
        if title := re.fullmatch(r"(\w+): \d+ lines", line):
            found[title[1]] = []
        elif text := re.fullmatch(r"  (\d\.\d{3})  (.*)", line):
            found[list(found)[-1]].append((text[2], float(text[1])))
    return found


def test_ocr_reads_what_onnx_runtime_reads(tmp_path: Path) -> None:
    if sys.version_info >= (3, 13):
        pytest.skip("rapidocr-onnxruntime has no release for this Python")
    needs("rapidocr_onnxruntime", "onnxruntime", "onnx")
    own = lines_read(run("ocr.py", "--out", tmp_path))
    assert {name: [text for text, _ in lines] for name, lines in own.items()} == {
        "receipt": ["Corner Cafe", "2 espresso 5.60", "1 croissant 2.90", "Total 8.50"],
        "sign": ["PLATFORM 12", "Zurich 09:41"],
        "upside_down": ["is a sum of products", "Convolution"],
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.png" for name in own]
    # Pictures as they were written, frames and all, are read by their names.
    assert "PLATFORM 12" in run("ocr.py", tmp_path / "sign.png")
    theirs = lines_read(run("ocr.py", "--runtime", "onnxruntime"))
    for name, lines in theirs.items():
        assert [text for text, _ in lines] == [text for text, _ in own[name]]
        # Printed with three digits, and where sums round otherwise the last may be another.
        assert [score for _, score in lines] == pytest.approx([s for _, s in own[name]], abs=2e-3)


def test_speech_is_where_onnx_runtime_finds_it(tmp_path: Path) -> None:
    needs("silero_vad", "onnxruntime", "onnx", "scipy")
    own = run("voice_activity.py")
    assert own == run("voice_activity.py", "--runtime", "onnxruntime")
    found = re.findall(r"speech from ([\d.]+) s to ([\d.]+) s", own)
    # The voices are from 0.80 s to 2.12 s and from 2.92 s to 4.02 s; the model hears an echo.
    voices = [0.80, 2.12, 2.92, 4.02]
    assert [float(each) for pair in found for each in pair] == pytest.approx(voices, abs=0.15)


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    needs("silero_vad", "onnxruntime", "onnx", "scipy")
    from scipy.io import wavfile

    path = tmp_path / "silence.wav"
    wavfile.write(path, 8_000, np.full((8_000, 2), 128, np.uint8))
    printed = run("voice_activity.py", path)
    assert printed.startswith("1.00 s of sound") and "speech" not in printed


def test_a_network_segments_alike_on_fastconv(tmp_path: Path) -> None:
    needs("torch", "sklearn", "scipy", "matplotlib")
    picture = tmp_path / "sky.png"
    printed = run("segmentation.py", "--steps", "40", "--out", picture, "--report")
    shares = re.search(r"PyTorch ([\d.]+), fastconv ([\d.]+) in common", printed)
    difference = re.search(r"largest difference: (\S+) of", printed)
    assert shares and difference
    theirs, ours = map(float, shares.groups())
    # Both round, so pixels on the border of the sky may differ; and it has learned something: where
    # all were sky, 0.4 would be in common.
    assert abs(ours - theirs) <= 0.002 and ours > 0.5
    assert float(difference[1]) < 1e-4
    assert "19 on fastconv, 0 left to PyTorch; traced by torch.fx" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_scan_goes_through_the_backbone(tmp_path: Path) -> None:
    needs("torch", "matplotlib")
    from fastconv.scans.lidar import sweep

    np.save(tmp_path / "scan.npy", sweep(seed=1)[::4])
    printed = run("lidar_backbone.py", tmp_path / "scan.npy", "--out", tmp_path / "above.png")
    found = re.findall(r"stage (\d): (\d+) sites of ([\d x]+), (\d+) channels", printed)
    assert [(grid, channels) for _, _, grid, channels in found] == [
        ("41 x 1024 x 1024", "16"), ("21 x 512 x 512", "32"), ("11 x 256 x 256", "64"),
        ("5 x 128 x 128", "64"), ("2 x 128 x 128", "128"),
    ]  # fmt: skip
    assert f"{found[0][1]} voxels" in printed  # the first stage keeps the sites
    assert (tmp_path / "above.png").read_bytes().startswith(b"\x89PNG")


def test_the_backbone_is_spconvs_but_for_its_imports(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="package torch is not installed")
    pytest.importorskip("spconv.pytorch", reason="package spconv is not installed")
    from fastconv.scans.lidar import sweep

    source = (EXAMPLES / "lidar_backbone.py").read_text(encoding="utf-8")
    assert len(re.findall(r"^(?:from|import) fastconv\.spconv\.", source, re.MULTILINE)) == 2
    (tmp_path / "theirs.py").write_text(source.replace("fastconv.spconv.", "spconv."))
    ours, theirs = module(EXAMPLES / "lidar_backbone.py"), module(tmp_path / "theirs.py")
    points = sweep()
    points = points[np.abs(points[:, :2]).max(axis=1) < 15]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # spconv's results on a CPU are right on one thread alone
    try:
        with torch.no_grad():
            network = ours.calibrated(ours.to_voxels(points))
            _, above = network(ours.to_voxels(points))
            same = theirs.Backbone().eval()
            same.load_state_dict(network.state_dict())
            _, wanted = same(theirs.to_voxels(points))
    finally:
        torch.set_num_threads(threads)
    assert above.shape == wanted.shape == (1, 256, 128, 128)
    assert float((above - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())
    assert float(wanted.abs().max()) > 1
