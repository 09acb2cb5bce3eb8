"""Resizing of arrays, with the signature of ``torch.nn.functional.interpolate``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, dtype_name, memory_layout
from ..contract.arguments import Sizes, flag, whole_number
from ..contract.errors import ArgumentError, ShapeError
from ..contract.resize_problem import MODES, NEAREST_MODES, ResizeProblem, scaled_size
from .array_calls import ArrayOp, check_axes, compute_batch

__all__ = ["interpolate", "resize_axes", "resize_settings"]


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, (tuple, list)) else None


def resize_axes(ndim: int, size: Any, scale_factor: Any, mode: Any) -> int:
    """Return the spatial axes that are resized, of an array of `ndim` axes.

    The mode tells them, else the length of `size` or `scale_factor`; else all axes behind the
    first two are spatial, as in PyTorch.
    """
    _check_mode(mode)
    told = MODES[mode] or _length(size) or _length(scale_factor)
    axes = ndim - 2 if told is None else told
    if not 1 <= axes <= 3:
        raise ShapeError(
            f"input: got {axes + 2} axes, want 3, 4 or 5 (batch, channels and 1 to 3 spatial "
            "axes), or size or scale_factor with a number for each spatial axis"
        )
    return axes


def _check_mode(mode: Any) -> None:
    if isinstance(mode, str) and mode == "area":
        raise ArgumentError(
            "mode: got 'area', want adaptive average pooling to the same size, which it is"
        )
    if not isinstance(mode, str) or mode not in MODES:
        raise ArgumentError(f"mode: got {mode!r}, want one of {', '.join(MODES)}")


def _per_axis(name: str, value: Any, ndim: int) -> tuple[Any, ...]:
    if _length(value) not in (None, ndim):
        raise ShapeError(f"{name}: got {len(value)} values {value!r}, want {ndim}")
    return (value,) * ndim if _length(value) is None else tuple(value)


def _factor(value: Any) -> float:
    """Return a scale factor as Python's number."""
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if 0 < number < math.inf:
            return number
    raise ShapeError(f"scale_factor: got {value!r}, want positive numbers")


def resize_settings(
    in_size: tuple[int, ...], size: Any, scale_factor: Any, mode: str, align_corners: Any,
    recompute_scale_factor: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return the fields of a problem that a call's arguments decide, these checked."""
    ndim = len(in_size)
    aligned = align_corners is not None and flag("align_corners", align_corners)
    if align_corners is not None and mode in NEAREST_MODES:
        raise ArgumentError(
            f"align_corners: got {align_corners!r} with mode={mode!r}, want None: it is for modes "
            "that interpolate"
        )
    anew = recompute_scale_factor is not None and flag(
        "recompute_scale_factor", recompute_scale_factor
    )
    if (size is None) == (scale_factor is None):
        got = "neither size nor" if size is None else "both size and"
        raise ArgumentError(f"size: got {got} scale_factor, want one of them")
    made = {"mode": mode, "align_corners": aligned}
    if size is not None:
        if anew:
            raise ArgumentError(
                "recompute_scale_factor: got True with size, want scale_factor with it"
            )
        sizes = tuple(whole_number("size", each) for each in _per_axis("size", size, ndim))
        if min(sizes) < 1:
            raise ShapeError(f"size: got {size!r}, want every size to be at least 1")
        return made | {"out_size": sizes}
    factors = tuple(map(_factor, _per_axis("scale_factor", scale_factor, ndim)))
    if not anew:
        return made | {"scale": factors}
    sizes = tuple(scaled_size(n, factor) for n, factor in zip(in_size, factors, strict=True))
    if min(sizes) < 1:
        raise ShapeError(
            f"scale_factor: got {scale_factor!r} for sizes {in_size}, want an output of at least 1 "
            "along each axis"
        )
    return made | {"out_size": sizes}


def _problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> ResizeProblem:
    (x,), (ndim, *others) = arrays, arguments
    check_axes("input", x, ndim)
    settings = resize_settings(x.shape[2:], *others)
    return ResizeProblem(
        "interpolate", x.shape[0], x.shape[1], x.shape[2:], **settings,
        dtype=dtype_name("input", x.dtype), layout=memory_layout(x),
    )  # fmt: skip


_INTERPOLATE = ArrayOp(
    "interpolate", ("input",), _problem, names=(("in_size", "input"), ("out_size", "size"))
)


def interpolate(
    input: Array,
    size: Sizes | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Return an array whose spatial axes are resized.

    Parameters
    ----------
    input : ndarray
        Of shape ``(N, C, *spatial)``, 1 to 3 spatial axes, of float32, float64, float16 or
        bfloat16. The batch axis may be missing where `mode`, or as many numbers in `size` or
        `scale_factor`, say how many axes are spatial.
    size : int or tuple of int, optional
        Of the output, one number for all axes or one each.
    scale_factor : float or tuple of float, optional
        In place of `size`: an output has ``floor(size * scale_factor)`` samples.
    mode : {"nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic"}
        How an output is made: of the sample at its place, of that whose centre is nearest, of the
        two about it along each of 1, 2 or 3 axes, or of four along each of 2 axes.
    align_corners : bool, optional
        Whether the centres of the first and last samples stay where they are; else the outer edges
        do. For the modes that interpolate.
    recompute_scale_factor : bool, optional
        Whether places are computed from the sizes; else, where `scale_factor` is given, from it.
    out : ndarray, optional
        Where the output is written; it may share memory with the input.

    Returns
    -------
    ndarray
        Of shape ``(N, C, *size)``, in the memory order of the input.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ArgumentError
        Where an argument does not fit; it says which, and what is wanted.

    Notes
    -----
    Results are PyTorch's, with these differences. Places are computed in float64 (float32 in the
    nearest modes), whatever the element type. An axis whose size does not change is left as it is
    by the linear modes, infinities too; PyTorch multiplies a neighbour by zero. With a factor that
    is not the sizes' ratio PyTorch's kernels differ among themselves for ``"nearest"``: this is
    what its general one does. There is no ``"area"`` (which is adaptive average pooling) and no
    ``antialias``.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[[0.0, 2.0, 4.0]]], np.float32)
    >>> fastconv.interpolate(x, scale_factor=2)
    array([[[0., 0., 2., 2., 4., 4.]]], dtype=float32)
    >>> fastconv.interpolate(x, 5, mode="linear", align_corners=True)
    array([[[0., 1., 2., 3., 4.]]], dtype=float32)
    """
    ndim = resize_axes(getattr(input, "ndim", 4), size, scale_factor, mode)
    arguments = (ndim, size, scale_factor, mode, align_corners, recompute_scale_factor)
    return compute_batch(_INTERPOLATE, ndim, (input,), arguments, out)
