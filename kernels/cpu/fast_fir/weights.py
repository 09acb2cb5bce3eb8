"""The weights of plan.py: every phase of the taps, transformed along both axes once.

A task is one output channel, whose transformed phases lie together: ``U[k, e1, e2, C, kh, kw]``::

    for channel, row of taps, phase: P[phase, C, kh, kw]    zeros behind the last taps
    for lanes of the C kh kw taps of a phase
      load m2 x m1 vectors, multiply by both matrices        in float64, in registers
      store n1 x n2 vectors                                  rounded once

The matrices hold fractions like 4/15 whose sums cancel, so float32 here would add to the error of
everything that follows; in float64 a transformed weight is right to its last bit but for ties.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...cook_toom import matrices
from ..common.toom_cook_lines import WEIGHT, apply_to_plane
from ..runtime import jit
from ..simd.intrinsics import load_scalar, range_mask, store_scalar
from ..simd.ir import (
    DOUBLE,
    I8,
    I64,
    ITEMSIZE,
    call_address,
    compute_ir,
    lane_mask,
    literals,
    load_vector,
    pointer,
    store_vector,
)
from .fields import view

__all__ = ["make_pack_kernel", "transform_address"]


@intrinsic(prefer_literal=True)
def _transform_phases(
    typingctx: Any, source: Any, source_step: Any, target: Any, target_step: Any, bits: Any,
    m1: Any, m2: Any, lanes: Any, code: Any,
) -> Any:  # fmt: skip
    """Transform `lanes` taps of all ``m2 * m1`` phases; store those whose bit is set.

    Steps are bytes between phases. The last four arguments are literal.
    """
    shape = literals((m1, m2, lanes, code))
    if shape is None:
        return None
    along_1, along_2, count, storage = shape

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, goal = pointer(builder, args[0], I8), pointer(builder, args[2], I8)
        wide = ir.VectorType(DOUBLE, count)
        stored = ir.VectorType(compute_ir(storage), count)
        widens = stored != wide
        first, second = (matrices(m, m)[WEIGHT] for m in (along_1, along_2))
        rows = []
        for q in range(along_2):
            steps = (builder.mul(args[1], I64(q * along_1 + p)) for p in range(along_1))
            x = [load_vector(builder, builder.gep(base, [at]), count, storage) for at in steps]
            x = [builder.fpext(value, wide) for value in x] if widens else x
            rows.append(x)
        mask, made = (
            lane_mask(builder, args[4], count),
            apply_to_plane(builder, second, first, rows),
        )
        for e, value in enumerate(value for of_a in zip(*made, strict=True) for value in of_a):
            rounded = builder.fptrunc(value, stored) if widens else value
            address = builder.gep(goal, [builder.mul(args[3], I64(e))])
            store_vector(builder, address, rounded, storage, mask)
        return context.get_dummy_value()

    words = [types.intp] * 5
    return types.void(*words, m1, m2, lanes, code), codegen


_TRANSFORM_SIGNATURE = jit.void(5)


def transform_address(m1: int, m2: int, lanes: int, code: int) -> int:
    """Return the address of a function that transforms `count` taps of each phase."""
    line, full = lanes * ITEMSIZE[code], (1 << lanes) - 1

    def transform(source: int, source_step: int, target: int, target_step: int, count: int) -> None:
        whole = count // lanes
        for i in range(whole):
            _transform_phases(
                source + i * line, source_step, target + i * line, target_step, full,
                m1, m2, lanes, code,
            )  # fmt: skip
        if whole * lanes < count:
            _transform_phases(
                source + whole * line, source_step, target + whole * line, target_step,
                range_mask(0, count - whole * lanes), m1, m2, lanes, code,
            )  # fmt: skip

    key = ("fir_weights", m1, m2, lanes, code)
    return int(jit.compile_callback(transform, _TRANSFORM_SIGNATURE, key).address)


@intrinsic
def _call_transform(
    typingctx: Any, function: Any, source: Any, source_step: Any, target: Any, target_step: Any,
    count: Any,
) -> Any:  # fmt: skip
    """Call the function at a `transform_address`."""
    return types.void(types.intp, *_TRANSFORM_SIGNATURE.args), call_address


@functools.cache
def make_pack_kernel(storage: int, compute: int, fold: int) -> Any:
    """Return the task that transforms the weights of one output channel."""
    size = ITEMSIZE[compute]

    @numba.njit
    def split_taps(g: Any, weight: int, planes: int) -> None:
        """Bring the taps of all input channels into planes, one a phase.

        Those of a folded signal are one row, whose phases are those of both levels.
        """
        phases_h, phases_w, rows, columns = g.m2, g.m1, g.taps_h, g.taps_w
        if fold:
            phases_h, phases_w, rows, columns = 1, g.m1 * g.m2, 1, g.taps_h
        step = phases_w * g.ww
        for c in range(g.c):
            for row in range(rows * phases_h):
                place = (c * rows + row // phases_h) * columns * size
                for p in range(phases_w):
                    phase = row % phases_h * phases_w + p
                    target = planes + phase * g.pack_plane + place
                    source = weight + c * g.wc + row * g.wh + p * g.ww
                    taps = (g.kw - p + phases_w - 1) // phases_w if row < g.kh else 0
                    for j in range(taps):
                        store_scalar(
                            target + j * size, load_scalar(source + j * step, storage), compute
                        )
                    for j in range(taps, columns):
                        store_scalar(target + j * size, 0.0, compute)

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        planes = workspace + worker * g.pack_worker_bytes
        split_taps(g, weight + number * g.wk, planes)
        count = g.c * g.taps_h * g.taps_w
        target = packed + number * g.n1 * g.n2 * count * size
        _call_transform(g.transform, planes, g.pack_plane, target, count * size, count)

    return task
