"""Resizing, and its gradient: which code, which tables, which tasks.

`resize_rows`, resizing with pixels of a row in the lanes, wins where rows are contiguous.
`resize_pixels`, resizing with channels in the lanes, wins where channels are contiguous.
`resize_rows_grad`, the gradient of resizing by rows, wins where rows are contiguous.
`resize_pixels_grad`, the gradient of resizing by pixels, wins where channels are contiguous.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.resize_problem import ResizeProblem
from fastconv.contract.spec import DeviceInfo

from ...axes import name_axes
from ..runtime import pool
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record, name_strides
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.scratch import aligned, borrow, give_back
from ..simd.ir import compute_code, storage_code
from .columns import ColumnShape
from .costs import (
    EXACT,
    NEAREST,
    Cut,
    axes,
    copies_pixels,
    is_far,
    is_interleaved,
    pixel_cut,
    reach_of,
    row_cut,
    rule_of,
)
from .fields import FIELDS, REALS
from .pixels import make_copied_pixels, make_pixels
from .rows import make_far_rows, make_rows
from .tables import make_tables

__all__ = ["plan_pixels", "plan_rows", "workspace"]

Tables = tuple[NDArray[Any], ...]


def workspace(problem: ResizeProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call on arrays in the problem's memory order."""
    channels = problem.channels
    if problem.layout == "channels_last" and not is_interleaved(problem):
        cut = pixel_cut(problem)
    elif is_interleaved(problem):
        cut = row_cut(problem, _lanes(problem, device), 1, problem.batch, max(1, channels))
    else:
        cut = row_cut(problem, _lanes(problem, device), 1, problem.batch * channels, 1)
    return device.threads * cut.worker_bytes


def _lanes(problem: ResizeProblem, device: DeviceInfo) -> int:
    return device.lanes(problem.compute_itemsize)


def _is_transposed(problem: ResizeProblem) -> int:
    return int(problem.op == "interpolate_grad")


def _is_weighted(problem: ResizeProblem) -> int:
    """Tell whether anything is multiplied: a nearest sample is copied."""
    return int(_is_transposed(problem) or rule_of(problem) not in (NEAREST, EXACT))


def _record(problem: ResizeProblem, binding: ArrayBinding, cut: Cut) -> NDArray[Any]:
    """Return the geometry, but for the addresses of tables and the steps between planes."""
    along = axes(problem)
    x_strides, out_strides = binding.strides
    values: dict[str, float] = dict(cut.fields)
    values |= {"n": problem.batch, "c": problem.channels, "align": int(problem.align_corners)}
    values |= name_axes("i", [axis.read for axis in along], 1)
    values |= name_axes("o", [axis.written for axis in along], 1)
    values |= dict(zip(REALS, (axis.step for axis in along), strict=True))
    values |= name_strides("x", x_strides) | name_strides("y", out_strides)
    return array_record(FIELDS, values, REALS)


def _make_tables(record: NDArray[Any], cut: Cut, kernel: int) -> Tables:
    """Make the tables that a plan keeps, and write their addresses into the record."""
    sizes = {
        "row_table": cut.row_bytes,
        "depth_table": cut.depth_bytes,
        "column_table": cut.column_bytes,
    }
    made = {name: aligned(size) for name, size in sizes.items() if size}
    job = pool.make_job(kernel, record.ctypes.data, 1, 1)
    scratch = borrow(cut.worker_bytes)
    rows, depths, columns = (made.get(name) for name in sizes)
    try:
        pool.run(job.ctypes.data, 1, (rows, depths, columns, None, None, scratch))
    finally:
        give_back(scratch)
    for name, table in made.items():
        record[name] = table.ctypes.data
    return tuple(made.values())


