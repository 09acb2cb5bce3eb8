"""Pools with a boundary mode: windows over a copy of the input with its boundary around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, empty_output, memory_layout, plain, require_array
from ..companions import check_memory
from ..contract.arguments import flag, per_axis
from ..contract.boundary_problem import canonical_mode, check_pads
from ..contract.errors import ArgumentError, ShapeError
from ..contract.pad_problem import source_indices
from ..dispatch import unforced
from .array_calls import ArrayOp, check_axes, compute, compute_batch
from .padding import PAD
from .telling import Told, asked

__all__ = ["compute_pool"]

#: Where the arguments of a pool have the padding.
_PADDING = 3


def compute_pool(
    op: ArrayOp, ndim: int, input: Array, arguments: tuple[Any, ...], padding_mode: Any,
    out: Array | None,
) -> Any:  # fmt: skip
    """Compute a pool, whose batch axis may be missing.

    Parameters
    ----------
    op : ArrayOp
        A maximum or a mean.
    ndim : int
        Spatial axes.
    input, out : ndarray
        As for `max_pool2d`.
    arguments : tuple
        What stands beside them, the padding in its place.
    padding_mode : str or ("constant", float)
        As the caller gave it.
    """
    if type(padding_mode) is str and padding_mode == "zeros":
        return compute_batch(op, ndim, (input,), arguments, out)
    if getattr(input, "ndim", 0) != ndim + 1:
        return _compute(op, ndim, input, arguments, padding_mode, out)
    target = None if out is None else plain(require_array("out", out))[None]
    image = plain(require_array("input", input))[None]
    made = _compute(op, ndim, image, arguments, padding_mode, target)
    if isinstance(made, tuple):
        return (made[0][0] if out is None else out, made[1][0])
    return made[0] if out is None else out


def _compute(
    op: ArrayOp, ndim: int, x: Any, arguments: tuple[Any, ...], padding_mode: Any, out: Any
) -> Any:
    mode, value = canonical_mode(padding_mode)
    x = require_array("input", x)
    check_memory("input", x, op.name)
    check_axes("input", x, ndim)
    pads = per_axis("padding", arguments[_PADDING], ndim)
    _check(op, x, pads, arguments, mode, padding_mode)
    size = tuple(n + 2 * pad for n, pad in zip(x.shape[2:], pads, strict=True))
    padded = empty_output(x, (*x.shape[:2], *size), memory_layout(x))
    unpadded = (*arguments[:_PADDING], 0, *arguments[_PADDING + 1 :])
    copied = (x,), (pads, size, mode, value)
    if asked():
        try:
            return compute(op, (padded,), unpadded, out)
        except Told as told:
            told.copy = PAD.problem(*copied)
            raise
    op.problem((padded,), unpadded)  # which raises before anything is copied
    with unforced():
        compute(PAD, *copied, padded)
    made = compute(op, (padded,), unpadded, out)
    if isinstance(made, tuple):
        _tell_sources(made[1], mode, x.shape[2:], pads)
    return made


def _check(
    op: ArrayOp, x: Array, pads: tuple[int, ...], arguments: tuple[Any, ...], mode: str, given: Any
) -> None:
    """Raise where a pool cannot have a boundary mode."""
    if min(pads) < 0:
        raise ShapeError(f"padding: got {pads}, want every value to be at least 0")
    check_pads(tuple((pad, pad) for pad in pads), x.shape[2:], mode)
    if op.name == "avg_pool" and not flag("count_include_pad", arguments[5]):
        raise ArgumentError(
            f"count_include_pad: got False with padding_mode={given!r}, whose padding holds "
            "samples, want True"
        )
    if op.name == "max_pool" and mode == "constant" and flag("return_indices", arguments[6]):
        raise ArgumentError(
            f"return_indices: got True with padding_mode={given!r}, want False: a constant has no "
            "place in the input"
        )


def _tell_sources(places: Array, mode: str, size: tuple[int, ...], pads: tuple[int, ...]) -> None:
    """Turn places in a padded channel into those of the samples that lie there."""
    sources: Any = np.zeros(1, np.int64)
    for n, pad in zip(size, pads, strict=True):
        along = source_indices(mode, n, -pad, n + 2 * pad)
        sources = (sources[:, None] * n + along).reshape(-1)
    places[...] = sources[places]
