"""Sparse convolution: each task owns a panel of output rows, and gathers what meets there.

``out[o, :] = act(bias + sum over k with i = neighbours[k, o] >= 0 of x[i, :] @ W[k])``

Wins wherever a group has channels to multiply: nothing is scattered and nothing is packed but the
weight. The tile (gemm_tile.py) reads the features where they lie, and no row is multiplied that has
no neighbour. At the 6 pairs a voxel
of a laser scan 23% of the table holds a row, and a tile over the rows of a panel as they come would
spend three quarters of its products on absent ones. ::

    task = panel of output rows x block of output channels
      sums of the panel = bias                              L1 or L2
      for offset, rising                                    W of one offset: L1
        for block of input channels, rising
          the pairs of the panel, as many at a time as fill the registers
      activation, rounding, store to the rows' places       (random, if the sites came so)

A sum takes its products by rising offset, then rising channel, in the same order whatever the tile,
panel, thread or order of the sites, so its bits are always the same.

Budget (AVX-512, float32, 64 channels to 64, panels of 512 rows): a tile of 6 x 4 vectors makes 1536
cycles of multiply-adds out of 16 KB of weights in L1 and 1.5 KB of features. Sums of 128 KB, the
features of the panel and the weights of all 27 offsets (442 KB) lie in L2. Halves are widened
before, all features at once, but for bfloat16 where the CPU multiplies pairs of it.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastconv.contract.rulebook import Rulebook
from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import DeviceInfo, SparseBinding

from ...axes import ACTIVATION_CODES
from ..common.activations import activate
from ..machine.lines import LINE, whole_lines
from ..rulebook.stage import get_int
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import as_record, record_type
from ..simd.intrinsics import (
    expect_write,
    get_word,
    load,
    load_masked,
    load_scalar,
    range_mask,
    store,
    store_masked,
    store_scalar,
)
from ..simd.ir import BF16, ITEMSIZE, compute_code, panel_code, storage_code
from .gemm_costs import Blocks, choose_blocks, tile_rows
from .gemm_schedule import find_schedule
from .gemm_tile import call_gather_tiles, gather_tiles_address

__all__ = ["SparseGemmPlan", "plan", "workspace"]

_FIELDS = (
    "volume",
    "rows",  # of the output
    "panel_rows",
    "blocks",  # of output channels, over all groups
    "parts",  # the same of one group
    "nv",  # vectors of a block
    "tail",  # vectors of a group's last block
    "vectors",  # of a group
    "steps",  # of a row, for one group
    "chunk",  # steps that are summed at once
    "word",  # bytes of a step of a row
    "x_pitch",
    "y_pitch",
    "elements",  # of the features
    "copied",  # whether the features are widened first
    "tile_rows",  # most rows of a tile of a block, and of a group's last block
    "last_rows",
    "tiles",  # addresses of the tiles of a block, and of a group's last block
    "offsets",  # byte offsets of the weight's taps
    "worker_bytes",
    "sums_at",
)
_view = as_record(_FIELDS)

#: Rows of the output that are prefetched, where they lie here and there.
_AHEAD = 16
#: Elements of the features that a task widens.
_WIDENED = 1 << 15


@functools.cache
def _make_panel(lanes: int, storage: int, compute: int) -> Any:
    """Return functions that start a panel's sums, and that bring them to the output."""
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]

    @numba.njit
    def start(sums: int, bias: int, rows: int, vectors: int, width: int) -> None:
        for row in range(rows):
            for j in range(vectors):
                mask = range_mask(0, min(lanes, width - j * lanes))
                value = load_masked(bias + j * lanes * size, mask, compute, lanes)
                store(sums + (row * vectors + j) * lanes * size, value, compute)

    @numba.njit
    def epilogue(
        g: Any, sums: int, order: int, out: int, first: int, rows: int, vectors: int, width: int
    ) -> None:
        for row in range(rows):
            if order:  # each row is somewhere else
                later = get_int(order, first + min(row + _AHEAD, rows - 1))
                for line in range(0, width * item, LINE):
                    expect_write(out + later * g.y_pitch + line)
            place = get_int(order, first + row) if order else first + row
            target = out + place * g.y_pitch
            for j in range(vectors):
                value = load(sums + (row * vectors + j) * lanes * size, compute, lanes)
                if g.activation:
                    value = activate(value, g.activation, g.alpha)
                left = width - j * lanes
                if left >= lanes:
                    store(target + j * lanes * item, value, storage)
                else:
                    mask = range_mask(0, left)
                    store_masked(target + j * lanes * item, value, mask, storage)

    return start, epilogue


