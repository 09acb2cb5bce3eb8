"""The second half of the epilogue: sums that do not already lie finished in the output.

A GEMM-like kernel clamps in registers and stores straight into the output where that is possible.
Where it is not (residual, other activations, halves, an output with gaps) it leaves a tile of sums
in L1 or in `out` itself, and this moves the tile to where it belongs, segment by segment.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from fastconv.contract.spec import Binding

from ...axes import ACTIVATION_CODES, LAST_CLAMP, PRELU
from ..simd.arithmetic import mul, pick_positive
from ..simd.intrinsics import (
    add,
    get_word,
    load_gather,
    load_masked,
    load_scalar,
    range_mask,
    splat,
    store,
    store_masked,
    store_scalar,
)
from ..simd.ir import F64, ITEMSIZE
from .activations import activate
from .segments import SEGMENT_WORDS

__all__ = [
    "EPILOGUE_FIELDS",
    "epilogue_fields",
    "make_activation",
    "make_epilogue_strided",
    "make_epilogue_tile",
    "make_epilogue_vector",
    "make_gathered_activation",
]

#: Fields of a geometry that decide where sums lie and what an epilogue does to them.
EPILOGUE_FIELDS = ("direct", "needs_epilogue", "epilogue_code")


def epilogue_fields(binding: Binding, direct: bool, clamped: bool = True) -> dict[str, int]:
    """Return the values of `EPILOGUE_FIELDS`.

    `direct` says that sums lie in the output itself, `clamped` that they arrive clamped where the
    activation is a clamp and there is no residual.
    """
    code = ACTIVATION_CODES[binding.activation]
    residual = binding.residual_strides is not None
    if clamped and code <= LAST_CLAMP and not residual:
        code = 0
    return {
        "direct": int(direct),
        "needs_epilogue": int(residual or code > 0 or not direct),
        "epilogue_code": code,
    }


@functools.cache
def make_activation(lanes: int, compute: int) -> Any:
    """Return a function that applies an activation by its code to the lanes of a mask.

    `slopes` is the address of what PReLU multiplies negative lanes by: one number for all of them
    where `slope_step` is 0, else one for each.
    """

    @numba.njit(forceinline=True)  # vectors would be passed through memory
    def apply(value: Any, code: int, alpha: float, slopes: int, slope_step: int, mask: int) -> Any:
        if code != PRELU:
            return activate(value, code, alpha)
        slope = splat(load_scalar(slopes, compute), lanes)
        if slope_step:
            slope = load_masked(slopes, mask, compute, lanes)
        return pick_positive(value, value, mul(value, slope))

    return apply


@functools.cache
def make_gathered_activation(lanes: int, storage: int) -> Any:
    """Return a function as `make_activation` does, whose slopes lie `slope_step` bytes apart."""

    @numba.njit(forceinline=True)  # vectors would be passed through memory
    def apply(value: Any, code: int, alpha: float, slopes: int, slope_step: int, mask: int) -> Any:
        if code != PRELU:
            return activate(value, code, alpha)
        slope = load_gather(slopes, slope_step, mask, storage, lanes)
        return pick_positive(value, value, mul(value, slope))

    return apply


@functools.cache
def make_epilogue_strided(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that finishes one vector of sums: bias, residual, activation, store.

    Its elements lie `out_step` and `residual_step` bytes apart: neighbours along any axis. Slopes
    are those of `make_activation`.
    """
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]
    apply_activation = make_activation(lanes, compute)
    as_compute = np.float64 if compute == F64 else np.float32

    @numba.njit
    def end_strided(
        g: Any, source: int, bias: float, out: int, out_step: int, residual: int,
        residual_step: int, slopes: int, slope_step: int, count: int, scratch: int,
    ) -> None:  # fmt: skip
        mask = range_mask(0, count)
        value = load_masked(source, mask, compute, lanes)
        value = add(value, splat(as_compute(bias), lanes))
        if g.has_residual:
            if residual_step == item:
                value = add(value, load_masked(residual, mask, storage, lanes))
            else:
                value = add(value, load_gather(residual, residual_step, mask, storage, lanes))
        value = apply_activation(value, g.epilogue_code, g.alpha, slopes, slope_step, mask)
        if out_step == item:
            store_masked(out, value, mask, storage)
        else:
            store(scratch, value, compute)
            for lane in range(count):
                element = load_scalar(scratch + lane * size, compute)
                store_scalar(out + lane * out_step, element, storage)

    return end_strided


@functools.cache
def make_epilogue_vector(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that finishes one vector of sums of neighbouring pixels of a channel."""
    end_strided = make_epilogue_strided(lanes, storage, compute)

    @numba.njit
    def end_vector(
        g: Any, source: int, bias: float, out: int, residual: int, slope: int, count: int,
        scratch: int,
    ) -> None:  # fmt: skip
        end_strided(g, source, bias, out, g.yw, residual, g.rw, slope, 0, count, scratch)

    return end_vector


@functools.cache
def make_epilogue_tile(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that finishes `rows` rows of one panel.

    `out` and `residual` are the addresses of the first row's map, `bias` that of its channel's,
    `source` that of the panel's first sum.
    """
    size = ITEMSIZE[compute]
    end_vector = make_epilogue_vector(lanes, storage, compute)

    @numba.njit
    def end_tile(
        g: Any, source: int, pitch: int, rows: int, bias: int, out: int, residual: int,
        segments: int, count: int, scratch: int,
    ) -> None:  # fmt: skip
        for row in range(rows):
            slope = bias + g.slopes_at + row * size
            for s in range(count):
                words = segments + 8 * SEGMENT_WORDS * s
                d, h, w = get_word(words, 2), get_word(words, 3), get_word(words, 4)
                first, length = get_word(words, 0), get_word(words, 1)
                to = out + row * g.yc + d * g.yd + h * g.yh + w * g.yw
                extra = residual + row * g.rc + d * g.rd + h * g.rh + w * g.rw
                sums = source + row * pitch + first * size
                for start in range(0, length, lanes):
                    end_vector(
                        g, sums + start * size, 0.0, to + start * g.yw, extra + start * g.rw,
                        slope, min(lanes, length - start), scratch,
                    )  # fmt: skip

    return end_tile
