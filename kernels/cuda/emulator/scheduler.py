"""Run the blocks of a grid: step every thread to its next meeting, let those meet, and so on.

::

    for each block of this worker, in the order asked for
      make the threads
      until all have ended:
        for each thread in the order asked for: step it if it is ready
        warps whose lanes are all there carry out what they met for
        if no lane became ready: all are at the barrier, and pass it; or nobody can go on
      destroy the threads

Orders are permutations of a block's threads; a step takes the next one of the table. A thread that
has ended, by a return or an exception, is waited for nowhere, as on every GPU since Volta.
"""

from __future__ import annotations

import functools
from typing import Any

from numba import njit
from numba.core import types

from fastconv.kernels.cpu.runtime.jit import compile_function

from . import context as c
from .context import OFFSETS, OPERANDS, RESULTS
from .faults import BLOCK, DEADLOCK, DIVERGENT_BARRIER, RAISED, log_at
from .memory import call
from .warp import DONE, resolve_warp
from .watch import end_of_run, pass_barrier, start_block

__all__ = ["GEOMETRY", "compiled_run"]

_REASON, _SITE, _OPCODE = (OFFSETS[name] // 4 for name in ("reason", "site", "opcode"))
_THREAD, _PHASE = OFFSETS["thread"] // 4, OFFSETS["warp_phase"] // 4
_WORD, _RESULT_LONG = OPERANDS // 4, RESULTS // 8
_SHARED_LONG, _MONITOR_LONG = OFFSETS["shared"] // 8, OFFSETS["monitor"] // 8

#: Words of the array that describes a launch to a worker.
GEOMETRY = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "dynamic", "shared",
            "monitor", "worker", "workers", "make", "step", "destroy", "arguments")  # fmt: skip
(_GRID_X, _GRID_Y, _GRID_Z, _BLOCK_X, _BLOCK_Y, _BLOCK_Z, _DYNAMIC, _SHARED, _MONITOR, _WORKER,
 _WORKERS, _MAKE, _STEP, _DESTROY, _ARGUMENTS) = range(len(GEOMETRY))  # fmt: skip


@njit(nogil=True, error_model="numpy")
def _fill_contexts(words: Any, longs: Any, geometry: Any) -> None:
    """Write what is the same for all blocks of a launch."""
    bx, by, bz = geometry[_BLOCK_X], geometry[_BLOCK_Y], geometry[_BLOCK_Z]
    for thread in range(words.shape[0]):
        row = words[thread]
        row[0], row[1], row[2] = thread % bx, thread // bx % by, thread // (bx * by)
        row[6], row[7], row[8] = bx, by, bz
        for axis in range(3):
            row[9 + axis] = geometry[axis]
        row[12], row[13] = thread % 32, thread // 32
        row[14] = (bx * by * bz + 31) // 32
        row[15] = geometry[_DYNAMIC]
        row[_THREAD] = thread
        longs[thread, _SHARED_LONG] = geometry[_SHARED]
        longs[thread, _MONITOR_LONG] = geometry[_MONITOR]


@njit(nogil=True, error_model="numpy")
def _make_threads(
    words: Any, states: Any, handles: Any, contexts: int, geometry: Any, block: int
) -> None:
    gx, gy = geometry[_GRID_X], geometry[_GRID_Y]
    stride = words.shape[1] * 4
    for thread in range(states.size):
        row = words[thread]
        row[3], row[4], row[5] = block % gx, block // gx % gy, block // (gx * gy)
        row[_PHASE] = 0
        states[thread] = c.READY
        handles[thread] = call(geometry[_MAKE], geometry[_ARGUMENTS], contexts + thread * stride)


@njit(nogil=True, error_model="numpy")
def _step_all(words: Any, states: Any, handles: Any, order: Any, geometry: Any, log: Any) -> int:
    """Step every thread that is ready and return how many have ended."""
    ended = 0
    monitor = geometry[_MONITOR]
    for position in range(order.size):
        thread = order[position]
        if states[thread] == c.READY:
            if call(geometry[_STEP], handles[thread], 0) != 0:
                states[thread] = DONE
                ended += 1
            elif words[thread, _REASON] == c.RAISING:
                site, number = words[thread, _SITE], words[thread, _WORD]
                log_at(log.ctypes.data, RAISED, site, number, thread, -1, 0, 0)
                states[thread] = DONE
                ended += 1
            else:
                states[thread] = words[thread, _REASON]
        if monitor != 0 and (position % 32 == 31 or position == order.size - 1):
            end_of_run(monitor)
    return ended


