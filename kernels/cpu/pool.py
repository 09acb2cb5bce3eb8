"""Threads for the kernels: one small pool that can be used from anywhere.

A job is a compiled function and a number of tasks; whoever is free takes the next task. Numba's
own threading layers are not used, for three reasons: `workqueue` aborts the process when two
Python threads launch at once, OpenMP aborts it after a fork, and a launch costs 3 microseconds
(`workqueue`: 190) where this pool's costs well under one.

How it works. Helper threads are Python threads that spend their lives in machine code with the
GIL released: they spin for about a millisecond waiting for a job and then park on a lock. The
state that they share with the caller is an array of integers::

    ticket      generation << 32 | next task      one word, so that a claim is one compare-swap
    done        finished tasks of the job in work
    busy        1 while a caller owns the pool
    yield       address of the system's function that gives the processor to others
    none        address of Python's None
    job         function, operands, tasks, workers
    parked[w]   1 while helper w sleeps

A caller stays in machine code until its job has ended, so no signal or exception can free an array
that a helper still writes. A claim succeeds only for the generation whose job was read, so a late
helper can never run a stale job. A caller that finds the pool busy runs its job alone: no waiting,
no oversubscription. After a fork the child starts with a fresh state and fresh helpers.

A kernel is ``void(geometry, x, weight, bias, residual, out, workspace, task, worker)``, all
integers. Tasks must not depend on each other, and no sum may depend on which worker took it: then
results are the same bits for any number of threads.

While a thread works on tasks it takes denormal numbers for zero where the job says so, since one of
them makes an instruction some hundred cycles long; the caller's own floating-point mode, its flags
too, is back in force when the call returns.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastconv.processors import MOST_THREADS

from . import jit
from .threads import (
    claim_word,
    float_mode,
    increment_word,
    load_word,
    pause,
    read_word,
    set_float_mode,
    store_word,
    swap_word,
    yield_processor,
)
from .vectors import I64, call_address, pointer

__all__ = ["make_job", "run"]

Array = NDArray[Any] | None
Operands = tuple[Array, Array, Array, Array, Array, Array]

_OPERANDS = 7  # geometry, x, weight, bias, residual, out, workspace
_TICKET, _DONE, _BUSY, _YIELD, _NONE, _JOB, _PARKED = 0, 8, 16, 24, 25, 32, 48
# Words of the job, after function and operands.
_TASKS, _WORKERS, _FLUSH = _OPERANDS + 1, _OPERANDS + 2, _OPERANDS + 3
_CLOSED = 0xFFFFFFFF  # a next task that no job has
_LINE = 8  # words in a cache line: flags written by different threads do not share one
_SPINS = 40_000  # pauses before a helper parks: about a millisecond
_IMPATIENCE = 4_000  # pauses before a waiting caller offers its processor to others

# In CPython every object starts with its header. A tuple's items stand behind it, and NumPy's array
# struct continues with the data pointer. Reading both in machine code takes nanoseconds;
# `np.ndarray.ctypes.data` tells the same address and takes a microsecond.
_DATA_OFFSET = object.__basicsize__
_ITEM_OFFSET = tuple.__basicsize__


@intrinsic
def _data(typingctx: Any, operands: Any, i: Any, none: Any) -> Any:
    """Return the data pointer of the i-th array of a tuple, 0 where that is None.

    `operands` and `none` are what `id` tells of the tuple and of None.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        offset = builder.add(builder.mul(args[1], I64(8)), I64(_ITEM_OFFSET))
        item = builder.load(pointer(builder, builder.add(args[0], offset), I64))
        missing = builder.icmp_signed("==", item, args[2])
        # Reading None's header where there is no data pointer keeps this free of branches.
        field = builder.select(missing, item, builder.add(item, I64(_DATA_OFFSET)))
        data = builder.load(pointer(builder, field, I64))
        return builder.select(missing, I64(0), data)

    return types.intp(types.intp, types.intp, types.intp), codegen


@intrinsic
def _call(
    typingctx: Any,
    function: Any,
    g: Any,
    x: Any,
    w: Any,
    b: Any,
    r: Any,
    y: Any,
    s: Any,
    t: Any,
    i: Any,
) -> Any:
    """Call a kernel: function, seven operands, task, worker."""
    return types.void(*([types.intp] * (_OPERANDS + 3))), call_address


