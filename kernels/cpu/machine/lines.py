"""Lines of the cache: 64 bytes on every machine that there are kernels for.

What lies in one line is moved together, and two threads that write to one wait for each other.
"""

from __future__ import annotations

__all__ = ["LINE", "whole_lines"]

#: Bytes of a line.
LINE = 64


def whole_lines(size: int) -> int:
    """Return a size rounded up to whole lines.

    Examples
    --------
    >>> whole_lines(100)
    128
    """
    return -(-size // LINE) * LINE
