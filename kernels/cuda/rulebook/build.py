"""Rulebooks on a GPU: which rows meet, found by hashing; and what is derived from that.

It is `fastconv.kernels.cpu.rulebook.build` for arrays of a device (and for NumPy arrays, in the
emulator): the same functions with the same results.

    submanifold     insert all sites -> enter their rows -> gather or mirror (row, offset) -> pairs
    others          insert what (row, offset) meets -> pack -> READ BACK outputs and pairs -> sort
                    -> decode -> hash table of the outputs -> scatter (row, offset)

Nothing waits for the device but the read-back of two numbers in `build` (one for a submanifold
kernel, after all is launched) and of one in `pair_lists`: arrays cannot be made without their
sizes. `hash` says why the table is the same for any order of threads, and `sort`
puts unique keys in order, so every result is the same bits in every run.

What it moves, for n sites of a 3^3 submanifold kernel: 12 bytes a slot and 2 to 4 slots a site to
build the table; 14 n look-ups of 1.3 sectors; 108 n bytes of neighbours, half of them twice.
"""

from __future__ import annotations

import math
from typing import Any

from fastconv.contract.errors import ShapeError
from fastconv.contract.geometry import Geometry
from fastconv.contract.rulebook import HashTable, PairLists

from ..common.launch import empty, read_back
from ..common.params import MOST_ELEMENTS
from .hash import EMPTY, capacity_for
from .scan import exclusive_scan, fill, number_rows
from .sites import Meeting, decode_sites, itself, visit
from .sort import sort_rows
from .tables import WORD_BITS, run

__all__ = ["build", "hash_table", "masks", "order", "pair_lists", "reverse", "sort_keys"]

#: Largest index along an axis that 32-bit arithmetic reaches, and most rows.
_MOST = 2**31 - 1


def build(geometry: Geometry, indices: Any) -> tuple[Any, Any, int]:
    """Return the sites after an operator, the table of neighbours, and the number of pairs.

    Parameters
    ----------
    geometry : Geometry
        What is computed.
    indices : (rows, 1 + ndim) int32 array
        Sites before, contiguous: inside the grid, no two equal, in any order.

    Returns
    -------
    out_indices : (out_rows, 1 + ndim) int32 array
        For a submanifold kernel `indices` itself, else sorted by key.
    neighbours : (volume, out_rows) int32 array
        Row before that each row after meets at each offset, -1 where there is none.
    pairs : int
        Entries that are not -1.

    Raises
    ------
    ShapeError
        Where an axis or a table is too long for 32-bit indices.

    Examples
    --------
    >>> import numpy as np
    >>> sites = np.array([[0, 5], [0, 2], [0, 6]], np.int32)
    >>> geometry = Geometry("submanifold", (8,), 1, (3,), (1,), (1,), ((1, 1),), (0,))
    >>> build(geometry, sites)[1:]
    (array([[-1, -1,  0],
           [ 0,  1,  2],
           [ 2, -1, -1]], dtype=int32), 5)
    """
    _check_reach(geometry)
    if indices.shape[0] == 0:
        after = (
            indices if geometry.kind == "submanifold" else empty(indices, indices.shape, "int32")
        )
        return after, empty(indices, (geometry.volume, 0), "int32"), 0
    if geometry.kind == "submanifold":
        return _build_submanifold(geometry, indices)
    return _build_outputs(geometry, indices)


def _build_submanifold(geometry: Geometry, indices: Any) -> tuple[Any, Any, int]:
    """Look up where the sites themselves are met."""
    rows = indices.shape[0]
    table = hash_table(geometry.in_shape, geometry.batch_size, indices)
    neighbours = empty(indices, _table_shape(geometry, rows), "int32")
    pairs = fill(empty(indices, 1, "int32"), 0)
    # The input that an output meets lies where a transposed kernel of stride one spreads it to.
    meeting, half = _meeting(geometry, spreads=True), geometry.volume // 2
    is_odd = all(taps % 2 for taps in geometry.kernel_size)
    if is_odd:
        fill(neighbours[half + 1 :], -1)
    visit("mirror" if is_odd else "gather", meeting, indices, *table, neighbours, pairs, width=rows,
          capacity=table.keys.size, offsets=half + 1 if is_odd else 0)  # fmt: skip
    return indices, neighbours, int(read_back(pairs)[0])


