"""Typed pointers to opaque ones, in the text of LLVM IR.

llvmlite writes ``float addrspace(3)*`` unless an environment variable that it reads while it loads
says otherwise, and NVVM wants it so for GPUs below compute capability 10. LLVM itself has read only
``ptr`` for years. Converting the text lets one process emulate a kernel and compile it for a GPU.

A ``*`` occurs in IR only behind a type (strings, names and comments are tokens of their own), so
one pass is enough: at each star the type before it is taken off the output and ``ptr`` put there::

    i8 | float | %"T" | ptr          one token
    { ... } | [ ... ] | < ... >      back to the bracket that opens it
    T ( ... )                        a function: the parentheses, then the type before them
    T addrspace ( n )                the qualifier goes, then the type before it
"""

from __future__ import annotations

import re

__all__ = ["opaque_pointers"]

_TOKEN = re.compile(
    r"""
    ;[^\n]*                        # comment
  | [@%$!c]?"(?:[^"\\]|\\.)*"      # string or quoted name; a backslash escapes two hex digits
  | \.\.\.
  | [@%$!\#]?[-\w.$]+              # word, name or number
  | \s+
  | .
    """,
    re.VERBOSE,
)
_OPENS = {")": "(", "]": "[", "}": "{", ">": "<"}
_ADDRESS_SPACE = re.compile(r"\s*addrspace\(\d+\)")


def opaque_pointers(text: str) -> str:
    """Return `text` with every pointer type written ``ptr`` and every address space dropped.

    Examples
    --------
    >>> opaque_pointers("%x = load float, float addrspace(3)* %p")
    '%x = load float, ptr %p'
    >>> opaque_pointers("declare void (i8*, [2 x i32]*)* @f({i8*, i64}* %a)")
    'declare ptr @f(ptr %a)'
    """
    out: list[str] = []
    for token in _TOKEN.findall(text):
        if token == "*":
            del out[_start_of_type(out) :]
            token = "ptr"
        out.append(token)
    return _ADDRESS_SPACE.sub("", "".join(out)).replace("addrspacecast", "bitcast")


def _start_of_type(out: list[str]) -> int:
    """Index of the first token of the type that ends `out`."""
    at = _skip_space(out, len(out) - 1)
    closing = out[at]
    if closing not in _OPENS:
        return at
    at = _opening(out, at)
    if closing != ")":
        return at
    before = _skip_space(out, at - 1)
    if out[before] == "addrspace":
        before = _skip_space(out, before - 1)
    return _start_of_type(out[: before + 1])


def _skip_space(out: list[str], at: int) -> int:
    while out[at].isspace():
        at -= 1
    return at


def _opening(out: list[str], at: int) -> int:
    """Index of the bracket that the one at `at` closes."""
    closing, depth = out[at], 0
    while True:
        depth += (out[at] == closing) - (out[at] == _OPENS[closing])
        if depth == 0:
            return at
        at -= 1
