"""Calls of plans, recorded once and run again without Python between them.

A plan's call is some jobs on memory at addresses. Where the same calls are made again and again on
the same memory, as by a network whose inputs keep their shapes, the addresses can be kept: a
`Recording` lists the jobs of all calls, and machine code goes through the list in one go.

What is done in NumPy between two calls is not recorded, nor what plans do beside running jobs (the
FFT's transforms). Whoever records must know that there is no such thing, or find out.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import jobs, pool, scratch

__all__ = ["Recording"]

_OUT = 4  # the place of what is written among a job's operands

#: One recording is made at a time.
_lock = threading.Lock()


class Recording:
    """Jobs in their order, with all memory that they need.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, w = np.ones((1, 4, 8, 8), np.float32), np.ones((2, 4, 3, 3), np.float32)
    >>> layer, out = fastconv.Conv2d(w), np.empty((1, 2, 6, 6), np.float32)
    >>> made = Recording()
    >>> with made.recording():
    ...     _ = layer(x, out=out)
    >>> x[...] = 2.0
    >>> made.run(0, len(made))
    >>> float(out[0, 0, 0, 0])
    72.0
    """

    def __init__(self) -> None:
        self._calls: list[tuple[int, ...]] = []
        self._table = np.zeros((0, jobs.CALL_WORDS), np.int64)
        self._workers = 1
        self._kept: dict[int, Any] = {}
        self._written: set[tuple[int, int]] = set()
        self._memory = scratch.Store()

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def nbytes(self) -> int:
        """Bytes of arrays that are kept, those of callers among them."""
        arrays = [each for each in self._kept.values() if isinstance(each, np.ndarray)]
        return sum(each.nbytes for each in arrays)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record the calls of this thread, which are made as ever, until the block ends."""
        thread = threading.get_ident()

        def add(job: int, workers: int, operands: pool.Operands, owner: Any) -> None:
            if threading.get_ident() == thread:
                self._add(job, workers, operands, owner)

        with _lock, self._memory.lent():
            pool.recorder = add
            try:
                yield
            finally:
                pool.recorder = None

    def _add(self, job: int, workers: int, operands: pool.Operands, owner: Any) -> None:
        addresses = (0 if each is None else each.ctypes.data for each in operands)
        self._calls.append((job, *addresses))
        self._workers = max(self._workers, workers)
        for each in (owner, *operands):
            self._kept[id(each)] = each
        out = operands[_OUT]
        if out is not None:
            self._written.add(np.lib.array_utils.byte_bounds(out))

    def run(self, first: int, last: int) -> None:
        """Run the jobs from one to before another; one thread at a time."""
        if len(self._table) < len(self._calls):
            self._table = np.array(self._calls, np.int64)
        pool.run_all(self._table, first, last, self._workers)

    def writes(self, array: NDArray[Any]) -> bool:
        """Tell whether the memory of an array begins in what a job writes."""
        start = array.ctypes.data
        return any(low <= start < high for low, high in self._written)
