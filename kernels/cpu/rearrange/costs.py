"""What copies cost, and how they are cut into tasks: cycles, counted. No compiler is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fastconv.contract.array_problem import ArrayProblem, dense_array_binding
from fastconv.contract.pad_problem import PadProblem
from fastconv.contract.rearrange_problem import Axis, RearrangeProblem
from fastconv.contract.spec import DeviceInfo, dense_strides
from fastconv.contract.unfold_problem import UnfoldProblem

from ...tolerance import INTEGER_TOLERANCE
from ..common.specs import array_bytes, array_seconds, array_spec
from ..machine.lines import LINE
from ..machine.seconds import call_seconds, profile
from .forms import (
    ELEMENTS,
    EVERY,
    RUNS,
    SQUARES_IN,
    SQUARES_OUT,
    CopyForm,
    array_axes,
    copy_form,
    rows_innermost,
    square_lanes,
)

__all__ = [
    "SPECS",
    "copy_cycles",
    "copy_tasks",
    "counter_bytes",
    "fold_span",
    "fold_tasks",
    "is_narrow",
    "pad_cut",
    "padded_bytes",
]

#: Bytes that a task writes, about: 64 KiB take some 5 microseconds.
_TASK_BYTES = 64 << 10
_MOST_TASKS = 64
#: Cycles to go to the next position, and for an element that is moved alone.
_POSITION, _ELEMENT = 12.0, 1.5
#: Cycles for a row of sums, and for a vector of one tap in it.
_ROW, _TAP = 60.0, 4.0
#: Cycles to look up a line of a padded copy, and a column of it; columns of a part of a line.
_LINE, _COLUMN, _PIECE = 38.0, 3.0, 64
#: Bytes from or to memory for each that a padded copy writes.
_PADDED_TRAFFIC = 1.2
#: Columns of a narrow box, and the cycles of a line and of a column of it.
_NARROW, _NARROW_LINE, _NARROW_COLUMN = 24, 12.0, 2.0
#: Bytes of a padded copy: of any problem, and beyond that for each byte of its operands.
_LEAST_PADDED, _MOST_PADDED = 64 << 20, 8
#: Outputs of a row at a time, about: their sums stay in L1.
_SPAN = 4096
#: Rows of sums of one worker.
_MOST_PHASES = 1 << 16


class Cut(NamedTuple):
    """How a copy is cut: tasks along the outer axes and along the long one, elements of the last.

    It does not depend on the number of threads.
    """

    parts: int
    pieces: int
    block: int


def copy_tasks(form: CopyForm, lanes: int) -> Cut:
    """Return the tasks of a copy: parts of the outer axes, of the long one where they are few."""
    wanted = max(1, min(form.elements * form.item // _TASK_BYTES, _MOST_TASKS))
    parts = min(form.positions, wanted)
    vectors = -(-form.long.size // lanes)
    block = lanes * -(-vectors // min(vectors, -(-wanted // parts)))
    return Cut(parts, -(-form.long.size // block), block)


def counter_bytes(device: DeviceInfo) -> int:
    """Return the scratch bytes of the workers' odometers, a line each."""
    return LINE * device.threads


def copy_cycles(form: CopyForm, lanes: int) -> float:
    """Return the cycles of a copy on one thread whose memory is at hand."""
    vectors, ways = math.ceil(form.long.size / lanes), form.ways
    if form.moves == ELEMENTS:
        each = _ELEMENT * form.long.size
    elif form.moves == RUNS:
        each = 2.0 * vectors
    elif form.moves == EVERY:
        each = 2.0 * ways * vectors
    elif form.moves in (SQUARES_IN, SQUARES_OUT):
        each = vectors * math.ceil(ways / lanes) * lanes * (2 + math.log2(lanes))
    else:
        power = ways & (ways - 1) == 0
        each = vectors * ways * (2 + (math.log2(ways) if power else ways - 1))
    return form.positions * (each + _POSITION)


def _reasons(problem: ArrayProblem, device: DeviceInfo) -> list[str]:
    return []


def _counted(axes: Sequence[Axis], item: int, device: DeviceInfo) -> tuple[float, int]:
    """Return the cycles and the tasks of a copy."""
    form = copy_form(axes, item, device.vector_bytes)
    lanes = square_lanes(form.item, device.vector_bytes)
    cut = copy_tasks(form, lanes)
    return copy_cycles(form, lanes), cut.parts * cut.pieces


def _copy_seconds(problem: RearrangeProblem, device: DeviceInfo) -> float:
    axes = problem.axes(*dense_array_binding(problem).strides)
    return array_seconds(problem, device, *_counted(axes, problem.itemsize, device))


def padded_bytes(problem: UnfoldProblem) -> int:
    """Return the bytes of an image with its zeros around it, 0 where there are none."""
    if not any(problem.padding):
        return 0
    return problem.batch * problem.channels * math.prod(problem.padded) * problem.itemsize


def _unfold_reasons(problem: UnfoldProblem, device: DeviceInfo) -> list[str]:
    padded, most = padded_bytes(problem), _LEAST_PADDED + _MOST_PADDED * array_bytes(problem)
    if padded > most:
        return [f"copies the image with its padding, at most {most} bytes here; it has {padded}"]
    return []


