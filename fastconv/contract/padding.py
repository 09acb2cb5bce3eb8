"""Padding in its accepted spellings, and the output size that it leads to."""

from __future__ import annotations

import operator
from typing import Any

from .errors import ShapeError

__all__ = ["Pads", "as_index", "canonical_padding", "normalise_padding", "output_size"]

#: Zeros before and after each spatial axis.
Pads = tuple[tuple[int, int], ...]


def output_size(size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int) -> int:
    """Output positions along one axis; zero or less where the kernel does not fit.

    Examples
    --------
    >>> output_size(227, 11, 4, (0, 0), 1)
    55
    """
    return (size + pads[0] + pads[1] - dilation * (kernel - 1) - 1) // stride + 1


def normalise_padding(
    padding: Any,
    in_size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Pads:
    """Turn any accepted spelling of padding into one (low, high) pair an axis.

    Accepted: an int, an int an axis, a pair an axis, ``'valid'`` and ``'same'`` (stride 1 only;
    an odd total puts the extra zero at the high side, as PyTorch does).
    """
    padding = canonical_padding(padding, len(in_size))
    if padding == "valid":
        return ((0, 0),) * len(in_size)
    if padding == "same":
        if any(step != 1 for step in stride):
            raise ShapeError(f"padding: got 'same' with stride={stride}, want a stride of 1")
        total = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    assert not isinstance(padding, str)
    return padding


def canonical_padding(padding: Any, ndim: int) -> Pads | str:
    """Return padding as pairs of integers, or as 'same' or 'valid'."""
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise _refusal(padding, ndim)
        return padding
    number = as_index(padding)
    if number is not None:
        return ((number, number),) * ndim
    if isinstance(padding, (tuple, list)) and len(padding) == 1:
        padding = [padding[0]] * ndim
    if not isinstance(padding, (tuple, list)) or len(padding) != ndim:
        raise _refusal(padding, ndim)
    pairs = []
    for entry in padding:
        pair = entry if isinstance(entry, (tuple, list)) else (entry, entry)
        low, high = map(as_index, pair if len(pair) == 2 else (None, None))
        if low is None or high is None:
            raise _refusal(padding, ndim)
        pairs.append((low, high))
    return tuple(pairs)


def as_index(value: Any) -> int | None:
    """Return an integer of any type as Python's, None for anything else; True is no integer."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _refusal(padding: Any, ndim: int) -> ShapeError:
    """Return the error that names every spelling."""
    pairs = ", ".join(["(low, high)"] * ndim) + ("," if ndim == 1 else "")
    return ShapeError(
        f"padding: got {padding!r}, want 'same', 'valid', a whole number, {ndim} of them, or pairs "
        f"({pairs})"
    )
