"""Jobs in machine code: who offers one, who takes its tasks, and when the caller looks up from it.

The state that callers and helpers share is an array of integers::

    ticket      generation << 32 | next task      one word, so that a claim is one compare-swap
    done        finished tasks of the job in work
    busy        1 while a caller owns the pool
    forked      1 in a child that has no helpers of this state
    alone       until when callers do their jobs alone, and for how long that was decided last
    yield       address of the system's function that gives the processor to others
    none        address of Python's None
    main        number of the thread that runs signal handlers
    ...         addresses of the functions of Python by which it does
    job         function, operands, tasks, workers, whether denormal numbers count as zero
    parked[w]   1 while helper w sleeps

A claim succeeds only for the generation whose job was read, and the ticket is closed before the
next job's words are written, so a late helper can never run a stale job.

Crowds. Where more threads want to run than there are processors, a helper loses its own amid a task
for some milliseconds, and the caller waits for it. A caller that waited much longer than it worked
therefore does its next jobs alone, for a time that doubles with each such wait: two programs on two
cores then keep a core each. Whoever waits yields its processor soon.

Signals. Between two tasks, some ten times a second, a caller in Python's main thread takes the GIL
and lets signal handlers run. Where one raises, the caller takes no more tasks, closes the ticket,
waits for the tasks that helpers have in work, and raises what the handler raised. A handler may
convolve (the pool is busy, so that call runs alone) and may fork: a child that comes back here has
no helpers, and does every task itself.
"""

from __future__ import annotations

from typing import Any

import numba
from numba.core import types
from numba.extending import intrinsic

from fastconv.contract.processors import MOST_THREADS

from ..simd.ir import I64, call_address, pointer
from .atomics import (
    claim_word,
    float_mode,
    increment_word,
    load_word,
    moment,
    pause,
    read_word,
    set_float_mode,
    store_word,
    swap_word,
    ticks,
    yield_processor,
)
from .interrupts import call_number, call_with, raise_if

__all__ = [
    "CALL_WORDS",
    "DATA_OFFSET",
    "FUNCTIONS",
    "ITEM_OFFSET",
    "LINE_WORDS",
    "SIZE",
    "WORDS",
    "submit_all",
    "take_tasks",
]

_OPERANDS = 7  # geometry, x, weight, bias, extra, out, workspace
LINE_WORDS = 8  # words in a cache line: flags written by different threads do not share one
_SPINS = 1_000  # pauses before whoever waits offers its processor to others: some 25 microseconds
_YIELDS = 1_000  # such offers before a helper parks: about a millisecond

_TICKET, _DONE, _BUSY, _FORKED = 0, 8, 16, 17
_ALONE_UNTIL, _ALONE_FOR, _WORKED = 18, 19, 20  # moments and spans of `ticks`
_YIELD, _NONE, _MAIN, _THREAD, _ENSURE, _RELEASE, _CHECK = range(24, 31)
_JOB, _PARKED = 32, 48
# Words of the job, after function and operands.
_TASKS, _WORKERS, _FLUSH = _OPERANDS + 1, _OPERANDS + 2, _OPERANDS + 3
_CLOSED = 0xFFFFFFFF  # a next task that no job has
#: What comes of a job that is offered.
_FINISHED, _ASLEEP, _RAISED = range(3)
CALL_WORDS = 7  # a job's address, and those of its operands without the geometry

#: Words of the state that Python writes, by name.
WORDS = {
    "forked": _FORKED,
    "yield": _YIELD,
    "none": _NONE,
    "main": _MAIN,
    "PyThread_get_thread_ident": _THREAD,
    "PyGILState_Ensure": _ENSURE,
    "PyGILState_Release": _RELEASE,
    "PyErr_CheckSignals": _CHECK,
}
#: Words of the state.
SIZE = _PARKED + MOST_THREADS * LINE_WORDS

# In CPython every object starts with its header. A tuple's items stand behind it, and NumPy's array
# struct continues with the data pointer. Reading both in machine code takes nanoseconds;
# `np.ndarray.ctypes.data` tells the same address and takes a microsecond.
DATA_OFFSET = object.__basicsize__
ITEM_OFFSET = tuple.__basicsize__


