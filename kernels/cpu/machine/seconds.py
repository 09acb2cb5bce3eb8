"""From cycles and bytes to seconds, on the machine that a device is.

Every cost model ends here; `profile.py` says what a profile is.
"""

from __future__ import annotations

import math

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from .in_force import InForce, in_force
from .profile import Profile

__all__ = [
    "STREAMED_SHARE",
    "call_seconds",
    "copy_seconds",
    "peak_flops",
    "profile",
    "profile_source",
    "transform_seconds",
]

#: What was found for a device; it holds as long as the process lives.
_found: dict[DeviceInfo, InForce] = {}


def _find(device: DeviceInfo) -> InForce:
    found = _found.get(device)
    if found is None:
        found = _found[device] = in_force(device)
    return found


#: Transformed weights of a larger part of L3 are stored past the caches (winograd/weights.py).
STREAMED_SHARE = 4


def profile(device: DeviceInfo) -> Profile:
    """Return the profile of a device.

    Instruction set, caches and threads are the device's own, and cost models read them there.
    """
    return _find(device).profile


def profile_source(device: DeviceInfo) -> str:
    """Return where the profile of a device is from, in words.

    Examples
    --------
    >>> from fastconv.kernels.cpu.machine.zen4 import ZEN4
    >>> profile_source(ZEN4.device).split()[0] in ("shipped", "measured")
    True
    """
    return _find(device).source


def peak_flops(device: DeviceInfo, itemsize: int) -> float:
    """Return a nominal FLOP/s over all threads, for costs that are compared with each other."""
    core = profile(device).core
    vectors = core.multiply_adds * (1.0 if device.fma else 0.5)  # two instructions without FMA
    return core.nominal * 2 * device.lanes(itemsize) * vectors * device.threads


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
    moved = math.prod(problem.weight_shape) * (problem.weight_itemsize + problem.compute_itemsize)
    bandwidth = machine.memory.repacked * device.threads
    return moved / bandwidth + machine.packing.copy_start


def transform_seconds(elements: int, problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the time of making a transformed weight of so many elements: taps come, they go."""
    packing, taps = profile(device).packing, math.prod(problem.weight_shape)
    size, written = problem.compute_itemsize, profile(device).memory.weights_written
    seconds = (taps * packing.tap + elements * packing.element) * (size / 4) / device.threads
    if elements * size > device.l3 // STREAMED_SHARE:
        seconds = max(seconds, elements * size / written)
    return seconds + packing.transform_start
