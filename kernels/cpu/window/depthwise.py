"""Depthwise convolution: each output channel is a window sliding over one input channel.

Wins for every depthwise layer, of any rank, stride, dilation and channel multiplier: a matrix
product would have a reduction of kh * kw steps and use one row of its tile. One arithmetic
(row_strip.py, row_tile.py) with three things in the lanes of a vector:

=============================  =======================================  =====================
in the lanes                   where                                    3x3, cycles a vector
=============================  =======================================  =====================
pixels of a row                rows_in_place.py in place; rows_copied.py a copy   9 multiply, 6 load
channels, as they lie          pixels_in_place.py               9 multiply, 3 load
pixels x channels              rows_interleaved.py: few channels             9 multiply, 13 load
channels, turned into lanes    pixels_transposed.py: small maps, long    9, and 25 for turning
                               signals, kernels as large as the map
=============================  =======================================  =====================

Floor: the larger of ``2 kh kw`` FLOP an output element over the peak, and 12 bytes an element (the
output is read before it is written) over the bandwidth: 3x3 0.08 ns against 0.11 ns from L3 and
0.27 ns from memory, so a 3x3 layer that does not fit the cores' L2 is bound by its bytes.
"""

from __future__ import annotations

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..runtime.plan import CpuPlan
from . import pixels_in_place, pixels_transposed, rows_copied, rows_in_place, rows_interleaved
from .pixel_costs import block_cycles, map_cycles
from .row_costs import interleaved_cycles, row_cycles

__all__ = ["plan", "workspace"]


def _turns(problem: ConvProblem, device: DeviceInfo) -> bool:
    """Return whether turning channels into lanes saves more cycles than it costs."""
    return block_cycles(problem, device) < row_cycles(problem, device)


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    way = pixels_transposed if _turns(problem, device) else rows_copied
    return way.workspace(problem, device)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding."""
    if rows_interleaved.fits(problem, binding, device):
        mixed, apart = interleaved_cycles(problem, device), map_cycles(problem, device)
        if mixed < (apart or mixed + 1):
            return rows_interleaved.plan(problem, binding, device)
    if pixels_in_place.fits(problem, binding, device):
        return pixels_in_place.plan(problem, binding, device)
    if _turns(problem, device) and pixels_transposed.fits(problem, binding, device):
        return pixels_transposed.plan(problem, binding, device)
    way = rows_in_place if rows_in_place.fits(problem, binding, device) else rows_copied
    return way.plan(problem, binding, device)
