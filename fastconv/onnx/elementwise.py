"""ONNX's element-wise operators as formulas.

An expression is a value of the graph by its name, a number, or an operation of
`fastconv.contract.formula` with the expressions that it is of: ``("mul", "x", ("sigmoid", "x"))``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .node import Node

__all__ = ["Expression", "express"]

Expression = Any

#: The first version whose binary operators broadcast as NumPy does.
_BROADCASTS = 7


def _joined(name: str) -> Callable[..., Expression]:
    """Return what joins all inputs from the first on."""

    def join(node: Node, *values: Expression) -> Expression:
        made = values[0]
        for each in values[1:]:
            made = (name, made, each)
        return made if len(values) > 1 else None

    return join


def _mean(node: Node, *values: Expression) -> Expression:
    total = _joined("add")(node, *values)
    return None if total is None else ("div", total, float(len(values)))


def _alone(name: str) -> Callable[..., Expression]:
    """Return an operation of one input."""
    return lambda node, x: (name, x)


def _elu(node: Node, x: Expression) -> Expression:
    alpha = float(node.get("alpha", 1.0))
    made = ("elu", x)
    return made if alpha == 1.0 else ("leaky_relu", made, alpha)  # which changes what is below zero


def _celu(node: Node, x: Expression) -> Expression:
    alpha = float(node.get("alpha", 1.0))
    return ("mul", ("elu", ("div", x, alpha)), alpha) if alpha > 0 else None


def _selu(node: Node, x: Expression) -> Expression:
    alpha = float(node.get("alpha", 1.67326319217681884765625))
    gamma = float(node.get("gamma", 1.05070102214813232421875))
    return ("mul", ("leaky_relu", ("elu", x), alpha), gamma)


def _hard_sigmoid(node: Node, x: Expression) -> Expression:
    line = ("add", ("mul", x, float(node.get("alpha", 0.2))), float(node.get("beta", 0.5)))
    return ("min", ("max", line, 0.0), 1.0)


def _clip(node: Node, x: Expression, *limits: Expression) -> Expression:
    if node.version < 11:
        limits = (node.attributes.get("min"), node.attributes.get("max"))
    low, high = (*limits, None, None)[:2]
    made = x if low is None else ("max", x, low)
    made = made if high is None else ("min", made, high)
    return ("max", x, -math.inf) if made is x else made


def _gelu(node: Node, x: Expression) -> Expression:
    half = ("mul", x, 0.5)
    if node.get("approximate", "none") == "none":
        return ("mul", half, ("add", ("erf", ("mul", x, math.sqrt(0.5))), 1.0))
    cube = ("mul", ("mul", ("mul", x, x), x), 0.044715)
    inner = ("mul", ("add", x, cube), math.sqrt(2 / math.pi))
    return ("mul", half, ("add", ("tanh", inner), 1.0))


def _swish(node: Node, x: Expression) -> Expression:
    alpha = float(node.get("alpha", 1.0))
    return ("mul", x, ("sigmoid", x if alpha == 1.0 else ("mul", x, alpha)))


def _powers(x: Expression) -> dict[float, Expression]:
    """Return the powers of a value that are no more than some products, a root or a quotient."""
    square, root = ("mul", x, x), ("sqrt", ("add", x, 0.0))  # of -0 it is 0
    return {
        1.0: ("mul", x, 1.0),
        2.0: square,
        3.0: ("mul", square, x),
        4.0: ("mul", square, square),
        -1.0: ("div", 1.0, x),
        -2.0: ("div", 1.0, square),
        0.5: root,
        -0.5: ("div", 1.0, root),
    }


def _power(node: Node, x: Expression, exponent: Expression) -> Expression:
    """Return a power by a number; of a negative number there is none by one that is not whole."""
    if not isinstance(exponent, float):
        return None
    known = _powers(x)
    if exponent in known:
        return known[exponent]
    return None if exponent.is_integer() or not math.isfinite(exponent) else ("pow", x, exponent)


#: By ONNX's name: the attributes that are known, and the expression of a node of it and its inputs;
#: None where there is none.
_EXPRESSIONS: dict[str, tuple[str, Callable[..., Expression]]] = {
    "Abs": ("", _alone("abs")),
    "Add": ("", _joined("add")),
    "Ceil": ("", _alone("ceil")),
    "Celu": ("alpha", _celu),
    "Clip": ("min max", _clip),
    "Div": ("", _joined("div")),
    "Elu": ("alpha", _elu),
    "Erf": ("", _alone("erf")),
    "Exp": ("", _alone("exp")),
    "Floor": ("", _alone("floor")),
    "Gelu": ("approximate", _gelu),
    "HardSigmoid": ("alpha beta", _hard_sigmoid),
    "HardSwish": ("", _alone("hardswish")),
    "LeakyRelu": ("alpha", lambda node, x: ("leaky_relu", x, float(node.get("alpha", 0.01)))),
    "Log": ("", _alone("log")),
    "Max": ("", _joined("max")),
    "Mean": ("", _mean),
    "Min": ("", _joined("min")),
    "Mish": ("", lambda node, x: ("mul", x, ("tanh", ("softplus", x)))),
    "Mul": ("", _joined("mul")),
    "Neg": ("", _alone("neg")),
    "Pow": ("", _power),
    "Reciprocal": ("", lambda node, x: ("div", 1.0, x)),
    "Relu": ("", lambda node, x: ("max", x, 0.0)),
    "Round": ("", _alone("round")),
    "Selu": ("alpha gamma", _selu),
    "Sigmoid": ("", _alone("sigmoid")),
    "Softplus": ("", _alone("softplus")),
    "Softsign": ("", lambda node, x: ("div", x, ("add", ("abs", x), 1.0))),
    "Sqrt": ("", _alone("sqrt")),
    "Sub": ("", _joined("sub")),
    "Sum": ("", _joined("add")),
    "Swish": ("alpha", _swish),
    "Tanh": ("", _alone("tanh")),
}


def express(node: Node, inputs: Sequence[str], constants: Mapping[str, Any]) -> Expression:
    """Return the expression of a node; None where it is not known to be element-wise.

    Parameters
    ----------
    node : Node
        Of ONNX's main domain.
    inputs : sequence of str
        Names of what it takes; "" for what is left out.
    constants : mapping of str to ndarray
        Of the model.
    """
    known = _EXPRESSIONS.get(node.kind)
    if known is None or node.version < _BROADCASTS or node.outputs != 1 or not inputs:
        return None
    attributes, make = known
    if not set(node.attributes) <= set(attributes.split()):
        return None
    values: list[Expression] = [name or None for name in inputs]
    if node.kind == "Pow" and len(values) == 2:
        exponent = constants.get(inputs[1])
        if exponent is not None and exponent.size == 1 and exponent.dtype.kind in "fiu":
            values[1] = float(exponent.reshape(()))
    elif values[0] is None or (None in values and node.kind != "Clip"):
        return None
    try:
        return make(node, *values)
    except TypeError:  # another number of inputs than the operator has
        return None
