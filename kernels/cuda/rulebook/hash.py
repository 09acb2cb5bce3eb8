"""A hash table of 64-bit keys that comes out the same whatever the order of the threads.

Open addressing with linear probing over a power of two of slots, at most half of them taken. Of two
keys that want one slot the larger stays and the smaller goes on (ordered hashing, Amble and Knuth
1974), so that the table is decided by the set of its keys. A GPU gets it from a single instruction:

    insert(key):  at = home(key)
      until the slot was empty or held the key:
        found = slots[at]
        if found < key:  found = atomic max of the slot and key; what it displaced goes on
        at = at + 1

Keys of a slot only rise, so a value read without an atomic is a lower bound: larger than the key,
it stays so. A look-up ends at the first slot that holds less than the key. Most look-ups of a
rulebook find nothing (3 to 17 of 27 neighbours exist in real scans), and with this order those cost
no more than hits.

Home slots are those that `fastconv.sparse.rulebook.HashTable` names: the high bits of a product.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, int64, uint32, uint64

from fastconv.contract.rulebook import HASH_FACTOR

__all__ = ["EMPTY", "capacity_for", "find", "home_shift", "insert"]

#: Key of a free slot: below every key of a site.
EMPTY = -1


def capacity_for(rows: int) -> int:
    """Return the slots of a table of so many keys: a power of two, at most half of it taken."""
    return 1 << max(2 * rows - 1, 1).bit_length()


def home_shift(capacity: int) -> int:
    """Return by how much a product is shifted to the number of a slot."""
    return 65 - capacity.bit_length()


@cuda.jit(device=True)
def _home(key: Any, shift: Any) -> Any:
    """Return the slot that a key is looked for first."""
    return uint32(uint64(uint64(key) * uint64(HASH_FACTOR)) >> uint64(shift))


@cuda.jit(device=True)
def insert(slots: Any, key: Any, shift: Any, last: Any) -> None:
    """Put a key into the table, once however often it comes; `last` is the last slot."""
    at = _home(key, shift)
    stored = slots[at]
    while stored != key:
        if stored < key:
            stored = cuda.atomic.max(slots, at, key)
            if stored < int64(0) or stored == key:
                break
            key = stored if stored < key else key
        at = uint32(at + uint32(1)) & last
        stored = slots[at]


@cuda.jit(device=True)
def find(slots: Any, key: Any, shift: Any, last: Any) -> Any:
    """Return the slot of a key, or one behind the last where it is not in the table."""
    at = _home(key, shift)
    stored = slots[at]
    while stored > key:
        at = uint32(at + uint32(1)) & last
        stored = slots[at]
    return at if stored == key else uint32(last + uint32(1))
