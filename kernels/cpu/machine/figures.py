"""What `measure` finds of a machine, in units that are the machine's own."""

from __future__ import annotations

from .fields import Fields

__all__ = ["Figures", "better"]

#: What is better where there is less of it; of all else more is better.
_TIMES = {"latency", "gather", "transposition", "task", "handover", "wake"}


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

    What else runs on a machine makes it slower and never faster.
    """
    values = vars(second)
    return Figures(**{
        name: min(value, values[name]) if name in _TIMES else max(value, values[name])
        for name, value in vars(first).items()
    })  # fmt: skip
