"""What fastconv has for each operator of ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .convolutions import WEIGHTED, compute_weighted
from .node import Node, Refusal
from .norms import NORMS
from .pools import POOLS
from .resizing import RESIZING

__all__ = ["TRANSLATIONS", "translate"]

#: By ONNX's name, a function that computes a node on arrays or raises `Refusal`.
TRANSLATIONS: dict[str, Callable[..., tuple[Any, ...]]] = {
    **dict.fromkeys(WEIGHTED, compute_weighted),
    **POOLS,
    **NORMS,
    **RESIZING,
}


def translate(node: Node, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Compute a node on fastconv's kernels.

    Parameters
    ----------
    node : Node
        Of an operator in `TRANSLATIONS`.
    arrays : tuple
        Its inputs; None for those that are left out.

    Raises
    ------
    Refusal
        Where fastconv has no operator for it.
    FastconvError
        Where the operator does not take these arrays.
    """
    if not all(each is None or hasattr(each, "strides") for each in arrays):
        raise Refusal("an input is no array")
    return TRANSLATIONS[node.kind](node, *arrays)
