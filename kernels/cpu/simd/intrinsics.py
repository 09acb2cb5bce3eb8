"""Explicit vectors for Numba code: what kernels call.

Numba has no vector type, and LLVM's vectoriser cannot be relied on for a register tile. Here a
vector is a Numba type of its own (ir.py) that lowers to one LLVM vector, so that a kernel
reads as plain Python and its accumulators stay in registers. Addresses are plain integers and
strides are bytes: a kernel sees no array library.

Lane counts and storage codes must be literal integers where an intrinsic is called; a factory
closes over them.
"""

from __future__ import annotations

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
    broadcast,
    call,
    clamp_high,
    clamp_low,
    compute_type,
    constant,
    fmuladd,
    lane_mask,
    literal,
    load_vector,
    mangle,
    memory_ir,
    narrow,
    pointer,
    prefetch,
    store_vector,
    widen,
)

__all__ = [
    "add",
    "clamp",
    "expect_write",
    "get_word",
    "load",
    "load_gather",
    "load_masked",
    "load_scalar",
    "load_step",
    "low_half",
    "merge_bits",
    "merge_lanes",
    "multiply_add",
    "pick_even",
    "pick_even_met",
    "range_mask",
    "set_word",
    "splat",
    "store",
    "store_masked",
    "store_pairs",
    "store_scalar",
    "store_scatter",
    "sum_lanes",
]


@intrinsic(prefer_literal=True)
def load(typingctx: Any, address: Any, storage: Any, lanes: Any) -> Any:
    """Load `lanes` elements."""
    code, count = literal(storage), literal(lanes)
    if code is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return load_vector(builder, pointer(builder, args[0], I8), count, code)

    return VectorType(compute_type(code), count)(types.intp, storage, lanes), codegen


@intrinsic(prefer_literal=True)
def load_masked(typingctx: Any, address: Any, bits: Any, storage: Any, lanes: Any) -> Any:
    """Load the lanes whose bit is set; the others are zero and their bytes are not touched."""
    code, count = literal(storage), literal(lanes)
    if code is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = lane_mask(builder, args[1], count)
        return load_vector(builder, pointer(builder, args[0], I8), count, code, mask)

    return VectorType(compute_type(code), count)(types.intp, types.intp, storage, lanes), codegen


@intrinsic(prefer_literal=True)
def load_gather(
    typingctx: Any, address: Any, step: Any, bits: Any, storage: Any, lanes: Any
) -> Any:
    """Load element i from ``address + i * step`` where bit i is set; zero in the other lanes."""
    code, count = literal(storage), literal(lanes)
    if code is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(memory_ir(code), count)
        mask = lane_mask(builder, args[2], count)
        index = ir.Constant(ir.VectorType(I64, count), [I64(lane) for lane in range(count)])
        offsets = builder.mul(index, broadcast(builder, args[1], count))
        addresses = builder.add(offsets, broadcast(builder, args[0], count))
        pointers = builder.inttoptr(addresses, ir.VectorType(I8.as_pointer(), count))
        name = f"llvm.masked.gather.{mangle(kind)}.v{count}p0"
        zero = ir.Constant(kind, None)
        raw = call(builder, name, kind, pointers, I32(ITEMSIZE[code]), mask, zero)
        return widen(builder, raw, code)

    signature = VectorType(compute_type(code), count)(
        types.intp, types.intp, types.intp, storage, lanes
    )
    return signature, codegen


@intrinsic(prefer_literal=True)
def load_step(typingctx: Any, address: Any, step: Any, storage: Any, lanes: Any) -> Any:
    """Load every step-th of as many vectors of elements, all of which are touched."""
    code, count, apart = literal(storage), literal(lanes), literal(step)
    if code is None or count is None or apart is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = load_vector(builder, pointer(builder, args[0], I8), count * apart, code)
        places = [I32(lane * apart) for lane in range(count)]
        return builder.shuffle_vector(wide, wide, ir.Constant(ir.VectorType(I32, count), places))

    return VectorType(compute_type(code), count)(types.intp, step, storage, lanes), codegen


