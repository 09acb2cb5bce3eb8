"""Nodes that would interrupt a list of jobs: means, picked parts, products of stacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx.helper import make_node
from onnx.reference import ReferenceEvaluator

import onnx_models
from fastconv.contract.errors import FastconvError
from fastconv.onnx import InferenceSession


def compared(made: Any, inputs: dict[str, tuple[int, ...]], rng: np.random.Generator) -> Any:
    """A session that has run four times, each time as the reference."""
    session, reference = InferenceSession(made.SerializeToString()), ReferenceEvaluator(made)
    for _ in range(4):
        fed = {name: rng.standard_normal(size, np.float32) for name, size in inputs.items()}
        for own, wanted in zip(session.run(None, fed), reference.run(None, fed), strict=True):
            assert own.shape == wanted.shape and own.dtype == wanted.dtype
            np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-5)
    return session


def between(
    node: Any, inputs: dict[str, tuple[int, ...]], constants: dict[str, Any], **more: Any
) -> Any:
    """A model with a node between a convolution and an activation."""
    first = next(iter(inputs.values()))
    weight = np.linspace(-1, 1, first[1] ** 2, dtype=np.float32)
    constants = {**constants, "w": weight.reshape(first[1], first[1], *(1,) * (len(first) - 2))}
    nodes = [make_node("Conv", ["x", "w"], ["a"]), node, make_node("Sigmoid", ["b"], ["y"])]
    sizes = {name: list(size) for name, size in inputs.items()}
    return onnx_models.model(nodes, sizes, ["y"], constants, **more)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1], [-1, -2], [3, 2], [1, 2, 3], [0, 1, 2, 3]])
def test_a_mean_over_the_last_axes_is_a_pool(
    axes: list[int], keepdims: int, rng: np.random.Generator
) -> None:
    inputs = {"x": (2, 4, 5, 7)}
    node = make_node("ReduceMean", ["a", "axes"], ["b"], keepdims=keepdims)
    session = compared(between(node, inputs, {"axes": np.array(axes)}), inputs, rng)
    told = session.explain()
    assert "handed on" not in told and "in Python" not in told, told


@pytest.mark.parametrize("axes", [[1], [0], [0, 3]])
def test_other_means_are_the_references(axes: list[int], rng: np.random.Generator) -> None:
    inputs = {"x": (2, 4, 5, 7)}
    node = make_node("ReduceMean", ["a", "axes"], ["b"])
    session = compared(between(node, inputs, {"axes": np.array(axes)}), inputs, rng)
    assert "fastconv has means over the last axes" in session.explain()


def test_a_mean_whose_axes_are_an_attribute(rng: np.random.Generator) -> None:
    inputs = {"x": (2, 4, 5, 7)}
    made = between(make_node("ReduceMean", ["a"], ["b"], axes=[2, 3]), inputs, {}, version=13)
    assert "in Python" not in compared(made, inputs, rng).explain()


def test_a_mean_without_axes_is_over_all(rng: np.random.Generator) -> None:
    inputs = {"x": (2, 4, 5, 7)}
    session = compared(between(make_node("ReduceMean", ["a"], ["b"]), inputs, {}), inputs, rng)
    assert "in Python" not in session.explain()
    made = between(make_node("ReduceMean", ["a"], ["b"], noop_with_empty_axes=1), inputs, {})
    assert "without axes nothing is to be done" in compared(made, inputs, rng).explain()


def test_a_mean_of_five_axes(rng: np.random.Generator) -> None:
    inputs = {"x": (2, 3, 2, 4, 3)}
    node = make_node("ReduceMean", ["a", "axes"], ["b"], keepdims=0)
    made = between(node, inputs, {"axes": np.array([1, 2, 3, 4])})
    assert "in Python" not in compared(made, inputs, rng).explain()


@pytest.mark.parametrize("axis", [0, 1, 3, -2])
@pytest.mark.parametrize("picked", [1, -1, [0, 1], [1], [1, 0, 1], [-1, 0]])
def test_parts_are_views_or_copies(picked: Any, axis: int, rng: np.random.Generator) -> None:
    inputs = {"x": (2, 4, 5, 7)}
    node = make_node("Gather", ["a", "numbers"], ["b"], axis=axis)
    made = between(node, inputs, {"numbers": np.array(picked, np.int64)})
    told = compared(made, inputs, rng).explain()
    assert "fastconv, picked" in told and "in Python" not in told, told


@pytest.mark.parametrize("picked", [np.array([[0, 1], [1, 0]]), np.arange(70) % 2])
def test_other_parts_are_the_references(picked: Any, rng: np.random.Generator) -> None:
    inputs = {"x": (2, 4, 5, 7)}
    node = make_node("Gather", ["a", "numbers"], ["b"], axis=1)
    session = compared(between(node, inputs, {"numbers": picked}), inputs, rng)
    assert "in Python between them: b" in session.explain()


def test_parts_that_a_run_decides(rng: np.random.Generator) -> None:
    """By the greatest of an input's numbers: other ones in every run."""
    nodes = [
        make_node("ArgMax", ["x"], ["n"], axis=0, keepdims=0),
        make_node("Gather", ["z", "n"], ["b"], axis=1),
        make_node("Sigmoid", ["b"], ["y"]),
    ]
    made = onnx_models.model(nodes, {"x": [5], "z": [2, 5, 3]}, ["y"], {})
    compared(made, {"x": (5,), "z": (2, 5, 3)}, rng)


def test_a_part_that_is_not_there_is_refused(rng: np.random.Generator) -> None:
    node = make_node("Gather", ["a", "numbers"], ["b"], axis=1)
    made = between(node, {"x": (2, 4, 5, 7)}, {"numbers": np.array(4)})
    session = InferenceSession(made.SerializeToString())
    with pytest.raises(FastconvError, match=r"node 'b' \(Gather\)"):
        session.run(None, {"x": np.ones((2, 4, 5, 7), np.float32)})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((2, 4, 5, 7), (2, 4, 7, 3)),
        ((2, 4, 5, 7), (4, 7, 3)),
        ((2, 4, 5, 7), (2, 1, 7, 3)),
        ((1, 4, 5, 7), (6, 4, 7, 1)),
    ],
)
def test_stacks_of_matrices(first: Any, second: Any, rng: np.random.Generator) -> None:
    inputs = {"x": first, "z": second}
    made = between(make_node("MatMul", ["a", "z"], ["b"]), inputs, {})
    told = compared(made, inputs, rng).explain()
    assert "NumPy, stacks of matrices" in told and "handed on" not in told, told


def test_two_matrices_that_are_no_constants(rng: np.random.Generator) -> None:
    inputs = {"x": (2, 4, 7), "z": (7, 3)}
    made = between(make_node("MatMul", ["a", "z"], ["b"]), inputs, {})
    assert "NumPy" not in compared(made, inputs, rng).explain()


def test_stacks_that_do_not_fit_are_refused() -> None:
    inputs = {"x": (2, 4, 5, 7), "z": (3, 4, 7, 2)}
    made = between(make_node("MatMul", ["a", "z"], ["b"]), inputs, {})
    session = InferenceSession(made.SerializeToString())
    fed = {"x": np.ones((2, 4, 5, 7), np.float32), "z": np.ones((3, 4, 7, 2), np.float32)}
    with pytest.raises(FastconvError, match=r"node 'b' \(MatMul\)"):
        session.run(None, fed)
