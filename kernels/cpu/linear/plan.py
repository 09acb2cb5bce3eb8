"""A dense layer of few rows: every row of the weight is read once, where it lies.

Wins for up to eight rows: each number of the weight has no more than a few multiplications, the
time is that of reading it, nothing is packed and halves cross the memory as halves.
``out[row, feature] = sum weight[feature, :] * input[row, :]``::

    input into rows in compute precision           a task a row
    task = block of output features                taken by any thread
      for block of terms                           512 vectors
        for 4 features (2 from five rows on)       streams of the memory
          for vector of terms                      4 weights, rows of the input from L1 and L2
            sums[feature, row] += weight * input   4 to 16 sums in registers (dots.py)
          add up the lanes
      bias, activation, rounding: vectors of features

Bound by memory: 25088 > 4096 features are 411 MB of float32, at 25 GB/s 16 ms. A vector of terms of
4 features and one row takes 4 cycles for 256 bytes, of which the memory gives 10 a cycle.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.linear_problem import LinearProblem
from fastconv.contract.spec import DeviceInfo

from ...axes import ACTIVATION_CODES
from ..common.epilogue import make_gathered_activation
from ..common.workspace import Workspace
from ..gemm.split import REDUCTION
from ..machine.lines import whole_lines
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import (
    add,
    load_gather,
    load_masked,
    load_scalar,
    range_mask,
    store,
    store_masked,
    store_scalar,
)
from ..simd.ir import ITEMSIZE, compute_code, storage_code
from .costs import features_of_task
from .dots import add_dots

__all__ = ["plan", "workspace"]

FIELDS = (
    "terms",  # features of the input
    "features",  # of the output
    "block",  # of a task
    "x_row",  # bytes from one row of the input to the next,
    "x_step",  # and from one feature to the next
    "x_pitch",  # between the rows that sums read
    "w_row",  # between the features of the weight
    "out_row",
    "out_step",
    "bias_step",
    "has_bias",
    "slope_step",
    "activation_code",
    "sums_at",  # workspace of the workers
    "worker_bytes",
    "sums_pitch",  # bytes between the sums of two rows
)
view = as_record(FIELDS)

_FEATURES, _FEW_FEATURES, _FEW_ROWS = 4, 2, 4


@functools.cache
def _make_rows(storage: int) -> Any:
    """Return the task that brings a row of the input into compute precision."""
    compute = compute_code(storage)
    size = ITEMSIZE[compute]

    def task(
        geometry: int, x: int, weight: int, bias: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        source, target = x + number * g.x_row, workspace + number * g.x_pitch
        for term in range(g.terms):
            value = load_scalar(source + term * g.x_step, storage)
            store_scalar(target + term * size, value, compute)

    return task


@functools.cache
def _make_finish(lanes: int, storage: int) -> Any:
    """Return what finishes a vector of sums: bias, activation, rounding."""
    item, compute = ITEMSIZE[storage], compute_code(storage)
    size, apply_activation = ITEMSIZE[compute], make_gathered_activation(lanes, storage)

    @numba.njit
    def finish(g: Any, sums: int, bias: int, slopes: int, out: int, count: int) -> None:
        mask = range_mask(0, count)
        value = load_masked(sums, mask, compute, lanes)
        if g.has_bias:
            value = add(value, load_gather(bias, g.bias_step, mask, storage, lanes))
        value = apply_activation(value, g.activation_code, g.alpha, slopes, g.slope_step, mask)
        if g.out_step == item:
            store_masked(out, value, mask, storage)
        else:
            store(sums, value, compute)
            for lane in range(count):
                element = load_scalar(sums + lane * size, compute)
                store_scalar(out + lane * g.out_step, element, storage)

    return finish


@functools.cache
def _make_kernel(rows: int, lanes: int, storage: int) -> Any:
    finish, item, compute = _make_finish(lanes, storage), ITEMSIZE[storage], compute_code(storage)
    size, at_once = ITEMSIZE[compute], _FEATURES if rows <= _FEW_ROWS else _FEW_FEATURES
    most = REDUCTION * lanes // rows // lanes * lanes  # terms of a block: rows of them stay in L1

    @numba.njit
    def sum_block(g: Any, x: int, weight: int, first: int, count: int, sums: int) -> None:
        """Add a block of terms of some features to their sums."""
        for start in range(0, g.terms, most):
            terms = min(most, g.terms - start)
            row, feature = x + start * size, 0
            while feature < count:
                place = weight + (first + feature) * g.w_row + start * item
                target = sums + feature * size
                if feature + at_once <= count:
                    add_dots(
                        place, g.w_row, row, g.x_pitch, terms, target, g.sums_pitch,
                        storage, compute, at_once, rows, lanes,
                    )  # fmt: skip
                    feature += at_once
                else:
                    add_dots(
                        place, g.w_row, row, g.x_pitch, terms, target, g.sums_pitch,
                        storage, compute, 1, rows, lanes,
                    )  # fmt: skip
                    feature += 1

    def task(
        geometry: int, x: int, weight: int, bias: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        sums = workspace + g.sums_at + worker * g.worker_bytes
        slopes = fourth if g.has_bias else bias
        first = number * g.block
        count = min(g.block, g.features - first)
        for row in range(rows):
            for feature in range(count):
                store_scalar(sums + row * g.sums_pitch + feature * size, 0.0, compute)
        sum_block(g, workspace, weight, first, count, sums)
        for row in range(rows):
            target = out + row * g.out_row + first * g.out_step
            for start in range(0, count, lanes):
                finish(
                    g, sums + row * g.sums_pitch + start * size,
                    bias + (first + start) * g.bias_step, slopes + (first + start) * g.slope_step,
                    target + start * g.out_step, min(lanes, count - start),
                )  # fmt: skip

    return task


def _parts(problem: LinearProblem, device: DeviceInfo) -> tuple[int, Workspace, Workspace]:
    """Return the bytes of a row of the input, and the workspace: of all, and of a worker."""
    size, rows = problem.compute_itemsize, problem.in_size[0]
    pitch = whole_lines(problem.channels * size)
    shared, own = Workspace(), Workspace()
    shared.add("rows", rows * pitch)
    shared.add("sums", 0)
    own.add("sums", rows * whole_lines(features_of_task(problem, device) * size))
    return pitch, shared, own


def workspace(problem: LinearProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: the input in compute precision, and sums."""
    _, shared, own = _parts(problem, device)
    return shared.fields["sums_at"] + own.fields["worker_bytes"] * device.threads


