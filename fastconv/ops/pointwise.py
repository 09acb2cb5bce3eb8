"""PReLU and local response norm, with the signatures of ``torch.nn.functional``."""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, dtype_name, memory_layout, require_array
from ..contract.arguments import real_number, whole_number
from ..contract.errors import DTypeError, ShapeError
from ..contract.pointwise_problem import LocalResponseProblem, PReluProblem
from .array_calls import ArrayOp
from .reshaped import channels_shape, compute_reshaped

__all__ = ["local_response_norm", "prelu"]


def _prelu_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> PReluProblem:
    (x, weight), _ = arrays, arguments
    lone = x.ndim == 2
    return PReluProblem(
        "prelu", x.shape[0], x.shape[1], (1,) if lone else x.shape[2:], weight.shape == (1,),
        dtype=dtype_name("input", x.dtype), layout="channels_first" if lone else memory_layout(x),
    )  # fmt: skip


_PRELU = ArrayOp("prelu", ("input", "weight"), _prelu_problem)


def _response_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> LocalResponseProblem:
    (x,), (size, alpha, beta, k) = arrays, arguments
    return LocalResponseProblem(
        "local_response_norm", x.shape[0], x.shape[1], x.shape[2:], size, alpha, beta, k,
        dtype=dtype_name("input", x.dtype), layout=memory_layout(x),
    )  # fmt: skip


_RESPONSE = ArrayOp("local_response_norm", ("input",), _response_problem)


def prelu(input: Array, weight: Array, *, out: Array | None = None) -> Array:
    """Return what is positive as it is, and anything else times a slope.

    Parameters
    ----------
    input : ndarray
        ``(N, C, *spatial)``, or of any shape with one slope; float32, float64, float16 or bfloat16.
    weight : ndarray
        Slopes, ``(C,)`` or ``(1,)``, of the input's element type.
    out : ndarray, optional
        Where the result is written; may share memory with `input`.

    Returns
    -------
    ndarray
        Of the input's shape, element type and memory order.

    Raises
    ------
    ShapeError, DTypeError
        For other arrays than these.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[-4.0, -4.0, 2.0]], np.float32)
    >>> fastconv.prelu(x, np.array([0.5, 0.25, 0.5], np.float32))
    array([[-2., -1.,  2.]], dtype=float32)
    """
    x, slopes = require_array("input", input), require_array("weight", weight)
    channels = x.shape[1] if x.ndim > 1 else 1
    if slopes.shape not in ((1,), (channels,)):
        raise ShapeError(
            f"weight: got shape {slopes.shape}, want (1,) or {(channels,)}: one slope, or one a "
            "channel"
        )
    if slopes.dtype != x.dtype:
        raise DTypeError(f"weight: got {slopes.dtype}, want {x.dtype} as the input has")
    row = (1, 1, x.size) if x.size > 1 else (x.size, 1)
    shape = channels_shape(x) if x.ndim > 1 else row
    made: Array = compute_reshaped(_PRELU, (x, slopes), (), out, shape)
    return made


def local_response_norm(
    input: Array,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    out: Array | None = None,
) -> Array:
    """Return elements over a power of the mean square of their neighbours in other channels.

    Parameters
    ----------
    input : ndarray
        ``(N, C, *spatial)``; float32, float64, float16 or bfloat16.
    size : int
        Channels that are averaged: ``size // 2`` before an element's own, and its own.
    alpha, beta, k : float
        The divisor is ``(k + alpha * mean) ** beta``.
    out : ndarray, optional
        Where the result is written; may share memory with `input`.

    Returns
    -------
    ndarray
        Of the input's shape, element type and memory order.

    Raises
    ------
    ShapeError, DTypeError
        For other arrays than these.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[[1.0], [2.0]]], np.float32)
    >>> fastconv.local_response_norm(x, 1, alpha=1.0, beta=1.0).round(4)
    array([[[0.5],
            [0.4]]], dtype=float32)
    """
    x = require_array("input", input)
    if x.ndim < 3:
        raise ShapeError(
            f"input: got {x.ndim} axes {x.shape}, want a batch, channels and one other or more"
        )
    window = whole_number("size", size)
    reals = (real_number("alpha", alpha), real_number("beta", beta), real_number("k", k))
    pixels = math.prod(x.shape[2:])
    shape = (*x.shape[:2], pixels) if x.ndim > 5 else x.shape
    if pixels == 0:
        shape = 0, x.shape[1], 1
    made: Array = compute_reshaped(_RESPONSE, (x,), (window, *reals), out, shape)
    return made
