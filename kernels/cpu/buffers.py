"""Scratch arrays that a thread keeps from call to call.

For plans that call a library between their stages. An array made anew would be given back to the
system between two calls, and a fresh page costs more than most of what is done with it.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.config import config

__all__ = ["kept_arrays"]

_kept = threading.local()
_LINE = 64  # each array begins at a cache line


def kept_arrays(*shapes: tuple[tuple[int, ...], Any]) -> list[NDArray[Any]]:
    """Return an array for each (shape, dtype), of arbitrary content.

    They share memory with those of the thread's next call.
    """
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // _LINE) * _LINE)
    kept: NDArray[np.uint8] | None = getattr(_kept, "memory", None)
    if kept is None or kept.size < starts[-1] + _LINE:
        kept = _kept.memory = np.empty(starts[-1] + _LINE, np.uint8)
    if config.poison_workspace:
        kept.fill(0xFF)  # NaN in every float type
    first = -kept.ctypes.data % _LINE
    return [
        kept[first + start : first + start + size].view(dtype).reshape(shape)
        for (shape, dtype), size, start in zip(shapes, sizes, starts, strict=False)
    ]
