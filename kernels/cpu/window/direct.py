"""Direct convolution for few channels: image filters, and layers with a handful of outputs.

Wins where a matrix product has too few rows to fill its tile: a filter bank on a grey or colour
image, or a last layer that brings many channels to one to three. It is the depthwise arithmetic
(row_tile.py) with the sum running over the group's input channels as well::

    for block of output channels            as many as registers allow: each loaded vector serves
      strip of nv vectors                   all of them; sums over input channel, depth, row, column

Grouped layers of 3 to 32 channels a group run at 75 to 90% of the peak: with 4 channels a group and
3x3, 4 channels x 3 rows x 2 vectors of sums make 24 multiply-adds out of 16 cycles of loads.

The input is read in place (rows_in_place.py) where its rows are contiguous; else a band of it, all
channels, is copied once (rows_copied.py), and a copied vector is used ``K kh kw`` times.
"""

from __future__ import annotations

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..runtime.plan import CpuPlan
from . import rows_copied, rows_in_place
from .rows_copied import workspace
from .variants import row_variant

__all__ = ["plan", "workspace"]


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel for one problem and one binding."""
    variant = row_variant(problem, binding, device)
    module = rows_in_place if variant.name == "rows_in_place" else rows_copied
    return module.plan(problem, binding, device)
