"""Models for tests of sessions, their inputs, and every value in them."""

from __future__ import annotations

from importlib.util import find_spec
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
