"""What a window's samples are made into: the largest, a sum, a sum of powers.

A NaN among the samples makes a maximum NaN. Two vectors take three instructions for that (the
maximum, a comparison that finds a NaN in either, a selection), three vectors six.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from ..simd.intrinsics import add
from ..simd.ir import DOUBLE, F64, I32, broadcast, call, constant, mangle
from .geometry import LARGEST, MEAN

__all__ = [
    "Rule", "divide", "fold_largest", "fold_total", "larger", "make_rule",
    "multiply", "real_type",
]  # fmt: skip


def larger(builder: Any, a: Any, b: Any) -> Any:
    """Return the larger of two, the second where one is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _nan_where(builder: Any, flags: Any, value: Any) -> Any:
    return builder.select(flags, constant(value.type, math.nan), value)


def _largest_of(builder: Any, values: list[Any]) -> Any:
    """Return the largest of values, NaN where one is: a comparison finds a NaN in two of them."""
    pairs = zip(values[::2], values[1::2] + values[-1:], strict=False)
    flags = [builder.fcmp_unordered("uno", a, b) for a, b in pairs]
    largest = functools.reduce(functools.partial(larger, builder), values)
    return _nan_where(builder, functools.reduce(builder.or_, flags), largest)


def _largest(builder: Any, a: Any, b: Any) -> Any:
    return _largest_of(builder, [a, b])


@intrinsic
def _largest_of_2(typingctx: Any, a: Any, b: Any) -> Any:
    """Return the larger of two, NaN where either is."""
    return a(a, a), lambda context, builder, signature, args: _largest(builder, *args)


@intrinsic
def _largest_of_3(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return the largest of three, NaN where one is."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _largest_of(builder, list(args))

    return a(a, a, a), codegen


@intrinsic
def divide(typingctx: Any, a: Any, b: Any) -> Any:
    """Return ``a / b``."""
    return a(a, a), lambda context, builder, signature, args: builder.fdiv(*args)


@intrinsic
def multiply(typingctx: Any, a: Any, b: Any) -> Any:
    """Return ``a * b``."""
    return a(a, a), lambda context, builder, signature, args: builder.fmul(*args)


@intrinsic
def _square_root(typingctx: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        return call(builder, f"llvm.sqrt.{mangle(kind)}", kind, args[0])

    return value(value), codegen


@intrinsic
def _power(typingctx: Any, value: Any, exponent: Any) -> Any:
    """Return a vector to the power of a float64, an element at a time."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector, power = args
        kind = vector.type
        if kind.element != DOUBLE:
            power = builder.fptrunc(power, kind.element)
        powers = broadcast(builder, power, kind.count)
        return call(builder, f"llvm.pow.{mangle(kind)}", kind, vector, powers)

    return value(value, exponent), codegen


def _fold(join: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
    """Return the code that joins all lanes of a vector, halves of it at a time."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = args[0]
        lanes = value.type.count
        while lanes > 1:
            half = lanes // 2
            kind = ir.VectorType(I32, half)
            parts = [
                builder.shuffle_vector(value, value, ir.Constant(kind, [I32(first + i)
                                                                        for i in range(half)]))
                for first in (0, half)
            ]  # fmt: skip
            value, lanes = join(builder, *parts), half
        return builder.extract_element(value, I32(0))

    return codegen


@intrinsic
def fold_largest(typingctx: Any, vector: Any) -> Any:
    """Return the largest lane, NaN where one is."""
    return vector.element(vector), _fold(_largest)


@intrinsic
def fold_total(typingctx: Any, vector: Any) -> Any:
    """Return the sum of all lanes."""
    return vector.element(vector), _fold(lambda builder, a, b: builder.fadd(a, b))


class Rule(NamedTuple):
    """Functions that Numba compiles into a kernel.

    Parameters
    ----------
    first : float
        What no sample at all comes to.
    lift : callable
        ``lift(g, vector)`` is what samples are taken as.
    join_2, join_3, join_scalars : callable
        What vectors of them come to, and two single ones.
    root : callable
        ``root(g, vector)`` of the sum.
    """

    first: float
    lift: Any
    join_2: Any
    join_3: Any
    join_scalars: Any
    root: Any


@numba.njit
def _as_it_is(g: Any, value: Any) -> Any:
    return value


@numba.njit
def _total_of_3(a: Any, b: Any, c: Any) -> Any:
    return add(add(a, b), c)


@numba.njit
def _larger_scalar(a: Any, b: Any) -> Any:
    return b if b > a or b != b else a


@numba.njit
def _scalar_sum(a: Any, b: Any) -> Any:
    return a + b


@functools.cache
def make_rule(rule: int, degree: int) -> Rule:
    """Return the functions of a rule; those of a norm have a degree.

    It is 1, 2 or 3, for which products do, or 0 where a record's `power` tells it.
    """
    if rule == LARGEST:
        return Rule(
            -math.inf, _as_it_is, _largest_of_2, _largest_of_3, _larger_scalar, _as_it_is
        )  # fmt: skip
    if rule == MEAN or degree == 1:
        return Rule(0.0, _as_it_is, add, _total_of_3, _scalar_sum, _as_it_is)

    @numba.njit
    def lift(g: Any, value: Any) -> Any:
        if degree == 2:
            return multiply(value, value)
        if degree == 3:
            return multiply(multiply(value, value), value)
        return _power(value, g.power)

    @numba.njit
    def root(g: Any, value: Any) -> Any:
        if degree == 2:
            return _square_root(value)
        return _power(value, 1.0 / g.power)

    return Rule(0.0, lift, add, _total_of_3, _scalar_sum, root)


def real_type(compute: int) -> type[np.floating[Any]]:
    """Return the type of one number in compute precision."""
    return np.float64 if compute == F64 else np.float32
