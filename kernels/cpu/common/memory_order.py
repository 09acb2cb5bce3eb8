"""What the order of arrays in memory, and an epilogue, allow a kernel to do where they lie.

Plans ask with the strides of a call, cost models with those of dense arrays. No compiler is
imported here.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding

from ...axes import ACTIVATION_CODES, LAST_CLAMP

__all__ = ["clamps_only", "has_dense_maps", "is_contiguous", "stores_results"]


def is_contiguous(sizes: Sequence[int], strides: Sequence[int], step: int) -> bool:
    """Return whether axes are contiguous in their order, elements `step` bytes apart.

    Examples
    --------
    >>> [is_contiguous(sizes, (64, 4), 4) for sizes in ((3, 16), (3, 8), (1, 8))]
    [True, False, True]
    """
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if stride != step and size > 1:
            return False
        step *= size
    return True


def has_dense_maps(problem: ConvProblem, binding: Binding) -> bool:
    """Return whether each output map is contiguous in the order of its pixels."""
    return is_contiguous(problem.out_size, binding.out_strides[2:], problem.out_itemsize)


def clamps_only(binding: Binding) -> bool:
    """Return whether a clamp in registers is all that sums need before they are stored."""
    return binding.residual_strides is None and ACTIVATION_CODES[binding.activation] <= LAST_CLAMP


def stores_results(problem: ConvProblem, binding: Binding) -> bool:
    """Return whether what is stored where it belongs can be finished there.

    Halves and integers are rounded when they are stored, so nothing may be left to do to them.
    """
    return problem.out_itemsize >= 4 or clamps_only(binding)
