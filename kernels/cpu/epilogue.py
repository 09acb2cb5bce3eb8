"""What happens to a finished sum before it is stored: residual, activation, rounding.

Bias is where the sum starts, so it costs nothing. A clamp (none, ReLU, ReLU6) is applied by the
micro-kernel in registers. Everything else is done here, vector by vector, on a tile that has just
been computed and still lies in L1.

Exponentials are polynomials on vectors: Cody and Waite's reduction to |r| <= ln(2) / 2, then a
Taylor polynomial whose first neglected term is below half an ulp (degree 7 in float32, 13 in
float64).
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..axes import ACTIVATION_CODES
from .vectors import (
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


def _exp(builder: Any, x: Any) -> Any:
    """Return e**x lane by lane; overflow gives infinity, underflow zero, NaN stays NaN."""
    kind = x.type
    single = kind.element == FLOAT
    integer = ir.VectorType(I32 if single else I64, kind.count)
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
    r = fmuladd(builder, n, constant(kind, -low), r)
    degree = 7 if single else 13
    total = constant(kind, 1 / math.factorial(degree))
    for power in range(degree - 1, -1, -1):
        total = fmuladd(builder, total, r, constant(kind, 1 / math.factorial(power)))
    # 2**n in two halves, each within the exponent's range.
    is_nan = builder.fcmp_unordered("uno", x, x)
    whole = builder.fptosi(builder.select(is_nan, constant(kind, 0.0), n), integer)
    half = builder.ashr(whole, constant(integer, 1))
    bits, excess = (23, 127) if single else (52, 1023)
    for part in (half, builder.sub(whole, half)):
        exponent = builder.shl(
            builder.add(part, constant(integer, excess)), constant(integer, bits)
        )
        total = builder.fmul(total, builder.bitcast(exponent, kind))
    return builder.select(is_nan, x, total)


def _sigmoid(builder: Any, x: Any) -> Any:
    one = constant(x.type, 1.0)
    return builder.fdiv(one, builder.fadd(one, _exp(builder, builder.fneg(x))))


def _tanh(builder: Any, x: Any) -> Any:
    one, two = constant(x.type, 1.0), constant(x.type, 2.0)
    power = _exp(builder, builder.fmul(two, x))
    return builder.fsub(one, builder.fdiv(two, builder.fadd(power, one)))


def _elu(builder: Any, x: Any, alpha: Any) -> Any:
    one = constant(x.type, 1.0)
    negative = builder.fmul(alpha, builder.fsub(_exp(builder, x), one))
    return builder.select(builder.fcmp_ordered("<=", x, constant(x.type, 0.0)), negative, x)


def _leaky_relu(builder: Any, x: Any, alpha: Any) -> Any:
    negative = builder.fcmp_ordered("<", x, constant(x.type, 0.0))
    return builder.select(negative, builder.fmul(x, alpha), x)


def _hardswish(builder: Any, x: Any) -> Any:
    shifted = builder.fadd(x, constant(x.type, 3.0))
    gate = clamp_high(builder, clamp_low(builder, shifted, constant(x.type, 0.0)),
                      constant(x.type, 6.0))  # fmt: skip
    return builder.fdiv(builder.fmul(x, gate), constant(x.type, 6.0))


def _erf(builder: Any, x: Any) -> Any:
    """Return erf(x) lane by lane by the C library's double precision function."""
    result = x
    for lane in range(x.type.count):
        value = builder.extract_element(x, I32(lane))
        wide = value if x.type.element != FLOAT else builder.fpext(value, ir.DoubleType())
        value = call(builder, "erf", ir.DoubleType(), wide)
        if x.type.element == FLOAT:
            value = builder.fptrunc(value, FLOAT)
        result = builder.insert_element(result, value, I32(lane))
    return result


def _gelu(builder: Any, x: Any) -> Any:
    error = _erf(builder, builder.fmul(x, constant(x.type, math.sqrt(0.5))))
    half = builder.fmul(x, constant(x.type, 0.5))
    return fmuladd(builder, half, error, half)


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
