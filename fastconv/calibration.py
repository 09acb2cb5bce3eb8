"""``python -m fastconv calibrate``: what this machine does in a cycle and in a second.

The figures are kept, and from then on costs are those of this machine. Run it again where the
machine was busy: of each figure the best that was seen is kept and shown.
"""

from __future__ import annotations

from .contract.cpu import cpu_info
from .information import titled

__all__ = ["describe"]


def describe() -> str:
    """Measure the machine, keep the figures and return them, as a block of lines."""
    from .kernels.cpu.calibration.measure import measure
    from .kernels.cpu.machine import measured

    device = cpu_info()
    found, path = measured.keep(device, measure(device))
    bits, threads = 8 * device.vector_bytes, device.threads
    facts = {
        "clock": f"{found.clock / 1e9:.2f} GHz",
        "multiply-adds": f"{found.multiply_adds:.2f} a cycle, {bits}-bit vectors",
        "latency of one": f"{found.latency:.1f} cycles",
        "loads, stores in L1": f"{found.loads:.2f} and {found.stores:.2f} vectors a cycle",
        "gather": f"{found.gather:.1f} cycles a vector of float32",
        "transposition": f"{found.transposition:.0f} cycles a square of vectors of float32",
        "read from L2, L3": f"{found.l2:.0f} and {found.l3:.0f} bytes a cycle, one thread",
        "read from L3": _rate(found.l3_all, threads),
        "read from memory": f"{_rate(found.memory, 1)}; {_rate(found.memory_all, threads)}",
        "written to memory": f"{_rate(found.written, 1)}; {_rate(found.written_all, threads)}; "
        f"past the caches {_rate(found.past_all, threads)}",
        "a task": f"{1e9 * found.task:.0f} ns",
        "register tile": f"{found.far_loads:.2f} loads a cycle of operands in L2",
        "a call's helpers": f"{1e6 * found.handover:.1f} us where they watch, "
        f"{1e6 * found.wake:.0f} us where they sleep",
        "kept in": str(path or "no file: costs stay as they were"),
    }
    return titled(f"{device.name} ({device.model}), {device.isa}", facts)


def _rate(bytes_a_second: float, threads: int) -> str:
    plural = "" if threads == 1 else "s"
    return f"{bytes_a_second / 1e9:.0f} GB/s, {threads} thread{plural}"
