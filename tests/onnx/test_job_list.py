"""Lists of jobs: what later runs of a session repeat is what its first run computes."""

from __future__ import annotations

import doctest
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

import fastconv
import onnx_models
from fastconv.bench.networks.light import light
from fastconv.kernels.cpu.runtime import recording
from fastconv.onnx import InferenceSession
from fastconv.onnx.job_list import JobList
from fastconv.onnx.joining import Join
from fastconv.onnx.steps import Translated


def jobs_of(session: InferenceSession) -> JobList:
    """The only jobs that a session has."""
    (jobs,) = (each for each in session._job_lists.values() if each is not None)
    return jobs


def repeated(made: Any, shape: tuple[int, ...], rng: np.random.Generator) -> InferenceSession:
    """A session whose later runs give the bits of a first one, each on numbers of its own."""
    session = InferenceSession(made.SerializeToString())
    (name,) = (each.name for each in session.get_inputs())
    for _ in range(5):
        fed = {name: rng.standard_normal(shape, dtype=np.float32)}
        own = session.run(None, fed)
        wanted = InferenceSession(made.SerializeToString()).run(None, fed)
        assert len(own) == len(wanted)
        for one, other in zip(own, wanted, strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape
            assert one.tobytes() == other.tobytes()
    return session


def convolution(rng: np.random.Generator, name: str, channels: int, filters: int) -> Any:
    weight = rng.standard_normal((filters, channels, 3, 3), dtype=np.float32)
    return onnx.numpy_helper.from_array(weight, name)


def model(nodes: list[Any], constants: list[Any], outputs: tuple[str, ...]) -> Any:
    value = onnx.ValueInfoProto
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4, "h", "w"])
    graph = onnx.helper.make_graph(
        nodes, "graph", [x], [value(name=name) for name in outputs], constants
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])


