"""Depthwise convolution: each output channel is a window sliding over one input channel.

Wins for every depthwise layer, of any rank, stride, dilation and channel multiplier: a matrix
product would have a reduction of kh * kw steps and use one row of its tile. One arithmetic
(row_strip.py, row_tile.py) with three things in the lanes of a vector:

=====================  ==========================================  ======================
in the lanes           where                                       3x3, cycles a vector
=====================  ==========================================  ======================
pixels of a row        rows_in_place.py, or rows_copied.py a copy  9 multiply, 6 load
channels, as they lie  pixels_in_place.py                          9 multiply, 3 load
pixels x channels      rows_interleaved.py: few channels           9 multiply, 13 load
channels, transposed   pixels_transposed.py: small maps, long      9, and 25 to transpose
                       signals, kernels as large as the map
=====================  ==========================================  ======================

Floor: the larger of ``2 kh kw`` FLOP an output element over the peak, and 12 bytes an element (the
output is read before it is written) over the bandwidth: 3x3 0.08 ns against 0.11 ns from L3 and
0.27 ns from memory, so a 3x3 layer that does not fit the cores' L2 is bound by its bytes.
"""

from __future__ import annotations

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo, dense_binding

from ..runtime.plan import CpuPlan
from . import pixels_in_place, pixels_transposed, rows_copied, rows_in_place, rows_interleaved
from .variants import depthwise_variant

__all__ = ["plan", "workspace"]

_PLANS = {
    "rows_in_place": rows_in_place.plan,
    "rows_copied": rows_copied.plan,
    "rows_interleaved": rows_interleaved.plan,
    "pixels_in_place": pixels_in_place.plan,
    "pixels_transposed": pixels_transposed.plan,
}


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call with dense arrays, over all threads, or somewhat more."""
    variant = depthwise_variant(problem, dense_binding(problem), device)
    transposed = variant.name == "pixels_transposed"
    return (pixels_transposed if transposed else rows_copied).workspace(problem, device)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding."""
    variant = depthwise_variant(problem, binding, device)
    return _PLANS[variant.name](problem, binding, device)
