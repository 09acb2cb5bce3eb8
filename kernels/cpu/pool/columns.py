"""Vectors of columns under a row of windows: loaded, joined by rows, and joined by taps.

A tuple of as many vectors as the stride has steps travels as one value; how many there are, and of
how many rows, is known when a kernel is compiled.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..simd.ir import (
    I8,
    I32,
    I64,
    ITEMSIZE,
    VectorType,
    compute_type,
    constant,
    lanes_between,
    literals,
    load_vector,
    pointer,
)
from .geometry import LARGEST, NORM
from .rules import largest_of

__all__ = ["join_columns", "join_taps", "load_columns", "no_columns"]


def _join(builder: Any, rule: int, values: list[Any]) -> Any:
    if rule == LARGEST:
        return largest_of(builder, values) if len(values) > 1 else values[0]
    return functools.reduce(builder.fadd, values)


def _lift(builder: Any, rule: int, degree: int, value: Any) -> Any:
    """Return a sample's power, where the rule is a norm's."""
    powers = [value] * (degree if rule == NORM else 1)
    return functools.reduce(builder.fmul, powers)


@intrinsic(prefer_literal=True)
def load_columns(
    typingctx: Any, row: Any, pitch: Any, column: Any, width: Any, rows: Any, masked: Any,
    rule: Any, degree: Any, step: Any, storage: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Load `step` vectors of columns from `column` on, joined over `rows` rows.

    `row` is the address of column 0 of the first of the rows, which are `pitch` bytes apart. Where
    `masked` is 1, columns outside 0 to ``width - 1`` are not read and become what nothing comes to.
    """
    shape = literals((rows, masked, rule, degree, step, storage, lanes))
    if shape is None:
        return None
    rows_, masked_, rule_, degree_, step_, code, count = shape
    made = types.UniTuple(VectorType(compute_type(code), count), step_)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row, pitch, column, width = args[:4]
        base = builder.add(row, builder.mul(column, I64(ITEMSIZE[code])))
        vectors = []
        for number in range(step_):
            mask = None
            if masked_:
                low, high = builder.neg(column), builder.sub(width, column)
                mask = lanes_between(builder, low, high, count, number * count)
            values = []
            for each in range(rows_):
                offset = builder.mul(pitch, I64(each))
                place = builder.add(base, I64(number * count * ITEMSIZE[code]))
                at = pointer(builder, builder.add(place, offset), I8)
                value = load_vector(builder, at, count, code, mask)
                values.append(_lift(builder, rule_, degree_, value))
            vector = _join(builder, rule_, values)
            if masked_ and rule_ == LARGEST:  # what is not read is zero
                vector = builder.select(mask, vector, constant(vector.type, -math.inf))
            vectors.append(vector)
        return cgutils.pack_array(builder, vectors)

    words = [types.intp] * 4
    return made(*words, rows, masked, rule, degree, step, storage, lanes), codegen


@intrinsic(prefer_literal=True)
def no_columns(typingctx: Any, rule: Any, step: Any, storage: Any, lanes: Any) -> Any:
    """Return `step` vectors of what nothing comes to."""
    shape = literals((rule, step, storage, lanes))
    if shape is None:
        return None
    made = types.UniTuple(VectorType(compute_type(shape[2]), shape[3]), shape[1])

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(made.dtype)
        nothing = constant(kind, -math.inf if shape[0] == LARGEST else 0.0)
        return cgutils.pack_array(builder, [nothing] * shape[1])

    return made(rule, step, storage, lanes), codegen


@intrinsic(prefer_literal=True)
def join_columns(typingctx: Any, a: Any, b: Any, rule: Any) -> Any:
    """Join two tuples of columns."""
    shape = literals((rule,))
    if shape is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pairs = zip(*(cgutils.unpack_tuple(builder, each) for each in args[:2]), strict=True)
        return cgutils.pack_array(builder, [_join(builder, shape[0], list(p)) for p in pairs])

    return a(a, b, rule), codegen


def _lanes_of(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    """Return lanes of two vectors laid end to end."""
    kind = ir.VectorType(I32, len(places))
    return builder.shuffle_vector(a, b, ir.Constant(kind, [I32(place) for place in places]))


def _end_to_end(builder: Any, vectors: list[Any]) -> Any:
    """Return as many vectors as one; what is undefined stands behind an odd one."""
    while len(vectors) > 1:
        if len(vectors) % 2:
            vectors = [*vectors, ir.Constant(vectors[0].type, ir.Undefined)]
        size = 2 * vectors[0].type.count
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [_lanes_of(builder, a, b, list(range(size))) for a, b in pairs]
    return vectors[0]


@intrinsic(prefer_literal=True)
def join_taps(typingctx: Any, now: Any, following: Any, rule: Any, taps: Any, step: Any) -> Any:
    """Join each ``taps`` neighbours of columns, ``step`` from one window to the next.

    The columns are `step` vectors, and those behind them as many.
    """
    shape = literals((rule, taps, step))
    if shape is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = [_end_to_end(builder, cgutils.unpack_tuple(builder, each)) for each in args[:2]]
        lanes, values = now.dtype.lanes, []
        for tap in range(shape[1]):
            steps, phase = divmod(tap, shape[2])
            places = [phase + shape[2] * lane for lane in range(lanes)]
            first, second = (
                each if shape[2] == 1 else _lanes_of(builder, each, each, places) for each in wide
            )
            shifted = list(range(steps, steps + lanes))
            values.append(_lanes_of(builder, first, second, shifted) if steps else first)
        return _join(builder, shape[0], values)

    return now.dtype(now, following, rule, taps, step), codegen
