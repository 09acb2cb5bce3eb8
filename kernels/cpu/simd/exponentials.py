"""Exponential, logarithm and power of explicit vectors, to some units in the last place.

The exponential is for arguments of at most zero, as a softmax has them once the largest value is
subtracted: no result overflows, so its power of two is one product. It takes 16 instructions a
vector where the one of `common.activations`, for any argument, takes 30.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from .ir import FLOAT, I32, I64, constant, fmuladd

__all__ = ["exp_negative", "log_positive", "power"]


def _integers(kind: ir.VectorType) -> ir.VectorType:
    """Return the type of integers as wide as floats."""
    return ir.VectorType(I32 if kind.element == FLOAT else I64, kind.count)


def _exp_of_least(builder: Any, x: Any) -> Any:
    """Return e**x where it is a normal number, zero below.

    Adding 1.5 * 2**23 (2**52) rounds x / ln(2) to a whole number, which then lies in the low bits,
    where it is shifted to the exponent's place.
    """
    kind, single = x.type, x.type.element == FLOAT
    bits, excess, least, degree = (23, 127, -87.0, 6) if single else (52, 1023, -708.0, 12)
    integer = _integers(kind)
    high, low = (0.693359375, -2.12194440054690583e-4) if single else (
        0.693145751953125, 1.42860682030941723212e-6
    )  # fmt: skip
    floor = constant(kind, least)
    below = builder.fcmp_ordered("<", x, floor)
    inside = builder.select(below, floor, x)
    magic = constant(kind, 1.5 * 2.0**bits)
    shifted = fmuladd(builder, inside, constant(kind, 1 / math.log(2)), magic)
    n = builder.fsub(shifted, magic)
    r = fmuladd(builder, n, constant(kind, -high), inside)
    r = fmuladd(builder, n, constant(kind, -low), r)
    total = constant(kind, 1 / math.factorial(degree))
    for power in range(degree - 1, -1, -1):
        total = fmuladd(builder, total, r, constant(kind, 1 / math.factorial(power)))
    exponent = builder.shl(builder.bitcast(shifted, integer), constant(integer, bits))
    exponent = builder.add(exponent, constant(integer, excess << bits))
    total = builder.fmul(total, builder.bitcast(exponent, kind))
    return builder.select(below, constant(kind, 0.0), total)


def _log(builder: Any, x: Any) -> Any:
    """Return log(x) of normal numbers.

    x is m * 2**e with m within sqrt(2) of one, and log(m) is the series of 2 artanh(s) in
    s = (m - 1) / (m + 1), at most 0.172.
    """
    kind, single = x.type, x.type.element == FLOAT
    bits, terms = (23, 6) if single else (52, 12)
    integer = _integers(kind)
    root = constant(integer, 0x3F3504F3 if single else 0x3FE6A09E667F3BCD)  # of one half
    raw = builder.bitcast(x, integer)
    e = builder.ashr(builder.sub(raw, root), constant(integer, bits))
    m = builder.bitcast(builder.sub(raw, builder.shl(e, constant(integer, bits))), kind)
    one = constant(kind, 1.0)
    s = builder.fdiv(builder.fsub(m, one), builder.fadd(m, one))
    square = builder.fmul(s, s)
    series = constant(kind, 2.0 / (2 * terms - 1))
    for term in range(terms - 2, -1, -1):
        series = fmuladd(builder, series, square, constant(kind, 2.0 / (2 * term + 1)))
    whole = builder.sitofp(e, kind)
    return fmuladd(builder, whole, constant(kind, math.log(2)), builder.fmul(s, series))


@intrinsic
def exp_negative(typingctx: Any, vector: Any) -> Any:
    """Return e**x of lanes that are at most zero; a NaN stays NaN.

    What would be less than the smallest normal number is zero.
    """
    return vector(vector), lambda context, builder, signature, args: _exp_of_least(builder, *args)


@intrinsic
def log_positive(typingctx: Any, vector: Any) -> Any:
    """Return the natural logarithm of lanes that are normal and above zero; a NaN stays NaN."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (x,) = args
        is_nan = builder.fcmp_unordered("uno", x, x)
        return builder.select(is_nan, x, _log(builder, x))

    return vector(vector), codegen


@intrinsic
def power(typingctx: Any, vector: Any, exponent: Any) -> Any:
    """Return ``vector ** exponent`` lane by lane, of numbers that are not below zero.

    An error is that of the logarithm times the exponent: a unit in the last place for each unit of
    ``exponent * log(vector)``. Numbers below zero give NaN, and zero and infinity what limits say.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, exponent = args
        kind, single = x.type, x.type.element == FLOAT
        most = 88.0 if single else 709.0
        infinity, zero = constant(kind, math.inf), constant(kind, 0.0)
        log = _log(builder, x)
        tiny = builder.fcmp_ordered("<", x, constant(kind, 2.0**-126 if single else 2.0**-1022))
        log = builder.select(tiny, constant(kind, -math.inf), log)
        log = builder.select(builder.fcmp_unordered("==", x, infinity), x, log)
        log = builder.select(builder.fcmp_ordered("<", x, zero), constant(kind, math.nan), log)
        scaled = builder.fmul(exponent, log)
        beyond = builder.fcmp_ordered(">", scaled, constant(kind, most))
        inside = builder.select(beyond, constant(kind, 0.0), scaled)
        return builder.select(beyond, infinity, _exp_of_least(builder, inside))

    return vector(vector, vector), codegen
