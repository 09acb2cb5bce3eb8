"""What threads need of the processor: words that they share, pauses, the floating-point mode.

All of it lowers to single instructions. Words are 64 bits wide and named by their address; what
another thread may see is read and written in one order for all threads (sequentially consistent).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..simd.ir import I8, I32, I64, call, pointer

__all__ = [
    "claim_word",
    "fence",
    "float_mode",
    "increment_word",
    "load_word",
    "moment",
    "pause",
    "read_word",
    "set_float_mode",
    "store_word",
    "swap_word",
    "ticks",
    "yield_processor",
]

# Bits of the floating-point control word that make denormals zero, as operands and as results:
# DAZ and FTZ of MXCSR (Intel SDM vol. 1, 10.2.3), FZ of FPCR (Arm ARM C5.2.8).
_X86_FLUSH = 1 << 6 | 1 << 15
_ARM_FLUSH = 1 << 24
_BYTES = I8.as_pointer()


@intrinsic
def load_word(typingctx: Any, address: Any) -> Any:
    """Read a word that other threads write."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(pointer(builder, args[0], I64), "seq_cst", 8)

    return types.intp(types.intp), codegen


@intrinsic
def store_word(typingctx: Any, address: Any, value: Any) -> Any:
    """Write a word that other threads read."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], pointer(builder, args[0], I64), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def swap_word(typingctx: Any, address: Any, value: Any) -> Any:
    """Write a word and return the one that was there."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("xchg", pointer(builder, args[0], I64), args[1], "seq_cst")

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def fence(typingctx: Any) -> Any:
    """Wait until all that was stored, past the caches too, can be seen by other threads."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def increment_word(typingctx: Any, address: Any) -> Any:
    """Add one to a word."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", pointer(builder, args[0], I64), I64(1), "seq_cst")

    return types.intp(types.intp), codegen


@intrinsic
def claim_word(typingctx: Any, address: Any, expected: Any) -> Any:
    """Add one to a word if it still holds `expected`; return whether it did."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        after = builder.add(args[1], I64(1))
        pair = builder.cmpxchg(pointer(builder, args[0], I64), args[1], after, "seq_cst", "seq_cst")
        return builder.zext(builder.extract_value(pair, 1), I64)

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def pause(typingctx: Any) -> Any:
    """Tell the processor that this is a spin loop."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        architecture = _architecture(builder)
        if architecture == "arm":
            call(builder, "llvm.aarch64.hint", ir.VoidType(), I32(1))  # yield
        elif architecture == "x86":
            call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def read_word(typingctx: Any, address: Any) -> Any:
    """Read a word."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(pointer(builder, args[0], I64))

    return types.intp(types.intp), codegen


def _architecture(builder: Any) -> str:
    """Return "x86", "arm" or "" for any other."""
    triple = builder.module.triple
    if triple.startswith(("x86_64", "i686", "i386")):
        return "x86"
    return "arm" if triple.startswith(("aarch64", "arm64")) else ""


@intrinsic
def float_mode(typingctx: Any) -> Any:
    """Return this thread's floating-point control word; 0 where there is none that is known."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        architecture = _architecture(builder)
        if architecture == "arm":
            return call(builder, "llvm.aarch64.get.fpcr", I64)
        if architecture == "":
            return I64(0)
        slot = builder.alloca(I32)
        call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), builder.bitcast(slot, _BYTES))
        return builder.zext(builder.load(slot), I64)

    return types.intp(), codegen


@intrinsic
def set_float_mode(typingctx: Any, mode: Any, flush: Any) -> Any:
    """Set this thread's control word, and where `flush` is not 0 with the bits for denormals."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        architecture = _architecture(builder)
        bits = I64(_ARM_FLUSH if architecture == "arm" else _X86_FLUSH)
        wanted = builder.icmp_signed("!=", args[1], I64(0))
        word = builder.select(wanted, builder.or_(args[0], bits), args[0])
        if architecture == "arm":
            call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), word)
        elif architecture == "x86":
            slot = builder.alloca(I32)
            builder.store(builder.trunc(word, I32), slot)
            call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), builder.bitcast(slot, _BYTES))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def yield_processor(typingctx: Any, function: Any) -> Any:
    """Call a function without arguments at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.call(pointer(builder, args[0], ir.FunctionType(I32, [])), [])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def ticks(typingctx: Any) -> Any:
    """Return a clock that goes on by `moment` in about 100 ms; 0 where none is known."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        architecture = _architecture(builder)
        if architecture == "x86":
            return call(builder, "llvm.readcyclecounter", I64)
        return _system_register(builder, "cntvct_el0") if architecture == "arm" else I64(0)

    return types.intp(), codegen


@intrinsic
def moment(typingctx: Any) -> Any:
    """Return the ticks of 50 to 200 ms."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _architecture(builder) == "arm":  # a sixteenth of a second
            return builder.lshr(_system_register(builder, "cntfrq_el0"), I64(4))
        return I64(1 << 27)  # time-stamp counters go at 1.3 to 5 GHz

    return types.intp(), codegen


def _system_register(builder: Any, name: str) -> Any:
    """Read a register of an Arm processor's generic timer, which user code may."""
    code = ir.InlineAsm(ir.FunctionType(I64, []), f"mrs $0, {name}", "=r", side_effect=True)
    return builder.call(code, [])
