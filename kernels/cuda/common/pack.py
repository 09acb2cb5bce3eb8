"""Weights from any strides into the panels that tiled kernels read.

    packed[group, block of bm output channels, panel of bk steps, step, output channel]

One thread an element: neighbouring threads write side by side. Output channels and steps beyond the
last are zeros, so that the product's loop needs no test.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda, uint32

from .vector import access

__all__ = ["pack_function"]


@functools.cache
def pack_function(storage: str) -> Callable[..., None]:
    """Return the packing kernel of a storage type as a plain Python function."""
    load1 = access(storage).load1
    zero = (np.float64 if storage == "float64" else np.float32)(0)

    def pack_weight(
        weight: Any, packed: Any,
        size: Any, bm: Any, bk: Any, panels: Any, blocks: Any,
        channels: Any, in_channels: Any, taps: Any, channels_inner: Any,
        first: Any, wk: Any, wc: Any, wd: Any, wh: Any, ww: Any, kh: Any, kw: Any,
    ) -> None:  # fmt: skip
        at = uint32(cuda.grid(1))
        if at < size:
            row, rest = at % bm, at // bm
            step, rest = rest % bk, rest // bk
            panel, rest = rest % panels, rest // panels
            block, group = rest % blocks, rest // blocks
            step = uint32(panel * bk + step)
            channel = uint32(block * bm + row)
            value = zero
            if channel < channels and step < in_channels * taps:
                if channels_inner != uint32(0):
                    tap, source = step // in_channels, step % in_channels
                else:
                    source, tap = step // taps, step % taps
                place = first + (group * channels + channel) * wk + source * wc
                place += tap // (kw * kh) * wd + tap // kw % kh * wh + tap % kw * ww
                value = load1(weight, uint32(place))
            packed[at] = value

    return pack_weight
