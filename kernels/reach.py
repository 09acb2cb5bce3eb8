"""Which taps of a kernel reach the input, by regions of the output: for kernels of both devices.

The output is cut along each axis where the taps in reach change; see `cpu.dilated` for a drawing.
"""

from __future__ import annotations

import itertools
import math

from fastconv.problem import ConvProblem

__all__ = ["axis_intervals", "dilated_reasons", "regions"]

#: Regions of the output with taps of their own; more would be too thin to fill vectors or tiles.
_MOST_REGIONS = 125

Interval = tuple[int, int, int, int]


def axis_intervals(problem: ConvProblem, axis: int) -> list[Interval]:
    """Cut one output axis where the taps in reach change.

    Returns
    -------
    list of (start, size, first tap, tap end)
        In order; together the whole axis. An interval out of reach of the input has no taps.
    """
    size, kernel = problem.in_size[axis], problem.kernel_size[axis]
    step, hole, low = problem.stride[axis], problem.dilation[axis], problem.padding[axis][0]
    intervals: list[Interval] = []
    for position in range(problem.out_size[axis]):
        origin = position * step - low
        first = min(max(-(origin // hole), 0), kernel)
        end = max(min((size - 1 - origin) // hole + 1, kernel), first)
        if intervals and intervals[-1][2:] == (first, end):
            intervals[-1] = (intervals[-1][0], intervals[-1][1] + 1, first, end)
        else:
            intervals.append((position, 1, first, end))
    return intervals


def regions(problem: ConvProblem) -> list[tuple[tuple[int, ...], ...]]:
    """Return the boxes of the output, each (start, size, first tap, tap end) by axis."""
    axes = [axis_intervals(problem, axis) for axis in range(problem.ndim)]
    return [tuple(zip(*box, strict=True)) for box in itertools.product(*axes)]


def dilated_reasons(problem: ConvProblem) -> list[str]:
    """Return why skipping the taps that see only padding is not for a problem."""
    if max(problem.dilation) == 1:
        return ["is for dilated kernels; this one has no holes"]
    if not any(max(pair) for pair in problem.padding):
        return ["skips taps in the padding; there is none"]
    count = math.prod(len(axis_intervals(problem, axis)) for axis in range(problem.ndim))
    if count > _MOST_REGIONS:
        return [f"would cut the output into {count} regions, more than {_MOST_REGIONS}"]
    return []
