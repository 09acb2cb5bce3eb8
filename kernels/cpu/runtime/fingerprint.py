"""What memory holds, in 16 bytes for each part of it: read once, by all threads.

Whether a weight is still what it was when it was packed, only its bits can tell. A fingerprint
reads the weight alone, where a comparison reads a copy as well: half the memory traffic, and no
copy.

```
part (128 KiB) = block, block, ...  block (256 bytes) = 32 words of 64 bits
block -> sum of (low half + key) * (high half + key), modulo 2^64, with two sets of keys
part  -> state = mix(state ^ sum) from block to block, then from word to word of what is left
```

The sums are those of NH (Black and others, "UMAC", CRYPTO 1999): with random keys two blocks that
differ have the same sum with a chance of 2^-32, the same two sums with one of 2^-64. `mix` is
one-to-one, so a difference in one block stays one. Keys are drawn anew in every process: nothing
that is written to a weight can aim at them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastconv.contract.settings import config

from ..simd.intrinsics import get_word, set_word
from ..simd.ir import I8, I32, I64, call, constant, pointer
from . import pool
from .atomics import read_word
from .plan import compile_kernel

__all__ = ["Parts"]

#: Bytes of a part, which is a task; words of a block, which are read as vectors; bytes of a word.
_PART, _BLOCK, _WORD = 131_072, 32, 8
#: Least bytes that another thread is asked to help with.
_SHARED = 2 * _PART
#: Odd, with bits set all over: 2^64 over the golden ratio, as a signed number.
_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)


@intrinsic
def _block_sum(typingctx: Any, address: Any, keys: Any) -> Any:
    """Return the sum of a block, with `_BLOCK` keys."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        halves, words = ir.VectorType(I32, 2 * _BLOCK), ir.VectorType(I64, _BLOCK)
        read, key = (builder.load(pointer(builder, each, halves), align=1) for each in args)
        keyed = builder.bitcast(builder.add(read, key), words)
        low = builder.and_(keyed, constant(words, 0xFFFFFFFF))
        high = builder.lshr(keyed, constant(words, 32))
        product = builder.mul(low, high)
        return call(builder, f"llvm.vector.reduce.add.v{_BLOCK}i64", I64, product)

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def _mix(typingctx: Any, state: Any, word: Any) -> Any:
    """Return a state that a word has gone into: one-to-one in either of them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        joined = builder.mul(builder.xor(*args), I64(_FACTOR))
        return builder.xor(joined, builder.lshr(joined, I64(29)))

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def _read_byte(typingctx: Any, address: Any) -> Any:
    """Read a byte as a whole number of 0 to 255."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.load(pointer(builder, args[0], I8)), I64)

    return types.intp(types.intp), codegen


def _task(
    geometry: int, x: int, weight: int, bias: int, extra: int, out: int,
    workspace: int, number: int, worker: int,
) -> None:  # fmt: skip
    """Store the two words of a part at `out`; its row in `geometry` says where it lies."""
    address, size = get_word(geometry, 2 * number), get_word(geometry, 2 * number + 1)
    first_keys, second_keys = weight, weight + _WORD * _BLOCK
    end = address + size
    first, second = size, ~size
    while end - address >= _WORD * _BLOCK:
        first = _mix(first, _block_sum(address, first_keys))
        second = _mix(second, _block_sum(address, second_keys))
        address += _WORD * _BLOCK
    while end - address >= _WORD:
        first = _mix(first, read_word(address))
        second = _mix(second, ~read_word(address))
        address += _WORD
    while address < end:
        first = _mix(first, _read_byte(address))
        second = _mix(second, ~_read_byte(address))
        address += 1
    set_word(out, 2 * number, first)
    set_word(out, 2 * number + 1, second)


@functools.cache
def _keys() -> NDArray[np.int64]:
    return np.frombuffer(os.urandom(2 * _WORD * _BLOCK), np.int64)


class Parts:
    """Parts of memory, which must stay while fingerprints are computed.

    Parameters
    ----------
    ranges : sequence of (int, int)
        Address and bytes of each; where there are no bytes there is no part.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        rows = [
            (address + start, min(_PART, size - start))
            for address, size in ranges
            for start in range(0, size, _PART)
        ]
        self._rows = np.array(rows, np.int64).reshape(-1, 2)
        self._is_shared = sum(size for _, size in rows) >= _SHARED
        self._jobs: dict[int, tuple[NDArray[np.int64], int]] = {}

    def fingerprints(self) -> bytes:
        """Return 16 bytes for each part."""
        made = np.empty(self._rows.shape, np.int64)
        if made.size:
            threads = config.num_threads if self._is_shared else 1
            _, job = self._jobs.get(threads) or self._job(threads)
            pool.run(job, threads, (None, _keys(), None, None, made, None))
        return made.tobytes()

    def _job(self, threads: int) -> tuple[NDArray[np.int64], int]:
        """Return a job and its address, kept for other calls with as many threads."""
        function = compile_kernel(_task, "fingerprint")
        job = pool.make_job(function, self._rows.ctypes.data, len(self._rows), threads)
        self._jobs[threads] = job, job.ctypes.data
        return self._jobs[threads]
