"""What an activation of a case stands for in a call, and in the reference.

A case tells no arrays: "prelu" has fixed slopes, which keep whole numbers exact and differ from
channel to channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SLOPES", "as_argument", "as_parameter"]

#: Slopes of neighbouring channels, again and again.
SLOPES = (0.25, -1.0, 0.5, 2.0, 0.0)


def as_argument(activation: Any, filters: int, groups: Any, arrays: Mapping[str, Any]) -> Any:
    """Return an activation as a call takes it; its slopes have the type of the call's arrays.

    There is one for each output channel, `filters` of a group, where `groups` is a number of them.
    """
    if isinstance(activation, list):
        return tuple(activation)
    if not isinstance(activation, str) or activation != "prelu":
        return activation
    number = groups if type(groups) is int and 0 < groups < 1 << 16 else 1
    dtype = next((a.dtype for a in arrays.values() if isinstance(a, np.ndarray)), np.float32)
    return activation, np.resize(SLOPES, filters * number).astype(dtype)


def as_parameter(activation: Any, sums: NDArray[np.float64], axis: int) -> tuple[str | None, Any]:
    """Return an activation's name and parameter for sums whose channels lie along an axis."""
    name, alpha = activation if isinstance(activation, (list, tuple)) else (activation, None)
    if name == "prelu":
        channels = sums.shape[axis]
        alpha = np.resize(SLOPES, channels).reshape(channels, *(1,) * (-1 - axis))
    return name, alpha
