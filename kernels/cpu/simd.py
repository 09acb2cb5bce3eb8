"""Explicit vectors for Numba code: what kernels call.

Numba has no vector type, and LLVM's vectoriser cannot be relied on for a register tile. Here a
vector is a Numba type of its own (vectors.py) that lowers to one LLVM vector, so that a kernel
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

from .vectors import (
    F64,
    I8,
    I32,
    I64,
    ITEMSIZE,
    VectorType,
    broadcast,
    call,
    clamp_high,
    clamp_low,
    compute_ir,
    compute_type,
    first_lanes,
    lane_mask,
    literal,
    load_vector,
    mangle,
    memory_ir,
    narrow,
    pointer,
    prefetch,
    store_vector,
    transposed,
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
    "pick_even",
    "range_mask",
    "set_word",
    "splat",
    "store",
    "store_columns",
    "store_masked",
    "store_scalar",
    "store_transposed",
    "transpose_block",
    "transpose_masked",
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


@intrinsic(prefer_literal=True)
def transpose_block(
    typingctx: Any, source: Any, pitch: Any, rows: Any, bits: Any, target: Any,
    storage: Any, compute: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Write the columns of `rows` rows as vectors, one behind the other, at `target`.

    Row i is at ``source + i * pitch``, of which the elements whose bit is set are read. All
    `lanes` columns are written; what was not read is zero.
    """
    code, made, count = literal(storage), literal(compute), literal(lanes)
    if code is None or made is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = lane_mask(builder, args[3], count)
        none = ir.Constant(mask.type, None)
        vectors = []
        for i in range(count):
            present = builder.icmp_signed("<", I64(i), args[2])
            flags = builder.select(present, mask, none)
            address = builder.add(args[0], builder.mul(args[1], I64(i)))
            vectors.append(load_vector(builder, pointer(builder, address, I8), count, code, flags))
        target = pointer(builder, args[4], I8)
        for i, column in enumerate(transposed(builder, vectors)):
            step = I64(i * count * ITEMSIZE[made])
            store_vector(builder, builder.gep(target, [step]), column, made)
        return context.get_dummy_value()

    words = [types.intp] * 5
    return types.void(*words, storage, compute, lanes), codegen


