"""Pools into a given number of windows, with the signatures of ``torch.nn.functional``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arrays import Array, dtype_name, memory_layout
from ..contract.adaptive_pool_problem import AdaptivePoolProblem
from ..contract.arguments import flag, per_axis
from ..contract.errors import ShapeError
from .array_calls import ArrayOp, check_axes, compute_batch

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
]

OutputSize = int | Sequence[int | None] | None


def _output_size(value: Any, in_size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the outputs along each axis; None stands for as many as there are samples."""
    if value is None:
        return in_size
    if isinstance(value, (tuple, list)) and len(value) == len(in_size):
        value = [size if wanted is None else wanted for wanted, size in
                 zip(value, in_size, strict=True)]  # fmt: skip
    return per_axis("output_size", value, len(in_size))


def _make_problem(op: str, x: Array, arguments: tuple[Any, ...]) -> AdaptivePoolProblem:
    ndim, output_size, return_indices = arguments
    check_axes("input", x, ndim)
    in_size = x.shape[2:]
    return AdaptivePoolProblem(
        op, x.shape[0], x.shape[1], in_size, _checked(_output_size(output_size, in_size)),
        flag("return_indices", return_indices), dtype_name("input", x.dtype), memory_layout(x),
    )  # fmt: skip


def _checked(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return output sizes of which each is at least 1, else raise."""
    if min(sizes) < 1:
        raise ShapeError(f"output_size: got {sizes}, want every size to be at least 1")
    return sizes


def _max_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> AdaptivePoolProblem:
    return _make_problem("adaptive_max_pool", arrays[0], arguments)


def _avg_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> AdaptivePoolProblem:
    return _make_problem("adaptive_avg_pool", arrays[0], (*arguments, False))


_NAMES = (("in_size", "input"), ("out_size", "output_size"))
_MAX = ArrayOp("adaptive_max_pool", ("input",), _max_problem, names=_NAMES)
_AVG = ArrayOp("adaptive_avg_pool", ("input",), _avg_problem, names=_NAMES)


def adaptive_max_pool1d(
    input: Array,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Return the largest sample of each window: `adaptive_max_pool2d` with one spatial axis."""
    return compute_batch(_MAX, 1, (input,), (1, output_size, return_indices), out)


def adaptive_max_pool2d(
    input: Array,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Return the largest sample of each of so many windows, which lie side by side.

    Output ``o`` of ``O`` sees the samples from ``o * I // O`` to before ``ceil((o + 1) * I / O)``.

    Parameters
    ----------
    input : ndarray
        ``(N, C, H, W)``, or ``(C, H, W)``, of float32, float64, float16 or bfloat16.
    output_size : int, sequence of (int or None), or None
        Windows along each axis; None stands for as many as the input has samples. 1 is a global
        pool.
    return_indices : bool
        Whether the place of each maximum is returned, too, as by `max_pool2d`.
    out : ndarray, optional
        Where the outputs are written.

    Returns
    -------
    ndarray, or tuple of ndarray
        ``(N, C, H_out, W_out)``, and places of int64 where they are wanted.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        For arguments that do not fit, before anything is written.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    >>> fastconv.adaptive_max_pool2d(x, (1, 2), return_indices=True)
    (array([[[ 9., 11.]]], dtype=float32), array([[[ 9, 11]]]))
    """
    return compute_batch(_MAX, 2, (input,), (2, output_size, return_indices), out)


def adaptive_max_pool3d(
    input: Array,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Return the largest sample of each window: `adaptive_max_pool2d` with three spatial axes."""
    return compute_batch(_MAX, 3, (input,), (3, output_size, return_indices), out)


def adaptive_avg_pool1d(
    input: Array, output_size: OutputSize, *, out: Array | None = None
) -> Array:
    """Return the mean of each window: `adaptive_avg_pool2d` with one spatial axis."""
    return compute_batch(_AVG, 1, (input,), (1, output_size), out)


def adaptive_avg_pool2d(
    input: Array, output_size: OutputSize, *, out: Array | None = None
) -> Array:
    """Return the mean of each of so many windows, which lie side by side.

    Output ``o`` of ``O`` sees the samples from ``o * I // O`` to before ``ceil((o + 1) * I / O)``.

    Parameters
    ----------
    input : ndarray
        ``(N, C, H, W)``, or ``(C, H, W)``, of float32, float64, float16 or bfloat16.
    output_size : int, sequence of (int or None), or None
        Windows along each axis; None stands for as many as the input has samples. 1 is a global
        pool.
    out : ndarray, optional
        Where the outputs are written.

    Returns
    -------
    ndarray
        ``(N, C, H_out, W_out)``, of the input's type.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        For arguments that do not fit, before anything is written.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    >>> fastconv.adaptive_avg_pool2d(x, (None, 2))
    array([[[ 0.5,  2.5],
            [ 4.5,  6.5],
            [ 8.5, 10.5]]], dtype=float32)
    """
    return compute_batch(_AVG, 2, (input,), (2, output_size), out)


def adaptive_avg_pool3d(
    input: Array, output_size: OutputSize, *, out: Array | None = None
) -> Array:
    """Return the mean of each window: `adaptive_avg_pool2d` with three spatial axes."""
    return compute_batch(_AVG, 3, (input,), (3, output_size), out)
