"""A node of a model, as translations read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..contract import first_use
from ..contract.errors import FastconvError, ShapeError

__all__ = ["Misfit", "Node", "Refusal", "library", "read_node"]


class Refusal(Exception):
    """A node that fastconv has no operator for, and why; another implementation computes it."""


class Misfit(ShapeError):
    """Shapes that do not fit to a node by ONNX's rules: there is nothing to compute."""


def library(name: str = "onnx") -> Any:
    """Return ``onnx``, or a module of it, imported when it is first wanted.

    Raises
    ------
    FastconvError
        Where it is not installed.
    """
    try:
        return first_use.load(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "onnx":
            raise
        raise FastconvError(
            "fastconv.onnx needs onnx, which is not installed: pip install 'fastconv[onnx]'"
        ) from None


class Node(NamedTuple):
    """One node of a model.

    Parameters
    ----------
    kind : str
        ONNX's name of the operator, of its main domain.
    version : int
        The model's version of the operator set.
    attributes : mapping of str to object
        Those that the node has: numbers, text, lists and arrays.
    outputs : int
        How many outputs are wanted.
    """

    kind: str
    version: int
    attributes: Mapping[str, Any]
    outputs: int = 1

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute, or what it is where the node does not tell."""
        return self.attributes.get(name, default)

    def sizes(self, name: str, ndim: int, default: int = 1) -> tuple[int, ...]:
        """Return an attribute that has one number for each spatial axis."""
        given = self.attributes.get(name) or (default,) * ndim
        if len(given) != ndim:
            raise Refusal(f"{name}: got {list(given)}, want {ndim} numbers")
        return tuple(int(each) for each in given)


def read_node(proto: Any, version: int) -> Node:
    """Return a node of ONNX's as translations read it."""
    value = library("onnx.helper").get_attribute_value
    attributes = {each.name: _plain(value(each)) for each in proto.attribute}
    wanted = max((place for place, name in enumerate(proto.output, 1) if name), default=0)
    return Node(proto.op_type, version, attributes, wanted)


def _plain(value: Any) -> Any:
    """Return the value of an attribute with text as text, and lists as such."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value
