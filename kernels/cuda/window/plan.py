"""Direct and depthwise convolution: one pixel a thread, weights in shared memory.

`direct`, direct convolution with up to 16 output channels of a pixel a thread, wins where a group
has few output channels, which would leave most rows of a matrix tile empty: first layers, image
filters, groups of a handful of channels. `depthwise`, depthwise convolution with one channel of a
pixel a thread, wins for groups of one input channel, where there is no product to speak of and only
bytes count.

    direct     grid: pixels / 128, output channels / width, groups      width 1, 4 or 16 sums
    depthwise  grid: pixels / (128 / lanes), output channels / lanes    one sum

Lanes are neighbouring output channels in one block: 32 where channels are contiguous, so that a
warp reads and writes them side by side; else as many as a small map leaves room for.

Budget of direct, width 16, float32: 16 sums, a sample, 4 weights, under 64 registers; 4 KiB of
shared memory; a step is 16 FFMA to 4 shared loads of 128 bits, one sample and one row of the table.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, CudaInfo

from ..common.launch import Kernel, launch
from ..common.plan import Panels, StepPlan, blocks_of, signature
from ..common.steps import channels_inner
from ..gemm import blocking
from ..gemm.blocking import WINDOW_THREADS
from .source import CHUNK, depthwise_function, direct_function

__all__ = ["depthwise_kernel", "direct_kernel", "plan_depthwise", "plan_direct"]


def _shared(storage: str) -> int:
    """Return the bytes of shared memory of a block: a part of the weights."""
    return CHUNK * (8 if storage == "float64" else 4)


@functools.cache
def direct_kernel(storage: str, width: int, words: int) -> Kernel:
    """Return the kernel of `width` output channels a thread."""
    name, function = f"direct {storage} {width} w{words}", direct_function(storage, width, words)
    arrays = signature(storage, "sctsss", 1)
    return Kernel(name, function, arrays, WINDOW_THREADS, 8, _shared(storage))


@functools.cache
def depthwise_kernel(storage: str, words: int) -> Kernel:
    """Return the kernel of one input channel a group."""
    name, function = f"depthwise {storage} w{words}", depthwise_function(storage, words)
    arrays = signature(storage, "sctsss", 4)
    return Kernel(name, function, arrays, WINDOW_THREADS, 8, _shared(storage))


@dataclass(frozen=True, eq=False)
class DirectPlan(StepPlan):
    """A plan of `direct`: panels of one step and `width` output channels."""

    def run(self, x: Any, packed: Any, bias: Any | None, residual: Any | None, out: Any) -> None:
        """Compute into `out`."""
        problem, panels = self.problem, self.panels
        pixels = problem.batch * math.prod(problem.out_size)
        operands, scalars = self.operands(x, packed, bias, residual, out), self.scalars(bias)
        kernel = direct_kernel(problem.dtype, panels.bm, self.words)
        grid = (blocks_of(pixels, WINDOW_THREADS), panels.blocks, problem.groups)
        launch(kernel, grid, x, (*operands, *scalars, np.uint32(panels.count)))


@dataclass(frozen=True, eq=False)
class DepthwisePlan(StepPlan):
    """A plan of `depthwise`: the weight as it is, one output channel after another."""

    def run(self, x: Any, packed: Any, bias: Any | None, residual: Any | None, out: Any) -> None:
        """Compute into `out`."""
        problem = self.problem
        pixels = problem.batch * math.prod(problem.out_size)
        lanes, inner = blocking.depthwise_lanes(problem), channels_inner(problem)
        operands, scalars = self.operands(x, packed, bias, residual, out), self.scalars(bias)
        numbers = (self.panels.count, lanes, problem.out_channels, inner)
        grid = (
            blocks_of(pixels, WINDOW_THREADS // lanes),
            blocks_of(problem.out_channels, lanes),
            1,
        )
        kernel = depthwise_kernel(problem.dtype, self.words)
        launch(kernel, grid, x, (*operands, *scalars, *map(np.uint32, numbers)))


def plan_direct(problem: ConvProblem, binding: Binding, device: CudaInfo) -> DirectPlan:
    """Return the plan of `direct` for a problem."""
    width = blocking.direct_width(problem)
    channels, steps = problem.out_channels // problem.groups, math.prod(problem.weight_shape[1:])
    panels = Panels(width, 1, blocks_of(channels, width), steps)
    return DirectPlan(problem, binding, panels, blocking.mask_words(problem) or 0)


def plan_depthwise(problem: ConvProblem, binding: Binding, device: CudaInfo) -> DepthwisePlan:
    """Return the plan of `depthwise` for a problem."""
    taps = math.prod(problem.kernel_size)
    panels = Panels(1, 1, problem.out_channels // problem.groups, taps)
    return DepthwisePlan(problem, binding, panels, blocking.mask_words(problem) or 0)