@njit(nogil=True, error_model="numpy")
def _release_barrier(words: Any, longs: Any, states: Any, log: Any, checked: bool) -> None:
    """Let every thread that has not ended pass, with the count or vote asked for."""
    first = -1
    count = live = 0
    divergent = -1
    for thread in range(states.size):
        if states[thread] == DONE:
            continue
        live += 1
        if first < 0:
            first = thread
        elif words[thread, _SITE] != words[first, _SITE]:
            divergent = thread
        if words[thread, _WORD] != 0:
            count += 1
    if checked and divergent >= 0:
        log_at(
            log.ctypes.data,
            DIVERGENT_BARRIER,
            words[first, _SITE],
            words[divergent, _SITE],
            first,
            divergent,
            0,
            0,
        )
    for thread in range(states.size):
        if states[thread] != DONE:
            states[thread] = c.READY
            opcode = words[thread, _OPCODE]
            value = count
            if opcode == c.BARRIER_AND:
                value = 1 if count == live else 0
            elif opcode == c.BARRIER_OR:
                value = 1 if count > 0 else 0
            longs[thread, _RESULT_LONG] = value


@njit(nogil=True, error_model="numpy")
def _meet(words: Any, longs: Any, reals: Any, states: Any, log: Any, monitor: int) -> bool:
    """Let those go on who can; whether there was one."""
    at_warp = at_barrier = live = 0
    for thread in range(states.size):
        at_warp += states[thread] == c.AT_WARP
        at_barrier += states[thread] == c.AT_BARRIER
        live += states[thread] != DONE
    if live == 0:
        return True
    if at_barrier == live:
        _release_barrier(words, longs, states, log, monitor != 0)
        if monitor != 0:
            pass_barrier(monitor)
        return True
    released = 0
    if at_warp > 0:
        for first in range(0, states.size, 32):
            released += resolve_warp(states, words, longs, reals, first, log)
    return released > 0


@njit(nogil=True, error_model="numpy")
def _note_deadlock(words: Any, states: Any, log: Any) -> None:
    """Name a thread that waits and one that waits elsewhere, if there is one."""
    waiting = other = -1
    for thread in range(states.size):
        if states[thread] != DONE and waiting < 0:
            waiting = thread
    site = words[waiting, _SITE]
    for thread in range(states.size):
        if states[thread] != DONE and words[thread, _SITE] != site:
            other = thread
    place = words[other, _SITE] if other >= 0 else -1
    log_at(log.ctypes.data, DEADLOCK, site, place, waiting, other, 0, 0)


def run(
    geometry: Any, blocks: Any, orders: Any, words: Any, longs: Any, reals: Any, states: Any,
    handles: Any, log: Any,
) -> int:  # fmt: skip
    """Run this worker's share of `blocks` and return how many blocks came to their end."""
    contexts = words.ctypes.data
    monitor = geometry[_MONITOR]
    _fill_contexts(words, longs, geometry)
    finished = 0
    step = 0
    for at in range(geometry[_WORKER], blocks.size, geometry[_WORKERS]):
        log[BLOCK] = blocks[at]
        if monitor != 0:
            start_block(monitor)
        _make_threads(words, states, handles, contexts, geometry, blocks[at])
        left = states.size
        stuck = False
        while left > 0 and not stuck:
            order = orders[step % orders.shape[0]]
            step += 1
            left -= _step_all(words, states, handles, order, geometry, log)
            stuck = not _meet(words, longs, reals, states, log, monitor)
        if stuck:
            _note_deadlock(words, states, log)
        for thread in range(states.size):
            call(geometry[_DESTROY], handles[thread], 0)
        if stuck:
            break
        finished += 1
    return finished


@functools.cache
def compiled_run() -> Any:
    """Return `run` as machine code that releases the GIL."""
    table = types.Array(types.int64, 1, "C")
    signature = (
        table, table, types.Array(types.int64, 2, "C"), types.Array(types.int32, 2, "C"),
        types.Array(types.int64, 2, "C"), types.Array(types.float32, 2, "C"),
        types.Array(types.int8, 1, "C"), table, table,
    )  # fmt: skip
    return compile_function(run, signature, ("cuda_emulator_run",))
