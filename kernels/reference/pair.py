"""Two convolutions in a row, the second of what the first one makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from .conv import Array, conv


def conv_pair(
    x: ArrayLike,
    first_weight: ArrayLike,
    second_weight: ArrayLike,
    first_bias: ArrayLike | None = None,
    second_bias: ArrayLike | None = None,
    *,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
) -> Array:
    """Two convolutions in a row: a depthwise one and its 1x1, a column and a row.

    Parameters
    ----------
    x : array of shape (batch, in_channels, *in_size)
    first_weight, second_weight : array of shape (out_channels, in_channels / groups, *kernel_size)
    first_bias, second_bias : array of shape (out_channels,), optional
    first, second : mapping
        What else `conv` is given for each: stride, padding, dilation, groups, activation, alpha,
        and for the second a residual.

    Returns
    -------
    float64 array of shape (batch, out_channels, *out_size)

    Examples
    --------
    >>> import numpy as np
    >>> plain = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    >>> x, column = np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 3, 1))
    >>> conv_pair(x, column, column.reshape(1, 1, 1, 3), first=plain, second=plain).tolist()
    [[[[36.0]]]]
    """
    return conv(conv(x, first_weight, first_bias, **first), second_weight, second_bias, **second)
