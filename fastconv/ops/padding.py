"""Arrays with a boundary around them, as a boundary mode makes it: what convolutions copy."""

from __future__ import annotations

from typing import Any

from ..arrays import Array, dtype_name, memory_layout
from ..contract.pad_problem import PadProblem
from ..dispatch import unforced
from .array_calls import ArrayOp, check_axes, compute

__all__ = ["PAD", "pad"]


def _problem(arrays: Any, arguments: Any) -> PadProblem:
    (x,), (padding, out_size, mode, value) = arrays, arguments
    check_axes("input", x, len(padding))
    return PadProblem(
        "pad", x.shape[0], x.shape[1], x.shape[2:], padding, out_size, mode, value,
        dtype_name("input", x.dtype, integers=True), memory_layout(x),
    )  # fmt: skip


PAD = ArrayOp("pad", ("input",), _problem, whole=True)


def pad(
    input: Array, padding: tuple[int, ...], out_size: tuple[int, ...], mode: str,
    value: float = 0.0, *, out: Array | None = None,
) -> Array:  # fmt: skip
    """Return a box of an array and of what a boundary mode puts around it.

    Parameters
    ----------
    input : ndarray, shape (N, C, *size)
        Of one to three axes and any strides; uint8, uint16 and int16, too.
    padding : tuple of int
        Positions before the first sample along each axis; negative where the box begins behind it.
    out_size : tuple of int
        Positions in all.
    mode : {"constant", "reflect", "symmetric", "replicate", "circular"}
        See `fastconv.contract.pad_problem`.
    value : float
        The constant, which integers must be able to hold.
    out : ndarray, optional
        Where to write.

    Returns
    -------
    ndarray, shape (N, C, *out_size)

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    >>> pad(x, (2,), (8,), "reflect")
    array([[[2., 1., 0., 1., 2., 3., 2., 1.]]], dtype=float32)
    >>> pad(x, (-2,), (4,), "circular")
    array([[[2., 3., 0., 1.]]], dtype=float32)
    """
    with unforced():
        made: Array = compute(PAD, (input,), (padding, out_size, mode, value), out)
    return made
