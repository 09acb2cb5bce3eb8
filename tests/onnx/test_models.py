"""ONNX's own models with data: layers that PyTorch wrote, operators, and graphs of a few nodes."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from fastconv.onnx import InferenceSession

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
#: Models that are left out, and why.
LEFT_OUT = {
    "test_gradient_of_add": "ONNX's reference has no operator Gradient",
    "test_gradient_of_add_and_mul": "ONNX's reference has no operator Gradient",
}


def folders() -> list[Path]:
    kinds = ("pytorch-converted", "pytorch-operator", "simple")
    found = [each for kind in kinds for each in sorted((DATA / kind).iterdir()) if each.is_dir()]
    return [each for each in found if each.name not in LEFT_OUT]


def read(path: str, kind: Any) -> Any:
    """A value of a type from its file."""
    for field, proto, convert in (
        ("sequence_type", onnx.SequenceProto, numpy_helper.to_list),
        ("optional_type", onnx.OptionalProto, numpy_helper.to_optional),
        ("tensor_type", onnx.TensorProto, numpy_helper.to_array),
    ):
        if kind.HasField(field):
            made = proto()
            made.ParseFromString(Path(path).read_bytes())
            return convert(made)
    raise AssertionError(kind)


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_a_model_of_onnx(folder: Path) -> None:
    compare = import_module("onnx.backend.test.runner").Runner.assert_similar_outputs
    model = onnx.load(folder / "model.onnx")
    session = InferenceSession(folder / "model.onnx")
    names = [each.name for each in session.get_inputs()]
    kinds = {each.name: each.type for each in model.graph.input}
    for data in sorted(folder.glob("test_data_set*")):
        fed = {
            name: read(os.fspath(data / f"input_{place}.pb"), kinds[name])
            for place, name in enumerate(names)
        }
        wanted = [
            read(os.fspath(data / f"output_{place}.pb"), each.type)
            for place, each in enumerate(model.graph.output)
        ]
        compare(wanted, session.run(None, fed), rtol=1e-3, atol=1e-7)


def test_what_is_left_out_is_there() -> None:
    assert all((DATA / "simple" / name).is_dir() for name in LEFT_OUT)
