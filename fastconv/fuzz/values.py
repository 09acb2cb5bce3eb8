"""What arrays hold: integers that sum exactly, and numbers of every size."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXACT", "VALUES", "draw_values"]

#: Kinds of values and what they are.
VALUES = {
    "integers": "whole numbers from -4 to 4: every partial sum is exact",
    "gaussian": "standard normal",
    "positive": "between 0.5 and 1.5",
    "constant": "ones",
    "separable": "weights that are outer products of vectors",
    "tiny": "inputs near the least that the type holds",
    "minute": "tiny inputs and weights of a hundred thousandth",
    "huge": "inputs near the largest that the type holds",
    "nonfinite": "integers, among them NaN and infinity in the input",
}
#: Kinds for which a kernel that only sums products has no error.
EXACT = ("integers", "nonfinite")

_TINY = {"float64": 1e-290, "float16": 1e-3}
_HUGE = {"float64": 1e290, "float16": 100.0}


def draw_values(
    kind: str, name: str, shape: tuple[int, ...], dtype: str, seed: int, scaled: bool = True
) -> NDArray[np.float64]:
    """Return the values of one argument.

    Parameters
    ----------
    kind : str
        A key of `VALUES`.
    name : str
        The argument: weights and inputs differ in some kinds.
    shape : tuple of int
        Of the array.
    dtype : str
        Element type that the values must fit.
    seed : int
        Equal seeds, names and shapes give equal values.
    scaled : bool
        Whether it is this argument that is tiny or huge. Of two that are multiplied only one is:
        where sums overflow, the order of the additions decides between infinity and NaN.
    """
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    if kind in EXACT:
        made = rng.integers(-4, 5, shape).astype(np.float64)
        if kind == "nonfinite" and name == "input" and made.size:
            places = rng.integers(0, made.size, 2)
            made.reshape(-1)[places] = rng.choice([np.nan, np.inf, -np.inf], 2)
        return made
    if kind == "positive":
        return rng.uniform(0.5, 1.5, shape)
    if kind == "constant":
        return np.ones(shape)
    if kind == "separable" and name.endswith("weight"):
        return _separable(rng, shape)
    made = rng.standard_normal(shape)
    if kind in ("tiny", "minute") and scaled:
        made *= _TINY.get(dtype, 1e-30)
    if kind == "minute" and name.endswith("weight"):
        made *= 1e-5
    if kind == "huge" and scaled:
        made *= _HUGE.get(dtype, 1e30)
    return made


def _separable(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return filters each of which is a number times one product of vectors, as a Gaussian is."""
    made: Any = rng.standard_normal(shape[:2])
    for size in shape[2:]:
        made = made[..., None] * rng.standard_normal(size)
    return made
