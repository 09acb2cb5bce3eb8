"""What a cost model may know of a machine: every clock, bandwidth and measured number of cycles.

A cost model counts what a kernel does: steps, vectors, bytes, tasks. What each of these takes is
measured, differs from machine to machine, and stands in a `Profile`: here and in `mechanisms.py`
are its fields and their units, in `zen4.py` values with what was measured. What follows from a
kernel's code or from a limit on its sizes (registers, steps of a sum, bytes of a block) is no
matter of the machine and stays with the kernel.

The unit is cycles of one core where a field names no other; a vector is a full one. Profiles are
compared by identity, so that they are cheap keys of what is kept.
"""

from __future__ import annotations

from fastconv.contract.spec import DeviceInfo

from .fields import Fields
from .mechanisms import (
    Brgemm,
    FastFir,
    Fft,
    Gemm,
    Sparse,
    Window,
    Winograd,
    Winograd1d,
)

__all__ = ["Calls", "Core", "Memory", "Packing", "Profile"]


class Core(Fields):
    """One core. Its three clocks are those that three sets of cycles were fitted with.

    Parameters
    ----------
    nominal : float
        Hz, of the multiply-add peak that a share of is a cost.
    sustained : float
        Hz, of packed matrix products, of windows and of sparse kernels.
    peak : float
        Hz, of `brgemm`, both kinds of Winograd and fast FIR.
    multiply_adds, loads : float
        Full vectors that are multiplied and added in a cycle, and that are loaded from L1.
    far_loads : float
        Loads a cycle of a register tile whose operands come from L2.
    latency : float
        From one multiply-add to the next on the same sum.
    """

    nominal: float
    sustained: float
    peak: float
    multiply_adds: float
    loads: float
    far_loads: float
    latency: float


class Memory(Fields):
    """Bandwidths, in bytes a second of all cores together where none is named.

    Parameters
    ----------
    operands : float
        Of a call's operands, each moved once in long stretches.
    scattered_writes : float
        Of the same where tiles write to a dozen places in turn.
    far_rows : float
        Of input and output that half of L3 does not hold, by blocks whose rows lie far apart.
    repacked : float
        Of a weight that is brought into another order, each core.
    row_core, rows : float
        Of rows that a sparse kernel gathers from memory: one core, and all.
    window_l3, window_memory : float
        Of windows that slide over their input, from L3 and from memory.
    weights_l3, weights_memory : float
        Of transformed weights that outgrow L2, next to the products that read them: from L3 and
        from memory, for each thread.
    weights_written : float
        Of transformed weights that are stored past the caches, by all threads.
    """

    operands: float
    scattered_writes: float
    far_rows: float
    repacked: float
    row_core: float
    rows: float
    window_l3: float
    window_memory: float
    weights_l3: float
    weights_memory: float
    weights_written: float


class Calls(Fields):
    """What it takes to begin.

    Parameters
    ----------
    start : float
        Seconds of a call beside its arithmetic.
    task : float
        To take a task and to begin its loops.
    """

    start: float
    task: float


class Packing(Fields):
    """Bringing weights into a kernel's order, in seconds.

    Parameters
    ----------
    copy_start : float
        Of a copy, beside its bytes.
    tap, element : float
        Of a transform on one thread: four bytes that it reads, and four that it writes.
    transform_start : float
        Of a transform, beside its elements.
    """

    copy_start: float
    tap: float
    element: float
    transform_start: float


class Profile(Fields):
    """A machine as the cost models see it; fields are grouped by mechanism.

    Its `device` is the machine that the values were measured on, with all of its threads.
    """

    device: DeviceInfo
    core: Core
    memory: Memory
    calls: Calls
    packing: Packing
    gemm: Gemm
    brgemm: Brgemm
    winograd: Winograd
    winograd_1d: Winograd1d
    window: Window
    fast_fir: FastFir
    fft: Fft
    sparse: Sparse
