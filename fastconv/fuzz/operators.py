"""The table of what is drawn: a new operator is one entry.

Everything that is the same for every operator (memory orders, histories, threads, comparing) is
done elsewhere, in terms of what an `Operator` tells.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .case import Case

__all__ = [
    "Failed",
    "Operator",
    "Params",
    "Shapes",
    "chosen_inside",
    "find_operator",
    "operators",
]

Params = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]

#: Modules with a tuple OPERATORS.
_TABLES = tuple(
    f"fastconv.fuzz.{name}"
    for name in (
        "dense",
        "transposed",
        "dense_grad",
        "transposed_grad",
        "deforms",
        "linear",
        "norms",
        "norm_grads",
        "pairs",
        "pools",
        "rearrange",
        "resizes",
        "sparse",
        "sparse_grad",
        "sparse_sets",
        "unpools",
    )
)


class Failed(Exception):
    """A finding: what kind it is of, and a sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def _called(made: Any, arrays: dict[str, Any], params: Params) -> Any:
    return made(**arrays)


def _one_type(name: str, dtype: str, params: Params) -> str:
    return dtype


def chosen_inside(arrays: dict[str, Any], params: Params) -> None:
    """Return no problem: kernels are chosen inside, for what a call is made of."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One public operator.

    Parameters
    ----------
    name : str
        As ``--ops`` and a case say it.
    group : str
        Another word that ``--ops`` takes for all operators of its kind.
    op : str
        What the registry calls it, or what it is made of: kernels are forced by their names under
        it.
    defaults : dict
        Every parameter, and what it is where a case does not say.
    draw : callable
        ``draw(draw, name, options)`` returns a case, from Hypothesis' ``draw``.
    shapes : callable
        Shapes of the arrays by argument, from parameters; "out" is the output's, and is missing
        where a call with these parameters must be refused.
    function : callable
        ``function(arrays, params)`` makes the functional call: arrays are by argument and hold
        the optional ones that are given, and "out".
    truth : callable
        ``truth(arrays, params)`` returns float64 sums before the activation, from float64 arrays.
    problem : callable
        ``problem(arrays, params)`` returns what is dispatched; None where no kernel is chosen, or
        inside only.
    work : callable
        Floating point operations of a call, from its shapes and parameters.
    make : callable, optional
        ``make(arrays, params)`` returns an object.
    apply : callable
        ``apply(object, arrays, params)`` calls it.
    required : tuple of str
        Arguments that every call has, beside those of an object.
    weights : tuple of str
        Arguments that belong to an object.
    bad : mapping
        Arguments of which `bad` knows values that must be refused, and the kind of each: a key of
        `bad.VALUES`, or "array", "lone" (an array whose size and type fit no other) or "output".
    inside : bool
        Whether kernels of `op` are chosen inside, for parts of a call: the loosest one counts.
    channels : int
        Axis of output channels, counted from the last: activations have parameters along it.
    rounds : bool
        Whether results of whole numbers are no whole numbers: a mean.
    element_type : callable
        ``element_type(name, dtype, params)`` returns the element type of an array of a case of
        that dtype, where they differ.
    """

    name: str
    group: str
    op: str
    defaults: Mapping[str, Any]
    draw: Callable[..., Case]
    shapes: Callable[[Params], Shapes]
    function: Callable[[dict[str, Any], Params], Any]
    truth: Callable[[dict[str, Any], Params], Any]
    problem: Callable[[dict[str, Any], Params], Any]
    work: Callable[[Shapes, Params], float]
    make: Callable[[dict[str, Any], Params], Any] | None = None
    apply: Callable[[Any, dict[str, Any], Params], Any] = _called
    required: tuple[str, ...] = ("input",)
    weights: tuple[str, ...] = ()
    inside: bool = False
    channels: int = -1
    rounds: bool = False
    element_type: Callable[[str, str, Params], str] = _one_type
    bad: Mapping[str, str] = field(default_factory=dict)


@functools.cache
def operators() -> dict[str, Operator]:
    """Return every operator of the library by name."""
    listed = [op for table in _TABLES for op in importlib.import_module(table).OPERATORS]
    return {op.name: op for op in listed}


def find_operator(name: str) -> Operator:
    """Return an operator by its name, or by ``MODULE:NAME`` out of another module's table."""
    module, _, short = name.rpartition(":")
    if not module:
        return operators()[name]
    return {op.name: op for op in importlib.import_module(module).OPERATORS}[short]
