"""What the machine is: instruction set, caches, threads.

The instruction set is the one that Numba compiles for, found by compiling: ``NUMBA_CPU_NAME`` (say
``haswell``, with ``NUMBA_CPU_FEATURES`` set and empty, or Numba adds the host's) therefore changes
every kernel's tiles with it.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path

from . import first_use
from .cpu_model import cpu_model, cpu_name
from .settings import config
from .spec import DeviceInfo

__all__ = ["cpu_info"]

# What an instruction set offers: vector bytes, vector registers. Sources: Intel SDM vol. 1 ch. 5
# and 15, Arm ARM C7 (32 vector registers of 128 bits).
_ISAS = {"avx512": (64, 32), "avx2": (32, 16), "sse2": (16, 16), "neon": (16, 32)}

# A 16-lane multiply-add: the registers in its assembly tell the widest legal vector, a call tells
# that there is no FMA instruction. Rounding to bfloat16 is one instruction where products of
# bfloat16 are.
_PROBE = """
define <16 x float> @probe(<16 x float> %a, <16 x float> %b, <16 x float> %c) {
  %r = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
  ret <16 x float> %r
}
define <16 x bfloat> @round(<16 x float> %a) {
  %r = fptrunc <16 x float> %a to <16 x bfloat>
  ret <16 x bfloat> %r
}
declare <16 x float> @llvm.fmuladd.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""


@functools.cache
def _probe_isa() -> tuple[str, bool, bool]:
    """Return the instruction set that Numba compiles for, whether it has FMA, and AVX512-BF16."""
    import llvmlite.binding as llvm
    from numba.core.registry import cpu_target

    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    assembly = machine.emit_assembly(llvm.parse_assembly(_PROBE))
    if re.match(r"aarch64|arm64", triple):
        return "neon", True, False
    fused = "vfmadd" in assembly
    if "%zmm" in assembly:
        return "avx512", fused, "vcvtneps2bf16" in assembly
    return "avx2" if "%ymm" in assembly and fused else "sse2", fused, False


def _cache_sizes() -> dict[int, int]:
    """Return data cache bytes by level as Linux tells them, with common sizes where it does not."""
    sizes = {1: 32 << 10, 2: 512 << 10, 3: 8 << 20}
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, level, size = (
                (index / leaf).read_text().strip() for leaf in ("type", "level", "size")
            )
        except OSError:
            continue
        if kind != "Instruction" and size[-1:] in units:
            sizes[int(level)] = int(size[:-1]) * units[size[-1]]
    return sizes


@functools.cache
def _machine() -> DeviceInfo:
    isa, fused, bf16_dot = first_use.run(_probe_isa)
    vector_bytes, registers = _ISAS[isa]
    caches = _cache_sizes()
    return DeviceInfo(
        kind="cpu",
        name=cpu_name(),
        model=cpu_model(),
        isa=isa,
        vector_bytes=vector_bytes,
        registers=registers,
        fma=fused,
        l1=caches[1],
        l2=caches[2],
        l3=caches[3],
        threads=1,
        bf16_dot=bf16_dot,
    )


@functools.cache
def _with_threads(threads: int) -> DeviceInfo:
    return replace(_machine(), threads=threads)


def cpu_info() -> DeviceInfo:
    """Return the CPU as kernels see it, with the thread count now in force.

    Examples
    --------
    >>> from fastconv.contract.cpu import cpu_info
    >>> cpu_info().kind
    'cpu'
    """
    return _with_threads(config.num_threads)
