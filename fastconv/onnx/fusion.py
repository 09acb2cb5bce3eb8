"""Which nodes become one step: what stands behind layers, and chains of element-wise nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from .branches import Branches
from .chains import Chain, find_chains
from .elementwise import Expression, express
from .gates import clipped, match_gate
from .graph import Graph
from .joining import Join
from .layers import Layer, start_layer
from .node import Node, read_node
from .picking import Gather
from .products import Product
from .program import Program
from .reshaping import Reshape
from .scaling import Scale
from .steps import Context, Reference, Step, Translated
from .translations import TRANSLATIONS

__all__ = ["plan_program"]


def plan_program(graph: Graph) -> Program:
    """Return the steps of a graph, in an order in which they can run.

    A step stands where the last of its nodes was: all that it takes is there by then.
    """
    return Program(graph, _Planner(graph).steps())


class _Planner:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.context = graph, graph.context
        self.uses = graph.uses()
        self.takers: dict[str, list[int]] = defaultdict(list)
        for place, proto in enumerate(graph.nodes):
            for name in proto.input:
                self.takers[name].append(place)
        self.taken: set[int] = set()

    def steps(self) -> list[Step]:
        placed: dict[int, Step] = {}
        elementwise: dict[int, Expression] = {}
        for place, proto in enumerate(self.graph.nodes):
            if place in self.taken:
                continue
            expression = self._express(proto)
            if expression is not None:
                elementwise[place] = expression
                continue
            step, last = self._step(place, proto)
            placed[last] = step
        for chain in find_chains(self.graph.nodes, elementwise, self.uses):
            protos = [self.graph.nodes[place] for place in chain]
            expressions = [elementwise[place] for place in chain]
            placed[chain[-1]] = Chain(self.context, protos, expressions)
        return [placed[place] for place in sorted(placed)]

    def _express(self, proto: Any) -> Expression:
        """Return the formula of an element-wise node, None for any other."""
        if proto.domain not in ("", "ai.onnx"):
            return None
        node = read_node(proto, self.context.version)
        return express(node, proto.input, self.graph.constants)

    def _step(self, place: int, proto: Any) -> tuple[Step, int]:
        """Return the step that begins with a node, and where its last node is."""
        main = proto.domain in ("", "ai.onnx")
        if main and proto.op_type == "If":
            return Branches(self.context, proto, self.graph.constants, plan_program), place
        if main and proto.op_type in _MOVES:
            node = read_node(proto, self.context.version)
            return _MOVES[proto.op_type](self.context, proto, node), place
        if not main or proto.op_type not in TRANSLATIONS:
            return Reference(self.context, proto), place
        node = read_node(proto, self.context.version)
        layer = start_layer(self.context, proto, node, self.graph.constants)
        if layer is None and proto.op_type == "BatchNormalization":
            affine = self._norm(proto, node)
            layer = None if affine is None else Scale(self.context, proto, *affine)
        last = place
        while layer is not None and not layer.activated:
            taken = self._behind(layer)
            if not taken:
                break
            self.taken.update(taken)
            last = max(last, *taken)
        if layer is None or (isinstance(layer, Scale) and last == place):
            make = Product if proto.op_type == "MatMul" else Translated
            return make(self.context, proto, node), place
        return layer, last

    def _behind(self, layer: Layer) -> list[int]:
        """Fuse what stands behind a layer; return the places of its nodes, none at the end."""
        name = layer.outputs[0]
        if self.uses[name] == len(self.takers[name]) == 2:
            return self._gate(layer, self.takers[name])
        place = self._sole(name)
        if place is None or place in self.taken:
            return []
        proto = self.graph.nodes[place]
        if proto.domain not in ("", "ai.onnx"):
            return []
        node = read_node(proto, self.context.version)
        activation = self._activation(proto, node)
        if activation is not None:
            layer.activate([proto], activation)
            return [place]
        return [place] if self._fuse_sum(layer, proto, node) else []

    def _fuse_sum(self, layer: Layer, proto: Any, node: Node) -> bool:
        """Fuse a norm, a factor or a sum; return whether that could be done."""
        name = layer.outputs[0]
        if proto.op_type == "BatchNormalization" and layer.spatial > 0:
            affine = self._norm(proto, node)
            return affine is not None and layer.fold(proto, *affine)
        if proto.op_type not in ("Add", "Sum", "Mul") or len(proto.input) != 2:
            return False
        if node.version < 7 and proto.op_type != "Sum":  # which broadcast by other rules
            return False
        other = next(each for each in proto.input if each != name)
        constant = self.graph.constants.get(other)
        if constant is None:
            return proto.op_type != "Mul" and layer.add(proto, other)
        values = _by_channel(constant, layer)
        if values is None:
            return False
        if proto.op_type == "Mul":
            return layer.fold(proto, values, np.zeros_like(values))
        return layer.fold(proto, np.ones_like(values), values)

    def _norm(self, proto: Any, node: Node) -> tuple[Any, Any] | None:
        """Return factor and summand of each channel, where a norm's statistics are constants."""
        found = [self.graph.constants.get(name) for name in proto.input[1:5]]
        vectors = [each for each in found if each is not None and each.ndim == 1]
        if len(vectors) != 4 or len({each.shape for each in vectors}) != 1:
            return None
        trains = node.version >= 14 and node.get("training_mode", 0)
        if trains or any(proto.output[1:]) or (node.version < 9 and not node.get("spatial", 1)):
            return None
        if node.version < 7 and not node.get("is_test", 0):
            return None
        gamma, beta, mean, var = (np.asarray(each, np.float64) for each in vectors)
        with np.errstate(all="ignore"):
            scale = gamma / np.sqrt(var + node.get("epsilon", 1e-5))
            shift = beta - mean * scale
        return (scale, shift) if np.all(np.isfinite(scale) & np.isfinite(shift)) else None

    def _activation(self, proto: Any, node: Node) -> Any:
        """Return fastconv's activation of a node; None where it is none."""
        make = _ACTIVATIONS.get(proto.op_type)
        if make is None or any(proto.output[1:]):
            return None
        rest = [self.graph.constants.get(name) if name else None for name in proto.input[1:]]
        return make(node, rest)

    def _gate(self, layer: Layer, places: list[int]) -> list[int]:
        """Fuse an activation of several nodes, such as ``y * sigmoid(y)``."""
        nodes, constants, version = self.graph.nodes, self.graph.constants, self.context.version
        name = layer.outputs[0]
        found = match_gate(name, places, nodes, self._sole, constants, version)
        if found is None:
            return []
        word, chain = found
        layer.activate([nodes[place] for place in chain], word)
        return chain

    def _sole(self, name: str) -> int | None:
        """Return the place of the node that alone takes a value, None where there is no such."""
        places = self.takers[name]
        return places[0] if self.uses[name] == len(places) == 1 else None


