"""Gradient of a depthwise convolution for its weight, read where it lies: sums in registers.

Wins over depthwise.py, which copies rows first, wherever pixels of a row are neighbours, strides
along it are 1 or 2 and it has no holes. The sums of all taps of some kernel rows, a vector each,
stay in registers while the rows of outputs pass by::

    task = group                                            taken by any thread
      for output channel of the group, kernel depth, image, output depth
        for band of output rows, span of columns, vector of them, block of kernel rows
          for output row
            load the gradients
            for kernel row: load the samples under the vector and those behind
              split them by phases of the stride
              for tap: shift; sums[tap] += gradients * samples
        add the sums to the totals
      add up the lanes of the totals

Lanes outside the input, and rows of padding, are masked where there are such.
At 3 x 3 and stride 1 that is 7 loads, 6 shuffles and 9 multiply-adds for 9 of them. A lane sums at
most 256 products before it is added to its total, so that an error hardly grows with the number of
pixels.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..common.sights import make_tell_sights
from ..common.totals import make_totals
from ..common.workspace import Workspace
from ..runtime.plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from ..runtime.record import as_record, make_record
from ..simd.arithmetic import reduce_add
from ..simd.intrinsics import load, store_scalar
from ..simd.ir import (
    I8,
    I64,
    ITEMSIZE,
    compute_code,
    fmuladd,
    lane_mask,
    literals,
    load_vector,
    pointer,
    storage_code,
    store_vector,
)
from ..simd.shifts import split_phases, tap_vectors
from .depthwise_costs import MOST_SUMMED, rows_at_once

__all__ = ["plan_groups", "plan_rows", "rows_workspace", "workers_of"]

FIELDS = ("band_rows", "worker_bytes", "sights_at", "sums_at", "totals_after")
view = as_record(FIELDS)


def _load_taps(
    builder: Any, row: Any, sight: Any, masked: int, taps: int, step: int, storage: int, lanes: int
) -> list[Any]:
    """Return what each tap of a row meets from an address on; `sight` tells the lanes to read."""
    size, groups = ITEMSIZE[storage], []
    for group in range(2 if taps > step else 1):
        vectors = []
        for number in range(group * step, (group + 1) * step):
            at = pointer(builder, builder.add(row, I64(number * lanes * size)), I8)
            mask = None
            if masked:
                word = builder.gep(pointer(builder, sight, I64), [I64(number)])
                mask = lane_mask(builder, builder.load(word), lanes)
            vectors.append(load_vector(builder, at, lanes, storage, mask))
        groups.append(split_phases(builder, vectors))
    return tap_vectors(builder, groups[0], groups[-1], taps)


@intrinsic(prefer_literal=True)
def _add_rows(
    typingctx: Any, x: Any, down: Any, pitch: Any, gradients: Any, further: Any, count: Any,
    sights: Any, sums: Any, h: Any, steps: Any, rows: Any, taps: Any, step: Any, masked: Any,
    storage: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Add the products of a vector of each of `count` rows of outputs to the sums.

    `x` is the address of the first tap's sample of the first kernel row, `pitch` the bytes to the
    next kernel row and `down` to that of the next output row; `gradients` and `further` are the
    like. Where `masked` is 1, word 0 of `sights` tells the gradients that there are, the words
    behind it the samples, those behind these are zero, and a kernel row that does not meet the
    input, which is `h` of ``steps = (output row, kernel row, input rows)``, reads nothing.
    """
    shape = literals((rows, taps, step, masked, storage, lanes))
    if shape is None:
        return None
    rows_, taps_, step_, masked_, code, width = shape
    compute = compute_code(code)
    line = width * ITEMSIZE[compute]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, down, pitch, gradients, further, count, sights, sums, h = args[:9]
        step_h, hole_h, height = cgutils.unpack_tuple(builder, args[9])
        places = [builder.add(sums, I64(line * tap)) for tap in range(rows_ * taps_)]
        held = [
            cgutils.alloca_once_value(
                builder, load_vector(builder, pointer(builder, place, I8), width, compute)
            )
            for place in places
        ]
        seen = builder.add(sights, I64(8))
        unseen = builder.add(seen, I64(16 * step_))

        def sight(index: Any, number: int) -> Any:
            row = builder.add(h, builder.mul(index, step_h))
            row = builder.add(row, builder.mul(hole_h, I64(number)))
            return builder.select(builder.icmp_unsigned("<", row, height), seen, unseen)

        with cgutils.for_range(builder, count) as loop:
            mask = None
            if masked_:
                mask = lane_mask(builder, builder.load(pointer(builder, sights, I64)), width)
            at = builder.add(gradients, builder.mul(loop.index, further))
            gradient = load_vector(builder, pointer(builder, at, I8), width, code, mask)
            first = builder.add(x, builder.mul(loop.index, down))
            for number in range(rows_):
                row = builder.add(first, builder.mul(pitch, I64(number)))
                told = sight(loop.index, number) if masked_ else seen
                met = _load_taps(builder, row, told, masked_, taps_, step_, code, width)
                for total, samples in zip(held[number * taps_ :], met, strict=False):
                    product = fmuladd(builder, gradient, samples, builder.load(total))
                    builder.store(product, total)
        for place, total in zip(places, held, strict=True):
            store_vector(builder, pointer(builder, place, I8), builder.load(total), compute)
        return context.get_dummy_value()

    words = [types.intp] * 9
    return types.void(*words, steps, rows, taps, step, masked, storage, lanes), codegen


