"""Softmax and its logarithm along any axis, with the signatures of ``torch.nn.functional``."""

from __future__ import annotations

from typing import Any

from ..arrays import Array, dtype_name, memory_layout
from ..contract.softmax_problem import SoftmaxProblem
from .array_calls import ArrayOp
from .reshaped import compute_reshaped, split_at

__all__ = ["log_softmax", "softmax"]


def _problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> SoftmaxProblem:
    (x,), (op,) = arrays, arguments
    lone = x.ndim == 2
    return SoftmaxProblem(
        op, x.shape[0], x.shape[1], (1,) if lone else x.shape[2:],
        dtype=dtype_name("input", x.dtype), layout="channels_first" if lone else memory_layout(x),
    )  # fmt: skip


_OP = ArrayOp("softmax", ("input",), _problem)


def _compute(op: str, input: Array, dim: int, out: Array | None) -> Array:
    shape = split_at("input", input, dim)
    return compute_reshaped(_OP, (input,), (op,), out, shape)


def softmax(input: Array, dim: int, *, out: Array | None = None) -> Array:
    """Return ``exp(input)`` over its sum along an axis.

    The largest value is subtracted first, so nothing overflows.

    Parameters
    ----------
    input : ndarray
        Of any shape; float32, float64, float16 or bfloat16.
    dim : int
        The axis of the sum; counted from the end where it is negative.
    out : ndarray, optional
        Where the result is written; may share memory with `input`.

    Returns
    -------
    ndarray
        Of the input's shape and element type. A sum with NaN or infinity in it is NaN.

    Raises
    ------
    ShapeError
        Where there is no such axis, or `out` has another shape.
    DTypeError
        For other arrays than these.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.log(np.array([[1, 3], [1, 1]], np.float32))
    >>> fastconv.softmax(x, 1).round(4)
    array([[0.25, 0.75],
           [0.5 , 0.5 ]], dtype=float32)
    """
    return _compute("softmax", input, dim, out)


def log_softmax(input: Array, dim: int, *, out: Array | None = None) -> Array:
    """Return the logarithm of `softmax`, which is ``input - log(sum(exp(input)))``.

    Parameters, result and errors are those of `softmax`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.log_softmax(np.zeros((1, 2), np.float32), -1).round(4)
    array([[-0.6931, -0.6931]], dtype=float32)
    """
    return _compute("log_softmax", input, dim, out)
