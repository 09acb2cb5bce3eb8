"""The machine code of plan.py: what happens to a block before, between and after its transforms.

Blocks are numbered through images, then depth, height and width. A task is one channel of one block
of the round at hand, whose first block's number is the first word of the scratch memory.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from ..common.epilogue import EPILOGUE_FIELDS, make_epilogue_vector
from ..runtime.record import as_record
from ..simd.intrinsics import (
    add,
    get_word,
    load,
    load_gather,
    load_masked,
    load_scalar,
    range_mask,
    splat,
    store,
    store_masked,
)
from ..simd.ir import F64, I32, ITEMSIZE, fmuladd

__all__ = ["FIELDS", "make_epilogue", "make_multiply", "make_read"]

FIELDS = (
    *EPILOGUE_FIELDS,
    *(f"f_{axis}" for axis in "dhw"),  # length of a transform
    *(f"step_{axis}" for axis in "dhw"),  # outputs of a block
    *(f"blocks_{axis}" for axis in "dhw"),  # blocks of an image
)
_view = as_record(FIELDS)


@intrinsic
def _add_complex_product(typingctx: Any, total: Any, x: Any, w: Any) -> Any:
    """Return ``total + x * w`` for complex numbers, real and imaginary part side by side."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total_value, x_value, w_value = args
        lanes = x.lanes
        kind = ir.VectorType(I32, lanes)

        def pick(value: Any, pattern: list[int]) -> Any:
            return builder.shuffle_vector(
                value, value, ir.Constant(kind, [I32(lane) for lane in pattern])
            )

        real = pick(w_value, [lane // 2 * 2 for lane in range(lanes)])
        imaginary = pick(w_value, [lane // 2 * 2 + 1 for lane in range(lanes)])
        signs = ir.Constant(x_value.type, [-1.0 if lane % 2 == 0 else 1.0 for lane in range(lanes)])
        swapped = pick(x_value, [lane ^ 1 for lane in range(lanes)])
        total_value = fmuladd(builder, real, x_value, total_value)
        return fmuladd(builder, builder.fmul(imaginary, signs), swapped, total_value)

    return total(total, x, w), codegen


@numba.njit
def _block_place(g: Any, block: int) -> tuple[int, int, int, int]:
    """Return the image of a block, and its first output's depth, height and width."""
    w, rest = block % g.blocks_w, block // g.blocks_w
    h, rest = rest % g.blocks_h, rest // g.blocks_h
    d, image = rest % g.blocks_d, rest // g.blocks_d
    return image, d * g.step_d, h * g.step_h, w * g.step_w


@functools.cache
def make_read(lanes: int, storage: int, compute: int) -> Any:
    """Return the task that copies one input channel under a block, with zeros outside.

    A zero is added to each sample: where denormal numbers count as zero, an addition makes them so,
    and a copy alone would hand them on to the transforms.
    """
    item, size = ITEMSIZE[storage], ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32

    @numba.njit
    def copy_row(g: Any, source: int, w: int, exists: bool, target: int) -> None:
        zero = splat(as_compute(0.0), lanes)
        for start in range(0, g.f_w, lanes):
            at, to = source + (w + start) * g.xw, target + start * size
            count = min(lanes, g.f_w - start)
            low = min(max(-(w + start), 0), count)
            high = max(min(g.iw - w - start, count), low) if exists else low
            if g.xw == item and high - low == lanes:
                store(to, add(load(at, storage, lanes), zero), compute)
            else:
                values = load_gather(at, g.xw, range_mask(low, high), storage, lanes)
                store_masked(to, add(values, zero), range_mask(0, count), compute)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, blocks: int,
        scratch: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        channels = g.groups * g.c
        image, od, oh, ow = _block_place(g, get_word(scratch, 0) + number // channels)
        source = x + image * g.xn + number % channels * g.xc
        target = blocks + number * g.f_d * g.f_h * g.f_w * size
        for i in range(g.f_d):
            for j in range(g.f_h):
                d, h = od - g.pd + i, oh - g.ph + j
                exists = 0 <= d < g.id and 0 <= h < g.ih
                copy_row(g, source + d * g.xd + h * g.xh, ow - g.pw, exists, target)
                target += g.f_w * size

    return task


@functools.cache
def make_multiply(lanes: int, compute: int) -> Any:
    """Return the task that sums one output channel's products of transforms."""
    size = ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32

    def task(
        geometry: int, spectra: int, weight: int, bias: int, residual: int, sums: int,
        scratch: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        reals = g.f_d * g.f_h * (g.f_w // 2 + 1) * 2
        step = reals * size
        block, k = number // (g.groups * g.k), number % (g.groups * g.k)
        x = spectra + (block * g.groups + k // g.k) * g.c * step
        w = weight + k * g.c * step
        zero = splat(as_compute(0.0), lanes)
        whole = reals // lanes * lanes
        for start in range(0, whole, lanes):
            total, at = zero, start * size
            for c in range(g.c):
                total = _add_complex_product(
                    total, load(x + c * step + at, compute, lanes),
                    load(w + c * step + at, compute, lanes),
                )  # fmt: skip
            store(sums + number * step + at, total, compute)
        mask, at = range_mask(0, reals - whole), whole * size
        total = zero
        for c in range(g.c):
            total = _add_complex_product(
                total, load_masked(x + c * step + at, mask, compute, lanes),
                load_masked(w + c * step + at, mask, compute, lanes),
            )  # fmt: skip
        store_masked(sums + number * step + at, total, mask, compute)

    return task


@functools.cache
def make_epilogue(lanes: int, storage: int, compute: int) -> Any:
    """Return the task that stores the outputs of one channel of a block."""
    size = ITEMSIZE[compute]
    end_vector = make_epilogue_vector(lanes, storage, compute)

    def task(
        geometry: int, blocks: int, weight: int, bias: int, residual: int, out: int,
        scratch: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        channels = g.groups * g.k
        k = number % channels
        image, od, oh, ow = _block_place(g, get_word(scratch, 0) + number // channels)
        shift = load_scalar(bias + k * size, compute)
        width = min(g.step_w, g.ow - ow)
        for d in range(min(g.step_d, g.od - od)):
            for h in range(min(g.step_h, g.oh - oh)):
                source = blocks + ((number * g.f_d + d) * g.f_h + h) * g.f_w * size
                y = out + image * g.yn + k * g.yc + (od + d) * g.yd + (oh + h) * g.yh + ow * g.yw
                extra = residual + image * g.rn + k * g.rc
                extra += (od + d) * g.rd + (oh + h) * g.rh + ow * g.rw
                for start in range(0, width, lanes):
                    end_vector(
                        g, source + start * size, shift, y + start * g.yw, extra + start * g.rw,
                        bias + k * size + g.slopes_at, min(lanes, width - start), scratch + 64,
                    )  # fmt: skip

    return task
