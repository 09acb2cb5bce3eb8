"""Dense layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .conv import activate

__all__ = ["linear"]


def linear(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    activation: tuple[str, Any] | None = None,
) -> Any:
    """Multiply rows by a matrix.

    Examples
    --------
    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])).tolist()
    [[11.0]]
    """
    sums = np.asarray(x).astype(np.float64) @ np.asarray(weight).astype(np.float64).T
    if bias is not None:
        sums = sums + np.asarray(bias).astype(np.float64)
    if activation is None:
        return sums
    name, alpha = activation
    return activate(sums, name, np.asarray(alpha).astype(np.float64) if name == "prelu" else alpha)
