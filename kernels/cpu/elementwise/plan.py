"""Chains of element-wise operations: an interpreter over tiles that stay in L1.

Computes ``out[i] = f(a[i], b[i], ...)`` with NumPy's broadcasting, f any chain of the operations in
`functions`. Wins over one pass an operation, which goes to memory and back for each::

    task = some tiles of the output, in its order in memory
      for tile of up to 2048 elements
        for array: read in place                or copied into a tile of its own (walk.py)
        for instruction
          switch (operation)                    once for some hundred vectors
            for vector: store(operation(load, load))
        result: written in place                or copied out of its tile

Machine code is compiled once for an element type, whatever the formula. An array is read in place
where its elements lie as the output's do; one value for all is a vector that each step reads again.
Between instructions a vector is stored and loaded: two or three cycles beside an exponential's
twenty, and no more than memory takes for an array of its own. Tiles share 24 KiB of L1.

Halves are computed in float32 and rounded once, at the end.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from fastconv.contract.cpu import cpu_info
from fastconv.contract.formula import Formula

from ..common.collapse import collapse
from ..machine.lines import LINE, whole_lines
from ..runtime.array_plan import ArrayPlan, ArrayStage, array_record
from ..runtime.plan import compile_kernel, worth_helpers
from ..runtime.record import as_record
from ..simd.intrinsics import get_word, load_scalar, set_word, splat, store
from ..simd.ir import F64, ITEMSIZE, compute_code, storage_code
from .functions import make_step
from .program import INSTRUCTION_WORDS, compile_formula
from .walk import MOST_AXES, TABLE_WORDS, make_walk

__all__ = ["DTYPES", "plan_formula"]

#: Element types that there is code for.
DTYPES = ("float32", "float64", "float16", "bfloat16")
#: Elements of a task at most, of a tile at least and at most, and the bytes that all tiles share.
_TASK, _LEAST, _MOST, _BYTES = 1 << 14, 256, 2048, 24 << 10

FIELDS = (
    "arrays", "numbers", "slots", "instructions",
    "tables", "values", "program",  # addresses: arrays' tables, numbers, instructions
    "total", "each", "tile",  # elements: of the output, of a task, of a tile
    "head",  # bytes of a worker's slots and numbers, before its tiles
    "pitch", "worker_bytes",
)  # fmt: skip
view = as_record(FIELDS)


@functools.cache
def _make_slots(lanes: int, storage: int) -> tuple[Any, Any, Any]:
    """Return functions of a worker's slots: lay them out, tell and bring what a tile reads."""
    compute = compute_code(storage)
    real = np.float64 if compute == F64 else np.float32
    size, item = ITEMSIZE[compute], ITEMSIZE[storage]
    fill, _ = make_walk(lanes, storage)

    @numba.njit
    def lay_out(g: Any, memory: int) -> None:
        for slot in range(g.slots):
            set_word(memory, 2 * slot, memory + g.head + slot * g.pitch)
            set_word(memory, 2 * slot + 1, lanes * size)
        for number in range(g.numbers):
            value = real(load_scalar(g.values + 8 * number, F64))
            slot = g.arrays + number
            store(memory + g.head + slot * g.pitch, splat(value, lanes), compute)
            set_word(memory, 2 * slot + 1, 0)

    @numba.njit
    def is_in_place(g: Any, number: int, count: int) -> bool:
        """Tell whether an array's elements lie as the output's do, here whole vectors of them."""
        table = g.tables + 8 * TABLE_WORDS * number
        dense = get_word(table, 0) == 1 and get_word(table, 2) == item
        return bool(dense and item == size and count % lanes == 0)

    @numba.njit
    def bring(g: Any, memory: int, number: int, array: int, first: int, count: int) -> None:
        table = g.tables + 8 * TABLE_WORDS * number
        address, step = memory + g.head + number * g.pitch, lanes * size
        if is_in_place(g, number, count):
            address = array + first * item
        elif get_word(table, 0) == 1 and get_word(table, 2) == 0:
            fill(table, array, 0, 1, address)
            step = 0
        else:
            fill(table, array, first, count, address)
        set_word(memory, 2 * number, address)
        set_word(memory, 2 * number + 1, step)

    return lay_out, is_in_place, bring


