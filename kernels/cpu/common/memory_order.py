"""What the order of arrays in memory, and an epilogue, allow a kernel to do where they lie.

Plans ask with the strides of a call, cost models with those of dense arrays. No compiler is
imported here.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding

from ...axes import ACTIVATION_CODES, LAST_CLAMP

__all__ = ["clamps_only", "has_dense_maps", "is_run"]


def is_run(sizes: Sequence[int], strides: Sequence[int], step: int) -> bool:
    """Return whether axes are one run of memory in their order, of elements `step` bytes apart.

    Examples
    --------
    >>> is_run((3, 8), (32, 4), 4), is_run((3, 8), (64, 4), 4), is_run((1, 8), (64, 4), 4)
    (True, False, True)
    """
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if stride != step and size > 1:
            return False
        step *= size
    return True


def has_dense_maps(problem: ConvProblem, binding: Binding) -> bool:
    """Return whether each output map is one run of memory in the order of its pixels."""
    return is_run(problem.out_size, binding.out_strides[2:], problem.itemsize)


def clamps_only(binding: Binding) -> bool:
    """Return whether a clamp in registers is all that sums need before they are stored."""
    return binding.residual_strides is None and ACTIVATION_CODES[binding.activation] <= LAST_CLAMP
