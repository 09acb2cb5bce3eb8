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
            raise ShapeError(f"padding: got {padding!r}, want 'same', 'valid' or numbers")
        return padding
    number = as_index(padding)
    if number is not None:
        return ((number, number),) * ndim
    if isinstance(padding, (tuple, list)) and len(padding) == 1:
        padding = [padding[0]] * ndim
    pairs = []
    for entry in _as_sequence("padding", padding, ndim):
        number = as_index(entry)
        if number is not None:
            pairs.append((number, number))
            continue
        low, high = map(as_index, _as_sequence("padding", entry, 2))
        if low is None or high is None:
            raise ShapeError(f"padding: got {padding!r}, want whole numbers")
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


def _as_sequence(name: str, value: Any, length: int) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise ShapeError(f"{name}: got {value!r}, want a whole number or {length} of them")
    if len(value) != length:
        raise ShapeError(f"{name}: got {len(value)} entries {value!r}, want {length}")
    return tuple(value)
