"""Which of its variants a kernel of windows runs as, by how arrays lie and by counted cycles.

Cost and plan ask the same functions, the one with the binding of dense arrays. No compiler is
imported here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, DeviceInfo

from ..common.memory_order import has_dense_maps, is_contiguous, stores_results
from .pixel_costs import block_cycles, map_cycles
from .row_costs import copied_padding, interleaved, interleaved_cycles, row_blocking, row_cycles

__all__ = ["Variant", "as_row", "depthwise_variant", "row_variant"]


class Variant(NamedTuple):
    """One way to compute a problem.

    Parameters
    ----------
    name : str
        That of its module in this folder.
    cycles : float
        Of one image.
    """

    name: str
    cycles: float

    @property
    def keeps_channels_last(self) -> bool:
        """Whether it reads and writes channels-last arrays where they lie."""
        return self.name in ("pixels_in_place", "rows_interleaved")


def _rows_in_place(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> bool:
    """Return whether rows can be read, and outputs written, where they lie."""
    if problem.stride[-1] > 2 or not stores_results(problem, binding):
        return False
    contiguous = problem.in_size[-1] == 1 or binding.x_strides[-1] == problem.itemsize
    if not contiguous or binding.out_strides[-1] != problem.out_itemsize:
        return False
    return row_blocking(problem, device, problem.compute_itemsize).rows == 0


def as_row(
    problem: ConvProblem, binding: Binding, device: DeviceInfo
) -> tuple[ConvProblem, Binding] | None:
    """Return problem and binding of interleaved channels as one, None where memory lies otherwise.

    Parameters
    ----------
    problem, binding, device
        As for every kernel.
    """
    row = interleaved(problem, device)
    if row is None:
        return None
    bound: dict[str, Any] = {}
    for name, strides, item in _orders(problem, binding):
        if strides[1] != item or strides[-1] != problem.groups * item:
            return None
        bound[name] = (*strides[:-1], item)
    return row, replace(binding, **bound)


def _orders(problem: ConvProblem, binding: Binding) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Yield the strides of input, output and residual by their names, and the elements' bytes."""
    yield "x_strides", binding.x_strides, problem.itemsize
    yield "out_strides", binding.out_strides, problem.out_itemsize
    if binding.residual_strides is not None:
        yield "residual_strides", binding.residual_strides, problem.out_itemsize


def _channels_last(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> Iterator[Variant]:
    """Yield the variants whose lanes are channels as they lie; the first of equals is better."""
    lie_so = all(strides[1] == item for _, strides, item in _orders(problem, binding))
    if lie_so and stores_results(problem, binding):
        yield Variant("pixels_in_place", map_cycles(problem, device))
    # A row's sums are finished with one slope.
    row = None if binding.activation == "prelu" else as_row(problem, binding, device)
    if row is not None and _rows_in_place(*row, device):
        yield Variant("rows_interleaved", interleaved_cycles(problem, device))


def _transposed_cycles(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> float:
    """Return the cycles of one image whose channels are transposed into lanes, infinite if not."""
    item, residual = problem.out_itemsize, binding.residual_strides
    if not is_contiguous(problem.in_size, binding.x_strides[2:], problem.itemsize):
        return math.inf
    if not has_dense_maps(problem, binding):
        return math.inf
    if residual is not None and not is_contiguous(problem.out_size, residual[2:], item):
        return math.inf
    if not stores_results(problem, binding):
        return math.inf
    return block_cycles(problem, device)


def row_variant(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> Variant:
    """Return how rows are read: where they lie, or else from a padded copy."""
    cycles = row_cycles(problem, device)
    if _rows_in_place(problem, binding, device):
        return Variant("rows_in_place", cycles)
    return Variant("rows_copied", cycles + copied_padding(problem))


def depthwise_variant(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> Variant:
    """Return how a depthwise problem is computed: by channels that lie in the lanes if possible."""
    rows = row_variant(problem, binding, device)
    if problem.out_channels != problem.groups or problem.in_channels != problem.groups:
        return rows
    as_they_lie = min(
        _channels_last(problem, binding, device), key=lambda variant: variant.cycles, default=None
    )
    if as_they_lie is not None and as_they_lie.cycles < math.inf:
        return as_they_lie
    transposed = Variant("pixels_transposed", _transposed_cycles(problem, binding, device))
    return transposed if transposed.cycles < rows.cycles else rows
