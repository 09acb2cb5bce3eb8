"""From cycles and bytes to seconds, on the machine that a device is.

Every cost model ends here; `profile.py` says what a profile is.
"""

from __future__ import annotations

import math

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from .profile import Profile
from .zen4 import ZEN4

__all__ = ["call_seconds", "copy_seconds", "peak_flops", "profile", "vectors_a_cycle"]


def profile(device: DeviceInfo) -> Profile:
    """Return the profile of a device: that of the one machine that has been measured.

    Instruction set, caches and threads are the device's own, and cost models read them there.
    """
    return ZEN4


def vectors_a_cycle(device: DeviceInfo) -> float:
    """Return how many vectors a core loads, or multiplies and adds, in a cycle."""
    core = profile(device).core
    return core.wide_vectors if device.vector_bytes == 64 else core.narrow_vectors


def peak_flops(device: DeviceInfo, itemsize: int) -> float:
    """Return a nominal FLOP/s over all threads, for costs that are compared with each other."""
    vectors = vectors_a_cycle(device) * (1.0 if device.fma else 0.5)  # two instructions without FMA
    clock = profile(device).core.nominal
    return clock * 2 * device.lanes(itemsize) * vectors * device.threads


def call_seconds(
    cycles: float,
    moved: float,
    *,
    clock: float,
    bandwidth: float,
    start: float,
    wait: float = 0.0,
    workers: int = 1,
) -> float:
    """Return the time of a call: its cycles, or its bytes where they take longer, and its start.

    Parameters
    ----------
    cycles : float
        Of the busiest thread, or of all together where `workers` names them.
    moved : float
        Bytes from beyond the caches.
    clock, bandwidth, start : float
        Hz, bytes a second and seconds, of the device's profile.
    wait : float
        Seconds before the first of the bytes come.
    workers : int
        Threads that share the cycles.
    """
    return max(cycles / clock / workers, moved / bandwidth + wait) + start


def copy_seconds(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the time of bringing a weight into another order: it is read and written once."""
    machine = profile(device)
    moved = math.prod(problem.weight_shape) * (problem.itemsize + problem.compute_itemsize)
    bandwidth = machine.memory.repacked * device.threads
    return moved / bandwidth + machine.packing.copy_start
