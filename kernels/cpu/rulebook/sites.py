"""The sites after an operator, sorted: the union of what every offset of the kernel reaches.

A kernel is a box, so its reach is that of its axes one after the other, and each axis is a union of
few sequences. On axis `a` an offset `k` moves the sites to ``(i + low - k * dilation) / stride``
where that is whole (transposed: to ``i * stride - low + k * dilation``). Either way the order of
the keys is kept, so the sites after are a merge of sorted sequences, one an offset, all read out
of one array::

    for axis, those that get shorter first
      for task: between two keys after                   found by bisection in every sequence
        while a sequence has keys: write the least, step every sequence that has it

No candidates are written, sorted or compared twice: the scratch memory is one key a site after an
axis. Axes that get shorter come first, so no grid on the way is larger than the first or the last,
and no key longer.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastconv.contract.errors import ShapeError
from fastconv.contract.geometry import Geometry

from ..simd.intrinsics import get_word, set_word
from .stage import IntegerStage, chunks, empty

__all__ = ["sites_after"]

Keys = NDArray[np.int64]

#: Most steps of a merge: half a minute. Each of its sequences is looked at for each key.
_MOST_STEPS = 1 << 34
#: Stands for the key of a sequence that has ended; no site has it.
_END = (1 << 63) - 1
#: Words of a sequence: where it is, where it ends, its key; the ends of the block of keys that
#: share all coordinates up to the axis, and of the outer one that share those before it; by how
#: much the offset moves the former, and where the latter begins before and after.
_PLACE, _STOP, _KEY, _BLOCK_STOP, _OUTER_STOP, _SHIFT, _OUTER, _OUTER_AFTER, _WORDS = range(9)


@numba.njit
def _key_before(g: Any, key: int, offset: int) -> int:
    """Return the least key whose site an offset can move to `key` or behind it."""
    inner, block = key % g.inner, key // g.inner
    outer, place = block // g.size_after, block % g.size_after
    if g.transposed:
        reached = place + g.low - offset * g.dilation
        before = reached // g.stride
        if before * g.stride != reached:
            before, inner = before + 1, 0
    else:
        before = place * g.stride - g.low + offset * g.dilation
    if before < 0:
        before, inner = 0, 0
    elif before >= g.size:
        before, inner = g.size, 0
    return (outer * g.size + before) * g.inner + inner


@numba.njit
def _find(keys: int, count: int, key: int) -> int:
    """Return the first place whose key is not less."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if get_word(keys, middle) < key:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit
def _enter_block(g: Any, sequence: int, offset: int, key: int) -> None:
    """Work out how the offset moves the keys of the block of `key`: `_END` where it does not."""
    if key >= get_word(sequence, _OUTER_STOP):
        number = key // (g.size * g.inner)
        set_word(sequence, _OUTER, number * g.size * g.inner)
        set_word(sequence, _OUTER_STOP, (number + 1) * g.size * g.inner)
        set_word(sequence, _OUTER_AFTER, number * g.size_after * g.inner)
    outer = get_word(sequence, _OUTER)
    i = key - outer
    if g.inner > 1:
        i //= g.inner
    begin = outer + i * g.inner
    set_word(sequence, _BLOCK_STOP, begin + g.inner)
    shift = _END
    if g.transposed:
        after = i * g.stride - g.low + offset * g.dilation
        fits = True
    else:
        moved = i + g.low - offset * g.dilation
        after = moved // g.stride if g.stride > 1 else moved
        fits = after * g.stride == moved
    if fits and 0 <= after < g.size_after:
        shift = get_word(sequence, _OUTER_AFTER) + after * g.inner - begin
    set_word(sequence, _SHIFT, shift)


@numba.njit
def _step(g: Any, sequence: int, offset: int) -> None:
    """Go to the next key of a sequence that the offset moves onto the grid."""
    place, stop = get_word(sequence, _PLACE), get_word(sequence, _STOP)
    key = _END
    while place < stop:
        before = get_word(g.keys, place)
        place += 1
        if before >= get_word(sequence, _BLOCK_STOP):
            _enter_block(g, sequence, offset, before)
        shift = get_word(sequence, _SHIFT)
        if shift != _END:
            key = before + shift
            break
    set_word(sequence, _PLACE, place)
    set_word(sequence, _KEY, key)


