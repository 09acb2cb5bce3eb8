"""Loops that do one thing: what a core adds, multiplies, loads, stores, gathers and transposes.

Each is a Numba intrinsic ``loop(rounds, address)`` whose body is unrolled, so that the counter
costs nothing beside it. What no one reads would be left out by the compiler, and what does not
change would be done once: an empty piece of assembly, which may read and write anything as far as
the compiler knows, stands in every round.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..simd.ir import (
    FLOAT,
    I8,
    I32,
    I64,
    broadcast,
    call,
    fmuladd,
    load_vector,
    mangle,
    pointer,
    store_vector,
    transposed,
)

__all__ = ["LOOPS", "OUTER_ROW", "OUTER_STEPS", "Loop", "make_loop"]

#: Additions, multiply-adds and memory accesses of a round.
_CHAIN = 10
_ACCESSES = 8
#: Enough sums for four pipes of latency four, or two of five, in as many registers as there are.
_SUMS = {16: 12, 32: 20}
#: Bytes of a row of elements of an outer product, and most of its steps.
OUTER_ROW, OUTER_STEPS = 196, 2048
_ARM = platform.machine().lower() in ("aarch64", "arm64")


class Loop(NamedTuple):
    """What one round does.

    Parameters
    ----------
    starts : callable
        ``starts(builder, address)`` returns the values that the first round is given.
    body : callable
        ``body(builder, address, round, values)`` does one round and returns those of the next.
    amount : callable
        ``amount(lanes, registers)`` returns how often a round does the thing that is measured.
    """

    starts: Callable[..., list[Any]]
    body: Callable[..., list[Any]]
    amount: Callable[[int, int], int]


def _fence(builder: Any) -> None:
    """Let the compiler believe that memory was read and written."""
    builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], True)


def _register(value: Any) -> str:
    """Return how assembly asks for a register that holds a value."""
    if not isinstance(value.type, ir.VectorType):
        return "r"
    every = "v" if value.type.count == 16 else "x"  # of AVX-512 all 32, not the first 16 alone
    return "w" if _ARM else every


def _opaque(builder: Any, value: Any) -> Any:
    """Return a value of which the compiler knows nothing."""
    kind = ir.FunctionType(value.type, [value.type])
    return builder.asm(kind, "", f"={_register(value)},0", [value], True)


def _use(builder: Any, value: Any) -> None:
    """Let a vector be read in a register."""
    kind = ir.FunctionType(ir.VoidType(), [value.type])
    builder.asm(kind, "", _register(value), [value], True)


def _at(builder: Any, address: Any, offset: Any) -> Any:
    return pointer(builder, builder.add(address, offset), I8)


def _vector(builder: Any, address: Any, lanes: int, index: int = 0) -> Any:
    return load_vector(builder, _at(builder, address, I64(4 * lanes * index)), lanes, 0)


def _additions(lanes: int, registers: int) -> Loop:
    """Make a chain of additions of integers, a cycle each: the clock."""

    def body(builder: Any, address: Any, index: Any, values: list[Any]) -> list[Any]:
        (value,) = values
        for _ in range(_CHAIN):
            value = builder.add(_opaque(builder, value), I64(1))
        return [value]

    return Loop(lambda builder, address: [I64(0)], body, lambda *_: _CHAIN)


def _products(lanes: int, registers: int, sums: int, length: int) -> Loop:
    """Make `sums` chains of `length` multiply-adds."""

    def starts(builder: Any, address: Any) -> list[Any]:
        # Equal sums would be merged; the factor comes last.
        return [_vector(builder, address, lanes, i) for i in range(sums + 1)]

    def body(builder: Any, address: Any, index: Any, values: list[Any]) -> list[Any]:
        *added, factor = values
        for _ in range(length):
            for i, value in enumerate(added):
                factor = _opaque(builder, factor)  # or products would be made once
                added[i] = fmuladd(builder, factor, factor, value)
        return [*added, factor]

    return Loop(starts, body, lambda *_: sums * length)


def _loads(lanes: int, registers: int) -> Loop:
    def body(builder: Any, address: Any, index: Any, values: list[Any]) -> list[Any]:
        for i in range(_ACCESSES):
            _use(builder, _vector(builder, address, lanes, i))
        _fence(builder)
        return []

    return Loop(lambda *_: [], body, lambda *_: _ACCESSES)


def _stores(lanes: int, registers: int) -> Loop:
    def starts(builder: Any, address: Any) -> list[Any]:
        return [_vector(builder, address, lanes)]

    def body(builder: Any, address: Any, index: Any, values: list[Any]) -> list[Any]:
        for i in range(_ACCESSES):
            store_vector(builder, _at(builder, address, I64(4 * lanes * i)), values[0], 0)
        _fence(builder)
        return values

    return Loop(starts, body, lambda *_: _ACCESSES)


def _gathers(lanes: int, registers: int) -> Loop:
    """Make gathers of elements that lie 12 bytes apart, as those of three channels do."""

    def body(builder: Any, address: Any, index: Any, values: list[Any]) -> list[Any]:
        kind = ir.VectorType(FLOAT, lanes)
        steps = ir.Constant(ir.VectorType(I64, lanes), [I64(12 * lane) for lane in range(lanes)])
        every = ir.Constant(ir.VectorType(ir.IntType(1), lanes), [ir.IntType(1)(1)] * lanes)
        for i in range(_ACCESSES):
            base = broadcast(builder, builder.add(address, I64(4 * i)), lanes)
            places = builder.inttoptr(
                builder.add(base, steps), ir.VectorType(I8.as_pointer(), lanes)
            )
            name = f"llvm.masked.gather.{mangle(kind)}.v{lanes}p0"
            zero = ir.Constant(kind, None)
            _use(builder, call(builder, name, kind, places, I32(4), every, zero))
        _fence(builder)
        return []

    return Loop(lambda *_: [], body, lambda *_: _ACCESSES)


def _transpositions(lanes: int, registers: int) -> Loop:
    """Make one square of vectors, loaded, transposed in registers and stored behind itself."""

    def body(builder: Any, address: Any, index: Any, values: list[Any]) -> list[Any]:
        rows = [_vector(builder, address, lanes, i) for i in range(lanes)]
        for i, column in enumerate(transposed(builder, rows)):
            place = _at(builder, address, I64(4 * lanes * (lanes + i)))
            store_vector(builder, place, column, 0)
        _fence(builder)
        return []

    return Loop(lambda *_: [], body, lambda *_: 1)


def _stream(lanes: int, registers: int, write: bool, past: bool = False) -> Loop:
    """Make a walk through memory, `_ACCESSES` vectors a round."""

    def starts(builder: Any, address: Any) -> list[Any]:
        return [_vector(builder, address, lanes)] if write else []

    def body(builder: Any, address: Any, index: Any, values: list[Any]) -> list[Any]:
        here = builder.add(address, builder.mul(index, I64(4 * lanes * _ACCESSES)))
        for i in range(_ACCESSES):
            place = builder.add(here, I64(4 * lanes * i))
            if not write:
                _use(builder, load_vector(builder, pointer(builder, place, I8), lanes, 0))
                continue
            stored = builder.store(
                values[0], pointer(builder, place, values[0].type), align=4 * lanes
            )
            if past:
                stored.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        _fence(builder)
        return values

    return Loop(starts, body, lambda lanes, _: 4 * lanes * _ACCESSES)


def _outer_products(lanes: int, registers: int) -> Loop:
    """Make steps of a register tile whose operands come from L2, as those of many channels do.

    A step is a vector and as many elements as there are sums, each broadcast to a multiply-add; the
    elements lie in a row of `OUTER_ROW` bytes, as pixels of a 7x7 map of one channel.
    """
    sums = _SUMS[registers]

    def starts(builder: Any, address: Any) -> list[Any]:
        return [_vector(builder, address, lanes, i) for i in range(sums)]

    def body(builder: Any, address: Any, index: Any, values: list[Any]) -> list[Any]:
        vectors = builder.add(address, builder.mul(index, I64(4 * lanes)))
        row = builder.add(address, builder.mul(index, I64(OUTER_ROW)))
        vector, added = _vector(builder, vectors, lanes), []
        for i, value in enumerate(values):
            place = builder.add(row, I64(4 * (lanes * OUTER_STEPS + i)))
            element = builder.load(pointer(builder, place, FLOAT), align=4)
            added.append(fmuladd(builder, broadcast(builder, element, lanes), vector, value))
        _fence(builder)
        return added

    return Loop(starts, body, lambda *_: sums + 1)


#: What is measured: a `Loop` of so many lanes and registers.
LOOPS: dict[str, Callable[[int, int], Loop]] = {
    "addition": _additions,
    "multiply_add": lambda lanes, registers: _products(lanes, registers, _SUMS[registers], 1),
    "latency": lambda lanes, registers: _products(lanes, registers, 1, _CHAIN),
    "load": _loads,
    "store": _stores,
    "gather": _gathers,
    "transposition": _transpositions,
    "outer_product": _outer_products,
    "read": lambda lanes, registers: _stream(lanes, registers, write=False),
    "write": lambda lanes, registers: _stream(lanes, registers, write=True),
    "write_past": lambda lanes, registers: _stream(lanes, registers, write=True, past=True),
}


@functools.cache
def make_loop(name: str, lanes: int, registers: int) -> Any:
    """Return ``loop(rounds, address)`` for Numba code; at least one round is run.

    Parameters
    ----------
    name : str
        A key of `LOOPS`.
    lanes, registers : int
        Of float32 vectors.
    """
    made = LOOPS[name](lanes, registers)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rounds, address = args
        starts = made.starts(builder, address)
        before, loop, after = (
            builder.block,
            builder.append_basic_block("loop"),
            builder.append_basic_block("after"),
        )
        builder.branch(loop)
        builder.position_at_end(loop)
        index = builder.phi(I64)
        values = [builder.phi(start.type) for start in starts]
        ends = made.body(builder, address, index, values)
        following = builder.add(index, I64(1))
        for phi, start, end in zip([index, *values], [I64(0), *starts], [following, *ends],
                                   strict=True):  # fmt: skip
            phi.add_incoming(start, before)
            phi.add_incoming(end, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, rounds), loop, after)
        builder.position_at_end(after)
        for end in ends:
            if isinstance(end.type, ir.VectorType):
                _use(builder, end)
        return context.get_dummy_value()

    @intrinsic
    def loop(typingctx: Any, rounds: Any, address: Any) -> Any:
        return types.void(types.intp, types.intp), codegen

    return loop
