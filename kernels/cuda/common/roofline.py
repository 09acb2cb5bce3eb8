"""What a launch cannot be faster than: the one model of time, of dispatch and of the forecast.

A launch is counted, not measured: no machine of the project has a GPU. `LaunchCost` holds what it
moves and multiplies, and how its blocks share the multiprocessors; `bounds` turns that into seconds
on a GPU model. The greatest of these decides how long it runs, and the start of the launch is
added:

    arithmetic + waves    multiply-adds over the rate that the main loop's instructions allow, and
                          what is lost while the last blocks leave units idle
    shared + waves        bytes to and from shared memory over its banks' 128 bytes a cycle
    memory                bytes of input, weight, output and workspace, once, over the bandwidth
    l2                    bytes that blocks read, each once a block, over the ports to L2

A multiprocessor starts four warp instructions a cycle, one on each of its schedulers. A main loop
in which a share of 0.86 multiplies and adds thus reaches 110 multiply-adds a cycle, or all 64 on a
model that has units for 64. An 8 x 8 tile of a thread reads 16 words for 64 multiply-adds, so that
the banks allow 120 a cycle; one of 4 x 4 allows 57.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import CudaInfo

__all__ = [
    "BOUNDS",
    "FMA_FRACTIONS",
    "LaunchCost",
    "bounds",
    "breakdown",
    "copy_seconds",
    "seconds",
    "touched",
]

#: What a launch's time is made of.
BOUNDS = ("arithmetic", "shared", "waves", "memory", "l2", "launch")
#: Part of a main loop's instructions that multiplies and adds, by tile or by the sums of a thread
#: of direct and depthwise, for sums of 4 and 8 bytes: ``python -m fastconv audit --sm sm_80``, the
#: loader "single".
FMA_FRACTIONS = {
    ("128x128x8", 4): 0.858,
    ("128x64x8", 4): 0.855,
    ("64x64x8", 4): 0.809,
    ("32x32x16", 4): 0.694,
    ("64x64x16", 8): 0.683,
    ("32x32x16", 8): 0.626,
    ("window 1", 4): 0.049,
    ("window 4", 4): 0.170,
    ("window 16", 4): 0.372,
    ("window 1", 8): 0.047,
    ("window 4", 8): 0.157,
    ("window 16", 8): 0.333,
    ("sparse 128x64x8", 4): 0.834,
    ("sparse 64x64x8", 4): 0.814,
    ("sparse 32x32x16", 4): 0.694,
    ("sparse 64x64x16", 8): 0.653,
    ("sparse 32x32x16", 8): 0.635,
    ("weight grad 64x64x16", 4): 0.865,
    ("weight grad 32x32x16", 4): 0.711,
    ("weight grad 32x32x16", 8): 0.621,
    ("sparse depthwise 1", 4): 0.051,
    ("sparse depthwise 4", 4): 0.157,
    ("sparse depthwise 1", 8): 0.047,
    ("sparse depthwise 4", 8): 0.123,
}
#: Warps that a multiprocessor starts an instruction of in a cycle (sm_70 and later: CUDA C++
#: Programming Guide, architecture of each compute capability).
_SCHEDULERS = 4
_WARP = 32
#: Bytes a cycle of a multiprocessor: of its 32 banks of shared memory, and from L2 (two sectors).
_BANKS = 128
_PORT = 64
#: Nominal seconds of a launch.
_LAUNCH = 4e-6


@dataclass(frozen=True, slots=True)
class LaunchCost:
    """One launch, as counted.

    Parameters
    ----------
    name : str
        What it does.
    read, written : int
        Bytes of device memory, each once.
    requested : int
        Bytes that the blocks read, each once a block.
    blocks, warps : int
        Blocks of the grid, and warps of a block; no blocks where only bytes count.
    macs : int
        Multiply-adds of one block, those of a tile's idle edges included.
    shared : int
        Bytes that the threads of one block read and write of shared memory.
    resident : int
        Blocks that a multiprocessor runs at once.
    share : float
        Part of the main loop's instructions that multiplies and adds.
    itemsize : int
        Bytes of a sum.
    """

    name: str
    read: int
    written: int
    requested: int
    blocks: int = 0
    warps: int = 1
    macs: int = 0
    shared: int = 0
    resident: int = 1
    share: float = 1.0
    itemsize: int = 4


def touched(problem: ConvProblem, pixels: int) -> int:
    """Return the samples of a channel that consecutive pixels of the output need, each once.

    What lies between them along a contiguous axis counts too, since sectors are read whole.

    Examples
    --------
    One row of a 3x3 layer reads three rows; a 1x1 layer of stride two skips every other row.

    >>> from fastconv.contract.problem_line import parse_line
    >>> touched(parse_line("ic64ih56oc64kh3ph1")[0], 56) // 56
    3
    >>> touched(parse_line("ic64ih56oc64kh1sh2")[0], 28 * 28) // 55
    28
    """
    samples = 1
    for axis in reversed(range(problem.ndim)):
        span = min(problem.out_size[axis], pixels)
        pixels = -(-pixels // problem.out_size[axis])
        taps = problem.kernel_size[axis]
        samples_read = (span - 1) * problem.stride[axis] + (taps - 1) * problem.dilation[axis] + 1
        if axis < problem.ndim - 1 or problem.layout == "channels_last":
            samples_read = min(samples_read, span * taps)
        samples *= min(samples_read, problem.in_size[axis])
    return samples * pixels


def bounds(work: LaunchCost, device: CudaInfo) -> dict[str, float]:
    """Return the seconds of each of `BOUNDS` for one launch, whichever of them decides."""
    clock, units = device.clock, device.multiprocessors
    peak = device.flops(work.itemsize) / (2 * units * clock)
    cycles = {
        "arithmetic": work.macs / min(peak, work.share * _SCHEDULERS * _WARP),
        "shared": work.shared / _BANKS,
    }
    # The busiest multiprocessor: full rounds of blocks, and a last one. A round of fewer warps than
    # there are schedulers takes as long as if all had work.
    least = _SCHEDULERS / work.warps
    rounds, rest = divmod(-(-work.blocks // units), work.resident)
    busiest = rounds * max(work.resident, least) + (max(rest, least) if rest else 0)
    spread = work.blocks / units
    return {
        **{name: spread * count / clock for name, count in cycles.items()},
        "waves": (busiest - spread) * max(cycles.values()) / clock,
        "memory": (work.read + work.written) / device.bandwidth,
        "l2": work.requested / (_PORT * units * clock),
        "launch": _LAUNCH,
    }


def breakdown(launches: Iterable[LaunchCost], device: CudaInfo) -> dict[str, float]:
    """Return what the time of launches in a row is made of: each adds its deciding bound."""
    total = dict.fromkeys(BOUNDS, 0.0)
    for work in launches:
        seconds = bounds(work, device)
        decides = max(
            (("arithmetic", "waves"), ("shared", "waves"), ("memory",), ("l2",)),
            key=lambda names: sum(seconds[name] for name in names),
        )
        for name in (*decides, "launch"):
            total[name] += seconds[name]
    return total


def seconds(launches: Iterable[LaunchCost], device: CudaInfo) -> float:
    """Return the counted time of launches in a row."""
    return sum(breakdown(launches, device).values())


def copy_seconds(problem: ConvProblem, device: CudaInfo) -> float:
    """Return the time of bringing a weight into another order: it is read and written once."""
    moved = math.prod(problem.weight_shape) * (problem.itemsize + problem.compute_itemsize)
    return moved / device.bandwidth + _LAUNCH
