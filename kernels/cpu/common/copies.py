"""Vectors of input samples, read at any step under a mask, and copied.

Steps of one and two elements are loads and a shuffle; any other gathers.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import (
    load,
    load_gather,
    load_masked,
    pick_even,
    pick_even_met,
    range_mask,
    store,
)
from ..simd.ir import ITEMSIZE

__all__ = ["make_copy_vector", "make_read_vector", "pair_mask"]


@functools.cache
def make_read_vector(lanes: int, storage: int) -> Any:
    """Return a function that reads one vector: contiguous, every second element, or any step.

    Its `mask` has a bit for each lane inside the input; `pair` is the same for every second
    element of two vectors, see `pair_mask`. Lanes outside become zero and are not read.
    """
    item = ITEMSIZE[storage]
    full = (1 << lanes) - 1

    @numba.njit
    def read_vector(address: int, step: int, mask: int, pair: int) -> Any:
        if step == item:
            if mask == full:
                return load(address, storage, lanes)
            return load_masked(address, mask, storage, lanes)
        if step == 2 * item:
            second = address + lanes * item
            if mask == full:  # up to the last element that is wanted, no mask is needed
                low = load(address, storage, lanes)
                return pick_even_met(low, load(second - item, storage, lanes))
            low = load_masked(address, pair & full, storage, lanes)
            high = load_masked(second, pair >> lanes, storage, lanes)
            return pick_even(low, high)
        return load_gather(address, step, mask, storage, lanes)

    return read_vector


@functools.cache
def make_copy_vector(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that copies one vector; its arguments are `make_read_vector`'s."""
    read_vector = make_read_vector(lanes, storage)

    @numba.njit
    def copy_vector(address: int, step: int, mask: int, pair: int, target: int) -> None:
        store(target, read_vector(address, step, mask, pair), compute)

    return copy_vector


@numba.njit
def pair_mask(low: int, high: int) -> int:
    """Return the bits of elements 2 * low, 2 * low + 1, ... 2 * (high - 1)."""
    return range_mask(2 * low, max(2 * high - 1, 2 * low))