def _merge_sequences(g: Any, task: int) -> None:
    """Write the keys after between two of them."""
    sequences = g.sequences + 8 * _WORDS * g.offsets * task
    first, last = get_word(g.bounds, task), get_word(g.bounds, task + 1)
    room = 0
    for offset in range(g.offsets):
        sequence = sequences + 8 * _WORDS * offset
        start = _find(g.keys, g.rows, _key_before(g, first, offset))
        end = g.rows if last == _END else _find(g.keys, g.rows, _key_before(g, last, offset))
        set_word(sequence, _PLACE, start)
        set_word(sequence, _STOP, end)
        set_word(sequence, _BLOCK_STOP, 0)
        set_word(sequence, _OUTER_STOP, 0)
        room += start
        _step(g, sequence, offset)
    # Whatever came before in all sequences: no earlier task writes beyond it.
    begin = count = room
    while True:
        key = _END
        for offset in range(g.offsets):
            key = min(key, get_word(sequences + 8 * _WORDS * offset, _KEY))
        if key == _END:
            break
        set_word(g.merged, count, key)
        count += 1
        for offset in range(g.offsets):
            sequence = sequences + 8 * _WORDS * offset
            if get_word(sequence, _KEY) == key:
                _step(g, sequence, offset)
    set_word(g.written, 2 * task, begin)
    set_word(g.written, 2 * task + 1, count)


_MERGE_SEQUENCES = IntegerStage(
    _merge_sequences,
    "keys rows size size_after inner stride dilation low offsets transposed bounds sequences "
    "merged written",
)


def _bounds(keys: Keys, tasks: int, axis: dict[str, int]) -> NDArray[np.int64]:
    """Return keys after that part the work about evenly, rising; the last is the end."""
    picked = [int(keys[task * len(keys) // tasks]) for task in range(1, tasks)]
    bounds = [0]
    for key in picked:
        inner, block = key % axis["inner"], key // axis["inner"]
        outer, i = divmod(block, axis["size"])
        if axis["transposed"]:
            after = i * axis["stride"] - axis["low"]
        else:
            after = (i + axis["low"]) // axis["stride"]
        after = min(max(after, 0), axis["size_after"] - 1)
        bound = (outer * axis["size_after"] + after) * axis["inner"] + inner
        bounds.append(max(bounds[-1], bound))
    return np.array([*bounds, _END], np.int64)


def _after_axis(keys: Keys, axis: dict[str, int]) -> Keys:
    """Return the keys after one axis."""
    offsets = axis["offsets"]
    if offsets**2 * len(keys) > _MOST_STEPS:
        raise ShapeError(
            f"kernel_size: got {offsets} offsets along an axis over {len(keys)} sites, whose union "
            f"takes {offsets**2 * len(keys)} steps, want at most {_MOST_STEPS}"
        )
    tasks, _ = chunks(len(keys))
    bounds = _bounds(keys, tasks, axis)
    sequences = empty((tasks, offsets, _WORDS), np.int64)
    merged, written = np.empty(offsets * len(keys), np.int64), empty((tasks, 2), np.int64)
    _MERGE_SEQUENCES.run(
        tasks, keys=keys, rows=len(keys), bounds=bounds, sequences=sequences, merged=merged,
        written=written, **axis,
    )  # fmt: skip
    return np.concatenate([merged[start:end] for start, end in written.tolist()])


def sites_after(geometry: Geometry, keys: Keys) -> Keys:
    """Return the keys of all sites that an operator's kernel reaches, rising.

    Parameters
    ----------
    geometry : Geometry
        Of kind "regular" or "transposed".
    keys : (rows,) int64 array
        Keys of the sites before, rising.
    """
    before, after = geometry.in_shape, geometry.out_shape
    shape = list(before)
    if min(after, default=1) < 1:
        return np.empty(0, np.int64)
    for a in sorted(range(geometry.ndim), key=lambda a: after[a] > before[a]):
        if not len(keys):
            break
        axis = {
            "size": before[a],
            "size_after": after[a],
            "inner": math.prod(shape[a + 1 :]),
            "stride": geometry.stride[a],
            "dilation": geometry.dilation[a],
            "low": geometry.padding[a][0],
            "offsets": geometry.kernel_size[a],
            "transposed": int(geometry.kind == "transposed"),
        }
        keys = _after_axis(keys, axis)
        shape[a] = after[a]
    return keys
