"""Layers of a session: a constant weight packed once, with what was fused to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastconv

from ..contract.errors import FastconvError
from ..folding import fold_batch_norm
from .convolutions import WEIGHTED, Call
from .model import failure
from .node import Misfit, Node, Refusal, library
from .steps import Context, Reference, Step
from .translations import knows_attributes

__all__ = ["Layer", "start_layer"]

#: Shapes of inputs whose layer is remembered.
_MOST_SHAPES = 64
#: Names that the folded ones have among a model's values, where the reference computes a layer.
_WEIGHT, _BIAS = "fastconv.weight", "fastconv.bias"
#: Places of weight and bias among a node's inputs.
_PLACES = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "Gemm": (1, 2),
    "MatMul": (1, None),
}


def start_layer(
    context: Context, proto: Any, node: Node, constants: dict[str, Any]
) -> Layer | None:
    """Return the layer of a node whose weight and bias are constants, None for any other."""
    if proto.op_type not in _PLACES or not knows_attributes(node):
        return None
    weighs, biased = _PLACES[proto.op_type]
    names = list(proto.input)
    bias_name = names[biased] if biased is not None and len(names) > biased else ""
    weight, bias = constants.get(names[weighs]), constants.get(bias_name)
    if weight is None or (bias_name and bias is None):
        return None
    floating = weight.dtype.kind == "f" or weight.dtype.name == "bfloat16"
    if not floating or (bias is not None and bias.dtype != weight.dtype):
        return None
    data = [each for each in names if each and each not in (names[weighs], bias_name)]
    if any(name in constants for name in data):
        return None
    if proto.op_type in ("Gemm", "MatMul"):
        return _start_product(context, proto, node, data, weight, bias)
    if not 3 <= weight.ndim <= 5:
        return None
    return Layer(context, proto, node, data, weight, bias)


def _start_product(
    context: Context, proto: Any, node: Node, data: list[str], weight: Any, bias: Any
) -> Layer | None:
    """Return the layer of a matrix product: factors are taken into the weight and the bias."""
    if weight.ndim != 2 or len(data) != 1:
        return None
    if not node.get("transB", 0):
        weight = weight.T
    if bias is not None:
        if bias.ndim > 2 or bias.size not in (1, len(weight)) or bias.shape[:-1] not in ((), (1,)):
            return None
        bias = np.broadcast_to(bias.reshape(-1), (len(weight),)) * node.get("beta", 1.0)
        bias = bias.astype(weight.dtype)
    factor = node.get("alpha", 1.0)
    weight = weight if factor == 1 else (weight * factor).astype(weight.dtype)
    attributes = {"transB": 1, "transA": node.get("transA", 0)}
    return Layer(context, proto, node._replace(attributes=attributes), data, weight, bias)


class Layer(Step):
    """A convolution or a matrix product with a constant weight.

    A batch norm, a sum and an activation behind it become parts of it by `fold`, `add` and
    `activate`. Where an input turns out not to fit to what is fused, as one that is broadcast, the
    nodes are computed one by one.
    """

    def __init__(
        self, context: Context, proto: Any, node: Node, data: list[str], weight: Any, bias: Any
    ) -> None:
        super().__init__([proto], data, [proto.output[0]])
        self._context, self._node, self._data = context, node, tuple(data)
        self._weight, self._bias = weight, bias
        self._residual = ""
        self._activation: Any = None
        self._behind: list[Any] = []
        self._folded: list[str] = []
        self._layers: dict[Any, Any] = {}
        self._shapes: dict[Any, Any] = {}
        self._apart: set[Any] = set()
        self._references: list[Reference] = []

    @property
    def writes(self) -> bool:  # type: ignore[override]
        """Whether `run` can write its output where it is told to."""
        return self.spatial >= 0

    @property
    def activated(self) -> bool:
        """Whether nothing can be fused any more."""
        return self._activation is not None

    @property
    def channels(self) -> int:
        """Channels, or columns, of the output."""
        if self._node.kind == "ConvTranspose":
            return int(self._weight.shape[1]) * int(self._node.get("group", 1))
        return int(self._weight.shape[0])

    @property
    def spatial(self) -> int:
        """Axes of an output behind the channels; -1 where there may be any before them."""
        return -1 if self._node.kind in ("Gemm", "MatMul") else int(self._weight.ndim) - 2

    def fold(self, proto: Any, scale: Any, shift: Any) -> bool:
        """Take a factor and a summand of each channel into weight and bias, if that can be done."""
        transposed = self._node.kind == "ConvTranspose"
        if self._behind or (transposed and self._node.get("group", 1) != 1):
            return False
        weight = self._weight.swapaxes(0, 1) if transposed else self._weight
        ones, zeros = np.ones(len(weight)), np.zeros(len(weight))
        weight, self._bias = fold_batch_norm(weight, self._bias, zeros, ones, scale, shift, eps=0.0)
        self._weight = weight.swapaxes(0, 1) if transposed else weight
        self._folded.append(proto.op_type)
        self._end_with(proto)
        return True

    def add(self, proto: Any, name: str) -> bool:
        """Take a sum with another value, if that can be done."""
        if self._residual or self._behind or self._node.kind not in ("Conv", "ConvTranspose"):
            return False
        self._residual = name
        self.inputs.append(name)
        self._behind.append(proto)
        self._end_with(proto)
        return True

    def activate(self, protos: Sequence[Any], activation: Any) -> None:
        """Take the activation behind it."""
        self._activation = activation
        self._behind.extend(protos)
        made = {*self.outputs, *(name for proto in protos for name in proto.output)}
        taken = (name for each in protos for name in each.input)
        self.inputs.extend(name for name in taken if name and name not in made)
        for proto in protos:
            self._end_with(proto)

    def _end_with(self, proto: Any) -> None:
        self.protos.append(proto)
        self.outputs = [proto.output[0]]

    def described(self) -> str:
        """Return what computes the step, and what was fused."""
        call = {"Gemm": "Linear", "MatMul": "Linear", "DeformConv": "DeformConv2d"}
        name = call.get(self._node.kind, f"{self._node.kind}{max(1, self.spatial)}d")
        parts = [f"fastconv.{name}", *(f"{each} folded" for each in self._folded)]
        parts += ["residual"] * bool(self._residual)
        if self._activation is not None:
            activation = self._activation
            parts.append(activation if isinstance(activation, str) else activation[0])
        return ", ".join(parts)

    def run(self, values: dict[str, Any], out: Any = None) -> Sequence[Any]:
        """Return the output from values by name."""
        given = [values[name] for name in self._data]
        residual = values[self._residual] if self._residual else None
        key = tuple(each.shape for each in given), None if residual is None else residual.shape
        if key not in self._apart:
            try:
                return (self._compute(key, given, residual, self._activation, out),)
            except Misfit as error:
                raise failure(self.protos[0], error) from None
            except (Refusal, FastconvError) as error:
                refused = error
            if len(self._apart) < _MOST_SHAPES:
                self._apart.add(key)
            self.handed_on = str(refused)
        return (self._one_by_one(values, key, given),)

    def _compute(
        self, key: Any, given: list[Any], residual: Any, activation: Any, out: Any = None
    ) -> Any:
        """Compute with the layer for inputs of these shapes."""
        more = {} if residual is None else {"residual": residual}
        if out is not None:
            more["out"] = out
        layer = self._shapes.get((key, activation))
        if layer is not None:
            return layer(given[0], **more)
        call = self._call(given)
        layer, inputs = self._packed(call, activation), dict(call.inputs) | more
        if len(given) == 1 or not self.kernel:
            self.kernel = layer.prepare(**inputs)
        if len(given) == 1 and len(self._shapes) < _MOST_SHAPES and not self._transposes:
            self._shapes[key, activation] = layer
        return layer(**inputs)

    @property
    def _transposes(self) -> bool:
        """Whether a call is on another view of the input than the input itself."""
        return bool(self._node.kind == "Gemm" and self._node.get("transA", 0))

    def _call(self, given: list[Any]) -> Call:
        translate, kind = WEIGHTED[self._node.kind], self._node.kind
        if kind == "MatMul":
            return translate(self._node, *given, self._weight.T)
        if kind == "DeformConv":
            offset, *mask = given[1:]
            return translate(self._node, given[0], self._weight, offset, self._bias, *mask)
        return translate(self._node, given[0], self._weight, self._bias)

    def _packed(self, call: Call, activation: Any) -> Any:
        key = call.arguments, activation
        if key not in self._layers:
            bias = self._bias if self._node.kind == "MatMul" else call.bias
            make = getattr(fastconv, call.layer)
            self._layers[key] = make(
                call.weight, bias, **dict(call.arguments), activation=activation
            )
            self._weight = self._layers[key].weight  # not kept twice
        return self._layers[key]

    def _one_by_one(self, values: dict[str, Any], key: Any, given: list[Any]) -> Any:
        """Compute the first node, and then those that were fused to it."""
        known = dict(values)
        first = self._last_folded
        try:
            known[first.output[0]] = self._compute((key[0], None), given, None, None)
        except (Refusal, FastconvError) as error:
            known |= {_WEIGHT: self._weight, _BIAS: self._bias}
            try:
                if self._node.kind in ("Gemm", "MatMul"):
                    known[first.output[0]] = self._product(given[0])
                else:
                    (known[first.output[0]],) = self._own_reference().run(known)
            except (FastconvError, ValueError):
                raise failure(self.protos[0], error) from None
        if len(self._references) < len(self._behind):
            self._references = [Reference(self._context, each) for each in self._behind]
        for reference in self._references:
            (known[reference.outputs[0]],) = reference.run(known)
        return known[self.outputs[0]]

    def _product(self, x: Any) -> Any:
        """Compute a product that no kernel takes, such as that of a vector."""
        made = np.matmul(x.T if self._transposes else x, self._weight.T)
        return made if self._bias is None else made + self._bias

    @property
    def _last_folded(self) -> Any:
        return self.protos[len(self._folded)]

    def _own_reference(self) -> Reference:
        """Return the first node with the folded weight and bias as inputs."""
        proto = library("onnx").NodeProto()
        proto.CopyFrom(self.protos[0])
        places, names = _PLACES[self._node.kind], list(proto.input)
        for place, name in zip(places, (_WEIGHT, _BIAS), strict=True):
            if place is not None and (name == _WEIGHT or self._bias is not None):
                names.extend([""] * (place + 1 - len(names)))
                names[place] = name
        del proto.input[:]
        proto.input.extend(names)
        return Reference(self._context, proto)
