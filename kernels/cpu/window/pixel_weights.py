"""The weights of a depthwise layer with channels in the lanes: (channels / lanes, taps, lanes).

A vector's taps lie together: one behind the other by the channels of the layer they would share a
few sets of the cache. A task is one vector of channels, whole lines of the cache, so no two threads
write to the same. Where a filter's taps are contiguous, blocks of lanes x lanes are transposed in
registers; the last block begins where it ends with the filter, and writes some taps again. Fewer
taps than lanes, and those of other strides, are gathered.
"""

from __future__ import annotations

import functools
from typing import Any

import numba

from ..simd.intrinsics import load_gather, range_mask, store
from ..simd.ir import ITEMSIZE, compute_code
from ..simd.transposes import transpose_block
from .pixel_strip import view

__all__ = ["make_pixel_weights"]


@functools.cache
def make_pixel_weights(lanes: int, storage: int) -> Any:
    """Return the task that lays out the weights of `lanes` channels."""
    compute, item = compute_code(storage), ITEMSIZE[storage]
    line, full = lanes * ITEMSIZE[compute], (1 << lanes) - 1

    @numba.njit
    def is_contiguous(g: Any) -> bool:
        """Tell whether a filter's taps are contiguous."""
        return (
            (g.ww == item or g.kw == 1)
            and (g.wh == g.kw * item or g.kh == 1)
            and (g.wd == g.kh * g.kw * item or g.kd == 1)
        )

    @numba.njit
    def gather(g: Any, weight: int, channels: int, target: int) -> None:
        mask = range_mask(0, channels)
        for kd in range(g.kd):
            for kh in range(g.kh):
                for kw in range(g.kw):
                    tap = weight + kd * g.wd + kh * g.wh + kw * g.ww
                    store(target, load_gather(tap, g.wk, mask, storage, lanes), compute)
                    target += line

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        taps, channels = g.kd * g.kh * g.kw, min(lanes, g.groups - number * lanes)
        source, target = weight + number * lanes * g.wk, packed + number * taps * line
        if taps < lanes or not is_contiguous(g):
            gather(g, source, channels, target)
            return
        for start in range(0, taps, lanes):
            first = min(start, taps - lanes)
            transpose_block(
                source + first * item, g.wk, channels, full, target + first * line, storage,
                compute, lanes,
            )  # fmt: skip

    return task
