"""Dilated convolution that skips the taps which a tile's pixels see only in the padding.

Wins where the dilation is a good part of the map: a 3x3 kernel with dilation 12 on a 33x33 map has
43% of its products in the padding. It is the implicit GEMM with two tables in front (see
`dilated_costs`): pixels are taken region by region, and a tile multiplies only the panels in which
a tap of its pixels has a step. Steps run tap by tap in either memory order, since only then a tap
fills whole panels::

    33 rows, dilation 12      taps in reach             tiles of 128 pixels, 16 images
    12 .. 20                    0, 1, 2                 9 x 9     9 taps     10 tiles
    0 .. 11 and 21 .. 32        1, 2 and 0, 1          12 x 9     6 taps     14 each, four times
                                                       12 x 12    4 taps     18 each, four times

    for each panel in the tile's list:   its number was read one panel ahead
        as in `implicit_gemm`

Budget: that of the implicit GEMM, and the number of the next panel in a register; a panel costs one
load and two multiplications more. Pixels lie in runs as long as a region is wide, so a warp's loads
and stores meet a few more sectors than those of whole rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, CudaInfo

from ..common.launch import Kernel, launch
from ..common.plan import Panels, StepPlan, signature
from . import dilated_costs
from .blocking import Split
from .plan import choose_config, fit_alignment
from .source import Config, Walk, kernel_function

__all__ = ["BY_LIST", "DilatedPlan", "dilated_kernel", "plan", "plan_tile"]

BY_LIST = Walk(
    name="dilated",
    arrays="order, schedule",
    numbers="panel_count",
    group="group = u(cuda.blockIdx.z)",
    pixel="order[{at}]",
    start="""
weight_from = u((group * u(cuda.gridDim.y) + u(cuda.blockIdx.y)) * panel_count * A_PANEL)
weight_from = u(weight_from + tid * u(4))
steps_from = u(row * ROW)
list_at = u(schedule[u(cuda.blockIdx.x)])
panel = u(schedule[list_at])
""",
    before="weight_at = u(weight_from + panel * A_PANEL)\n"
    "steps_at = u(steps_from + panel * BK * ROW)",
    after="list_at = u(list_at + u(1))\npanel = u(schedule[list_at])",
    more=f"more = panel != u({dilated_costs.END})",
    epilogue="{epilogue}",
)


@functools.cache
def dilated_kernel(config: Config) -> Kernel:
    """Return the product's kernel."""
    return Kernel(
        f"dilated {config.name}",
        kernel_function(config, BY_LIST),
        signature(config.storage, "sctssstt", 1),
        config.tile.threads,
        config.blocks,
        config.tile.shared_bytes(8 if config.storage == "float64" else 4),
    )


@dataclass(frozen=True, eq=False)
class DilatedPlan(StepPlan):
    """One problem and binding made ready.

    Parameters
    ----------
    config : Config
        What the kernel is compiled for.
    split : Split
        The tiles; the reduction has one part.
    """

    config: Config
    split: Split

    @property
    def inner(self) -> bool:
        """Steps run tap by tap, whatever the input's memory order is."""
        return True

    def run(self, x: Any, packed: Any, bias: Any | None, residual: Any | None, out: Any) -> None:
        """Compute into `out`."""
        problem, split, tile = self.problem, self.split, self.config.tile
        operands, scalars = self.operands(x, packed, bias, residual, out), self.scalars(bias)
        order = self.table_at(x, "order", lambda: dilated_costs.pixel_order(problem, tile.bn))
        lists = self.table_at(x, "schedule", lambda: dilated_costs.schedule(problem, tile))
        grid = (split.pixel_blocks, split.channel_blocks, problem.groups)
        config = fit_alignment(self.config, operands[0], problem.itemsize)
        arguments = (*operands, order, lists, *scalars, np.uint32(split.panels))
        launch(dilated_kernel(config), grid, x, arguments)


def plan_tile(problem: ConvProblem, binding: Binding, split: Split) -> DilatedPlan:
    """Return the plan of a problem for a given tile."""
    config = choose_config(problem, binding, split)
    if config.loader == "pixels":  # neighbours in the grid need not be neighbours in memory
        config = replace(config, loader="single")
    panels = Panels(split.tile.bm, split.tile.bk, split.channel_blocks, split.panels)
    return DilatedPlan(problem, binding, panels, config.words, config, split)


def plan(problem: ConvProblem, binding: Binding, device: CudaInfo) -> DilatedPlan:
    """Return the plan of a problem; a kernel is compiled when it is first launched."""
    tile = dilated_costs.choose_tile(problem, device)
    return plan_tile(problem, binding, dilated_costs.whole_split(problem, tile))
