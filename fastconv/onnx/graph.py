"""A model's graph: its constants, and the nodes that are left to run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .model import Model
from .node import library, read_node
from .steps import Context, Reference, implicit_inputs

__all__ = ["Graph", "is_random"]

#: Operators whose result is another one each time.
_RANDOM = (
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
)  # fmt: skip


class Graph:
    """The graph of a model, simplified.

    Nodes whose inputs are all constant are computed, once, and nodes that change nothing are left
    out.

    Attributes
    ----------
    constants : dict of str to ndarray
        Initialisers, and what follows from them.
    defaults : dict of str to ndarray
        Values of inputs that may be given, and need not be.
    nodes : list of NodeProto
        What is left to run, in order.
    inputs, outputs : list of ValueInfoProto
        Of the model, without its constants.
    folded : int
        How many nodes were computed.
    """

    def __init__(self, model: Model) -> None:
        self.context = Context(model.proto)
        graph, held = model.proto.graph, model.held
        self.defaults = {name: held[name] for name in model.defaults}
        self.constants = {name: held[name] for name in held if name not in model.defaults}
        self.inputs = [_copy(each) for each in graph.input if each.name not in self.constants]
        self.outputs = [_copy(each) for each in graph.output]
        self._same: dict[str, str] = {}
        # Values whose names must stay: outputs, and what graphs within nodes take.
        self._named = {each.name for each in self.outputs}
        self._named.update(name for proto in graph.node for name in implicit_inputs(proto))
        self._used = self._named.union(*(proto.input for proto in graph.node))
        self.folded = 0
        self.nodes = [left for proto in graph.node if (left := self._left(proto)) is not None]
        self._drop_unused()
        self.nodes = list(map(_copy, self.nodes))
        for value in self.constants.values():
            value.flags.writeable = False

    def _left(self, proto: Any) -> Any:
        """Return what is left of a node: None where its outputs are known by now."""
        proto = self._renamed(proto)
        if self._changes_nothing(proto) and proto.output[0] not in self._named:
            self._same[proto.output[0]] = proto.input[0]
            return None
        taken = [*(name for name in proto.input if name), *implicit_inputs(proto)]
        if is_random(proto) or not all(name in self.constants for name in taken):
            return proto
        step = Reference(self.context, proto)
        made = step.run(self.constants)
        if not all(hasattr(value, "flags") for value in made):
            return proto
        self.constants |= dict(zip(step.outputs, made, strict=True))
        self.folded += 1
        return None

    def _renamed(self, proto: Any) -> Any:
        """Return a node without outputs that nobody takes, its inputs by their values' names."""
        inputs = [self._same.get(name, name) for name in proto.input]
        outputs = [name if name in self._used else "" for name in proto.output]
        if inputs == list(proto.input) and (outputs == list(proto.output) or not any(outputs)):
            return proto
        made = library("onnx").NodeProto()
        made.CopyFrom(proto)
        del made.input[:], made.output[:]
        made.input.extend(inputs)
        made.output.extend(outputs if any(outputs) else proto.output)
        return made

    def _changes_nothing(self, proto: Any) -> bool:
        """Tell whether a node's output is its input."""
        if proto.domain not in ("", "ai.onnx") or any(proto.output[1:]):
            return False
        if proto.op_type == "Identity":
            return True
        if proto.op_type != "Dropout":
            return False
        node = read_node(proto, self.context.version)
        if node.version < 7:
            return bool(node.get("is_test", 0))
        trains = proto.input[2] if len(proto.input) > 2 else ""
        return not trains or not bool(self.constants.get(trains, True))

    def _drop_unused(self) -> None:
        """Leave out nodes whose outputs nothing takes."""
        wanted = {each.name for each in self.outputs}
        kept = []
        for proto in reversed(self.nodes):
            if wanted.intersection(proto.output):
                kept.append(proto)
                wanted.update(proto.input, implicit_inputs(proto))
        self.nodes = kept[::-1]
        self.constants = {name: self.constants[name] for name in self.constants if name in wanted}

    def uses(self) -> Counter[str]:
        """Return how often each value is taken, by nodes and as an output."""
        counts = Counter(each.name for each in self.outputs)
        for proto in self.nodes:
            counts.update(name for name in proto.input if name)
            counts.update(implicit_inputs(proto))
        return counts


def is_random(proto: Any) -> bool:
    """Tell whether a node, or one in a graph within it, has another result each time."""
    graphs = [graph for each in proto.attribute for graph in (each.g, *each.graphs)]
    return proto.op_type in _RANDOM or any(map(is_random, (n for g in graphs for n in g.node)))


def _copy(proto: Any) -> Any:
    """Return a copy that does not keep the memory of the message that it was a part of."""
    made = type(proto)()
    made.CopyFrom(proto)
    return made
