"""``If``: its graphs are planned as models of their own, and give what the reference gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import make_graph, make_node
from onnx.reference import ReferenceEvaluator

import onnx_models
from fastconv.contract.errors import ShapeError
from fastconv.onnx import InferenceSession


def graph(nodes: list[Any], outputs: list[str], constants: dict[str, Any] | None = None) -> Any:
    """A graph within a node."""
    tensors = [onnx.numpy_helper.from_array(each, name) for name, each in (constants or {}).items()]
    return make_graph(
        nodes, "branch", [], [onnx.ValueInfoProto(name=each) for each in outputs], tensors
    )


def model(nodes: list[Any], outputs: list[str], constants: dict[str, Any] | None = None) -> Any:
    """A model of x (1, 2, any) and a flag, of any length."""
    made = onnx_models.model(nodes, {"x": [1, 2, "l"]}, outputs, constants)
    made.graph.input.append(
        onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, ["k"])
    )
    return made


def agree(made: Any, x: Any) -> InferenceSession:
    """A session that gives, for both truths, what ONNX's reference gives."""
    session = InferenceSession(made.SerializeToString())
    for flag in (np.array([True]), np.array([False])):
        fed = {"x": x, "flag": flag}
        wanted = ReferenceEvaluator(made).run(None, fed)
        for own, each in zip(session.run(None, fed), wanted, strict=True):
            assert own.dtype == each.dtype
            np.testing.assert_allclose(own, each, rtol=1e-4, atol=1e-4)
    return session


@pytest.fixture
def x(rng: np.random.Generator) -> Any:
    return rng.standard_normal((1, 2, 9), dtype=np.float32)


def test_layers_within_a_branch_are_fused(x: Any, rng: np.random.Generator) -> None:
    own = rng.standard_normal((4, 2, 3), dtype=np.float32)
    around = rng.standard_normal((4, 2, 3), dtype=np.float32)
    then = graph(
        [make_node("Conv", ["x", "own"], ["a"]), make_node("Relu", ["a"], ["b"])], ["b"],
        {"own": own},
    )  # fmt: skip
    other = graph([make_node("Neg", ["w"], ["v"]), make_node("Conv", ["same", "v"], ["c"])], ["c"])
    nodes = [
        make_node("Identity", ["x"], ["same"]),
        make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
    ]
    session = agree(model(nodes, ["y"], {"w": around}), x)
    step = session._steps[-1]
    told = {word: [each.described() for each in program.steps]
            for word, program in step.programs.items()}  # fmt: skip
    assert told == {"then": ["fastconv.Conv1d, relu"], "else": ["fastconv.Conv1d"]}
    assert session.explain().startswith("1 nodes computed once; 4 steps: 2 fastconv.Conv1d, ")
    assert "w" not in session._constants  # which the branch has taken in


def test_a_condition_that_is_known_plans_one_graph(x: Any) -> None:
    graphs = {
        "then_branch": graph([make_node("Neg", ["x"], ["a"])], ["a"]),
        "else_branch": graph([make_node("Frobnicate", ["x"], ["b"], domain="com.example")], ["b"]),
    }
    made = model([make_node("If", ["known"], ["y"], **graphs)], ["y"], {"known": np.array([True])})
    session = InferenceSession(made.SerializeToString())
    (y,) = session.run(None, {"x": x, "flag": np.array([False])})
    assert np.array_equal(y, -x)
    assert "fastconv, then\n" in session.explain()


def test_branches_within_branches_and_outputs_that_nobody_takes(x: Any) -> None:
    inner = make_node(
        "If", ["flag"], ["p"],
        then_branch=graph([make_node("Abs", ["x"], ["a"])], ["a"]),
        else_branch=graph([make_node("Neg", ["x"], ["b"])], ["b"]),
    )  # fmt: skip
    more = make_node("Exp", ["x"], ["q"])
    outer = make_node(
        "If", ["flag"], ["unused", "y"],
        then_branch=graph([make_node("Neg", ["x"], ["c"]), make_node("Exp", ["x"], ["d"])],
                          ["d", "c"]),
        else_branch=graph([inner, more], ["q", "p"]),
    )  # fmt: skip
    session = agree(model([outer], ["y"]), x)
    assert "Exp" not in session.explain()


def test_constants_of_a_branch_are_not_the_callers(x: Any) -> None:
    one = {"one": np.ones(3, np.float32)}
    node = make_node(
        "If", ["flag"], ["y"],
        then_branch=graph([make_node("Identity", ["one"], ["a"])], ["a"], one),
        else_branch=graph([make_node("Identity", ["x"], ["b"])], ["b"]),
    )  # fmt: skip
    made = model([node], ["y"])
    session = agree(made, x)
    for flag, wanted in ((True, one["one"]), (False, x.copy())):
        for _ in range(2):
            (y,) = session.run(None, {"x": x, "flag": np.array([flag])})
            assert np.array_equal(y, wanted)
            y += 1


@pytest.mark.parametrize("shape", [(0,), (2,)])
def test_a_condition_of_several_values_is_a_sentence(x: Any, shape: tuple[int, ...]) -> None:
    node = make_node(
        "If", ["flag"], ["y"], name="choice",
        then_branch=graph([make_node("Abs", ["x"], ["a"])], ["a"]),
        else_branch=graph([make_node("Neg", ["x"], ["b"])], ["b"]),
    )  # fmt: skip
    session = InferenceSession(model([node], ["y"]).SerializeToString())
    with pytest.raises(ShapeError, match=r"node 'choice' \(If\): got a condition of shape"):
        session.run(None, {"x": x, "flag": np.ones(shape, bool)})
