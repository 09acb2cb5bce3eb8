"""Chains of element-wise nodes: what is one pass gives what the nodes give one by one."""

from __future__ import annotations

import doctest
import warnings
from importlib import import_module
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import make_node
from onnx.reference import ReferenceEvaluator

import fastconv
import onnx_models
from fastconv.contract.errors import FastconvError
from fastconv.onnx import InferenceSession, chains
from fastconv.onnx.chains import Chain
from fastconv.onnx.elementwise import _EXPRESSIONS

X = [2, 3, 9, 7]


def session_of(made: Any) -> InferenceSession:
    return InferenceSession(made.SerializeToString())


def described(session: InferenceSession) -> list[str]:
    return [step.described().removeprefix("fastconv, element-wise") for step in session._steps]


def compared(made: Any, fed: dict[str, Any], units: float = 16.0) -> InferenceSession:
    """A session whose outputs are the reference's, in three runs, the last two by jobs."""
    session = session_of(made)
    with np.errstate(all="ignore"):
        wanted = ReferenceEvaluator(made).run(None, fed)
    for _ in range(3):
        for own, each in zip(session.run(None, fed), wanted, strict=True):
            each = np.asarray(each)
            assert own.dtype == each.dtype and own.shape == each.shape
            unit = np.finfo(each.dtype).eps if each.dtype.kind == "f" else 0
            np.testing.assert_allclose(own, each, rtol=units * unit, atol=units * unit)
    return session


def typed(made: Any, dtype: int) -> Any:
    """The model with inputs of another element type."""
    for each in made.graph.input:
        each.type.tensor_type.elem_type = dtype
    return made


def one_pass(made: Any, fed: dict[str, Any]) -> Chain:
    """The only step of a model, which is no pass of ONNX's reference."""
    session = compared(made, fed)
    (step,) = session._steps
    assert isinstance(step, Chain) and step.handed_on == ""
    (jobs,) = (each for each in session._job_lists.values() if each is not None)
    assert jobs.python_steps == [] and jobs.jobs > 0
    return step


@pytest.fixture
def x(rng: np.random.Generator) -> Any:
    return rng.standard_normal(X, dtype=np.float32)


def test_the_example_runs() -> None:
    result = doctest.testmod(chains)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("kind", sorted(_EXPRESSIONS))
