"""What every CPU kernel's plan is made of: a geometry, machine code, tasks, workspace.

A kernel's `plan` function works out block sizes and fills in a `CpuPlan`; running it is the same
for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.problem import ConvProblem
from fastconv.contract.settings import config
from fastconv.contract.spec import Binding

from . import jit, pool
from .scratch import aligned, borrow, give_back

__all__ = [
    "CpuPlan",
    "Stage",
    "as_bias",
    "compile_kernel",
    "compute_dtype",
    "in_weight_order",
    "worth_helpers",
]

#: Below so many multiply-adds a helper costs more than it brings (a hand-over is a microsecond).
_SERIAL_MACS = 100_000

_SIGNATURE = jit.void(9)


def compile_kernel(function: Callable[..., None], *key: Hashable) -> int:
    """Compile ``void(geometry, x, weight, bias, extra, out, workspace, task, worker)``.

    `key` names the kernel and every value that the function closes over. Returns its address.
    """
    return int(jit.compile_callback(function, _SIGNATURE, key).address)


def compute_dtype(dtype: str) -> type[np.floating[Any]]:
    """Return the NumPy type of sums and packed operands."""
    return np.float64 if dtype == "float64" else np.float32


def as_bias(bias: NDArray[Any] | None, zeros: NDArray[Any]) -> NDArray[Any]:
    """Return the bias, contiguous, of the zeros' type, the zeros where there is none."""
    if bias is None:
        return zeros
    if bias.dtype != zeros.dtype or not bias.flags.c_contiguous:
        return np.ascontiguousarray(bias, zeros.dtype)
    return bias


def in_weight_order(problem: ConvProblem, binding: Binding) -> bool:
    """Return whether a weight lies in memory in its logical order and in compute precision."""
    if problem.weight_dtype not in ("float32", "float64"):
        return False
    expected = problem.weight_itemsize
    for size, stride in zip(
        reversed(problem.weight_shape), reversed(binding.weight_strides), strict=True
    ):
        if stride != expected and size > 1:
            return False
        expected *= size
    return True


def worth_helpers(macs: int, threads: int) -> int:
    """Return how many threads a job of so many multiply-adds should be given."""
    return threads if macs > _SERIAL_MACS else 1


class Stage(NamedTuple):
    """Machine code at an address, and the number of its tasks."""

    kernel: int
    tasks: int


@dataclass(frozen=True, slots=True, eq=False)
class CpuPlan:
    """A CPU kernel made ready for one problem and one binding.

    Parameters
    ----------
    record : ndarray
        Geometry, see `record`.
    stages : tuple of Stage
        What a call runs, one after the other.
    workers : int
        Most threads on them.
    workspace_bytes : int
        Scratch memory of one call.
    compute : type
        NumPy type of sums; the bias is brought to it.
    bias_size : int
        Output channels.
    pack_stage : Stage or None
        The weight packer; None where the kernel reads the weight as it is (`in_weight_order`).
    pack_bytes : int
        Scratch memory of the weight packer.
    packed_size : int
        Elements of the packed weight.
    packing : hashable
        Names the order of the packed weight: plans with equal `packing` share it.
    """

    record: NDArray[Any]
    stages: tuple[Stage, ...]
    workers: int
    workspace_bytes: int
    compute: type[np.floating[Any]]
    bias_size: int
    pack_stage: Stage | None
    pack_bytes: int
    packed_size: int
    packing: Hashable
    tables: tuple[NDArray[Any], ...] = ()
    jobs: tuple[NDArray[np.int64], ...] = field(init=False)
    addresses: tuple[int, ...] = field(init=False)
    pack_workers: int = field(init=False)
    pack_address: int = field(init=False)
    no_bias: NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        geometry, pack = self.record.ctypes.data, self.pack_stage or Stage(0, 0)
        flush = int(self.record["flush"][0])
        pack_workers = worth_helpers(32 * self.packed_size, self.workers)
        pack_job = pool.make_job(pack.kernel, geometry, pack.tasks, pack_workers, flush)
        jobs = tuple(
            pool.make_job(stage.kernel, geometry, stage.tasks, self.workers, flush)
            for stage in self.stages
        )
        values = {
            "jobs": (*jobs, pack_job),  # kept alive for their addresses
            "addresses": tuple(job.ctypes.data for job in jobs),
            "pack_workers": pack_workers,
            "pack_address": pack_job.ctypes.data,
            "no_bias": np.zeros(self.bias_size, self.compute),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Return `weight` in the kernel's order."""
        if self.pack_stage is None:
            return weight
        packed = aligned(self.packed_size * np.dtype(self.compute).itemsize).view(self.compute)
        if config.poison_workspace:
            packed.fill(np.nan)
        scratch = borrow(self.pack_bytes)
        try:
            operands = (weight, None, None, None, packed, scratch)
            pool.run(self.pack_address, self.pack_workers, operands)
        finally:
            give_back(scratch)
        return packed

    def run(
        self,
        x: NDArray[Any],
        packed: NDArray[Any],
        bias: NDArray[Any] | None,
        extra: NDArray[Any] | None,
        out: NDArray[Any],
    ) -> None:
        """Compute into `out`; `extra` is a residual, or what else the kernel reads."""
        bias = as_bias(bias, self.no_bias)
        scratch = borrow(self.workspace_bytes)
        try:
            operands = (x, packed, bias, extra, out, scratch)
            for job in self.addresses:
                pool.run(job, self.workers, operands, self)
        finally:
            give_back(scratch)
