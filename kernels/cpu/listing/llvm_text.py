"""The loops of LLVM IR that multiply and add.

The IR is what LLVM's optimiser hands to the code generator: sums are named and there is one line an
operation, whatever the instruction set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .assembly import plain_name
from .control_flow import Block, innermost_loops

__all__ = ["IrLoop", "find_ir_loops"]

_FUNCTION = re.compile(r'define .*?@"?([\w.$]+)"?\(')
_LABEL = re.compile(r'"?([-\w.$]+)"?:')
_SUCCESSOR = re.compile(r'label %"?([-\w.$]+)"?')
_FUSED = re.compile(r"@llvm\.(fma|fmuladd)\.|dpbf16ps")
_SUM = re.compile(r"= phi (<\d+ x )?(float|double|half|bfloat)\b")
_MULTIPLY, _ADD = re.compile(r"= fmul "), re.compile(r"= f(add|sub) ")
#: The blocks before a block, and what refers to metadata.
_NOISE = re.compile(r"\s+; preds = .*|(, ![\w.]+ !\d+)+$")


@dataclass(frozen=True, slots=True)
class IrLoop:
    """An innermost loop that multiplies and adds.

    Parameters
    ----------
    function : str
        The function that it is in.
    lines : tuple of str
        Its text.
    multiply_adds : int
        Operations that multiply and add, and pairs of a multiplication and an addition.
    sums : int
        Values that are handed from one iteration to the next, or join where ways meet in it.
    """

    function: str
    lines: tuple[str, ...]
    multiply_adds: int
    sums: int


def find_ir_loops(text: str) -> list[IrLoop]:
    """Return the innermost loops of a module's text that multiply and add, most sums first.

    Parameters
    ----------
    text : str
        Of a module.

    Examples
    --------
    >>> text = '''define float @power(float %x, i64 %n) {
    ... entry:
    ...   br label %more
    ... more:    ; preds = %more, %entry
    ...   %y = phi float [ %x, %entry ], [ %z, %more ]
    ...   %z = call float @llvm.fma.f32(float %y, float %x, float %x)
    ...   %again = icmp eq i64 %n, 0
    ...   br i1 %again, label %more, label %end, !llvm.loop !1
    ... end:
    ...   ret float %z
    ... }'''
    >>> [loop] = find_ir_loops(text)
    >>> loop.function, loop.multiply_adds, loop.lines[0], loop.lines[-1]
    ('power', 1, 'more:', '  br i1 %again, label %more, label %end')
    """
    described = []
    for name, lines in _functions(text):
        blocks = _blocks(lines)
        for loop in innermost_loops(blocks):
            inside = [line for number in loop for line in blocks[number].lines]
            if count := _multiply_adds(inside):
                sums = sum(bool(_SUM.search(line)) for line in inside)
                shown = tuple(_NOISE.sub("", line) for line in inside)
                described.append(IrLoop(name, shown, count, sums))
    return sorted(described, key=lambda loop: (loop.sums, loop.multiply_adds), reverse=True)


def _functions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and lines of each function, wrappers for callers in C left out."""
    name, lines = "", list[str]()
    for line in text.splitlines():
        if head := _FUNCTION.match(line):
            name, lines = "" if "cfunc." in head[1] else plain_name(head[1]), []
        elif line == "}" and name:
            yield name, lines
            name = ""
        elif name and line.strip():
            lines.append(line)


def _blocks(lines: Sequence[str]) -> list[Block]:
    """Cut a function at its labels."""
    pieces: list[tuple[str, list[str]]] = [("", [])]
    for line in lines:
        if label := _LABEL.match(line):
            pieces.append((label[1], []))
        pieces[-1][1].append(line)
    numbers = {label: number for number, (label, _) in enumerate(pieces)}
    return [
        Block(
            label,
            tuple(text),
            tuple(numbers[target] for target in _SUCCESSOR.findall("".join(text))),
        )
        for label, text in pieces
    ]


def _multiply_adds(lines: Sequence[str]) -> int:
    fused, multiplied, added = (
        sum(bool(pattern.search(line)) for line in lines) for pattern in (_FUSED, _MULTIPLY, _ADD)
    )
    return fused + min(multiplied, added)
