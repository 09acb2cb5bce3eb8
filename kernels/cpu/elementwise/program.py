"""A chain as the interpreter reads it: instructions on slots, and which tile each value lies in.

A slot is an address and the bytes to its next vector: of an array's elements, of a number that is
the same in each vector (0), or of a tile.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv.contract.formula import Formula

from .functions import CODES

__all__ = ["INSTRUCTION_WORDS", "Program", "compile_formula"]

#: Words of an instruction: the operation, its operands' slots, the result's slot.
INSTRUCTION_WORDS = 4


class Program(NamedTuple):
    """Instructions, flat, and the number of slots.

    Slots are those of the arrays, of the numbers, of tiles for what lies between two operations,
    and of the output.
    """

    words: tuple[int, ...]
    slots: int


def compile_formula(formula: Formula) -> Program:
    """Return the program of a formula; a tile is free again behind the last use of its value.

    Examples
    --------
    >>> from fastconv.contract.formula import Operation
    >>> formula = Formula(1, (), (Operation("exp", (0,)), Operation("neg", (1,))))
    >>> compile_formula(formula).slots
    3
    """
    given, last = formula.arrays + len(formula.numbers), len(formula.operations) - 1
    lasts: dict[int, int] = {}
    for place, (_, operands) in enumerate(formula.operations):
        lasts |= dict.fromkeys(operands, place)
    slot_of = {value: value for value in range(given)}
    free: list[int] = []
    slots = given
    lines = []
    for place, (name, operands) in enumerate(formula.operations):
        first, second = operands[0], operands[-1]
        taken = [slot_of[first], slot_of[second]]
        free += {slot_of[each] for each in operands if each >= given and lasts[each] == place}
        if place == last:
            made = -1
        elif free:
            made = free.pop()
        else:
            made, slots = slots, slots + 1
        slot_of[given + place] = made
        if given + place not in lasts and place != last:
            free.append(made)  # nothing takes it
        lines.append((CODES[name], *taken, made))
    words = [word if word >= 0 else slots for line in lines for word in line]
    return Program(tuple(words), slots + 1)
