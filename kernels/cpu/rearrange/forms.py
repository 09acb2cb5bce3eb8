"""What a copy between any strides comes to: its axes brought into one form, and how it moves them.

Axes of one element go, axes that lie behind one another in both arrays become one, and the rest is
sorted by the target's strides, so that a target is written in the order of its memory. What then
lies innermost decides how elements are moved:

=============  ===================================================================================
moves by       where
=============  ===================================================================================
RUNS           the same axis is contiguous in both arrays
EVERY          the target is contiguous where the source takes every second to fourth element
WEAVE          a few rows of the source are taken by turns
UNWEAVE        rows of the target get the elements of the source by turns
SQUARES_IN     an axis is contiguous in the source and another one in the target; the source's is
               longer, and vectors are written along the other
SQUARES_OUT    the same the other way round
ELEMENTS       one by one: an array is contiguous along no axis
=============  ===================================================================================

No compiler is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fastconv.contract.rearrange_problem import Axis

__all__ = [
    "ELEMENTS",
    "EVERY",
    "MOST_WAYS",
    "RUNS",
    "SQUARES_IN",
    "SQUARES_OUT",
    "UNWEAVE",
    "WEAVE",
    "CopyForm",
    "array_axes",
    "copy_form",
    "rows_innermost",
    "square_lanes",
]

RUNS, EVERY, WEAVE, UNWEAVE, SQUARES_IN, SQUARES_OUT, ELEMENTS = range(7)

#: Most rows that are woven, or taken apart: each vector of 9 takes 8 shuffles, of a square 4.
MOST_WAYS = 9
_MOST_EVERY = 4


class CopyForm(NamedTuple):
    """A copy in canonical form.

    Parameters
    ----------
    moves : int
        By what elements are moved, see above.
    item : int
        Bytes of what is moved as one: an element, or several that stay together.
    long : Axis
        The axis along which vectors go.
    group : tuple of Axis
        Of WEAVE, UNWEAVE and SQUARES the axis or two axes, the outer one first, that are contiguous
        where `long` is not; of EVERY none.
    ways : int
        Positions of the group; of EVERY the step in elements.
    outer : tuple of Axis
        All other axes, the one with the longest steps in the target first.
    source, target : int
        Byte offsets of the first element: axes that run backwards are turned.
    """

    moves: int
    item: int
    long: Axis
    group: tuple[Axis, ...]
    ways: int
    outer: tuple[Axis, ...]
    source: int = 0
    target: int = 0

    @property
    def positions(self) -> int:
        """How often what `moves` names is done along `long`."""
        return math.prod(axis.size for axis in self.outer)

    @property
    def elements(self) -> int:
        """Number of elements that are moved."""
        return self.positions * self.long.size * math.prod(axis.size for axis in self.group)

    def group_offsets(self, of: Callable[[Axis], int], most: int) -> list[int]:
        """Return the byte offsets of the first `most` positions of the group in an array."""
        offsets = [0]
        for axis in self.group:
            steps = [i * of(axis) for i in range(min(axis.size, most))]
            offsets = [start + step for start in offsets for step in steps]
        return offsets[:most]


def square_lanes(item: int, vector_bytes: int) -> int:
    """Return the elements of a vector in registers, where a half takes 32 bits."""
    return vector_bytes // max(item, 4)


def _source(axis: Axis) -> int:
    return axis.source


def _target(axis: Axis) -> int:
    return axis.target


def _canonical(axes: Sequence[Axis]) -> tuple[list[Axis], int, int]:
    """Return the axes sorted and merged, and where the first elements are."""
    kept, source, target = [], 0, 0
    for axis in axes:
        if axis.size == 1:
            continue
        if axis.target < 0:
            source += (axis.size - 1) * axis.source
            target += (axis.size - 1) * axis.target
            axis = Axis(axis.size, -axis.source, -axis.target)
        kept.append(axis)
    merged: list[Axis] = []
    for axis in sorted(kept, key=lambda axis: -axis.target):
        size, inner_source, inner_target = axis
        reaches = (size * inner_source, size * inner_target)
        if merged and (merged[-1].source, merged[-1].target) == reaches:
            merged[-1] = Axis(merged[-1].size * size, inner_source, inner_target)
        else:
            merged.append(axis)
    return merged, source, target


def copy_form(axes: Sequence[Axis], item: int, vector_bytes: int) -> CopyForm:
    """Return the form of a copy.

    Parameters
    ----------
    axes : sequence of Axis
        No two elements of the target share memory.
    item : int
        Bytes of an element: 2, 4 or 8.
    vector_bytes : int
        Of the device.

    Examples
    --------
    >>> shuffle = [Axis(2, 64, 4), Axis(16, 4, 8)]
    >>> form = copy_form(shuffle, 4, 64)
    >>> form.moves == WEAVE, form.long, form.ways
    (True, Axis(size=16, source=4, target=8), 2)
    """
    merged, source, target = _canonical(axes)
    last = merged[-1] if merged else Axis(1, item, item)
    if last.source == last.target == item and last.size * item in (4, 8):
        merged, item = merged[:-1], last.size * item
        last = merged[-1] if merged else Axis(1, item, item)
    outer = tuple(merged[:-1])
    if last.source == last.target == item:
        return CopyForm(RUNS, item, last, (), 1, outer, source, target)
    reads = next((axis for axis in outer if axis.source == item), None)
    if last.target != item or (reads is None and not _is_step(last, item)):
        return CopyForm(ELEMENTS, item, last, (), 1, outer, source, target)
    lanes = square_lanes(item, vector_bytes)
    every = CopyForm(EVERY, item, last, (), last.source // item, outer, source, target)
    if reads is None:
        return every
    form = _exchanged(merged, reads, last, item, lanes)._replace(source=source, target=target)
    few = form.moves not in (WEAVE, UNWEAVE) and 2 * form.ways <= lanes
    return every if few and _is_step(last, item) else form


def _is_step(axis: Axis, item: int) -> bool:
    """Return whether a source takes every second, third or fourth element."""
    return axis.source % item == 0 and 2 <= axis.source // item <= _MOST_EVERY


def _exchanged(axes: Sequence[Axis], reads: Axis, writes: Axis, item: int, lanes: int) -> CopyForm:
    """Return the form of a copy whose source is contiguous along one axis, its target another."""
    inward = reads.size >= writes.size
    long, short, along = (reads, writes, _target) if inward else (writes, reads, _source)
    group, ways = [short], short.size
    wider = next(
        (a for a in axes if a not in (long, short) and along(a) == ways * item and _fits(a, ways,
                                                                                    lanes)),
        None,
    )  # fmt: skip
    if wider is not None:
        group, ways = [wider, short], ways * wider.size
    outer = tuple(axis for axis in axes if axis != long and axis not in group)
    woven = along(long) == ways * item and ways <= MOST_WAYS
    kinds = (WEAVE, SQUARES_IN) if inward else (UNWEAVE, SQUARES_OUT)
    return CopyForm(kinds[not woven], item, long, tuple(group), ways, outer)


def _fits(axis: Axis, ways: int, lanes: int) -> bool:
    return axis.size * ways <= lanes


def array_axes(
    shape: Sequence[int], source: Sequence[int], target: Sequence[int]
) -> tuple[Axis, ...]:
    """Return the axes of a copy that keeps each element at its indices."""
    return tuple(Axis(*axis) for axis in zip(shape, source, target, strict=True))


def rows_innermost(columns_strides: Sequence[int]) -> bool:
    """Return whether the numbers of a column lie behind one another, as with channels last."""
    return abs(columns_strides[1]) < abs(columns_strides[2])
