"""Memory by address, and calls by address, for what Numba compiles here."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = ["call", "peek", "poke"]

_I64 = ir.IntType(64)


@intrinsic
def peek(typingctx: Any, address: Any) -> Any:
    """Return the 64-bit integer at `address`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _I64.as_pointer()), align=4)

    return types.int64(types.int64), codegen


@intrinsic
def poke(typingctx: Any, address: Any, value: Any) -> Any:
    """Write the 64-bit integer `value` at `address`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], _I64.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), codegen


@intrinsic
def call(typingctx: Any, function: Any, first: Any, second: Any) -> Any:
    """Call the function at an address with two 64-bit integers; it returns one."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        type_ = ir.FunctionType(_I64, [_I64, _I64])
        return builder.call(builder.inttoptr(args[0], type_.as_pointer()), args[1:])

    return types.int64(types.int64, types.int64, types.int64), codegen
