"""A transposed convolution whose phases are one dense convolution, its channels become pixels.

A kernel as large as its stride is a product with ``K * taps`` filters of one tap: each sample makes
a box of outputs of its own. It is made by bands of rows, so that what is interleaved is still in
the caches. Other phases are filters of one window with zeros where theirs has none, which pays
where a phase has too few filters to fill a register tile, as the last layer of a generator of
images has: 4 taps and 3 filters a phase become 9 taps and 12 filters. `interleave` stores whole
vectors where the phases of `transposed_calls` would store every stride-th element.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, empty_output, plain
from ..calls import CONV, PreparedCall, prepare
from ..contract.arguments import Activation
from ..contract.transposed_problem import Stack, TransposedProblem
from ..dispatch import predicted_seconds, settings, steady_choice
from .rearrange import interleave

__all__ = ["PreparedStack", "find_stack", "prepare_stack"]

_EVERY = (slice(None), slice(None))


class _Band(NamedTuple):
    """Rows of samples, along the first spatial axis, and their convolution."""

    rows: slice
    call: PreparedCall


@dataclass(frozen=True, slots=True)
class PreparedStack:
    """A transposed convolution, prepared: see `fastconv.calls.PreparedCall`."""

    bands: tuple[_Band, ...]
    stack: Stack
    stride: tuple[int, ...]
    groups: int
    kernel: str
    out_shape: tuple[int, ...]
    layout: str
    packing: Hashable
    plain: bool = True
    remembers: bool = False

    @property
    def plan(self) -> Any:
        """The convolutions."""
        return self.bands

    def pack(self, weight: Array) -> Any:
        """Return the weight in the order of each kind of band's kernel."""
        filters = _filters(weight if self.plain else plain(weight), self.stack, self.groups)
        packed: dict[Hashable, Any] = {}
        for band in self.bands:
            if band.call.packing not in packed:
                packed[band.call.packing] = band.call.pack(filters)
        return packed

    def run(
        self, x: Array, packed: Any, bias: Array | None, residual: Array | None, out: Array | None
    ) -> Array:
        """Compute, into `out` if there is one."""
        if out is None:
            out = empty_output(x, self.out_shape, self.layout)
        repeated = None if bias is None else np.repeat(bias, math.prod(self.stride), axis=-1)
        for rows, call in self.bands:
            samples, outputs = _taken(self.stack, rows, len(self.bands), self.stride)
            part = call.run(x[samples], packed[call.packing], repeated, None, None)
            interleave(part, self.stride, out=out[outputs])
        return out


def _taken(
    stack: Stack, rows: slice, bands: int, stride: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the samples that a band reads, and the outputs that it writes."""
    if bands == 1:
        return (*_EVERY, *stack.samples), _EVERY
    return (*_EVERY, rows), (*_EVERY, slice(rows.start * stride[0], rows.stop * stride[0]))


def _filters(weight: Array, stack: Stack, groups: int) -> Array:
    """Return the filters: (K * phases, C / groups, *window), a channel's phases together."""
    c, ndim = weight.shape[0], weight.ndim - 2
    met = np.pad(weight, ((0, 0), (0, 0), *((0, 1),) * ndim))  # tap -1 is zero
    for axis, taps in enumerate(stack.taps):
        met = np.take(met, taps, axis=2 + 2 * axis)  # whose place phases and window take
    by_group = met.reshape(groups, c // groups, *met.shape[1:])
    phases, window = range(3, 3 + 2 * ndim, 2), range(4, 4 + 2 * ndim, 2)
    ordered = by_group.transpose(0, 2, *phases, 1, *window)
    return np.ascontiguousarray(ordered).reshape(-1, c // groups, *stack.kernel)


def find_stack(problem: TransposedProblem) -> Stack | None:
    """Return the stack that a problem is best computed as, None where its phases are faster.

    Packed weights decide, so that functions and objects compute alike.
    """
    stack = problem.stack()
    if stack is None or problem.is_product:
        return stack
    if settings()[1] == "exact" and any((taps < 0).any() for taps in stack.taps):
        return None  # a zero of the window times infinity is no number
    phases = [problem.dense(phase) for phase in problem.phases()]
    with steady_choice():
        apart = {dense: predicted_seconds(dense, packed=True) for dense in set(phases)}
        together = predicted_seconds(problem.stacked(stack, problem.bands()[0]), packed=True)
    return stack if together < sum(apart[dense] for dense in phases) else None


def prepare_stack(
    problem: TransposedProblem, stack: Stack, x: Array, weight: Array, bias: Array | None,
    activation: Activation, packed: bool, tune: bool,
) -> PreparedStack:  # fmt: skip
    """Prepare a call of a problem that is a stack and has no residual."""
    ndim, phases = problem.ndim, math.prod(problem.stride)
    filters = _filters(weight, stack, problem.groups)
    biases = None if bias is None else np.repeat(bias, phases, axis=-1)
    arguments = ((1,) * ndim, stack.padding, (1,) * ndim, problem.groups)
    rows_of_bands = problem.bands()
    bands = []
    for rows in rows_of_bands:
        samples, _ = _taken(stack, rows, len(rows_of_bands), problem.stride)
        call = prepare(
            CONV, ndim, x[samples], filters, biases, arguments, activation, None, None, packed,
            tune,
        )  # fmt: skip
        bands.append(_Band(rows, call))
    kernels = ", ".join(sorted({band.call.kernel for band in bands}))
    packing = "stack", tuple(dict.fromkeys(band.call.packing for band in bands))
    remembers = any(band.call.remembers for band in bands)
    return PreparedStack(
        tuple(bands), stack, problem.stride, problem.groups, kernels, problem.out_shape,
        problem.layout, packing, remembers=remembers,
    )  # fmt: skip
