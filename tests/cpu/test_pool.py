"""The pool of threads: late helpers, systems that start no more threads, signals in long calls."""

from __future__ import annotations

import ctypes
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import pytest

from fastconv.kernels.cpu.runtime import jobs, pool
from fastconv.kernels.cpu.runtime.atomics import increment_word, load_word, moment, pause, ticks
from fastconv.kernels.cpu.runtime.jit import compile_callback, void


def compiled(task: Callable[..., None]) -> int:
    """Machine code of a kernel; its own source is part of what it is kept under on disk."""
    return int(compile_callback(task, void(9), ("test_pool", inspect.getsource(task))).address)


@pytest.fixture(scope="module")
def count() -> int:
    """A kernel that adds one to its task's word of `out` and to its worker's word of `weight`."""

    def task(g: int, x: int, w: int, b: int, r: int, out: int, s: int, t: int, i: int) -> None:
        increment_word(out + 8 * t)
        increment_word(w + 8 * i)

    return compiled(task)


@pytest.fixture(scope="module")
def wait() -> int:
    """A kernel that does the same, and then waits for some milliseconds or until `x` is not 0."""

    def task(g: int, x: int, w: int, b: int, r: int, out: int, s: int, t: int, i: int) -> None:
        increment_word(out + 8 * t)
        increment_word(w + 8 * i)
        left = 200_000
        while left > 0 and load_word(x) == 0:
            pause()
            left -= 1

    return compiled(task)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pool.Pool:
    """A pool that nobody else uses, for `pool.run`."""
    made = pool.Pool()
    monkeypatch.setattr(pool, "_pool", made)
    return made


class Job:
    """Counts how often each task was done, and how many tasks each worker did."""

    def __init__(self, kernel: int, tasks: int, workers: int) -> None:
        self.done, self.by = np.zeros(tasks, np.int64), np.zeros(workers, np.int64)
        self.go = np.zeros(1, np.int64)
        self._words = pool.make_job(kernel, 0, tasks, workers)

    def run(self) -> None:
        operands = (self.go, self.by, None, None, self.done, None)
        pool.run(self._words.ctypes.data, self.by.size, operands)


@numba.njit
def now() -> int:
    """What machine code's clock says."""
    return ticks()


@numba.njit
def span() -> int:
    """Some 100 ms of it."""
    return moment()


def word(of: pool.Pool, place: int) -> Any:
    return ctypes.c_int64.from_address(of.state + 8 * place)


def test_a_late_helper_finds_no_task_while_the_next_job_is_written(
    alone: pool.Pool, count: int
) -> None:
    """It has read the ticket of a job, and is held back until the next caller writes its job."""
    first, later = Job(count, 3, 2), Job(count, 8, 2)
    first.run()
    assert first.done.tolist() == [1, 1, 1]
    generation = word(alone, jobs._TICKET).value >> 32
    assert generation == 1
    # Function and geometry stay; then x, weight, bias, residual and out.
    word(alone, jobs._JOB + 3).value = later.by.ctypes.data
    word(alone, jobs._JOB + 6).value = later.done.ctypes.data
    word(alone, jobs._JOB + jobs._TASKS).value = later.done.size
    jobs.take_tasks(alone.state, generation, 1, 0)
    assert not later.done.any()


