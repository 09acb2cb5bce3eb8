"""What `measure` finds of a machine, in units that are the machine's own."""

from __future__ import annotations

from .fields import Fields

__all__ = ["Figures", "better"]

#: What is better where there is less of it; of all else more is better.
_TIMES = {"latency", "gather", "transposition", "task", "handover", "wake"}
#: What is told by the cycle, and what in cycles: quotients with the clock of their measurement.
_BY_CYCLE = {"multiply_adds", "loads", "stores", "far_loads", "l2", "l3"}
_IN_CYCLES = {"latency", "gather", "transposition"}


class Figures(Fields):
    """A machine in two dozen figures; a vector is the widest one of the instruction set.

    Parameters
    ----------
    clock : float
        Hz, of a chain of additions.
    multiply_adds, loads, stores : float
        Vectors a cycle, on one core and in L1.
    latency : float
        Cycles from one multiply-add to the next on the same sum.
    gather : float
        Cycles to gather a vector of float32, 12 bytes apart, from L1.
    transposition : float
        Cycles to load, transpose and store a square of vectors of float32.
    far_loads : float
        Loads a cycle of a register tile, one of them a vector and the others elements that are
        broadcast to a multiply-add each, whose operands come from L2.
    l2, l3 : float
        Bytes a cycle that one core reads from there.
    l3_all : float
        Bytes a second that all threads read from L3 together.
    memory, memory_all : float
        Bytes a second that one thread, and all of them, read from memory.
    written, written_all : float
        The same of ordinary stores, which read the line first.
    past_all : float
        The same of all threads' stores past the caches.
    task : float
        Seconds to take a task and to begin it.
    handover : float
        Seconds that a call on all threads takes, beside its tasks, while the helpers watch.
    wake : float
        The same where they sleep.
    """

    clock: float
    multiply_adds: float
    loads: float
    stores: float
    latency: float
    gather: float
    transposition: float
    far_loads: float
    l2: float
    l3: float
    l3_all: float
    memory: float
    memory_all: float
    written: float
    written_all: float
    past_all: float
    task: float
    handover: float
    wake: float


def better(first: Figures, second: Figures) -> Figures:
    """Return the better of two measurements of one machine, figure by figure.

    What else runs on a machine makes it slower and never faster. That holds for what was timed, so
    rates and times are compared: a clock that was measured too low, alone, makes every number of
    cycles beside it look too good.

    Examples
    --------
    >>> from fastconv.kernels.cpu.machine.shipped import ZEN4_FIGURES
    >>> right = ZEN4_FIGURES[64]
    >>> low = {"clock": right.clock / 2, "multiply_adds": 2 * right.multiply_adds}
    >>> better(right, Figures(**{**vars(right), **low})).multiply_adds
    1.0
    """
    clock = max(first.clock, second.clock)
    values = {}
    for name in vars(first):
        kept = [_timed(name, figures, clock) for figures in (first, second)]
        values[name] = min(kept) if name in _TIMES else max(kept)
    return Figures(**values)


def _timed(name: str, figures: Figures, clock: float) -> float:
    """Return a figure as it is of the same time, or rate, at another clock."""
    value: float = getattr(figures, name)
    if name in _BY_CYCLE:
        return value * (figures.clock / clock)
    return value * (clock / figures.clock) if name in _IN_CYCLES else value
