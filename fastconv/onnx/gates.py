"""Activations that models write as several nodes: a value, times what is computed from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .node import Node, read_node

__all__ = ["clipped", "match_gate"]

#: Whether a node has a place in a chain, by its attributes and what it takes beside the value: the
#: names of these, and constants by name.
Rule = Callable[[Node, list[str], Mapping[str, Any]], bool]


def clipped(node: Node, limits: Sequence[Any]) -> str | None:
    """Return the activation of a node that limits: from 0 to 6, or from 0 on.

    Parameters
    ----------
    node : Node
        A Clip.
    limits : sequence of ndarray or None
        What it takes beside the value; None for what is no constant.
    """
    if node.version >= 11:
        if any(each is None or each.size != 1 for each in limits):
            return None
        given = [float(each.reshape(())) for each in limits]
        low, high = (*given, math.inf, math.inf)[:2]
    else:
        low, high = node.get("min", -math.inf), node.get("max", math.inf)
    return {(0.0, 6.0): "relu6", (0.0, math.inf): "relu"}.get((low, high))


def _number(wanted: float) -> Rule:
    """Return the rule of a node with a number."""

    def holds(_: Node, rest: list[str], constants: Mapping[str, Any]) -> bool:
        found = constants.get(rest[0]) if len(rest) == 1 else None
        if found is None or found.shape not in ((), (1,)):
            return False
        return math.isclose(float(found.reshape(())), wanted, rel_tol=1e-3)

    return holds


def _alone(_: Node, rest: list[str], __: Mapping[str, Any]) -> bool:
    return not rest


def _hard(node: Node, rest: list[str], _: Mapping[str, Any]) -> bool:
    sixth = math.isclose(node.get("alpha", 0.2), 1 / 6, rel_tol=1e-3)
    return not rest and sixth and node.get("beta", 0.5) == 0.5


def _to_six(node: Node, rest: list[str], constants: Mapping[str, Any]) -> bool:
    return clipped(node, [constants.get(name) for name in rest]) == "relu6"


#: Stands for the node that multiplies by the value itself.
_TIMES = ("Mul", None)
#: Activations, and for each node behind a layer the kinds that it may be of.
_GATES: tuple[tuple[str, tuple[tuple[tuple[str, Rule | None], ...], ...]], ...] = (
    ("silu", ((("Sigmoid", _alone),), (_TIMES,))),
    ("hardswish", ((("HardSigmoid", _hard),), (_TIMES,))),
    (
        "hardswish",
        (
            (("Add", _number(3)),),
            (("Clip", _to_six),),
            (_TIMES,),
            (("Div", _number(6)), ("Mul", _number(1 / 6))),
        ),
    ),
    (
        "gelu",
        (
            (("Div", _number(math.sqrt(2))), ("Mul", _number(math.sqrt(0.5)))),
            (("Erf", _alone),),
            (("Add", _number(1)),),
            (_TIMES,),
            (("Mul", _number(0.5)),),
        ),
    ),
)


def match_gate(
    value: str, places: Sequence[int], nodes: Sequence[Any], sole: Callable[[str], int | None],
    constants: Mapping[str, Any], version: int,
) -> tuple[str, list[int]] | None:  # fmt: skip
    """Return the activation that two takers of a value begin and end, and the places of its nodes.

    Parameters
    ----------
    value : str
        The output of a layer.
    places : sequence of int
        Where the two nodes that take it are.
    nodes : sequence of NodeProto
        All nodes.
    sole : callable
        Returns the place of the one node that takes a value, None where there are others.
    constants : mapping of str to ndarray
        Constants of the model.
    version : int
        Of the operators.
    """
    for word, kinds in _GATES:
        chain, name = [], value
        for allowed in kinds:
            place = places[0] if name == value else sole(name)
            if place is None or not _fits(nodes[place], name, value, allowed, constants, version):
                break
            chain.append(place)
            name = nodes[place].output[0]
        if len(chain) == len(kinds) and places[1] in chain:
            return word, chain
    return None


def _fits(
    proto: Any, name: str, value: str, allowed: tuple[tuple[str, Rule | None], ...],
    constants: Mapping[str, Any], version: int,
) -> bool:  # fmt: skip
    """Tell whether a node computes from the value `name` what one of the kinds does."""
    if proto.domain not in ("", "ai.onnx") or name not in proto.input:
        return False
    rest = list(proto.input)
    rest.remove(name)
    if proto.op_type == "Div" and proto.input[0] != name:
        return False
    node = read_node(proto, version)
    return any(
        kind == proto.op_type and (rest == [value] if rule is None else rule(node, rest, constants))
        for kind, rule in allowed
    )
