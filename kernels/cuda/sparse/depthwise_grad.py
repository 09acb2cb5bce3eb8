"""The gradient of a depthwise sparse convolution for its weight: a product a pair and channel.

    grad[offset, c] = sum over pairs (input i, output o) of the offset:  grad_out[o, c] * x[i, c]

    grid x: channels / 32    grid y: offsets    grid z: parts of the output rows
      block = 8 threads along rows x 32 channels
        for row of the part, every eighth:  sum += grad_out[row, c] * x[neighbour, c]
        through shared memory: the eight threads, one after another
    second pass (`parts`): the parts, one after another

It wins wherever each group holds one channel: there is no product of matrices to speak of, and a
tile of `sparse_weight_grad` would use one of its 1024 sums. Only bytes count here, 8 for a
multiply-add in float32, of neighbouring channels side by side. Runs, parts and rows are added in a
fixed order. Budget: under 32 registers, 1 KiB of shared memory (2 in float64).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda, int32, uint32
from numba.cuda import types

from fastconv.contract.rulebook import Rulebook
from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import CudaInfo, SparseBinding

from ..common.launch import Kernel, flat, launch
from ..common.plan import blocks_of
from ..common.vector import access, compute_type, storage_type
from .parts import PartsPlan
from .row_costs import DEPTHWISE_LANES, depthwise_parts

__all__ = ["DepthwiseGradPlan", "depthwise_grad_kernel", "plan"]

_LANES = DEPTHWISE_LANES
_ROW_THREADS = 8
_THREADS = _LANES * _ROW_THREADS


@functools.cache
def _function(storage: str) -> Callable[..., None]:
    load1, real = access(storage).load1, compute_type(storage)
    zero = (np.float64 if storage == "float64" else np.float32)(0)

    def depthwise_grad(
        x: Any, grad_out: Any, table: Any, partial: Any, rows: Any, channels: Any, part_rows: Any
    ) -> None:
        sums = cuda.shared.array(_THREADS, real)
        tid = uint32(cuda.threadIdx.x)
        lane, row_thread = uint32(tid % uint32(_LANES)), uint32(tid // uint32(_LANES))
        channel = uint32(uint32(cuda.blockIdx.x) * uint32(_LANES) + lane)
        offset = uint32(cuda.blockIdx.y)
        first = uint32(uint32(cuda.blockIdx.z) * part_rows)
        last = min(uint32(first + part_rows), rows)
        total = zero
        if channel < channels:
            for row in range(uint32(first + row_thread), last, uint32(_ROW_THREADS)):
                neighbour = table[uint32(offset * rows + uint32(row))]
                if neighbour >= int32(0):
                    grad = load1(grad_out, uint32(uint32(row) * channels + channel))
                    total += grad * load1(x, uint32(uint32(neighbour) * channels + channel))
        sums[tid] = total
        cuda.syncthreads()
        if row_thread == uint32(0) and channel < channels:
            for other in range(uint32(1), uint32(_ROW_THREADS)):
                total += sums[uint32(uint32(other) * uint32(_LANES) + lane)]
            part = uint32(uint32(cuda.blockIdx.z) * uint32(cuda.gridDim.y) + offset)
            partial[uint32(part * channels + channel)] = total

    return depthwise_grad


@functools.cache
def depthwise_grad_kernel(storage: str) -> Kernel:
    """Return the kernel of a storage type."""
    stored, summed = storage_type(storage)[::1], compute_type(storage)[::1]
    arguments = (stored, stored, types.int32[::1], summed, *[types.uint32] * 3)
    name, size = f"sparse_depthwise_grad {storage}", 8 if storage == "float64" else 4
    return Kernel(name, _function(storage), arguments, _THREADS, 8, _THREADS * size)


@dataclass(frozen=True, eq=False)
class DepthwiseGradPlan(PartsPlan):
    """One problem made ready.

    Parameters
    ----------
    part_rows, parts : int
        Output rows of a part, and the number of parts.
    """

    part_rows: int
    parts: int

    def run(self, rulebook: Rulebook, x: Any, grad_out: Any, weight_grad: Any) -> None:
        """Compute into `weight_grad`."""
        channels = self.problem.in_channels
        partial = self.new_parts(x, self.parts)
        arrays = (flat(x), flat(grad_out), flat(rulebook.neighbours), partial)
        numbers = map(uint32, (rulebook.out_rows, channels, self.part_rows))
        grid = (blocks_of(channels, _LANES), self.problem.volume, self.parts)
        launch(depthwise_grad_kernel(self.problem.dtype), grid, x, (*arrays, *numbers))
        self.add_parts(partial, self.parts, weight_grad)


def plan(problem: SparseProblem, binding: SparseBinding, device: CudaInfo) -> DepthwiseGradPlan:
    """Return the plan of a problem; kernels are compiled when they are first launched."""
    return DepthwiseGradPlan(problem, *depthwise_parts(problem, device))