@intrinsic
def _data(typingctx: Any, operands: Any, i: Any, none: Any) -> Any:
    """Return the data pointer of the i-th array of a tuple, 0 where that is None.

    `operands` and `none` are what `id` tells of the tuple and of None.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        offset = builder.add(builder.mul(args[1], I64(8)), I64(ITEM_OFFSET))
        item = builder.load(pointer(builder, builder.add(args[0], offset), I64))
        missing = builder.icmp_signed("==", item, args[2])
        # Reading None's header where there is no data pointer keeps this free of branches.
        field = builder.select(missing, item, builder.add(item, I64(DATA_OFFSET)))
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


@numba.njit
def _call_job(job: int, task: int, worker: int) -> None:
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
def _handlers_raise(state: int, mode: int, flush: int) -> int:
    """Let signal handlers run, in the caller's floating-point mode; 1 where one raised."""
    if call_number(read_word(state + 8 * _THREAD)) != read_word(state + 8 * _MAIN):
        return 0
    set_float_mode(mode, 0)
    held = call_number(read_word(state + 8 * _ENSURE))
    raised = call_number(read_word(state + 8 * _CHECK))
    call_with(read_word(state + 8 * _RELEASE), held)
    set_float_mode(mode, flush)
    return int(raised != 0)


@numba.njit
def _wait(state: int, waits: int) -> None:
    """Do nothing for a moment, `waits` moments after the waiting began."""
    if waits < _SPINS:
        pause()
    else:
        yield_processor(read_word(state + 8 * _YIELD))


@numba.njit
def take_tasks(state: int, generation: int, worker: int, mode: int) -> int:
    """Run tasks of one generation until none is left; 1 where a handler of the caller raised.

    The caller is worker 0; `mode` is its floating-point mode.
    """
    job = state + 8 * _JOB
    tasks, flush = load_word(job + 8 * _TASKS), load_word(job + 8 * _FLUSH)
    began = asked = ticks()
    worked = 0
    while True:
        ticket = load_word(state + 8 * _TICKET)
        task = ticket & _CLOSED
        if ticket >> 32 != generation or task >= tasks:
            break
        if claim_word(state + 8 * _TICKET, ticket):
            _call_job(job, task, worker)
            increment_word(state + 8 * _DONE)
            if worker != 0:
                continue
            now = ticks()
            worked = now - began
            if now - asked > moment():
                if _handlers_raise(state, mode, flush):
                    return 1
                asked = ticks()
    if worker == 0:
        store_word(state + 8 * _WORKED, worked)
    return 0


