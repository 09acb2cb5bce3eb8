"""A model's graph: its constants, and the nodes that are left to run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..contract.errors import ArgumentError
from .model import element_type, one_sentence
from .node import library, read_node
from .steps import Context, Reference, implicit_inputs

__all__ = ["Graph"]

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

    def __init__(self, model: Any) -> None:
        self.context = Context(model)
        graph = model.graph
        held = {each.name: _array(each) for each in graph.initializer}
        for sparse in graph.sparse_initializer:
            held[sparse.values.name] = _dense(sparse)
        named = {each.name for each in graph.input}
        # Before version 4 of the format every initialiser had to be an input, too.
        open_names = named & set(held) if model.ir_version >= 4 else set()
        self.defaults = {name: held[name] for name in open_names}
        self.constants = {name: held[name] for name in held if name not in open_names}
        self.inputs = [each for each in graph.input if each.name not in self.constants]
        self.outputs = list(graph.output)
        self._same: dict[str, str] = {}
        # Values whose names must stay: outputs, and what graphs within nodes take.
        self._named = {each.name for each in self.outputs}
        self._named.update(name for proto in graph.node for name in implicit_inputs(proto))
        self._used = self._named.union(*(proto.input for proto in graph.node))
        self.folded = 0
        self.nodes = [left for proto in graph.node if (left := self._left(proto)) is not None]
        self._drop_unused()
        for value in self.constants.values():
            value.flags.writeable = False

    def _left(self, proto: Any) -> Any:
        """Return what is left of a node: None where its outputs are known by now."""
        proto = self._renamed(proto)
        if proto.output[0] not in self._named and self._changes_nothing(proto):
            self._same[proto.output[0]] = proto.input[0]
            return None
        taken = [*(name for name in proto.input if name), *implicit_inputs(proto)]
        if proto.op_type in _RANDOM or not all(name in self.constants for name in taken):
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


def _array(tensor: Any) -> Any:
    """Return an initialiser as an array."""
    element_type(f"tensor {tensor.name!r}", tensor.data_type)
    try:
        return library("onnx.numpy_helper").to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"tensor {tensor.name!r}: {one_sentence(error)}") from None


def _dense(sparse: Any) -> Any:
    """Return a sparse initialiser as an array."""
    values, indices = _array(sparse.values), _array(sparse.indices)
    made = library("numpy").zeros(tuple(sparse.dims), values.dtype)
    where = indices if indices.ndim == 1 else None
    if where is not None:
        made.reshape(-1)[where] = values
    else:
        made[tuple(indices.T)] = values
    return made