def test_the_cases_of_an_operator(kind: str) -> None:
    """ONNX's own cases: those of one floating-point type are not handed on."""
    node = import_module("onnx.backend.test.case.node")
    runner = import_module("onnx.backend.test.runner")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module(f"{node.__name__}.{kind.lower()}")
    cases = [case for case in node._NodeTestCases if len(case.model.graph.node) == 1]
    cases = [case for case in cases if case.model.graph.node[0].op_type == kind]
    assert cases
    own = 0
    for case in cases:
        prepared = fastconv.onnx.Backend.prepare(case.model)
        for inputs, outputs in case.data_sets:
            given = [runner._normalize_tensor(each) for each in inputs]
            wanted = [runner._normalize_tensor(each) for each in outputs]
            with np.errstate(all="ignore"):
                made = prepared.run(given)
            runner.Runner.assert_similar_outputs(wanted, made, case.rtol, case.atol, case.name)
            (step,) = prepared._session._steps
            floats = all(each.dtype.kind == "f" for each in given)
            own += isinstance(step, Chain) and not step.handed_on
            assert kind == "Pow" or not floats or len(given) == 0 or not step.handed_on, case.name
    assert own or kind == "Pow"  # whose exponents are inputs there


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_that_meets_in_a_value_is_one_pass(dtype: Any, rng: np.random.Generator) -> None:
    nodes = [
        make_node("Add", ["x", "b"], ["a"]),
        make_node("Sigmoid", ["a"], ["s"]),
        make_node("Mul", ["a", "s"], ["m"]),
        make_node("Sqrt", ["p"], ["r"]),
        make_node("Sub", ["m", "r"], ["d"]),
        make_node("Clip", ["d", "low", "high"], ["c"]),
        make_node("Max", ["c", "x", "b"], ["y"]),
    ]
    constants = {"low": np.array(-1, dtype), "high": np.array(1.5, dtype)}
    made = onnx_models.model(
        nodes, {"x": ["n", 3, "h", 7], "b": [3, 1, 1], "p": ["h", 7]}, ["y"], constants
    )
    made = typed(made, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    fed = {
        "x": rng.standard_normal(X).astype(dtype),
        "b": rng.standard_normal((3, 1, 1)).astype(dtype),
        "p": rng.random((9, 7)).astype(dtype),
    }
    fed["x"][0, 0, 0, :3] = np.nan, np.inf, -np.inf
    session = compared(made, fed)
    assert described(session) == [", 7 nodes in one"]
    assert len(session._steps[0]._kept[next(iter(session._steps[0]._kept))]) == 2


def test_a_value_that_others_take_ends_a_chain(x: Any) -> None:
    nodes = [
        make_node("Neg", ["x"], ["a"]),
        make_node("Exp", ["a"], ["b"]),
        make_node("Abs", ["b"], ["c"]),
        make_node("Tanh", ["c"], ["d"]),
        make_node("ReduceMean", ["b"], ["e"], keepdims=1),
        make_node("Div", ["d", "e"], ["y"]),
        make_node("Mul", ["c", "c"], ["z"]),
    ]
    made = onnx_models.model(nodes, {"x": X}, ["y", "z", "c"])
    told = described(compared(made, {"x": x}, 64))
    assert told == [", 2 nodes in one", "", "fastconv", ", 2 nodes in one", ""]


def test_what_layers_take_is_theirs(x: Any, rng: np.random.Generator) -> None:
    nodes = [
        make_node("Abs", ["x"], ["r"]),
        make_node("Conv", ["x", "w"], ["a"]),
        make_node("Add", ["a", "r"], ["b"]),
        make_node("Relu", ["b"], ["c"]),
        make_node("Neg", ["c"], ["d"]),
        make_node("Exp", ["d"], ["y"]),
    ]
    weight = {"w": rng.standard_normal((3, 3, 1, 1), dtype=np.float32)}
    told = described(compared(onnx_models.model(nodes, {"x": X}, ["y"], weight), {"x": x}, 64))
    assert told == ["", "fastconv.Conv2d, residual, relu", ", 2 nodes in one"]


def test_what_is_small_is_computed_once(x: Any, rng: np.random.Generator) -> None:
    """A gate of one number a channel is not computed again for each pixel."""
    nodes = [
        make_node("HardSigmoid", ["g"], ["s"], alpha=0.2, beta=0.5),
        make_node("Mul", ["x", "s"], ["m"]),
        make_node("Pow", ["m", "two"], ["y"]),
    ]
    constants = {"two": np.array([2], np.int64)}
    made = onnx_models.model(nodes, {"x": X, "g": [2, 3, 1, 1]}, ["y"], constants)
    fed = {"x": x, "g": rng.standard_normal((2, 3, 1, 1), dtype=np.float32)}
    step = one_pass(made, fed)
    (passes,) = {tuple(each.shape for each in passes) for passes in step._kept.values()}
    assert passes == ((2, 3, 1, 1), tuple(X))


@pytest.mark.parametrize("exponent", [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0, 4.0, 2.2, -1.3])
def test_powers(exponent: float, rng: np.random.Generator) -> None:
    nodes = [make_node("Pow", ["x", "e"], ["y"])]
    made = onnx_models.model(nodes, {"x": [50]}, ["y"], {"e": np.array(exponent, np.float32)})
    x = rng.uniform(0.1, 10, 50).astype(np.float32)
    if exponent.is_integer():
        x *= rng.choice([-1, 1], 50).astype(np.float32)
    one_pass(made, {"x": np.concatenate([x[1:], np.float32([0.0])])})


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 0)])
def test_shapes_without_axes_or_elements(shape: tuple[int, ...]) -> None:
    nodes = [make_node("Abs", ["x"], ["a"]), make_node("Add", ["a", "a"], ["y"])]
    made = onnx_models.model(nodes, {"x": list(shape)}, ["y"])
    compared(made, {"x": np.full(shape, -3, np.float32)})


def test_a_half_is_rounded_once(x: Any) -> None:
    nodes = [make_node("Exp", ["x"], ["a"]), make_node("Neg", ["a"], ["y"])]
    made = typed(onnx_models.model(nodes, {"x": X}, ["y"]), onnx.TensorProto.FLOAT16)
    half = x.astype(np.float16)
    (own,) = session_of(made).run(None, {"x": half})
    assert own.dtype == np.float16
    exact = -np.exp(half.astype(np.float64))
    assert (np.abs(own - exact) <= 2.0**-11 * 1.01 * np.abs(exact) + 2.0**-25).all()