def _make_work() -> tuple[Any, Any]:
    """Return the functions that take tasks of a job, and that see a job through."""

    @numba.njit
    def call_job(job: int, task: int, worker: int) -> None:
        """Run one task of the job whose words stand at an address."""
        _call(
            read_word(job),
            read_word(job + 8),
            read_word(job + 16),
            read_word(job + 24),
            read_word(job + 32),
            read_word(job + 40),
            read_word(job + 48),
            read_word(job + 56),
            task,
            worker,
        )

    @numba.njit
    def take_tasks(state: int, generation: int, worker: int) -> None:
        """Run tasks of one generation until none is left."""
        job = state + 8 * _JOB
        tasks = load_word(job + 8 * _TASKS)
        while True:
            ticket = load_word(state + 8 * _TICKET)
            task = ticket & _CLOSED
            if ticket >> 32 != generation or task >= tasks:
                return
            if claim_word(state + 8 * _TICKET, ticket):
                call_job(job, task, worker)
                increment_word(state + 8 * _DONE)

    @numba.njit
    def share(state: int) -> None:
        """Offer the job to the helpers, work on it, and wait until they have ended their tasks."""
        store_word(state + 8 * _DONE, 0)
        generation = (load_word(state + 8 * _TICKET) >> 32) + 1 & 0x7FFFFFFF
        store_word(state + 8 * _TICKET, generation << 32)
        take_tasks(state, generation, 0)
        tasks = read_word(state + 8 * (_JOB + _TASKS))
        pauses = 0
        while load_word(state + 8 * _DONE) < tasks:
            pauses += 1
            if pauses < _IMPATIENCE:
                pause()
            else:
                yield_processor(read_word(state + 8 * _YIELD))
        # A late helper must not find a task while the next job's words are written.
        store_word(state + 8 * _TICKET, generation << 32 | _CLOSED)
        store_word(state + 8 * _BUSY, 0)

    return take_tasks, share


def _functions() -> dict[str, Any]:
    """Define what the caller and the helpers run in machine code."""
    take_tasks, share = _make_work()

    def submit(state: int, job: int, operands: int, wakened: int) -> int:
        """Run a job and return 0; or do nothing and return 1 where helpers must be woken first."""
        tasks, workers, flush = read_word(job + 16), read_word(job + 24), read_word(job + 32)
        alone = workers < 2 or tasks < 2
        if not alone and not wakened:
            for worker in range(1, workers):
                if load_word(state + 8 * (_PARKED + worker * _LINE)):
                    return 1
        function, g, none = read_word(job), read_word(job + 8), read_word(state + 8 * _NONE)
        x, w, b = _data(operands, 0, none), _data(operands, 1, none), _data(operands, 2, none)
        r, y, s = _data(operands, 3, none), _data(operands, 4, none), _data(operands, 5, none)
        mode = float_mode()
        set_float_mode(mode, flush)
        if alone or swap_word(state + 8 * _BUSY, 1):
            for task in range(tasks):
                _call(function, g, x, w, b, r, y, s, task, 0)
        else:
            for i, value in enumerate((function, g, x, w, b, r, y, s, tasks, workers, flush)):
                store_word(state + 8 * (_JOB + i), value)
            share(state)
        set_float_mode(mode, 0)
        return 0

    def serve(state: int, worker: int, seen: int) -> int:
        """Help with jobs until none came for a while; return the last generation seen."""
        store_word(state + 8 * (_PARKED + worker * _LINE), 0)
        mode = float_mode()
        idle = 0
        while idle < _SPINS:
            generation = load_word(state + 8 * _TICKET) >> 32
            if generation == seen:
                pause()
                idle += 1
                continue
            idle, seen = 0, generation
            if worker < load_word(state + 8 * (_JOB + _WORKERS)):
                # A word of a later job does no harm: no task of this one can be claimed any more.
                set_float_mode(mode, load_word(state + 8 * (_JOB + _FLUSH)))
                take_tasks(state, generation, worker)
        set_float_mode(mode, 0)
        return seen

    def park(state: int, worker: int, seen: int) -> int:
        """Announce that a helper goes to sleep; 0 when a job has come meanwhile."""
        store_word(state + 8 * (_PARKED + worker * _LINE), 1)
        return int(load_word(state + 8 * _TICKET) >> 32 == seen)

    return {"submit": submit, "serve": serve, "park": park}


