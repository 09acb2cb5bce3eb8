"""What a chain of element-wise operations computes, in one pass over its arrays.

A chain is a list of operations, not a problem of sizes: no two networks have the same, so it is in
no registry and has no problem line. `kernels/reference/elementwise.py` says what each operation is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .errors import ArgumentError

__all__ = ["OPERANDS", "Formula", "Operation"]

#: How many operands each operation has.
OPERANDS = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "max": 2, "min": 2, "leaky_relu": 2, "pow": 2,
    "neg": 1, "abs": 1, "sqrt": 1, "floor": 1, "ceil": 1, "round": 1,
    "exp": 1, "log": 1, "erf": 1, "softplus": 1, "sigmoid": 1, "elu": 1, "tanh": 1, "hardswish": 1,
}  # fmt: skip
#: Those that are an instruction or two.
_PLAIN = ("add", "sub", "mul", "max", "min", "leaky_relu", "neg", "abs", "floor", "ceil", "round")


class Operation(NamedTuple):
    """One operation of a formula.

    Parameters
    ----------
    name : str
        A key of `OPERANDS`.
    operands : tuple of int
        Values by their numbers: arrays first, then numbers, then what operations make, in order.
    """

    name: str
    operands: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Formula:
    """Operations on arrays that broadcast to the shape of one output, which the last one makes.

    Parameters
    ----------
    arrays : int
        How many arrays there are.
    numbers : tuple of float
        Operands that are the same for every element.
    operations : tuple of Operation
        In an order in which they can be computed.

    Raises
    ------
    ArgumentError
        For operations that there are not, and operands that are not there by then.

    Examples
    --------
    >>> silu = Formula(1, (), (Operation("sigmoid", (0,)), Operation("mul", (0, 1))))
    >>> silu.cost > Formula(2, (), (Operation("add", (0, 1)),)).cost
    True
    """

    arrays: int
    numbers: tuple[float, ...]
    operations: tuple[Operation, ...]

    def __post_init__(self) -> None:
        if self.arrays < 1 or not self.operations:
            raise ArgumentError(
                f"formula: got {len(self.operations)} operations on {self.arrays} arrays, want at "
                "least one of each"
            )
        known = self.arrays + len(self.numbers)
        for name, operands in self.operations:
            if OPERANDS.get(name) != len(operands):
                raise ArgumentError(
                    f"formula: got {name!r} with {len(operands)} operands, want of {OPERANDS}"
                )
            if not all(0 <= each < known for each in operands):
                raise ArgumentError(f"formula: got {name}{operands}, want values below {known}")
            known += 1

    @property
    def cost(self) -> int:
        """Operations on an element, an exponential or the like counted as twenty."""
        return sum(1 if name in _PLAIN else 20 for name, _ in self.operations)
