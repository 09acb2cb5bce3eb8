"""Counting instructions in SASS: the main loop, what it is made of, what should not be there."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

__all__ = ["Listing", "parse", "share"]

_LABEL = re.compile(r"^(\.L_x?_?\d+):")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(.*?);")
_PREDICATE = re.compile(r"^@!?U?P\w+\s+")
_TARGET = re.compile(r"\.L_x?_?\d+")
#: Arithmetic, comparison and conversion in float64.
_DOUBLE = re.compile(r"^(D(ADD|MUL|FMA|SETP|MNMX)|F2F\.\S*F64|[IF]2F\.F64|MUFU\.\S*64H)")


@dataclass(frozen=True, slots=True)
class Listing:
    """A kernel's instructions.

    Parameters
    ----------
    operations : tuple of str
        Each instruction's name with its modifiers, ``"LDS.128"``, in order.
    lines : tuple of str
        Each instruction's whole text, behind the label that it has.
    loops : tuple of (int, int)
        First and last instruction of every backward branch.
    """

    operations: tuple[str, ...]
    lines: tuple[str, ...]
    loops: tuple[tuple[int, int], ...]

    def count(self, prefix: str) -> int:
        """Return how many instructions begin with a prefix."""
        return sum(name.startswith(prefix) for name in self.operations)

    @property
    def doubles(self) -> int:
        """Instructions that compute in float64."""
        return sum(bool(_DOUBLE.match(name)) for name in self.operations)

    def main_loop(self, multiply_add: str) -> Counter[str]:
        """Return the instructions of the innermost loop with the most multiply-adds.

        Loops that store to global memory are left out: an epilogue's activations multiply too.

        Parameters
        ----------
        multiply_add : {"FFMA", "DFMA"}
            What counts as one.
        """
        return Counter(self.operations[self._main_range(multiply_add)])

    def main_text(self, multiply_add: str) -> tuple[str, ...]:
        """Return the text of the loop that `main_loop` counts."""
        return self.lines[self._main_range(multiply_add)]

    def _main_range(self, multiply_add: str) -> slice:
        ranges = [slice(first, last + 1) for first, last in self._innermost_loops()]
        counts = [Counter(self.operations[lines]) for lines in ranges]
        able = [
            (_total(count, multiply_add), lines)
            for count, lines in zip(counts, ranges, strict=True)
            if not any(name.startswith("STG") for name in count)
        ]
        return max(able, key=lambda pair: pair[0], default=(0, slice(0)))[1]

    def _innermost_loops(self) -> list[tuple[int, int]]:
        return [
            (first, last)
            for first, last in self.loops
            if not any(
                first <= start and end <= last and (start, end) != (first, last)
                for start, end in self.loops
            )
        ]


def _total(counts: Counter[str], name: str) -> int:
    """Return the count of an instruction with any modifiers."""
    return sum(count for operation, count in counts.items() if operation.split(".")[0] == name)


def share(counts: Counter[str], name: str) -> float:
    """Return an instruction's part of all that are counted, 0 of none."""
    return _total(counts, name) / max(1, counts.total())


def parse(text: str) -> Listing:
    r"""Read what ``nvdisasm -c`` prints of one kernel.

    Examples
    --------
    >>> text = ".L_x_1:\n /*0000*/ FFMA R0, R1, R2, R0 ;\n /*0010*/ @P0 BRA `(.L_x_1) ;"
    >>> parse(text).loops
    ((0, 1),)
    """
    operations: list[str] = []
    texts: list[str] = []
    label_before = ""
    labels: dict[str, int] = {}
    loops = []
    for line in text.splitlines():
        if label := _LABEL.match(line.strip()):
            labels[label[1]] = len(operations)
            label_before += f"{label[0]}\n"
            continue
        if not (instruction := _INSTRUCTION.match(line)):
            continue
        words = _PREDICATE.sub("", instruction[1])
        if words.startswith("BRA") and (target := _TARGET.search(words)):
            start = labels.get(target[0])
            if start is not None:
                loops.append((start, len(operations)))
        operations.append(words.split()[0])
        texts.append(f"{label_before}        {instruction[1].rstrip()}")
        label_before = ""
    return Listing(tuple(operations), tuple(texts), tuple(loops))
