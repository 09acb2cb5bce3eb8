"""Whole-number work in the thread pool: a stage is machine code, named words, and tasks.

What builds rulebooks moves keys and row numbers, no samples: a task reads all that it needs from
one record of 64-bit words, sizes and addresses of arrays alike. Arrays are reached by address and
index, without the bounds, strides and negative indices of NumPy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastconv.contract import recycling
from fastconv.contract.settings import config

from ..runtime import pool
from ..runtime.plan import compile_kernel
from ..simd.ir import I1, I32, I64, call, pointer

__all__ = ["IntegerStage", "chunks", "count_bits", "empty", "first_bit", "get_int", "set_int"]

#: Rows of which one task is worth handing over; a hand-over costs a microsecond.
_LEAST_ROWS = 2048
#: Tasks a thread, so that one that is held up does not hold up the others.
_TASKS = 4
_NO_OPERANDS = (None,) * 6


@intrinsic
def get_int(typingctx: Any, table: Any, index: Any) -> Any:
    """Read a 32-bit integer of a table."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(pointer(builder, args[0], I32), [args[1]])
        return builder.sext(builder.load(place), I64)

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def set_int(typingctx: Any, table: Any, index: Any, value: Any) -> Any:
    """Write a 32-bit integer of a table."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(pointer(builder, args[0], I32), [args[1]])
        builder.store(builder.trunc(args[2], I32), place)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def count_bits(typingctx: Any, word: Any) -> Any:
    """Return how many bits of a word are set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return call(builder, "llvm.ctpop.i64", I64, args[0])

    return types.intp(types.intp), codegen


@intrinsic
def first_bit(typingctx: Any, word: Any) -> Any:
    """Return the number of the lowest bit that is set; 64 where none is."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return call(builder, "llvm.cttz.i64", I64, args[0], I1(0))

    return types.intp(types.intp), codegen


class IntegerStage:
    """Machine code that is run once a task.

    Parameters
    ----------
    body : callable
        ``body(g, task)``, compiled by Numba when it is first run: `g` has the fields.
    fields : str
        Names of the words, divided by blanks.
    *variant : int
        What the body closes over.

    Attributes
    ----------
    key : tuple
        Names the machine code: the body's module and name, then the variant. Bodies of two modules
        may have one name.
    """

    def __init__(self, body: Callable[[Any, int], None], fields: str, *variant: int) -> None:
        home = body.__module__.removeprefix("fastconv.kernels.cpu.").replace(".", "_")
        self.key = (f"{home}_{body.__name__.strip('_')}", *variant)
        self._fields = fields.split()
        record = numba.from_dtype(np.dtype([(name, np.int64) for name in self._fields]))

        @intrinsic
        def view(typingctx: Any, address: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return builder.inttoptr(args[0], context.get_value_type(record))

            return record(types.intp), codegen

        compiled = numba.njit(body)

        def task(
            geometry: int, x: int, weight: int, bias: int, extra: int, out: int,
            workspace: int, number: int, worker: int,
        ) -> None:  # fmt: skip
            compiled(view(geometry), number)

        task.__module__ = body.__module__  # by whose sources the code is kept on disk
        self._task = task

    def run(self, tasks: int, **words: int | NDArray[Any] | None) -> None:
        """Run every task and return when all are done.

        Parameters
        ----------
        tasks : int
            How many.
        **words : int, array or None
            A value for each field; an array's is its address, that of None is 0.
        """
        if tasks == 0:
            return
        values = (words[name] for name in self._fields)
        record = np.array([_word(value) for value in values], np.int64)
        kernel = compile_kernel(self._task, *self.key)
        workers = min(config.num_threads, tasks)
        job = pool.make_job(kernel, record.ctypes.data, tasks, workers)
        pool.run(job.ctypes.data, workers, _NO_OPERANDS)


def _word(value: int | NDArray[Any] | None) -> int:
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    return value or 0


def chunks(rows: int) -> tuple[int, int]:
    """Return how many tasks `rows` rows are divided into, and the rows of each but the last."""
    most = _TASKS * config.num_threads if config.num_threads > 1 else 1
    tasks = max(1, min(most, rows // _LEAST_ROWS))
    chunk = -(-rows // tasks)
    return -(-rows // chunk) if rows else 0, chunk


def empty(shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an array whose content is arbitrary, and nonsense where the settings ask for it."""
    size = math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
    if size >= recycling.LARGE:
        made = np.ndarray(shape, dtype, recycling.take(size))
    else:
        made = np.empty(shape, dtype)
    if config.poison_workspace:
        made.view(np.uint8).fill(0xA5)
    return made
