"""Square blocks of vectors, transposed in registers, for kernels to call.

=================  ================================  =========================================
function           reads                             writes
=================  ================================  =========================================
transpose_block    `rows` rows, elements by a mask   all columns, one behind the other
transpose_masked   `rows` x `columns`                the block's columns, at any pitch
transpose_between  the same, at any places           the same, at any places
store_columns      all rows, one behind the other    columns plus bias, clamped, by a mask
store_transposed   all rows, at any pitch            the first columns, by a mask
=================  ================================  =========================================
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .ir import (
    F64,
    I8,
    I64,
    ITEMSIZE,
    broadcast,
    clamp_high,
    clamp_low,
    compute_ir,
    first_lanes,
    lane_mask,
    literal,
    load_vector,
    pointer,
    store_vector,
    transposed,
)

__all__ = [
    "store_columns",
    "store_transposed",
    "transpose_between",
    "transpose_block",
    "transpose_masked",
]


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
            within = [builder.icmp_signed("<", I64(i), number) for i in range(count)]
            return [builder.select(flag, first, none) for flag in within]

        vectors = []
        for i, mask in enumerate(masks(columns, rows)):
            address = builder.add(source, builder.mul(pitch, I64(i)))
            vectors.append(load_vector(builder, pointer(builder, address, I8), count, code, mask))
        outputs = zip(transposed(builder, vectors), masks(rows, columns), strict=True)
        for i, (column, mask) in enumerate(outputs):
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


@intrinsic(prefer_literal=True)
def transpose_between(
    typingctx: Any, source: Any, sources: Any, rows: Any, columns: Any, target: Any, targets: Any,
    storage: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Write the columns of a block as rows, from and to places that two tables tell.

    Row i is at `source` and the i-th word of `sources`, column j goes to `target` and the j-th word
    of `targets`. Nothing outside the block of at most `lanes` rows and columns is touched.
    """
    code, count = literal(storage), literal(lanes)
    if code is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, sources, rows, columns, target, targets = args[:6]

        def place(base: Any, table: Any, index: int) -> Any:
            word = builder.load(builder.gep(pointer(builder, table, I64), [I64(index)]))
            return pointer(builder, builder.add(base, word), I8)

        def masks(length: Any, number: Any) -> list[Any]:
            """Return flags of the first `length` lanes, for each of the first `number` vectors."""
            first = first_lanes(builder, length, count)
            none = ir.Constant(first.type, None)
            within = [builder.icmp_signed("<", I64(i), number) for i in range(count)]
            return [builder.select(flag, first, none) for flag in within]

        vectors = [
            load_vector(builder, place(source, sources, i), count, code, mask)
            for i, mask in enumerate(masks(columns, rows))
        ]
        outputs = zip(transposed(builder, vectors), masks(rows, columns), strict=True)
        for j, (column, mask) in enumerate(outputs):
            store_vector(builder, place(target, targets, j), column, code, mask)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6, storage, lanes), codegen
