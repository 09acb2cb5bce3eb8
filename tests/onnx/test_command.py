"""``python -m fastconv onnx``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx.helper import make_node

import onnx_models
from fastconv.cli import main


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file of a model with an open size."""
    nodes = [
        make_node("Conv", ["x", "w"], ["a"], name="first"),
        make_node("Relu", ["a"], ["b"]),
        make_node("Sin", ["b"], ["y"], name="last"),
    ]
    constants = {"w": np.ones((2, 3, 2), np.float32)}
    made = onnx_models.model(nodes, {"x": ["n", 3, "l"]}, ["y"], constants)
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    return str(tmp_path / "model.onnx")


def test_it_tells_of_inputs_outputs_and_steps(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["onnx", path]) == 0
    told = capsys.readouterr().out
    assert "input   x: tensor(float) (n, 3, l)" in told
    assert "2 steps: 1 fastconv.Conv1d, 1 ONNX's reference" in told


def test_it_explains_and_times(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["onnx", path, "--explain", "--bench", "--size", "l=9"]) == 0
    told = capsys.readouterr().out
    assert "first  Conv+Relu  fastconv.Conv1d, relu" in told
    assert "last   Sin        ONNX's reference" in told
    assert "slowest steps, each run by itself:" in told and "fastconv  " in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--explain"], "axis 2 has an open size, want it told by --size l=N"),
        (["--explain", "--size", "l"], "--size: got 'l', want NAME=N"),
        (["--size", "m=9"], "--size: got no size 'm' in this model, want one of l, n"),
        (["--explain", "--size", "l=1"], "node 'first' (Conv)"),
    ],
)
def test_what_it_cannot_do_is_a_sentence(
    words: list[str], message: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["onnx", path, *words]) == 2
    assert message in capsys.readouterr().err
