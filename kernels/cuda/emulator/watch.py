"""What the checked build calls before each access: bounds, alignment, races, shadow, counts.

A worker's table (int64, its address in every context) holds all that is needed; places in it are
named below. Shared memory has a shadow: for each granule, the smallest access of the kernel, eight
words, with who wrote, changed and read it last and in which phase. A *phase* ends at a barrier of
the block; within a warp ``syncwarp`` orders as well. Phases are never used twice, so nothing is
cleared between blocks: what was written before the block's first phase is what an earlier block
left, and reading it is a fault.
"""

from __future__ import annotations

import functools

from numba import njit
from numba.core import types

from fastconv.kernels.cpu.runtime.jit import compile_callback

from .context import OFFSETS
from .counters import count_access, flush_counts
from .faults import (
    MISALIGNED,
    OUT_OF_BOUNDS,
    RACE_IN_FLIGHT,
    RACE_READ_WRITE,
    RACE_WRITE_WRITE,
    UNINITIALISED,
    log_at,
)
from .flight import add_copy, change_groups
from .memory import peek, poke
from .places import (
    ATOMIC,
    ATOMIC_PHASE,
    BLOCK_PHASE,
    CHANGER,
    COPY,
    COUNTERS,
    COUNTS,
    FLAGS,
    FLIGHT,
    GLOBAL_COUNT,
    GLOBAL_TABLE,
    GRANULE,
    IN_FLIGHT,
    LOG,
    OTHER_READER,
    PHASE,
    RACES,
    READ_PHASE,
    READER,
    SCRATCH,
    SHADOW,
    SHADOW_BYTES,
    SHARED_BEGIN,
    SHARED_COUNT,
    SHARED_END,
    SHARED_TABLE,
    UNINIT,
    WRITE,
    WRITE_PHASE,
    WRITER,
)  # fmt: skip

__all__ = [
    "end_of_run",
    "pass_barrier",
    "start_block",
    "watch_address",
    "watch_groups_address",
    "watch_local_address",
]

_THREAD = OFFSETS["thread"]  # the warp phase lies in the upper half of the same word
_MONITOR = OFFSETS["monitor"]


@njit(nogil=True, error_model="numpy")
def start_block(table: int) -> None:
    """Begin a block: all that its shared memory holds is of another one."""
    poke(table + PHASE, peek(table + PHASE) + 1)
    poke(table + BLOCK_PHASE, peek(table + PHASE))


@njit(nogil=True, error_model="numpy")
def pass_barrier(table: int) -> None:
    """Order all that was before a barrier against all that comes."""
    poke(table + PHASE, peek(table + PHASE) + 1)


@njit(nogil=True, error_model="numpy")
def end_of_run(table: int) -> None:
    """Evaluate the counts of the warp that has just been stepped."""
    if peek(table + FLAGS) & COUNTS:
        flush_counts(peek(table + COUNTERS), peek(table + SHARED_BEGIN), peek(table + SHARED_END))


@njit(nogil=True, error_model="numpy")
def _inside(count: int, regions: int, address: int, size: int) -> int:
    """The region that holds the whole access, or -1."""
    for i in range(count):
        if peek(regions + 16 * i) <= address and address + size <= peek(regions + 16 * i + 8):
            return i
    return -1


@njit(nogil=True, error_model="numpy")
def _unordered(packed: int, thread: int, phase: int) -> bool:
    """Whether an earlier access of this phase is unordered with one by `thread`, at warp phase."""
    other = packed & 0xFFFF
    if other == thread:
        return False
    same_warp = other // 32 == thread // 32
    return not same_warp or ((packed >> 16) & 0xFFFFFF) == phase


@njit(nogil=True, error_model="numpy")
def _against(table: int, earlier: int, kind: int, me: int, address: int) -> None:
    """Note a race if an earlier access of this phase is unordered with this one."""
    if earlier >= 0 and _unordered(earlier, me & 0xFFFF, (me >> 16) & 0xFFFFFF):
        log_at(
            peek(table + LOG),
            kind,
            me >> 40,
            earlier >> 40,
            me & 0xFFFF,
            earlier & 0xFFFF,
            address,
            0,
        )