def _by_channel(constant: Any, layer: Layer) -> Any:
    """Return a constant as one number a channel, None where it is none."""
    if constant.dtype.kind != "f" and constant.dtype.name != "bfloat16":
        return None
    if not np.isfinite(constant).all():  # a weight of zero times infinity is no number
        return None
    shape, channels = constant.shape, layer.channels
    if shape in ((), (1,)):
        return np.full(channels, float(constant.reshape(())))
    if layer.spatial < 0:
        fits = shape in ((channels,), (1, channels))
    elif isinstance(layer, Scale):
        ones = shape[1 + (shape[:1] == (1,) and shape[1:2] == (channels,)) :]
        fits = constant.size == channels and 0 < len(ones) == ones.count(1)
        fits = fits and layer.tell_spatial(len(ones))
    else:
        behind = (1,) * layer.spatial
        fits = shape in ((channels, *behind), (1, channels, *behind))
    return constant.reshape(-1).astype(np.float64) if fits else None


_MOVES: dict[str, Callable[[Context, Any, Node], Step]] = {
    "Concat": Join,
    "Gather": Gather,
    "Reshape": Reshape,
}
_ACTIVATIONS: dict[str, Callable[[Node, list[Any]], Any]] = {
    "Clip": clipped,
    "Elu": lambda node, _: ("elu", float(node.get("alpha", 1.0))),
    "Gelu": lambda node, _: "gelu" if node.get("approximate", "none") == "none" else None,
    "HardSwish": lambda node, _: "hardswish",
    "LeakyRelu": lambda node, _: ("leaky_relu", float(node.get("alpha", 0.01))),
    "Relu": lambda node, _: "relu",
    "Sigmoid": lambda node, _: "sigmoid",
    "Swish": lambda node, _: "silu" if node.get("alpha", 1.0) == 1.0 else None,
    "Tanh": lambda node, _: "tanh",
}
