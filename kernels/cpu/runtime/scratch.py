"""Scratch memory that calls borrow, and give back when they end.

Fresh pages cost more than most of what is done with them, so a thread keeps memory from call to
call. A call takes it out of the thread's list while it runs: one that comes in its midst, from a
signal handler, a finaliser or another greenlet of the same thread, finds it gone and makes its own.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract import recycling
from fastconv.contract.settings import config

from ..machine.lines import LINE, whole_lines

__all__ = ["Store", "aligned", "borrow", "borrow_arrays", "give_back"]

Bytes = NDArray[np.uint8]

#: Larger memory is kept by `recycling`, for all threads together.
_LARGEST_KEPT = recycling.LARGE
#: A call holds at most three pieces at a time: a copy of its input with a boundary, one of a plan,
#: and one of a plan that it runs.
_MOST_KEPT = 3


class _Kept(threading.local):
    """What a thread keeps; taking from a list and adding to it are single steps."""

    def __init__(self) -> None:
        self.free: list[Bytes] = []


_store = _Kept()


class Store:
    """Scratch memory of calls that are recorded, which no other call may have."""

    def __init__(self) -> None:
        self._free: list[Bytes] = []

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Let this thread's calls borrow from here until the block ends."""
        own, _store.free = _store.free, self._free
        try:
            yield
        finally:
            _store.free = own


def aligned(size: int) -> Bytes:
    """Return memory aligned to a cache line: no vector then reaches over two lines.

    A packed weight of 38 MB takes 7 ms longer on pages that the system has to clear first.
    """
    size += LINE
    raw = recycling.take(size) if size >= recycling.LARGE else np.empty(size, np.uint8)
    return np.ndarray(size - LINE, np.uint8, raw, -raw.ctypes.data % LINE)


def borrow(size: int) -> Bytes | None:
    """Return at least `size` bytes of arbitrary content that nobody else uses; None for none."""
    if size == 0:
        return None
    if size > _LARGEST_KEPT:
        memory = aligned(size)
    else:
        try:  # to ask first whether there is any would leave a moment in which another takes it
            memory = _store.free.pop()
        except IndexError:
            memory = aligned(size)
        if memory.size < size:
            memory = aligned(size)
    if config.poison_workspace:
        memory.fill(0xFF)  # NaN in every float type
    return memory


def give_back(memory: Bytes | None) -> None:
    """Let later calls of this thread have what `borrow` returned."""
    if memory is not None and memory.size <= _LARGEST_KEPT:
        free = _store.free
        if len(free) < _MOST_KEPT:
            free.append(memory)


def borrow_arrays(
    *shapes: tuple[tuple[int, ...], Any],
) -> tuple[Bytes | None, list[NDArray[Any]]]:
    """Borrow memory and cut it into an array for each (shape, dtype), each at a cache line."""
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + whole_lines(size))
    memory = borrow(starts[-1])
    room = np.empty(0, np.uint8) if memory is None else memory
    return memory, [
        room[start : start + size].view(dtype).reshape(shape)
        for (shape, dtype), size, start in zip(shapes, sizes, starts, strict=False)
    ]