def _build_outputs(geometry: Geometry, indices: Any) -> tuple[Any, Any, int]:
    """Find the sites that any offset reaches, then who reaches them."""
    shape, batch = geometry.out_shape, geometry.batch_size
    meeting = _meeting(geometry, spreads=geometry.kind == "transposed")
    keys, pairs = _keys_met(geometry, meeting, indices)
    rows = keys.size
    sites = empty(indices, (rows, 1 + geometry.ndim), "int32")
    neighbours = empty(indices, _table_shape(geometry, rows), "int32")
    if rows:
        keys, _ = sort_rows(keys, number_rows(keys, rows), _key_bits(shape, batch))
        decode_sites(shape, keys, sites)
        table = hash_table(shape, batch, sites)
        fill(neighbours, -1)
        visit("scatter", meeting, indices, *table, neighbours, width=rows,
              capacity=table.keys.size)  # fmt: skip
    return sites, neighbours, pairs


def _keys_met(geometry: Geometry, meeting: Meeting, indices: Any) -> tuple[Any, int]:
    """Return the keys of all outputs, each once, in no order to rely on; and the pairs."""
    capacity = capacity_for(_most_outputs(geometry, indices.shape[0]))
    _check_count("its table of outputs", capacity)
    slots = fill(empty(indices, capacity, "int64"), EMPTY)
    # Where the keys before each slot end; behind them the number of pairs, to be read at once.
    places = fill(empty(indices, capacity + 2, "int32"), 0)
    visit("insert", meeting, indices, slots, places[capacity + 1 :], capacity=capacity)
    run("mark_taken", capacity, (slots, places), (capacity,))
    exclusive_scan(places, places[: capacity + 1])
    outputs, pairs = (int(number) for number in read_back(places[capacity:]))
    keys = empty(indices, outputs, "int64")
    if outputs:
        run("pack_keys", capacity, (slots, places, keys), (capacity,))
    return keys, pairs


def reverse(neighbours: Any, in_rows: int) -> Any:
    """Return the ``(volume, in_rows)`` int32 table whose inputs are the outputs of another."""
    volume, rows = neighbours.shape
    back = fill(empty(neighbours, (volume, in_rows), "int32"), -1)
    if rows and in_rows:
        run("reverse_table", rows, (neighbours, back), (rows, in_rows), volume)
    return back


