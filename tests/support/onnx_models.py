"""Models for tests of sessions: of a few nodes, and ONNX's own networks with random weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import fastconv


def model(
    nodes: list[Any], inputs: dict[str, Any], outputs: list[str],
    constants: dict[str, Any] | None = None, version: int = 18,
) -> Any:  # fmt: skip
    """A model of nodes, whose inputs are float32 of these shapes."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", version), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def light(name: str, seed: int) -> Any:
    """One of ONNX's networks, whose weights are zeros and here random numbers."""
    path = Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx"
    made = onnx.load(path)
    graph, rng = made.graph, np.random.default_rng(seed)
    shapes = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    used = {taken: (node.op_type, place) for node in graph.node
            for place, taken in enumerate(node.input)}  # fmt: skip
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    weights = {node.output[0]: tuple(map(int, shapes[node.input[0]]))
               for node in graph.node if node.op_type == "ConstantOfShape"}  # fmt: skip
    weights |= {each: value.shape for each, value in shapes.items() if value.dtype == np.float32}
    kept = {each: value for each, value in shapes.items() if each not in weights}
    kept |= {each: _weight(rng, *used[each], shape) for each, shape in weights.items()
             if each in used}  # fmt: skip
    taken = {each for node in nodes for each in node.input}
    inputs = [each for each in graph.input if each.name in taken and each.name not in kept]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.initializer.extend(
        numpy_helper.from_array(value, each) for each, value in kept.items() if each in taken
    )
    made.ir_version = 8
    return made


def _weight(rng: np.random.Generator, kind: str, place: int, shape: tuple[int, ...]) -> Any:
    """Numbers with which the values of a network keep their size from layer to layer."""
    if kind in ("Conv", "Gemm") and place == 1:
        made = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    elif kind == "Unsqueeze" or (kind == "BatchNormalization" and place in (1, 4)):
        made = rng.uniform(0.5, 1.5, shape)
    else:
        made = rng.normal(0, 0.1, shape)
    return made.astype(np.float32)


def feeds(made: Any, seed: int) -> dict[str, Any]:
    """Random inputs of a model whose sizes are all told."""
    rng = np.random.default_rng(seed)
    return {
        each.name: rng.standard_normal(
            [size.dim_value for size in each.type.tensor_type.shape.dim], dtype=np.float32
        )
        for each in made.graph.input
    }


def every_value(made: Any, fed: dict[str, Any]) -> dict[str, Any]:
    """Every value of a model, by ONNX Runtime where it is installed, else node by node."""
    whole = onnx.ModelProto()
    whole.CopyFrom(made)
    known = {each.name for each in whole.graph.output}
    names = [name for node in whole.graph.node for name in node.output if name not in known]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name)
    whole = onnx.shape_inference.infer_shapes(whole)
    if find_spec("onnxruntime"):
        import onnxruntime

        session: Any = onnxruntime.InferenceSession(whole.SerializeToString())
    else:
        session = onnx.reference.ReferenceEvaluator(whole, new_ops=fastconv.onnx.OPERATORS)
    names = [each.name for each in whole.graph.output]
    return dict(zip(names, session.run(names, fed), strict=True))
