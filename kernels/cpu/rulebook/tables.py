"""What is derived from a table of neighbours or from the keys: each in one or two passes.

==============  ==================================================================================
reverse         the table with inputs and outputs exchanged: an input has one output an offset
masks           which offsets each output has, as bits; a pass over the table, 8 outputs a vector
order           outputs sorted by mask: tiles of like rows skip the offsets that all of them lack
pair_lists      the pairs by output, counted by masks first and then written
hash_table      open addressing by keys, filled in the order of the slots
==============  ==================================================================================

A hash table filled a key at a time differs with the order of the keys. Here keys are first sorted
by the slot that they would like; each then takes the larger of that and the slot behind the one
before. It is what linear probing makes of this order, found in one pass that writes memory in
order, and the same for any order of the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.rulebook import HASH_FACTOR, HashTable, PairLists

from ..simd.intrinsics import get_word, set_word
from .neighbours import fill
from .sort import sort_keys, sort_rows
from .stage import IntegerStage, chunks, count_bits, empty, first_bit, get_int, set_int

__all__ = ["hash_table", "masks", "order", "pair_lists", "reverse"]

Table = NDArray[np.int32]

#: Bits of a word of a mask.
_BITS = 32
_WORD = (1 << _BITS) - 1
_FACTOR = HASH_FACTOR - (1 << 64)  # the same bits, as a signed number


def _reverse(g: Any, task: int) -> None:
    """Enter a chunk of outputs as neighbours of their inputs."""
    for offset in range(g.volume):
        table, reversed_table = g.table + 4 * offset * g.rows, g.reversed + 4 * offset * g.in_rows
        for row in range(task * g.chunk, min((task + 1) * g.chunk, g.rows)):
            in_row = get_int(table, row)
            if in_row >= 0:
                set_int(reversed_table, in_row, row)


def _make_masks(g: Any, task: int) -> None:
    """Write the masks of a chunk of outputs."""
    first, last = task * g.chunk, min((task + 1) * g.chunk, g.rows)
    for word in range(g.words):
        masks = g.masks + 4 * word * g.rows
        for row in range(first, last):
            set_int(masks, row, 0)
        for bit in range(min(32, g.volume - 32 * word)):
            table = g.table + 4 * (32 * word + bit) * g.rows
            for row in range(first, last):
                present = ~(get_int(table, row) >> 31) & 1
                set_int(masks, row, get_int(masks, row) | present << bit)


def _count_pairs(g: Any, task: int) -> None:
    """Count the pairs of each output of a chunk."""
    for row in range(task * g.chunk, min((task + 1) * g.chunk, g.rows)):
        count = 0
        for word in range(g.words):
            count += count_bits(get_int(g.masks, word * g.rows + row) & _WORD)
        set_word(g.counts, row, count)


def _write_pairs(g: Any, task: int) -> None:
    """Write the pairs of a chunk of outputs, bit by bit of their masks.

    Whether there is a neighbour no branch predictor can tell; how many there are it misses once.
    """
    for row in range(task * g.chunk, min((task + 1) * g.chunk, g.rows)):
        place = get_word(g.starts, row)
        for word in range(g.words):
            bits = get_int(g.masks, word * g.rows + row) & _WORD
            while bits:
                offset = _BITS * word + first_bit(bits)
                bits &= bits - 1
                set_int(g.offsets, place, offset)
                set_int(g.inputs, place, get_int(g.table, offset * g.rows + row))
                place += 1


def _find_slots(g: Any, task: int) -> None:
    """Write the slots that a chunk of keys would like."""
    for i in range(task * g.chunk, min((task + 1) * g.chunk, g.rows)):
        hashed = get_word(g.keys, i) * _FACTOR
        set_word(g.slots, i, (hashed >> g.shift) & (g.capacity - 1))


def _place_keys(g: Any, task: int) -> None:
    """Put keys into the table, in the order of the slots that they would like."""
    following = 0
    for i in range(g.rows):
        place = max(get_word(g.slots, i), following)
        following = place + 1
        # Those that find the end full begin anew, behind what is there.
        place &= g.capacity - 1
        while get_word(g.table_keys, place) >= 0:
            place = (place + 1) & (g.capacity - 1)
        key = get_int(g.order, i) if g.order else i
        set_word(g.table_keys, place, get_word(g.keys, key))
        set_int(g.table_rows, place, get_int(g.rows_of, key))


_REVERSE = IntegerStage(_reverse, "table reversed volume rows in_rows chunk")
_MAKE_MASKS = IntegerStage(_make_masks, "table masks words volume rows chunk")
_COUNT_PAIRS = IntegerStage(_count_pairs, "masks counts words rows chunk")
_WRITE_PAIRS = IntegerStage(_write_pairs, "table masks words starts offsets inputs rows chunk")
_FIND_SLOTS = IntegerStage(_find_slots, "keys slots shift capacity rows chunk")
_PLACE_KEYS = IntegerStage(
    _place_keys, "keys slots order rows_of table_keys table_rows capacity rows"
)


def reverse(neighbours: Table, in_rows: int) -> Table:
    """Return the ``(volume, in_rows)`` table whose inputs are the outputs of another."""
    volume, rows = neighbours.shape
    table = empty((volume, in_rows), np.int32)
    fill(table)
    tasks, chunk = chunks(rows)
    _REVERSE.run(tasks, table=neighbours, reversed=table, volume=volume, rows=rows,
                 in_rows=in_rows, chunk=chunk)  # fmt: skip
    return table


def masks(neighbours: Table) -> NDArray[np.uint32]:
    """Return ``(words, out_rows)``: bit ``k % 32`` of word ``k // 32`` tells of offset ``k``."""
    volume, rows = neighbours.shape
    words = -(-volume // _BITS)
    made = empty((words, rows), np.uint32)
    tasks, chunk = chunks(rows)
    _MAKE_MASKS.run(
        tasks, table=neighbours, masks=made, words=words, volume=volume, rows=rows, chunk=chunk
    )
    return made


def order(masks: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Return the rows sorted by mask, the last word first; equal ones keep their order."""
    rows = None
    for word in masks:
        keys = word.astype(np.int64)
        if rows is not None:
            keys = keys[rows]
        _, rows = sort_rows(keys, 0, int(keys.max(initial=0)), rows)
    return np.arange(masks.shape[1], dtype=np.int32) if rows is None else rows


def pair_lists(neighbours: Table) -> PairLists:
    """Return the pairs by output row."""
    rows, bits = neighbours.shape[1], masks(neighbours)
    tasks, chunk = chunks(rows)
    counts, starts = empty(rows, np.int64), np.zeros(rows + 1, np.int64)
    fields: dict[str, Any] = {"masks": bits, "words": len(bits), "rows": rows, "chunk": chunk}
    _COUNT_PAIRS.run(tasks, counts=counts, **fields)
    np.cumsum(counts, out=starts[1:])
    offsets, inputs = (empty(int(starts[-1]), np.int32) for _ in range(2))
    _WRITE_PAIRS.run(
        tasks, table=neighbours, starts=starts, offsets=offsets, inputs=inputs, **fields
    )
    return PairLists(starts, offsets, inputs)


def hash_table(shape: tuple[int, ...], batch_size: int, indices: NDArray[np.int32]) -> HashTable:
    """Return the rows of sites by key: see `fastconv.sparse.rulebook.HashTable`."""
    keys, rows_of = sort_keys(shape, batch_size, indices)
    rows = len(keys)
    bits = max(2 * rows - 1, 1).bit_length()
    capacity = 1 << bits
    tasks, chunk = chunks(rows)
    slots = empty(rows, np.int64)
    _FIND_SLOTS.run(
        tasks, keys=keys, slots=slots, shift=64 - bits, capacity=capacity, rows=rows, chunk=chunk
    )
    slots, slot_order = sort_rows(slots, 0, capacity - 1)
    table = HashTable(np.full(capacity, -1, np.int64), np.full(capacity, -1, np.int32))
    _PLACE_KEYS.run(
        1, keys=keys, slots=slots, order=slot_order, rows_of=rows_of, table_keys=table.keys,
        table_rows=table.rows, capacity=capacity, rows=rows,
    )  # fmt: skip
    return table
