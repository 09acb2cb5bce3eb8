"""Vectors of columns under a row of windows: loaded, joined by rows, and joined by taps.

A tuple of as many vectors as the stride has steps travels as one value; how many there are, and of
how many rows, is known when a kernel is compiled.

Of two samples an x86 maximum is the second where one is NaN, so a NaN may be lost, and to look for
it at every maximum takes three instructions instead of one. Here it is looked for once a sample: a
vector that travels behind the columns is marked where two of them were joined and one was NaN. What
is made of marked columns is wrong and has to be made again.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..simd.ir import (
    FLOAT,
    I8,
    I32,
    I64,
    ITEMSIZE,
    VectorType,
    compute_type,
    constant,
    lane_mask,
    literals,
    load_vector,
    pointer,
)
from .geometry import LARGEST, NORM
from .rules import larger

__all__ = ["join_columns", "join_taps", "load_columns", "lost_nan", "mark", "no_columns", "split"]


def _join(builder: Any, rule: int, values: list[Any]) -> Any:
    """Return the sum of values, or the largest: the last one where that or an earlier is NaN."""
    join = larger if rule == LARGEST else type(builder).fadd
    return functools.reduce(functools.partial(join, builder), values)


def _note(builder: Any, rule: int, values: list[Any], marks: Any) -> Any:
    """Return the marks, with those of NaN among the values."""
    for a, b in zip(values[::2], values[1::2] + values[-1:], strict=False):
        if rule == LARGEST:
            found = builder.fcmp_unordered("uno", a, b)
            marks = builder.select(found, constant(marks.type, math.nan), marks)
    return marks


def _either(builder: Any, marks: Any, more: Any) -> Any:
    """Return the marks of both."""
    kind = marks.type
    bits = ir.VectorType(I32 if kind.element == FLOAT else I64, kind.count)
    both = builder.or_(builder.bitcast(marks, bits), builder.bitcast(more, bits))
    return builder.bitcast(both, kind)


def _lift(builder: Any, rule: int, degree: int, value: Any) -> Any:
    """Return a sample's power, where the rule is a norm's."""
    powers = [value] * (degree if rule == NORM else 1)
    return functools.reduce(builder.fmul, powers)


@intrinsic(prefer_literal=True)
def load_columns(
    typingctx: Any, row: Any, pitch: Any, column: Any, sight: Any, rows: Any, masked: Any,
    rule: Any, degree: Any, step: Any, storage: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Load `step` vectors of columns from `column` on, joined over `rows` rows, and their marks.

    `row` is the address of column 0 of the first of the rows, which are `pitch` bytes apart. Where
    `masked` is 1, `sight` is the address of a word a vector: columns whose bit is not set are not
    read, and become what nothing comes to.
    """
    shape = literals((rows, masked, rule, degree, step, storage, lanes))
    if shape is None:
        return None
    rows_, masked_, rule_, degree_, step_, code, count = shape
    made = types.UniTuple(VectorType(compute_type(code), count), step_ + 1)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row, pitch, column, sight = args[:4]
        base = builder.add(row, builder.mul(column, I64(ITEMSIZE[code])))
        vectors, marks = [], constant(context.get_value_type(made.dtype), 0.0)
        for number in range(step_):
            mask = None
            if masked_:
                word = builder.gep(pointer(builder, sight, I64), [I64(number)])
                mask = lane_mask(builder, builder.load(word), count)
            values = []
            for each in range(rows_):
                offset = builder.mul(pitch, I64(each))
                place = builder.add(base, I64(number * count * ITEMSIZE[code]))
                at = pointer(builder, builder.add(place, offset), I8)
                value = load_vector(builder, at, count, code, mask)
                values.append(_lift(builder, rule_, degree_, value))
            vector = _join(builder, rule_, values)
            marks = _note(builder, rule_, values[:-1], marks)
            if masked_ and rule_ == LARGEST:  # what is not read is zero
                vector = builder.select(mask, vector, constant(vector.type, -math.inf))
            vectors.append(vector)
        return cgutils.pack_array(builder, [*vectors, marks])

    words = [types.intp] * 4
    return made(*words, rows, masked, rule, degree, step, storage, lanes), codegen


@intrinsic(prefer_literal=True)
def no_columns(typingctx: Any, rule: Any, step: Any, storage: Any, lanes: Any) -> Any:
    """Return `step` vectors of what nothing comes to, without marks."""
    shape = literals((rule, step, storage, lanes))
    if shape is None:
        return None
    made = types.UniTuple(VectorType(compute_type(shape[2]), shape[3]), shape[1] + 1)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(made.dtype)
        nothing = constant(kind, -math.inf if shape[0] == LARGEST else 0.0)
        return cgutils.pack_array(builder, [nothing] * shape[1] + [constant(kind, 0.0)])

    return made(rule, step, storage, lanes), codegen


@intrinsic
def mark(typingctx: Any, marks: Any, columns: Any) -> Any:
    """Return the marks, with those of some columns."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _either(builder, args[0], cgutils.unpack_tuple(builder, args[1])[-1])

    return marks(marks, columns), codegen


@intrinsic
def lost_nan(typingctx: Any, marks: Any) -> Any:
    """Tell whether a lane is marked."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = ir.IntType(args[0].type.count)
        found = builder.bitcast(builder.fcmp_unordered("uno", args[0], args[0]), lanes)
        return builder.icmp_unsigned("!=", found, lanes(0))

    return types.boolean(marks), codegen


@intrinsic(prefer_literal=True)
def join_columns(typingctx: Any, a: Any, b: Any, rule: Any) -> Any:
    """Join two tuples of columns."""
    shape = literals((rule,))
    if shape is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (*first, marks), (*second, more) = (cgutils.unpack_tuple(builder, a) for a in args[:2])
        pairs = [list(pair) for pair in zip(first, second, strict=True)]
        joined = [_join(builder, shape[0], pair) for pair in pairs]
        marks = _either(builder, marks, more)
        for pair in pairs:
            marks = _note(builder, shape[0], pair, marks)
        return cgutils.pack_array(builder, [*joined, marks])

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
def split(typingctx: Any, columns: Any, rule: Any) -> Any:
    """Return every `step`-th of the columns from each of the first `step` on, and their marks."""
    shape = literals((rule,))
    if shape is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        *vectors, marks = cgutils.unpack_tuple(builder, args[0])
        marks = _note(builder, shape[0], vectors, marks)
        step, lanes = len(vectors), vectors[0].type.count
        if step > 1:
            wide = _end_to_end(builder, vectors)
            vectors = [
                _lanes_of(builder, wide, wide, [phase + step * lane for lane in range(lanes)])
                for phase in range(step)
            ]
        return cgutils.pack_array(builder, [*vectors, marks])

    return columns(columns, rule), codegen


@intrinsic(prefer_literal=True)
def join_taps(typingctx: Any, now: Any, following: Any, rule: Any, taps: Any) -> Any:
    """Join each `taps` neighbours of columns that were split, and of those behind them."""
    shape = literals((rule, taps))
    if shape is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (*here, _), (*behind, _) = (cgutils.unpack_tuple(builder, each) for each in args[:2])
        lanes, values = now.dtype.lanes, []
        for tap in range(shape[1]):
            steps, phase = divmod(tap, len(here))
            shifted = list(range(steps, steps + lanes))
            first, second = here[phase], behind[phase]
            values.append(_lanes_of(builder, first, second, shifted) if steps else first)
        return _join(builder, shape[0], values)

    return now.dtype(now, following, rule, taps), codegen
