"""Depthwise convolution: each output channel is a window sliding over one input channel.

Wins for every depthwise layer, of any rank, stride, dilation and channel multiplier: a matrix
product would have a reduction of kh * kw steps and use one row of its tile. Here (window.py)
vectors run along the image's rows, a loaded vector serves up to four output rows, and the weights
of kernels up to 5x5 stay in registers.

Budget (AVX-512, float32, 3x3): 4 rows x 4 vectors of sums, 4 vectors of input, 9 weights: 29 of 32
registers; 144 multiply-adds out of 72 loads. Floor: the larger of ``2 kh kw`` FLOP an output
element over the peak, and 8 bytes an element over the bandwidth (3x3: 0.08 ns against 0.4 ns from
memory, so a 3x3 layer that does not fit the cache is bound by memory).
"""

from __future__ import annotations

from fastconv.problem import ConvProblem
from fastconv.spec import Binding, DeviceInfo

from . import depthwise_blocks, depthwise_channels_last, sliding, stencil
from .plan import CpuPlan
from .strips import cut_cycles

__all__ = ["plan", "workspace"]


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    return sliding.workspace(problem, device)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding."""
    if depthwise_channels_last.fits(problem, binding, device):
        return depthwise_channels_last.plan(problem, binding, device)
    in_place = stencil.fits(problem, binding, device)
    if depthwise_blocks.fits(problem, binding, device):
        rows = cut_cycles(problem, device)
        if depthwise_blocks.cycles(problem, device) < rows:
            return depthwise_blocks.plan(problem, binding, device)
    way = stencil if in_place else sliding
    return way.plan(problem, binding, device)
