"""Kernels that make one table of a rulebook from another: a thread a row, no order among threads.

=============  ===============================================================================
kernel         does
=============  ===============================================================================
reverse_table  back[offset, input] = output; every entry is written once or is -1
make_masks     which offsets a row has, 32 in a word
mask_keys      two words of masks, of rows in some order, as one key to sort by
count_pairs    offsets that a row has
write_pairs    a row's pairs where they begin, by rising offset
mark_taken     1 for each slot of a hash table that holds a key
pack_keys      the keys of a hash table side by side
=============  ===============================================================================

All but mask_keys and write_pairs read and write side by side; these go where other rows lie, and
are few. Under 32 registers, no shared memory.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, int32, int64, uint32
from numba.cuda import types

from ..common.launch import Kernel, flat, launch
from ..common.plan import blocks_of
from .scan import THREADS

__all__ = ["KERNELS", "WORD_BITS", "run"]

#: Offsets in a word of a mask.
WORD_BITS = 32


def reverse_table(table: Any, back: Any, rows: Any, in_rows: Any) -> None:
    """Exchange inputs and outputs; grid y counts the offsets."""
    row, offset = uint32(cuda.grid(1)), uint32(cuda.blockIdx.y)
    if row < rows:
        neighbour = table[uint32(offset * rows + row)]
        if neighbour >= int32(0):
            back[uint32(offset * in_rows + uint32(neighbour))] = int32(row)


def make_masks(table: Any, masks: Any, rows: Any, volume: Any) -> None:
    """Gather a word of bits; grid y counts the words."""
    row, word = uint32(cuda.grid(1)), uint32(cuda.blockIdx.y)
    if row < rows:
        first = uint32(word * uint32(WORD_BITS))
        bits = uint32(0)
        for bit in range(min(uint32(volume - first), uint32(WORD_BITS))):
            if table[uint32((first + uint32(bit)) * rows + row)] >= int32(0):
                bits |= uint32(uint32(1) << uint32(bit))
        masks[uint32(word * rows + row)] = bits


def mask_keys(masks: Any, order: Any, keys: Any, rows: Any, word: Any, words: Any) -> None:
    """Put two words from `word` on, or the last one, into a key for each place of the order."""
    at = uint32(cuda.grid(1))
    if at < rows:
        row = uint32(order[at])
        key = int64(masks[uint32(word * rows + row)])
        if uint32(word + uint32(1)) < words:
            high = int64(masks[uint32((word + uint32(1)) * rows + row)])
            key |= high << int64(WORD_BITS)
        keys[at] = key


def count_pairs(table: Any, counts: Any, rows: Any, volume: Any) -> None:
    """Count the offsets at which a row meets another one."""
    row = uint32(cuda.grid(1))
    if row < rows:
        count = int32(0)
        for offset in range(volume):
            count += int32(table[uint32(uint32(offset) * rows + row)] >= int32(0))
        counts[row] = count


def write_pairs(table: Any, starts: Any, offsets: Any, inputs: Any, rows: Any, volume: Any) -> None:
    """Write each row's pairs, from where they begin."""
    row = uint32(cuda.grid(1))
    if row < rows:
        at = uint32(starts[row])
        for offset in range(volume):
            neighbour = table[uint32(uint32(offset) * rows + row)]
            if neighbour >= int32(0):
                offsets[at] = int32(offset)
                inputs[at] = neighbour
                at = uint32(at + uint32(1))


def mark_taken(slots: Any, taken: Any, count: Any) -> None:
    """Tell which slots hold a key."""
    at = uint32(cuda.grid(1))
    if at < count:
        taken[at] = int32(slots[at] >= int64(0))


def pack_keys(slots: Any, places: Any, keys: Any, count: Any) -> None:
    """Move each key to its place."""
    at = uint32(cuda.grid(1))
    if at < count:
        key = slots[at]
        if key >= int64(0):
            keys[uint32(places[at])] = key


def _kernel(function: Any, arrays: str, scalars: int) -> Kernel:
    """Return a kernel: "i" is an int32 array, "l" one of int64, "t" one of uint32."""
    kinds = {"i": types.int32, "l": types.int64, "t": types.uint32}
    arguments = (*(kinds[letter][::1] for letter in arrays), *[types.uint32] * scalars)
    return Kernel(function.__name__, function, arguments, THREADS, 4)


#: By name.
KERNELS = {
    kernel.name: kernel
    for kernel in (
        _kernel(reverse_table, "ii", 2),
        _kernel(make_masks, "it", 2),
        _kernel(mask_keys, "til", 3),
        _kernel(count_pairs, "ii", 2),
        _kernel(write_pairs, "ilii", 2),
        _kernel(mark_taken, "li", 1),
        _kernel(pack_keys, "lil", 1),
    )
}


def run(
    name: str, rows: int, arrays: tuple[Any, ...], scalars: tuple[int, ...], y: int = 1
) -> None:
    """Launch a kernel for so many rows, and `y` times as many threads.

    Parameters
    ----------
    name : str
        A key of `KERNELS`.
    rows : int
        At least one.
    arrays : tuple of array
        Its arrays.
    scalars : tuple of int
        Its numbers.
    y : int
        Blocks along the grid's y.
    """
    grid = (blocks_of(rows, THREADS), y, 1)
    launch(KERNELS[name], grid, arrays[0], (*map(flat, arrays), *map(uint32, scalars)))
