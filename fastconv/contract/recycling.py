"""Memory of large outputs and packed weights, used again.

Above 32 MB the C library maps fresh pages for every array and gives them back afterwards. The
system clears each page when it is first written, which for an output of 51 MB takes 4 to 7 ms, as
long as the layer itself. So the memory of such an array is kept when the last one that lies in it
is gone, and handed to a later one of like size.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LARGE", "take"]

#: Bytes from which on memory is kept: the most that glibc serves without mapping pages.
LARGE = 32 << 20
#: Most bytes that are kept.
_MOST_KEPT = 256 << 20

_free: deque[NDArray[np.uint8]] = deque()


# NumPy makes a view hold the last array of the view's own type on the way to the memory. Types of
# their own make every array in a block end at the block's lease, whose end is then theirs.
class _Block(np.ndarray[Any, Any]):
    """Memory that outlives its arrays."""


class _Lease(np.ndarray[Any, Any]):
    """What every array in a block holds."""


def take(size: int) -> NDArray[np.uint8]:
    """Return at least `size` bytes, those of an earlier array where there are any that fit.

    Examples
    --------
    >>> first = take(LARGE)
    >>> address = first.ctypes.data
    >>> del first
    >>> take(LARGE).ctypes.data == address
    True
    """
    block = _fitting(size)
    if block is None:
        block = np.empty(size, np.uint8).view(_Block)
    lease = block.view(_Lease)
    weakref.finalize(lease, _keep, block).atexit = False
    return lease


def _fitting(size: int) -> NDArray[np.uint8] | None:
    """Take a free block out, of at most twice the size; other threads may do the same."""
    for _ in range(len(_free)):
        try:
            block = _free.pop()
        except IndexError:
            return None
        if size <= block.size <= 2 * size:
            return block
        _free.appendleft(block)
    return None


def _keep(block: NDArray[np.uint8]) -> None:
    """Keep a block that nothing lies in any more, in place of the oldest."""
    _free.append(block)
    # Other calls may take blocks out between any two steps: `copy` is one step, and the oldest may
    # be gone when its turn comes.
    while sum(block.size for block in _free.copy()) > _MOST_KEPT:
        try:
            _free.popleft()
        except IndexError:
            return