def dense_block(rng: np.random.Generator) -> Any:
    """Values joined to values that are joined themselves, and one that is joined twice."""
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        make_node("Conv", ["x", "a"], ["y"], **pads),
        make_node("Relu", ["y"], ["first"]),
        make_node("Conv", ["first", "b"], ["second"], **pads),
        make_node("Concat", ["first", "second"], ["both"], axis=1),
        make_node("Conv", ["both", "c"], ["third"], **pads),
        make_node("Concat", ["both", "third", "x"], ["all"], axis=1),
        make_node("MaxPool", ["all"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        make_node("Concat", ["second", "second"], ["twice"], axis=-2),
        make_node("GlobalAveragePool", ["pooled"], ["mean"]),
        make_node("Flatten", ["mean"], ["z"]),
    ]
    constants = [convolution(rng, "a", 4, 8), convolution(rng, "b", 8, 4),
                 convolution(rng, "c", 12, 4)]  # fmt: skip
    return model(nodes, constants, ("z", "twice", "all"))


def test_the_example_runs() -> None:
    result = doctest.testmod(recording)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("batch", [1, 3])
def test_joined_values_are_made_in_their_places(batch: int, rng: np.random.Generator) -> None:
    session = repeated(dense_block(rng), (batch, 4, 9, 7), rng)
    jobs = jobs_of(session)
    assert jobs.python_steps == []
    joins = [step for step in session._steps if isinstance(step, Join)]
    values = jobs._values
    for place, name in ((0, "first"), (0, "second"), (1, "both"), (1, "third")):
        assert np.shares_memory(values[joins[place].outputs[0]], values[name])
    assert "jobs in a list" in session.explain()


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_a_network(name: str, rng: np.random.Generator) -> None:
    made = light(name, seed=1)
    session = InferenceSession(made.SerializeToString())
    for seed in range(4):
        fed = onnx_models.feeds(made, seed=seed)
        own = session.run(None, fed)
        wanted = InferenceSession(made.SerializeToString()).run(None, fed)
        assert all(one.tobytes() == two.tobytes() for one, two in zip(own, wanted, strict=True))
    assert jobs_of(session).python_steps == []


def test_sizes_that_follow_from_shapes_are_kept(rng: np.random.Generator) -> None:
    nodes = [
        make_node("Conv", ["x", "w"], ["y"]),
        make_node("Shape", ["y"], ["sizes"]),
        make_node("Gather", ["sizes", "zero"], ["batch"]),
        make_node("Concat", ["batch", "rest"], ["wanted"], axis=0),
        make_node("Reshape", ["y", "wanted"], ["z"]),
    ]
    constants = [
        convolution(rng, "w", 4, 2),
        onnx.numpy_helper.from_array(np.array([0]), "zero"),
        onnx.numpy_helper.from_array(np.array([-1]), "rest"),
    ]
    session = repeated(model(nodes, constants, ("z",)), (2, 4, 6, 6), rng)
    assert jobs_of(session).python_steps == []


def test_steps_in_python_stand_between_jobs(rng: np.random.Generator) -> None:
    nodes = [
        make_node("Conv", ["x", "w"], ["y"]),
        make_node("Sin", ["y"], ["waves"]),
        make_node("ArgMax", ["waves"], ["places"], axis=1, keepdims=1),
        make_node("Cast", ["places"], ["numbers"], to=onnx.TensorProto.FLOAT),
        make_node("Concat", ["waves", "numbers"], ["both"], axis=1),
        make_node("AveragePool", ["both"], ["z"], kernel_shape=[2, 2]),
    ]
    session = repeated(model(nodes, [convolution(rng, "w", 4, 2)], ("z",)), (1, 4, 8, 8), rng)
    jobs = jobs_of(session)
    kinds = [step.protos[0].op_type for step in jobs.python_steps]
    assert kinds == ["Sin", "ArgMax", "Cast"] and jobs.jobs > 0
    assert "in Python between them" in session.explain()


def test_a_shape_that_numbers_decide(rng: np.random.Generator) -> None:
    nodes = [
        make_node("Conv", ["x", "w"], ["y"]),
        make_node("Greater", ["y", "zero"], ["above"]),
        make_node("NonZero", ["above"], ["z"]),
    ]
    constants = [convolution(rng, "w", 4, 2), onnx.numpy_helper.from_array(np.float32(0), "zero")]
    repeated(model(nodes, constants, ("z",)), (1, 4, 8, 8), rng)


def test_random_numbers_are_drawn_anew(rng: np.random.Generator) -> None:
    nodes = [
        make_node("RandomNormalLike", ["x"], ["noise"]),
        make_node("GlobalAveragePool", ["noise"], ["z"]),
    ]
    session = InferenceSession(model(nodes, [], ("z",)).SerializeToString())
    x = np.ones((1, 4, 5, 5), np.float32)
    drawn = [session.run(None, {"x": x})[0].tobytes() for _ in range(5)]
    assert len(set(drawn)) == 5


def test_what_numpy_does_beside_a_job_is_found_out(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Translated.run

    def run(self: Any, values: dict[str, Any], out: Any = None) -> Any:
        return original(self, {name: each * 2 for name, each in values.items()}, out)

    monkeypatch.setattr(Translated, "run", run)
    nodes = [make_node("MaxPool", ["x"], ["z"], kernel_shape=[2, 2])]
    session = repeated(model(nodes, [], ("z",)), (1, 4, 8, 8), rng)
    assert len(jobs_of(session).python_steps) == 1


def test_outputs_and_inputs_stay_the_callers(rng: np.random.Generator) -> None:
    session = repeated(dense_block(rng), (1, 4, 9, 7), rng)
    x = rng.standard_normal((1, 4, 9, 7), dtype=np.float32)
    kept = x.copy()
    first = session.run(None, {"x": x})
    wanted = [each.copy() for each in first]
    second = session.run(None, {"x": -x})
    assert all(np.array_equal(one, two) for one, two in zip(first, wanted, strict=True))
    assert not np.array_equal(first[0], second[0]) and np.array_equal(x, kept)


def test_other_shapes_layouts_and_threads(rng: np.random.Generator) -> None:
    made = dense_block(rng)
    session, threads = InferenceSession(made.SerializeToString()), fastconv.get_num_threads()
    x = rng.standard_normal((2, 4, 9, 7), dtype=np.float32)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    try:
        for _ in range(3):
            for fed in (x, x[:1], x[..., ::-1], last, x[:, :, :5]):
                wanted = InferenceSession(made.SerializeToString()).run(None, {"x": fed})
                for number in (1, 2):
                    fastconv.set_num_threads(number)
                    own = session.run(None, {"x": fed})
                    for one, two in zip(own, wanted, strict=True):
                        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
    finally:
        fastconv.set_num_threads(threads)


def test_several_threads_run_one_session(rng: np.random.Generator) -> None:
    session = repeated(dense_block(rng), (1, 4, 30, 30), rng)
    inputs = [rng.standard_normal((1, 4, 30, 30), dtype=np.float32) for _ in range(8)]
    wanted = [session.run(["z"], {"x": each})[0] for each in inputs]
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(20):
            at = (number + turn) % len(inputs)
            assert np.array_equal(session.run(["z"], {"x": inputs[at]})[0], wanted[at])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
