"""Threads for the kernels: one small pool that can be used from anywhere.

A job is a compiled function and a number of tasks; whoever is free takes the next task. Numba's
own threading layers are not used, for three reasons: `workqueue` aborts the process when two
Python threads launch at once, OpenMP aborts it after a fork, and a launch costs 3 microseconds
(`workqueue`: 190) where this pool's costs well under one.

How it works. Helper threads are Python threads that spend their lives in machine code with the
GIL released: they wait for a job for about a millisecond and then park on a lock. What they
and a caller do there, and the words that they share, is told in `jobs`.

A caller stays in machine code until no thread works on its job any more, so no signal or exception
can free an array that a helper still writes. A caller that finds the pool busy runs its job alone:
no waiting, no oversubscription. After a fork the child starts with a fresh state and fresh helpers.

A kernel is ``void(geometry, x, weight, bias, extra, out, workspace, task, worker)``, all
integers. Tasks must not depend on each other or on what an earlier try of the same task has left,
and no sum may depend on which worker took it: then results are the same bits for any number of
threads.

While a thread works on tasks it takes denormal numbers for zero where the job says so, since one of
them makes an instruction some hundred cycles long; the caller's own floating-point mode, its flags
too, is back in force when the call returns.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from fastconv.contract import first_use
from fastconv.contract.processors import MOST_THREADS

from . import interrupts, jit, jobs

__all__ = ["make_job", "run", "run_all"]

Array = NDArray[Any] | None
Operands = tuple[Array, Array, Array, Array, Array, Array]
Recorder = Callable[[int, int, Operands, Any], None]

#: Told each job that a plan runs, while a recording is made.
recorder: Recorder | None = None

#: Seconds until helpers are tried again where the system let no more threads start.
_RETRY_SECONDS = 1.0

_clock = time.monotonic


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
                function, integer(*([integer] * arguments)), (f"pool_{name}",)
            )
            for name, (function, arguments) in jobs.FUNCTIONS.items()
        }
        self.submit = self._native["submit"]
        #: States of the processes that this one descends from: a call that was amid a job when it
        #: was forked still reads its own.
        self._states: list[NDArray[np.int64]] = []
        self.reset()

    def reset(self) -> None:
        """Start from a fresh state with no helper: in a new process, and after a fork."""
        if self._states:
            self._write("forked", 1)
        self._states.append(np.zeros(jobs.SIZE + jobs.LINE_WORDS, np.int64))
        line = 8 * jobs.LINE_WORDS
        self.state = (self._states[-1].ctypes.data + line - 1) // line * line
        self._write("yield", _yield_address())
        self._write("none", id(None))
        self._write("main", interrupts.main_thread())
        for name in interrupts.FUNCTIONS:
            self._write(name, interrupts.address(name))
        self.helpers: list[threading.Lock] = []
        self._wanted = 0
        self._closed_until = 0.0
        self._entry = threading.Lock()

    def _write(self, name: str, value: int) -> None:
        ctypes.c_int64.from_address(self.state + 8 * jobs.WORDS[name]).value = value

    def grow(self, workers: int) -> None:
        """Start helpers until `workers` threads, the caller among them, can work on a job.

        Where the system lets no more threads start, calls make do with those there are, and it is
        asked again some time later. No lock is taken, which an interrupted call could keep: of
        helpers that several calls start at once, those that are too many end again.
        """
        if _clock() < self._closed_until:
            return
        self._wanted = max(self._wanted, min(workers, MOST_THREADS) - 1)
        try:
            for number in range(len(self.helpers), self._wanted):
                name = f"fastconv-{number + 1}"
                threading.Thread(target=self._helper_loop, name=name, daemon=True).start()
        except RuntimeError:
            self._closed_until = _clock() + _RETRY_SECONDS

    def _helper_loop(self) -> None:
        """Spend a helper's life: serve in machine code, sleep when there is nothing to do.

        A helper takes its number itself: whatever interrupts the thread that started it, no number
        is given twice, and none to a thread that does not run. One too many ends at once.
        """
        wake_lock = threading.Lock()
        wake_lock.acquire()
        with self._entry:
            if len(self.helpers) >= self._wanted:
                return
            self.helpers.append(wake_lock)
            worker = len(self.helpers)
        serve, park, state = self._native["serve"], self._native["park"], self.state
        seen = 0
        while True:
            seen = serve(state, worker, seen)
            if park(state, worker, seen):
                wake_lock.acquire()

    def wake(self) -> None:
        """Wake the helpers; one that was awake goes once more around its loop."""
        for wake_lock in self.helpers:
            if wake_lock.locked():
                with contextlib.suppress(RuntimeError):  # another caller was quicker
                    wake_lock.release()


_pool: Pool | None = None


def _started() -> Pool:
    """Return the pool, made by the first caller."""
    return first_use.run(_make)


def _make() -> Pool:
    return _pool or _first(Pool())


def _first(made: Pool) -> Pool:
    """Return the pool of this process: `made`, or that of a call which came while it was made."""
    global _pool
    if _pool is None:
        _check_layout()
        _pool = made
    return _pool


def _check_layout() -> None:
    """Make sure that tuples' items and arrays' data pointers stand where `jobs` reads them."""
    probe = np.empty(1)
    operands = (None, probe)
    item = ctypes.c_void_p.from_address(id(operands) + jobs.ITEM_OFFSET + 8).value
    data = ctypes.c_void_p.from_address(id(probe) + jobs.DATA_OFFSET).value
    if item != id(probe) or data != probe.ctypes.data:
        raise RuntimeError("fastconv needs CPython: its objects have another layout here")


def _after_fork_in_child() -> None:
    """Forget the parent's helpers: a fork copies no threads, and may copy a job half done."""
    if _pool is not None:
        _pool.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


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


def run(job: int, workers: int, operands: Operands, owner: Any = None) -> None:
    """Run every task of a job and return when all are done.

    Parameters
    ----------
    job : int
        Address of what `make_job` returned.
    workers : int
        Most threads that may work on it, as the job says.
    operands : (x, weight, bias, extra, out, workspace)
        Arrays or None; a kernel gets their data addresses, 0 for None.
    owner : plan, optional
        Whose job this is, where a recording may repeat it: it keeps what the job points to.

    Raises
    ------
    BaseException
        What a signal handler raised meanwhile; then some tasks may not have been done, and no
        thread works on any.
    """
    pool = _pool or _started()
    if workers > len(pool.helpers) + 1:
        pool.grow(workers)
    if pool.submit(pool.state, job, id(operands), 0):
        pool.wake()
        pool.submit(pool.state, job, id(operands), 1)
    if recorder is not None and owner is not None:
        told = recorder  # which another thread may take away
        if told is not None:
            told(job, workers, operands, owner)


@functools.cache
def _submit_all() -> Any:
    signature = types.intp(*([types.intp] * 5))
    return jit.compile_function(jobs.submit_all, signature, ("pool_submit_all",))


def run_all(calls: NDArray[np.int64], first: int, last: int, workers: int) -> None:
    """Run calls that were recorded, from one to before another, without Python between them.

    Parameters
    ----------
    calls : ndarray of shape (calls, jobs.CALL_WORDS)
        Addresses of the jobs and of their operands.
    workers : int
        Most threads that may work on any of them.
    """
    pool = _pool or _started()
    if workers > len(pool.helpers) + 1:
        pool.grow(workers)
    submit, address, wakened = _submit_all(), calls.ctypes.data, 0
    while True:
        first = submit(pool.state, address, first, last, wakened)
        if first >= last:
            return
        pool.wake()
        wakened = 1
