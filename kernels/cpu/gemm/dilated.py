"""Dilated convolution that skips the taps which see only padding.

Wins where the dilation is a good part of the map: a 3x3 kernel with dilation 12 on a 33x33 map has
43% of its products in the padding. The output is cut into regions within which one box of taps
reaches the input, and each region is a matrix product over those taps alone::

    rows of the output      taps in reach            33 rows, dilation 12, padding 12
    0  .. 11                     1, 2
    12 .. 20                  0, 1, 2                 x the same along the columns: 9 regions
    21 .. 32                  0, 1                    (75 / 99)**2 = 57% of the products

The arithmetic, the packing and the weight's order are those of `im2col_gemm`; only the list of
regions differs. Sums go through a tile of scratch memory, since a region's pixels are no contiguous
part of the output.
"""

from __future__ import annotations

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, ConvPlan, DeviceInfo

from ...taps import regions

__all__ = ["plan", "workspace"]


def workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    from .channel_rows import workspace_regions

    return workspace_regions(problem, device, regions(problem))


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> ConvPlan:
    """Prepare the kernel for one problem and one binding."""
    from .channel_rows import plan_regions

    return plan_regions(problem, binding, device, regions(problem))
