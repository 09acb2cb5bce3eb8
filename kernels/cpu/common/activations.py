"""What happens to a finished sum before it is stored: residual, activation, rounding.

Bias is where the sum starts, so it costs nothing. A clamp (none, ReLU, ReLU6) is applied by the
micro-kernel in registers. Everything else is done here, vector by vector, on a tile that has just
been computed and still lies in L1.

Exponentials are polynomials on vectors: Cody and Waite's reduction to |r| <= ln(2) / 2, then a
Taylor polynomial whose first neglected term is below half an ulp (degree 7 in float32, 13 in
float64). What would subtract one from an exponential near one, tanh and ELU, takes ``e**x - 1``
from the same polynomial without its first term, and GELU the complement of the error function: so
small results are as good as large ones, to three units in the last place.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...axes import ACTIVATION_CODES
from ..simd.ir import (
    FLOAT,
    I32,
    I64,
    VectorType,
    broadcast,
    call,
    clamp_high,
    clamp_low,
    constant,
    fmuladd,
    mangle,
)

__all__ = ["activate"]


def _reduced(builder: Any, x: Any) -> tuple[Any, Any]:
    """Return r and n, whole, with ``x = n ln(2) + r`` and ``|r| <= ln(2) / 2``."""
    kind = x.type
    single = kind.element == FLOAT
    # ln(2) in two parts, the first with enough trailing zeros that n * high is exact.
    high, low = (0.693359375, -2.12194440054690583e-4) if single else (
        0.693145751953125, 1.42860682030941723212e-6
    )  # fmt: skip
    bound = 88.8 if single else 709.9
    inside = clamp_high(builder, clamp_low(builder, x, constant(kind, -bound - 40)),
                        constant(kind, bound))  # fmt: skip
    scaled = builder.fmul(inside, constant(kind, 1 / math.log(2)))
    n = call(builder, f"llvm.rint.{mangle(kind)}", kind, scaled)
    r = fmuladd(builder, n, constant(kind, -high), inside)
    return fmuladd(builder, n, constant(kind, -low), r), n


def _taylor(builder: Any, r: Any, first: int) -> Any:
    """Return the sum of ``r**(k - first) / k!`` from `first` on."""
    degree = 7 if r.type.element == FLOAT else 13
    total = constant(r.type, 1 / math.factorial(degree))
    for power in range(degree - 1, first - 1, -1):
        total = fmuladd(builder, total, r, constant(r.type, 1 / math.factorial(power)))
    return total


def _times_power(builder: Any, value: Any, n: Any) -> Any:
    """Return ``value * 2**n``, in two halves that are each within the exponent's range."""
    kind = value.type
    single = kind.element == FLOAT
    integer = ir.VectorType(I32 if single else I64, kind.count)
    is_nan = builder.fcmp_unordered("uno", n, n)
    whole = builder.fptosi(builder.select(is_nan, constant(kind, 0.0), n), integer)
    half = builder.ashr(whole, constant(integer, 1))
    bits, excess = (23, 127) if single else (52, 1023)
    for part in (half, builder.sub(whole, half)):
        exponent = builder.shl(
            builder.add(part, constant(integer, excess)), constant(integer, bits)
        )
        value = builder.fmul(value, builder.bitcast(exponent, kind))
    return value


def _exp(builder: Any, x: Any) -> Any:
    """Return e**x lane by lane; overflow gives infinity, underflow zero, NaN stays NaN."""
    r, n = _reduced(builder, x)
    total = _times_power(builder, _taylor(builder, r, 0), n)
    return builder.select(builder.fcmp_unordered("uno", x, x), x, total)


def _exp_minus_one(builder: Any, x: Any) -> Any:
    """Return e**x - 1 lane by lane for x <= 0; NaN stays NaN."""
    r, n = _reduced(builder, x)
    one = constant(x.type, 1.0)
    power = _times_power(builder, one, n)
    part = builder.fmul(r, _taylor(builder, r, 1))
    total = fmuladd(builder, part, power, builder.fsub(power, one))
    return builder.select(builder.fcmp_unordered("uno", x, x), x, total)


