"""What happens when the lanes of a warp meet: votes, shuffles, matches, sums, matrix products.

`resolve_warp` looks at the requests of one warp's suspended lanes, carries out those whose lanes
are all there, and makes these lanes ready. A lane that has ended is not waited for, and lanes may
meet from different places of the code, both as PTX has it. Only a matrix product wants all 32.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from . import context as c
from .context import OFFSETS, OPERANDS, RESULTS
from .faults import DIVERGENT_WARP, INCOMPLETE_WARP, log_at
from .mma import multiply

__all__ = ["DONE", "resolve_warp"]

#: Besides the reasons of `context`: a thread that has returned.
DONE = 9

_SITE, _OPCODE, _MASK = OFFSETS["site"] // 4, OFFSETS["opcode"] // 4, OFFSETS["mask"] // 4
_PHASE = OFFSETS["warp_phase"] // 4
_WORD, _LONG = OPERANDS // 4, OPERANDS // 8
_RESULT, _RESULT_LONG = RESULTS // 4, RESULTS // 8
#: Read from a lane that takes no part: the GPU leaves it undefined. As float32 it is a NaN.
_UNDEFINED = 0x7FC0DEAD
_ALL = 0xFFFFFFFF


@njit(nogil=True, error_model="numpy")
def resolve_warp(states: Any, words: Any, longs: Any, reals: Any, first: int, log: Any) -> int:
    """Carry out what can be, and return how many lanes became ready.

    Parameters
    ----------
    states : int8 array
        Why each thread of the block is suspended.
    words, longs, reals : 2-D arrays
        The threads' contexts as int32, int64 and float32.
    first : int
        The warp's first thread.
    log : int64 array
        Faults.
    """
    lanes = min(32, states.size - first)
    live, waiting, ready = 0, 0, 0
    for lane in range(lanes):
        state = states[first + lane]
        if state != DONE:
            live |= 1 << lane
        if state == c.AT_WARP:
            waiting |= 1 << lane
        if state == c.READY:
            ready += 1
    released = 0
    for lane in range(lanes):
        if not (waiting >> lane) & 1:
            continue
        group = _group(words, first, lane, lanes, live, waiting, ready)
        if group == 0:
            continue
        _check(words, first, lane, group, log)
        _carry_out(words, longs, reals, first, group, words[first + lane, _OPCODE])
        for other in range(lanes):
            if (group >> other) & 1:
                states[first + other] = c.READY
                released += 1
        waiting &= ~group
    return released


@njit(nogil=True, error_model="numpy")
def _group(
    words: Any, first: int, lane: int, lanes: int, live: int, waiting: int, ready: int
) -> int:
    """Lanes that take part in what `lane` waits for, or 0 while one is missing."""
    opcode = words[first + lane, _OPCODE]
    if opcode == c.ACTIVE_MASK:
        # Whoever arrives while no lane of the warp can go further.
        if ready > 0:
            return 0
        members = waiting
    else:
        members = (words[first + lane, _MASK] & _ALL | (1 << lane)) & live
    group = 0
    for other in range(lanes):
        if not (members >> other) & 1:
            continue
        same = ((waiting >> other) & 1) != 0 and words[first + other, _OPCODE] == opcode
        if opcode == c.ACTIVE_MASK:
            same = same and words[first + other, _SITE] == words[first + lane, _SITE]
        elif same and words[first + other, _MASK] != words[first + lane, _MASK]:
            same = False
        if same:
            group |= 1 << other
        elif opcode != c.ACTIVE_MASK:
            return 0
    return group


@njit(nogil=True, error_model="numpy")
def _check(words: Any, first: int, lane: int, group: int, log: Any) -> None:
    """Note a lane that is not in the mask it gave, and a matrix product without all lanes."""
    thread = first + lane
    if words[thread, _OPCODE] == c.ACTIVE_MASK:
        return
    site = words[thread, _SITE]
    if not (words[thread, _MASK] >> lane) & 1:
        log_at(log.ctypes.data, DIVERGENT_WARP, site, site, thread, thread, 0, 0)
    if words[thread, _OPCODE] >= c.MMA_TF32 and group != _ALL:
        log_at(log.ctypes.data, INCOMPLETE_WARP, site, -1, thread, -1, 0, 0)


@njit(nogil=True, error_model="numpy")
def _carry_out(words: Any, longs: Any, reals: Any, first: int, group: int, opcode: int) -> None:
    if opcode == c.SYNC_WARP:
        for lane in range(32):
            if (group >> lane) & 1:
                words[first + lane, _PHASE] += 1
    elif opcode == c.SHUFFLE:
        _shuffle(words, longs, first, group)
    elif opcode == c.VOTE:
        _vote(words, longs, first, group)
    elif opcode == c.ACTIVE_MASK:
        for lane in range(32):
            if (group >> lane) & 1:
                longs[first + lane, _RESULT_LONG] = group
    elif opcode < c.REDUX_ADD:
        _match(words, longs, first, group, opcode)
    elif opcode <= c.REDUX_XOR:
        _reduce(words, longs, first, group, opcode)
    elif group == _ALL:
        multiply(words, reals, first, opcode, _WORD, _RESULT)
    else:
        for lane in range(32):
            if (group >> lane) & 1:
                words[first + lane, _RESULT : _RESULT + 4] = _UNDEFINED


@njit(nogil=True, error_model="numpy")
def _shuffle(words: Any, longs: Any, first: int, group: int) -> None:
    """PTX's ``shfl.sync``: operands mode, value, lane and clamp."""
    for lane in range(32):
        if not (group >> lane) & 1:
            continue
        thread = first + lane
        mode, b = words[thread, _WORD], words[thread, _WORD + 4] & 31
        clamp = words[thread, _WORD + 6]
        segment = (clamp >> 8) & 31
        last = (lane & segment) | (clamp & 31 & ~segment)
        if mode == 1:
            source = lane - b
            inside = source >= last
        elif mode == 2:
            source = lane + b
            inside = source <= last
        elif mode == 3:
            source = lane ^ b
            inside = source <= last
        else:
            source = (lane & segment) | (b & ~segment)
            inside = source <= last
        if not inside:
            source = lane
        value = _UNDEFINED
        if (group >> source) & 1:
            value = words[first + source, _WORD + 2] & _ALL
        longs[thread, _RESULT_LONG] = value | (1 << 32 if inside else 0)


