"""Depthwise sparse convolution: every channel is summed by itself, channels in the lanes.

Wins wherever each group holds one channel: a matrix product would fill one lane. The walk over the
pairs of an output row is that of row_walk.py; a pair adds the product of one row of x and one
row of the weight, which lies as ``(volume, channels)`` in compute precision::

    task = block of output rows
      for row
        for block of 4 vectors of channels: sums = bias
          for pair of the row: sums += w[offset] * x[input row]
        activation; halves are rounded here, from a row of sums in the workspace

Bound by memory. Of 64 float32 channels a pair reads 256 bytes of x and 256 of the weight, which
stays in L1 or L2 (27 x 256 bytes = 7 KB), makes 4 multiply-adds, and takes 8 bytes of the list.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import DeviceInfo, SparseBinding

from ...axes import ACTIVATION_CODES
from ..common.activations import activate
from ..machine.lines import whole_lines
from ..runtime.plan import compile_kernel, compute_dtype, worth_helpers
from ..simd.intrinsics import load_masked, range_mask, store_masked
from ..simd.ir import ITEMSIZE, compute_code, storage_code
from .row_plan import RowPlan, RowStage, row_blocks, row_lists
from .row_walk import FIELDS, MULTIPLY, make_row, view

__all__ = ["plan", "workspace"]


@functools.cache
def _make_kernel(lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    compute = compute_code(storage)
    item, size, direct = ITEMSIZE[storage], ITEMSIZE[compute], int(storage == compute)
    compute_row = make_row(MULTIPLY, lanes, storage, compute)

    @numba.njit
    def epilogue_row(g: Any, sums: int, out: int) -> None:
        for c in range(0, g.channels, lanes):
            mask = range_mask(0, min(lanes, g.channels - c))
            value = load_masked(sums + c * size, mask, compute, lanes)
            store_masked(out + c * item, activate(value, g.activation, g.alpha), mask, storage)

    def task(
        geometry: int, x: int, weight: int, bias: int, unused: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        for row in range(number * g.block, min(g.rows, (number + 1) * g.block)):
            target = out + row * g.out_pitch
            sums = target if direct else workspace + worker * g.sums_pitch
            compute_row(g, x, weight, bias, sums, row)
            if g.activation or not direct:
                epilogue_row(g, sums, target)

    return task


def _sums_pitch(problem: SparseProblem) -> int:
    """Return the bytes of a row of sums, of which each worker has its own where halves are kept."""
    if problem.itemsize == problem.compute_itemsize:
        return 0
    return whole_lines(problem.out_channels * problem.compute_itemsize)


def workspace(problem: SparseProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    return _sums_pitch(problem) * device.threads


def plan(problem: SparseProblem, binding: SparseBinding, device: DeviceInfo) -> RowPlan:
    """Prepare the kernel for one problem and one binding."""
    storage = storage_code(problem.dtype)
    lanes = device.lanes(problem.compute_itemsize)
    dtype = compute_dtype(problem.dtype)

    def pack(weight: NDArray[Any]) -> NDArray[Any]:
        taps = weight.reshape(problem.out_channels, problem.volume).T
        return np.ascontiguousarray(taps, dtype)

    block, tasks = row_blocks(problem.out_rows, device)
    pitch = problem.out_channels * problem.itemsize
    values = {
        "rows": problem.out_rows,
        "block": block,
        "pairs": problem.pairs,
        "channels": problem.out_channels,
        "x_pitch": pitch,
        "out_pitch": pitch,
        "other_size": problem.compute_itemsize,
        "other_pitch": problem.out_channels * problem.compute_itemsize,
        "sums_pitch": _sums_pitch(problem),
        "activation": ACTIVATION_CODES[binding.activation],
        "alpha": binding.alpha,
    }
    kernel = compile_kernel(_make_kernel(lanes, storage), "sparse_depthwise", lanes, storage)
    return RowPlan(
        fields=FIELDS,
        stages=(RowStage(kernel, tasks, values, row_lists),),
        workers=worth_helpers(problem.macs, device.threads),
        workspace_bytes=workspace(problem, device),
        packing=("sparse_depthwise", problem.dtype == "float64"),
        pack_weight=pack,
        no_bias=np.zeros(problem.out_channels, dtype),
        flush=binding.flush,
    )
