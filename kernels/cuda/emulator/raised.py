"""Exceptions that a kernel raises, as numbers in its code and as sentences afterwards.

Numba knows an exception by a number that begins at 1 in every function, and a device function hands
its number on to its caller as it is: two functions' first exceptions look alike. The numbers are
therefore made different here, in the text of each function, before all are linked into one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["RAISE", "Raised", "number_exceptions"]

#: Of the call that ends a thread; `ir` makes the prefix that of all that `lower` replaces.
RAISE = "llvm.nvvm.raise"
_STEP = 1 << 16


@dataclass(frozen=True)
class Raised:
    """An exception as the kernel's source has it."""

    kind: type[BaseException]
    text: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.kind.__name__}: {self.text}" if self.text else self.kind.__name__


def number_exceptions(compiled: Any, texts: list[str]) -> tuple[list[str], dict[int, Raised]]:
    """Make every number that stands for an exception one of its own.

    Parameters
    ----------
    compiled : Numba's result of compiling the kernel
        Its call helper, and those of the device functions that its types name, know the exceptions.
    texts : list of str
        LLVM IR of the kernel with Numba's helper for exceptions, and of its device functions.

    Returns
    -------
    list of str
        The texts, in which the helper is a declaration of `RAISE`.
    dict
        The exception of each number.
    """
    functions = {result.fndesc.llvm_func_name: result for result in _results(compiled, set())}
    raised: dict[int, Raised] = {}
    new = []
    kernel = compiled.fndesc.llvm_func_name
    for text in texts:
        parts = re.split(r"(?m)^(?=define )", text)
        for at, part in enumerate(parts):
            match = re.match(r'define [^\n]*?@"?([^"\n(]+)"?\(', part)
            name = match.group(1) if match else ""
            if name == f"{kernel}__exc_helper__":
                rest = part[part.index("\n}") + 2 :]
                parts[at] = f'declare void @"{RAISE}"(i32)\n{rest}'
            elif name in functions:
                base = _STEP * (1 + len(raised))
                exceptions = functions[name].call_helper.exceptions
                for number, (kind, args, place) in exceptions.items():
                    raised[base + number] = _raised(kind, args, place)
                parts[at] = _renumber(part, kernel, base)
        new.append("".join(parts))
    return new, raised


def _renumber(part: str, kernel: str, base: int) -> str:
    """Add `base` to the numbers that one function hands to its caller, or to the helper."""
    helper = re.escape(f'@"{kernel}__exc_helper__"')
    part = re.sub(rf"(?m)^.*call void {helper}\(i32 0\).*\n", "", part)
    part = re.sub(
        rf"(call void {helper}\(i32 |^  ret i32 )([1-9]\d*)\b",
        lambda match: f"{match.group(1)}{base + int(match.group(2))}",
        part,
        flags=re.M,
    )
    return re.sub(helper, f'@"{RAISE}"', part)


def _results(compiled: Any, seen: set[int]) -> Iterator[Any]:
    """Results of compiling a function and the device functions that it and those call."""
    from numba.cuda import types

    if id(compiled) in seen or not hasattr(compiled, "type_annotation"):
        return
    seen.add(id(compiled))
    yield compiled
    for type_ in set(compiled.type_annotation.typemap.values()):
        if isinstance(type_, types.Dispatcher):
            for overload in type_.dispatcher.overloads.values():
                yield from _results(overload, seen)


def _raised(kind: type[BaseException], args: Any, place: Any) -> Raised:
    _, file, line = place or ("", "", 0)
    text = ", ".join(str(value) for value in args or ())
    return Raised(kind, text, file, line)
