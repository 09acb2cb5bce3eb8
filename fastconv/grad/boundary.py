"""What gradients of convolutions with a boundary mode share: the boundary's own gradient.

A sample that the boundary holds as well is read there, too: its gradient is the sum of all of them.
They are added axis by axis, before the samples and then behind them, so the bits are always the
same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array
from ..contract.boundary_problem import BoundaryProblem
from ..contract.pad_problem import source_indices
from ..ops.padding import pad

__all__ = ["gather_samples", "pad_input", "padded_shape"]


def pad_input(of: BoundaryProblem, x: Array) -> Array:
    """Return an input with its boundary around it."""
    low = tuple(before for before, _ in of.sizes.padding)
    return pad(x, low, padded_shape(of)[2:], of.mode, of.value)


def padded_shape(of: BoundaryProblem) -> tuple[int, ...]:
    """Return the shape of an input with its boundary."""
    along = zip(of.sizes.in_size, of.sizes.padding, strict=True)
    return (of.sizes.batch, of.sizes.in_channels, *(size + sum(pads) for size, pads in along))


def _add_side(grad: Array, axis: int, mode: str, size: int, low: int, span: range) -> None:
    """Add the gradients of positions at one side of an axis to those of the samples they hold."""
    if not span:
        return
    axes = (slice(None),) * axis
    outside = grad[(*axes, slice(span.start, span.stop))]
    held = source_indices(mode, size, span.start - low, len(span)) + low
    if mode == "replicate":
        grad[(*axes, int(held[0]))] += outside.sum(axis)
        return
    first, last = int(held[0]), int(held[-1])  # each sample once, upwards or downwards
    along: Any = slice(min(first, last), max(first, last) + 1)
    grad[(*axes, along)] += outside if first <= last else np.flip(outside, axis)


def gather_samples(of: BoundaryProblem, grad: Array) -> Array:
    """Return the gradient for an input, from the one for it with its boundary, which is changed."""
    work = grad.astype(np.float32) if grad.dtype.itemsize == 2 else grad
    inside: list[slice] = [slice(None), slice(None)]
    along = zip(of.sizes.in_size, of.sizes.padding, strict=True)
    for axis, (size, (low, high)) in enumerate(along, 2):
        if of.mode != "constant":
            box = work[tuple(inside)]
            _add_side(box, axis, of.mode, size, low, range(low))
            _add_side(box, axis, of.mode, size, low, range(low + size, low + size + high))
        inside.append(slice(low, low + size))
    before = tuple(-low for low, _ in of.sizes.padding)
    return pad(work.astype(grad.dtype, copy=False), before, of.sizes.in_size, "constant")
