"""The ONNX node of each operator without a weight, for libraries that are given a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .peer import Refusal

__all__ = ["NODES", "Node"]


class Node(NamedTuple):
    """One node of a model.

    Parameters
    ----------
    kind : str
        ONNX's name of the operator.
    attributes : dict
        Its attributes.
    constants : mapping of str to ndarray
        Inputs behind those of the problem, which the model holds.
    """

    kind: str
    attributes: dict[str, Any]
    constants: Mapping[str, Any] = MappingProxyType({})


def _pool(problem: Any) -> Node:
    attributes = {
        "kernel_shape": list(problem.kernel_size),
        "strides": list(problem.stride),
        "pads": [*problem.padding, *problem.padding],
        "ceil_mode": int(problem.ceil_mode),
    }
    if problem.op == "max_pool":
        return Node("MaxPool", attributes | {"dilations": list(problem.dilation)})
    raise Refusal(f"ONNX has no node for {problem.op}")


#: By operator, a function that returns the node of a problem or raises `Refusal`.
NODES: dict[str, Callable[[Any], Node]] = {"max_pool": _pool}
