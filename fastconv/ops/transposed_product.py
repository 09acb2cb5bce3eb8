"""A transposed convolution whose kernel is its stride: one product, whose channels become pixels.

Each sample then makes a box of outputs of its own: a product with ``K * taps`` filters of one tap,
and `interleave` puts the taps' channels between each other. It is made by bands of rows, so that
what is interleaved is still in the caches, and stores whole vectors where the phases of
`transposed_calls` would store every stride-th element.
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
from ..contract.transposed_problem import TransposedProblem
from .rearrange import interleave

__all__ = ["PreparedProduct", "prepare_product"]

_EVERY = (slice(None), slice(None))


class _Band(NamedTuple):
    """Rows of samples, along the first spatial axis, and their product."""

    rows: slice
    call: PreparedCall


@dataclass(frozen=True, slots=True)
class PreparedProduct:
    """A transposed convolution, prepared: see `fastconv.calls.PreparedCall`."""

    bands: tuple[_Band, ...]
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
        """The products."""
        return self.bands

    def pack(self, weight: Array) -> Any:
        """Return the weight in the order of each kind of band's kernel."""
        filters = _filters(weight if self.plain else plain(weight), self.groups)
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
        repeated = None if bias is None else np.repeat(bias, math.prod(self.stride))
        step = self.stride[0]
        for rows, call in self.bands:
            outputs = slice(rows.start * step, rows.stop * step)
            part = call.run(x[(*_EVERY, rows)], packed[call.packing], repeated, None, None)
            interleave(part, self.stride, out=out[(*_EVERY, outputs)])
        return out


def _filters(weight: Array, groups: int) -> Array:
    """Return the filters of one tap: (K * taps, C / groups, 1, ...), a channel's taps together."""
    c, k, *size = weight.shape
    taps = math.prod(size)
    by_group = weight.reshape(groups, c // groups, k, taps).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(by_group).reshape(-1, c // groups, *(1,) * len(size))


def prepare_product(
    problem: TransposedProblem, x: Array, weight: Array, bias: Array | None,
    activation: Activation, packed: bool, tune: bool,
) -> PreparedProduct:  # fmt: skip
    """Prepare a call of a problem that is a product and has no residual."""
    ndim, taps = problem.ndim, math.prod(problem.stride)
    filters = _filters(weight, problem.groups)
    biases = None if bias is None else np.repeat(bias, taps)
    arguments = ((1,) * ndim, ((0, 0),) * ndim, (1,) * ndim, problem.groups)
    bands = []
    for rows in problem.bands():
        call = prepare(
            CONV, ndim, x[(*_EVERY, rows)], filters, biases, arguments, activation, None, None,
            packed, tune,
        )  # fmt: skip
        bands.append(_Band(rows, call))
    kernels = ", ".join(sorted({band.call.kernel for band in bands}))
    packing = "product", tuple(dict.fromkeys(band.call.packing for band in bands))
    remembers = any(band.call.remembers for band in bands)
    return PreparedProduct(
        tuple(bands), problem.stride, problem.groups, kernels, problem.out_shape, problem.layout,
        packing, remembers=remembers,
    )  # fmt: skip
