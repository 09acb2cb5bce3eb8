"""What products of packed panels do where an array lies: read pixels there, store sums there.

Cost and plan ask the same functions, the one with the binding of dense arrays. No compiler is
imported here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ...taps import Region, whole
from ..common.memory_order import clamps_only, has_dense_maps, is_contiguous, stores_results
from ..simd.register_tiles import operand_tile
from .split import sums_at_once

__all__ = ["InPlace", "channel_rows_in_place", "pixel_rows_in_place"]


class InPlace(NamedTuple):
    """What needs no copy.

    Parameters
    ----------
    reads : bool
        Full panels are pixels of the input.
    stores : bool
        Sums are stored into the output.
    """

    reads: bool
    stores: bool


def _is_pointwise(problem: ConvProblem, binding: Binding) -> bool:
    """Return whether a channel's pixels are the columns of the matrix, as they lie in memory."""
    if math.prod(problem.kernel_size) > 1 or any(max(pair) for pair in problem.padding):
        return False
    if max(problem.stride) > 1 or problem.itemsize != problem.compute_itemsize:
        return False
    return is_contiguous(problem.in_size, binding.x_strides[2:], problem.itemsize)


def channel_rows_in_place(
    problem: ConvProblem, binding: Binding, device: DeviceInfo, regions: Sequence[Region]
) -> InPlace:
    """Return what channel_rows.py copies not; it rounds only sums that are complete."""
    if len(regions) > 1:
        return InPlace(reads=False, stores=False)
    stores = has_dense_maps(problem, binding)
    if problem.out_itemsize < 4:
        at_once = sums_at_once(problem, operand_tile(device, problem).depth)
        stores = stores and at_once and clamps_only(binding) and list(regions) == whole(problem)
    return InPlace(reads=_is_pointwise(problem, binding), stores=stores)


def pixel_rows_in_place(problem: ConvProblem, binding: Binding) -> InPlace:
    """Return what pixel_rows.py copies not; it rounds where no epilogue reads sums."""
    stores = has_dense_maps(problem, binding) and stores_results(problem, binding)
    return InPlace(reads=_is_pointwise(problem, binding), stores=stores)
