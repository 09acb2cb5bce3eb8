"""The operands of plan.py: rows of the input into V, weights into U.

A row of the input is copied into L1 in compute precision with its padding, and read from there a
block of tiles at a time: with ``step = stride m`` samples from one tile to the next, `step` vectors
of contiguous samples are split into every step-th by shuffles, and the samples that reach into the
next tile are the first ones of the same vectors `step` samples on. Each piece of the taps takes its
n samples from there. Against this, every row is used by ``K kernel_rows`` sums of products.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...cook_toom import matrices
from ..common.padded_rows import make_copy_row
from ..common.toom_cook_lines import INPUT, apply_matrix, call_lines, split_phases
from ..runtime import jit
from ..simd.intrinsics import load, splat, store
from ..simd.ir import (
    F64,
    I8,
    I32,
    I64,
    ITEMSIZE,
    call_address,
    literals,
    load_vector,
    pointer,
    store_vector,
)
from ..winograd.weights import make_read_taps
from .costs import Blocks, row_pieces
from .fields import view

__all__ = ["make_pack_kernel", "make_transform_band", "split_address"]


@intrinsic(prefer_literal=True)
def _split_block(
    typingctx: Any, source: Any, target: Any, piece_step: Any, m: Any, r: Any, kernel: Any,
    stride: Any, lanes: Any, code: Any,
) -> Any:  # fmt: skip
    """Transform the samples of one block of tiles; pieces go `piece_step` bytes apart.

    Of each vector the samples of one register tile (tile.py) are stored as a part.
    The last six arguments are literal.
    """
    shape = literals((m, r, kernel, stride, lanes, code))
    if shape is None:
        return None
    blocks, storage = Blocks(*shape[:5]), shape[5]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, goal = pointer(builder, args[0], I8), pointer(builder, args[1], I8)
        count, size = blocks.lanes, ITEMSIZE[storage]
        step, tiles = blocks.m * blocks.stride, count // blocks.m
        kind = ir.VectorType(I32, tiles)
        samples: list[Any] = []
        for first in range(0, blocks.reads, step):
            offsets = [(first + v * count) * size for v in range(step)]
            vectors = [
                load_vector(builder, builder.gep(base, [I64(at)]), count, storage) for at in offsets
            ]
            samples += split_phases(builder, vectors)
        matrix = matrices(blocks.m, blocks.r)[INPUT]
        for i, (phase, start) in enumerate(row_pieces(blocks.kernel, blocks.stride, blocks.r)):
            line = samples[phase :: blocks.stride][start : start + blocks.n]
            piece = builder.gep(goal, [builder.mul(args[2], I64(i))])
            values = apply_matrix(builder, matrix, line)
            for a, value in enumerate(values):
                for first in range(0, count, tiles):
                    lanes = ir.Constant(kind, [I32(first + t) for t in range(tiles)])
                    part = builder.shuffle_vector(value, value, lanes)
                    at = (first * blocks.n + a * tiles) * size
                    store_vector(builder, builder.gep(piece, [I64(at)]), part, storage)
        return context.get_dummy_value()

    words = [types.intp] * 3
    return types.void(*words, m, r, kernel, stride, lanes, code), codegen


_SPLIT_SIGNATURE = jit.void(4)


def split_address(blocks: Blocks, code: int) -> int:
    """Return the address of a function that transforms `count` blocks of tiles of one row."""
    m, r, kernel, stride, lanes = (
        blocks.m, blocks.r, blocks.kernel, blocks.stride, blocks.lanes
    )  # fmt: skip
    line = lanes * ITEMSIZE[code]
    step, block = m * stride * line, (m + r - 1) * line

    def split(source: int, target: int, piece_step: int, count: int) -> None:
        for i in range(count):
            _split_block(
                source + i * step, target + i * block, piece_step, m, r, kernel, stride, lanes, code
            )

    key = ("row_split", m, r, kernel, stride, lanes, code)
    return int(jit.compile_callback(split, _SPLIT_SIGNATURE, key).address)


@intrinsic
def _call_split(
    typingctx: Any, function: Any, source: Any, target: Any, piece_step: Any, count: Any
) -> Any:
    """Call the function at a `split_address`."""
    return types.void(types.intp, *_SPLIT_SIGNATURE.args), call_address


@functools.cache
def make_transform_band(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that makes V of `rows` input rows of all channels and planes.

    ``(d0, h0, w0)`` is the first position, which may lie outside the input. `row` is room for a
    padded row.
    """
    copy_row = make_copy_row(lanes, storage, compute)

    @numba.njit
    def transform_band(
        g: Any, x: int, d0: int, h0: int, w0: int, rows: int, blocks: int, v: int, row: int
    ) -> None:
        cols = blocks * g.block_samples + g.overhang
        for c in range(g.c):
            for kd in range(g.kd):
                d = d0 + kd * g.dd
                for r in range(rows):
                    h = h0 + r
                    copy_row(
                        g, x + c * g.xc + d * g.xd + h * g.xh + w0 * g.xw, w0, cols,
                        int(0 <= d < g.id and 0 <= h < g.ih), row,
                    )  # fmt: skip
                    at = v + c * g.band_c + kd * g.band_d + r * g.band_h
                    _call_split(g.split, row, at, g.piece_step, blocks)

    return transform_band


@functools.cache
def make_pack_kernel(r: int, lanes: int, storage: int, compute: int) -> Any:
    """Return the task that makes U of `lanes` output channels for `lanes` input channels."""
    line = lanes * ITEMSIZE[compute]
    as_compute = np.float64 if compute == F64 else np.float32
    read_taps = make_read_taps(lanes, storage, compute)

    @numba.njit
    def transform_row(g: Any, taps: int, piece: int, u: int) -> int:
        """Transform one row of taps, piece by piece; return the place behind it."""
        for phase in range(min(g.sw, g.kw)):
            for first in range(0, (g.kw - phase + g.sw - 1) // g.sw, r):
                for j in range(r):
                    tap = phase + g.sw * (first + j)
                    value = splat(as_compute(0.0), lanes)
                    if tap < g.kw:
                        value = load(taps + tap * line, compute, lanes)
                    store(piece + j * line, value, compute)
                call_lines(g.weight_row, piece, line, u, line, 1, line, line)
                u += g.block_bytes
        return u

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        chunks = (g.c + lanes - 1) // lanes
        chunk, rest = number % chunks, number // chunks
        panel, group = rest % g.panels, rest // g.panels
        k, c = panel * lanes, chunk * lanes
        channels = min(lanes, g.c - c)
        piece = workspace + worker * g.pack_worker_bytes
        taps = piece + r * line
        read_taps(
            g, weight + (group * g.k + k) * g.wk + c * g.wc, min(lanes, g.k - k), channels, taps
        )
        u = packed + (number // chunks * g.steps + c * (g.steps // g.c)) * g.block_bytes
        for row in range(channels * g.kd * g.kh):
            u = transform_row(g, taps + row * g.kw * line, piece, u)

    return task
