"""Rows of a few arrays woven into one, element by element, and taken apart again, in registers.

===============  =====================================  =====================================
function         reads                                  writes
===============  =====================================  =====================================
weave            `ways` rows, a vector of each          their elements by turns, contiguous
unweave          `ways` vectors, contiguous             a vector to each of `ways` rows
load_every       every so manieth element               (returns them)
===============  =====================================  =====================================

Two and a power of two are passes of shuffles that interleave two vectors each, any other number is
gathered from one vector after the other. What is not there by `columns` is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .ir import (
    I8,
    I32,
    I64,
    ITEMSIZE,
    VectorType,
    compute_type,
    first_lanes,
    literals,
    load_vector,
    pointer,
    store_vector,
)

__all__ = ["load_every", "unweave", "weave"]


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


def _shuffle(builder: Any, low: Any, high: Any, pattern: Sequence[int]) -> Any:
    kind = ir.VectorType(I32, len(pattern))
    return builder.shuffle_vector(low, high, ir.Constant(kind, [I32(i) for i in pattern]))


def _picked(builder: Any, vectors: list[Any], places: list[tuple[int, int]]) -> Any:
    """Return a vector whose lane i is a (vector, lane) of the list."""
    lanes, made = len(places), vectors[places[0][0]]
    first = places[0][0]
    pattern = [lane if vector == first else 0 for vector, lane in places]
    done = {first}
    for number, vector in enumerate(vectors):
        if number in done or all(number != place[0] for place in places):
            continue
        taken = [
            lanes + lane if which == number else pattern[i]
            for i, (which, lane) in enumerate(places)
        ]
        made, pattern = _shuffle(builder, made, vector, taken), list(range(lanes))
    return made if pattern == list(range(lanes)) else _shuffle(builder, made, made, pattern)


def _woven(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the elements of all rows by turns, in as many vectors."""
    ways, lanes = len(rows), rows[0].type.count
    if not _is_power_of_two(ways):
        order = [divmod(place, ways)[::-1] for place in range(ways * lanes)]
        return [_picked(builder, rows, order[v * lanes : (v + 1) * lanes]) for v in range(ways)]
    half, vectors = ways // 2, rows
    low = [i // 2 + i % 2 * lanes for i in range(lanes)]
    high = [lanes // 2 + i for i in low]
    for _ in range(ways.bit_length() - 1):
        pairs = [(vectors[i], vectors[i + half]) for i in range(half)]
        vectors = [_shuffle(builder, a, b, which) for a, b in pairs for which in (low, high)]
    return vectors


def _unwoven(builder: Any, vectors: list[Any]) -> list[Any]:
    """Return the rows that `_woven` makes these vectors of."""
    ways, lanes = len(vectors), vectors[0].type.count
    if not _is_power_of_two(ways):
        orders = [[divmod(ways * i + j, lanes) for i in range(lanes)] for j in range(ways)]
        return [_picked(builder, vectors, order) for order in orders]
    even = [2 * i for i in range(lanes)]
    odd = [2 * i + 1 for i in range(lanes)]
    for _ in range(ways.bit_length() - 1):
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
        vectors = [_shuffle(builder, a, b, which) for which in (even, odd) for a, b in pairs]
    return vectors


def _word(builder: Any, table: Any, index: int) -> Any:
    return builder.load(builder.gep(pointer(builder, table, I64), [I64(index)]))


@intrinsic(prefer_literal=True)
def weave(
    typingctx: Any, source: Any, offsets: Any, columns: Any, target: Any,
    storage: Any, stored: Any, ways: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Write the first `columns` elements of `ways` rows by turns, one behind the other.

    Row i is at `source` and the i-th word of the table `offsets`. Rows are of
    `storage`, what is written is `stored`.
    """
    numbers = literals((storage, stored, ways, lanes))
    if numbers is None:
        return None
    code, made, rows, count = numbers

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, offsets, columns, target = args[:4]
        present = first_lanes(builder, columns, count)
        vectors = []
        for i in range(rows):
            row = pointer(builder, builder.add(source, _word(builder, offsets, i)), I8)
            vectors.append(load_vector(builder, row, count, code, present))
        total = builder.mul(columns, I64(rows))
        for v, vector in enumerate(_woven(builder, vectors)):
            mask = first_lanes(builder, total, count, v * count)
            place = builder.add(target, I64(v * count * ITEMSIZE[made]))
            store_vector(builder, pointer(builder, place, I8), vector, made, mask)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4, storage, stored, ways, lanes), codegen


@intrinsic(prefer_literal=True)
def unweave(
    typingctx: Any, source: Any, columns: Any, target: Any, offsets: Any,
    storage: Any, ways: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Take ``ways * columns`` elements apart into the first `columns` of `ways` rows.

    Row i is at `target` and the i-th word of the table `offsets`.
    """
    numbers = literals((storage, ways, lanes))
    if numbers is None:
        return None
    code, rows, count = numbers

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, columns, target, offsets = args[:4]
        vectors = _consecutive(builder, source, builder.mul(columns, I64(rows)), code, rows, count)
        present = first_lanes(builder, columns, count)
        for i, vector in enumerate(_unwoven(builder, vectors)):
            row = pointer(builder, builder.add(target, _word(builder, offsets, i)), I8)
            store_vector(builder, row, vector, code, present)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4, storage, ways, lanes), codegen


def _consecutive(
    builder: Any, source: Any, total: Any, code: int, number: int, lanes: int
) -> list[Any]:
    """Return so many vectors that lie one behind the other, of `total` elements."""
    vectors = []
    for v in range(number):
        mask = first_lanes(builder, total, lanes, v * lanes)
        place = builder.add(source, I64(v * lanes * ITEMSIZE[code]))
        vectors.append(load_vector(builder, pointer(builder, place, I8), lanes, code, mask))
    return vectors


@intrinsic(prefer_literal=True)
def load_every(
    typingctx: Any, source: Any, columns: Any, storage: Any, step: Any, lanes: Any
) -> Any:
    """Load `columns` elements, each `step` elements behind the one before; nothing between them.

    Lanes behind them hold anything.
    """
    numbers = literals((storage, step, lanes))
    if numbers is None:
        return None
    code, ways, count = numbers

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        reach = builder.add(builder.mul(builder.sub(args[1], I64(1)), I64(ways)), I64(1))
        vectors = _consecutive(builder, args[0], reach, code, ways, count)
        return _picked(builder, vectors, [divmod(ways * i, count) for i in range(count)])

    kind = VectorType(compute_type(code), count)
    return kind(types.intp, types.intp, storage, step, lanes), codegen