def _sigmoid(builder: Any, x: Any) -> Any:
    one = constant(x.type, 1.0)
    return builder.fdiv(one, builder.fadd(one, _exp(builder, builder.fneg(x))))


def _tanh(builder: Any, x: Any) -> Any:
    size = call(builder, f"llvm.fabs.{mangle(x.type)}", x.type, x)
    less = _exp_minus_one(builder, builder.fmul(constant(x.type, -2.0), size))
    result = builder.fdiv(builder.fneg(less), builder.fadd(less, constant(x.type, 2.0)))
    return call(builder, f"llvm.copysign.{mangle(x.type)}", x.type, result, x)


def _elu(builder: Any, x: Any, alpha: Any) -> Any:
    zero = constant(x.type, 0.0)
    negative = builder.fmul(alpha, _exp_minus_one(builder, clamp_high(builder, x, zero)))
    return builder.select(builder.fcmp_ordered("<=", x, zero), negative, x)


def _leaky_relu(builder: Any, x: Any, alpha: Any) -> Any:
    negative = builder.fcmp_ordered("<", x, constant(x.type, 0.0))
    return builder.select(negative, builder.fmul(x, alpha), x)


def _hardswish(builder: Any, x: Any) -> Any:
    shifted = builder.fadd(x, constant(x.type, 3.0))
    gate = clamp_high(builder, clamp_low(builder, shifted, constant(x.type, 0.0)),
                      constant(x.type, 6.0))  # fmt: skip
    return builder.fmul(x, builder.fdiv(gate, constant(x.type, 6.0)))


def _gelu(builder: Any, x: Any) -> Any:
    """Return ``x erfc(-x / sqrt(2)) / 2`` lane by lane, by the C library in double precision."""
    result, double = x, ir.DoubleType()
    for lane in range(x.type.count):
        value = builder.extract_element(x, I32(lane))
        wide = value if x.type.element != FLOAT else builder.fpext(value, double)
        scaled = builder.fmul(wide, ir.Constant(double, -math.sqrt(0.5)))
        half = builder.fmul(wide, ir.Constant(double, 0.5))
        wide = builder.fmul(half, call(builder, "erfc", double, scaled))
        if x.type.element == FLOAT:
            wide = builder.fptrunc(wide, FLOAT)
        result = builder.insert_element(result, wide, I32(lane))
    return result


def _silu(builder: Any, x: Any) -> Any:
    return builder.fmul(x, _sigmoid(builder, x))


def _clamped(builder: Any, x: Any, low: float, high: float | None) -> Any:
    value = clamp_low(builder, x, constant(x.type, low))
    return value if high is None else clamp_high(builder, value, constant(x.type, high))


_FUNCTIONS = {
    "relu": lambda builder, x, alpha: _clamped(builder, x, 0.0, None),
    "relu6": lambda builder, x, alpha: _clamped(builder, x, 0.0, 6.0),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "silu": lambda builder, x, alpha: _silu(builder, x),
    "sigmoid": lambda builder, x, alpha: _sigmoid(builder, x),
    "tanh": lambda builder, x, alpha: _tanh(builder, x),
    "hardswish": lambda builder, x, alpha: _hardswish(builder, x),
    "gelu": lambda builder, x, alpha: _gelu(builder, x),
}


@intrinsic
def activate(typingctx: Any, vector: Any, code: Any, alpha: Any) -> Any:
    """Apply the activation with that code (see `ACTIVATION_CODES`) to every lane."""
    if not isinstance(vector, VectorType):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, code_value, parameter = args
        if vector.element.bitwidth == 32:
            parameter = builder.fptrunc(parameter, FLOAT)
        slope = broadcast(builder, parameter, vector.lanes)
        done = builder.append_basic_block("activated")
        switch = builder.switch(code_value, done)
        incoming = [(x, builder.block)]
        for name, function in _FUNCTIONS.items():
            block = builder.append_basic_block(name)
            switch.add_case(I64(ACTIVATION_CODES[name]), block)
            builder.position_at_end(block)
            incoming.append((function(builder, x, slope), builder.block))
            builder.branch(done)
        builder.position_at_end(done)
        result = builder.phi(x.type)
        for value, block in incoming:
            result.add_incoming(value, block)
        return result

    return vector(vector, types.intp, types.float64), codegen
