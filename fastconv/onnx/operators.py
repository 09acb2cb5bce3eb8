"""Classes of operators for ``onnx.reference.ReferenceEvaluator``."""

from __future__ import annotations

from typing import Any

from ..contract.errors import FastconvError
from .node import Misfit, Refusal, library, read_node
from .translations import TRANSLATIONS, translate

__all__ = ["operator_classes"]


def operator_classes() -> list[Any]:
    """Return a class for each operator that fastconv has kernels for.

    What a class cannot do, as other element types or rarer attributes, it hands to the class that
    ONNX itself has for that version of the operator.

    Examples
    --------
    >>> import fastconv.onnx
    >>> [each.__name__ for each in fastconv.onnx.OPERATORS][:3]
    ['Conv', 'ConvTranspose', 'DeformConv']
    """
    base = library("onnx.reference.op_run").OpRun
    return [type(kind, (base,), _members(base, kind)) for kind in TRANSLATIONS]


def _members(base: Any, kind: str) -> dict[str, Any]:
    """Return the methods of an operator's class."""
    load = library("onnx.reference.ops").load_op

    def __init__(self: Any, onnx_node: Any, run_params: dict[str, Any]) -> None:
        version = run_params["opsets"][""]
        self.reference_ = load("", kind, version)(onnx_node, run_params)
        base.__init__(self, onnx_node, run_params, self.reference_._schema)
        self.node_ = None if self.has_linked_attribute else read_node(onnx_node, version)

    def run(self: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        if self.node_ is not None:
            try:
                return translate(self.node_, args)
            except Misfit:
                raise
            except (Refusal, FastconvError):
                pass  # what is not ours to do, and what may be a mistake of the model
        result: tuple[Any, ...] = self.reference_.run(*args, **kwargs)
        return result

    doc = f"ONNX's operator {kind} on fastconv's kernels."
    members: dict[str, Any] = {"__init__": __init__, "run": run, "_run": run, "__doc__": doc}
    return members | {"op_domain": "", "__module__": __name__}
