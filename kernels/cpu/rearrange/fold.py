"""Columns summed up where their windows were, col2im: by output position, nothing is scattered.

An output row lists the rows of columns whose windows reach it, a row of numbers for each tap of the
kernel's depth and height; the taps along the width are the same row, each shifted. With a stride
``s`` along the width, position ``s * q + r`` meets the taps that leave ``r``: each such phase is a
row of sums by itself, and the phases are then taken by turns::

    columns into rows, where they lie otherwise              copy.py
    task = spans of output rows                              taken by any thread
      for span of 4096 outputs: list its rows of columns
        for phase, vector of positions
          for row of columns, tap of the phase               sum += vector, masked at the borders
        stride 1: round and store; else weave the phases     simd/weaves.py
    the image into its own order, where that is another      copy.py

Sums start at zero and go through the taps in their order, in float32 for halves, so that they are
the same bits for any number of threads. Bound by memory: the columns of 3 x 3 taps are read once,
nine times the image, 9 loads and additions for a vector of 16 outputs. Windows that tile the image
are a mere copy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from fastconv.contract.array_problem import ArrayBinding, dense_array_binding
from fastconv.contract.rearrange_problem import Axis
from fastconv.contract.spec import DeviceInfo, dense_strides
from fastconv.contract.unfold_problem import UnfoldProblem

from ...axes import name_axes
from ..common.workspace import Workspace
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record, name_strides
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import (
    add,
    get_word,
    load,
    load_masked,
    load_scalar,
    range_mask,
    set_word,
    splat,
    store,
    store_masked,
    store_scalar,
)
from ..simd.ir import F64, ITEMSIZE, compute_code, storage_code
from ..simd.weaves import weave
from .copy import CopyStage, Place, plan_copy
from .costs import counter_bytes, fold_span, fold_tasks
from .forms import MOST_WAYS, array_axes

__all__ = ["plan", "workspace"]

FIELDS = (
    "columns_at",  # byte offset of the first number of the columns, and whether in the workspace
    "from_workspace",
    "columns_image",  # bytes from one image's columns to the next
    "columns_row",  # from one row of them to the next
    "to_workspace",  # whether the image is written there, and where
    "image_at",
    "rows",  # output rows
    "span",  # outputs of a row at a time
    "spans",  # of a row
    "parts",  # tasks
    "period",  # taps from one of a phase to its next one, and
    "shift",  # positions of the phase between them
    "first",  # position of the phases with which rows begin
    "pitch",  # bytes from one phase's sums to the next
    "offsets",  # address of where each phase begins
    "scratch_at",  # workspace of the workers
    "worker_bytes",
    "list_at",
    "sums_at",
)
view = as_record(FIELDS)


@functools.cache
def _make_list(item: int) -> Any:
    @numba.njit
    def list_rows(g: Any, columns: int, d: int, h: int, rows: int) -> int:
        """List the addresses of the rows of columns that an output row sums up."""
        count = 0
        for kd in range(g.kd):
            depth = d + g.pd - kd * g.dd
            if depth < 0 or depth % g.sd != 0 or depth // g.sd >= g.od:
                continue
            for kh in range(g.kh):
                height = h + g.ph - kh * g.dh
                if height < 0 or height % g.sh != 0 or height // g.sh >= g.oh:
                    continue
                tap = (kd * g.kh + kh) * g.kw
                window = (depth // g.sd * g.oh + height // g.sh) * g.ow
                set_word(rows, count, columns + tap * g.columns_row + window * item)
                count += 1
        return count

    return list_rows


@functools.cache
def _make_sums(lanes: int, storage: int) -> Any:
    item = ITEMSIZE[storage]
    as_compute = np.float64 if compute_code(storage) == F64 else np.float32

    @numba.njit
    def sum_taps(g: Any, rows: int, count: int, tap: int, position: int) -> Any:
        """Return the sums of a vector of positions of the phase that begins with a tap."""
        total = splat(as_compute(0.0), lanes)
        for entry in range(count):
            row, first = get_word(rows, entry), position - tap * g.dw // g.sw
            for kw in range(tap, g.kw, g.period):
                place = row + kw * g.columns_row + first * item
                low, high = max(0, -first), min(lanes, g.ow - first)
                if low == 0 and high == lanes:
                    total = add(total, load(place, storage, lanes))
                elif low < high:
                    bits = range_mask(low, high)
                    total = add(total, load_masked(place, bits, storage, lanes))
                first -= g.shift
        return total

    return sum_taps


@functools.cache
def _make_store_row(ways: int, lanes: int, storage: int) -> Any:
    """Return what sums an output row up; `ways` is the stride along it, 0 where it is long."""
    sum_taps, item, compute = _make_sums(lanes, storage), ITEMSIZE[storage], compute_code(storage)
    size = ITEMSIZE[compute]

    @numba.njit
    def store_row(
        g: Any, rows: int, count: int, sums: int, target: int, start: int, stop: int
    ) -> None:
        """Sum a span of an output row whose windows have a step of one."""
        for w in range(start, stop, lanes):
            total = sum_taps(g, rows, count, 0, w + g.pw)
            if w + lanes <= stop:
                store(target + w * item, total, storage)
            else:
                store_masked(target + w * item, total, range_mask(0, stop - w), storage)

    @numba.njit
    def sum_phases(g: Any, rows: int, count: int, sums: int, first: int, length: int) -> None:
        for phase in range(g.sw):
            tap = 0
            while tap < g.kw and tap < g.period and tap * g.dw % g.sw != phase:
                tap += 1
            if tap == g.period:
                tap = g.kw  # none: the sums are zero
            for q in range(0, length, lanes):
                total = sum_taps(g, rows, count, tap, q + first)
                store(sums + phase * g.pitch + q * size, total, compute)

    @numba.njit
    def store_phases(
        g: Any, rows: int, count: int, sums: int, target: int, start: int, stop: int
    ) -> None:
        """Sum each phase of a span of an output row, and take them by turns."""
        first = g.first + start // g.sw  # spans are whole steps
        sum_phases(g, rows, count, sums, first, (g.pw + stop - 1) // g.sw - first + 1)
        done = start
        if ways > 0:
            whole = (stop - start) // ways
            for q in range(0, whole, lanes):
                weave(
                    sums + q * size, g.offsets, min(lanes, whole - q),
                    target + (start + q * ways) * item, compute, storage, ways, lanes,
                )  # fmt: skip
            done = start + whole * ways
        for w in range(done, stop):
            f = w + g.pw
            place = sums + f % g.sw * g.pitch + (f // g.sw - first) * size
            store_scalar(target + w * item, load_scalar(place, compute), storage)

    return store_row if ways == 1 else store_phases


@functools.cache
def _make_kernel(ways: int, lanes: int, storage: int) -> Any:
    list_rows, store_row = _make_list(ITEMSIZE[storage]), _make_store_row(ways, lanes, storage)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        columns = (workspace if g.from_workspace else x) + g.columns_at
        image = (workspace if g.to_workspace else out) + g.image_at
        scratch = workspace + g.scratch_at + worker * g.worker_bytes
        rows, sums = scratch + g.list_at, scratch + g.sums_at
        taps = g.kd * g.kh * g.kw
        units = g.rows * g.spans
        for unit in range(number * units // g.parts, (number + 1) * units // g.parts):
            row, start = unit // g.spans, unit % g.spans * g.span
            h, plane = row % g.ih, row // g.ih
            d, map_ = plane % g.id, plane // g.id
            c, n = map_ % g.c, map_ // g.c
            source = columns + n * g.columns_image + c * taps * g.columns_row
            count = list_rows(g, source, d, h, rows)
            target = image + n * g.yn + c * g.yc + d * g.yd + h * g.yh
            store_row(g, rows, count, sums, target, start, min(g.iw, start + g.span))

    return task


def _ways(problem: UnfoldProblem) -> int:
    """Return the phases that are woven, 0 where they are many."""
    return problem.steps[-1] if problem.steps[-1] <= MOST_WAYS else 0


class _Layout:
    """Where the parts of a call's workspace are, and the strides of what the sums read and write.

    Columns that are rows, and an image whose rows are contiguous, are taken where they lie.
    """

    def __init__(
        self, problem: UnfoldProblem, strides: Sequence[Sequence[int]], device: DeviceInfo
    ) -> None:
        item, size = problem.itemsize, problem.compute_itemsize
        self.columns, self.image = tuple(strides[0]), tuple(strides[1])
        self.copies_columns = self.columns[2] != item
        self.copies_image = self.image[-1] != item
        shared = Workspace()
        if self.copies_columns:
            self.columns = dense_strides(problem.columns_shape, item)
            shared.add("columns", math.prod(problem.columns_shape) * item)
        if self.copies_image:
            self.image = dense_strides(problem.image_shape, item)
            shared.add("image", math.prod(problem.image_shape) * item)
        shared.add("counters", counter_bytes(device))
        shared.add("scratch", 0)
        self.at = shared.fields
        lanes, step, pad = device.lanes(size), problem.steps[-1], problem.padding[-1]
        self.first = pad // step
        self.span = fold_span(problem, device)
        width = min(self.span, problem.in_size[-1])
        length = (pad + width - 1) // step - self.first + 1
        self.pitch = -(-length // lanes) * lanes * size
        own = Workspace()
        own.add("list", 8 * math.prod(problem.kernel_size[:-1]))
        own.add("sums", self.pitch * step if step > 1 else 0)
        self.own = own.fields
        self.bytes = self.at["scratch_at"] + self.own["worker_bytes"] * device.threads


def _values(problem: UnfoldProblem, layout: _Layout) -> dict[str, int]:
    """Return the fields of the sums, but for the table's address."""
    step, dilation = problem.steps[-1], problem.dilation[-1]
    period = step // math.gcd(step, dilation)
    return (
        {"n": problem.batch, "c": problem.channels}
        | name_axes("i", problem.in_size, 1)
        | name_axes("o", problem.windows, 1)
        | name_axes("k", problem.kernel_size, 1)
        | name_axes("s", problem.steps, 1)
        | name_axes("p", problem.padding, 0)
        | name_axes("d", problem.dilation, 1)
        | name_strides("y", layout.image)
        | {"columns_image": layout.columns[0], "columns_row": layout.columns[1]}
        | {"from_workspace": int(layout.copies_columns), "to_workspace": int(layout.copies_image)}
        | {"columns_at": layout.at.get("columns_at", 0), "image_at": layout.at.get("image_at", 0)}
        | {"rows": math.prod(problem.image_shape[:-1]), "span": layout.span}
        | {"spans": -(-problem.in_size[-1] // layout.span)}
        | {"period": period, "shift": period * dilation // step}
        | {"first": layout.first, "pitch": layout.pitch}
        | {"scratch_at": layout.at["scratch_at"], **layout.own}
    )


def workspace(problem: UnfoldProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call on dense arrays."""
    if problem.tiles:
        return counter_bytes(device)
    return _Layout(problem, dense_array_binding(problem).strides, device).bytes


def _plan_tiles(problem: UnfoldProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the copy that sums of single numbers are."""
    columns, image = binding.strides
    axes = [Axis(axis.size, axis.target, axis.source) for axis in problem.axes(image, columns)]
    copy = plan_copy(axes, problem.itemsize, device)
    assert copy.stage.record is not None
    return ArrayPlan(
        copy.stage.record, (copy.stage,), copy.workers, counter_bytes(device), binding.flush,
        copy.tables,
    )  # fmt: skip


def _copies(
    problem: UnfoldProblem, binding: ArrayBinding, layout: _Layout, device: DeviceInfo
) -> tuple[list[CopyStage], list[CopyStage]]:
    """Return the copies of the columns before the sums, and of the image behind them."""
    (columns, image), item, at = binding.strides, problem.itemsize, layout.at
    before, behind = [], []
    if layout.copies_columns:
        axes = array_axes(problem.columns_shape, columns, layout.columns)
        target = Place(at["columns_at"], workspace=True)
        before = [plan_copy(axes, item, device, at["counters_at"], target=target)]
    if layout.copies_image:
        axes = array_axes(problem.image_shape, layout.image, image)
        source = Place(at["image_at"], workspace=True)
        behind = [plan_copy(axes, item, device, at["counters_at"], source=source)]
    return before, behind


def plan(problem: UnfoldProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    if problem.tiles:
        return _plan_tiles(problem, binding, device)
    layout, storage = _Layout(problem, binding.strides, device), storage_code(problem.dtype)
    step, pad = problem.steps[-1], problem.padding[-1]
    starts = [(pad + j) % step * layout.pitch for j in range(_ways(problem))]
    late = [(pad + j) // step - layout.first for j in range(_ways(problem))]
    size = problem.compute_itemsize
    offsets = np.array([a + b * size for a, b in zip(starts, late, strict=True)] or [0], np.int64)
    variant = (_ways(problem), device.lanes(size), storage)
    kernel = compile_kernel(_make_kernel(*variant), "fold", *variant)
    own = {"offsets": offsets.ctypes.data, "parts": fold_tasks(problem, device)}
    record = array_record(FIELDS, _values(problem, layout) | own)
    before, behind = _copies(problem, binding, layout, device)
    return ArrayPlan(
        record=record,
        stages=(
            *(copy.stage for copy in before),
            ArrayStage(kernel, own["parts"]),
            *(copy.stage for copy in behind),
        ),
        workers=worth_helpers(problem.flops, device.threads),
        workspace_bytes=layout.bytes,
        flush=binding.flush,
        tables=(offsets, *(table for copy in (*before, *behind) for table in copy.tables)),
    )
