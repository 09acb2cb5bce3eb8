"""Pools over the sites that a kernel reaches, and their gradients: one element a thread.

    grid: rows * channels / 256
      thread = an output row (a gradient's: an input row) and a channel
        for each offset of the kernel:
          neighbour = table[offset, row]        one word for all channels of a row
          value = x[neighbour, channel]         neighbouring threads side by side

A gradient goes over the reversed rulebook, whose rows are the inputs: each adds up what comes back
to it by rising offset. So there are no atomics, and results are the same bits in every run. The
gradient of a maximum belongs to the first offset with its value; an input that has that value looks
at the offsets before, all others are done at one comparison.

Only bytes count: a pair is one load of features for one maximum or addition. Words of the table are
read once a warp of 32 channels. Budget: under 40 registers, no shared memory.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda, int32, uint32
from numba.cuda import types

from fastconv.contract.rulebook import Rulebook
from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import CudaInfo, SparseBinding

from ..common.launch import Kernel, empty, flat, launch
from ..common.plan import ELEMENT_THREADS, blocks_of
from ..common.vector import access, compute_type, storage_type
from ..rulebook import tables as rulebook_tables

__all__ = [
    "PoolPlan",
    "plan_avg",
    "plan_avg_grad",
    "plan_max",
    "plan_max_grad",
    "pool_kernels",
]


def constants(storage: str) -> tuple[Any, Any]:
    """Return zero and minus infinity in the compute type."""
    real = np.float64 if storage == "float64" else np.float32
    return real(0), real(-math.inf)


@functools.cache
def _max_function(storage: str) -> Callable[..., None]:
    load1, store1, lowest = access(storage).load1, access(storage).store1, constants(storage)[1]

    def max_pool(x: Any, table: Any, out: Any, rows: Any, channels: Any, volume: Any) -> None:
        at = uint32(cuda.grid(1))
        row, channel = uint32(at // channels), uint32(at % channels)
        if row < rows:
            largest = lowest
            for offset in range(volume):
                neighbour = table[uint32(uint32(offset) * rows + row)]
                if neighbour >= int32(0):
                    value = load1(x, uint32(uint32(neighbour) * channels + channel))
                    # A NaN is not below anything, and nothing replaces it.
                    if largest == largest and not value <= largest:
                        largest = value
            store1(out, at, largest)

    return max_pool


@functools.cache
def _max_grad_function(storage: str) -> Callable[..., None]:
    load1, store1, zero = access(storage).load1, access(storage).store1, constants(storage)[0]

    def max_pool_grad(
        x: Any, out: Any, grad_out: Any, table: Any, back: Any, grad_x: Any,
        rows: Any, channels: Any, volume: Any, out_rows: Any,
    ) -> None:  # fmt: skip
        at = uint32(cuda.grid(1))
        row, channel = uint32(at // channels), uint32(at % channels)
        if row < rows:
            value, total = load1(x, at), zero
            for offset in range(volume):
                out_row = back[uint32(uint32(offset) * rows + row)]
                if out_row >= int32(0):
                    place = uint32(uint32(out_row) * channels + channel)
                    wanted = load1(out, place)
                    is_first = value == wanted or (value != value and wanted != wanted)
                    earlier = uint32(0)
                    while is_first and earlier < uint32(offset):
                        other_row = table[uint32(earlier * out_rows + uint32(out_row))]
                        if other_row >= int32(0):
                            other = load1(x, uint32(uint32(other_row) * channels + channel))
                            is_nan = other != other and wanted != wanted
                            is_first = not (other == wanted or is_nan)
                        earlier = uint32(earlier + uint32(1))
                    if is_first:
                        total += load1(grad_out, place)
            store1(grad_x, at, total)

    return max_pool_grad


@functools.cache
def _avg_function(storage: str) -> Callable[..., None]:
    load1, store1, zero = access(storage).load1, access(storage).store1, constants(storage)[0]
    real = compute_type(storage)

    def avg_pool(x: Any, table: Any, out: Any, rows: Any, channels: Any, volume: Any) -> None:
        at = uint32(cuda.grid(1))
        row, channel = uint32(at // channels), uint32(at % channels)
        if row < rows:
            total, count = zero, int32(0)
            for offset in range(volume):
                neighbour = table[uint32(uint32(offset) * rows + row)]
                if neighbour >= int32(0):
                    total += load1(x, uint32(uint32(neighbour) * channels + channel))
                    count = int32(count + int32(1))
            store1(out, at, total / real(count))

    return avg_pool


@functools.cache
def _avg_grad_function(storage: str) -> Callable[..., None]:
    load1, store1, zero = access(storage).load1, access(storage).store1, constants(storage)[0]
    real = compute_type(storage)

    def avg_pool_grad(
        grad_out: Any, counts: Any, back: Any, grad_x: Any, rows: Any, channels: Any, volume: Any
    ) -> None:
        at = uint32(cuda.grid(1))
        row, channel = uint32(at // channels), uint32(at % channels)
        if row < rows:
            total = zero
            for offset in range(volume):
                out_row = back[uint32(uint32(offset) * rows + row)]
                if out_row >= int32(0):
                    share = load1(grad_out, uint32(uint32(out_row) * channels + channel))
                    total += share / real(counts[uint32(out_row)])
            store1(grad_x, at, total)

    return avg_pool_grad


@functools.cache
def pool_kernels(storage: str) -> dict[str, Kernel]:
    """Return the kernels of a storage type by name."""
    array, table, word = storage_type(storage)[::1], types.int32[::1], types.uint32
    forward = (array, table, array, word, word, word)
    signatures = {
        "max_pool": (_max_function, forward),
        "max_pool_grad": (_max_grad_function, (*[array] * 3, table, table, array, *[word] * 4)),
        "avg_pool": (_avg_function, forward),
        "avg_pool_grad": (_avg_grad_function, (array, table, table, array, *[word] * 3)),
    }
    return {
        name: Kernel(f"sparse_{name} {storage}", make(storage), arguments, ELEMENT_THREADS, 4)
        for name, (make, arguments) in signatures.items()
    }


Compute = Callable[..., None]


@dataclass(frozen=True, eq=False)
class PoolPlan:
    """A plan without a weight.

    Parameters
    ----------
    problem : SparseProblem
        What is computed.
    compute : callable
        Takes the problem, a rulebook and the operator's arrays.
    """

    problem: SparseProblem
    compute: Compute

    @property
    def packing(self) -> None:
        """No weight, no order of it."""

    def pack(self, weight: Any) -> Any:
        """Return the weight as it is: there is none."""
        return weight

    def run(self, rulebook: Rulebook | None, *arrays: Any) -> None:
        """Compute into the last of the arrays."""
        self.compute(self.problem, rulebook, *arrays)


def _start(
    problem: SparseProblem, name: str, arrays: tuple[Any, ...], rows: int, *more: int
) -> None:
    """Launch a kernel for all elements of so many rows."""
    count = rows * problem.in_channels
    if count:
        grid = (blocks_of(count, ELEMENT_THREADS), 1, 1)
        numbers = (rows, problem.in_channels, problem.volume, *more)
        kernel = pool_kernels(problem.dtype)[name]
        launch(kernel, grid, arrays[0], (*map(flat, arrays), *map(uint32, numbers)))


def _max(problem: SparseProblem, rulebook: Rulebook, x: Any, out: Any) -> None:
    _start(problem, "max_pool", (x, rulebook.neighbours, out), rulebook.out_rows)


def _avg(problem: SparseProblem, rulebook: Rulebook, x: Any, out: Any) -> None:
    _start(problem, "avg_pool", (x, rulebook.neighbours, out), rulebook.out_rows)


def _max_grad(
    problem: SparseProblem, rulebook: Rulebook, x: Any, out: Any, grad_out: Any, grad_x: Any
) -> None:
    back = rulebook.reverse().neighbours
    arrays = (x, out, grad_out, rulebook.neighbours, back, grad_x)
    _start(problem, "max_pool_grad", arrays, rulebook.in_rows, rulebook.out_rows)


def _avg_grad(problem: SparseProblem, rulebook: Rulebook, grad_out: Any, grad_x: Any) -> None:
    counts = rulebook.derive(_pair_counts)
    arrays = (grad_out, counts, rulebook.reverse().neighbours, grad_x)
    _start(problem, "avg_pool_grad", arrays, rulebook.in_rows)


def _pair_counts(rulebook: Rulebook) -> Any:
    """Return how many inputs each output meets."""
    table, (volume, rows) = rulebook.neighbours, rulebook.neighbours.shape
    counts = empty(table, rows, "int32")
    if rows:
        rulebook_tables.run("count_pairs", rows, (table, counts), (rows, volume))
    return counts


def plan_max(problem: SparseProblem, binding: SparseBinding, device: CudaInfo) -> PoolPlan:
    """Return the plan of "sparse_max_pool"."""
    return PoolPlan(problem, _max)


def plan_max_grad(problem: SparseProblem, binding: SparseBinding, device: CudaInfo) -> PoolPlan:
    """Return the plan of "sparse_max_pool_grad"."""
    return PoolPlan(problem, _max_grad)


def plan_avg(problem: SparseProblem, binding: SparseBinding, device: CudaInfo) -> PoolPlan:
    """Return the plan of "sparse_avg_pool"."""
    return PoolPlan(problem, _avg)


def plan_avg_grad(problem: SparseProblem, binding: SparseBinding, device: CudaInfo) -> PoolPlan:
    """Return the plan of "sparse_avg_pool_grad"."""
    return PoolPlan(problem, _avg_grad)
