"""Samples brought back to the places of maxima, as ``torch.nn.functional`` does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, dtype_name, memory_layout
from ..contract.arguments import Sizes, per_axis, whole_number
from ..contract.errors import ArgumentError, ShapeError
from ..contract.unpool_problem import UnpoolProblem
from .array_calls import ArrayOp, check_axes, compute_batch

__all__ = ["check_indices", "max_unpool1d", "max_unpool2d", "max_unpool3d", "place_shape"]


def place_shape(name: str, x: Array, indices: Array) -> None:
    """Raise where indices have not the shape of what they belong to."""
    if indices.shape != x.shape:
        raise ShapeError(f"indices: got shape {indices.shape}, want {x.shape} as the {name} has")


def _check_places(indices: NDArray[np.int64], samples: int) -> None:
    """Raise where an array of indices holds one outside a channel of so many samples."""
    if indices.size == 0:
        return
    least, most = int(indices.min()), int(indices.max())
    if least < 0 or most >= samples:
        wrong = least if least < 0 else most
        raise ArgumentError(
            f"indices: got {wrong}, want whole numbers from 0 to {samples - 1}, places in a channel"
        )


def _unpooled_size(
    in_size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...],
    padding: tuple[int, ...], output_size: Any,
) -> tuple[int, ...]:  # fmt: skip
    """Return the sizes that a call asks for: the least that the pool may have come from."""
    ndim = len(in_size)
    if output_size is None:
        along = zip(in_size, stride, kernel, padding, strict=True)
        made = tuple((size - 1) * step + k - 2 * pad for size, step, k, pad in along)
        if min(made) < 1:
            raise ShapeError(f"kernel_size: got {kernel}, want windows from which {in_size} came")
        return made
    if not isinstance(output_size, (tuple, list)) or len(output_size) not in (ndim, ndim + 2):
        raise ShapeError(f"output_size: got {output_size!r}, want {ndim} whole numbers")
    sizes = tuple(whole_number("output_size", size) for size in output_size[-ndim:])
    if min(sizes) < 1:
        raise ShapeError(f"output_size: got {sizes}, want every size to be at least 1")
    return sizes


def _problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> UnpoolProblem:
    (x, indices), (ndim, kernel_size, stride, padding, output_size) = arrays, arguments
    check_axes("input", x, ndim)
    place_shape("input", x, indices)
    kernel = per_axis("kernel_size", kernel_size, ndim)
    steps = kernel if stride is None else per_axis("stride", stride, ndim)
    pads = per_axis("padding", padding, ndim)
    sizes = _unpooled_size(x.shape[2:], kernel, steps, pads, output_size)
    return UnpoolProblem(
        "max_unpool", x.shape[0], x.shape[1], x.shape[2:], kernel, steps, pads, sizes,
        dtype_name("input", x.dtype), memory_layout(x),
    )  # fmt: skip


def check_indices(problem: UnpoolProblem, given: tuple[Any, ...]) -> None:
    """Raise where a place lies outside its channel."""
    large = problem.x_shape if problem.op == "max_unpool_grad" else problem.out_shape
    _check_places(given[1], math.prod(large[2:]))


_MAX_UNPOOL = ArrayOp(
    "max_unpool", ("input", "indices"), _problem, ("indices",), check_indices,
    names=(("in_size", "input"), ("out_size", "output_size")),
)  # fmt: skip


def _unpool(ndim: int, arrays: tuple[Any, Any], arguments: tuple[Any, ...], out: Any) -> Array:
    names = ("input", "indices")
    made: Array = compute_batch(_MAX_UNPOOL, ndim, arrays, (ndim, *arguments), out, names)
    return made


def max_unpool1d(
    input: Array,
    indices: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return zeros with each sample at its place: `max_unpool2d` with one spatial axis."""
    return _unpool(1, (input, indices), (kernel_size, stride, padding, output_size), out)


def max_unpool2d(
    input: Array,
    indices: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return zeros with each sample at the place that it was the largest of.

    Of several samples with one place the last one counts, in the order of rows.

    Parameters
    ----------
    input : ndarray
        ``(N, C, H, W)``, or ``(C, H, W)``, of float32, float64, float16 or bfloat16.
    indices : ndarray
        Places in a channel of the output, of int64 and the input's shape, as `max_pool2d` returns.
    kernel_size, stride, padding : int or sequence of int
        Of the pool; a stride that is missing is the kernel's.
    output_size : sequence of int, optional
        Height and width: a pool brings several sizes to one. Else the least of them.
    out : ndarray, optional
        Where the output is written.

    Returns
    -------
    ndarray
        ``(N, C, H_out, W_out)``, of the input's type.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        For arguments that do not fit and for places outside a channel, before anything is written.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[[[1, 5, 2, 0], [3, 4, 9, 8]]]], np.float32)
    >>> fastconv.max_unpool2d(*fastconv.max_pool2d(x, 2, return_indices=True), 2)
    array([[[[0., 5., 0., 0.],
             [0., 0., 9., 0.]]]], dtype=float32)
    """
    return _unpool(2, (input, indices), (kernel_size, stride, padding, output_size), out)


def max_unpool3d(
    input: Array,
    indices: Array,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return zeros with each sample at its place: `max_unpool2d` with three spatial axes."""
    return _unpool(3, (input, indices), (kernel_size, stride, padding, output_size), out)
