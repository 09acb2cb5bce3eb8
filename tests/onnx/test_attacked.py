"""Models by which sessions once went wrong, each run several times on other numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from fastconv.contract.errors import ArgumentError, DTypeError
from fastconv.onnx import InferenceSession

HEAD = '<ir_version: 8, opset_import: ["": 18]>\n'
SEQUENCE = """
    graph (float[1,1,4,4] x) => (float[1,1,4,4] y) <float[1,1,1,1] w = {2}> {
        a = Conv(x, w)
        q = SequenceConstruct(a)
        b = Conv(x, w)
        c = Conv(b, w)
        d = Conv(c, w)
        i = Constant<value = int64 {0}>()
        e = SequenceAt(q, i)
        y = Sub(d, e)
    }"""
INFINITE = """
    graph (float[1,1,1,3] x) => (float[1,1,1,2] y)
    <float[1,1,1,2] w = {1, 0}, float[1] much = {inf}> {
        a = Conv(x, w)
        y = Mul(a, much)
    }"""
VECTOR = """
    graph (float[2] x) => (float[3] y) <float[2,3] w = {1, 2, 3, 4, 5, 6}> {
        a = MatMul(x, w)
        y = Relu(a)
    }"""
NO_COLUMNS = """
    graph (float[3,0] x) => (float[3,5] y) <float[0,5] w = {}> {
        y = MatMul(x, w)
    }"""


def parsed(text: str) -> Any:
    return onnx.parser.parse_model(HEAD + text)


@pytest.mark.parametrize("text", [SEQUENCE, INFINITE, VECTOR, NO_COLUMNS])
def test_every_run_is_the_reference(text: str, rng: np.random.Generator) -> None:
    model = parsed(text)
    session, reference = InferenceSession(model.SerializeToString()), ReferenceEvaluator(model)
    shape = [each.dim_value for each in model.graph.input[0].type.tensor_type.shape.dim]
    for _ in range(4):
        x = rng.uniform(0.5, 1, shape).astype(np.float32)
        (made,), (wanted,) = session.run(None, {"x": x}), reference.run(None, {"x": x})
        assert made.shape == wanted.shape
        np.testing.assert_allclose(made, wanted, rtol=1e-5)


def test_a_sequence_is_the_callers() -> None:
    text = """
        graph (float[1,1,2,2] x) => (seq(float[1,1,2,2]) q) <float[1,1,1,1] w = {2}> {
            a = Conv(x, w)
            q = SequenceConstruct(x, a)
        }"""
    session = InferenceSession(parsed(text).SerializeToString())
    x = np.ones((1, 1, 2, 2), np.float32)
    for _ in range(3):
        first, second = session.run(None, {"x": x})[0]
        session.run(None, {"x": 5 * x})
        assert first.max() == 1 and second.max() == 2
        first[...] = 9
        assert x.max() == 1


def test_a_constant_that_a_loop_returns_is_the_callers() -> None:
    text = """
        graph (float[2] x, int64 most, bool go) => (float[2] y, float[2] k) {
            z = Constant<value = float[2] {0, 0}>()
            y, k = Loop<body = step (int64 i, bool c, float[2] v, float[2] kk)
                => (bool c2, float[2] v2, float[2] k2) {
                c2 = Identity(c)
                v2 = Neg(v)
                k2 = Constant<value = float[2] {1, 2}>()
            }>(most, go, x, z)
        }"""
    session = InferenceSession(parsed(text).SerializeToString())
    fed = {"x": np.ones(2, np.float32), "most": np.array(1), "go": np.array(True)}
    for _ in range(4):
        made = session.run(["k"], fed)[0]
        assert made.tolist() == [1, 2]
        made[...] = 99


def test_outputs_share_no_memory() -> None:
    text = """
        graph (float[1,1,2,2] x) => (float[1,1,2,2] y, float[4] z) <float[1,1,1,1] w = {2}> {
            y = Conv(x, w)
            s = Constant<value = int64[1] {-1}>()
            z = Reshape(y, s)
        }"""
    session = InferenceSession(parsed(text).SerializeToString())
    for _ in range(3):
        y, z = session.run(None, {"x": np.ones((1, 1, 2, 2), np.float32)})
        assert not np.shares_memory(y, z)


def test_what_is_no_model_or_run_is_a_sentence() -> None:
    model = parsed(VECTOR)
    model.opset_import[0].version = 99
    with pytest.raises(ArgumentError, match="operator set 99, want at most"):
        InferenceSession(model.SerializeToString())
    with pytest.raises(ArgumentError, match="path_or_bytes"):
        InferenceSession("a\0b")
    session = InferenceSession(parsed(VECTOR).SerializeToString())
    with pytest.raises(ArgumentError, match="output_names: got 3"):
        session.run(3, {"x": np.ones(2, np.float32)})  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="x: got MaskedArray"):
        session.run(None, {"x": np.ma.ones(2, np.float32)})
