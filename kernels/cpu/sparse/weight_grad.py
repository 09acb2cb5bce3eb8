"""Gradient of a sparse convolution for its weight: a sum of outer products an offset.

``grad[k, c, offset] = sum over pairs (i, o) of the offset: grad_out[o, k] * x[i, c]``, so an offset
is a matrix product ``x[i].T @ grad_out[o]`` over its pairs. It runs through the register tile of
gemm/tile.py: rows are input channels, lanes are output channels, steps are pairs::

    task = some offsets (or blocks of output channels or of groups of one), a share of all pairs
      for block of output rows                         their x and grad_out: L2
        for offset of the task
          the pairs: a stretch of the table of neighbours without its -1
          for 256 pairs, by rising output row
            copy their rows of x and grad_out, widened 128 KB at 64 channels: L2
            for panel of output channels
              for tile of input channels: sums[c, k] += x[i, c] * grad_out[o, k]
    task = 16 output channels
      round and store the sums of all offsets to their places, (K, C / groups, volume)

Rows outside, offsets inside: with a sweep over all rows for each of 27 offsets, 64 channels to 64
on a scan of 115,000 sites were bound by memory: 89 ms on two threads, now 41, of which products
take 28.

No task writes where another does and no sum is split; where a chunk of pairs ends depends on table
and sizes alone. So the bits do not depend on the number of threads, and a chunk's products are
summed apart from those before them, which keeps a sum over 100,000 pairs as good as one over a few
hundred. At 64 channels a pair is 256 multiply-adds of a vector and 24 loads and stores of copies.

Depthwise weights (one channel a group) are sums of products of rows, channels in the lanes: the
walk over pairs of row_walk.py, pairs of an offset in the place of those of a row.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.rulebook import Rulebook
from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import DeviceInfo, SparseBinding

from ..gemm.tile import tile_address
from ..machine.lines import LINE, whole_lines
from ..runtime.plan import compile_kernel, worth_helpers
from ..simd.ir import compute_code, storage_code
from ..simd.register_tiles import gemm_tile, sized_tile
from .row_plan import RowPlan, RowStage
from .weight_grad_tasks import (
    CHUNK,
    FIELDS,
    TRANSPOSED_ROWS,
    make_depthwise,
    make_products,
    make_store,
)

__all__ = ["plan", "workspace"]

#: Fewest and most output rows whose pairs a task sums, offset by offset, before it goes on.
_LEAST_ROWS, _MOST_ROWS = 512, 8192


def _pitch(size: int) -> int:
    """Return the bytes between rows of a copy: lines, but no power of two, which share L1 sets."""
    return whole_lines(size) + (LINE if size % 1024 == 0 else 0)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Groups as the tasks see them, their split, and where things lie in the workspace."""

    groups: int
    in_channels: int
    out_channels: int
    blocks: int
    group_block: int
    k_block: int
    a_pitch: int
    b_pitch: int
    sums_pitch: int
    sums_offset: int
    worker_bytes: int

    def b_at(self) -> int:
        """Return where a worker's copies of gradients lie."""
        return 8 * CHUNK + CHUNK * self.a_pitch


