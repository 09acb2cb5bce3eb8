"""The record through which one emulated thread, the scheduler and the checks see each other.

Offsets in bytes. A thread that cannot go on writes why (reason), for what (opcode, mask, operands)
and where (site), and suspends; the scheduler writes the result and resumes it::

    0    tid.xyz  ctaid.xyz  ntid.xyz  nctaid.xyz  laneid  warpid  nwarpid  dynamic_smem_size
    64   reason  site  opcode  mask  thread  warp phase
    88   first byte of shared memory, address of the checks' table
    128  operands, 16 times 8
    256  results, 8 times 8
"""

from __future__ import annotations

__all__ = ["OFFSETS", "OPERANDS", "RESULTS", "STRIDE"]

OFFSETS = {
    **{
        f"{name}.{axis}": 12 * i + 4 * j
        for i, name in enumerate(("tid", "ctaid", "ntid", "nctaid"))
        for j, axis in enumerate("xyz")
    },
    "laneid": 48,
    "warpid": 52,
    "nwarpid": 56,
    "dynamic_smem_size": 60,
    "reason": 64,
    "site": 68,
    "opcode": 72,
    "mask": 76,
    "thread": 80,
    "warp_phase": 84,
    "shared": 88,
    "monitor": 96,
}
OPERANDS = 128
RESULTS = 256
STRIDE = 320

#: Why a thread is suspended.
READY, AT_BARRIER, AT_WARP, RAISING = 0, 1, 2, 3

#: What it waits for.
BARRIER, BARRIER_COUNT, BARRIER_AND, BARRIER_OR = 0, 1, 2, 3
SYNC_WARP, SHUFFLE, VOTE, ACTIVE_MASK = 10, 11, 12, 13
MATCH_ANY_32, MATCH_ANY_64, MATCH_ALL_32, MATCH_ALL_64 = 14, 15, 16, 17
REDUX_ADD, REDUX_MIN, REDUX_MAX, REDUX_UMIN, REDUX_UMAX, REDUX_AND, REDUX_OR, REDUX_XOR = range(
    20, 28
)
MMA_TF32, MMA_F16_K8, MMA_F16_K16, MMA_BF16_K16 = 30, 31, 32, 33
#: It waits for nobody and does not go on: an exception ends it. The operand is its number.
RAISE = 40
