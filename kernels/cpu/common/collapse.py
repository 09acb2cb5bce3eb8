"""Axes of one loop nest over several arrays, as few as their strides allow."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Axis", "collapse", "name_loops"]

Axis = tuple[int, tuple[int, ...]]


def collapse(sizes: Sequence[int], *strides: Sequence[int]) -> list[Axis]:
    """Return axes as pairs of a size and each array's stride, outermost first.

    An axis of one element is left out, and two that every array steps through as through one axis
    are one.

    Examples
    --------
    >>> collapse((2, 1, 3, 4), (48, 48, 16, 4), (96, 96, 32, 8))
    [(24, (4, 8))]
    >>> collapse((2, 3, 4), (48, 16, 4), (4, 32, 8))
    [(2, (48, 4)), (12, (4, 8))]
    """
    axes: list[Axis] = []
    for size, *steps in zip(sizes, *strides, strict=True):
        if size == 1:
            continue
        if axes:
            before, outer = axes[-1]
            if all(step * size == wide for step, wide in zip(steps, outer, strict=True)):
                axes[-1] = (before * size, tuple(steps))
                continue
        axes.append((size, tuple(steps)))
    return axes


def name_loops(letters: str, axes: Sequence[Axis], arrays: str) -> dict[str, int]:
    """Return axes by field: one letter each for the size, and the arrays' letters with it.

    Missing axes are put in front, with one element.

    Examples
    --------
    >>> name_loops("pq", [(24, (4, 8))], "xy")
    {'p': 1, 'xp': 0, 'yp': 0, 'q': 24, 'xq': 4, 'yq': 8}
    """
    none: Axis = (1, (0,) * len(arrays))
    fields: dict[str, int] = {}
    for letter, (size, steps) in zip(
        letters, [none] * (len(letters) - len(axes)) + list(axes), strict=True
    ):
        fields[letter] = size
        fields |= {f"{array}{letter}": step for array, step in zip(arrays, steps, strict=True)}
    return fields
