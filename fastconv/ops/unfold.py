"""Windows as columns and back, with the signatures of ``torch.nn.functional``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..arrays import Array, dtype_name, memory_layout, plain, require_array
from ..contract.arguments import Sizes, per_axis
from ..contract.errors import ShapeError
from ..contract.unfold_problem import UnfoldProblem
from .array_calls import ArrayOp, check_axes, compute

__all__ = ["fold", "unfold"]


def _axes_of(name: str, sizes: Any, otherwise: int) -> int:
    """Return how many spatial axes an argument tells of, as many as it has numbers."""
    if not isinstance(sizes, (tuple, list)):
        return otherwise
    if not 1 <= len(sizes) <= 3:
        raise ShapeError(f"{name}: got {len(sizes)} values {sizes!r}, want 1, 2 or 3")
    return len(sizes)


def _window(ndim: int, window: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return kernel size, stride, padding and dilation by axis, from what a caller gives."""
    kernel_size, dilation, padding, stride = window
    given = {
        "kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation,
    }  # fmt: skip
    return [per_axis(name, value, ndim) for name, value in given.items()]


def _unfold_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> UnfoldProblem:
    (x,), (ndim, *window) = arrays, arguments
    check_axes("input", x, ndim)
    kernel, stride, padding, dilation = _window(ndim, window)
    return UnfoldProblem(
        "unfold", x.shape[0], x.shape[1], x.shape[2:], kernel, stride, padding, dilation,
        dtype=dtype_name("input", x.dtype), layout=memory_layout(x),
    )  # fmt: skip


def _fold_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> UnfoldProblem:
    (x,), (ndim, size, *given) = arrays, arguments
    if x.ndim != 3:
        raise ShapeError(
            f"input: got {x.ndim} axes {x.shape}, want 3 (batch, channels times taps, windows) or "
            "2 without the batch"
        )
    sizes = per_axis("output_size", size, ndim)
    kernel, stride, padding, dilation = _window(ndim, given)
    if min(sizes) < 1:
        raise ShapeError(f"output_size: got {sizes}, want every value to be at least 1")
    taps = math.prod(kernel)
    if taps > 0 and x.shape[1] % taps:
        raise ShapeError(
            f"input: got {x.shape[1]} rows (axis 1 of {x.shape}) with a window of {taps} taps, "
            f"want a multiple of {taps}"
        )
    made = UnfoldProblem(
        "fold", x.shape[0], x.shape[1] // max(1, taps), sizes, kernel, stride, padding,
        dilation=dilation, dtype=dtype_name("input", x.dtype), layout=memory_layout(x),
    )  # fmt: skip
    if x.shape[2] != made.columns_shape[2]:
        raise ShapeError(
            f"input: got {x.shape[2]} windows (axis 2 of {x.shape}), want "
            f"{made.columns_shape[2]}, {made.windows} in an output of {sizes}"
        )
    return made


_UNFOLD = ArrayOp("unfold", ("input",), _unfold_problem)
_FOLD = ArrayOp("fold", ("input",), _fold_problem, names=(("in_size", "output_size"),))


def _compute(
    op: ArrayOp, axes: int, x: Array, arguments: tuple[Any, ...], out: Array | None
) -> Any:
    """Compute a call whose input has so many axes where it has no batch."""
    if getattr(x, "ndim", 0) == axes:
        target = None if out is None else plain(require_array("out", out))[None]
        x = plain(require_array("input", x))[None]
        made = compute(op, (x,), arguments, target)
        return made[0] if out is None else out
    return compute(op, (x,), arguments, out)


def unfold(
    input: Array,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Return the windows of images as columns (im2col).

    Parameters
    ----------
    input : ndarray, shape (N, C, *spatial) or (C, *spatial)
        Of any strides. float32, float64, float16 or bfloat16.
    kernel_size : int or tuple of int
        Samples of a window along each axis. A tuple tells how many spatial axes there are, one to
        three; with one number there are two, of an input of five axes three.
    dilation, padding, stride : int or tuple of int
        Step between the samples of a window, zeros on both sides, step between windows.
    out : ndarray, shape of the output, optional
        Where to write; of the input's dtype and any strides.

    Returns
    -------
    ndarray, shape (N, C * taps, L) or (C * taps, L)
        Row ``c * taps + t`` of column ``l`` is what tap ``t`` of window ``l`` meets in channel
        ``c``; taps and windows are numbered row by row. Of a channels-last input the columns are
        contiguous, else the rows; `out` where it was given.

    Raises
    ------
    ShapeError
        For sizes that do not fit.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    >>> fastconv.unfold(x, 2)
    array([[[0., 1., 3., 4.],
            [1., 2., 4., 5.],
            [3., 4., 6., 7.],
            [4., 5., 7., 8.]]], dtype=float32)
    """
    ndim = _axes_of("kernel_size", kernel_size, 3 if getattr(input, "ndim", 0) == 5 else 2)
    arguments = (ndim, kernel_size, dilation, padding, stride)
    made: Array = _compute(_UNFOLD, ndim + 1, input, arguments, out)
    return made


def fold(
    input: Array,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Return images whose windows are added up from columns (col2im).

    Parameters
    ----------
    input : ndarray, shape (N, C * taps, L) or (C * taps, L)
        Columns as `unfold` returns them, of any strides. float32, float64, float16 or bfloat16.
    output_size : int or tuple of int
        Size of the images. A tuple tells how many spatial axes there are, one to three; with one
        number there are two.
    kernel_size, dilation, padding, stride : int or tuple of int
        As for `unfold`.
    out : ndarray, shape of the output, optional
        Where to write; of the input's dtype and any strides.

    Returns
    -------
    ndarray, shape (N, C, *output_size) or (C, *output_size)
        Zero where no window is. The halves are summed in float32 and rounded once; `out` where it
        was given.

    Raises
    ------
    ShapeError
        For sizes that do not fit.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Notes
    -----
    Each output is summed up by itself, tap by tap, so results are the same bits for any number of
    threads.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.fold(np.ones((1, 4, 4), np.float32), 3, 2)
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]], dtype=float32)
    """
    ndim = _axes_of("output_size", output_size, 2)
    arguments = (ndim, output_size, kernel_size, dilation, padding, stride)
    made: Array = _compute(_FOLD, 2, input, arguments, out)
    return made
