"""What of a problem decides nothing, left out before any kernel sees it.

With ``padding="same"`` and a dilation far larger than the input, say, all taps but the middle one
meet nothing but padding, and a padded axis of 2**33 positions holds 9 samples. A kernel would copy,
index and count what is not there, so this is where every dense call passes.
"""

from __future__ import annotations

from dataclasses import replace

from .contract.problem import ConvProblem

__all__ = ["Taps", "trim"]

#: The first tap and the end of a part of a kernel, by axis.
Taps = tuple[tuple[int, int], ...]


def trim(problem: ConvProblem) -> tuple[ConvProblem, Taps | None]:
    """Leave out taps at the ends of the kernel that meet only padding, and what only they need.

    That is the padding that nothing else reaches, the dilation of a single tap, and the part of a
    stride that leads out of the padded input from its only output.

    Returns
    -------
    (ConvProblem, tuple of (int, int) or None)
        What is left, and the first tap and the end of those that stay, by axis; None where all do.

    Examples
    --------
    >>> far = ConvProblem(1, 1, 1, (9,), (9,), padding=((80, 80),), dilation=(20,))
    >>> problem, taps = trim(far)
    >>> problem.kernel_size, problem.padding, taps
    ((1,), ((0, 0),), ((4, 5),))
    """
    axes = [_trim_axis(problem, axis) for axis in range(problem.ndim)]
    taps = tuple((first, end) for first, end, *_ in axes)
    trimmed = replace(
        problem,
        kernel_size=tuple(end - first for first, end in taps),
        padding=tuple(pads for _, _, pads, _, _ in axes),
        stride=tuple(step for *_, step, _ in axes),
        dilation=tuple(hole for *_, hole in axes),
    )
    return trimmed, None if trimmed.kernel_size == problem.kernel_size else taps


def _trim_axis(problem: ConvProblem, axis: int) -> tuple[int, int, tuple[int, int], int, int]:
    """Return the first tap and the end of those that matter, and their pads, stride, dilation."""
    size, taps, out = problem.in_size[axis], problem.kernel_size[axis], problem.out_size[axis]
    step, hole, (low, high) = problem.stride[axis], problem.dilation[axis], problem.padding[axis]
    last = (out - 1) * step  # where the last output begins
    # The first tap may lie in front of the input for every output, but begins no further in: pads
    # are never negative. The last one alike.
    first = min(max(-((last - low) // hole), 0), low // hole, taps - 1)
    behind = -(-(size - 1 + low - last) // hole)
    end = min(max((low + size - 1) // hole, behind, first) + 1, taps)
    low -= first * hole
    if end < taps:
        high = last + (end - 1 - first) * hole + 1 - size - low
    if end - first == 1:
        hole = 1
    return first, end, (low, high), min(step, max(size + low + high, 1)), hole
