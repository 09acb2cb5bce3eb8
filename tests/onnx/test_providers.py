"""What programs for ONNX Runtime pass to a session: taken, or refused by a sentence."""

from __future__ import annotations

import inspect
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from fastconv.contract.errors import ArgumentError, DeviceError, DTypeError
from fastconv.onnx import InferenceSession

CPU = "CPUExecutionProvider"
OPTIONS = SimpleNamespace(graph_optimization_level=99, intra_op_num_threads=1)
MODEL = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 18]>
    double_it (float[n, 2] x) => (float[n, 2] y, float[n, 2] z) {
        y = Add(x, x)
        z = Relu(y)
    }""").SerializeToString()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ((), {}),
        ((None, [CPU]), {}),
        ((OPTIONS,), {"providers": [CPU]}),
        ((), {"providers": (CPU,), "provider_options": [{"arena_extend_strategy": "same"}]}),
        ((), {"providers": [(CPU, {"arena_extend_strategy": "same"})], "provider_options": [{}]}),
        ((OPTIONS, [], []), {}),
    ],
)
def test_what_is_taken(given: Any, named: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session = InferenceSession(MODEL, *given, **named)
    x = np.array([[1, -1]], np.float32)
    y, z = session.run(None, {"x": x})
    assert np.array_equal(y, 2 * x) and np.array_equal(z, np.maximum(2 * x, 0))
    assert np.array_equal(session.run(["z"], {"x": x})[0], z)
    assert session.get_providers() == [CPU]
    assert [each.name for each in session.get_outputs()] == ["y", "z"]


def test_other_devices_before_the_cpu_are_warned_of() -> None:
    wanted = ["TensorrtExecutionProvider", ("CUDAExecutionProvider", {"device_id": 0}), CPU]
    with pytest.warns(UserWarning, match="got TensorrtExec.*, CUDAExec.*runs on the CPU"):
        session = InferenceSession(MODEL, providers=wanted)
    assert session.get_providers() == [CPU]


@pytest.mark.parametrize(
    ("named", "error", "words"),
    [
        ({"providers": ["CUDAExecutionProvider"]}, DeviceError, "got CUDAExecutionProvider alone"),
        ({"providers": ["CPU"]}, ArgumentError, "providers: got 'CPU', want 'CPUExecution"),
        ({"providers": ["MyExecutionProvider", CPU]}, ArgumentError, "got 'MyExecutionProvider'"),
        ({"providers": CPU}, DTypeError, "want a list of names"),
        ({"providers": 3}, DTypeError, "want a list of names"),
        ({"providers": [3]}, DTypeError, "providers: got 3, want a name"),
        ({"providers": [(CPU, "fast")]}, DTypeError, "dict of options"),
        ({"providers": [(CPU, {}, {})]}, DTypeError, "dict of options"),
        ({"provider_options": [{}]}, ArgumentError, "got 1 with 0 providers"),
        ({"providers": [CPU], "provider_options": []}, ArgumentError, "got 0 with 1 providers"),
        ({"providers": [CPU], "provider_options": {}}, DTypeError, "want a list of a dict"),
        ({"providers": [CPU], "provider_options": ["x"]}, DTypeError, "want a list of a dict"),
        (
            {"providers": [(CPU, {"a": 1})], "provider_options": [{"a": 1}]},
            ArgumentError,
            "want them in one place",
        ),
        ({"sess_options": {"intra_op_num_threads": 1}}, DTypeError, "sess_options: got dict"),
        ({"sess_options": [CPU]}, DTypeError, "sess_options: got list"),
    ],
)
def test_what_is_refused(named: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        InferenceSession(MODEL, **named)


def test_the_names_are_onnx_runtimes() -> None:
    runtime = pytest.importorskip("onnxruntime", reason="package onnxruntime is not installed")
    theirs = list(inspect.signature(runtime.InferenceSession).parameters)
    assert list(inspect.signature(InferenceSession).parameters) == theirs[:4]
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    other = [each for each in runtime.get_all_providers() if each != CPU]
    with pytest.warns(UserWarning, match="beside"):
        InferenceSession(MODEL, options, [*other, CPU])
    with pytest.warns(UserWarning, match="beside") as told:
        InferenceSession(MODEL, providers=[*other, CPU])
    assert told[0].filename == __file__
