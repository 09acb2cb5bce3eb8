"""The loops of an assembly text that multiply and add, and what they are made of.

It reads what LLVM prints for x86 (in AT&T's order of operands) and for 64-bit Arm. Accesses to the
stack within a loop are told apart: a compiler keeps scalars there where a function has more of them
than registers, and vectors where a tile is too large, which costs most of its speed.

A register tile has a loop for each size that occurs at an edge. The one that counts has the most
sums; the number of its instructions does not tell, since small loops are unrolled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .control_flow import Block, innermost_loops

__all__ = ["Loop", "find_loops", "plain_name"]

_LABEL = re.compile(r'"?([\w.$@]+)"?:')
_BRANCH = re.compile(r"j\w+|b(\.\w+)?|cbn?z|tbn?z|br|ret\w?|ud2|brk|hlt")
#: What nothing runs behind: it jumps always, returns or traps.
_END = re.compile(r"jmp\w?|b|br|ret\w?|ud2|brk|hlt")
#: Between operands, and not inside the brackets of one.
_COMMA = re.compile(r",\s*(?![^(\[{]*[)\]}])")

_FUSED = re.compile(r"v?fn?m(add|sub)\w*|vdpbf16ps|fml[as]|bfdot|bfmmla|bfmlal[bt]")
_MULTIPLY = re.compile(r"v?mul[ps][sdh]|fmul")
_ADD = re.compile(r"v?(add|sub)[ps][sdh]|f(add|sub)")

#: What names an address and reads nothing there.
_NO_ACCESS = re.compile(r"lea\w?|prefetch\w*|prfm|nop\w*")
#: What reads its last operand and does not write it.
_READS_LAST = re.compile(
    r"v?u?comis\w|cmp\w+|v?p?test\w+|bt\w|push\w|call\w|jmp\w|i?(mul|div)[bwlq]"
)
_FRAME = re.compile(r"movq\s+%rsp, %rbp|(mov|add)\s+x29, sp")
_STACK = re.compile(r"\(%rsp\b|\[sp\b")
_STACK_OR_FRAME = re.compile(r"\(%r[sb]p\b|\[(sp|x29)\b")

_REGISTER_BITS = {"%zmm": 512, "%ymm": 256, "%xmm": 128}
_ARM_VECTOR = re.compile(r"\bv\d+\.(\d+)([bhsd])")
_ARM_BITS = {"b": 8, "h": 16, "s": 32, "d": 64}


@dataclass(frozen=True, slots=True)
class Loop:
    """An innermost loop that multiplies and adds.

    Parameters
    ----------
    function : str
        The function that it is in.
    lines : tuple of str
        Its text, labels among it.
    instructions, multiply_adds : int
        Instructions, and multiply-adds: fused ones, and pairs of a multiplication and an addition.
    sums : int
        Registers that multiply-adds go to.
    bits : int
        Width of the widest vector that is multiplied; 0 for single numbers.
    loads, stores : int
        Instructions that read and that write memory, the stack's among them.
    stack_loads, stack_stores : int
        Those of them that reach the stack.
    """

    function: str
    lines: tuple[str, ...]
    instructions: int
    multiply_adds: int
    sums: int
    bits: int
    loads: int
    stores: int
    stack_loads: int
    stack_stores: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """What tells the loop that counts: the greatest has it."""
        return self.sums, self.multiply_adds, self.bits

    def facts(self) -> str:
        """Return the counts as one line."""
        width = f"of {self.bits} bits" if self.bits else "of single numbers"
        stack = "none on the stack"
        if self.stack_loads or self.stack_stores:
            stack = f"{self.stack_loads} and {self.stack_stores} of them on the stack"
        return (
            f"{self.instructions} instructions, {self.multiply_adds} multiply-adds {width} into "
            f"{self.sums} registers, {self.loads} loads and {self.stores} stores, {stack}"
        )


def find_loops(text: str) -> list[Loop]:
    r"""Return the innermost loops of an assembly text that multiply and add, by falling rank.

    Parameters
    ----------
    text : str
        Of any number of functions.

    Examples
    --------
    >>> text = '''sum:
    ... .LBB0_1:
    ...     vmovups (%rsi), %ymm1
    ...     vfmadd231ps (%rdi), %ymm1, %ymm0
    ...     vfmadd231ps (%rcx), %ymm1, %ymm2
    ...     decq %rax
    ...     jne .LBB0_1
    ...     retq'''
    >>> [loop] = find_loops(text)
    >>> loop.function, loop.instructions, loop.multiply_adds, loop.sums, loop.bits, loop.loads
    ('sum', 5, 2, 2, 256, 3)
    """
    described = []
    for name, lines in _functions(text):
        stack = _STACK_OR_FRAME if any(map(_FRAME.search, lines)) else _STACK
        blocks = _blocks(lines)
        loops = innermost_loops(blocks)
        described += [_loop(name, [blocks[number] for number in loop], stack) for loop in loops]
    described = [loop for loop in described if loop.multiply_adds]
    return sorted(described, key=lambda loop: loop.rank, reverse=True)


def plain_name(symbol: str) -> str:
    """Return the name that a symbol has in Python, with the function around it.

    Examples
    --------
    >>> plain_name("_ZN8fastconv4tile12tile_address12_3clocals_3e8any_rowsB4v305Exx")
    'tile_address.any_rows'
    """
    rest, parts = symbol.partition("_ZN")[2], []
    while digits := re.match(r"\d+", rest):
        start, length = digits.end(), int(digits[0])
        parts.append(rest[start : start + length])
        rest = rest[start + length :]
    named = [part for part in parts if "_3c" not in part]
    return ".".join(named[-2:]) or symbol


def _functions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and lines of each function, wrappers for callers in C left out."""
    name, lines = "", list[str]()
    for line in text.splitlines():
        label = _LABEL.match(line)
        if label and not label[1].startswith((".L", "L")):
            yield name, lines
            name, lines = plain_name(label[1]) if "cfunc." not in label[1] else "", []
        elif name and (label or not line.lstrip().startswith((".", "#", "//"))):
            lines.append(line)
    yield name, lines


