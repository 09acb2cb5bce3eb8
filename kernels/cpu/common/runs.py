"""Runs of elements, one behind the other or some bytes apart, read and written as vectors."""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.arithmetic import load_filled, load_filled_gather, store_scatter
from ..simd.intrinsics import load, load_gather, range_mask, store, store_masked

__all__ = ["make_run_access"]


@functools.cache
def make_run_access(unit: int, lanes: int, storage: int) -> tuple[Any, Any, Any, Any]:
    """Return functions that read and write a vector of a run: whole ones, and the last of it.

    ``read(at, step)`` and ``write(at, step, vector)`` are for whole vectors, ``read_end(at, step,
    count, fill)`` and ``write_end(at, step, count, vector)`` for the first `count` lanes. Where
    `unit` is zero elements lie `step` bytes apart.
    """
    every = (1 << lanes) - 1

    if unit:

        @numba.njit
        def read(at: int, step: int) -> Any:
            return load(at, storage, lanes)

        @numba.njit
        def read_end(at: int, step: int, count: int, fill: float) -> Any:
            return load_filled(at, range_mask(0, count), fill, storage, lanes)

        @numba.njit
        def write(at: int, step: int, vector: Any) -> None:
            store(at, vector, storage)

        @numba.njit
        def write_end(at: int, step: int, count: int, vector: Any) -> None:
            store_masked(at, vector, range_mask(0, count), storage)

        return read, write, read_end, write_end

    @numba.njit
    def gather(at: int, step: int) -> Any:
        return load_gather(at, step, every, storage, lanes)

    @numba.njit
    def gather_end(at: int, step: int, count: int, fill: float) -> Any:
        return load_filled_gather(at, step, range_mask(0, count), fill, storage, lanes)

    @numba.njit
    def scatter(at: int, step: int, vector: Any) -> None:
        store_scatter(at, step, vector, every, storage)

    @numba.njit
    def scatter_end(at: int, step: int, count: int, vector: Any) -> None:
        store_scatter(at, step, vector, range_mask(0, count), storage)

    return gather, scatter, gather_end, scatter_end