@functools.cache
def _make_kernel(lanes: int, storage: int) -> Any:
    """Return the task: see the loop nest above."""
    item = ITEMSIZE[storage]
    lay_out, is_in_place, bring = _make_slots(lanes, storage)
    step = make_step(lanes, compute_code(storage))
    _, drain = make_walk(lanes, storage)

    @numba.njit
    def interpret(g: Any, memory: int, vectors: int) -> None:
        for line in range(g.instructions):
            at = INSTRUCTION_WORDS * line
            a, b = get_word(g.program, at + 1), get_word(g.program, at + 2)
            step(
                get_word(g.program, at), get_word(memory, 2 * a), get_word(memory, 2 * a + 1),
                get_word(memory, 2 * b), get_word(memory, 2 * b + 1),
                get_word(memory, 2 * get_word(g.program, at + 3)), vectors,
            )  # fmt: skip

    def task(
        geometry: int, x: int, second: int, third: int, fourth: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        memory = workspace + worker * g.worker_bytes
        result, table = g.slots - 1, g.tables + 8 * TABLE_WORDS * g.arrays
        tile = memory + g.head + result * g.pitch
        lay_out(g, memory)
        for first in range(number * g.each, min(g.total, (number + 1) * g.each), g.tile):
            count = min(g.tile, g.total - first)
            for k in range(g.arrays):
                array = x
                if k == 1:
                    array = second
                elif k == 2:
                    array = third
                elif k >= 3:  # the fourth of four, or the rest by their addresses
                    array = fourth if g.arrays == 4 else get_word(fourth, k - 3)
                bring(g, memory, k, array, first, count)
            direct = is_in_place(g, g.arrays, count)
            set_word(memory, 2 * result, out + first * item if direct else tile)
            interpret(g, memory, -(-count // lanes))
            if not direct:
                drain(table, out, first, count, tile)

    return task


def _tables(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[list[int]] | None:
    """Return the tables of arrays, None where one has too many axes.

    Axes are in the output's order in memory, so that it is written in one run where it can be.
    """
    order = sorted(range(len(shape)), key=lambda axis: (-abs(strides[-1][axis]), axis))
    sizes, tables = [shape[axis] for axis in order], []
    for each in strides:
        axes = collapse(sizes, [each[axis] for axis in order]) or [(1, (0,))]
        if len(axes) > MOST_AXES:
            return None
        words = [len(axes), *(word for size, (step,) in axes for word in (size, step))]
        tables.append(words + [0] * (TABLE_WORDS - len(words)))
    return tables


def _tiles(slots: int, numbers: int, lanes: int, storage: int) -> dict[str, int]:
    """Return the elements of a tile, and where a worker's tiles lie, by field."""
    size = ITEMSIZE[compute_code(storage)]
    fitting = _BYTES // ((slots - numbers) * size)
    tile = min(_MOST, max(_LEAST, fitting // lanes * lanes))
    head = whole_lines(16 * slots)
    # Tiles a line more than a power of two apart, and room for the vector that a copy overruns.
    pitch = whole_lines((tile + lanes) * size) + LINE
    return {"tile": tile, "head": head, "pitch": pitch, "worker_bytes": head + slots * pitch}


def plan_formula(
    formula: Formula, dtype: str, shape: tuple[int, ...], strides: Sequence[tuple[int, ...]],
    flush: bool = True,
) -> ArrayPlan | None:  # fmt: skip
    """Prepare a chain for arrays of one kind.

    Parameters
    ----------
    formula : Formula
        What is computed.
    dtype : str
        One of `DTYPES`, of the arrays and of the output.
    shape : tuple of int
        Of the output; no axis is empty.
    strides : sequence of tuple of int
        Bytes, of the arrays as they are broadcast to that shape, and of the output.
    flush : bool
        Whether denormal numbers count as zero.

    Returns
    -------
    ArrayPlan or None
        Its `run` takes the arrays and the output, which shares memory with none of them. None
        where strides make more axes than there is room for.
    """
    tables = _tables(shape, strides)
    if tables is None:
        return None
    program, device, storage = compile_formula(formula), cpu_info(), storage_code(dtype)
    total, lanes = math.prod(shape), device.lanes(ITEMSIZE[compute_code(storage)])
    workers = worth_helpers(total * formula.cost, device.threads)
    kept = (
        np.array(tables, np.int64),
        np.array([*formula.numbers, 0.0], np.float64),
        np.array(program.words, np.int64),
    )
    values = {
        "arrays": formula.arrays, "numbers": len(formula.numbers), "slots": program.slots,
        "instructions": len(formula.operations), "tables": kept[0].ctypes.data,
        "values": kept[1].ctypes.data, "program": kept[2].ctypes.data, "total": total,
    }  # fmt: skip
    values |= _tiles(program.slots, len(formula.numbers), lanes, storage)
    most = min(_TASK, -(-total // (4 * workers)))
    values["each"] = -(-most // values["tile"]) * values["tile"]
    kernel = compile_kernel(_make_kernel(lanes, storage), "elementwise", lanes, storage)
    return ArrayPlan(
        record=array_record(FIELDS, values),
        stages=(ArrayStage(kernel, -(-total // values["each"])),),
        workers=workers,
        workspace_bytes=workers * values["worker_bytes"],
        flush=flush,
        tables=kept,
    )