@functools.cache
def _make_block(rows: int, taps: int, step: int, lanes: int, storage: int) -> Any:
    """Return a function that adds the products of a vector of columns of some output rows.

    They are those of `rows` kernel rows from `i` on.
    """
    item = ITEMSIZE[storage]
    reach = step * lanes * (2 if taps > step else 1)

    @numba.njit
    def several(
        g: Any, x: int, gradients: int, low: int, high: int, first: int, i: int, sights: int,
        sums: int, whole: int,
    ) -> None:  # fmt: skip
        h = low * g.sh - g.ph + i * g.dh
        source = x + h * g.xh + (first * step - g.pw) * item
        place, steps = gradients + low * g.yh + first * item, (g.sh, g.dh, g.ih)
        down, pitch = g.sh * g.xh, g.dh * g.xh
        if whole:
            _add_rows(
                source, down, pitch, place, g.yh, high - low, sights, sums, h, steps, rows, taps,
                step, 0, storage, lanes,
            )  # fmt: skip
        else:
            _add_rows(
                source, down, pitch, place, g.yh, high - low, sights, sums, h, steps, rows, taps,
                step, 1, storage, lanes,
            )  # fmt: skip

    @numba.njit
    def block(
        g: Any, x: int, gradients: int, low: int, high: int, first: int, i: int, sights: int,
        sums: int,
    ) -> None:  # fmt: skip
        """`x` and `gradients` are the addresses of row and column 0, `first` is an output's."""
        begin, from_, below = first * step - g.pw, high, high
        if begin >= 0 and begin + reach <= g.iw and first + lanes <= g.ow:
            # Rows whose kernel rows all meet the input.
            from_ = min(max((g.ph - i * g.dh + g.sh - 1) // g.sh, low), high)
            below = (g.ih - 1 + g.ph - (i + rows - 1) * g.dh) // g.sh + 1
            below = min(max(from_, below), high)
        if low < from_:
            several(g, x, gradients, low, from_, first, i, sights, sums, 0)
        if from_ < below:
            several(g, x, gradients, from_, below, first, i, sights, sums, 1)
        if below < high:
            several(g, x, gradients, below, high, first, i, sights, sums, 0)

    return block


@functools.cache
def _make_tell_sights(step: int, lanes: int) -> Any:
    """Return a function that writes which lanes there are under a vector of outputs.

    Those of the gradients, of the samples, and, for rows outside the input, of none.
    """
    tell = make_tell_sights(lanes)

    @numba.njit
    def tell_sights(g: Any, first: int, sights: int) -> None:
        tell(sights, 1, first, g.ow)  # whose end alone may lie in it
        tell(sights + 8, 2 * step, first * step - g.pw, g.iw)
        tell(sights + 8 * (1 + 2 * step), 2 * step, 0, 0)

    return tell_sights


@functools.cache
def _make_plane(rows: int, taps: int, step: int, lanes: int, storage: int) -> Any:
    """Return a function that adds the products of a plane; `done` ones are in each lane's sum."""
    compute = compute_code(storage)
    line, span, most = lanes * ITEMSIZE[compute], MOST_SUMMED * lanes, MOST_SUMMED
    block, last = (_make_block(each, taps, step, lanes, storage) for each in (rows, 1))
    (_, move), tell_sights = make_totals(lanes, compute), _make_tell_sights(step, lanes)

    @numba.njit
    def band(
        g: Any, x: int, gradients: int, low: int, high: int, begin: int, end: int, sights: int,
        sums: int,
    ) -> None:  # fmt: skip
        """Add the products of output rows low to high - 1, of their columns begin to end - 1."""
        for first in range(begin, end, lanes):
            if g.ow > lanes:
                tell_sights(g, first, sights)
            i = 0
            while i + rows <= g.kh:
                block(g, x, gradients, low, high, first, i, sights, sums + i * taps * line)
                i += rows
            if i < g.kh:
                last(g, x, gradients, low, high, first, i, sights, sums + i * taps * line)

    @numba.njit
    def plane(g: Any, x: int, gradients: int, w: int, sums: int, done: int) -> int:
        for low in range(0, g.oh, g.band_rows):
            high = min(low + g.band_rows, g.oh)
            for begin in range(0, g.ow, span):
                end = min(begin + span, g.ow)
                products = (high - low) * ((end - begin + lanes - 1) // lanes)
                if done + products > most:
                    move(sums, sums + g.totals_after, g.kh * taps * line)
                    done = 0
                band(g, x, gradients, low, high, begin, end, w + g.sights_at, sums)
                done += products
        return done

    return plane


@functools.cache
def _make_kernel(rows: int, taps: int, step: int, lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    compute = compute_code(storage)
    item, line = ITEMSIZE[storage], lanes * ITEMSIZE[compute]
    plane = _make_plane(rows, taps, step, lanes, storage)
    (clear, move), tell_sights = make_totals(lanes, compute), _make_tell_sights(step, lanes)

    def task(
        geometry: int, x: int, grad: int, bias: int, extra: int, out: int,
        workspace: int, group: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        w = workspace + worker * g.worker_bytes
        sums, plane_bytes = w + g.sums_at, g.kh * taps * line
        tell_sights(g, 0, w + g.sights_at)
        for k in range(group * g.k, (group + 1) * g.k):
            clear(sums, 2 * g.kd * plane_bytes)
            for kernel_depth in range(g.kd):
                to, done = sums + kernel_depth * plane_bytes, 0
                for image in range(g.n):
                    for od in range(g.od):
                        depth = od * g.sd - g.pd + kernel_depth * g.dd
                        if 0 <= depth < g.id:
                            source = x + image * g.xn + group * g.xc + depth * g.xd
                            place = grad + image * g.yn + k * g.yc + od * g.yd
                            done = plane(g, source, place, w, to, done)
            move(sums, sums + g.totals_after, g.kd * plane_bytes)
            for i in range(g.kd * g.kh * taps):
                total = reduce_add(load(sums + g.totals_after + i * line, compute, lanes))
                store_scalar(out + k * g.wk + i * item, total, storage)

    return task


def _memory(problem: ConvProblem, device: DeviceInfo) -> dict[str, int]:
    """Return where a worker's workspace holds what: sums, and as many totals behind them."""
    size = problem.compute_itemsize
    sums = math.prod(problem.kernel_size) * device.lanes(size) * size
    parts = Workspace()
    parts.add("sights", 8 * (1 + 4 * problem.stride[-1]))
    parts.add("sums", 2 * sums)
    return parts.fields | {"totals_after": sums}


def workers_of(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the threads that take groups."""
    return min(problem.groups, worth_helpers(problem.macs, device.threads))


def rows_workspace(problem: ConvProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call, over all threads."""
    return _memory(problem, device)["worker_bytes"] * workers_of(problem, device)


def plan_groups(
    problem: ConvProblem, binding: Binding, device: DeviceInfo, kernel: int,
    fields: dict[str, int], tables: tuple[Any, ...] = (),
) -> CpuPlan:  # fmt: skip
    """Return the plan of a kernel whose tasks are groups, of nothing but a gradient's products."""
    workers = workers_of(problem, device)
    return CpuPlan(
        record=make_record(problem, binding, fields),
        stages=(Stage(kernel, problem.groups),),
        workers=workers,
        workspace_bytes=fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=1,
        pack_stage=None,
        pack_bytes=0,
        packed_size=0,
        packing="grad_output",
        tables=tables,
    )


def plan_rows(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare the kernel; the binding's `out_strides` are the gradient's, its weight is dense."""
    storage, lanes = storage_code(problem.dtype), device.lanes(problem.compute_itemsize)
    taps, step = problem.kernel_size[-1], problem.stride[-1]
    key = (rows_at_once(problem, device), taps, step, lanes, storage)
    fields = _memory(problem, device)
    fields["band_rows"] = max(1, MOST_SUMMED // -(-problem.out_size[-1] // lanes))
    kernel = compile_kernel(_make_kernel(*key), "depthwise_weight_grad_rows", *key)
    kept = {name: fields[name] for name in FIELDS}
    return plan_groups(problem, binding, device, kernel, kept)
