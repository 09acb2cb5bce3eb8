"""A copy of an array from any strides into any strides: fastconv's own fast copy.

Shuffles of pixels and channels are such copies, and so is whatever a kernel must bring into an
order of its own. The bits of elements are moved as they are, halves too. `forms.py` says what a
copy comes to::

    task = positions of the outer axes x piece of the long axis    taken by any thread
      for position                                    an odometer in the worker's scratch memory
        RUNS         full vectors, the last one under a mask
        EVERY        2 to 4 vectors, of which a shuffle takes every second, third or fourth element
        WEAVE        vectors of 2 to 9 rows, interleaved, to as many vectors behind one another
        UNWEAVE      the same backwards
        SQUARES      16 x 16 elements of 4 bytes, transposed in registers (simd/transposes.py)
        ELEMENTS     one by one

Bound by memory: every element is read once and written once, the target in the order of its
memory, so that each line of it is written whole by one thread. Pixels shuffled by 2 are two loads,
two shuffles and two stores for 128 bytes, 4 cycles where the memory of a Zen 4 takes 20.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from fastconv.contract.array_problem import ArrayBinding
from fastconv.contract.rearrange_problem import Axis, RearrangeProblem
from fastconv.contract.spec import DeviceInfo

from ..machine.lines import LINE
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import get_word, set_word
from .costs import copy_tasks, counter_bytes
from .forms import (
    EVERY,
    MOST_WAYS,
    SQUARES_IN,
    SQUARES_OUT,
    UNWEAVE,
    WEAVE,
    CopyForm,
    copy_form,
    square_lanes,
)
from .moves import make_move

__all__ = ["CopyStage", "Place", "plan", "plan_copy", "workspace"]

FIELDS = (
    "positions",  # of all outer axes
    "parts",  # tasks along them
    "pieces",  # tasks along the long axis
    "block",  # elements of a piece
    "length",  # of the long axis
    "source_step",  # bytes from one element of it to the next
    "target_step",
    "ways",  # positions of the group
    "source_ways",  # bytes from one vector of it to the next
    "target_ways",
    "sources",  # addresses of tables of byte offsets
    "targets",
    "inner",  # size of the innermost outer axis
    "source_inner",
    "target_inner",
    "axes",  # other outer axes
    "table",  # address of their sizes and steps
    "counters_at",  # in the workspace: a line for each worker
    "source_at",  # byte offset of the first element
    "target_at",
    "from_workspace",
    "to_workspace",
)
view = as_record(FIELDS)


@numba.njit
def _start(g: Any, counters: int, position: int) -> tuple[int, int]:
    """Set the odometer to a position; return its byte offsets in source and target."""
    turn, rest = position % g.inner, position // g.inner
    source, target = turn * g.source_inner, turn * g.target_inner
    for axis in range(g.axes - 1, -1, -1):
        size = get_word(g.table, 3 * axis)
        count = rest % size
        set_word(counters, axis, count)
        source += count * get_word(g.table, 3 * axis + 1)
        target += count * get_word(g.table, 3 * axis + 2)
        rest //= size
    return source, target


@numba.njit
def _turn(g: Any, counters: int) -> tuple[int, int]:
    """Go on when the innermost axis is through; return the steps in source and target."""
    source, target = -g.inner * g.source_inner, -g.inner * g.target_inner
    for axis in range(g.axes - 1, -1, -1):
        size = get_word(g.table, 3 * axis)
        source += get_word(g.table, 3 * axis + 1)
        target += get_word(g.table, 3 * axis + 2)
        count = get_word(counters, axis) + 1
        if count < size:
            set_word(counters, axis, count)
            break
        set_word(counters, axis, 0)
        source -= size * get_word(g.table, 3 * axis + 1)
        target -= size * get_word(g.table, 3 * axis + 2)
    return source, target


@functools.cache
def _make_kernel(moves: int, ways: int, item: int, vector_bytes: int) -> Any:
    move = make_move(moves, ways, item, vector_bytes)

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        part, piece = number // g.pieces, number % g.pieces
        position = part * g.positions // g.parts
        last = (part + 1) * g.positions // g.parts
        start = piece * g.block
        stop = min(g.length, start + g.block)
        counters = workspace + g.counters_at + worker * LINE
        x_start, y_start = _start(g, counters, position)
        source = (workspace if g.from_workspace else x) + g.source_at + x_start
        target = (workspace if g.to_workspace else out) + g.target_at + y_start
        turn = position % g.inner
        for _ in range(position, last):
            move(g, source, target, start, stop)
            turn += 1
            source += g.source_inner
            target += g.target_inner
            if turn == g.inner:
                turn = 0
                x_step, y_step = _turn(g, counters)
                source += x_step
                target += y_step

    return task


class Place(NamedTuple):
    """Where a copy reads or writes.

    Parameters
    ----------
    offset : int
        Bytes from the array's first element, or from the start of the call's workspace.
    workspace : bool
        Whether it is the workspace, and not the call's first array or its output.
    """

    offset: int = 0
    workspace: bool = False


_ARRAY = Place()


class CopyStage(NamedTuple):
    """A copy made ready to be a stage of a plan, and the memory that it refers to."""

    stage: ArrayStage
    tables: tuple[NDArray[np.int64], ...]
    workers: int


def _tables(form: CopyForm, lanes: int) -> dict[str, NDArray[np.int64]]:
    """Return the offsets of rows that `sources` and `targets` hold, and the outer axes."""
    most = max(lanes, MOST_WAYS)
    group = {
        "sources": form.group_offsets(lambda axis: axis.source, most),
        "targets": form.group_offsets(lambda axis: axis.target, most),
    }
    if form.moves in (SQUARES_IN, SQUARES_OUT):
        long = form.long
        along = ("targets", long.target) if form.moves == SQUARES_IN else ("sources", long.source)
        group[along[0]] = [i * along[1] for i in range(lanes)]
    made = {name: np.zeros(most, np.int64) for name in group}
    for name, offsets in group.items():
        made[name][: len(offsets)] = offsets
    others = [word for axis in form.outer[:-1] for word in axis]
    return made | {"table": np.array(others or [0], np.int64)}


def plan_copy(
    axes: Sequence[Axis], item: int, device: DeviceInfo, counters_at: int = 0,
    source: Place = _ARRAY, target: Place = _ARRAY,
) -> CopyStage:  # fmt: skip
    """Prepare a copy along axes as a stage of a plan.

    Parameters
    ----------
    axes : sequence of Axis
        No two elements of the target share memory; those of the source may.
    item : int
        Bytes of an element: 2, 4 or 8.
    device : DeviceInfo
        The CPU.
    counters_at : int
        Where in the workspace each worker has a line of its own, `counter_bytes` in all.
    source, target : Place
        Where the first elements are.
    """
    form = copy_form(axes, item, device.vector_bytes)
    lanes = square_lanes(form.item, device.vector_bytes)
    cut, tables = copy_tasks(form, lanes), _tables(form, lanes)
    inner = form.outer[-1] if form.outer else Axis(1, 0, 0)
    short = form.group[-1] if form.group else Axis(1, 0, 0)
    values = {
        "positions": form.positions, **cut._asdict(), "length": form.long.size,
        "source_step": form.long.source, "target_step": form.long.target,
        "ways": form.ways, "source_ways": lanes * short.source, "target_ways": lanes * short.target,
        "inner": inner.size, "source_inner": inner.source, "target_inner": inner.target,
        "axes": max(0, len(form.outer) - 1), "counters_at": counters_at,
        "source_at": source.offset + form.source, "target_at": target.offset + form.target,
        "from_workspace": int(source.workspace), "to_workspace": int(target.workspace),
        **{name: table.ctypes.data for name, table in tables.items()},
    }  # fmt: skip
    ways = form.ways if form.moves in (EVERY, WEAVE, UNWEAVE) else 0
    variant = (form.moves, ways, form.item, device.vector_bytes)
    kernel = compile_kernel(_make_kernel(*variant), "copy", *variant)
    written = form.elements * form.item
    stage = ArrayStage(kernel, cut.parts * cut.pieces, array_record(FIELDS, values))
    return CopyStage(stage, tuple(tables.values()), worth_helpers(written, device.threads))


def workspace(problem: RearrangeProblem, device: DeviceInfo) -> int:
    """Return the scratch bytes of a call: the workers' odometers."""
    return counter_bytes(device)


def plan(problem: RearrangeProblem, binding: ArrayBinding, device: DeviceInfo) -> ArrayPlan:
    """Prepare the kernel for one problem."""
    axes = problem.axes(*binding.strides)
    stage, tables, workers = plan_copy(axes, problem.itemsize, device)
    assert stage.record is not None
    return ArrayPlan(
        record=stage.record,
        stages=(stage,),
        workers=workers,
        workspace_bytes=workspace(problem, device),
        flush=binding.flush,
        tables=tables,
    )
