"""What a kernel's compiled variants look like, for who makes it faster.

`code_listing` has their Python source and the LLVM IR of their main loop, `assembly_listing` the
machine code of that loop and what it is made of. What Numba puts around a function is left out.
"""

from __future__ import annotations

import inspect
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..runtime.jit import Variant
from .assembly import Loop, find_loops
from .llvm_text import find_ir_loops

__all__ = ["assembly_listing", "code_listing"]

#: Kinds of loops beside the first of a variant whose counts are told.
_MOST_OTHERS = 6


def variant_name(variant: Variant) -> str:
    """Return a variant's key as a call.

    Examples
    --------
    >>> variant_name(Variant(("strip", 3, 16), print, None))
    'strip(3, 16)'
    """
    name, *values = variant.key
    return f"{name}({', '.join(map(str, values))})"


def code_listing(variants: Iterable[Variant]) -> str:
    """Return each variant's Python source, and its main loop where that multiplies and adds.

    Parameters
    ----------
    variants : iterable of Variant
        In the order in which they are to be shown.
    """
    return "\n\n".join("\n".join(_code_of(variant)) for variant in variants)


def _code_of(variant: Variant) -> Iterator[str]:
    function = variant.function
    code = function.__code__
    yield f"# {variant_name(variant)}: {function.__module__}, line {code.co_firstlineno}"
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    closed: dict[str, Any] = dict(zip(code.co_freevars, cells, strict=True))
    numbers = [f"{name} = {value}" for name, value in closed.items() if isinstance(value, int)]
    if numbers:
        yield f"# compiled for {', '.join(numbers)}"
    for value in closed.values():
        if body := getattr(value, "py_func", None):
            line = body.__code__.co_firstlineno
            yield f"# calls {body.__name__}: {body.__module__}, line {line}"
    yield textwrap.dedent(inspect.getsource(function)).rstrip()
    loops = find_ir_loops(variant.llvm)
    if loops:
        yield ""
        yield f"; its main loop, in {loops[0].function}: {loops[0].multiply_adds} multiply-adds"
        yield from loops[0].lines


def assembly_listing(variants: Iterable[Variant]) -> str:
    """Return the main loop of each variant that multiplies and adds, by falling rank.

    Parameters
    ----------
    variants : iterable of Variant
        In the order in which they were compiled.
    """
    by_variant = [(variant_name(variant), find_loops(variant.assembly)) for variant in variants]
    able = [(name, loops) for name, loops in by_variant if loops]
    able.sort(key=lambda named: named[1][0].rank, reverse=True)
    parts = ["\n".join(_loops_of(name, loops)) for name, loops in able]
    others = [name for name, loops in by_variant if not loops]
    if others:
        parts.append(f"# no loop multiplies and adds in {', '.join(others)}")
    return "\n\n".join(parts)


def _loops_of(name: str, loops: Sequence[Loop]) -> Iterator[str]:
    """Yield the first loop of a variant and the counts of the others."""
    first, *rest = loops
    yield f"# {name}, in {first.function}: {first.facts()}"
    yield from (line.expandtabs(8) for line in first.lines)
    others = Counter(f"in {loop.function}: {loop.facts()}" for loop in rest)
    for told, count in list(others.items())[:_MOST_OTHERS]:
        yield f"# {f'{count} more' if count > 1 else 'one more'} {told}"
    if len(others) > _MOST_OTHERS:
        yield f"# {sum(list(others.values())[_MOST_OTHERS:])} more, of lower rank"
