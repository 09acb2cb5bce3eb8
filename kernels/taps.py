"""Which taps of a kernel reach the input, by regions of the output: for kernels of both devices.

The output is cut along each axis where the taps in reach change; see `cpu.dilated` for a drawing.
Axes may be of any length: positions are counted in closed form and never walked one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from fastconv.contract.problem import ConvProblem

__all__ = ["Region", "axis_intervals", "dilated_reasons", "regions", "share_in_reach", "whole"]

#: Regions of the output with taps of their own; more would be too thin to fill vectors or tiles.
_MOST_REGIONS = 125

Interval = tuple[int, int, int, int]
#: A box of the output and its box of taps: (start, size, first tap, tap end), each by axis.
Region = tuple[tuple[int, ...], ...]


def _intervals(problem: ConvProblem, axis: int) -> Iterator[Interval]:
    """Yield the intervals of `axis_intervals`, from each change to the next."""
    size, kernel = problem.in_size[axis], problem.kernel_size[axis]
    step, hole, low = problem.stride[axis], problem.dilation[axis], problem.padding[axis][0]
    start, out = 0, problem.out_size[axis]
    while start < out:
        origin = start * step - low
        first = min(max(-(origin // hole), 0), kernel)
        last = min((size - 1 - origin) // hole + 1, kernel)
        following = out
        if first > 0:  # where tap `first - 1` comes to lie at or behind the input's beginning
            following = min(following, -(-((1 - first) * hole + low) // step))
        if last > first:  # where tap `last - 1` comes to lie behind its end
            following = min(following, -(-(size - (last - 1) * hole + low) // step))
        yield start, following - start, first, max(last, first)
        start = following


def axis_intervals(problem: ConvProblem, axis: int) -> list[Interval]:
    """Cut one output axis where the taps in reach change.

    Returns
    -------
    list of (start, size, first tap, tap end)
        In order; together the whole axis. An interval out of reach of the input has no taps.
    """
    return list(_intervals(problem, axis))


def regions(problem: ConvProblem) -> list[Region]:
    """Return the boxes of the output within which the same taps are in reach."""
    axes = [axis_intervals(problem, axis) for axis in range(problem.ndim)]
    return [tuple(zip(*box, strict=True)) for box in itertools.product(*axes)]


def whole(problem: ConvProblem) -> list[Region]:
    """Return the one region that holds all outputs and all taps."""
    zeros = (0,) * problem.ndim
    return [(zeros, problem.out_size, zeros, problem.kernel_size)]


def dilated_reasons(problem: ConvProblem) -> list[str]:
    """Return why skipping the taps that see only padding is not for a problem."""
    if max(problem.dilation) == 1:
        return ["is for dilated kernels; this one has no holes"]
    if not any(max(pair) for pair in problem.padding):
        return ["skips taps in the padding; there is none"]
    count = 1
    for axis in range(problem.ndim):  # an axis of many taps has many intervals
        most = _MOST_REGIONS // count + 1
        count *= sum(1 for _ in itertools.islice(_intervals(problem, axis), most))
        if count > _MOST_REGIONS:
            return [f"would cut the output into more than {_MOST_REGIONS} regions"]
    return []


def _floor_sum(count: int, step: int, start: int, divisor: int) -> int:
    """Return the sum over i < `count` of ``(start + step * i) // divisor``, by Euclid's steps."""
    total = 0
    while count > 0:
        total += step // divisor * (count * (count - 1) // 2) + start // divisor * count
        step, start = step % divisor, start % divisor
        end = start + step * count
        if end < divisor:
            break
        # What is left counts points under a line; with the axes exchanged it is flatter.
        count, start, step, divisor = end // divisor, end % divisor, divisor, step
    return total


def _pairs_before(problem: ConvProblem, axis: int, end: int) -> int:
    """Return the pairs of an output position and a tap that lie before a padded position."""
    step, hole = problem.stride[axis], problem.dilation[axis]
    kernel, out = problem.kernel_size[axis], problem.out_size[axis]
    # Tap t does so for the first ceil((end - t * hole) / step) positions, at most all of them.
    whole = min(max((end - (out - 1) * step - 1) // hole + 1, 0), kernel)
    some = min(max(-(-end // hole), 0), kernel)
    if some <= whole:
        return whole * out
    smallest = end - (some - 1) * hole
    return whole * out + _floor_sum(some - whole, hole, smallest + step - 1, step)


def share_in_reach(problem: ConvProblem, axis: int) -> float:
    """Return the share of taps along an axis, over all output positions, that meet the input."""
    low, size = problem.padding[axis][0], problem.in_size[axis]
    met = _pairs_before(problem, axis, low + size) - _pairs_before(problem, axis, low)
    return met / (problem.out_size[axis] * problem.kernel_size[axis])