@functools.cache
def _make_kernel(lanes: int, storage: int, compute: int) -> Any:
    """Return the task: see the loop nest above."""
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]
    start, epilogue = _make_panel(lanes, storage, compute)

    def task(
        geometry: int, x: int, weight: int, bias: int, schedule: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        block, panel = number % g.blocks, number // g.blocks
        group, part = block // g.parts, block % g.parts
        last = int(part == g.parts - 1)
        vectors = g.tail if last else g.nv
        channel = group * g.k + part * g.nv * lanes
        width = min(vectors * lanes, g.k - part * g.nv * lanes)
        starts, pairs = get_word(schedule, 0), get_word(schedule, 1)
        first = panel * g.panel_rows
        rows = min(g.panel_rows, g.rows - first)
        sums = workspace + g.sums_at + worker * g.worker_bytes
        source = (workspace if g.copied else x) + group * g.steps * g.word
        w_step = vectors * lanes * size
        w = weight + (group * g.vectors + part * g.nv) * lanes * size * g.steps * g.volume
        tiles = get_word(g.tiles, last)

        order = get_word(schedule, 2)
        out += channel * item

        # Rows to write are prefetched while tiles compute, unless they lie here and there.
        ask_step = 0 if order else g.y_pitch
        ask, ask_last = out + first * ask_step, out + (first + rows - 1) * ask_step

        start(sums, bias + channel * size, rows, vectors, width)
        for k in range(g.volume):
            at = get_word(starts, panel * g.volume + k)
            count = get_word(starts, panel * g.volume + k + 1) - at
            for c in range(0, g.steps, g.chunk):
                steps = min(g.chunk, g.steps - c)
                call_gather_tiles(
                    tiles, source + c * g.word, g.x_pitch, w + (k * g.steps + c) * w_step, steps,
                    sums, pairs + 8 * at, count, ask, ask_step, ask_last,
                )  # fmt: skip
            ask += -(-count // (g.last_rows if last else g.tile_rows)) * ask_step
        epilogue(g, sums, order, out, first, rows, vectors, width)

    return task


@functools.cache
def _make_widen_kernel(lanes: int, storage: int, compute: int) -> Any:
    """Return the task that widens a part of the features."""
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]

    def task(
        geometry: int, x: int, weight: int, bias: int, schedule: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        stop = min((number + 1) * _WIDENED, g.elements)
        for i in range(number * _WIDENED, stop, lanes):
            mask = range_mask(0, min(lanes, stop - i))
            store_masked(
                workspace + i * size, load_masked(x + i * item, mask, storage, lanes), mask, compute
            )  # fmt: skip

    return task


@functools.cache
def _make_pack_kernel(lanes: int, depth: int, storage: int, compute: int) -> Any:
    """Return the task that packs a vector of output channels: (offset, step, lane, depth)."""
    size = ITEMSIZE[compute]
    element = size // depth
    packed_code = BF16 if depth == 2 else compute

    def task(
        geometry: int, weight: int, unused: int, bias: int, extra: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        group, vector = number // g.vectors, number % g.vectors
        part = vector // g.nv
        vectors = g.tail if part == g.parts - 1 else g.nv
        to = packed + (group * g.vectors + part * g.nv) * lanes * size * g.steps * g.volume
        to += (vector - part * g.nv) * lanes * size
        count = min(lanes, g.k - vector * lanes)
        source = weight + (group * g.k + vector * lanes) * g.wk
        for c in range(g.c):
            for k in range(g.volume):
                at = source + c * g.wc + get_word(g.offsets, k)
                target = to + (k * g.steps + c // depth) * vectors * lanes * size
                target += c % depth * element
                for lane in range(lanes):
                    value = load_scalar(at + lane * g.wk, storage) if lane < count else 0.0
                    store_scalar(target + lane * size, value, packed_code)

    return task


@dataclass(frozen=True, slots=True, eq=False)
class SparseGemmPlan:
    """A `CpuPlan` whose tasks read a schedule of the rulebook.

    Parameters
    ----------
    engine : CpuPlan
        The tasks; the schedule is their extra operand.
    panel_rows : int
        Rows of a panel.
    """

    engine: CpuPlan
    panel_rows: int

    @property
    def packing(self) -> Hashable:
        """Name of the packed weight's order."""
        return self.engine.packing

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Return `weight` in the kernel's order."""
        return self.engine.pack(weight)

    def run(
        self,
        rulebook: Rulebook,
        x: NDArray[Any],
        packed: NDArray[Any],
        bias: NDArray[Any] | None,
        out: NDArray[Any],
    ) -> None:
        """Compute into `out`, ``(out_rows, K)``, from `x`, ``(in_rows, C)``; both row-major."""
        if rulebook.out_rows == 0:
            return
        schedule = find_schedule(rulebook, self.panel_rows)
        self.engine.run(x, packed, bias, schedule.words, out)


def _layout(problem: SparseProblem, blocks: Blocks, storage: int) -> dict[str, int]:
    """Return the fields that say how the features are read, and the scratch memory."""
    size, elements = ITEMSIZE[compute_code(storage)], problem.in_rows * problem.in_channels
    copied = storage != compute_code(storage) and blocks.depth == 1
    sums = blocks.panel_rows * blocks.nv * blocks.lanes * size
    return {
        "elements": elements,
        "copied": int(copied),
        "word": size,
        "x_pitch": problem.in_channels // blocks.depth * size,
        "y_pitch": problem.out_channels * problem.itemsize,
        "sums_at": whole_lines(elements * size) if copied else 0,
        "worker_bytes": sums + LINE,  # panels of two workers do not share sets of L1
    }


def workspace(problem: SparseProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    storage = storage_code(problem.dtype)
    fields = _layout(problem, choose_blocks(problem, device), storage)
    workers = worth_helpers(problem.macs, device.threads)
    return fields["sums_at"] + workers * fields["worker_bytes"]


def _tap_offsets(problem: SparseProblem, binding: SparseBinding) -> NDArray[np.int64]:
    """Return the byte offset of each tap of the weight, in the order of its numbers."""
    steps = np.array(binding.weight_strides[2:], np.int64)
    taps = np.indices(problem.kernel_size, np.int64).reshape(len(steps), -1)
    return steps @ taps


def plan(problem: SparseProblem, binding: SparseBinding, device: DeviceInfo) -> SparseGemmPlan:
    """Prepare the kernel for one problem and one binding."""
    storage = storage_code(problem.dtype)
    compute, blocks = compute_code(storage), choose_blocks(problem, device)
    lanes, code = blocks.lanes, panel_code(storage, blocks.depth)
    offsets = _tap_offsets(problem, binding)
    tiles = np.array(
        [gather_tiles_address(tile_rows(nv, device), nv, lanes, code, blocks.unroll)
         for nv in (blocks.nv, blocks.tail)]
    )  # fmt: skip
    fields = _layout(problem, blocks, storage)
    values: dict[str, float] = {
        **fields,
        "volume": problem.volume, "rows": problem.out_rows, "panel_rows": blocks.panel_rows,
        "blocks": problem.groups * blocks.parts, "parts": blocks.parts, "nv": blocks.nv,
        "tail": blocks.tail, "vectors": blocks.vectors, "steps": blocks.steps,
        "tile_rows": tile_rows(blocks.nv, device), "last_rows": tile_rows(blocks.tail, device),
        "chunk": blocks.chunk, "tiles": tiles.ctypes.data, "offsets": offsets.ctypes.data,
        "c": problem.in_channels // problem.groups, "k": problem.out_channels // problem.groups,
        "wk": binding.weight_strides[0], "wc": binding.weight_strides[1],
        "activation": ACTIVATION_CODES[binding.activation], "alpha": binding.alpha,
        "flush": int(binding.flush),
    }  # fmt: skip
    record = np.zeros(1, record_type(_FIELDS))
    for name, value in values.items():
        record[name] = value

    panels = -(-problem.out_rows // blocks.panel_rows)
    key, packing = (lanes, storage), (lanes, blocks.depth, storage)
    task = compile_kernel(_make_kernel(*key, compute), "sparse_gemm", *key)
    stages = [Stage(task, panels * problem.groups * blocks.parts)]
    if fields["copied"]:
        widen = compile_kernel(_make_widen_kernel(*key, compute), "sparse_gemm_widen", *key)
        stages.insert(0, Stage(widen, -(-fields["elements"] // _WIDENED)))
    pack = compile_kernel(_make_pack_kernel(*packing, compute), "sparse_gemm_pack", *packing)
    vectors = problem.groups * blocks.vectors
    engine = CpuPlan(
        record=record,
        stages=tuple(stages),
        workers=worth_helpers(problem.macs, device.threads),
        workspace_bytes=workspace(problem, device),
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(pack, vectors),
        pack_bytes=0,
        packed_size=vectors * lanes * blocks.steps * problem.volume,
        packing=("sparse_gemm", blocks.nv, *packing),
        tables=(tiles, offsets),
    )
    return SparseGemmPlan(engine, blocks.panel_rows)
