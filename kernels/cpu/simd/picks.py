"""Vectors whose elements are picked by a table of places, and weighted sums of vectors.

Places are 32-bit numbers in memory, one a lane. Where they all lie within one or two vectors, those
are loaded whole and permuted, an instruction or two; a gather takes a Zen 4 some 40 cycles for 16
elements.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.contract.cpu import cpu_info

from .ir import (
    DOUBLE,
    FLOAT,
    I8,
    I32,
    I64,
    ITEMSIZE,
    VectorType,
    broadcast,
    call,
    compute_type,
    constant,
    fmuladd,
    lane_mask,
    literal,
    load_vector,
    mangle,
    memory_ir,
    pointer,
    widen,
)

__all__ = [
    "load_places",
    "merge_lanes",
    "multiply",
    "multiply_add",
    "pick_places",
    "set_place",
]


@intrinsic
def multiply(typingctx: Any, a: Any, b: Any) -> Any:
    """Return ``a * b``."""
    return a(a, a), lambda context, builder, signature, args: builder.fmul(*args)


@intrinsic
def multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c``."""
    return a(a, a, a), lambda context, builder, signature, args: fmuladd(builder, *args)


@intrinsic
def merge_lanes(typingctx: Any, a: Any, b: Any, bits: Any) -> Any:
    """Return the lanes of `a` whose bit is set, and those of `b` elsewhere."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(lane_mask(builder, args[2], a.lanes), args[0], args[1])

    return a(a, a, types.intp), codegen


@intrinsic
def set_place(typingctx: Any, table: Any, index: Any, value: Any) -> Any:
    """Write entry `index` of a table of places."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        entry = builder.gep(pointer(builder, args[0], I32), [args[1]])
        builder.store(builder.trunc(args[2], I32), entry)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


def _load_table(builder: Any, table: Any, lanes: int) -> Any:
    """Load the places of a vector."""
    kind = ir.VectorType(I32, lanes)
    return builder.load(pointer(builder, table, kind), align=4)


def _gathered(
    builder: Any, address: Any, places: Any, step: Any, storage: int, lanes: int, mask: Any
) -> Any:
    """Load the elements at ``address + places * step``."""
    kind, wide = ir.VectorType(memory_ir(storage), lanes), ir.VectorType(I64, lanes)
    offsets = builder.mul(builder.sext(places, wide), broadcast(builder, step, lanes))
    addresses = builder.add(offsets, broadcast(builder, address, lanes))
    pointers = builder.inttoptr(addresses, ir.VectorType(I8.as_pointer(), lanes))
    name = f"llvm.masked.gather.{mangle(kind)}.v{lanes}p0"
    zero = ir.Constant(kind, None)
    raw = call(builder, name, kind, pointers, I32(ITEMSIZE[storage]), mask, zero)
    return widen(builder, raw, storage)


@intrinsic(prefer_literal=True)
def load_places(
    typingctx: Any, address: Any, table: Any, step: Any, bits: Any, storage: Any, lanes: Any
) -> Any:
    """Load element i from ``address + place[i] * step`` where bit i is set; zero elsewhere."""
    code, count = literal(storage), literal(lanes)
    if code is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        places, mask = _load_table(builder, args[1], count), lane_mask(builder, args[3], count)
        return _gathered(builder, args[0], places, args[2], code, count, mask)

    words = [types.intp] * 4
    return VectorType(compute_type(code), count)(*words, storage, lanes), codegen


def _can_permute(code: int, lanes: int) -> bool:
    """Tell whether this CPU permutes such a vector by the numbers in another."""
    isa, size = cpu_info().isa, lanes * ITEMSIZE[code]
    return (isa == "avx512" and size == 64) or (isa == "avx2" and size == 32 and code == 0)


def _permuted(builder: Any, vectors: list[Any], places: Any) -> Any:
    """Return the elements at `places` of one vector, or of two laid end to end."""
    kind = vectors[0].type
    if kind.count == 8 and kind.element == FLOAT:  # AVX2
        made = [call(builder, "llvm.x86.avx2.permps", kind, each, places) for each in vectors]
        if len(made) == 1:
            return made[0]
        beyond = builder.icmp_unsigned(">=", places, constant(places.type, 8))
        return builder.select(beyond, made[1], made[0])
    if kind.element == DOUBLE:
        places = builder.zext(places, ir.VectorType(I64, kind.count))
    if len(vectors) == 1:
        name = "sf" if kind.element == FLOAT else "df"
        return call(builder, f"llvm.x86.avx512.permvar.{name}.512", kind, vectors[0], places)
    name = "ps" if kind.element == FLOAT else "pd"
    first, second = vectors
    return call(builder, f"llvm.x86.avx512.vpermi2var.{name}.512", kind, first, places, second)


@intrinsic(prefer_literal=True)
def pick_places(
    typingctx: Any, address: Any, table: Any, reach: Any, storage: Any, lanes: Any
) -> Any:
    """Load the elements at `lanes` places from an address on, of compute precision.

    Where `reach` is 1 or 2 all places lie within so many vectors, which are touched whole; where it
    is 0 they lie anywhere.
    """
    code, count, vectors = literal(storage), literal(lanes), literal(reach)
    if code is None or count is None or vectors is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        places = _load_table(builder, args[1], count)
        if vectors == 0 or not _can_permute(code, count):
            every = constant(ir.VectorType(ir.IntType(1), count), 1)
            size = I64(ITEMSIZE[code])
            return _gathered(builder, args[0], places, size, code, count, every)
        loaded = []
        for number in range(vectors):
            place = builder.add(args[0], I64(number * count * ITEMSIZE[code]))
            loaded.append(load_vector(builder, pointer(builder, place, I8), count, code))
        return _permuted(builder, loaded, places)

    words = (types.intp, types.intp)
    return VectorType(compute_type(code), count)(*words, reach, storage, lanes), codegen