def _reach(record: NDArray[Any], cut: Cut, tables: Tables, bound: int, lanes: int) -> int:
    """Return the vectors that the places of a tap lie in: 1, 2 or, for any number, 0.

    `bound` is over how many elements they reach, where no table says so.
    """
    if cut.column_bytes:
        words = tables[-1].view(np.int64)[2 :: cut.fields["segment_bytes"] // 8]
        bound = int(words[: cut.fields["segments"]].max()) + 1
    return next((vectors for vectors in (1, 2) if bound <= vectors * lanes), 0)


def _plan(
    problem: ResizeProblem, binding: ArrayBinding, device: DeviceInfo, cut: Cut,
    record: NDArray[Any], kernel: int, tables: Tables,
) -> ArrayPlan:  # fmt: skip
    workers = worth_helpers(problem.flops, device.threads)
    return ArrayPlan(
        record=record,
        stages=(ArrayStage(kernel, cut.tasks),),
        workers=workers,
        workspace_bytes=workers * cut.worker_bytes,
        flush=binding.flush,
        tables=tables,
    )


def plan_rows(problem: ResizeProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel of rows for one problem."""
    lanes, item = _lanes(problem, device), problem.itemsize
    (xn, xc, *_, xw), (yn, yc, *_, yw) = binding.strides
    images, channels = problem.batch, problem.channels
    side_by_side = channels * item
    interleaved = (
        is_interleaved(problem) and xc == yc == item and xw == yw == side_by_side
    )  # fmt: skip
    planes, elements = channels, 1
    if interleaved:
        planes, elements, xc, yc, xw, yw = 1, channels, side_by_side, side_by_side, item, item
    if images == 1 or (xn == planes * xc and yn == planes * yc) or planes == 1:
        if planes == 1:  # images are planes
            xc, yc = xn, yn
        images, planes = 1, images * planes
    cut = row_cut(problem, lanes, images, planes, elements)
    record = _record(problem, binding, cut)
    for name, value in (("xp", xc), ("yp", yc), ("xw", xw), ("yw", yw)):
        record[name] = value
    return _finish_rows(problem, binding, device, cut, record)


def _finish_rows(
    problem: ResizeProblem, binding: ArrayBinding, device: DeviceInfo, cut: Cut,
    record: NDArray[Any],
) -> ArrayPlan:  # fmt: skip
    lanes, item, storage = _lanes(problem, device), problem.itemsize, storage_code(problem.dtype)
    rule, transposed, width = rule_of(problem), _is_transposed(problem), axes(problem)[2]
    key = (rule, transposed, lanes, compute_code(storage))
    maker = compile_kernel(make_tables(*key), "resize_tables", *key)
    tables = _make_tables(record, cut, maker)
    bound = reach_of(width, lanes, cut.fields["interleaved"])
    shape = ColumnShape(
        taps=0 if transposed else width.taps,
        weighted=_is_weighted(problem),
        reach=_reach(record, cut, tables, bound, lanes),
        lanes=lanes,
        storage=storage,
        dense=int(record["yw"][0] == item),
    )
    if is_far(problem):
        shape = shape._replace(reach=0)
        kernel = compile_kernel(make_far_rows(rule, shape), "resize_far", rule, *shape)
    else:
        code = (rule, transposed, shape, int(record["xw"][0] == item))
        kernel = compile_kernel(make_rows(*code), "resize_rows", rule, transposed, *shape, code[3])
    return _plan(problem, binding, device, cut, record, kernel, tables)


def plan_pixels(problem: ResizeProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel of pixels; that of rows where channels are not side by side after all."""
    if any(strides[1] != problem.itemsize for strides in binding.strides):
        return plan_rows(problem, binding, device)
    lanes, storage, rule = _lanes(problem, device), storage_code(problem.dtype), rule_of(problem)
    transposed = _is_transposed(problem)
    cut = pixel_cut(problem)
    record = _record(problem, binding, cut)
    key = (rule, transposed, 0, 0)
    maker = compile_kernel(make_tables(*key), "resize_tables", *key)
    tables = _make_tables(record, cut, maker)
    code: tuple[int, ...]
    if copies_pixels(problem):
        code = (rule, lanes, storage, _is_weighted(problem))
        kernel = compile_kernel(make_copied_pixels(*code), "resize_copied_pixels", *code)
    else:
        code = (rule, transposed, lanes, storage)
        kernel = compile_kernel(make_pixels(*code), "resize_pixels", *code)
    return _plan(problem, binding, device, cut, record, kernel, tables)
