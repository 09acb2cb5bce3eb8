"""Arrays of every memory order, each inside a larger block of memory that is watched.

A layout is a text of words joined by "+", say "last+negative+unaligned"; "" is row-major.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["WORDS", "Placed", "numpy_dtype", "place", "strides_of"]

#: What the words of a layout mean.
WORDS = {
    "last": "channels are the innermost axis",
    "fortran": "axes in reverse order",
    "swapped": "the last two axes exchanged",
    "sliced": "every third element of each axis of a larger array",
    "wide": "every second element of the innermost axis",
    "pitch": "rows of the innermost axis have five elements between them",
    "negative": "every axis runs backwards",
    "flip": "the last axis runs backwards",
    "zero0": "the first axis has stride 0 (a broadcast array)",
    "zero1": "the second axis has stride 0",
    "zero2": "the third axis has stride 0",
    "one0": "axes of length 1 have stride 0, as np.newaxis makes them",
    "onehuge": "axes of length 1 have a stride of 2**40 + 1 bytes",
    "oneless": "axes of length 1 have a negative stride",
    "oneitem": "axes of length 1 have the stride of one element",
    "unaligned": "begins at an odd address",
    "readonly": "may not be written",
    "nan": "an output that holds NaN before the call",
    "overlap": "an output inside the memory of the input",
}

_MARGIN = 192
_ONES = {"one0": 0, "onehuge": 2**40 + 1, "oneless": -24}
#: Around inputs: NaN in every float type, so that a value read there shows. Around outputs:
#: another pattern, for a poisoned workspace is full of NaN too.
INPUT_PATTERN, OUTPUT_PATTERN = 0xFF, 0xA5


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a name; bfloat16 is ml_dtypes'."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def _order(ndim: int, words: set[str]) -> list[int]:
    order = list(range(ndim))
    if "fortran" in words:
        order.reverse()
    elif "last" in words and ndim > 2:
        order = [0, *range(2, ndim), 1]
    elif "swapped" in words and ndim > 1:
        order[-2:] = order[:-3:-1]
    return order


def strides_of(shape: tuple[int, ...], itemsize: int, layout: str) -> tuple[tuple[int, ...], int]:
    """Return the strides of a layout in bytes, and the bytes from the first to the last element.

    Examples
    --------
    >>> strides_of((1, 3, 5), 4, "last")
    ((60, 4, 12), 60)
    """
    words = set(layout.split("+"))
    order = _order(len(shape), words)
    factor = 3 if "sliced" in words else 1
    strides = [0] * len(shape)
    step = itemsize * (2 if "wide" in words else 1)
    for place_, axis in enumerate(reversed(order)):
        if f"zero{axis}" in words:
            continue
        strides[axis] = step * factor
        extent = max(shape[axis], 1) * factor + (1 if factor > 1 else 0)
        step *= extent + (5 if "pitch" in words and place_ == 0 else 0)
    reach = sum((max(size, 1) - 1) * stride for size, stride in zip(shape, strides, strict=True))
    for axis, size in enumerate(shape):
        if "negative" in words or ("flip" in words and axis == len(shape) - 1):
            strides[axis] = -strides[axis]
        if size == 1:
            for word, stride in _ONES.items():
                if word in words:
                    strides[axis] = stride
            if "oneitem" in words:
                strides[axis] = itemsize
    return tuple(strides), reach + itemsize


@dataclass(slots=True)
class Placed:
    """An array and the block of memory around it.

    Parameters
    ----------
    array : ndarray
        What is given to the library.
    memory : ndarray of uint8
        The block.
    offset : int
        Where the array's first element is in the block.
    """

    array: NDArray[Any]
    memory: NDArray[np.uint8]
    offset: int
    before: bytes = field(default=b"", init=False)

    def __post_init__(self) -> None:
        self.before = self.memory.tobytes()

    def element_bytes(self) -> NDArray[np.uint8]:
        """Return the bytes of each element, writable whatever the array is."""
        array = self.array
        shape, strides = (*array.shape, array.itemsize), (*array.strides, 1)
        return np.ndarray(shape, np.uint8, self.memory, self.offset, strides)

    def reset(self) -> None:
        """Bring the whole block back to what it was when the array was made."""
        self.memory[...] = np.frombuffer(self.before, np.uint8)

    def is_unchanged(self) -> bool:
        """Tell whether no byte of the block was written."""
        return self.memory.tobytes() == self.before

    def is_unchanged_around(self) -> bool:
        """Tell whether no byte of the block beside the array's own elements was written."""
        now = self.memory.copy()
        held = np.ndarray((*self.array.shape, self.array.itemsize), np.uint8)
        own = self.element_bytes()
        held[...] = own
        original = Placed.__new__(Placed)
        original.memory = np.frombuffer(bytearray(self.before), np.uint8)
        original.array, original.offset = self.array, self.offset
        own[...] = original.element_bytes()
        same = self.is_unchanged()
        self.memory[...] = now
        return same


def place(
    values: NDArray[Any] | tuple[int, ...],
    dtype: np.dtype[Any],
    layout: str,
    inside: Placed | None = None,
) -> Placed:
    """Return an array of a layout.

    Parameters
    ----------
    values : ndarray or tuple of int
        What it holds; or its shape, for an output.
    dtype : dtype
        Its element type.
    layout : str
        See `WORDS`. Along an axis of stride 0 the last value counts.
    inside : Placed, optional
        An array whose memory is used again, where "overlap" is among the words and it is enough.
    """
    words = set(layout.split("+"))
    output = isinstance(values, tuple)
    shape = values if isinstance(values, tuple) else values.shape
    strides, span = strides_of(shape, dtype.itemsize, layout)
    low = sum(min(0, (max(size, 1) - 1) * step) for size, step in zip(shape, strides, strict=True))
    start = _MARGIN - low + (1 if "unaligned" in words else 0)
    if inside is not None and "overlap" in words and inside.memory.size >= start + span:
        memory = inside.memory
    else:
        pattern = OUTPUT_PATTERN if output else INPUT_PATTERN
        memory = np.full(2 * _MARGIN + span + 1, pattern, np.uint8)
        # NumPy's memory begins at 16 bytes: at a cache line an unaligned start is unaligned.
        start += -(memory.ctypes.data + _MARGIN) % dtype.itemsize
    array: NDArray[Any] = np.ndarray(shape, dtype, memory, start, strides)
    if not output:
        array[...] = values
    elif "nan" in words and array.size and dtype.kind not in "iu":
        array[...] = np.nan
    placed = Placed(array, memory, start)
    if "readonly" in words:
        array.flags.writeable = False
    return placed
