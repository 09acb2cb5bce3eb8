"""Whether two arrays hold the same bits, by all threads, at the speed of the caches.

NumPy's own comparison makes an array of truth values, takes a NaN for unequal to itself and one
thread, and is slower than packing a weight again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastconv.contract.settings import config

from ..simd.intrinsics import get_word
from ..simd.ir import I64, call, pointer
from . import pool
from .atomics import load_word, read_word, store_word
from .plan import compile_kernel

__all__ = ["same_bits"]

#: Words of a task, a part of L2 of both arrays; and words that are compared as vectors.
_CHUNK, _BLOCK = 16_384, 64
_WORD = 8


@intrinsic
def _block_difference(typingctx: Any, one: Any, other: Any) -> Any:
    """Return 0 where `_BLOCK` words at two addresses are the same."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(I64, _BLOCK)
        first, second = (builder.load(pointer(builder, address, kind), align=1) for address in args)
        name = f"llvm.vector.reduce.or.v{_BLOCK}i64"
        return call(builder, name, I64, builder.xor(first, second))

    return types.intp(types.intp, types.intp), codegen


def _task(
    geometry: int, x: int, weight: int, bias: int, extra: int, out: int,
    workspace: int, number: int, worker: int,
) -> None:  # fmt: skip
    """Compare a chunk of `x` and `weight`, unless some chunk is known to differ; `out` tells."""
    if load_word(out):
        return
    first = number * _CHUNK
    words = min(get_word(geometry, 0) - first, _CHUNK)
    one, other = x + _WORD * first, weight + _WORD * first
    difference, blocks = 0, words // _BLOCK
    for i in range(blocks):
        difference |= _block_difference(one + _WORD * _BLOCK * i, other + _WORD * _BLOCK * i)
    for i in range(blocks * _BLOCK, words):
        difference |= read_word(one + _WORD * i) ^ read_word(other + _WORD * i)
    # What is left of a last word is of its chunk, with bytes that were compared before.
    last = get_word(geometry, 1) - _WORD
    difference |= read_word(x + last) ^ read_word(weight + last)
    if difference != 0:
        store_word(out, 1)


def same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether two arrays of equal strides and types, a word or longer, hold the same bits.

    Parameters
    ----------
    one, other : ndarray
        Of as many bytes, 8 at least, without gaps.
    """
    size = one.nbytes
    words = size // _WORD
    geometry, differs = np.array([words, size], np.int64), np.zeros(1, np.int64)
    job = pool.make_job(
        compile_kernel(_task, "same_bits"),
        geometry.ctypes.data,
        -(-words // _CHUNK),
        config.num_threads,
    )
    pool.run(job.ctypes.data, config.num_threads, (one, other, None, None, differs, None))
    return not differs[0]
