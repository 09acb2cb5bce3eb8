"""The weights of plan.py: transformed once into panels, ``U[e, panel, C, K of the panel]``.

Lanes are output channels. Where taps and channels of a weight are contiguous, blocks of
lanes x lanes are transposed in registers; any other weight is gathered. A task is one panel and
`lanes` input channels, and every element of the panel is written: zeros where K ends. Elements lie
one cache line more than their size apart: with a power of two between them, all that a channel
writes would fall into one set of L1 and of L2.

A transformed weight of more than a quarter of L3 is stored past the caches, a line at a time: else
each line is read before it is written, and pushes others out of a cache that is not ours alone.
67 MB took 4.3 ms of one busy thread so, and 13 ms before, 11 MB 0.86 and 1.2 ms; products that read
them took at most a twentieth longer. 6.5 MB took 0.31 ms and 0.28 before.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding

from ...cook_toom import matrices
from ..common.memory_order import is_contiguous
from ..common.toom_cook_lines import WEIGHT, apply_to_plane, call_lines
from ..runtime import jit
from ..runtime.atomics import fence
from ..simd.intrinsics import load_gather, range_mask, store
from ..simd.ir import (
    I8,
    I64,
    ITEMSIZE,
    call_address,
    literals,
    load_vector,
    pointer,
    store_vector,
    stream_vector,
)
from ..simd.register_tiles import RegisterTile
from ..simd.transposes import store_transposed, transpose_block
from .fields import view

__all__ = ["filters_are_contiguous", "make_pack_kernel", "make_read_taps", "plane_address"]


@intrinsic(prefer_literal=True)
def _transform_plane(
    typingctx: Any, source: Any, target: Any, target_step: Any, m_h: Any, r_h: Any, stride_h: Any,
    samples_h: Any, m_w: Any, r_w: Any, stride_w: Any, samples_w: Any, lanes: Any, code: Any,
    streamed: Any,
) -> Any:  # fmt: skip
    """Transform a plane of taps along the width, then along the height, in registers.

    Taps are vectors one behind the other; elements go `target_step` bytes apart, past the caches
    where `streamed`. All but the first three arguments are literal; see `cook_toom.matrices`.
    """
    height = literals((m_h, r_h, stride_h, samples_h))
    width, shape = literals((m_w, r_w, stride_w, samples_w)), literals((lanes, code, streamed))
    if height is None or width is None or shape is None:
        return None
    count, storage, past = shape

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, goal = pointer(builder, args[0], I8), pointer(builder, args[1], I8)

        def tap(number: int) -> ir.Value:
            place = builder.gep(base, [I64(number * count * ITEMSIZE[storage])])
            return load_vector(builder, place, count, storage)

        down, across = (matrices(*form)[WEIGHT] for form in (height, width))
        rows, columns = len(down[0]), len(across[0])
        taps = [[tap(i * columns + j) for j in range(columns)] for i in range(rows)]
        made = apply_to_plane(builder, down, across, taps)
        for e, value in enumerate(value for row in made for value in row):
            address = builder.gep(goal, [builder.mul(args[2], I64(e))])
            if past:
                stream_vector(builder, address, value)
            else:
                store_vector(builder, address, value, storage)
        return context.get_dummy_value()

    forms = (m_h, r_h, stride_h, samples_h, m_w, r_w, stride_w, samples_w)
    return types.void(*[types.intp] * 3, *forms, lanes, code, streamed), codegen


_PLANE_SIGNATURE = jit.void(3)


def plane_address(
    height: tuple[int, int, int, int], width: tuple[int, int, int, int], lanes: int, code: int,
    streamed: int,
) -> int:  # fmt: skip
    """Return the address of a function that transforms one plane of taps."""
    m_h, r_h, stride_h, samples_h = height
    m_w, r_w, stride_w, samples_w = width

    def plane(source: int, target: int, target_step: int) -> None:
        _transform_plane(source, target, target_step, m_h, r_h, stride_h, samples_h,
                         m_w, r_w, stride_w, samples_w, lanes, code, streamed)  # fmt: skip

    key = ("winograd_weights", *height, *width, lanes, code, streamed)
    return int(jit.compile_callback(plane, _PLANE_SIGNATURE, key).address)


@intrinsic
def _call_plane(typingctx: Any, function: Any, source: Any, target: Any, target_step: Any) -> Any:
    """Call the function at a `plane_address`."""
    return types.void(types.intp, *_PLANE_SIGNATURE.args), call_address


def filters_are_contiguous(problem: ConvProblem, binding: Binding) -> bool:
    """Return whether a filter's channels and taps are contiguous."""
    return is_contiguous(problem.weight_shape[1:], binding.weight_strides[1:], problem.itemsize)


