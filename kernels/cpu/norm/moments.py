"""Mean and variance of many numbers in one pass, however far from zero they lie.

Numbers are summed in float64 about one of them, ``d = x - k``: the sums of d and of d * d. What is
lost to cancellation is then that of numbers which differ from k by some standard deviations, in
float64: the statistics of float32 numbers are exact but for their rounding. Every 64 vectors sums
go to totals, so that those of float64 numbers are good, too.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from ..common.runs import make_run_access
from ..simd.arithmetic import fma, reduce_add, sub, to_double
from ..simd.intrinsics import add, splat
from ..simd.ir import F64, compute_code

__all__ = ["finish_moments", "make_moments"]

#: Vectors of a run whose sums are added up before they go to the totals.
_CHUNK = 64


@numba.njit
def finish_moments(k: float, first: float, second: float, share: float) -> tuple[float, float]:
    """Return mean and variance from the sums about `k` of numbers that count `share` each."""
    away = first * share
    if second == math.inf and abs(first) < math.inf:  # squares of numbers near the largest
        return k + away, math.inf
    variance = (second - first * away) * share
    return k + away, 0.0 if variance < 0.0 else variance


@functools.cache
def make_moments(unit: int, lanes: int, storage: int) -> Any:
    """Return a function of a geometry, an address and k that sums over the axes p, q, r and s."""
    read, _, read_end, _ = make_run_access(unit, lanes, storage)
    as_compute = np.float64 if compute_code(storage) == F64 else np.float32
    chunk, nothing = _CHUNK * lanes, 0.0

    @numba.njit
    def moments(g: Any, x: int, k: float) -> tuple[float, float]:
        centre, fill = splat(np.float64(k), lanes), as_compute(k)
        total1, total2 = splat(nothing, lanes), splat(nothing, lanes)
        for p in range(g.p):
            for q in range(g.q):
                for r in range(g.r):
                    source = x + p * g.xp + q * g.xq + r * g.xr
                    for start in range(0, g.s, chunk):
                        sum1, sum2 = splat(nothing, lanes), splat(nothing, lanes)
                        i, last = start, min(g.s, start + chunk)
                        while i + lanes <= last:
                            d = sub(to_double(read(source + i * g.xs, g.xs)), centre)
                            sum1, sum2 = add(sum1, d), fma(d, d, sum2)
                            i += lanes
                        if i < last:
                            value = read_end(source + i * g.xs, g.xs, last - i, fill)
                            d = sub(to_double(value), centre)
                            sum1, sum2 = add(sum1, d), fma(d, d, sum2)
                        total1, total2 = add(total1, sum1), add(total2, sum2)
        return reduce_add(total1), reduce_add(total2)

    return moments