def test_whole_numbers_are_the_references(rng: np.random.Generator) -> None:
    nodes = [make_node("Div", ["x", "three"], ["a"]), make_node("Neg", ["a"], ["y"])]
    made = onnx_models.model(nodes, {"x": [50]}, ["y"], {"three": np.array([3])})
    made = typed(made, onnx.TensorProto.INT64)
    session = compared(made, {"x": rng.integers(-50, 50, 50)})
    assert "handed on: computes arrays of one floating-point type; here int64" in session.explain()


def test_shapes_that_do_not_fit_are_a_sentence(x: Any) -> None:
    nodes = [make_node("Add", ["x", "b"], ["a"], name="sum"), make_node("Neg", ["a"], ["y"])]
    made = onnx_models.model(nodes, {"x": X, "b": ["k"]}, ["y"])
    with pytest.raises(FastconvError, match=r"node 'sum' \(Add\)"):
        session_of(made).run(None, {"x": x, "b": np.zeros(5, np.float32)})


@pytest.mark.parametrize("told", [{}, {"broadcast": 1, "axis": 1}])
def test_sums_of_old_versions_are_the_references(told: dict[str, int]) -> None:
    """Whose shapes broadcast by other rules, or not at all."""
    nodes = [make_node("Add", ["x", "b"], ["y"], **told)]
    made = onnx_models.model(nodes, {"x": X}, ["y"], {"b": np.ones(3, np.float32)}, version=6)
    assert described(session_of(made)) == ["ONNX's reference"]


def test_a_chain_writes_its_part_of_a_joined_value(x: Any) -> None:
    nodes = [
        make_node("Abs", ["x"], ["a"]),
        make_node("Sqrt", ["a"], ["b"]),
        make_node("LeakyRelu", ["x"], ["c"], alpha=0.1),
        make_node("Concat", ["b", "c"], ["d"], axis=1),
        make_node("Softplus", ["d"], ["y"]),
    ]
    made = onnx_models.model(nodes, {"x": X}, ["y"])
    session = compared(made, {"x": x})
    (jobs,) = (each for each in session._job_lists.values() if each is not None)
    assert jobs.python_steps == []
    for name in ("b", "c"):
        assert np.shares_memory(jobs._values[name], jobs._values["d"])


def test_channels_last_stays_so(x: Any) -> None:
    nodes = [make_node("Abs", ["x"], ["a"]), make_node("Mul", ["a", "g"], ["y"])]
    constants = {"g": np.arange(3, dtype=np.float32).reshape(3, 1, 1)}
    made = onnx_models.model(nodes, {"x": X}, ["y"], constants)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    (own,) = session_of(made).run(None, {"x": last})
    np.testing.assert_array_equal(own, np.abs(x) * constants["g"])
    assert own.strides == last.strides


def test_a_constant_in_the_middle(x: Any) -> None:
    """What a branch of ``If`` takes from around it is no inner value."""
    branch = onnx.helper.make_graph(
        [make_node("Neg", ["a"], ["t"])], "branch", [], [onnx.ValueInfoProto(name="t")]
    )
    other = onnx.helper.make_graph(
        [make_node("Abs", ["a"], ["t"])], "branch", [], [onnx.ValueInfoProto(name="t")]
    )
    nodes = [
        make_node("Exp", ["x"], ["a"]),
        make_node("If", ["flag"], ["b"], then_branch=branch, else_branch=other),
        make_node("Add", ["a", "b"], ["y"]),
    ]
    made = onnx_models.model(nodes, {"x": X}, ["y"])
    made.graph.input.append(onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, []))
    for flag in (True, False):
        compared(made, {"x": x, "flag": np.array(flag)})


def test_other_shapes_in_one_session(rng: np.random.Generator) -> None:
    nodes = [make_node("Mul", ["x", "s"], ["a"]), make_node("HardSwish", ["a"], ["y"])]
    made = onnx_models.model(nodes, {"x": ["n", "k"]}, ["y"], {"s": np.array([[0.5]], np.float32)})
    session = session_of(made)
    for size in [*range(1, 100), 3]:
        x = rng.standard_normal((2, size), dtype=np.float32)
        a = x * np.float32(0.5)
        (own,) = session.run(None, {"x": x})
        np.testing.assert_allclose(own, a * np.clip(a + 3, 0, 6) / 6, rtol=1e-6, atol=1e-6)
    assert len(session._steps[0]._kept) <= 64
