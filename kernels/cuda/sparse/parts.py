"""What gradients for the weight share: parts over the output rows, added up in a fixed order.

    parts[part, offset, k, c]  ->  grad[k, c, offset] = parts 0 + 1 + 2 + ...

A thread has one weight and reads its parts side by side with its neighbours; what it writes, once
and in the element type, lies `volume` elements from theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda, uint32
from numba.cuda import types

from fastconv.contract.sparse_problem import SparseProblem

from ..common.launch import Kernel, empty, flat, launch
from ..common.plan import ELEMENT_THREADS, blocks_of
from ..common.vector import access, compute_type, storage_type

__all__ = ["PartsPlan", "sum_kernel"]


@functools.cache
def _sum_function(storage: str) -> Callable[..., None]:
    store1 = access(storage).store1
    zero = (np.float64 if storage == "float64" else np.float32)(0)

    def sum_parts(partial: Any, out: Any, weights: Any, volume: Any, parts: Any) -> None:
        at = uint32(cuda.grid(1))
        count = uint32(weights * volume)
        if at < count:
            total = zero
            for part in range(parts):
                total += partial[uint32(uint32(part) * count + at)]
            store1(out, uint32(at % weights * volume + at // weights), total)

    return sum_parts


@functools.cache
def sum_kernel(storage: str) -> Kernel:
    """Return the kernel that adds up the parts and puts the offsets innermost."""
    arguments = (compute_type(storage)[::1], storage_type(storage)[::1], *[types.uint32] * 3)
    name = f"sparse_sum_parts {storage}"
    return Kernel(name, _sum_function(storage), arguments, ELEMENT_THREADS, 4)


@dataclass(frozen=True, eq=False)
class PartsPlan:
    """A plan of a gradient for the weight, computed in parts.

    Parameters
    ----------
    problem : SparseProblem
        What is computed.
    """

    problem: SparseProblem

    @property
    def packing(self) -> None:
        """No weight, no order of it."""

    def pack(self, weight: Any) -> Any:
        """Return the weight as it is: there is none."""
        return weight

    @property
    def _weights(self) -> int:
        """Weights of one offset."""
        return self.problem.out_channels * self.problem.in_channels // self.problem.groups

    def new_parts(self, like: Any, parts: int) -> Any:
        """Return memory for the parts."""
        summed = np.dtype("float64" if self.problem.dtype == "float64" else "float32")
        return flat(empty(like, parts * self.problem.volume * self._weights, summed))

    def add_parts(self, partial: Any, parts: int, weight_grad: Any) -> None:
        """Write the sum of the parts."""
        numbers = map(uint32, (self._weights, self.problem.volume, parts))
        grid = (blocks_of(self.problem.volume * self._weights, ELEMENT_THREADS), 1, 1)
        arguments = (partial, flat(weight_grad), *numbers)
        launch(sum_kernel(self.problem.dtype), grid, weight_grad, arguments)