_ARGUMENTS = {"submit": 4, "serve": 3, "park": 3}


def _yield_address() -> int:
    """Return the address of the system's function that gives the processor to another thread."""
    if sys.platform == "win32":
        function = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class Pool:
    """The helpers and the words that they share with callers."""

    def __init__(self) -> None:
        integer = types.intp
        self._native = {
            name: jit.compile_function(
                function, integer(*([integer] * _ARGUMENTS[name])), (f"pool_{name}",)
            )
            for name, function in _functions().items()
        }
        self.submit = self._native["submit"]
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start from a fresh state with no helper: in a new process, and after a fork."""
        self._words = np.zeros(_PARKED + MOST_THREADS * _LINE + _LINE, np.int64)
        line = 8 * _LINE
        self.state = (self._words.ctypes.data + line - 1) // line * line
        for word, value in ((_YIELD, _yield_address()), (_NONE, id(None))):
            ctypes.c_int64.from_address(self.state + 8 * word).value = value
        self.helpers: list[threading.Lock] = []
        self._lock = threading.Lock()

    def grow(self, workers: int) -> None:
        """Start helpers until `workers` threads, the caller among them, can work on a job."""
        with self._lock:
            while len(self.helpers) < min(workers, MOST_THREADS) - 1:
                bed = threading.Lock()
                bed.acquire()
                self.helpers.append(bed)
                arguments = (self.state, len(self.helpers), bed)
                name = f"fastconv-{len(self.helpers)}"
                threading.Thread(target=self._live, args=arguments, name=name, daemon=True).start()

    def _live(self, state: int, worker: int, bed: threading.Lock) -> None:
        """Spend a helper's life: serve in machine code, sleep when there is nothing to do."""
        serve, park = self._native["serve"], self._native["park"]
        seen = 0
        while True:
            seen = serve(state, worker, seen)
            if park(state, worker, seen):
                bed.acquire()

    def wake(self) -> None:
        """Wake the helpers; one that was awake goes once more around its loop."""
        for bed in self.helpers:
            if bed.locked():
                with contextlib.suppress(RuntimeError):  # another caller was quicker
                    bed.release()


_pool: Pool | None = None


def _started() -> Pool:
    """Return the pool, made by the first caller."""
    global _pool
    with jit.lock:
        if _pool is None:
            _pool = Pool()
            _check_layout()
        return _pool


def _check_layout() -> None:
    """Make sure that tuples' items and arrays' data pointers stand where this module reads them."""
    probe = np.empty(1)
    operands = (None, probe)
    item = ctypes.c_void_p.from_address(id(operands) + _ITEM_OFFSET + 8).value
    data = ctypes.c_void_p.from_address(id(probe) + _DATA_OFFSET).value
    if item != id(probe) or data != probe.ctypes.data:
        raise RuntimeError("fastconv needs CPython: its objects have another layout here")


def _before_fork() -> None:
    jit.lock.acquire()


def _after_fork_in_parent() -> None:
    jit.lock.release()


def _after_fork_in_child() -> None:
    """Forget the parent's helpers: a fork copies no threads, and may copy a job half done."""
    if _pool is not None:
        _pool.reset()
    jit.lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


def make_job(
    function: int, geometry: int, tasks: int, workers: int, flush: int = 1
) -> NDArray[np.int64]:
    """Return the words that name a job to machine code.

    Parameters
    ----------
    function, geometry : int
        Addresses of the kernel and of its geometry.
    tasks : int
        Number of tasks.
    workers : int
        Most threads that may work on them, the calling one among them.
    flush : int
        1 to take denormal numbers for zero.
    """
    return np.array([function, geometry, tasks, min(workers, MOST_THREADS), flush], np.int64)


def run(job: int, workers: int, operands: Operands) -> None:
    """Run every task of a job and return when all are done.

    Parameters
    ----------
    job : int
        Address of what `make_job` returned.
    workers : int
        Most threads that may work on it, as the job says.
    operands : (x, weight, bias, residual, out, workspace)
        Arrays or None; a kernel gets their data addresses, 0 for None.
    """
    pool = _pool or _started()
    if workers > len(pool.helpers) + 1:
        pool.grow(workers)
    if pool.submit(pool.state, job, id(operands), 0):
        pool.wake()
        pool.submit(pool.state, job, id(operands), 1)
