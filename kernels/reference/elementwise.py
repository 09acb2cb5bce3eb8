"""Chains of element-wise operations, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.formula import Formula

__all__ = ["ELEMENTWISE", "elementwise"]

#: Each operation of a chain on float64, by its name.
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "pow": np.power,
    "leaky_relu": lambda x, slope: np.where(x > 0, x, x * slope),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "softplus": lambda x: np.logaddexp(0.0, x),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
}


def elementwise(formula: Formula, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Compute a formula.

    Parameters
    ----------
    formula : Formula
        The operations.
    arrays : sequence of ndarray
        Of shapes that broadcast to that of the output.

    Returns
    -------
    ndarray of float64

    Examples
    --------
    >>> from fastconv.contract.formula import Operation
    >>> squares = Formula(1, (), (Operation("mul", (0, 0)),))
    >>> elementwise(squares, [np.array([1.0, -3.0])])
    array([1., 9.])
    """
    shape = np.broadcast_shapes(*(each.shape for each in arrays))
    values: list[Any] = [np.asarray(each, np.float64) for each in arrays]
    values += map(np.float64, formula.numbers)
    with np.errstate(all="ignore"):
        for name, operands in formula.operations:
            values.append(ELEMENTWISE[name](*(values[each] for each in operands)))
    made: NDArray[np.float64] = np.array(np.broadcast_to(values[-1], shape), np.float64)
    return made
