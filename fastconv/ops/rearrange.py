"""Rearrangements of arrays, with the signatures of ``torch.nn.functional``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array, check_writable, dtype_name, memory_layout, plain, require_array
from ..contract.arguments import whole_number
from ..contract.errors import ShapeError
from ..contract.interleave_problem import InterleaveProblem
from ..contract.rearrange_problem import RearrangeProblem
from ..dispatch import unforced
from .array_calls import ArrayOp, check_axes, compute, compute_batch

__all__ = ["channel_shuffle", "interleave", "pixel_shuffle", "pixel_unshuffle"]


def _pixel_problem(op: str, name: str, arrays: Any, arguments: Any) -> RearrangeProblem:
    (x,), (factor,) = arrays, arguments
    check_axes("input", x, 2)
    return RearrangeProblem(
        op, x.shape[0], x.shape[1], x.shape[2:], factor=whole_number(name, factor),
        dtype=dtype_name("input", x.dtype), layout=memory_layout(x),
    )  # fmt: skip


def _shuffle_problem(arrays: Any, arguments: Any) -> RearrangeProblem:
    return _pixel_problem("pixel_shuffle", "upscale_factor", arrays, arguments)


def _unshuffle_problem(arrays: Any, arguments: Any) -> RearrangeProblem:
    return _pixel_problem("pixel_unshuffle", "downscale_factor", arrays, arguments)


def _channel_problem(arrays: Any, arguments: Any) -> RearrangeProblem:
    (x,), (groups,) = arrays, arguments
    if not 3 <= x.ndim <= 5:
        raise ShapeError(
            f"input: got {x.ndim} axes {x.shape}, want 3 to 5 (batch, channels and one to three "
            "spatial axes)"
        )
    return RearrangeProblem(
        "channel_shuffle", x.shape[0], x.shape[1], x.shape[2:],
        groups=whole_number("groups", groups), dtype=dtype_name("input", x.dtype),
        layout=memory_layout(x),
    )  # fmt: skip


_PIXEL_SHUFFLE = ArrayOp("pixel_shuffle", ("input",), _shuffle_problem)
_PIXEL_UNSHUFFLE = ArrayOp("pixel_unshuffle", ("input",), _unshuffle_problem)


def _interleave_problem(arrays: Any, arguments: Any) -> InterleaveProblem:
    (x,), (stride,) = arrays, arguments
    check_axes("input", x, len(stride))
    return InterleaveProblem(
        "interleave", x.shape[0], x.shape[1], x.shape[2:], stride,
        dtype=dtype_name("input", x.dtype), layout=memory_layout(x),
    )  # fmt: skip


_INTERLEAVE = ArrayOp("interleave", ("input",), _interleave_problem)
_CHANNEL_SHUFFLE = ArrayOp("channel_shuffle", ("input",), _channel_problem)


def _move_pixels(op: ArrayOp, x: Array, factor: int, out: Array | None) -> Array:
    """Compute a call whose input may have any axes in front of the channels."""
    if getattr(x, "ndim", 0) <= 4:
        return compute_batch(op, 2, (x,), (factor,), out)
    x = require_array("input", x)
    leading, target = x.shape[:-3], None
    images = x.reshape(math.prod(leading), *x.shape[-3:])
    if out is not None:
        written = require_array("out", out)
        if written.shape[:-3] != leading or written.ndim != x.ndim:
            raise ShapeError(
                f"out: got shape {written.shape}, want {leading} in front of channels, height and "
                "width as the input has"
            )
        check_writable("out", written)
        target = written.reshape(math.prod(leading), *written.shape[-3:])
    made = compute(op, (images,), (factor,), target)
    if out is None:
        return made.reshape(*leading, *made.shape[1:])
    if not np.may_share_memory(target, written):  # its leading axes are not one in memory
        plain(out)[...] = made.reshape(written.shape)
    return out


def pixel_shuffle(input: Array, upscale_factor: int, *, out: Array | None = None) -> Array:
    """Spread channels over pixels: ``r * r`` channels become a square of ``r`` by ``r`` pixels.

    Parameters
    ----------
    input : ndarray, shape (..., C * r * r, H, W)
        Images, of any strides and any axes in front. float32, float64, float16 or bfloat16.
    upscale_factor : int
        ``r``.
    out : ndarray, shape of the output, optional
        Where to write; of the input's dtype and any strides.

    Returns
    -------
    ndarray, shape (..., C, H * r, W * r)
        In the input's memory order; `out` where it was given.

    Raises
    ------
    ShapeError
        Where the channels are no multiple of ``r * r``.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(8, dtype=np.float32).reshape(1, 4, 1, 2)
    >>> fastconv.pixel_shuffle(x, 2)
    array([[[[0., 2., 1., 3.],
             [4., 6., 5., 7.]]]], dtype=float32)
    """
    return _move_pixels(_PIXEL_SHUFFLE, input, upscale_factor, out)


def pixel_unshuffle(input: Array, downscale_factor: int, *, out: Array | None = None) -> Array:
    """Put the pixels of each square of ``r`` by ``r`` into channels: `pixel_shuffle` undone.

    Parameters
    ----------
    input : ndarray, shape (..., C, H * r, W * r)
        Images, of any strides and any axes in front. float32, float64, float16 or bfloat16.
    downscale_factor : int
        ``r``.
    out : ndarray, shape of the output, optional
        Where to write; of the input's dtype and any strides.

    Returns
    -------
    ndarray, shape (..., C * r * r, H, W)
        In the input's memory order; `out` where it was given.

    Raises
    ------
    ShapeError
        Where height or width are no multiples of ``r``.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4)
    >>> fastconv.pixel_unshuffle(x, 2).shape
    (1, 4, 1, 2)
    """
    return _move_pixels(_PIXEL_UNSHUFFLE, input, downscale_factor, out)


def channel_shuffle(input: Array, groups: int, *, out: Array | None = None) -> Array:
    """Take channels by turns from each group, as between two grouped convolutions.

    Parameters
    ----------
    input : ndarray, shape (N, C, *spatial)
        Of one to three spatial axes and any strides. float32, float64, float16 or bfloat16.
    groups : int
        Of ``C / groups`` channels each.
    out : ndarray, shape of the input, optional
        Where to write; of the input's dtype and any strides.

    Returns
    -------
    ndarray, shape (N, C, *spatial)
        In the input's memory order; `out` where it was given.

    Raises
    ------
    ShapeError
        Where the channels are no multiple of the groups.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(6, dtype=np.float32).reshape(1, 6, 1)
    >>> fastconv.channel_shuffle(x, 2).ravel()
    array([0., 3., 1., 4., 2., 5.], dtype=float32)
    """
    made: Array = compute(_CHANNEL_SHUFFLE, (input,), (groups,), out)
    return made


def interleave(input: Array, stride: tuple[int, ...], *, out: Array | None = None) -> Array:
    """Put maps between each other by turns, as the phases of a transposed convolution lie.

    Parameters
    ----------
    input : ndarray, shape (N, C * prod(stride), *size)
        Maps of one to three axes; those of one output channel are neighbours, row by row.
    stride : tuple of int
        Outputs along each axis from one sample of a map to the next.
    out : ndarray, optional
        Where to write.

    Returns
    -------
    ndarray, shape (N, C, *(size * stride))

    Examples
    --------
    >>> import numpy as np
    >>> interleave(np.arange(6, dtype=np.float32).reshape(1, 2, 3), (2,))
    array([[[0., 3., 1., 4., 2., 5.]]], dtype=float32)
    """
    with unforced():
        made: Array = compute(_INTERLEAVE, (input,), (stride,), out)
    return made
