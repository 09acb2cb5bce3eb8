"""The operations of a chain on vectors: which code is which, and those that are not simple.

Exponentials and what is made of them err by some units in the last place, as those of activations
behind a convolution do, which they partly are.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic

from ...axes import ACTIVATION_CODES
from ..common.activations import activate
from ..simd.arithmetic import divide, fma, larger, mul, pick_positive, sub
from ..simd.exponentials import exp_negative, log_positive, power
from ..simd.intrinsics import add, load, splat, store
from ..simd.ir import F64, ITEMSIZE, constant, fmuladd
from .lanes import SIMPLE, absolute, negative, pick_equal, pick_less, run_simple

__all__ = ["CODES", "make_step"]

_SPECIAL = ("exp", "log", "erf", "softplus", "sigmoid", "pow")
_ACTIVATIONS = ("elu", "tanh", "hardswish")
#: Codes begin here of what is not simple, and of activations.
_FIRST_SPECIAL, _FIRST_ACTIVATION = 100, 200
#: Where the error function is no more computed as a series.
_MIDDLE = 1.5
#: The number of each operation in a program.
CODES = {
    **{name: code for code, name in enumerate(SIMPLE)},
    **{name: _FIRST_SPECIAL + place for place, name in enumerate(_SPECIAL)},
    **{name: _FIRST_ACTIVATION + ACTIVATION_CODES[name] for name in _ACTIVATIONS},
}


def _make_exponential(lanes: int, compute: int) -> Any:
    """Return e**x.

    Above zero it is the square of the inverse of that of ``-x / 2``: only the square overflows.
    """
    real = np.float64 if compute == F64 else np.float32
    one, half = real(1), real(-0.5)

    @numba.njit(inline="always")
    def exp(x: Any) -> Any:
        e = exp_negative(pick_positive(x, mul(x, splat(half, lanes)), x))
        inverse = divide(splat(one, lanes), e)
        return pick_positive(x, mul(inverse, inverse), e)

    return exp


def _make_logarithm(lanes: int, compute: int) -> Any:
    """Return the natural logarithm; below the normal numbers that of 2**64 times as much."""
    real = np.float64 if compute == F64 else np.float32
    least = real(2.0**-1022 if compute == F64 else 2.0**-126)
    zero, up, shift = real(0), real(2.0**64), real(64 * math.log(2))
    infinity, nan = real(np.inf), real(np.nan)

    @numba.njit(inline="always")
    def log(x: Any) -> Any:
        small, nothing = splat(least, lanes), splat(zero, lanes)
        value = log_positive(pick_less(x, small, mul(x, splat(up, lanes)), x))
        value = pick_less(x, small, sub(value, splat(shift, lanes)), value)
        value = pick_equal(x, nothing, splat(-infinity, lanes), value)
        value = pick_less(x, nothing, splat(nan, lanes), value)
        return pick_equal(x, splat(infinity, lanes), x, value)

    return log


def _make_sigmoid(lanes: int, compute: int) -> Any:
    """Return ``1 / (1 + e**-x)``: of the two exponentials the one that is at most 1."""
    one = np.float64(1) if compute == F64 else np.float32(1)

    @numba.njit(inline="always")
    def sigmoid(x: Any) -> Any:
        whole = splat(one, lanes)
        e = exp_negative(negative(absolute(x)))
        return divide(pick_positive(x, whole, e), add(e, whole))

    return sigmoid


def _make_softplus(lanes: int, compute: int) -> Any:
    """Return ``log(1 + e**x)``: log(u) times what u, which is 1 + e rounded, lost of e."""
    real = np.float64 if compute == F64 else np.float32
    zero, one = real(0), real(1)

    @numba.njit(inline="always")
    def softplus(x: Any) -> Any:
        nothing, whole = splat(zero, lanes), splat(one, lanes)
        e = exp_negative(negative(absolute(x)))
        u = add(e, whole)
        kept = sub(u, whole)
        value = mul(log_positive(u), divide(e, kept))
        return add(larger(x, nothing), pick_equal(kept, nothing, e, value))

    return softplus


def _near_coefficients(terms: int) -> list[float]:
    """Return the Taylor polynomial of ``erf(x) / x`` in the square of x, highest power first."""
    each = [(-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(terms)]
    return [2 / math.sqrt(math.pi) * value for value in reversed(each)]


def _far_coefficients(end: float, degree: int) -> list[float]:
    """Return a polynomial of ``log(erfc(x)) + x**2`` from `_MIDDLE` to `end`, as of -1 to 1."""

    def logs(t: Any) -> Any:
        places = _MIDDLE + (end - _MIDDLE) * (np.asarray(t) + 1) / 2
        return [math.log(math.erfc(x)) + x * x for x in places]

    fitted = np.polynomial.chebyshev.chebinterpolate(logs, degree)
    return [float(each) for each in reversed(np.polynomial.chebyshev.cheb2poly(fitted))]


def _make_polynomial(coefficients: list[float]) -> Any:
    """Return Horner's rule for a vector."""

    @intrinsic
    def polynomial(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            (value,) = args
            total = constant(value.type, coefficients[0])
            for each in coefficients[1:]:
                total = fmuladd(builder, total, value, constant(value.type, each))
            return total

        return x(x), codegen

    return polynomial


def _make_error_function(lanes: int, compute: int) -> Any:
    """Return erf: a series up to `_MIDDLE`, from there on ``1 - exp(p(x) - x**2)``.

    From 4 (6 in float64) on it rounds to 1. What is subtracted from 1 is at most 0.034, so that
    some units of its last place are less than one of the result's.
    """
    real = np.float64 if compute == F64 else np.float32
    end, degree, terms = (6.0, 23, 28) if compute == F64 else (4.0, 9, 17)
    near = _make_polynomial(_near_coefficients(terms))
    far = _make_polynomial(_far_coefficients(end, degree))
    one, middle, last = real(1), real(_MIDDLE), real(end)
    scale, shift = real(2 / (end - _MIDDLE)), real(-(end + _MIDDLE) / (end - _MIDDLE))

    @numba.njit(inline="always")
    def erf(x: Any) -> Any:
        size, whole = absolute(x), splat(one, lanes)
        inside = pick_less(size, splat(last, lanes), size, splat(last, lanes))
        t = fma(inside, splat(scale, lanes), splat(shift, lanes))
        beyond = sub(whole, exp_negative(fma(negative(inside), inside, far(t))))
        beyond = pick_positive(x, beyond, negative(beyond))
        value = pick_less(size, splat(middle, lanes), mul(x, near(mul(x, x))), beyond)
        return pick_equal(x, x, value, x)

    return erf


@functools.cache
def make_step(lanes: int, compute: int) -> Any:
    """Return ``step(code, a, a_step, b, b_step, out, vectors)``, which runs one operation.

    Operands lie `a_step` and `b_step` bytes a vector apart, results side by side. One of a single
    operand does not look at the second. Functions are inlined: a call for each vector would take
    ten cycles, as much as half an exponential.
    """
    exp, log = _make_exponential(lanes, compute), _make_logarithm(lanes, compute)
    erf, softplus = _make_error_function(lanes, compute), _make_softplus(lanes, compute)
    sigmoid = _make_sigmoid(lanes, compute)
    size = lanes * ITEMSIZE[compute]

    @numba.njit(inline="always")
    def apply(code: int, x: Any, y: Any) -> Any:
        if code >= _FIRST_ACTIVATION:
            return activate(x, code - _FIRST_ACTIVATION, 1.0)
        if code == _FIRST_SPECIAL:
            return exp(x)
        if code == _FIRST_SPECIAL + 1:
            return log(x)
        if code == _FIRST_SPECIAL + 2:
            return erf(x)
        if code == _FIRST_SPECIAL + 3:
            return softplus(x)
        if code == _FIRST_SPECIAL + 4:
            return sigmoid(x)
        return power(x, y)

    @numba.njit
    def step(code: int, a: int, a_step: int, b: int, b_step: int, out: int, vectors: int) -> None:
        if code < _FIRST_SPECIAL:
            run_simple(code, a, a_step, b, b_step, out, vectors, compute, lanes)
            return
        for i in range(vectors):
            x, y = load(a + i * a_step, compute, lanes), load(b + i * b_step, compute, lanes)
            store(out + i * size, apply(code, x, y), compute)

    return step