def test_helpers_that_can_not_be_started_are_tried_again_later(
    alone: pool.Pool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, tries = [0.0], []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        tries.append(thread)
        if len(tries) != 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(pool, "_clock", lambda: now[0])
    monkeypatch.setattr(threading.Thread, "start", refuse)
    job = Job(count, 50, 5)
    job.run()
    assert len(tries) == 2  # one helper was started, the next one was not, and no more are tried
    for _ in range(20):
        job.run()
    assert len(tries) == 2
    now[0] += 10
    monkeypatch.setattr(threading.Thread, "start", start)
    job.run()
    eventually(lambda: len(alone.helpers) == 4)
    job.run()
    assert (job.done == 23).all()


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_helper_too_many_ends(alone: pool.Pool) -> None:
    """Calls that find too few helpers at once start some each."""
    before = threading.active_count()
    threads = [threading.Thread(target=alone.grow, args=(3,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: threading.active_count() == before + 2)
    assert len(alone.helpers) == 2


def note_wait(of: pool.Pool, worked: int, waited: int) -> tuple[int, int]:
    """After a wait: for how long callers do their jobs alone, and what was written down of it."""
    word(of, jobs._WORKED).value = worked
    before = now()
    jobs._note_wait(of.state, waited)
    ahead = word(of, jobs._ALONE_UNTIL).value - before
    return ahead, word(of, jobs._ALONE_FOR).value


@pytest.mark.skipif(now() == 0, reason="no clock that machine code can read here")
def test_long_waits_for_helpers_let_the_next_jobs_be_done_alone_ever_longer(
    alone: pool.Pool,
) -> None:
    most = span()
    worked, least = most // 1000, most // 64
    assert note_wait(alone, worked, worked)[1] == 0  # as long as it worked: so did they
    assert note_wait(alone, 0, most)[1] == 0  # it came too late for any task
    expected = []
    for _ in range(10):
        ahead, told = note_wait(alone, worked, 4 * worked + most // 1000)
        assert ahead >= told
        expected.append(told)
    assert expected[:3] == [least, 2 * least, 4 * least] and expected[-1] == most
    word(alone, jobs._ALONE_UNTIL).value = 0
    assert [note_wait(alone, worked, 0)[1] for _ in range(2)] == [most // 2, most // 4]
    assert word(alone, jobs._ALONE_UNTIL).value == 0


@pytest.mark.skipif(now() == 0, reason="no clock that machine code can read here")
def test_while_there_is_a_crowd_the_caller_works_alone(alone: pool.Pool, wait: int) -> None:
    job = Job(wait, 200, 2)
    word(alone, jobs._ALONE_UNTIL).value = now() + 1000 * span()
    job.run()
    assert (job.done == 1).all() and job.by.tolist() == [200, 0]
    word(alone, jobs._ALONE_UNTIL).value = 0
    eventually(lambda: job.run() or job.by[1] > 0)


class Stop(Exception):
    """What a signal handler raises."""


@pytest.fixture
def once_all_work() -> Iterator[Callable[[Job, Callable[[], None]], None]]:
    """Lets a function be run by a signal's handler, once every worker of a job has begun a task."""
    before = signal.getsignal(signal.SIGALRM)
    watchers: list[threading.Thread] = []

    def watch(job: Job) -> None:
        eventually(lambda: bool((job.by > 0).all()))
        os.kill(os.getpid(), signal.SIGALRM)

    def arm(job: Job, work: Callable[[], None]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: work())
        watchers.append(threading.Thread(target=watch, args=(job,)))
        watchers[-1].start()

    yield arm
    for watcher in watchers:
        watcher.join()
    signal.signal(signal.SIGALRM, before)


def raise_stop() -> None:
    raise Stop


needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no such signals here")
pytestmark = pytest.mark.usefixtures("alone")


@needs_signals
@pytest.mark.parametrize("workers", [1, 3])
def test_a_signal_ends_a_long_call(wait: int, once_all_work: Any, workers: int) -> None:
    """Tasks of milliseconds, for an hour of work."""
    job, again = Job(wait, 1_000_000, workers), Job(wait, 1000, workers)
    once_all_work(job, raise_stop)
    with pytest.raises(Stop):
        job.run()
    done = int(job.done.sum())
    assert 0 < done < job.done.size
    time.sleep(0.05)
    assert job.done.sum() == done, "a helper still works on the job that was left"
    assert job.done.max() == 1
    again.go[0] = 1
    again.run()
    assert (again.done == 1).all()


@needs_signals
@pytest.mark.parametrize("workers", [1, 3])
def test_a_handler_that_raises_nothing_lets_the_call_go_on(
    wait: int, count: int, once_all_work: Any, workers: int
) -> None:
    """It may convolve too, and the floating-point mode in it is the caller's."""
    job, nested = Job(wait, 1_000_000, workers), Job(count, 40, workers)
    found: list[float] = []

    def handle() -> None:
        nested.run()
        found.append(float((np.full(1, 1e-310) * 0.5)[0]))
        job.go[0] = 1

    once_all_work(job, handle)
    job.run()
    assert found == [5e-311]
    assert (nested.done == 1).all()
    assert (job.done == 1).all()


@needs_signals
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
@pytest.mark.parametrize("workers", [1, 3])
def test_a_handler_may_fork_and_both_processes_go_on(
    alone: pool.Pool, wait: int, once_all_work: Any, workers: int
) -> None:
    job, children, right = Job(wait, 1_000_000, workers), [], False

    def handle() -> None:
        children.append(os.fork())
        job.go[0] = 1

    once_all_work(job, handle)
    try:
        job.run()
        right = job.done.min() >= 1 and alone.helpers == []  # what helpers had begun is done again
    finally:
        if children == [0]:
            os._exit(0 if right else 1)
    assert (job.done == 1).all()
    assert exit_code(children[0]) == 0


def exit_code(child: int) -> int:
    ended: list[tuple[int, int]] = []
    try:
        eventually(lambda: ended.append(os.waitpid(child, os.WNOHANG)) or ended[-1][0] > 0)
    finally:
        if ended[-1][0] == 0:
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(ended[-1][1])


@needs_signals
def test_other_threads_ask_for_no_signal(wait: int, once_all_work: Any) -> None:
    """Their calls go on; the main thread's handler runs at once."""
    job, told = Job(wait, 1_000_000, 3), []

    def handle() -> None:
        told.append(threading.current_thread() is threading.main_thread())
        job.go[0] = 1

    once_all_work(job, handle)
    thread = threading.Thread(target=job.run)
    thread.start()
    while not told:
        time.sleep(0.001)
    thread.join()
    assert told == [True]
    assert (job.done == 1).all()
