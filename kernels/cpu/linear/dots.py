"""Dot products of a few rows of a weight with a few rows of an input, in registers.

The lanes are the sum's terms, so that both are read as they lie. A running sum has no more than
`split.REDUCTION` terms in a lane: blocks of so many vectors are summed from zero, brought to one
number each and added up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..simd.ir import (
    I8,
    I32,
    I64,
    ITEMSIZE,
    compute_ir,
    constant,
    first_lanes,
    fmuladd,
    literals,
    load_vector,
    pointer,
)

__all__ = ["add_dots"]


class _Operands(NamedTuple):
    """Rows that are multiplied with each other: addresses, and bytes from one row to the next."""

    weight: Any
    weight_pitch: Any
    x: Any
    x_pitch: Any


class _Shape(NamedTuple):
    """What the code is made for."""

    storage: int
    compute: int
    features: int
    rows: int
    lanes: int


def _products(
    builder: Any, of: _Operands, place: Any, sums: list[Any], shape: _Shape, mask: Any
) -> list[Any]:
    """Return the sums after a vector of terms, the `place`-th and following."""
    storage, compute, features, rows, lanes = shape

    def vectors(base: Any, pitch: Any, count: int, code: int) -> list[Any]:
        first = builder.add(base, builder.mul(place, I64(ITEMSIZE[code])))
        addresses = [builder.add(first, builder.mul(pitch, I64(i))) for i in range(count)]
        return [load_vector(builder, pointer(builder, a, I8), lanes, code, mask) for a in addresses]

    x = vectors(of.x, of.x_pitch, rows, compute)
    weight = vectors(of.weight, of.weight_pitch, features, storage)
    return [
        fmuladd(builder, weight[i], x[j], sums[i * rows + j])
        for i in range(features)
        for j in range(rows)
    ]


def _loop(builder: Any, of: _Operands, whole: Any, sums: list[Any], shape: _Shape) -> list[Any]:
    """Emit the sum over all full vectors, `whole` terms of at least one vector or none."""
    entry = builder.block
    loop, end = builder.append_basic_block("terms"), builder.append_basic_block("summed")
    builder.cbranch(builder.icmp_signed(">", whole, I64(0)), loop, end)
    builder.position_at_end(loop)
    place, now = builder.phi(I64), [builder.phi(value.type) for value in sums]
    after = _products(builder, of, place, now, shape, None)
    following = builder.add(place, I64(shape.lanes))
    for phi, first, then in zip([place, *now], [I64(0), *sums], [following, *after], strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(then, loop)
    builder.cbranch(builder.icmp_signed("<", following, whole), loop, end)
    builder.position_at_end(end)
    totals = []
    for first, then in zip(sums, after, strict=True):
        total = builder.phi(first.type)
        total.add_incoming(first, entry)
        total.add_incoming(then, loop)
        totals.append(total)
    return totals


def _total(builder: Any, vector: Any) -> Any:
    """Return the sum of a vector's lanes, halves added to each other."""
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        pattern = ir.Constant(ir.VectorType(I32, lanes), [I32(i) for i in range(lanes)])
        upper = ir.Constant(ir.VectorType(I32, lanes), [I32(lanes + i) for i in range(lanes)])
        halves = [builder.shuffle_vector(vector, vector, which) for which in (pattern, upper)]
        vector = builder.fadd(*halves)
    return builder.extract_element(vector, I32(0))


@intrinsic(prefer_literal=True)
def add_dots(
    typingctx: Any, weight: Any, weight_pitch: Any, x: Any, x_pitch: Any, terms: Any, target: Any,
    target_pitch: Any, storage: Any, compute: Any, features: Any, rows: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Add the products of `terms` terms of some rows of a weight and all rows of an input.

    Weights are of `storage`, the input and the sums of `compute`; that of feature i and row j is at
    ``target + j * target_pitch`` and i elements.
    """
    numbers = literals((storage, compute, features, rows, lanes))
    if numbers is None:
        return None
    shape = _Shape(*numbers)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of, terms = _Operands(*args[:4]), args[4]
        kind = ir.VectorType(compute_ir(shape.compute), shape.lanes)
        start = [constant(kind, 0.0)] * (shape.features * shape.rows)
        whole = builder.and_(terms, I64(-shape.lanes))
        sums = _loop(builder, of, whole, start, shape)
        rest = builder.sub(terms, whole)
        before = builder.block
        with builder.if_then(builder.icmp_signed(">", rest, I64(0))):
            mask = first_lanes(builder, rest, shape.lanes)
            ended = _products(builder, of, whole, sums, shape, mask)
            inside = builder.block
        for place, (value, other) in enumerate(zip(sums, ended, strict=True)):
            total = builder.phi(value.type)
            total.add_incoming(value, before)
            total.add_incoming(other, inside)
            sums[place] = total
        size = I64(ITEMSIZE[shape.compute])
        for place, vector in enumerate(sums):
            feature, row = divmod(place, shape.rows)
            address = builder.add(args[5], builder.mul(args[6], I64(row)))
            address = builder.add(address, builder.mul(size, I64(feature)))
            number = pointer(builder, address, kind.element)
            builder.store(builder.fadd(builder.load(number), _total(builder, vector)), number)
        return context.get_dummy_value()

    words = [types.intp] * 7
    return types.void(*words, storage, compute, features, rows, lanes), codegen
