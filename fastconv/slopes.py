"""PReLU as an activation of a convolution: its slopes are data, and travel with the bias.

A call with ``activation=("prelu", slopes)`` is prepared and run as any other, with an array of two
rows in the place of the bias: what is added to each output channel, and what its negative sums are
multiplied by. Kernels find a channel's slope a fixed number of bytes behind its bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .array_libraries import view_array
from .arrays import Array, require_array
from .companions import check_companion, check_memory
from .contract.arguments import PRELU, Activation
from .contract.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from .device_arrays import DeviceArray

__all__ = ["join_slopes", "slopes_of", "split_slopes"]


def slopes_of(activation: Any) -> Array | None:
    """Return the slopes of PReLU, an array of one axis; None of any other activation."""
    if type(activation) is not tuple or not activation or activation is PRELU:
        return None
    if not isinstance(activation[0], str) or activation[0] != "prelu":
        return None
    if len(activation) != 2:
        raise ArgumentError(
            f"activation: got {len(activation)} values, want a pair of 'prelu' and an array of "
            "slopes"
        )
    slopes = require_array("activation", activation[1])
    check_memory("activation", slopes, "prelu")
    if slopes.ndim != 1:
        raise ShapeError(
            f"activation: got slopes of shape {slopes.shape}, want one for each output channel"
        )
    return slopes


def split_slopes(
    activation: Activation, channels: int, like: Array
) -> tuple[Activation, Array | None]:
    """Return an activation without its slopes, and them: of so many channels, of one type.

    `like` is the weight.
    """
    slopes = slopes_of(activation)
    if slopes is None:
        return activation, None
    check_companion("activation", slopes, (channels,), like, "weight")
    return PRELU, slopes


def join_slopes(
    bias: Array | None, activation: Activation, like: Any
) -> tuple[Array | None, Activation]:
    """Return what stands for a bias and an activation where a call is prepared and run.

    Of other activations than PReLU these are the arguments themselves. `like` is the input or the
    weight.
    """
    slopes = slopes_of(activation)
    if slopes is None:
        return bias, activation
    if isinstance(like, DeviceArray) or view_array("input", like) is not None:
        raise DeviceError("activation: got 'prelu' for arrays on a GPU, want them of NumPy")
    if bias is None:
        return np.stack([np.zeros_like(slopes), slopes]), PRELU
    bias = require_array("bias", bias)
    check_memory("bias", bias, "prelu")
    if bias.dtype != slopes.dtype:
        raise DTypeError(
            f"activation: got slopes of {slopes.dtype}, want {bias.dtype} as the bias has"
        )
    if bias.shape != slopes.shape:
        raise ShapeError(
            f"activation: got slopes of shape {slopes.shape} with a bias of shape {bias.shape}, "
            "want one for each output channel"
        )
    return np.stack([bias, slopes]), PRELU
