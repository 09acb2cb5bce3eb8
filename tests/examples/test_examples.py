"""Each example runs as its first lines say, and finds what is there to find."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

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
