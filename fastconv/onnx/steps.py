"""Steps of a session: a node each, on fastconv's kernels or on ONNX's reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import fastconv

from ..contract.errors import FastconvError
from .model import failure
from .node import Misfit, Node, Refusal, library
from .translations import translate

if TYPE_CHECKING:
    from .program import Program

__all__ = ["Context", "Reference", "Step", "Translated", "implicit_inputs", "taken_from_around"]


class Context:
    """What nodes of one model have in common: versions of operators."""

    def __init__(self, model: Any) -> None:
        self.opsets = {each.domain or "": each.version for each in model.opset_import}
        make = library("onnx.helper").make_opsetid
        self.imports = [make(each.domain, each.version) for each in model.opset_import]

    @property
    def version(self) -> int:
        """The version of ONNX's main operators."""
        return int(self.opsets.get("", self.opsets.get("ai.onnx", 1)))

    def evaluator(self, proto: Any) -> Any:
        """Return an evaluator of one node, which knows fastconv's operators within graphs of it."""
        helper, value = library("onnx.helper"), library("onnx").ValueInfoProto
        outputs = [value(name=name) for name in proto.output if name]
        model = helper.make_model(
            helper.make_graph([proto], "node", [], outputs), opset_imports=self.imports
        )
        evaluator = library("onnx.reference").ReferenceEvaluator
        return evaluator(model, new_ops=fastconv.onnx.OPERATORS)


class Step:
    """One or several nodes that are computed at once.

    Parameters
    ----------
    protos : sequence of NodeProto
        The nodes, in their order.
    inputs, outputs : sequence of str
        Names of the values that they take and make.
    """

    #: Whether `run` can write its first output where it is told to.
    writes = False

    def __init__(
        self, protos: Sequence[Any], inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        self.protos, self.inputs, self.outputs = list(protos), list(inputs), list(outputs)
        #: Why a run was handed to the reference; "" where none was.
        self.handed_on = ""
        #: The kernel of a run, of a layer.
        self.kernel = ""
        #: Programs within it, of which a run takes one, by a word for each.
        self.programs: dict[str, Program] = {}

    @property
    def name(self) -> str:
        """The name of its first node, or of what that makes."""
        proto = self.protos[0]
        return str(proto.name or next((each for each in proto.output if each), ""))

    def run(self, values: dict[str, Any], out: Any = None) -> Sequence[Any]:
        """Return the outputs from values by name; the first is `out` where it may lie there."""
        raise NotImplementedError

    def described(self) -> str:
        """Return what computes the step."""
        raise NotImplementedError


def implicit_inputs(proto: Any) -> list[str]:
    """Return the values that graphs within a node take from around it."""
    found: list[str] = []
    for attribute in proto.attribute:
        graphs = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
        for graph in graphs:
            found.extend(taken_from_around(graph))
    return list(dict.fromkeys(found))


def taken_from_around(graph: Any) -> list[str]:
    """Return the values that a graph within a node takes from around it."""
    found: list[str] = []
    known = {each.name for each in (*graph.input, *graph.initializer)}
    known.update(each.values.name for each in graph.sparse_initializer)
    for node in graph.node:
        taken = (*node.input, *implicit_inputs(node))
        found.extend(name for name in taken if name and name not in known)
        known.update(node.output)
    found.extend(each.name for each in graph.output if each.name not in known)
    return list(dict.fromkeys(found))


class Reference(Step):
    """A node on ONNX's own implementation."""

    def __init__(self, context: Context, proto: Any) -> None:
        inputs = [*(name for name in proto.input if name), *implicit_inputs(proto)]
        super().__init__([proto], inputs, [name for name in proto.output if name])
        try:
            self._evaluator = context.evaluator(proto)
        except Exception as error:  # noqa: BLE001 - ONNX raises what it will for what it lacks
            raise failure(proto, error) from None

    def run(self, values: dict[str, Any], out: Any = None) -> Sequence[Any]:
        """Return the outputs from values by name."""
        feeds = {name: values[name] for name in self.inputs}
        try:
            made: Sequence[Any] = self._evaluator.run(None, feeds)
        except Exception as error:  # noqa: BLE001 - any mistake of a model may come out as any error
            raise failure(self.protos[0], error) from None
        return made

    def described(self) -> str:
        """Return what computes the step."""
        return "ONNX's reference"


class Translated(Step):
    """A node on fastconv's functions; on the reference where they refuse it."""

    def __init__(self, context: Context, proto: Any, node: Node) -> None:
        super().__init__([proto], [each for each in proto.input if each], list(proto.output))
        self._context, self._node = context, node
        self._reference: Reference | None = None

    def run(self, values: dict[str, Any], out: Any = None) -> Sequence[Any]:
        """Return the outputs from values by name."""
        proto = self.protos[0]
        try:
            return translate(self._node, tuple(values.get(name) for name in proto.input))
        except Misfit as error:
            raise failure(proto, error) from None
        except (Refusal, FastconvError) as error:
            refused = error
        self.handed_on = str(refused)
        try:
            if self._reference is None:
                self._reference = Reference(self._context, proto)
            made = self._reference.run(values)
        except FastconvError as error:
            if isinstance(refused, FastconvError):  # which says what does not fit
                raise failure(proto, refused) from None
            raise type(error)(f"{error}; fastconv: {refused}") from None
        named = iter(made)
        return [next(named) if name else None for name in self.outputs]

    def described(self) -> str:
        """Return what computes the step."""
        return "fastconv"