def plan(problem: LinearProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem, whose weight is contiguous along its rows."""
    x, weight, *more, out = binding.strides
    bias = more[0][0] if problem.bias else 0
    slopes = more[-1][0] if problem.activation == "prelu" else 0
    storage, rows = storage_code(problem.dtype), problem.in_size[0]
    lanes, block = device.lanes(problem.compute_itemsize), features_of_task(problem, device)
    pitch, shared, own = _parts(problem, device)
    values: dict[str, float] = {
        "terms": problem.channels, "features": problem.out_channels, "block": block,
        "x_row": x[0], "x_step": x[1], "x_pitch": pitch, "w_row": weight[0],
        "out_row": out[0], "out_step": out[1],
        "bias_step": bias, "has_bias": int(problem.bias), "slope_step": slopes,
        "activation_code": ACTIVATION_CODES[problem.activation or None], "alpha": problem.alpha,
        "sums_at": shared.fields["sums_at"], "worker_bytes": own.fields["worker_bytes"],
        "sums_pitch": own.fields["worker_bytes"] // rows,
    }  # fmt: skip
    tasks = -(-problem.out_channels // block)
    gather = compile_kernel(_make_rows(storage), "linear_rows", storage)
    kernel = compile_kernel(_make_kernel(rows, lanes, storage), "linear", rows, lanes, storage)
    return ArrayPlan(
        record=array_record(FIELDS, values),
        stages=(ArrayStage(gather, rows), ArrayStage(kernel, tasks)),
        workers=worth_helpers(problem.flops // 2, device.threads),
        workspace_bytes=workspace(problem, device),
        flush=binding.flush,
    )
