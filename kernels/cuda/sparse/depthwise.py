"""Sparse depthwise convolution: each channel has its own weights, channels lie across threads.

    out[row, channel] = sum over offset of x[neighbours[offset, row], channel] * weight[...]

It wins wherever each group holds one channel: there is no product to speak of, only bytes, and a
matrix tile would hold one channel of 32 and more.

    grid x: output rows / (128 / lanes)    grid y: channels / (lanes * width)
      for each four offsets:
        four input rows by the table       one address for the lanes of a row
        four samples, where there are any  `width` channels a thread, neighbours side by side
        acc += sample * weight             by rising offset

`width` is four where channels come in aligned fours, so that a load fetches 128 bits, else one.
Lanes are the power of two that holds a row's channels, at most a block. Rows need no sorting: a
row that meets nothing at an offset reads nothing there.

Budget: `width` sums, four samples and weights each on the way, at most 64 registers, no shared
memory. Four loads of samples in flight a thread hide what one waits for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import CudaInfo, SparseBinding

from ..common.launch import Kernel, flat, is_aligned, launch
from ..common.plan import blocks_of
from ..common.source import compile_text, namespace_of
from ..gemm.tile import fill, indent
from .gemm_costs import DEPTHWISE_THREADS, OFFSETS_AT_ONCE, depthwise_lanes
from .gemm_source import EPILOGUE_SPARSE
from .plan import OffsetPanels, SparseConvPlan, argument_types

__all__ = ["SparseDepthwisePlan", "depthwise_kernel", "plan"]

_TEXT = """
tid = u(cuda.threadIdx.x)
row = u(u(cuda.blockIdx.x) * (THREADS // lanes) + tid // lanes)
first_channel = u((u(cuda.blockIdx.y) * lanes + tid % lanes) * WIDTH)
if row < rows and first_channel < channels:
    {start}
    first = u(0)
    while first < volume:
        {offsets}
        first = u(first + AT_ONCE)
    {epilogue}
"""


def _offsets(width: int) -> str:
    """Return code for some offsets: all input rows, then all samples, then all sums."""
    zeros = f"({'ZERO, ' * width})"
    rows, samples, sums = [], [], []
    for i in range(OFFSETS_AT_ONCE):
        rows += [f"input{i} = NONE", f"if first + u({i}) < volume:"]
        rows.append(f"    input{i} = u(neighbours[u((first + u({i})) * rows + row)])")
        samples += [f"sample{i} = {zeros}", f"tap{i} = {zeros}", f"if input{i} != NONE:"]
        sample = f"u(input{i} * channels + first_channel)"
        tap = f"u((first + u({i})) * channels + first_channel)"
        wide = width == 4
        samples.append(
            f"    sample{i} = {f'load4(x, {sample})' if wide else f'(load1(x, {sample}),)'}"
        )
        samples.append(f"    tap{i} = {f'load4s(weight, {tap})' if wide else f'(weight[{tap}],)'}")
        sums += [f"acc{lane} += sample{i}[{lane}] * tap{i}[{lane}]" for lane in range(width)]
    return "\n".join(rows + samples + sums)


def _epilogue(width: int) -> str:
    """Return code that stores the sums, one channel after another in a rolled loop."""
    pick = "\n".join(f"value = acc{i} if lane == u({i}) else value" for i in range(1, width))
    store = EPILOGUE_SPARSE.format(out="row * channels")
    return (
        f"for lane in range(u({width})):\n    value = acc0\n"
        + (indent(pick) if pick else "")
        + "    channel = u(first_channel + lane)\n"
        + indent(store)
    )


@functools.cache
def _function(storage: str, width: int) -> Callable[..., None]:
    """Return the kernel as a plain Python function."""
    text = (
        "def sparse_depthwise(x, weight, neighbours, bias, out, rows, channels, volume, lanes, "
        "has_bias, activation, alpha):\n"
    ) + indent(
        fill(
            _TEXT,
            start="\n".join(f"acc{i} = ZERO" for i in range(width)),
            offsets=_offsets(width),
            epilogue=_epilogue(width),
        )
    )
    namespace = namespace_of(storage)
    numbers = {"THREADS": DEPTHWISE_THREADS, "WIDTH": width, "AT_ONCE": OFFSETS_AT_ONCE}
    numbers["NONE"] = 2**32 - 1
    namespace |= {name: np.uint32(value) for name, value in numbers.items()}
    return compile_text(text, "sparse_depthwise", f"sparse_depthwise {storage} x{width}", namespace)


@functools.cache
def depthwise_kernel(storage: str, width: int) -> Kernel:
    """Return the kernel of `width` channels a thread."""
    name = f"sparse_depthwise {storage} x{width}"
    arguments = argument_types(storage, "sciss", 6)
    return Kernel(name, _function(storage, width), arguments, DEPTHWISE_THREADS, 8)


@dataclass(frozen=True, eq=False)
class SparseDepthwisePlan(SparseConvPlan):
    """One problem and binding made ready; the packed weight is ``(volume, channels)``."""

    def run(self, rulebook: Any, x: Any, packed: Any, bias: Any | None, out: Any) -> None:
        """Compute into `out`."""
        problem = self.problem
        if problem.out_rows == 0:
            return
        samples, results, channels = flat(x), flat(out), problem.out_channels
        size = 4 * problem.itemsize
        wide = channels % 4 == 0 and is_aligned(samples, size)
        width = 4 if wide else 1
        lanes = depthwise_lanes(channels, width)
        rows = blocks_of(problem.out_rows, DEPTHWISE_THREADS // lanes)
        grid = (rows, blocks_of(channels, lanes * width), 1)
        arguments = (
            samples, flat(packed), flat(rulebook.neighbours),
            results if bias is None else flat(bias), results,
            *self.scalars((problem.out_rows, channels, problem.volume, lanes), bias),
        )  # fmt: skip
        launch(depthwise_kernel(problem.dtype, width), grid, out, arguments)


def plan(problem: SparseProblem, binding: SparseBinding, device: CudaInfo) -> SparseDepthwisePlan:
    """Return the plan of a problem; a kernel is compiled when it is first launched."""
    # As panels of one step over all channels, whose "groups" are the rows of the weight.
    panels = OffsetPanels(problem.out_channels, 1, 1, 1, 1)
    return SparseDepthwisePlan(problem, binding, panels)