@njit(nogil=True, error_model="numpy")
def _shadow(table: int, shadow: int, kind: int, me: int, address: int) -> None:
    """Compare an access with those before it, and note it; `kind` holds WRITE and ATOMIC."""
    flags, phase = peek(table + FLAGS), peek(table + PHASE)
    writes, atomic = (kind & WRITE) != 0, (kind & ATOMIC) != 0
    written, changed = peek(shadow + WRITE_PHASE), peek(shadow + ATOMIC_PHASE)
    if flags & RACES:
        if peek(shadow + IN_FLIGHT) >= peek(table + BLOCK_PHASE):
            copier = peek(shadow + WRITER)
            site, thread = me >> 40, me & 0xFFFF
            other, other_thread = copier >> 40, copier & 0xFFFF
            log_at(peek(table + LOG), RACE_IN_FLIGHT, site, other, thread, other_thread, address, 0)
        what = RACE_WRITE_WRITE if writes else RACE_READ_WRITE
        if written == phase:
            _against(table, peek(shadow + WRITER), what, me, address)
        if changed == phase and not atomic:
            _against(table, peek(shadow + CHANGER), what, me, address)
        if writes and peek(shadow + READ_PHASE) == phase:
            _against(table, peek(shadow + READER), RACE_READ_WRITE, me, address)
            _against(table, peek(shadow + OTHER_READER), RACE_READ_WRITE, me, address)
    if (
        flags & UNINIT
        and (atomic or not writes)
        and max(written, changed) < peek(table + BLOCK_PHASE)
    ):
        log_at(peek(table + LOG), UNINITIALISED, me >> 40, -1, me & 0xFFFF, -1, address, 0)
    if atomic:
        poke(shadow + ATOMIC_PHASE, phase)
        poke(shadow + CHANGER, me)
    elif writes:
        poke(shadow + IN_FLIGHT, phase if kind & COPY else 0)
        poke(shadow + WRITE_PHASE, phase)
        poke(shadow + WRITER, me)
    elif peek(shadow + READ_PHASE) != phase:
        poke(shadow + READ_PHASE, phase)
        poke(shadow + READER, me)
        poke(shadow + OTHER_READER, -1)
    elif (peek(shadow + READER) & 0xFFFF) == (me & 0xFFFF):
        poke(shadow + READER, me)
    else:
        poke(shadow + OTHER_READER, me)


@njit(nogil=True, error_model="numpy")
def _me(context: int, site: int) -> int:
    """Thread, warp phase and site in one word."""
    words = peek(context + _THREAD)
    return (words & 0xFFFF) | ((words >> 32) & 0xFFFFFF) << 16 | site << 40


def watch(context: int, address: int, access: int, site: int) -> int:
    """Check one access; return `address`, or a scratch area where it must not happen."""
    table = peek(context + _MONITOR)
    size = access & 0xFFFF
    thread = peek(context + _THREAD) & 0xFFFF
    flags = peek(table + FLAGS)
    begin = peek(table + SHARED_BEGIN)
    shared = begin <= address < peek(table + SHARED_END)
    if shared:
        region = _inside(peek(table + SHARED_COUNT), peek(table + SHARED_TABLE), address, size)
    else:
        region = _inside(peek(table + GLOBAL_COUNT), peek(table + GLOBAL_TABLE), address, size)
    if region < 0:
        log_at(peek(table + LOG), OUT_OF_BOUNDS, site, -1, thread, -1, address, access)
        return peek(table + SCRATCH)
    natural = size & -size
    if address & (natural - 1):
        log_at(peek(table + LOG), MISALIGNED, site, -1, thread, -1, address, access)
    if shared and flags & (RACES | UNINIT):
        me = _me(context, site)
        shift = peek(table + GRANULE)
        granule = (address - begin) >> shift
        last = (address - begin + size - 1) >> shift
        while granule <= last:
            _shadow(table, peek(table + SHADOW) + granule * SHADOW_BYTES, access, me, address)
            granule += 1
    if shared and access & COPY:
        add_copy(peek(table + FLIGHT), thread, peek(table + BLOCK_PHASE), address, size)
    if flags & COUNTS:
        count_access(peek(table + COUNTERS), thread, address, size, site)
    return address


def watch_groups(context: int, what: int) -> int:
    """Commit a thread's asynchronous copies, or wait for them."""
    table = peek(context + _MONITOR)
    change_groups(table, peek(context + _THREAD) & 0xFFFF, what)
    return 0


def watch_local(context: int, address: int, base: int, extent: int, site: int) -> int:
    """Check an access to an array of the thread's own, or to constant memory."""
    table = peek(context + _MONITOR)
    size, total = extent >> 32, extent & 0xFFFFFFFF
    if base <= address and address + size <= base + total:
        return address
    thread = peek(context + _THREAD) & 0xFFFF
    log_at(peek(table + LOG), OUT_OF_BOUNDS, site, -2, thread, -1, address - base, size)
    return peek(table + SCRATCH)


@functools.cache
def watch_address() -> int:
    """Return the address of `watch` as machine code."""
    signature = types.int64(types.int64, types.int64, types.int64, types.int64)
    return compile_callback(watch, signature, ("cuda_emulator_watch",)).address


@functools.cache
def watch_local_address() -> int:
    """Return the address of `watch_local` as machine code."""
    signature = types.int64(*[types.int64] * 5)
    return compile_callback(watch_local, signature, ("cuda_emulator_watch_local",)).address


@functools.cache
def watch_groups_address() -> int:
    """Return the address of `watch_groups` as machine code."""
    signature = types.int64(types.int64, types.int64)
    return compile_callback(watch_groups, signature, ("cuda_emulator_watch_groups",)).address
