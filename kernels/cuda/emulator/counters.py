"""Global sectors and shared bank conflicts, counted per warp as the hardware would see them.

Lanes of a warp run one after another here. An access of one lane belongs to the same request as
those of the other lanes at the same place in the code, the same number of times since the warp's
last meeting: for a warp in lockstep that is exact. Requests are collected in a hash table of
(site, occurrence) and evaluated when the warp's last lane has been stepped.

A global request costs as many sectors as it touches blocks of 32 bytes. A shared one passes in
parts of 128 bytes (4-byte accesses: the whole warp; 8: halves; 16: quarters), and a part takes as
many wavefronts as the busiest of the 32 banks has different words.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .memory import peek, poke

__all__ = ["HEAD", "TOTALS", "count_access", "counter_words", "flush_counts"]

CAPACITY = 1 << 13
_ROW = 35  # key + 1, size, mask, 32 addresses
#: Words of the head: sites, current thread, rows used, requests that found no room.
HEAD = 4
#: Per site: requests, sectors or wavefronts, the fewest possible, lanes, whether shared, and an
#: address (of shared memory a byte).
TOTALS = 6


def counter_words(sites: int) -> int:
    """Return how many words of int64 the counters of a worker take."""
    return HEAD + sites * (1 + TOTALS) + CAPACITY * (1 + _ROW)


@njit(nogil=True, error_model="numpy")
def _occurrence(base: int, thread: int, site: int) -> int:
    """How often this thread has been at `site` since its warp last met."""
    occurrences = base + 8 * HEAD
    if peek(base + 8) != thread:
        poke(base + 8, thread)
        for i in range(peek(base)):
            poke(occurrences + 8 * i, 0)
    number = peek(occurrences + 8 * site)
    poke(occurrences + 8 * site, number + 1)
    return number


@njit(nogil=True, error_model="numpy")
def _rows(base: int) -> int:
    return base + 8 * (HEAD + peek(base) * (1 + TOTALS) + CAPACITY)


@njit(nogil=True, error_model="numpy")
def count_access(base: int, thread: int, address: int, size: int, site: int) -> None:
    """Add a lane's access to the request it belongs to."""
    key = (_occurrence(base, thread, site) << 20 | site) + 1
    rows = _rows(base)
    slot = (key * 2654435761 >> 7) % CAPACITY
    while True:
        row = rows + 8 * _ROW * slot
        held = peek(row)
        if held == key:
            break
        if held == 0:
            used = peek(base + 16)
            if used > CAPACITY * 3 // 4:
                poke(base + 24, peek(base + 24) + 1)
                return
            poke(row, key)
            poke(row + 8, size)
            poke(row + 16, 0)
            poke(rows - 8 * CAPACITY + 8 * used, slot)
            poke(base + 16, used + 1)
            break
        slot = (slot + 1) % CAPACITY
    lane = thread % 32
    poke(row + 16, peek(row + 16) | 1 << lane)
    poke(row + 24 + 8 * lane, address)


@njit(nogil=True, error_model="numpy")
def _touched(row: int, first: int, last: int, shift: int, seen: np.ndarray) -> int:
    """Write the units of ``2**shift`` bytes that some lanes touch, each once; return how many."""
    size, mask = peek(row + 8), peek(row + 16)
    number = 0
    for lane in range(first, last):
        if not (mask >> lane) & 1:
            continue
        address = peek(row + 24 + 8 * lane)
        unit = address >> shift
        while unit <= (address + size - 1) >> shift:
            known = False
            for i in range(number):
                known |= seen[i] == unit
            if not known and number < seen.size:
                seen[number] = unit
                number += 1
            unit += 1
    return number


@njit(nogil=True, error_model="numpy")
def _sectors(row: int) -> int:
    """Different blocks of 32 bytes that a request touches."""
    return _touched(row, 0, 32, 5, np.empty(64, np.int64))


@njit(nogil=True, error_model="numpy")
def _wavefronts(row: int, first: int, last: int) -> int:
    """Passes over the banks for the lanes from `first` to before `last`."""
    words = np.empty(64, np.int64)
    banks = np.zeros(32, np.int64)
    for i in range(_touched(row, first, last, 2, words)):
        banks[words[i] % 32] += 1
    return banks.max()


@njit(nogil=True, error_model="numpy")
def flush_counts(base: int, shared_begin: int, shared_end: int) -> None:
    """Evaluate and forget the requests of the warp that has just been stepped."""
    sites = peek(base)
    rows = _rows(base)
    totals = base + 8 * (HEAD + sites)
    for used in range(peek(base + 16)):
        row = rows + 8 * _ROW * peek(rows - 8 * CAPACITY + 8 * used)
        site = (peek(row) - 1) & 0xFFFFF
        size, mask = peek(row + 8), peek(row + 16)
        poke(row, 0)
        lanes, address = 0, 0
        for lane in range(32):
            if (mask >> lane) & 1:
                lanes += 1
                address = peek(row + 24 + 8 * lane)
        shared = shared_begin <= address < shared_end
        if shared:
            width = 32 if size <= 4 else max(1, 128 // size)
            cost = least = 0
            for first in range(0, 32, width):
                wavefronts = _wavefronts(row, first, first + width)
                cost += wavefronts
                least += wavefronts > 0
        else:
            cost, least = _sectors(row), (lanes * size + 31) // 32
        total = totals + 8 * TOTALS * site
        poke(total, peek(total) + 1)
        poke(total + 8, peek(total + 8) + cost)
        poke(total + 16, peek(total + 16) + least)
        poke(total + 24, peek(total + 24) + lanes)
        poke(total + 32, 1 if shared else 0)
        poke(total + 40, address - shared_begin if shared else address)
    poke(base + 16, 0)
    poke(base + 8, -1)
