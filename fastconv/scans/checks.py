"""What every reader asks of a file before it believes it.

A file may say anything of itself. What its header says is held against its size before memory is
taken or a loop begins, in Python's integers, and the tables that come out are at most `EXPANSION`
times as large as the file where it is compressed. Readers raise ValueError with what is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

__all__ = ["EXPANSION", "Table", "check_expansion", "check_room", "shortened"]

Table = npt.NDArray[Any]
#: Most bytes that a byte of a compressed file may become. Scans come to 2 in .npz, to 15 in .laz.
EXPANSION = 32
_ALLOWANCE = 1 << 16  # bytes that a file may become whatever its size


def check_expansion(wanted: int, size: int) -> None:
    """Raise where `size` bytes of a file are said to hold far more than scans do."""
    if wanted > EXPANSION * size + _ALLOWANCE:
        raise ValueError(
            f"its {size} bytes are said to hold {wanted}, {wanted // max(size, 1)} times as many; "
            f"want at most {EXPANSION} times, far more than any scan takes"
        )


def check_room(what: str, count: int, size: int, room: int) -> None:
    """Raise where a file has no room for what it says that it holds."""
    if count * size > room:
        raise ValueError(
            f"it says that it holds {count} {what} of {size} bytes and has room for "
            f"{room // max(size, 1)}: it is cut, or its header is wrong"
        )


def shortened(text: str) -> str:
    """Return words of a file for a message, cut where they are long."""
    return text if len(text) < 300 else f"{text[:300]} ..."
