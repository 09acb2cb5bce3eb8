"""The list of faults that compiled code writes and Python reads.

One array of int64 a worker: the number of rows, then rows of eight::

    kind  site  other site  thread  other thread  block  address  extra

A fault that is there already, from the same two places, is not written again.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .memory import peek, poke

__all__ = ["log_at", "new_log"]

RAISED, RACE_WRITE_WRITE, RACE_READ_WRITE = 0, 1, 2
DIVERGENT_BARRIER, DIVERGENT_WARP, INCOMPLETE_WARP, DEADLOCK = 3, 4, 5, 6
OUT_OF_BOUNDS, MISALIGNED, UNINITIALISED, RACE_IN_FLIGHT = 7, 8, 9, 10

CAPACITY = 64
ROW = 8
#: Behind the rows: the number of the block that runs.
BLOCK = 1 + CAPACITY * ROW


def new_log() -> np.ndarray:
    """Return an empty list."""
    return np.zeros(BLOCK + 1, np.int64)


@njit(nogil=True, error_model="numpy")
def log_at(
    log: int,
    kind: int,
    site: int,
    other: int,
    thread: int,
    other_thread: int,
    address: int,
    extra: int,
) -> None:
    """Add a row to the list at an address, unless these two places are there already."""
    rows = peek(log)
    for row in range(rows):
        at = log + 8 * (1 + row * ROW)
        if peek(at) == kind and peek(at + 8) == site and peek(at + 16) == other:
            return
    # The last row is kept for what ends a launch.
    if rows >= CAPACITY - (kind != DEADLOCK):
        return
    at = log + 8 * (1 + rows * ROW)
    poke(at, kind)
    poke(at + 8, site)
    poke(at + 16, other)
    poke(at + 24, thread)
    poke(at + 32, other_thread)
    poke(at + 40, peek(log + 8 * BLOCK))
    poke(at + 48, address)
    poke(at + 56, extra)
    poke(log, rows + 1)
