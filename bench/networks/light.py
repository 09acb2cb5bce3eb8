"""ONNX's own networks, ``light_*.onnx`` of the ``onnx`` package, with random weights.

In the files every weight is a constant, which proves nothing of an output. Here each is drawn so
that values keep their size from layer to layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["light", "light_logits"]


def light(name: str, seed: int, batch: int = 1) -> Any:
    """Return one of ONNX's networks with weights drawn from a seed.

    Parameters
    ----------
    name : str
        What stands between ``light_`` and ``.onnx`` in the file's name.
    seed : int
        Seed of the weights.
    batch : int
        Images that the model takes; the files take one.

    Returns
    -------
    onnx.ModelProto
        With its weights as initializers and one input.
    """
    import onnx
    from onnx import numpy_helper

    made = onnx.load(Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx")
    graph, rng = made.graph, np.random.default_rng(seed)
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    kept = _refilled(graph, constants, rng)
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    taken = {each for node in nodes for each in node.input}
    inputs = [each for each in graph.input if each.name in taken and each.name not in kept]
    _set_batch(nodes, [*inputs, *graph.output], kept, batch)
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.initializer.extend(
        numpy_helper.from_array(value, each) for each, value in kept.items() if each in taken
    )
    made.ir_version = 8
    return made


def light_logits(name: str, seed: int, batch: int = 1) -> Any:
    """Return the same network without the softmax at its end.

    Of random weights a softmax makes one 1 and many zeros, which tell nothing of the layers before.

    Parameters
    ----------
    name, seed, batch
        As for `light`.
    """
    made = light(name, seed, batch)
    graph = made.graph
    if graph.node[-1].op_type == "Softmax":
        graph.output[0].name = graph.node.pop().input[0]
    return made


def _refilled(
    graph: Any, constants: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the constants of a graph, those of floating point drawn anew."""
    used = {taken: (node.op_type, place) for node in graph.node
            for place, taken in enumerate(node.input)}  # fmt: skip
    weights = {node.output[0]: tuple(map(int, constants[node.input[0]]))
               for node in graph.node if node.op_type == "ConstantOfShape"}  # fmt: skip
    weights |= {each: value.shape for each, value in constants.items() if value.dtype == np.float32}
    kept = {each: value for each, value in constants.items() if each not in weights}
    return kept | {
        each: _weight(rng, *used[each], shape) for each, shape in weights.items() if each in used
    }


def _weight(rng: np.random.Generator, kind: str, place: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers with which the values of a network keep their size from layer to layer."""
    if kind in ("Conv", "Gemm") and place == 1:
        made = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    elif kind == "Unsqueeze" or (kind == "BatchNormalization" and place in (1, 4)):
        made = rng.uniform(0.5, 1.5, shape)
    else:
        made = rng.normal(0, 0.1, shape)
    return made.astype(np.float32)


def _set_batch(
    nodes: list[Any], values: list[Any], constants: dict[str, np.ndarray], batch: int
) -> None:
    """Make a graph that is written for one image one for so many."""
    for each in values:
        each.type.tensor_type.shape.dim[0].dim_value = batch
    for node in nodes:
        if node.op_type == "Reshape" and node.input[0] not in constants:
            sizes = constants[node.input[1]].copy()
            sizes[0] = batch
            constants[node.input[1]] = sizes
