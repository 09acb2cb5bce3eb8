"""A stable sort of 64-bit keys and their rows on a GPU: least significant digit first.

A pass puts keys in the order of eight bits, and keeps the order of equal ones; as many passes as
the highest key has bytes. That order is the same for any number of blocks and threads, so a sort of
unique keys, and one whose ties are broken by row, has one result.

    count_digits    a block a tile of 2048 keys:  256 counts        atomics on shared memory
    prefix sum      over counts[digit, tile]:     where a tile's keys of a digit go
    move_by_digit   a block the same tile:        keys and rows to their places
      a warp takes 256 keys that lie in a row, 32 at a time, in order
        lanes with the same digit find each other by one vote (match.any)
        place = first place of (warp, digit) + lanes before this one

Budget of move_by_digit: 8 KiB of shared memory, one word a warp and digit; under 40 registers. A
pass reads keys three times (the second and third time from L1 or L2) and writes them once.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, int32, int64, uint32
from numba.cuda import types

from ..common.launch import Kernel, empty, flat, launch
from ..common.plan import blocks_of
from .scan import THREADS, TILE, exclusive_scan

__all__ = ["KERNELS", "sort_rows"]

_BITS = 8
_DIGITS = 1 << _BITS
_WARPS = THREADS // 32
_PLACES = _WARPS * _DIGITS
_ROUNDS = TILE // THREADS
_EVERY_LANE = 0xFFFFFFFF


@cuda.jit(device=True)
def _digit(key: Any, shift: Any) -> Any:
    return int32((key >> int64(shift)) & int64(_DIGITS - 1))


def count_digits(keys: Any, counts: Any, count: Any, shift: Any, tiles: Any) -> None:
    """Count how often each digit occurs in each tile."""
    digit_counts = cuda.shared.array(_DIGITS, types.int32)
    tid, tile = uint32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
    digit_counts[tid] = int32(0)
    cuda.syncthreads()
    for round_index in range(uint32(_ROUNDS)):
        at = uint32(tile * uint32(TILE) + uint32(round_index) * uint32(THREADS) + tid)
        if at < count:
            cuda.atomic.add(digit_counts, uint32(_digit(keys[at], shift)), int32(1))
    cuda.syncthreads()
    counts[uint32(tid * tiles + tile)] = digit_counts[tid]


def move_by_digit(
    keys: Any, rows: Any, starts: Any, to_keys: Any, to_rows: Any,
    count: Any, shift: Any, tiles: Any,
) -> None:  # fmt: skip
    """Move a tile's keys and rows to where their digit's places begin, in order."""
    places = cuda.shared.array(_PLACES, types.int32)
    tid, tile = uint32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
    lane, warp = uint32(tid & uint32(31)), uint32(tid >> uint32(5))
    mine = uint32(warp * uint32(_DIGITS))
    first = uint32(tile * uint32(TILE) + warp * uint32(TILE // _WARPS) + lane)
    for other in range(uint32(_WARPS)):
        places[uint32(other) * uint32(_DIGITS) + tid] = int32(0)
    cuda.syncthreads()
    for round_index in range(uint32(_ROUNDS)):
        at = uint32(first + uint32(round_index) * uint32(32))
        if at < count:
            cuda.atomic.add(places, uint32(mine + uint32(_digit(keys[at], shift))), int32(1))
    cuda.syncthreads()
    # A thread a digit: the keys of the first warp come first, then those of the second.
    place = starts[uint32(tid * tiles + tile)]
    for other in range(uint32(_WARPS)):
        slot = uint32(uint32(other) * uint32(_DIGITS) + tid)
        counted = places[slot]
        places[slot] = place
        place = int32(place + counted)
    cuda.syncthreads()
    for round_index in range(uint32(_ROUNDS)):
        at = uint32(first + uint32(round_index) * uint32(32))
        key, digit = int64(0), int32(_DIGITS)
        if at < count:
            key = keys[at]
            digit = _digit(key, shift)
        equal = uint32(cuda.match_any_sync(_EVERY_LANE, digit))
        before = uint32(cuda.popc(equal & uint32((uint32(1) << lane) - uint32(1))))
        slot = uint32(mine + uint32(digit))
        if at < count:
            to = uint32(uint32(places[slot]) + before)
            to_keys[to] = key
            to_rows[to] = rows[at]
        cuda.syncwarp()
        if at < count and before == uint32(0):
            places[slot] = int32(places[slot] + int32(cuda.popc(equal)))
        cuda.syncwarp()


_WORDS, _LONGS, _COUNT = types.int32[::1], types.int64[::1], types.uint32
_COUNT_DIGITS = Kernel(
    "count_digits", count_digits, (_LONGS, _WORDS, _COUNT, _COUNT, _COUNT), THREADS, 4, 4 * _DIGITS
)
_MOVE = Kernel(
    "move_by_digit",
    move_by_digit,
    (_LONGS, _WORDS, _WORDS, _LONGS, _WORDS, _COUNT, _COUNT, _COUNT),
    THREADS,
    4,
    4 * _PLACES,
)
#: For the audit.
KERNELS = (_COUNT_DIGITS, _MOVE)


def sort_rows(keys: Any, rows: Any, bits: int) -> tuple[Any, Any]:
    """Return keys in rising order with their rows; equal keys keep their order.

    Parameters
    ----------
    keys : (count,) int64 array
        At least one; compared as unsigned numbers. Is written over.
    rows : (count,) int32 array
        What goes with each key. Is written over.
    bits : int
        No key has a higher bit.
    """
    count = keys.size
    tiles = blocks_of(count, TILE)
    counts = empty(keys, _DIGITS * tiles + 1, "int32")
    to_keys, to_rows = empty(keys, count, "int64"), empty(keys, count, "int32")
    for shift in range(0, bits, _BITS):
        numbers = (uint32(count), uint32(shift), uint32(tiles))
        launch(_COUNT_DIGITS, (tiles, 1, 1), keys, (flat(keys), flat(counts), *numbers))
        exclusive_scan(counts, counts)
        arrays = tuple(map(flat, (keys, rows, counts, to_keys, to_rows)))
        launch(_MOVE, (tiles, 1, 1), keys, (*arrays, *numbers))
        keys, to_keys, rows, to_rows = to_keys, keys, to_rows, rows
    return keys, rows
