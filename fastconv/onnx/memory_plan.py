"""Where the values of a list of jobs lie: values that are not needed at one time share memory.

A value is needed from the step that makes it to the last one that takes it. Values that are joined
by a later step lie side by side in what it makes, so that it has nothing to copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .joining import Join
from .steps import Step

__all__ = ["Made", "place_values"]

#: Bytes at whose multiples values begin: a cache line.
_LINE = 64


class Made(NamedTuple):
    """What is known of a value: what it is like, and which other's memory it lies in, if any.

    `order` names its axes as they lie in memory, the outermost first.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...]
    viewed: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of it without gaps."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_plain(self) -> bool:
        """Whether its axes lie in their own order."""
        return self.order == tuple(range(len(self.order)))

    def place(self, memory: NDArray[np.uint8], offset: int) -> NDArray[Any]:
        """Return an array like it at an offset in memory."""
        stored: NDArray[Any] = np.ndarray(
            tuple(self.shape[axis] for axis in self.order), self.dtype, memory, offset
        )
        return stored.transpose(np.argsort(self.order))


class _Part(NamedTuple):
    """A place in a joined value: the axis, and where on it the part begins."""

    whole: str
    axis: int
    start: int


class _Span(NamedTuple):
    """Memory that is needed from one step to another."""

    name: str
    nbytes: int
    first: int
    last: int


def place_values(
    steps: Sequence[Step], made: Mapping[str, Made], ends: Sequence[str]
) -> tuple[dict[str, NDArray[Any]], int]:
    """Return memory for the values whose steps can write where they are told, and its bytes.

    Parameters
    ----------
    steps : sequence of Step
        In the order in which they run.
    made : mapping of str to Made
        The values that they make.
    ends : sequence of str
        Values that are needed when all have run.
    """
    written = {
        step.outputs[0] for step in steps if step.writes and _is_placed(made.get(step.outputs[0]))
    }
    parts = _find_parts(steps, made, written)
    spans = _find_spans(steps, made, written, parts, ends)
    offsets, size = _pack(spans)
    memory = np.zeros(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    arrays: dict[str, NDArray[Any]] = {}

    def find(name: str) -> NDArray[Any]:
        if name not in arrays:
            value = made[name]
            if name in parts:
                whole, axis, first = parts[name]
                cut = slice(first, first + value.shape[axis])
                arrays[name] = find(whole)[(slice(None),) * axis + (cut,)]
            else:
                arrays[name] = value.place(memory, start + offsets[name])
        return arrays[name]

    return {name: find(name) for name in written}, size


def _is_placed(value: Made | None) -> bool:
    return value is not None and value.nbytes > 0 and not value.viewed


def _find_parts(
    steps: Sequence[Step], made: Mapping[str, Made], written: set[str]
) -> dict[str, _Part]:
    """Return which values lie in which joined ones; the last that joins a value has it."""
    parts: dict[str, _Part] = {}
    for step in reversed(steps):
        if not isinstance(step, Join) or step.outputs[0] not in written:
            continue
        whole, start = made[step.outputs[0]], 0
        if not whole.is_plain:
            continue
        axis = step.axis % len(whole.shape)
        for name in step.inputs:
            value = made.get(name)
            if value is None:
                break
            alone = name in written and name not in parts and step.inputs.count(name) == 1
            if alone and value.is_plain and value.dtype == whole.dtype:
                parts[name] = _Part(step.outputs[0], axis, start)
            start += value.shape[axis]
    return parts


def _find_spans(
    steps: Sequence[Step], made: Mapping[str, Made], written: set[str],
    parts: Mapping[str, _Part], ends: Sequence[str],
) -> list[_Span]:  # fmt: skip
    """Return for how long the memory of each value that is no part of another is needed."""

    def root(name: str) -> str:
        while name in parts or (name in made and made[name].viewed):
            name = parts[name].whole if name in parts else made[name].viewed
        return name

    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for place, step in enumerate(steps):
        for name in (*step.inputs, *step.outputs):
            first.setdefault(root(name), place)
            last[root(name)] = place
    for name in ends:
        last[root(name)] = len(steps)
    return [
        _Span(name, made[name].nbytes, first[name], last[name])
        for name in sorted(written - parts.keys())
    ]


def _pack(spans: Sequence[_Span]) -> tuple[dict[str, int], int]:
    """Return an offset for each span, the largest first, each as low as it fits; and the size."""
    placed: list[tuple[int, _Span]] = []
    size = 0
    for span in sorted(spans, key=lambda each: (-each.nbytes, each.name)):
        beside = sorted(
            (offset, other.nbytes)
            for offset, other in placed
            if other.first <= span.last and span.first <= other.last
        )
        at = 0
        for offset, nbytes in beside:
            if at + span.nbytes <= offset:
                break
            at = max(at, -(-(offset + nbytes) // _LINE) * _LINE)
        placed.append((at, span))
        size = max(size, at + span.nbytes)
    return {span.name: offset for offset, span in placed}, size
