"""Whether a result is right: exact, or within the tolerance that its kernel states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.problem import INTEGERS
from fastconv.contract.spec import Tolerance
from fastconv.kernels import reference

from .memory import numpy_dtype

__all__ = ["EXACT_ACTIVATIONS", "differs", "is_exact_activation"]

#: Activations that are exact on whole numbers.
EXACT_ACTIVATIONS = (None, "relu", "relu6", ("leaky_relu", 0.25), "prelu")

Reals = NDArray[np.float64]

#: The least normal number that results of a type have, and the distance of its denormals: what is
#: less than the first counts as zero, but for the denormals of float16, which are kept.
_LEAST = {"float32": 2.0**-126, "bfloat16": 2.0**-126, "float64": 2.0**-1022, "float16": 2.0**-24}


def is_exact_activation(activation: Any) -> bool:
    """Tell whether whole numbers stay exact under an activation."""
    told = tuple(activation) if isinstance(activation, list) else activation
    return told in EXACT_ACTIVATIONS


def differs(
    result: NDArray[Any],
    sums: Reals,
    truth: Reals,
    dtype: str,
    tolerance: Tolerance | None,
    typical: Callable[[], float],
    gain: float = 1.0,
    terms: float = 1.0,
) -> str:
    """Return a sentence where a result is wrong, else "".

    Parameters
    ----------
    result : ndarray
        What came.
    sums, truth : ndarray of float64
        What the activation is given, and the right result.
    dtype : str
        Of the result.
    tolerance : Tolerance or None
        Largest error relative to the largest sum; None where the result must be exact.
    typical : callable
        Root of the sum of the squares of an output's products, where it is largest. An output that
        cancels is small and its error is not, so this is asked where the largest sum is less.
    gain : float
        By how much the activation may enlarge an error.
    terms : float
        How many products an output sums, each of which counts as zero where it is less than the
        least normal number.
    """
    integers = dtype in INTEGERS
    with np.errstate(all="ignore"):
        made = reference.as_integers(truth, dtype) if integers else truth.astype(numpy_dtype(dtype))
        rounded, values = made.astype(np.float64), result.astype(np.float64)
    if values.shape != rounded.shape:
        return f"shape {values.shape}, want {rounded.shape}"
    finite = np.isfinite(rounded)
    wrong = ~finite & ~((values == rounded) | (np.isnan(values) & np.isnan(rounded)))
    if wrong.any():
        return _told("NaN and infinity differ", values, rounded, wrong)
    if tolerance is None:
        wrong = finite & (values != rounded)
        return _told("not exact", values, rounded, wrong) if wrong.any() else ""
    with np.errstate(all="ignore"):
        near = _saturated(truth, dtype) if integers else truth
        errors = np.where(finite, np.abs(values - near), 0.0)
    errors[np.isnan(errors)] = np.inf
    largest = float(errors.max(initial=0.0)) - (0.5 if integers else 0.0)
    # Products of float16 are float32's, far from where those end.
    least = _LEAST.get(dtype, _LEAST["float32"]) * (1.0 if dtype == "float16" else max(1.0, terms))
    # An activation may make values less and not their error, or, as a sigmoid, more.
    held = sums[np.isfinite(sums)]
    scale = float(max(np.abs(held).max(initial=0.0), np.abs(near[finite]).max(initial=0.0)))
    bound = gain * (tolerance.relative * scale + least)
    if largest <= bound:
        return ""
    scale = max(scale, typical())
    bound = gain * (tolerance.relative * scale + least)
    if largest <= bound:
        return ""
    what = f"relative error {largest / scale if scale else np.inf:.3g} > {tolerance.relative:.3g}"
    return _told(what, values, rounded, errors == errors.max())


def _saturated(truth: Reals, dtype: str) -> Reals:
    """Return numbers within a type's range, before they are rounded."""
    limits = np.iinfo(dtype)
    return np.clip(np.where(np.isnan(truth), 0.0, truth), limits.min, limits.max)


def _told(what: str, values: Reals, truth: Reals, wrong: NDArray[np.bool_]) -> str:
    place = tuple(int(axis) for axis in np.argwhere(wrong)[0])
    count = f"{int(wrong.sum())} of {wrong.size} elements"
    return f"{what}: {count}; at {place} got {values[place]!r}, want {truth[place]!r}"