def masks(neighbours: Any) -> Any:
    """Return ``(words, rows)`` uint32: bit ``k % 32`` of word ``k // 32`` tells of offset ``k``."""
    volume, rows = neighbours.shape
    words = -(-volume // WORD_BITS)
    made = empty(neighbours, (words, rows), "uint32")
    if rows:
        run("make_masks", rows, (neighbours, made), (rows, volume), words)
    return made


def order(masks: Any) -> Any:
    """Return ``(out_rows,)`` int32: rows sorted by mask, the last word first, then by row."""
    words, rows = masks.shape
    if rows == 0:
        return empty(masks, 0, "int32")
    sorted_rows, keys = number_rows(masks, rows), empty(masks, rows, "int64")
    for word in range(0, words, 2):
        run("mask_keys", rows, (masks, sorted_rows, keys), (rows, word, words))
        keys, sorted_rows = sort_rows(keys, sorted_rows, WORD_BITS * min(2, words - word))
    return sorted_rows


def pair_lists(neighbours: Any) -> PairLists:
    """Return the pairs by output row; their number is read back."""
    volume, rows = neighbours.shape
    starts = fill(empty(neighbours, rows + 1, "int64"), 0)
    if rows:
        counts = empty(neighbours, rows, "int32")
        run("count_pairs", rows, (neighbours, counts), (rows, volume))
        exclusive_scan(counts, starts)
    pairs = int(read_back(starts[rows:])[0])
    offsets, inputs = empty(neighbours, pairs, "int32"), empty(neighbours, pairs, "int32")
    if pairs:
        run("write_pairs", rows, (neighbours, starts, offsets, inputs), (rows, volume))
    return PairLists(starts, offsets, inputs)


def hash_table(shape: tuple[int, ...], batch_size: int, indices: Any) -> HashTable:
    """Return the rows of sites by key: see `fastconv.sparse.rulebook.HashTable`."""
    rows = indices.shape[0]
    capacity = capacity_for(rows)
    _check_count("its hash table", capacity)
    keys = fill(empty(indices, capacity, "int64"), EMPTY)
    table_rows = fill(empty(indices, capacity, "int32"), -1)
    if rows:
        sites = itself(shape)
        visit("insert", sites, indices, keys, fill(empty(indices, 1, "int32"), 0),
              capacity=capacity)  # fmt: skip
        visit("enter", sites, indices, keys, table_rows, capacity=capacity)
    return HashTable(keys, table_rows)


def sort_keys(shape: tuple[int, ...], batch_size: int, indices: Any) -> tuple[Any, Any]:
    """Return the keys of sites in rising order, int64, and the rows that they came from, int32.

    Equal sites are neighbours in it, the earlier row first.
    """
    rows = indices.shape[0]
    keys = empty(indices, rows, "int64")
    if rows == 0:
        return keys, empty(indices, 0, "int32")
    visit("keys", itself(shape), indices, keys)
    return sort_rows(keys, number_rows(keys, rows), _key_bits(shape, batch_size))


def _meeting(geometry: Geometry, spreads: bool) -> Meeting:
    lows = [low for low, _ in geometry.padding]
    return Meeting(
        spreads, geometry.out_shape, geometry.kernel_size, geometry.stride, geometry.dilation, lows
    )


def _key_bits(shape: tuple[int, ...], batch_size: int) -> int:
    """Return the bits of the largest key of a grid."""
    return (batch_size * math.prod(shape) - 1).bit_length()


def _most_outputs(geometry: Geometry, rows: int) -> int:
    """Return how many outputs so many inputs can reach.

    Along an axis of stride s and dilation d, one of ``s / gcd(s, d)`` taps meets an output.
    """
    reached = rows
    for taps, step, hole in zip(
        geometry.kernel_size, geometry.stride, geometry.dilation, strict=True
    ):
        tap_step = 1 if geometry.kind == "transposed" else step // math.gcd(step, hole)
        reached *= -(-taps // tap_step)
    return min(reached, geometry.batch_size * math.prod(geometry.out_shape))


def _table_shape(geometry: Geometry, rows: int) -> tuple[int, int]:
    _check_count("its table of neighbours", geometry.volume * rows)
    return geometry.volume, rows


def _check_count(what: str, count: int) -> None:
    if count > min(_MOST, MOST_ELEMENTS):
        raise ShapeError(
            f"indices: got so many sites that {what} has {count} entries, want at most {_MOST}: "
            "kernels index in 32 bits; split the batch"
        )


def _check_reach(geometry: Geometry) -> None:
    """Raise where an index along an axis, with padding and kernel, is beyond 32 bits."""
    axes = zip(
        geometry.in_shape, geometry.kernel_size, geometry.stride, geometry.dilation,
        geometry.padding, strict=True,
    )  # fmt: skip
    for axis, (size, taps, step, hole, (low, high)) in enumerate(axes):
        spread = size * step if geometry.kind == "transposed" else size
        if (extent := spread + low + high + taps * hole) > _MOST:
            raise ShapeError(
                f"spatial axis {axis}: got a kernel that reaches {extent} positions with stride, "
                f"padding and dilation, want at most {_MOST}: kernels index in 32 bits"
            )
