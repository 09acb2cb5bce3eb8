"""Softmax and its logarithm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["log_softmax", "softmax"]


def softmax(x: ArrayLike, *, dim: int) -> Any:
    """Return e**x over its sum along an axis.

    Examples
    --------
    >>> softmax(np.log([1.0, 3.0]), dim=0).tolist()
    [0.25, 0.75]
    """
    x = np.asarray(x).astype(np.float64)
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(axis=dim, keepdims=True))
        return e / e.sum(axis=dim, keepdims=True, dtype=np.longdouble).astype(np.float64)


def log_softmax(x: ArrayLike, *, dim: int) -> Any:
    """Return the logarithm of a softmax along an axis."""
    x = np.asarray(x).astype(np.float64)
    with np.errstate(invalid="ignore"):
        less = x - x.max(axis=dim, keepdims=True)
        return less - np.log(np.exp(less).sum(axis=dim, keepdims=True))