def _unfold_seconds(problem: UnfoldProblem, device: DeviceInfo) -> float:
    image, columns = dense_array_binding(problem).strides
    cycles, item = 0.0, problem.itemsize
    if any(problem.padding):
        shape = (problem.batch, problem.channels, *problem.padded)
        padded = dense_strides(shape, item, rows_innermost(columns))
        cycles, _ = _counted(array_axes(problem.image_shape, image, padded), item, device)
        cycles += padded_bytes(problem) / device.vector_bytes
        image = padded
    copied, tasks = _counted(problem.axes(image, columns), item, device)
    return array_seconds(problem, device, cycles + copied, tasks)


def _fold_reasons(problem: UnfoldProblem, device: DeviceInfo) -> list[str]:
    if problem.steps[-1] > _MOST_PHASES:
        return [f"has a row of sums for each phase of the stride, at most {_MOST_PHASES}"]
    return []


def fold_span(problem: UnfoldProblem, device: DeviceInfo) -> int:
    """Return the outputs of a row that are summed up at a time, whole vectors of each phase."""
    unit = problem.steps[-1] * device.lanes(problem.compute_itemsize)
    return unit * max(1, _SPAN // unit)


def fold_tasks(problem: UnfoldProblem, device: DeviceInfo) -> int:
    """Return the tasks of a sum of columns: blocks of spans of output rows."""
    read = math.prod(problem.columns_shape) * problem.itemsize
    spans = -(-problem.in_size[-1] // fold_span(problem, device))
    units = math.prod(problem.image_shape[:-1]) * spans
    return min(units, max(1, min(read // _TASK_BYTES, _MOST_TASKS)))


def _fold_seconds(problem: UnfoldProblem, device: DeviceInfo) -> float:
    columns, image = dense_array_binding(problem).strides
    item = problem.itemsize
    if problem.tiles:
        axes = [Axis(axis.size, axis.target, axis.source) for axis in problem.axes(image, columns)]
        return array_seconds(problem, device, *_counted(axes, item, device))
    vectors = math.ceil(problem.in_size[-1] / device.lanes(problem.compute_itemsize))
    rows = math.prod(problem.image_shape[:-1])
    cycles = rows * (_ROW + _TAP * vectors * math.prod(problem.kernel_size))
    if columns[2] != item:
        dense = dense_strides(problem.columns_shape, item)
        cycles += _counted(array_axes(problem.columns_shape, columns, dense), item, device)[0]
    if image[-1] != item:
        dense = dense_strides(problem.image_shape, item)
        cycles += _counted(array_axes(problem.image_shape, dense, image), item, device)[0]
    return array_seconds(problem, device, cycles, fold_tasks(problem, device))


class PadCut(NamedTuple):
    """How a padded copy is cut: lines, tasks along them and along a line, columns of the last."""

    lines: int
    parts: int
    pieces: int
    block: int


def is_narrow(problem: PadProblem, pixels: bool) -> bool:
    """Tell whether a line of a padded copy is a few elements, of which a table tells each."""
    return not pixels and problem.out_size[-1] <= _NARROW


def pad_cut(problem: PadProblem, pixels: bool) -> PadCut:
    """Return the tasks of a padded copy; with `pixels` a line holds all channels."""
    *outer, columns = problem.out_size
    lines = problem.batch * math.prod(outer) * (1 if pixels else problem.channels)
    wanted = max(1, min(problem.flops * problem.itemsize // _TASK_BYTES, _MOST_TASKS))
    parts = min(lines, wanted)
    pieces = max(1, min(wanted // parts, columns // _PIECE))
    block = -(-columns // pieces)
    return PadCut(lines, parts, -(-columns // block), block)


def _pad_seconds(problem: PadProblem, device: DeviceInfo) -> float:
    """Count what is written, which is mostly in a cache when it is read again, and some more."""
    pixels = problem.layout == "channels_last" and problem.channels > 1
    cut, width = pad_cut(problem, pixels), problem.maps[-1]
    unit, outside = problem.channels if pixels else 1, problem.out_size[-1] - width.inside
    lanes = device.vector_bytes / problem.itemsize
    vectors = math.ceil(width.inside * unit / lanes) + outside * math.ceil(unit / lanes)
    each = _LINE + _COLUMN * outside + 2.0 * vectors
    if problem.layout == "strided":
        each += _ELEMENT * width.inside
    if is_narrow(problem, pixels):
        each = _NARROW_LINE + _NARROW_COLUMN * problem.out_size[-1]
    machine, tasks = profile(device), cut.parts * cut.pieces
    return call_seconds(
        cut.lines * each + tasks * machine.calls.task,
        _PADDED_TRAFFIC * problem.flops * problem.itemsize,
        clock=machine.core.sustained, bandwidth=machine.memory.operands,
        start=machine.calls.start, workers=max(1, min(tasks, device.threads)),
    )  # fmt: skip


SPECS = (
    *(
        array_spec(op, "rearrange.copy", op, _reasons, _copy_seconds)
        for op in ("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "interleave")
    ),
    array_spec("unfold", "rearrange.unfold", "unfold", _unfold_reasons, _unfold_seconds),
    array_spec("fold", "rearrange.fold", "fold", _fold_reasons, _fold_seconds),
    array_spec("pad", "rearrange.pad", "pad", _reasons, _pad_seconds, tolerance=INTEGER_TOLERANCE),
)
