"""How a caller in machine code, without the GIL, lets Python's signal handlers run now and then.

Only Python's main thread runs them. Functions of Python are called by addresses that the state of
the pool holds (see `jobs`), so that compiled code may be kept on disk.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..simd.ir import I32, I64, pointer

__all__ = ["FUNCTIONS", "call_number", "call_with", "main_thread", "raise_if"]

#: Functions of Python that machine code calls: none takes more than one number, all return one.
FUNCTIONS = (
    "PyThread_get_thread_ident",
    "PyGILState_Ensure",
    "PyGILState_Release",
    "PyErr_CheckSignals",
)


def address(name: str) -> int:
    """Return the address of a function of Python."""
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


def main_thread() -> int:
    """Return what `PyThread_get_thread_ident` returns in the main thread, as `call_number` sees it.

    It is an unsigned long, which has 32 bits on some systems: those are compared. A thread with the
    same ones asks for signals in vain.
    """
    return ctypes.c_int32(threading.main_thread().ident or 0).value


@intrinsic
def call_number(typingctx: Any, function: Any) -> Any:
    """Call a function at an address that takes nothing; return the 32-bit number that it does."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(I32, [])
        return builder.sext(builder.call(pointer(builder, args[0], kind), []), I64)

    return types.intp(types.intp), codegen


@intrinsic
def call_with(typingctx: Any, function: Any, number: Any) -> Any:
    """Call a function at an address that takes a 32-bit number and returns nothing."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I32])
        builder.call(pointer(builder, args[0], kind), [builder.trunc(args[1], I32)])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def raise_if(typingctx: Any, raised: Any) -> Any:
    """Leave a function that Python calls, where Python's error has been set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        with builder.if_then(builder.icmp_signed("!=", args[0], I64(0)), likely=False):
            context.call_conv.return_exc(builder)
        return context.get_dummy_value()

    return types.void(types.intp), codegen
