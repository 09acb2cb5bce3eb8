"""Loads and stores of one or four elements by a 32-bit index, as Numba-CUDA intrinsics.

Numba indexes an array with a signed number through a test for negative indices, and never joins
neighbouring loads. These functions take an unsigned element index as it is, and `load4` and
`store4` are one 128-bit instruction for float32 (two for float64, 64 bits for the halves). They
want an index that is a multiple of four and an array that starts at a multiple of 16 bytes.

Storage and arithmetic are told apart: float16 and bfloat16 lie in arrays of uint16 and become
float32 when loaded, so no kernel needs a half type of Numba's.

============  ==================  ===========
stored as     array of            computed in
============  ==================  ===========
``float32``   ``float32``         ``float32``
``float64``   ``float64``         ``float64``
``float16``   ``uint16``          ``float32``
``bfloat16``  ``uint16``          ``float32``
============  ==================  ===========
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.cuda import cgutils, types
from numba.cuda.extending import intrinsic

__all__ = ["Access", "access", "compute_type", "load_words", "storage_type"]

_I16, _I32 = ir.IntType(16), ir.IntType(32)
_FLOAT = ir.FloatType()
_HALVES = ("float16", "bfloat16")


def storage_type(storage: str) -> Any:
    """Return the Numba type of an array's elements."""
    return types.uint16 if storage in _HALVES else getattr(types, storage)


def compute_type(storage: str) -> Any:
    """Return the Numba type that sums are kept in."""
    return types.float64 if storage == "float64" else types.float32


@dataclass(frozen=True, slots=True)
class Access:
    """The loads and stores of one storage type, to be called inside kernels.

    Parameters
    ----------
    load1 : intrinsic
        ``load1(array, index)``: one element, in the compute type.
    load4 : intrinsic
        ``load4(array, index)``: a tuple of four elements, in the compute type.
    store1 : intrinsic
        ``store1(array, index, value)``: rounds to the storage type.
    store4 : intrinsic
        ``store4(array, index, a, b, c, d)``.
    """

    load1: Any
    load4: Any
    store1: Any
    store4: Any


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any, stored: Any) -> Any:
    """Return the address of an element; an unsigned index is extended with zeros."""
    data = context.make_array(kind)(context, builder, value=array).data
    wide = builder.zext(index, ir.IntType(64)) if index.type.width < 64 else index
    space = data.type.addrspace
    return builder.bitcast(builder.gep(data, [wide]), stored.as_pointer(space))


def _vectors(address: Any, builder: Any, element: Any) -> list[tuple[Any, range]]:
    """Return the vectors of at most 128 bits that four elements lie in, and which they hold."""
    lanes = 2 if isinstance(element, ir.DoubleType) else 4
    pointer = builder.bitcast(
        address, ir.VectorType(element, lanes).as_pointer(address.type.addrspace)
    )
    return [
        (builder.gep(pointer, [_I32(part)]), range(part * lanes, (part + 1) * lanes))
        for part in range(4 // lanes)
    ]


def _widen_bfloat16(builder: Any, bits: Any) -> Any:
    return builder.bitcast(builder.shl(builder.zext(bits, _I32), _I32(16)), _FLOAT)


def _round_bfloat16(builder: Any, value: Any) -> Any:
    """Round to nearest, ties to even; a NaN keeps its high bits and stays one."""
    bits = builder.bitcast(value, _I32)
    odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
    rounded = builder.add(bits, builder.add(odd, _I32(0x7FFF)))
    is_nan = builder.fcmp_unordered("uno", value, value)
    chosen = builder.select(is_nan, builder.or_(bits, _I32(0x400000)), rounded)
    return builder.trunc(builder.lshr(chosen, _I32(16)), _I16)


def _same(builder: Any, value: Any) -> Any:
    return value


#: Per storage type: the element in memory, how it becomes a number and how a number becomes it.
_CONVERSIONS: dict[str, tuple[Any, Callable[..., Any], Callable[..., Any]]] = {
    "float32": (_FLOAT, _same, _same),
    "float64": (ir.DoubleType(), _same, _same),
    "float16": (
        ir.HalfType(),
        lambda builder, value: builder.fpext(value, _FLOAT),
        lambda builder, value: builder.fptrunc(value, ir.HalfType()),
    ),
    "bfloat16": (_I16, _widen_bfloat16, _round_bfloat16),
}


@functools.cache
def access(storage: str) -> Access:
    """Return the loads and stores of a storage type, always the same objects."""
    element, widen, narrow = _CONVERSIONS[storage]
    number = compute_type(storage)
    size = 8 if storage == "float64" else 4 if storage == "float32" else 2

    @intrinsic
    def load1(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            address = _address(context, builder, signature.args[0], args[0], args[1], element)
            return widen(builder, builder.load(address, align=size))

        return number(array, index), codegen

    @intrinsic
    def load4(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            address = _address(context, builder, signature.args[0], args[0], args[1], element)
            values = []
            for pointer, lanes in _vectors(address, builder, element):
                vector = builder.load(pointer, align=size * len(lanes))
                parts = [builder.extract_element(vector, _I32(i)) for i in range(len(lanes))]
                values += [widen(builder, part) for part in parts]
            return cgutils.pack_array(builder, values)

        return types.UniTuple(number, 4)(array, index), codegen

    @intrinsic
    def store1(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            address = _address(context, builder, signature.args[0], args[0], args[1], element)
            builder.store(narrow(builder, args[2]), address, align=size)
            return context.get_dummy_value()

        return types.void(array, index, number), codegen

    @intrinsic
    def store4(typingctx: Any, array: Any, index: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            address = _address(context, builder, signature.args[0], args[0], args[1], element)
            values = [narrow(builder, value) for value in args[2:]]
            for pointer, lanes in _vectors(address, builder, element):
                vector = ir.Constant(ir.VectorType(element, len(lanes)), ir.Undefined)
                for place, lane in enumerate(lanes):
                    vector = builder.insert_element(vector, values[lane], _I32(place))
                builder.store(vector, pointer, align=size * len(lanes))
            return context.get_dummy_value()

        return types.void(array, index, number, number, number, number), codegen

    return Access(load1, load4, store1, store4)


@intrinsic
def load_words(typingctx: Any, array: Any, index: Any, count: Any) -> Any:
    """Load `count` (a literal, 2 or 4) neighbouring uint32 in one instruction."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    words = count.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(_I32, words)
        address = _address(context, builder, signature.args[0], args[0], args[1], vector)
        loaded = builder.load(address, align=4 * words)
        return cgutils.pack_array(
            builder, [builder.extract_element(loaded, _I32(i)) for i in range(words)]
        )

    return types.UniTuple(types.uint32, words)(array, index, count), codegen