@intrinsic(prefer_literal=True)
def store(typingctx: Any, address: Any, vector: Any, storage: Any) -> Any:
    """Store every lane."""
    code = literal(storage)
    if code is None or not isinstance(vector, VectorType):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        store_vector(builder, pointer(builder, args[0], I8), args[1], code)
        return context.get_dummy_value()

    return types.void(types.intp, vector, storage), codegen


@intrinsic(prefer_literal=True)
def store_masked(typingctx: Any, address: Any, vector: Any, bits: Any, storage: Any) -> Any:
    """Store the lanes whose bit is set."""
    code = literal(storage)
    if code is None or not isinstance(vector, VectorType):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = lane_mask(builder, args[2], vector.lanes)
        store_vector(builder, pointer(builder, args[0], I8), args[1], code, mask)
        return context.get_dummy_value()

    return types.void(types.intp, vector, types.intp, storage), codegen


@intrinsic(prefer_literal=True)
def store_pairs(typingctx: Any, address: Any, even: Any, odd: Any, storage: Any) -> Any:
    """Store the lanes of two vectors in turn."""
    code = literal(storage)
    if code is None or not isinstance(even, VectorType):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = even.lanes
        places = [I32(i // 2 + i % 2 * lanes) for i in range(2 * lanes)]
        pattern = ir.Constant(ir.VectorType(I32, 2 * lanes), places)
        both = builder.shuffle_vector(args[1], args[2], pattern)
        store_vector(builder, pointer(builder, args[0], I8), both, code)
        return context.get_dummy_value()

    return types.void(types.intp, even, odd, storage), codegen


@intrinsic(prefer_literal=True)
def store_scatter(
    typingctx: Any, address: Any, step: Any, vector: Any, bits: Any, storage: Any
) -> Any:
    """Store lane i at ``address + i * step`` where bit i is set."""
    code = literal(storage)
    if code is None or not isinstance(vector, VectorType):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, step, value, bits = args[:4]
        raw, count = narrow(builder, value, code), vector.lanes
        mask = lane_mask(builder, bits, count)
        index = ir.Constant(ir.VectorType(I64, count), [I64(lane) for lane in range(count)])
        offsets = builder.mul(index, broadcast(builder, step, count))
        addresses = builder.add(offsets, broadcast(builder, address, count))
        pointers = builder.inttoptr(addresses, ir.VectorType(I8.as_pointer(), count))
        name = f"llvm.masked.scatter.{mangle(raw.type)}.v{count}p0"
        call(builder, name, ir.VoidType(), raw, pointers, I32(ITEMSIZE[code]), mask)
        return context.get_dummy_value()

    words = (types.intp, types.intp, vector, types.intp, storage)
    return types.void(*words), codegen


@intrinsic(prefer_literal=True)
def load_scalar(typingctx: Any, address: Any, storage: Any) -> Any:
    """Load one element in compute precision."""
    code = literal(storage)
    if code is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        raw = builder.load(pointer(builder, args[0], memory_ir(code)), align=ITEMSIZE[code])
        return widen(builder, raw, code)

    return compute_type(code)(types.intp, storage), codegen


@intrinsic(prefer_literal=True)
def store_scalar(typingctx: Any, address: Any, value: Any, storage: Any) -> Any:
    """Round one number of compute precision and store it."""
    code = literal(storage)
    if code is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        raw = narrow(builder, args[1], code)
        builder.store(raw, pointer(builder, args[0], memory_ir(code)), align=ITEMSIZE[code])
        return context.get_dummy_value()

    return types.void(types.intp, compute_type(code), storage), codegen


@intrinsic(prefer_literal=True)
def splat(typingctx: Any, scalar: Any, lanes: Any) -> Any:
    """Return a vector with `scalar` in every lane."""
    count = literal(lanes)
    if count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return broadcast(builder, args[0], count)

    return VectorType(scalar, count)(scalar, lanes), codegen


@intrinsic
def get_word(typingctx: Any, table: Any, index: Any) -> Any:
    """Read a 64-bit integer of a table."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.gep(pointer(builder, args[0], I64), [args[1]]))

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def set_word(typingctx: Any, table: Any, index: Any, value: Any) -> Any:
    """Write a 64-bit integer of a table."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], builder.gep(pointer(builder, args[0], I64), [args[1]]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def add(typingctx: Any, a: Any, b: Any) -> Any:
    """Return ``a + b``."""
    return a(a, a), lambda context, builder, signature, args: builder.fadd(*args)


@intrinsic
def multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c``: one instruction where the CPU has FMA."""
    return a(a, a, a), lambda context, builder, signature, args: fmuladd(builder, *args)


@intrinsic
def sum_lanes(typingctx: Any, vector: Any) -> Any:
    """Return the sum of all lanes, by halves."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total, half = args[0], vector.lanes // 2
        while half:
            low, high = (
                ir.Constant(ir.VectorType(I32, half), [I32(first + i) for i in range(half)])
                for first in (0, half)
            )
            parts = (builder.shuffle_vector(total, total, which) for which in (low, high))
            total, half = builder.fadd(*parts), half // 2
        return builder.extract_element(total, I32(0))

    return vector.element(vector), codegen


@intrinsic
def low_half(typingctx: Any, vector: Any) -> Any:
    """Return widened bfloat16 as the first halves of 32-bit words, the second halves zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(I32, vector.lanes)
        bits = builder.lshr(builder.bitcast(args[0], kind), constant(kind, 16))
        return builder.bitcast(bits, args[0].type)

    return vector(vector), codegen


@intrinsic
def merge_bits(typingctx: Any, a: Any, b: Any) -> Any:
    """Return the bits that are set in either of two float32 vectors."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(I32, a.lanes)
        bits = builder.or_(*(builder.bitcast(value, kind) for value in args))
        return builder.bitcast(bits, args[0].type)

    return a(a, a), codegen


@intrinsic
def merge_lanes(typingctx: Any, a: Any, b: Any, bits: Any) -> Any:
    """Return the lanes of `a` whose bit is set, and those of `b` elsewhere."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(lane_mask(builder, args[2], a.lanes), args[0], args[1])

    return a(a, a, types.intp), codegen


@intrinsic
def clamp(typingctx: Any, value: Any, low: Any, high: Any) -> Any:
    """Return `value` limited to low and high; a NaN stays NaN."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return clamp_high(builder, clamp_low(builder, args[0], args[1]), args[2])

    return value(value, low, high), codegen


@intrinsic
def pick_even(typingctx: Any, low: Any, high: Any) -> Any:
    """Return lanes 0, 2, 4, ... of two vectors laid end to end."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = low.lanes
        pattern = ir.Constant(ir.VectorType(I32, lanes), [I32(2 * i) for i in range(lanes)])
        return builder.shuffle_vector(args[0], args[1], pattern)

    return low(low, low), codegen


@intrinsic
def pick_even_met(typingctx: Any, low: Any, high: Any) -> Any:
    """Return lanes 0, 2, 4, ... of two vectors whose last and first lane are the same element."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = low.lanes
        places = [I32(2 * i + int(2 * i >= lanes)) for i in range(lanes)]
        pattern = ir.Constant(ir.VectorType(I32, lanes), places)
        return builder.shuffle_vector(args[0], args[1], pattern)

    return low(low, low), codegen


@intrinsic
def expect_write(typingctx: Any, address: Any) -> Any:
    """Ask for the cache line at an address, which will be written."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        prefetch(builder, pointer(builder, args[0], I8), write=True)
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def range_mask(typingctx: Any, start: Any, stop: Any) -> Any:
    """Return an integer whose bits start to stop - 1 are set (0 <= start <= stop <= 63)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one = I64(1)
        below_stop = builder.sub(builder.shl(one, args[1]), one)
        below_start = builder.sub(builder.shl(one, args[0]), one)
        return builder.xor(below_stop, below_start)

    return types.intp(types.intp, types.intp), codegen
