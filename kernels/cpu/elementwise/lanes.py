"""Vectors in the loops of a chain: operations that are an instruction or two, and choices of lanes.

The loops over tiles are written here, in LLVM, one a case of a switch: a loop around the switch
would branch for each vector, which costs as much as the operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from ..simd.ir import (
    I8,
    I64,
    ITEMSIZE,
    call,
    constant,
    literal,
    load_vector,
    mangle,
    pointer,
    store_vector,
)

__all__ = ["SIMPLE", "absolute", "negative", "pick_equal", "pick_less", "run_simple"]

Emit = Callable[[Any, Any, Any], Any]


def _by_llvm(name: str) -> Emit:
    """Return what emits an LLVM intrinsic of one vector."""
    return lambda builder, x, _: call(builder, f"llvm.{name}.{mangle(x.type)}", x.type, x)


def _extreme(sign: str) -> Emit:
    """Return what emits a maximum or minimum, NaN where either is."""

    def emit(builder: Any, a: Any, b: Any) -> Any:
        either = builder.select(builder.fcmp_ordered(sign, a, b), a, b)  # b where one is NaN
        return builder.select(builder.fcmp_unordered("uno", a, a), a, either)

    return emit


def _leaky(builder: Any, x: Any, slope: Any) -> Any:
    above = builder.fcmp_ordered(">", x, constant(x.type, 0.0))
    return builder.select(above, x, builder.fmul(x, slope))


_EMIT: dict[str, Emit] = {
    "add": lambda builder, a, b: builder.fadd(a, b),
    "sub": lambda builder, a, b: builder.fsub(a, b),
    "mul": lambda builder, a, b: builder.fmul(a, b),
    "div": lambda builder, a, b: builder.fdiv(a, b),
    "max": _extreme(">"),
    "min": _extreme("<"),
    "leaky_relu": _leaky,
    "neg": lambda builder, x, _: builder.fneg(x),
    "abs": _by_llvm("fabs"),
    "sqrt": _by_llvm("sqrt"),
    "floor": _by_llvm("floor"),
    "ceil": _by_llvm("ceil"),
    "round": _by_llvm("rint"),
}
#: The operations of `run_simple`, whose codes are their places.
SIMPLE = tuple(_EMIT)


@intrinsic(prefer_literal=True)
def run_simple(
    typingctx: Any, code: Any, a: Any, a_step: Any, b: Any, b_step: Any, out: Any, vectors: Any,
    compute: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Compute the operation of a code on so many vectors, which lie some bytes apart."""
    storage, count = literal(compute), literal(lanes)
    if storage is None or count is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        which, first, first_step, second, second_step, target, number = args[:7]
        size = I64(count * ITEMSIZE[storage])

        def read(address: Any, step: Any, index: Any) -> Any:
            place = builder.add(address, builder.mul(index, step))
            return load_vector(builder, pointer(builder, place, I8), count, storage)

        done = builder.append_basic_block("done")
        switch = builder.switch(which, done)
        for place, name in enumerate(SIMPLE):
            block = builder.append_basic_block(name)
            switch.add_case(I64(place), block)
            builder.position_at_end(block)
            with cgutils.for_range(builder, number) as loop:
                x, y = (
                    read(address, step, loop.index)
                    for address, step in ((first, first_step), (second, second_step))
                )
                place_out = builder.add(target, builder.mul(loop.index, size))
                value = _EMIT[name](builder, x, y)
                store_vector(builder, pointer(builder, place_out, I8), value, storage)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*([types.intp] * 7), compute, lanes), codegen


@intrinsic
def absolute(typingctx: Any, x: Any) -> Any:
    """Return ``|x|``."""
    return x(x), lambda context, builder, signature, args: _EMIT["abs"](builder, args[0], None)


@intrinsic
def negative(typingctx: Any, x: Any) -> Any:
    """Return ``-x``."""
    return x(x), lambda context, builder, signature, args: builder.fneg(args[0])


def _pick(sign: str) -> Callable[..., Any]:
    """Return the code of a choice by a comparison, which is not true of NaN."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, x, y = args
        return builder.select(builder.fcmp_ordered(sign, a, b), x, y)

    return codegen


@intrinsic
def pick_less(typingctx: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    """Return `x` where ``a < b``, else `y`."""
    return a(a, a, a, a), _pick("<")


@intrinsic
def pick_equal(typingctx: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    """Return `x` where ``a == b``, else `y`."""
    return a(a, a, a, a), _pick("==")
