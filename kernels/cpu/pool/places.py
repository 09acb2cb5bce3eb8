"""Vectors of places: whole numbers that ride in the lanes beside the maxima that they belong to.

A place is counted from the window's first sample, in samples of the channel, and has as many bits
as an element in compute precision, so that selections treat both alike.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..simd.ir import (
    DOUBLE,
    F64,
    I8,
    I32,
    I64,
    VectorType,
    broadcast,
    call,
    compute_type,
    lane_mask,
    literal,
    mangle,
    pointer,
)

__all__ = ["beats", "scatter_places", "splat_place", "store_places"]


@intrinsic(prefer_literal=True)
def splat_place(typingctx: Any, place: Any, storage: Any, lanes: Any) -> Any:
    """Return a vector with a place in every lane, of the elements that a storage code computes."""
    code, count = literal(storage), literal(lanes)
    if code is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = args[0] if code == F64 else builder.trunc(args[0], I32)
        kind = context.get_value_type(signature.return_type)
        return builder.bitcast(broadcast(builder, number, count), kind)

    return VectorType(compute_type(code), count)(types.intp, storage, lanes), codegen


@intrinsic
def beats(typingctx: Any, candidate: Any, value: Any) -> Any:
    """Return a bit for each lane whose candidate takes the value's place: larger, or NaN."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        larger = builder.fcmp_ordered(">", args[0], args[1])
        is_nan = builder.fcmp_unordered("uno", args[0], args[0])
        bits = builder.bitcast(builder.or_(larger, is_nan), ir.IntType(value.lanes))
        return builder.zext(bits, I64)

    return types.intp(candidate, value), codegen


def _whole(builder: Any, places: Any, first: Any, apart: Any) -> Any:
    """Return places as 64-bit numbers, that of lane i behind ``first + i * apart``."""
    count = places.type.count
    wide = ir.VectorType(I64, count)
    if places.type.element == DOUBLE:
        numbers = builder.bitcast(places, wide)
    else:
        numbers = builder.sext(builder.bitcast(places, ir.VectorType(I32, count)), wide)
    lanes = ir.Constant(wide, [I64(lane) for lane in range(count)])
    steps = builder.mul(lanes, broadcast(builder, apart, count))
    return builder.add(numbers, builder.add(steps, broadcast(builder, first, count)))


@intrinsic
def store_places(
    typingctx: Any, address: Any, places: Any, first: Any, apart: Any, bits: Any
) -> Any:
    """Store places as int64, one behind the other, where the bit is set.

    That of lane i is counted from ``first + i * apart``.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, vector, first, apart, bits = args
        whole = _whole(builder, vector, first, apart)
        mask = lane_mask(builder, bits, places.lanes)
        typed = builder.bitcast(pointer(builder, address, I8), whole.type.as_pointer())
        name = f"llvm.masked.store.{mangle(whole.type)}.p0"
        call(builder, name, ir.VoidType(), whole, typed, I32(8), mask)
        return context.get_dummy_value()

    word = types.intp
    return types.void(word, places, word, word, word), codegen


@intrinsic
def scatter_places(
    typingctx: Any, address: Any, step: Any, places: Any, first: Any, apart: Any, bits: Any
) -> Any:
    """Store as `store_places` does, `step` bytes from one to the next."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, step, vector, first, apart, bits = args
        whole, count = _whole(builder, vector, first, apart), places.lanes
        mask = lane_mask(builder, bits, count)
        lanes = ir.Constant(ir.VectorType(I64, count), [I64(lane) for lane in range(count)])
        offsets = builder.mul(lanes, broadcast(builder, step, count))
        addresses = builder.add(offsets, broadcast(builder, address, count))
        pointers = builder.inttoptr(addresses, ir.VectorType(I8.as_pointer(), count))
        name = f"llvm.masked.scatter.{mangle(whole.type)}.v{count}p0"
        call(builder, name, ir.VoidType(), whole, pointers, I32(8), mask)
        return context.get_dummy_value()

    word = types.intp
    return types.void(word, word, places, word, word, word), codegen
