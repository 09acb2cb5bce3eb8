"""``If``: two graphs within a node, each planned as a model of its own.

Constants within them are folded, their layers packed once and fused as those of the graph around
them. On ONNX's reference, which walks the graphs node by node in each run, a recurrent network that
asks for its sampling rate first would take several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..contract.errors import ShapeError
from .graph import Graph
from .model import Model, initializers, label
from .node import library
from .program import Program
from .steps import Context, Step, implicit_inputs, taken_from_around

__all__ = ["Branches"]


class Branches(Step):
    """An ``If`` node.

    Parameters
    ----------
    context : Context
        Of the model.
    proto : NodeProto
        The node.
    constants : dict of str to ndarray
        Of the graphs around it. Where its condition is one, only the graph that runs is planned.
    plan : callable
        Returns the program of a `Graph`.
    """

    def __init__(
        self,
        context: Context,
        proto: Any,
        constants: dict[str, Any],
        plan: Callable[[Graph], Program],
    ) -> None:
        known = constants.get(proto.input[0])
        around = [name for name in implicit_inputs(proto) if name not in constants]
        inputs = list(dict.fromkeys([proto.input[0], *around]))
        super().__init__([proto], inputs, [name for name in proto.output if name])
        graphs = {each.name.removesuffix("_branch"): each.g for each in proto.attribute}
        if known is not None:
            word = "then" if _truth(proto, known) else "else"
            graphs = {word: graphs[word]}
        self._taken = {
            word: [name for name in taken_from_around(graph) if name not in constants]
            for word, graph in graphs.items()
        }
        self.programs = {
            word: plan(Graph(_model(context, proto, graph, constants)))
            for word, graph in graphs.items()
        }

    def run(self, values: dict[str, Any], out: Any = None) -> Sequence[Any]:
        """Return the outputs from values by name."""
        proto = self.protos[0]
        word = "then" if _truth(proto, values[proto.input[0]]) else "else"
        return self.programs[word].run({name: values[name] for name in self._taken[word]})

    def described(self) -> str:
        """Return what computes the step."""
        return f"fastconv, {' or '.join(self.programs)}"


def _model(context: Context, proto: Any, graph: Any, constants: dict[str, Any]) -> Model:
    """Return a graph within a node as a model, with the constants that it takes from around it."""
    held = initializers(graph)
    held |= {name: constants[name] for name in taken_from_around(graph) if name in constants}
    made = library("onnx").ModelProto(opset_import=context.imports)
    made.graph.node.extend(graph.node)
    pairs = zip(proto.output, graph.output, strict=False)
    made.graph.output.extend(output for name, output in pairs if name)
    return Model(made, held, frozenset())


def _truth(proto: Any, condition: Any) -> bool:
    """Return a condition, which may be an array with one value."""
    condition = np.asarray(condition)
    if condition.size != 1:
        raise ShapeError(
            f"{label(proto)}: got a condition of shape {condition.shape}, want one value"
        )
    return bool(condition.reshape(()))
