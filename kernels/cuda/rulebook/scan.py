"""Filling, numbering and prefix sums of whole numbers on a GPU: what a rulebook is built by.

A prefix sum turns counts into places: where a tile's digits go in a sort, where a row's pairs
begin, where the keys of a table go. It reads its input twice and writes it once:

    sum_tiles     a block a tile of 2048:   values -> one sum            grid: tiles
    scan_totals   one block:                sums -> sums of those before; the last one is the total
    scan_tiles    a block a tile:           values + sums before -> starts

Within a block 256 threads add up by five shuffles a warp and eight words of shared memory. Every
sum is of whole numbers, so results do not depend on the order of threads.

Budget: under 32 registers, 32 bytes of shared memory; two loads and one store an element.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, int32, uint32
from numba.cuda import types

from ..common.launch import Kernel, empty, flat, launch
from ..common.plan import blocks_of

__all__ = ["KERNELS", "THREADS", "TILE", "exclusive_scan", "fill", "number_rows"]

#: Threads of a block, and elements of a tile: every thread takes eight.
THREADS = 256
TILE = 2048
_WARPS = THREADS // 32
_ROUNDS = TILE // THREADS
_EVERY_LANE = 0xFFFFFFFF


def fill_words(words: Any, count: Any, value: Any) -> None:
    """Set all elements."""
    at = uint32(cuda.grid(1))
    if at < count:
        words[at] = value


def number_words(words: Any, count: Any) -> None:
    """Set all elements to their places."""
    at = uint32(cuda.grid(1))
    if at < count:
        words[at] = int32(at)


@cuda.jit(device=True)
def _add_up(value: Any, sums: Any) -> Any:
    """Return the sum of the values of earlier threads of the block, and that of all."""
    tid = uint32(cuda.threadIdx.x)
    lane, warp = uint32(tid & uint32(31)), uint32(tid >> uint32(5))
    upto = value
    for power in range(5):
        step = uint32(uint32(1) << uint32(power))
        other = int32(cuda.shfl_up_sync(_EVERY_LANE, upto, step))
        if lane >= step:
            upto = int32(upto + other)
    if lane == uint32(31):
        sums[warp] = upto
    cuda.syncthreads()
    before, total = int32(0), int32(0)
    for other_warp in range(uint32(_WARPS)):
        if uint32(other_warp) == warp:
            before = total
        total = int32(total + sums[uint32(other_warp)])
    cuda.syncthreads()
    return int32(before + upto - value), total


def sum_tiles(values: Any, totals: Any, count: Any) -> None:
    """Add up each tile."""
    sums = cuda.shared.array(_WARPS, types.int32)
    tid, tile = uint32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
    total = int32(0)
    for round_index in range(uint32(_ROUNDS)):
        at = uint32(tile * uint32(TILE) + uint32(round_index) * uint32(THREADS) + tid)
        if at < count:
            total = int32(total + values[at])
    total = _add_up(total, sums)[1]
    if tid == uint32(0):
        totals[tile] = total


def scan_totals(totals: Any, tiles: Any) -> None:
    """Turn the tiles' sums into the sum of all before each, and append that of all."""
    sums = cuda.shared.array(_WARPS, types.int32)
    tid = uint32(cuda.threadIdx.x)
    carry = int32(0)
    for first in range(uint32(0), tiles, uint32(THREADS)):
        at = uint32(uint32(first) + tid)
        value = totals[at] if at < tiles else int32(0)
        before, total = _add_up(value, sums)
        if at < tiles:
            totals[at] = int32(carry + before)
        carry = int32(carry + total)
    if tid == uint32(0):
        totals[tiles] = carry


def scan_tiles(values: Any, totals: Any, starts: Any, count: Any) -> None:
    """Write the sum of all values before each, and behind the last one the sum of all."""
    sums = cuda.shared.array(_WARPS, types.int32)
    tid, tile = uint32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
    carry = totals[tile]
    for round_index in range(uint32(_ROUNDS)):
        at = uint32(tile * uint32(TILE) + uint32(round_index) * uint32(THREADS) + tid)
        value = values[at] if at < count else int32(0)
        before, total = _add_up(value, sums)
        if at < count:
            starts[at] = int32(carry + before)
        carry = int32(carry + total)
    if tid == uint32(0) and tile == uint32(cuda.gridDim.x) - uint32(1):
        starts[count] = carry


_WORDS, _LONGS, _COUNT = types.int32[::1], types.int64[::1], types.uint32
_FILLS = {
    "int32": Kernel("fill int32", fill_words, (_WORDS, _COUNT, types.int32), THREADS, 4),
    "int64": Kernel("fill int64", fill_words, (_LONGS, _COUNT, types.int64), THREADS, 4),
}
_NUMBER = Kernel("number_rows", number_words, (_WORDS, _COUNT), THREADS, 4)
_SUM = Kernel("sum_tiles", sum_tiles, (_WORDS, _WORDS, _COUNT), THREADS, 4, 4 * _WARPS)
_TOTALS = Kernel("scan_totals", scan_totals, (_WORDS, _COUNT), THREADS, 4, 4 * _WARPS)
_SCAN = Kernel("scan_tiles", scan_tiles, (_WORDS, _WORDS, _WORDS, _COUNT), THREADS, 4, 4 * _WARPS)
#: For the audit.
KERNELS = (*_FILLS.values(), _NUMBER, _SUM, _TOTALS, _SCAN)


def fill(array: Any, value: int) -> Any:
    """Set all elements of an int32 or int64 array, and return it."""
    kind = array.dtype
    count = array.size
    if count:
        arguments = (flat(array), uint32(count), kind.type(value))
        launch(_FILLS[kind.name], (blocks_of(count, THREADS), 1, 1), array, arguments)
    return array


def number_rows(like: Any, count: int) -> Any:
    """Return ``0, 1, ..., count - 1`` as int32 where `like` lives."""
    rows = empty(like, count, "int32")
    launch(_NUMBER, (blocks_of(count, THREADS), 1, 1), like, (flat(rows), uint32(count)))
    return rows


def exclusive_scan(values: Any, starts: Any) -> None:
    """Write the sum of all values before each one, and behind the last one that of all.

    Parameters
    ----------
    values : (count,) int32 array
        At least one; their sum is below 2**31.
    starts : (count + 1,) int32 array
        Is written; may begin where `values` does.
    """
    count = starts.size - 1
    tiles = blocks_of(count, TILE)
    totals = flat(empty(values, tiles + 1, "int32"))
    numbers, begins = flat(values), flat(starts)
    launch(_SUM, (tiles, 1, 1), values, (numbers, totals, uint32(count)))
    launch(_TOTALS, (1, 1, 1), values, (totals, uint32(tiles)))
    launch(_SCAN, (tiles, 1, 1), values, (numbers, totals, begins, uint32(count)))
