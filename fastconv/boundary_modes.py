"""Which operators a boundary mode names: convolution with zeros, or one that copies what it reads.

Padding with zeros costs what it did without modes: one look at a table.
"""

from __future__ import annotations

from typing import Any

from .calls import CONV, Family
from .contract import first_use
from .contract.boundary_problem import NO_BOUNDARY, BoundaryProblem, canonical_mode
from .contract.problem import ConvProblem
from .dense_problem import make_problem

__all__ = ["conv_family", "conv_problem"]

_families: dict[Any, Family] = {"zeros": CONV}
#: Constants whose families are kept.
_MOST_FAMILIES = 64


def conv_family(padding_mode: Any) -> Family:
    """Return the family of convolutions with a boundary mode.

    Raises
    ------
    ArgumentError
        For what is no mode.
    """
    if type(padding_mode) is str and (family := _families.get(padding_mode)) is not None:
        return family
    mode, value = canonical_mode(padding_mode)
    if (mode, value) == NO_BOUNDARY:
        return CONV
    key = mode if mode != "constant" else (mode, value)
    family = _families.get(key)
    if family is None:
        calls = first_use.load("fastconv.ops.boundary_calls")
        if len(_families) >= _MOST_FAMILIES:
            _families.clear()
            _families["zeros"] = CONV
        family = _families[key] = calls.make_family(mode, value)
    return family


def conv_problem(
    ndim: int, x: Any, weight: Any, arguments: tuple[Any, ...], padding_mode: Any, out: Any = None
) -> ConvProblem | BoundaryProblem:
    """Check a call's input, weight and arguments and return the problem that they describe."""
    mode, value = canonical_mode(padding_mode)
    if (mode, value) == NO_BOUNDARY:
        return make_problem(ndim, x, weight, arguments, out)
    calls = first_use.load("fastconv.ops.boundary_calls")
    problem: BoundaryProblem = calls.make_boundary_problem(
        ndim, x, weight, arguments, mode, value, out
    )
    return problem
