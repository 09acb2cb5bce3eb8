"""``print`` in a kernel: what CUDA's ``vprintf`` is given, as text on the host.

Numba gives a format and the address of its values, one behind another as C lays out a structure.
Lines are kept until the launch is over and then come block by block, in the order in which threads
ran: on a GPU they come in no order at all.
"""

from __future__ import annotations

import ctypes
import re
import threading
from typing import Any

from .context import OFFSETS

__all__ = ["Lines", "collect", "print_address"]

#: Numbers of blocks, and what each printed.
Lines = list[tuple[int, str]]

_SPECIFIERS = re.compile(r"%(lld|llu|f|s|d|%)")
_KINDS: dict[str, Any] = {
    "lld": ctypes.c_int64,
    "llu": ctypes.c_uint64,
    "f": ctypes.c_double,
    "s": ctypes.c_void_p,
    "d": ctypes.c_int32,
}
_local = threading.local()


def collect() -> Lines:
    """Return the list that what kernels print on this thread is added to from now on."""
    _local.lines = lines = Lines()
    return lines


def _text(format_: int, values: int) -> str:
    """Return what ``vprintf`` would write."""
    at = values

    def written(match: re.Match[str]) -> str:
        nonlocal at
        if match.group(1) == "%":
            return "%"
        kind = _KINDS[match.group(1)]
        size = ctypes.sizeof(kind)
        at = -(-at // size) * size
        value = kind.from_address(at).value
        at += size
        if kind is ctypes.c_void_p:
            return ctypes.string_at(value).decode("utf-8", "replace")
        return f"{value:f}" if kind is ctypes.c_double else str(value)

    return _SPECIFIERS.sub(written, ctypes.string_at(format_).decode("utf-8", "replace"))


@ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
def _print(context: int, format_: int, values: int) -> None:
    def word(name: str) -> int:
        return ctypes.c_int32.from_address(context + OFFSETS[name]).value

    row = word("ctaid.z") * word("nctaid.y") + word("ctaid.y")
    block = row * word("nctaid.x") + word("ctaid.x")
    _local.lines.append((block, _text(format_, values)))


def print_address() -> int:
    """Return the address of a function of context, format and values, three 64-bit integers."""
    return ctypes.cast(_print, ctypes.c_void_p).value or 0