@intrinsic(prefer_literal=True)
def transpose_masked(
    typingctx: Any, source: Any, pitch: Any, rows: Any, columns: Any, target: Any,
    target_pitch: Any, storage: Any, compute: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Write the columns of a block as rows: at most `lanes` rows and columns.

    Row i is at ``source + i * pitch``, column j goes to ``target + j * target_pitch``. Nothing
    outside the block is read or written.
    """
    code, made, count = literal(storage), literal(compute), literal(lanes)
    if code is None or made is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, pitch, rows, columns, target, target_pitch = args[:6]

        def masks(length: Any, number: Any) -> list[Any]:
            """Return flags of the first `length` lanes, for each of the first `number` vectors."""
            first = first_lanes(builder, length, count)
            none = ir.Constant(first.type, None)
            there = [builder.icmp_signed("<", I64(i), number) for i in range(count)]
            return [builder.select(flag, first, none) for flag in there]

        vectors = []
        for i, mask in enumerate(masks(columns, rows)):
            address = builder.add(source, builder.mul(pitch, I64(i)))
            vectors.append(load_vector(builder, pointer(builder, address, I8), count, code, mask))
        turned = zip(transposed(builder, vectors), masks(rows, columns), strict=True)
        for i, (column, mask) in enumerate(turned):
            address = builder.add(target, builder.mul(target_pitch, I64(i)))
            store_vector(builder, pointer(builder, address, I8), column, made, mask)
        return context.get_dummy_value()

    words = [types.intp] * 6
    return types.void(*words, storage, compute, lanes), codegen


@intrinsic(prefer_literal=True)
def store_columns(
    typingctx: Any, source: Any, bias: Any, low: Any, high: Any, target: Any, target_step: Any,
    columns: Any, bits: Any, storage: Any, compute: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Store the columns of a block of `lanes` vectors, each plus its bias and clamped.

    The vectors lie one behind the other. Column i goes to ``target + i * target_step``, the lanes
    whose bit is set; columns from `columns` on, and their bias, are not touched.
    """
    code, made, count = literal(storage), literal(compute), literal(lanes)
    if code is None or made is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, bias, target = (pointer(builder, args[i], I8) for i in (0, 1, 4))
        kind, present = compute_ir(made), first_lanes(builder, args[6], count)
        shift = load_vector(builder, bias, count, made, present)
        low, high = (
            broadcast(builder, bound if made == F64 else builder.fptrunc(bound, kind), count)
            for bound in args[2:4]
        )
        rows = []
        for i in range(count):
            step = I64(i * count * ITEMSIZE[made])
            value = load_vector(builder, builder.gep(source, [step]), count, made)
            value = builder.fadd(value, shift)
            rows.append(clamp_high(builder, clamp_low(builder, value, low), high))
        all_bits = builder.icmp_signed("==", args[7], I64((1 << count) - 1))
        all_columns = builder.icmp_signed(">=", args[6], I64(count))
        addresses = [builder.gep(target, [builder.mul(args[5], I64(i))]) for i in range(count)]
        made_columns = transposed(builder, rows)
        with builder.if_else(builder.and_(all_bits, all_columns)) as (whole, edge):
            with whole:
                for address, column in zip(addresses, made_columns, strict=True):
                    store_vector(builder, address, column, code)
            with edge:
                mask = lane_mask(builder, args[7], count)
                none = ir.Constant(mask.type, None)
                for i, (address, column) in enumerate(zip(addresses, made_columns, strict=True)):
                    here = builder.icmp_signed("<", I64(i), args[6])
                    store_vector(builder, address, column, code, builder.select(here, mask, none))
        return context.get_dummy_value()

    word, real = types.intp, types.float64
    signature = types.void(word, word, real, real, word, word, word, word, storage, compute, lanes)
    return signature, codegen


@intrinsic
def expect_write(typingctx: Any, address: Any) -> Any:
    """Ask for the cache line at an address, which will be written."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        prefetch(builder, pointer(builder, args[0], I8), write=True)
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic(prefer_literal=True)
def store_transposed(
    typingctx: Any, source: Any, pitch: Any, target: Any, step: Any, bits: Any, columns: Any,
    storage: Any, stored: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Store the first `columns` columns of a square block of vectors.

    Row i is at ``source + i * pitch`` and is read whole; column j goes to ``target + j * step``,
    of which the elements whose bit is set are written.
    """
    code, made, count = literal(storage), literal(stored), literal(lanes)
    if code is None or made is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows = []
        for i in range(count):
            address = builder.add(args[0], builder.mul(args[1], I64(i)))
            rows.append(load_vector(builder, pointer(builder, address, I8), count, code))
        mask = lane_mask(builder, args[4], count)
        done = builder.append_basic_block("columns_end")
        for j, column in enumerate(transposed(builder, rows)):
            address = builder.add(args[2], builder.mul(args[3], I64(j)))
            store_vector(builder, pointer(builder, address, I8), column, made, mask)
            following = builder.append_basic_block("column")
            builder.cbranch(builder.icmp_signed(">", args[5], I64(j + 1)), following, done)
            builder.position_at_end(following)
        builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*([types.intp] * 6), storage, stored, lanes), codegen


@intrinsic
def range_mask(typingctx: Any, start: Any, stop: Any) -> Any:
    """Return an integer whose bits start to stop - 1 are set (0 <= start <= stop <= 63)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one = I64(1)
        below_stop = builder.sub(builder.shl(one, args[1]), one)
        below_start = builder.sub(builder.shl(one, args[0]), one)
        return builder.xor(below_stop, below_start)

    return types.intp(types.intp, types.intp), codegen
