"""Asynchronous copies: what has been issued and not been waited for.

The copy itself happens at once. On a GPU it lands at any time until its thread has waited for its
group, so an access to its target before then is a fault, barrier or not. A thread's record holds
the block it is of, the number of its open group, and the copies in flight, each with its group.
"""

from __future__ import annotations

from numba import njit

from .memory import peek, poke
from .places import (
    BLOCK_PHASE,
    FLIGHT,
    GRANULE,
    IN_FLIGHT,
    PHASE,
    SHADOW,
    SHADOW_BYTES,
    SHARED_BEGIN,
    WRITE_PHASE,
)  # fmt: skip

__all__ = ["COMMIT", "WAIT_ALL", "add_copy", "change_groups", "flight_words"]

#: Copies that a thread can have in flight and that are remembered; further ones are not checked.
CAPACITY = 64
_RECORD = 3 + 3 * CAPACITY
#: What a thread may ask for besides waiting for all but so many groups.
COMMIT, WAIT_ALL = -1, -2


def flight_words(threads: int) -> int:
    """Return how many words of int64 the records of a block's threads take."""
    return threads * _RECORD


@njit(nogil=True, error_model="numpy")
def _record(records: int, thread: int, block: int) -> int:
    """Address of a thread's record, emptied at its block's first use."""
    record = records + 8 * _RECORD * thread
    if peek(record) != block:
        poke(record, block)
        poke(record + 8, 0)
        poke(record + 16, 0)
    return record


@njit(nogil=True, error_model="numpy")
def add_copy(records: int, thread: int, block: int, address: int, size: int) -> None:
    """Note a copy of the open group."""
    record = _record(records, thread, block)
    number = peek(record + 16)
    if number < CAPACITY:
        entry = record + 24 + 24 * number
        poke(entry, address)
        poke(entry + 8, size)
        poke(entry + 16, peek(record + 8))
        poke(record + 16, number + 1)


@njit(nogil=True, error_model="numpy")
def _land(table: int, address: int, size: int) -> None:
    """Make a copy an ordinary write of this phase."""
    begin, shift = peek(table + SHARED_BEGIN), peek(table + GRANULE)
    last = (address - begin + size - 1) >> shift
    granule = (address - begin) >> shift
    while granule <= last:
        shadow = peek(table + SHADOW) + granule * SHADOW_BYTES
        poke(shadow + IN_FLIGHT, 0)
        poke(shadow + WRITE_PHASE, peek(table + PHASE))
        granule += 1


@njit(nogil=True, error_model="numpy")
def change_groups(table: int, thread: int, what: int) -> None:
    """Commit the open group, or let those land that are waited for."""
    record = _record(peek(table + FLIGHT), thread, peek(table + BLOCK_PHASE))
    group, number = peek(record + 8), peek(record + 16)
    if what == COMMIT:
        poke(record + 8, group + 1)
        return
    oldest = group + 1 if what == WAIT_ALL else group - what
    remaining = 0
    for at in range(number):
        entry, place = record + 24 + 24 * at, record + 24 + 24 * remaining
        if peek(entry + 16) < oldest:
            _land(table, peek(entry), peek(entry + 8))
        else:
            for word in range(0, 24, 8):
                poke(place + word, peek(entry + word))
            remaining += 1
    poke(record + 16, remaining)
