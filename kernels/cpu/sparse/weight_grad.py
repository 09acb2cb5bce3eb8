"""Gradient of a sparse convolution for its weight: a sum of outer products an offset.

``grad[k, c, offset] = sum over pairs (i, o) of the offset: grad_out[o, k] * x[i, c]``, so an offset
is a matrix product ``x[i].T @ grad_out[o]`` over its pairs. It runs through the register tile of
gemm/tile.py: rows are input channels, lanes are output channels, steps are pairs::

    task = some offsets (or blocks of output channels or of groups of one), a share of all pairs
      for block of output rows                         their x and grad_out: L2
        for offset of the task
          the pairs: a run of the table of neighbours without its -1
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

import functools
import heapq
import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastconv.contract.rulebook import Rulebook
from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import DeviceInfo, SparseBinding

from ..gemm.tile import call_tile, tile_address
from ..machine.lines import LINE, whole_lines
from ..rulebook.stage import get_int, set_int
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import (
    get_word,
    load_masked,
    load_scalar,
    range_mask,
    set_word,
    store,
    store_scalar,
)
from ..simd.ir import ITEMSIZE, compute_code, storage_code
from ..simd.register_tiles import gemm_tile, sized_tile
from .row_plan import RowPlan, RowStage
from .row_walk import PRODUCTS, make_walk

__all__ = ["plan", "workspace"]

FIELDS = (
    "rows",  # output rows
    "row_block",  # of which a task sums one offset after the other
    "group_count",
    "in_channels",  # of one group
    "out_channels",
    "volume",
    "neighbours",  # address of the table
    "blocks",  # of one offset
    "group_block",  # groups of a block
    "k_block",  # output channels of each of its groups
    "shares",  # addresses of what each task does: a block's number, counted over all offsets,
    "share_start",  # and where those of each task begin
    "x_pitch",  # bytes between rows
    "grad_pitch",
    "a_pitch",  # and between rows of the copies
    "b_pitch",
    "sums_pitch",  # bytes between the sums of successive input channels,
    "sums_offset",  # and of offsets
    "tile",  # address of the register tile
    "workers_at",  # where the workers' memory begins behind the sums; in it are two lists of rows,
    "a_at",  # and the copies
    "b_at",
    "worker_bytes",
)
view = as_record(FIELDS)

#: Fewest and most output rows whose pairs a task sums, offset by offset, before it goes on.
_LEAST_ROWS, _MOST_ROWS = 512, 8192
#: Pairs that are summed apart, and copied at once.
_CHUNK = 256
#: Output channels that are turned at once: as many places are written in turn, line by line.
_TRANSPOSED_ROWS = 16


def _pitch(size: int) -> int:
    """Return the bytes between rows of a copy: lines, but no power of two, which share L1 sets."""
    return whole_lines(size) + (LINE if size % 1024 == 0 else 0)


@functools.cache
def _make_pairs() -> Any:
    """Return a function that lists the next pairs of an offset."""
    most = _CHUNK

    @numba.njit
    def list_pairs(table: int, row: int, end: int, outs: int, ins: int) -> tuple[int, int]:
        """Return how many pairs were found, and the row to go on from."""
        found = 0
        while row < end and found < most:
            i = get_int(table, row)
            set_int(outs, found, row)
            set_int(ins, found, i)
            found += int(i >= 0)  # no branch: which rows meet is as good as random
            row += 1
        return found, row

    return list_pairs


@numba.njit
def clear_rows(address: int, rows: int, pitch: int, width: int) -> None:
    """Write zeros into the first bytes of some rows, in words of 8."""
    for row in range(rows):
        for word in range((width + 7) // 8):
            set_word(address + row * pitch, word, 0)


def _make_task(sum_block: Any) -> Any:
    """Return the task that sums its blocks over all rows: see the loop nest above.

    Without a row there is one step all the same, which clears the sums.
    """

    def task(
        geometry: int, x: int, grad_out: int, unused: int, extra: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        scratch = workspace + g.workers_at + worker * g.worker_bytes
        first, last = get_word(g.share_start, number), get_word(g.share_start, number + 1)
        for row in range(0, max(g.rows, 1), g.row_block):
            end = min(g.rows, row + g.row_block)
            for i in range(first, last):
                block = get_word(g.shares, i)
                sum_block(g, x, grad_out, workspace, scratch, block, row, end)

    return task


@functools.cache
def _make_products(lanes: int, nr: int, mr: int, storage: int) -> Any:
    """Return the task that sums the products of one offset and some output channels."""
    item, compute, most = ITEMSIZE[storage], compute_code(storage), _CHUNK
    size = ITEMSIZE[compute]
    list_pairs = _make_pairs()

    @numba.njit
    def copy_rows(
        source: int, pitch: int, which: int, count: int, width: int, target: int, step: int
    ) -> None:
        for p in range(count):
            row, to = source + get_int(which, p) * pitch, target + p * step
            for c in range(0, width, lanes):
                mask = range_mask(0, min(lanes, width - c))
                value = load_masked(row + c * item, mask, storage, lanes)
                store(to + c * size, value, compute)  # rows of copies are padded

    @numba.njit
    def multiply(g: Any, a: int, b: int, count: int, sums: int, groups: int, width: int) -> None:
        for group in range(groups):
            for k in range(0, width, nr):
                for c in range(0, g.in_channels, mr):
                    row = group * g.in_channels + c
                    call_tile(
                        g.tile, a + row * size, g.a_pitch,
                        b + (group * g.out_channels + k) * size, g.b_pitch, count,
                        sums + row * g.sums_pitch + k * size, g.sums_pitch, 0, 1,
                        -math.inf, math.inf, min(nr, width - k), min(mr, g.in_channels - c),
                    )  # fmt: skip

    @numba.njit
    def sum_block(
        g: Any, x: int, grad_out: int, workspace: int, scratch: int, number: int, row: int, end: int
    ) -> None:
        """Add the pairs of some output rows to the sums of a block."""
        offset, block = number // g.blocks, number % g.blocks
        # One of the two is cut into blocks and the other is whole.
        group = block * g.group_block if g.group_count > 1 else 0
        k = block * g.k_block if g.group_count == 1 else 0
        groups = min(g.group_block, g.group_count - group)
        width = min(g.k_block, g.out_channels - k)
        first = group * g.in_channels
        sums = workspace + offset * g.sums_offset + first * g.sums_pitch + k * size
        if row == 0:
            clear_rows(sums, groups * g.in_channels, g.sums_pitch, width * size)
        ins, a, b = scratch + 4 * most, scratch + g.a_at, scratch + g.b_at
        grads, columns = grad_out + (group * g.out_channels + k) * item, width
        columns += (groups - 1) * g.out_channels
        table = g.neighbours + 4 * offset * g.rows
        while row < end:
            count, row = list_pairs(table, row, end, scratch, ins)
            copy_rows(x + first * item, g.x_pitch, ins, count, groups * g.in_channels, a, g.a_pitch)
            copy_rows(grads, g.grad_pitch, scratch, count, columns, b, g.b_pitch)
            multiply(g, a, b, count, sums, groups, width)

    return _make_task(sum_block)


@functools.cache
def _make_depthwise(lanes: int, storage: int) -> Any:
    """Return the task that sums the products of one offset and some channels."""
    item, compute, most = ITEMSIZE[storage], compute_code(storage), _CHUNK
    size = ITEMSIZE[compute]
    list_pairs = _make_pairs()
    walk = make_walk(PRODUCTS, lanes, storage, compute)

    @numba.njit
    def sum_block(
        g: Any, x: int, grad_out: int, workspace: int, scratch: int, number: int, row: int, end: int
    ) -> None:
        """Add the pairs of some output rows to the sums of a block."""
        offset, c = number // g.blocks, number % g.blocks * g.k_block
        width = min(g.k_block, g.out_channels - c)
        sums = workspace + offset * g.sums_offset + c * size
        if row == 0:
            clear_rows(sums, 1, 0, width * size)
        ins, table = scratch + 4 * most, g.neighbours + 4 * offset * g.rows
        while row < end:
            count, row = list_pairs(table, row, end, scratch, ins)
            walk(
                scratch, ins, count, count - 1, x + c * item, g.x_pitch, grad_out + c * item, item,
                g.grad_pitch, sums, sums, width,
            )  # fmt: skip

    return _make_task(sum_block)


@functools.cache
def _make_store(storage: int) -> Any:
    """Return the task that brings the sums of some output channels into the weight's order."""
    item, compute, turned = ITEMSIZE[storage], compute_code(storage), _TRANSPOSED_ROWS
    size = ITEMSIZE[compute]

    def task(
        geometry: int, x: int, grad_out: int, unused: int, extra: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        blocks = (g.out_channels + turned - 1) // turned
        group, k = number // blocks, number % blocks * turned
        step = g.in_channels * g.volume * item
        target = out + (group * g.out_channels + k) * step
        for c in range(g.in_channels):
            for offset in range(g.volume):
                row = workspace + offset * g.sums_offset
                row += (group * g.in_channels + c) * g.sums_pitch + k * size
                for lane in range(min(turned, g.out_channels - k)):
                    value = load_scalar(row + lane * size, compute)
                    store_scalar(target + lane * step, value, storage)
                target += item

    return task


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
        return 8 * _CHUNK + _CHUNK * self.a_pitch


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
        worker_bytes=whole_lines(8 * _CHUNK + _CHUNK * (a_pitch + b_pitch)),
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
        "a_at": 8 * _CHUNK,
        "b_at": layout.b_at(),
    }
    for name in ("in_channels", "out_channels", "blocks", "group_block", "k_block", "a_pitch",
                 "b_pitch", "sums_pitch", "sums_offset", "worker_bytes"):  # fmt: skip
        values[name] = getattr(layout, name)
    if problem.is_depthwise:
        task = _make_depthwise(lanes, storage)
        multiply = compile_kernel(task, "sparse_depthwise_weight_grad", lanes, storage)
    else:
        values["tile"] = tile_address(tile, compute_code(storage))
        task = _make_products(lanes, tile.nr, tile.mr, storage)
        multiply = compile_kernel(task, "sparse_weight_grad", lanes, tile.nr, tile.mr, storage)
    store = compile_kernel(_make_store(storage), "sparse_weight_store", storage)
    tasks = min(device.threads, problem.volume * layout.blocks)
    units = layout.groups * -(-layout.out_channels // _TRANSPOSED_ROWS)
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
        "shares": np.array([block for each in owned for block in sorted(each)], np.int64),
        "share_start": np.cumsum([0, *map(len, owned)], dtype=np.int64),
    }
