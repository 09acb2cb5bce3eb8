"""Sums that are added up apart, so that an error hardly grows with how many there are."""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from ..simd.intrinsics import add, load, splat, store
from ..simd.ir import F64, ITEMSIZE

__all__ = ["make_totals"]


@functools.cache
def make_totals(lanes: int, compute: int) -> Any:
    """Return functions that clear vectors of sums, and that move them to totals and clear them.

    Both take sizes in bytes, whole vectors.
    """
    line = lanes * ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32

    @numba.njit
    def clear(sums: int, size: int) -> None:
        zero = splat(as_compute(0.0), lanes)
        for at in range(0, size, line):
            store(sums + at, zero, compute)

    @numba.njit
    def move(sums: int, totals: int, size: int) -> None:
        zero = splat(as_compute(0.0), lanes)
        for at in range(0, size, line):
            total = add(load(totals + at, compute, lanes), load(sums + at, compute, lanes))
            store(totals + at, total, compute)
            store(sums + at, zero, compute)

    return clear, move
