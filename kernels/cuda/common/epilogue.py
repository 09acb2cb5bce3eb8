"""What happens to a finished sum before it is stored: bias, residual, activation, rounding.

The activation is a number that the kernel is given, not one that it is compiled for: a tile's sums
pass through shared memory on their way out (see `tile`), so the switch stands once in the machine
code, in a rolled loop, and every thread of a launch takes the same branch.

Every activation keeps a NaN: comparisons are written so that NaN takes the branch that returns it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import cuda

from ...axes import ACTIVATION_CODES
from .vector import compute_type

__all__ = ["activate"]

_ROOT_HALF = math.sqrt(0.5)


@functools.cache
def activate(storage: str) -> Any:
    """Return the device function ``activate(value, code, alpha)`` in the storage's compute type.

    Every constant passes through `real`: a bare Python number would turn float32 into float64.
    """
    real = compute_type(storage)
    relu, relu6, leaky_relu = map(ACTIVATION_CODES.get, ("relu", "relu6", "leaky_relu"))
    elu, silu, sigmoid = map(ACTIVATION_CODES.get, ("elu", "silu", "sigmoid"))
    tanh, hardswish, gelu = map(ACTIVATION_CODES.get, ("tanh", "hardswish", "gelu"))

    @cuda.jit(device=True)
    def clamp(x: Any, high: Any) -> Any:
        x = real(0.0) if x < real(0.0) else x
        return high if x > high else x

    @cuda.jit(device=True)
    def function(x: Any, code: Any, alpha: Any) -> Any:
        if code == relu:
            x = real(0.0) if x < real(0.0) else x
        elif code == relu6:
            x = clamp(x, real(6.0))
        elif code == leaky_relu:
            x = x * alpha if x < real(0.0) else x
        elif code == elu:
            x = alpha * math.expm1(x) if x < real(0.0) else x
        elif code == silu:
            x = x / (real(1.0) + math.exp(-x))
        elif code == sigmoid:
            x = real(1.0) / (real(1.0) + math.exp(-x))
        elif code == tanh:
            x = math.tanh(x)
        elif code == hardswish:
            x = x * (clamp(x + real(3.0), real(6.0)) / real(6.0))
        elif code == gelu:
            x = x * (real(0.5) * (real(1.0) + math.erf(x * real(_ROOT_HALF))))
        return x

    return function
