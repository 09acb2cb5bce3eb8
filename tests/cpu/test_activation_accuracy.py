"""Errors of the activations in units in the last place, over the whole range of numbers.

Comparisons with the largest output, as elsewhere, see nothing of small results.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest

import fastconv
from fastconv.contract.spec import ACTIVATIONS

ALPHA = 0.25
#: Digits of the truth.
_DIGITS = 40


def _minus_one(x: Decimal) -> Decimal:
    """e**x - 1, also where x is tiny."""
    return x + x * x / 2 + x**3 / 6 if abs(x) < Decimal("1e-12") else x.exp() - 1


def _tanh(x: Decimal) -> Decimal:
    less = _minus_one(-2 * abs(x))
    return (-less / (2 + less)).copy_sign(x)


def _clamp(x: Decimal, high: int) -> Decimal:
    return min(max(x, Decimal(0)), Decimal(high))


TRUTH: dict[str, Callable[[Decimal], Decimal]] = {
    "relu": lambda x: max(x, Decimal(0)),
    "relu6": lambda x: _clamp(x, 6),
    "leaky_relu": lambda x: x if x > 0 else x * Decimal(ALPHA),
    "elu": lambda x: x if x > 0 else _minus_one(x) * Decimal(ALPHA),
    "silu": lambda x: x / (1 + (-x).exp()),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "tanh": _tanh,
    "hardswish": lambda x: x * _clamp(x + 3, 6) / 6,
}
#: Limits of those with an exponential, far above zero (None: the number itself) and far below.
_ABOVE = {"elu": None, "silu": None, "sigmoid": 1, "tanh": 1}
_BELOW = {"elu": -ALPHA, "silu": 0, "sigmoid": 0, "tanh": -1}
#: Units in the last place.
MOST = dict.fromkeys(ACTIVATIONS, 3.0) | {"relu": 0.0, "relu6": 0.0, "leaky_relu": 0.5}


def _beyond(name: str, x: Decimal) -> Decimal:
    """The limit of an activation far from zero."""
    limit = _ABOVE[name] if x > 0 else _BELOW[name]
    return x if limit is None else Decimal(limit)


def inputs(dtype: str) -> np.ndarray:
    """Both signs of all orders, and close steps where exponentials are neither 0 nor infinite."""
    end = 700 if dtype == "float64" else 87
    kind = np.finfo(dtype)
    orders = np.geomspace(float(kind.tiny) * 4, float(kind.max) / 4, 301)
    steps = np.concatenate([np.linspace(-end, end, 1501), np.linspace(-4, 4, 801)])
    ends = np.array([0.0, end, kind.max, 3, 6, 0.5 * math.log(2), 1.5 * math.log(2)])
    positive = np.concatenate([orders, np.abs(steps), ends]).astype(dtype)
    return np.unique(np.concatenate([positive, -positive, np.nextafter(positive, positive * 0)]))


def activated(x: np.ndarray, name: str) -> np.ndarray:
    """The activation of each number, by a convolution that changes nothing else."""
    activation = (name, ALPHA) if ACTIVATIONS[name].parameter else name
    return fastconv.conv1d(x[None, None], np.ones((1, 1, 1), x.dtype), activation=activation)[0, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TRUTH)
def test_errors_in_units_in_the_last_place(name: str, dtype: str) -> None:
    x = inputs(dtype)
    result, kind = activated(x, name), np.finfo(dtype)
    # Beside the smallest numbers an intermediate one may be denormal or infinite.
    floor = Decimal(float(kind.tiny)) * (0 if MOST[name] < 1 else 2**10)
    last = Decimal(float(np.nextafter(kind.max, kind.dtype.type(0))))  # with a number above it
    worst: tuple[float, float] = (0.0, 0.0)
    with localcontext() as context:
        context.prec = _DIGITS
        context.Emin, context.Emax = -(10**9), 10**9
        for value, found in zip(x, result, strict=True):
            exact = Decimal(float(value))
            far = abs(exact) > 10**4 and name in _ABOVE
            truth = _beyond(name, exact) if far else TRUTH[name](exact)
            size = min(max(abs(truth), Decimal(float(kind.tiny))), last)
            unit = Decimal(float(np.spacing(np.dtype(dtype).type(float(size)))))
            error = max(abs(Decimal(float(found)) - truth) - floor, Decimal(0)) / unit
            worst = max(worst, (float(error), float(value)))
    assert worst[0] <= MOST[name], f"{worst[0]:.2f} units at {worst[1]!r}"


def test_gelu_in_units_in_the_last_place() -> None:
    """Against the C library's in double precision, which is itself the float64 one's way."""
    for dtype in ("float32", "float64"):
        x = inputs(dtype)
        wide = x.astype(np.float64)
        truth = np.array([0.5 * v * math.erfc(-v * math.sqrt(0.5)) for v in wide])
        result, kind = activated(x, "gelu"), np.finfo(dtype)
        tiny, last = float(kind.tiny), np.nextafter(kind.max, kind.dtype.type(0))
        units = np.spacing(np.clip(np.abs(truth), tiny, last).astype(dtype)).astype(np.float64)
        error = np.maximum(np.abs(result - truth) - tiny * 2**10, 0) / units
        assert error.max() <= 1.0, x[error.argmax()]