def _split(line: str) -> tuple[str, list[str]]:
    """Return an instruction's name and operands."""
    name, _, rest = line.strip().replace("\t", " ").partition(" ")
    return name, _COMMA.split(rest.strip()) if rest.strip() else []


def _blocks(lines: Sequence[str]) -> list[Block]:
    """Cut a function at its labels and branches."""
    pieces: list[tuple[str, list[str]]] = [("", [])]
    for line in lines:
        if label := _LABEL.match(line):
            pieces.append((label[1], [line]))
            continue
        pieces[-1][1].append(line)
        if _BRANCH.fullmatch(_split(line)[0]):
            pieces.append(("", []))
    pieces = [piece for piece in pieces if piece[1]]
    numbers = {label: number for number, (label, _) in enumerate(pieces) if label}
    return [
        Block(label, tuple(text), tuple(_successors(text, number, numbers, len(pieces))))
        for number, (label, text) in enumerate(pieces)
    ]


def _successors(
    text: Sequence[str], number: int, numbers: dict[str, int], count: int
) -> Iterator[int]:
    """Yield the numbers of the blocks that a block's last instruction leads to."""
    name, operands = _split(text[-1])
    if _BRANCH.fullmatch(name) and operands and operands[-1] in numbers:
        yield numbers[operands[-1]]
    if not _END.fullmatch(name) and number + 1 < count:
        yield number + 1


def _loop(function: str, blocks: Sequence[Block], stack: re.Pattern[str]) -> Loop:
    """Count what a loop is made of."""
    lines = [line for block in blocks for line in block.lines]
    code = [_split(line) for line in lines if not _LABEL.match(line)]
    fused = [instruction for instruction in code if _FUSED.fullmatch(instruction[0])]
    multiplied = [instruction for instruction in code if _MULTIPLY.fullmatch(instruction[0])]
    added = [instruction for instruction in code if _ADD.fullmatch(instruction[0])]
    accesses = [
        (_access(name, operands), bool(stack.search(" ".join(operands)))) for name, operands in code
    ]
    return Loop(
        function,
        tuple(lines),
        len(code),
        len(fused) + min(len(multiplied), len(added)),
        len({_target(operands) for _, operands in fused or added}),
        max((_bits(*instruction) for instruction in (*fused, *multiplied)), default=0),
        *(sum(kind == want for kind, _ in accesses) for want in ("load", "store")),
        *(accesses.count((want, True)) for want in ("load", "store")),
    )


def _target(operands: Sequence[str]) -> str:
    """Return the register that an instruction writes: AT&T's last operand, Arm's first."""
    x86 = any("%" in operand for operand in operands)
    return operands[-1 if x86 else 0].partition(" ")[0]


def _access(name: str, operands: Sequence[str]) -> str:
    """Return whether an instruction loads, stores or ("") does not touch memory."""
    if _NO_ACCESS.fullmatch(name):
        return ""
    if any(operand.startswith("[") for operand in operands):  # Arm's
        return "store" if name.startswith("st") else "load"
    places = ["(" in operand for operand in operands]
    if not any(places):
        return ""
    return "store" if places[-1] and not _READS_LAST.fullmatch(name) else "load"


def _bits(name: str, operands: Sequence[str]) -> int:
    """Return the width of the vectors that an instruction multiplies, 0 of single numbers."""
    if re.search(r"s[sdh]$", name):
        return 0
    text = " ".join(operands)
    x86 = [bits for register, bits in _REGISTER_BITS.items() if register in text]
    arm = [int(count) * _ARM_BITS[kind] for count, kind in _ARM_VECTOR.findall(text)]
    return max(x86 + arm, default=0)