@functools.cache
def make_read_taps(lanes: int, storage: int, compute: int) -> Any:
    """Return a function that brings `rows` filters' taps of some channels into lanes."""
    item, line, full = ITEMSIZE[storage], lanes * ITEMSIZE[compute], (1 << lanes) - 1

    @numba.njit
    def read_taps(g: Any, weight: int, rows: int, channels: int, taps: int) -> None:
        count = g.kd * g.kh * g.kw
        if g.weight_is_contiguous:
            for first in range(0, channels * count, lanes):
                columns = min(lanes, channels * count - first)
                if rows >= lanes and columns == lanes:
                    store_transposed(
                        weight + first * item, g.wk, taps + first * line, line, full, lanes,
                        storage, compute, lanes,
                    )  # fmt: skip
                    continue
                transpose_block(
                    weight + first * item, g.wk, rows, range_mask(0, columns), taps + first * line,
                    storage, compute, lanes,
                )  # fmt: skip
            return
        mask = range_mask(0, max(rows, 0))
        for c in range(channels):
            for i in range(g.kd):
                for j in range(g.kh):
                    for k in range(g.kw):
                        tap = weight + c * g.wc + i * g.wd + j * g.wh + k * g.ww
                        store(taps, load_gather(tap, g.wk, mask, storage, lanes), compute)
                        taps += line

    return read_taps


@functools.cache
def make_pack_kernel(tile: RegisterTile, storage: int, compute: int) -> Any:
    """Return the task that transforms the weights of one panel for `lanes` input channels."""
    nr, lanes, size = tile.nr, tile.lanes, ITEMSIZE[compute]
    line = lanes * size
    read_taps = make_read_taps(lanes, storage, compute)

    @numba.njit
    def transform(g: Any, taps: int, lines: int, u: int) -> None:
        """Transform one channel's taps [kd, kh, kw] along width, height and depth."""
        if g.kd == 1:
            _call_plane(g.weight_plane, taps, u, g.u_step)
            return
        elements = g.nh * g.nw
        for i in range(g.kd):
            _call_plane(
                g.weight_plane, taps + i * g.kh * g.kw * line, lines + i * elements * line, line
            )
        call_lines(
            g.weight_d, lines, elements * line, u, elements * g.u_step, elements, line, g.u_step
        )

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        chunks, k_panels = (g.c + lanes - 1) // lanes, (g.k + nr - 1) // nr
        chunk, rest = number % chunks, number // chunks
        panel, group = rest % k_panels, rest // k_panels
        first_c = chunk * lanes
        channels = min(lanes, g.c - first_c)
        taps = workspace + worker * g.pack_worker_bytes
        lines = taps + g.kd * g.kh * g.kw * lanes * line
        u = packed + group * g.weight_bytes + (panel * g.c + first_c) * nr * size
        for half in range(0, nr, lanes):
            k = panel * nr + half
            source = weight + (group * g.k + k) * g.wk + first_c * g.wc
            read_taps(g, source, min(lanes, g.k - k), channels, taps)
            for c in range(channels):
                at = taps + c * g.kd * g.kh * g.kw * line
                transform(g, at, lines, u + (c * nr + half) * size)
        if g.streamed:
            fence()

    return task