@njit(nogil=True, error_model="numpy")
def _vote(words: Any, longs: Any, first: int, group: int) -> None:
    """PTX's ``vote.sync``: 0 all, 1 any, 2 all the same, 3 ballot."""
    ballot = 0
    for lane in range(32):
        if (group >> lane) & 1 and words[first + lane, _WORD + 2] & 1:
            ballot |= 1 << lane
    for lane in range(32):
        if (group >> lane) & 1:
            mode = words[first + lane, _WORD]
            holds = ballot == group
            if mode == 1:
                holds = ballot != 0
            elif mode == 2:
                holds = ballot == group or ballot == 0
            longs[first + lane, _RESULT_LONG] = ballot | (1 << 32 if holds else 0)


@njit(nogil=True, error_model="numpy")
def _match(words: Any, longs: Any, first: int, group: int, opcode: int) -> None:
    wide = opcode == c.MATCH_ANY_64 or opcode == c.MATCH_ALL_64
    every = opcode == c.MATCH_ALL_32 or opcode == c.MATCH_ALL_64
    for lane in range(32):
        if not (group >> lane) & 1:
            continue
        same = 0
        for other in range(32):
            if not (group >> other) & 1:
                continue
            equal = words[first + lane, _WORD] == words[first + other, _WORD]
            if wide:
                equal = longs[first + lane, _LONG] == longs[first + other, _LONG]
            if equal:
                same |= 1 << other
        if every:
            same = (group | 1 << 32) if same == group else 0
        longs[first + lane, _RESULT_LONG] = same


@njit(nogil=True, error_model="numpy")
def _reduce(words: Any, longs: Any, first: int, group: int, opcode: int) -> None:
    """PTX's ``redux.sync`` on 32-bit integers."""
    total, begun = 0, False
    for lane in range(32):
        if not (group >> lane) & 1:
            continue
        value = words[first + lane, _WORD] + 0
        if opcode == c.REDUX_UMIN or opcode == c.REDUX_UMAX:
            value &= _ALL
        if not begun:
            total, begun = value, True
        elif opcode == c.REDUX_ADD:
            total += value
        elif opcode == c.REDUX_MIN or opcode == c.REDUX_UMIN:
            total = min(total, value)
        elif opcode == c.REDUX_MAX or opcode == c.REDUX_UMAX:
            total = max(total, value)
        elif opcode == c.REDUX_AND:
            total &= value
        elif opcode == c.REDUX_OR:
            total |= value
        else:
            total ^= value
    for lane in range(32):
        if (group >> lane) & 1:
            longs[first + lane, _RESULT_LONG] = total