@numba.njit
def _note_wait(state: int, waited: int) -> None:
    """Decide after a wait for helpers whether the next jobs are done alone, and for how long."""
    worked, span = load_word(state + 8 * _WORKED), load_word(state + 8 * _ALONE_FOR)
    # A caller that came too late for any task knows nothing; 50 microseconds are no loss.
    if worked == 0 or waited <= 2 * worked + moment() // 2048:
        store_word(state + 8 * _ALONE_FOR, span // 2)
        return
    span = min(max(2 * span, moment() // 64), moment())
    store_word(state + 8 * _ALONE_FOR, span)
    store_word(state + 8 * _ALONE_UNTIL, ticks() + span)


@numba.njit
def _share(state: int, mode: int) -> int:
    """Offer the job to the helpers, work on it, and wait until they have ended their tasks.

    Returns 1 where a signal handler raised: then some tasks may not have been done.
    """
    store_word(state + 8 * _DONE, 0)
    generation = (load_word(state + 8 * _TICKET) >> 32) + 1 & 0x7FFFFFFF
    store_word(state + 8 * _TICKET, generation << 32)
    set_float_mode(mode, read_word(state + 8 * (_JOB + _FLUSH)))
    raised = take_tasks(state, generation, 0, mode)
    # A late helper must not find a task while the next job's words are written.
    ticket = swap_word(state + 8 * _TICKET, generation << 32 | _CLOSED)
    claimed = min(ticket & _CLOSED, read_word(state + 8 * (_JOB + _TASKS)))
    waits, began = 0, ticks()
    asked = began
    while load_word(state + 8 * _DONE) < claimed and not load_word(state + 8 * _FORKED):
        _wait(state, waits)
        waits += 1
        if not raised and ticks() - asked > moment():
            raised = _handlers_raise(state, mode, read_word(state + 8 * (_JOB + _FLUSH)))
            asked = ticks()
    if not raised:
        _note_wait(state, ticks() - began)
    store_word(state + 8 * _BUSY, 0)
    return raised


@numba.njit
def _run_alone(
    state: int, job: int, x: int, w: int, b: int, r: int, y: int, s: int, mode: int
) -> int:
    """Run every task of a caller's job; 1 where a signal handler raised."""
    function, g, tasks = read_word(job), read_word(job + 8), read_word(job + 16)
    flush = read_word(job + 32)
    set_float_mode(mode, flush)
    asked = ticks()
    for task in range(tasks):
        _call(function, g, x, w, b, r, y, s, task, 0)
        if ticks() - asked > moment():
            if _handlers_raise(state, mode, flush):
                return 1
            asked = ticks()
    return 0


@numba.njit
def _offer(
    state: int, job: int, x: int, w: int, b: int, r: int, y: int, s: int, wakened: int
) -> int:
    """Run a job on memory at addresses and return `_FINISHED`, or why that was not done."""
    function, g = read_word(job), read_word(job + 8)
    tasks, workers, flush = read_word(job + 16), read_word(job + 24), read_word(job + 32)
    shared = workers > 1 and tasks > 1 and ticks() >= load_word(state + 8 * _ALONE_UNTIL)
    if shared and not wakened:
        for worker in range(1, workers):
            if load_word(state + 8 * (_PARKED + worker * LINE_WORDS)):
                return _ASLEEP
    mode, raised = float_mode(), 0
    if shared and swap_word(state + 8 * _BUSY, 1) == 0:
        for i, value in enumerate((function, g, x, w, b, r, y, s, tasks, workers, flush)):
            store_word(state + 8 * (_JOB + i), value)
        raised = _share(state, mode)
        # A child of a fork in a signal handler does alone what its parent's helpers have begun.
        alone = load_word(state + 8 * _FORKED)
    else:
        alone = 1
    if alone and not raised:
        raised = _run_alone(state, job, x, w, b, r, y, s, mode)
    set_float_mode(mode, 0)
    return _RAISED if raised else _FINISHED


def submit(state: int, job: int, operands: int, wakened: int) -> int:
    """Run a job and return 0; or do nothing and return 1 where helpers must be woken first.

    What a signal handler raises is raised, when no helper works on the job any more.
    """
    none = read_word(state + 8 * _NONE)
    x, w, b = _data(operands, 0, none), _data(operands, 1, none), _data(operands, 2, none)
    r, y, s = _data(operands, 3, none), _data(operands, 4, none), _data(operands, 5, none)
    came = _offer(state, job, x, w, b, r, y, s, wakened)
    raise_if(int(came == _RAISED))
    return int(came == _ASLEEP)


def submit_all(state: int, calls: int, first: int, count: int, wakened: int) -> int:
    """Run the jobs from `first` on; return `count`, or the one for which helpers must be woken.

    A call is seven words at `calls`: the job's address and those of its operands. `wakened` tells
    that the helpers have been woken for the first one.
    """
    for place in range(first, count):
        at = calls + 8 * CALL_WORDS * place
        came = _offer(
            state, read_word(at), read_word(at + 8), read_word(at + 16), read_word(at + 24),
            read_word(at + 32), read_word(at + 40), read_word(at + 48),
            int(wakened and place == first),
        )  # fmt: skip
        raise_if(int(came == _RAISED))
        if came == _ASLEEP:
            return place
    return count


def serve(state: int, worker: int, seen: int) -> int:
    """Help with jobs until none came for a while; return the last generation seen."""
    store_word(state + 8 * (_PARKED + worker * LINE_WORDS), 0)
    mode = float_mode()
    idle = 0
    while idle < _SPINS + _YIELDS:
        generation = load_word(state + 8 * _TICKET) >> 32
        if generation == seen:
            _wait(state, idle)
            idle += 1
            continue
        idle, seen = 0, generation
        if worker < load_word(state + 8 * (_JOB + _WORKERS)):
            # A word of a later job does no harm: no task of this one can be claimed any more.
            set_float_mode(mode, load_word(state + 8 * (_JOB + _FLUSH)))
            take_tasks(state, generation, worker, mode)
    set_float_mode(mode, 0)
    return seen


def park(state: int, worker: int, seen: int) -> int:
    """Announce that a helper goes to sleep; 0 when a job has come meanwhile."""
    store_word(state + 8 * (_PARKED + worker * LINE_WORDS), 1)
    return int(load_word(state + 8 * _TICKET) >> 32 == seen)


#: What Python compiles, by name, with the number of its arguments.
FUNCTIONS: dict[str, tuple[Any, int]] = {
    "submit": (submit, 4),
    "serve": (serve, 3),
    "park": (park, 3),
}
