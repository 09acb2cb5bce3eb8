"""Arithmetic on explicit vectors: what norms, pools over lanes and the like are made of."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

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
    fmuladd,
    lane_mask,
    literal,
    load_vector,
    mangle,
    memory_ir,
    narrow,
    pointer,
    widen,
)

__all__ = [
    "divide",
    "fma",
    "larger",
    "load_filled",
    "load_filled_gather",
    "mul",
    "pick_positive",
    "reduce_add",
    "reduce_larger",
    "store_scatter",
    "sub",
    "to_compute",
    "to_double",
]


def _fill(builder: Any, value: Any, mask: Any, scalar: Any) -> Any:
    """Return `value` where the mask is set, else the scalar."""
    return builder.select(mask, value, broadcast(builder, scalar, value.type.count))


@intrinsic(prefer_literal=True)
def load_filled(
    typingctx: Any, address: Any, bits: Any, fill: Any, storage: Any, lanes: Any
) -> Any:
    """Load the lanes whose bit is set; the others are `fill`, and their bytes are not touched."""
    code, count = literal(storage), literal(lanes)
    if code is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = lane_mask(builder, args[1], count)
        value = load_vector(builder, pointer(builder, args[0], I8), count, code, mask)
        return _fill(builder, value, mask, args[2])

    kind = compute_type(code)
    return VectorType(kind, count)(types.intp, types.intp, kind, storage, lanes), codegen


def _addresses(builder: Any, first: Any, step: Any, count: int) -> Any:
    """Return the pointers of lanes that lie `step` bytes apart."""
    index = ir.Constant(ir.VectorType(I64, count), [I64(lane) for lane in range(count)])
    offsets = builder.mul(index, broadcast(builder, step, count))
    places = builder.add(offsets, broadcast(builder, first, count))
    return builder.inttoptr(places, ir.VectorType(I8.as_pointer(), count))


@intrinsic(prefer_literal=True)
def load_filled_gather(
    typingctx: Any, address: Any, step: Any, bits: Any, fill: Any, storage: Any, lanes: Any
) -> Any:
    """Load element i from ``address + i * step`` where bit i is set; the others are `fill`."""
    code, count = literal(storage), literal(lanes)
    if code is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(memory_ir(code), count)
        mask = lane_mask(builder, args[2], count)
        pointers = _addresses(builder, args[0], args[1], count)
        name = f"llvm.masked.gather.{mangle(kind)}.v{count}p0"
        zero = ir.Constant(kind, None)
        raw = call(builder, name, kind, pointers, I32(ITEMSIZE[code]), mask, zero)
        return _fill(builder, widen(builder, raw, code), mask, args[3])

    element = compute_type(code)
    signature = VectorType(element, count)(
        types.intp, types.intp, types.intp, element, storage, lanes
    )
    return signature, codegen


@intrinsic(prefer_literal=True)
def store_scatter(
    typingctx: Any, address: Any, step: Any, vector: Any, bits: Any, storage: Any
) -> Any:
    """Store lane i at ``address + i * step`` where bit i is set."""
    code = literal(storage)
    if code is None or not isinstance(vector, VectorType):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = vector.lanes
        raw, mask = narrow(builder, args[2], code), lane_mask(builder, args[3], count)
        pointers = _addresses(builder, args[0], args[1], count)
        name = f"llvm.masked.scatter.{mangle(raw.type)}.v{count}p0"
        call(builder, name, ir.VoidType(), raw, pointers, I32(ITEMSIZE[code]), mask)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, vector, types.intp, storage), codegen


@intrinsic
def sub(typingctx: Any, a: Any, b: Any) -> Any:
    """Return ``a - b``."""
    return a(a, a), lambda context, builder, signature, args: builder.fsub(*args)


@intrinsic
def mul(typingctx: Any, a: Any, b: Any) -> Any:
    """Return ``a * b``."""
    return a(a, a), lambda context, builder, signature, args: builder.fmul(*args)


@intrinsic
def divide(typingctx: Any, a: Any, b: Any) -> Any:
    """Return ``a / b``."""
    return a(a, a), lambda context, builder, signature, args: builder.fdiv(*args)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c``."""
    return a(a, a, a), lambda context, builder, signature, args: fmuladd(builder, *args)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@intrinsic
def larger(typingctx: Any, a: Any, b: Any) -> Any:
    """Return the larger; where either is NaN, `b`: one instruction on x86."""
    return a(a, a), lambda context, builder, signature, args: _larger(builder, *args)


@intrinsic
def pick_positive(typingctx: Any, test: Any, a: Any, b: Any) -> Any:
    """Return `a` where `test` is greater than zero, else `b`; a NaN is not greater."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(args[0].type, [ir.Constant(args[0].type.element, 0.0)] * test.lanes)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], args[2])

    return test(test, test, test), codegen


def _reduce(builder: Any, value: Any, join: Any) -> Any:
    """Join all lanes, halves with halves: a fixed tree."""
    count = value.type.count
    undefined = ir.Constant(value.type, ir.Undefined)
    while count > 1:
        count //= 2
        pattern = [I32(count + lane) if lane < count else I32(lane)
                   for lane in range(value.type.count)]  # fmt: skip
        kind = ir.VectorType(I32, value.type.count)
        moved = builder.shuffle_vector(value, undefined, ir.Constant(kind, pattern))
        value = join(builder, value, moved)
    return builder.extract_element(value, I32(0))


@intrinsic
def reduce_add(typingctx: Any, vector: Any) -> Any:
    """Return the sum of all lanes, added up as a tree."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _reduce(builder, args[0], lambda builder, a, b: builder.fadd(a, b))

    return vector.element(vector), codegen


@intrinsic
def reduce_larger(typingctx: Any, vector: Any) -> Any:
    """Return the largest lane, as `larger` takes it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _reduce(builder, args[0], _larger)

    return vector.element(vector), codegen


@intrinsic
def to_double(typingctx: Any, vector: Any) -> Any:
    """Return the lanes in float64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if vector.element is types.float64:
            return args[0]
        return builder.fpext(args[0], ir.VectorType(DOUBLE, vector.lanes))

    return VectorType(types.float64, vector.lanes)(vector), codegen


@intrinsic(prefer_literal=True)
def to_compute(typingctx: Any, vector: Any, storage: Any) -> Any:
    """Return float64 lanes in a storage code's compute precision."""
    code = literal(storage)
    if code is None:
        return None
    element = compute_type(code)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if element is types.float64:
            return args[0]
        return builder.fptrunc(args[0], ir.VectorType(FLOAT, vector.lanes))

    return VectorType(element, vector.lanes)(vector, storage), codegen