def _layout(problem: SparseProblem, device: DeviceInfo) -> _Layout:
    """Divide the result into tasks: blocks of output channels, or of groups where there are some.

    All sites meet at the offset of the centre, a seventh of the pairs of a scan; blocks are for
    machines with so many threads that they would wait for it.
    """
    size = problem.compute_itemsize
    groups = 1 if problem.is_depthwise else problem.groups
    in_channels = 1 if problem.is_depthwise else problem.in_channels // groups
    out_channels = problem.out_channels // groups
    rows = min(problem.in_rows, problem.out_rows)
    wanted = max(
        -(-2 * device.threads * rows // max(1, problem.pairs)),
        -(-2 * device.threads // problem.volume),
    )
    panel = max(LINE // size, sized_tile(device, size).nr)
    units = groups if groups > 1 else -(-out_channels // panel)
    share = -(-units // min(units, wanted))
    group_block, k_block = (share, out_channels) if groups > 1 else (1, share * panel)
    sums_pitch = whole_lines(out_channels * size)
    a_pitch = b_pitch = 0
    if not problem.is_depthwise:
        a_pitch = _pitch(group_block * in_channels * size)
        b_pitch = _pitch(min(group_block * out_channels, group_block * k_block) * size)
    return _Layout(
        groups=groups,
        in_channels=in_channels,
        out_channels=out_channels,
        blocks=-(-units // share),
        group_block=group_block,
        k_block=k_block,
        a_pitch=a_pitch,
        b_pitch=b_pitch,
        sums_pitch=sums_pitch,
        sums_offset=groups * in_channels * sums_pitch,
        worker_bytes=whole_lines(8 * CHUNK + CHUNK * (a_pitch + b_pitch)),
    )


def _row_block(problem: SparseProblem, device: DeviceInfo) -> int:
    """Return as many output rows as fit in L2 with the rows that they meet."""
    row = (problem.in_channels + problem.out_channels) * problem.itemsize
    return max(_LEAST_ROWS, min(_MOST_ROWS, device.l2 // row))


def workspace(problem: SparseProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    layout = _layout(problem, device)
    return problem.volume * layout.sums_offset + device.threads * layout.worker_bytes


def plan(problem: SparseProblem, binding: SparseBinding, device: DeviceInfo) -> RowPlan:
    """Prepare the kernel for one problem."""
    storage, layout = storage_code(problem.dtype), _layout(problem, device)
    tile = gemm_tile(device, storage)
    lanes = tile.lanes
    values = {
        "rows": problem.out_rows,
        "row_block": _row_block(problem, device),
        "group_count": layout.groups,
        "volume": problem.volume,
        "x_pitch": problem.in_channels * problem.itemsize,
        "grad_pitch": problem.out_channels * problem.itemsize,
        "workers_at": problem.volume * layout.sums_offset,
        "a_at": 8 * CHUNK,
        "b_at": layout.b_at(),
    }
    for name in ("in_channels", "out_channels", "blocks", "group_block", "k_block", "a_pitch",
                 "b_pitch", "sums_pitch", "sums_offset", "worker_bytes"):  # fmt: skip
        values[name] = getattr(layout, name)
    if problem.is_depthwise:
        task = make_depthwise(lanes, storage)
        multiply = compile_kernel(task, "sparse_depthwise_weight_grad", lanes, storage)
    else:
        values["tile"] = tile_address(tile, compute_code(storage))
        task = make_products(lanes, tile.nr, tile.mr, storage)
        multiply = compile_kernel(task, "sparse_weight_grad", lanes, tile.nr, tile.mr, storage)
    store = compile_kernel(make_store(storage), "sparse_weight_store", storage)
    tasks = min(device.threads, problem.volume * layout.blocks)
    units = layout.groups * -(-layout.out_channels // TRANSPOSED_ROWS)
    return RowPlan(
        fields=FIELDS,
        stages=(
            RowStage(multiply, tasks, values, lambda book: _shares(book, layout.blocks, tasks)),
            RowStage(store, units, values, lambda book: {}),
        ),
        workers=worth_helpers(problem.macs, device.threads),
        workspace_bytes=workspace(problem, device),
        flush=binding.flush,
    )


def _shares(rulebook: Rulebook, blocks: int, tasks: int) -> dict[str, NDArray[Any]]:
    """Divide the blocks of all offsets into shares of about as many pairs.

    The largest first, each to the task that has least to do so far.
    """
    table = rulebook.neighbours
    pairs = np.repeat(np.count_nonzero(table >= 0, axis=1), blocks)
    owned: list[list[int]] = [[] for _ in range(tasks)]
    loads = [(0, task) for task in range(tasks)]
    for block in np.argsort(-pairs, kind="stable").tolist():
        load, task = heapq.heappop(loads)
        owned[task].append(block)
        heapq.heappush(loads, (load + int(pairs[block]), task))
    return {
        "neighbours": table,
        "shares": np.array([block for share in owned for block in sorted(share)], np.int64),
        "share_start": np.cumsum([0, *map(len, owned)], dtype=np.int64),
    }
