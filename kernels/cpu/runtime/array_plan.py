"""What the plan of an operator without a weight is made of: machine code, a record and tasks.

Such a kernel is a `void(geometry, first, second, third, fourth, out, workspace, task, worker)`: of
the arrays of a call the last one is `out`, and those that are not there are zero.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.settings import config

from ...axes import name_axes
from . import pool
from .record import record_type
from .scratch import aligned, borrow, give_back

__all__ = ["ArrayPack", "ArrayPlan", "ArrayStage", "array_record", "name_strides"]

#: Arrays of a call before the last one.
_BEFORE = 4
#: What stands for the others, by how many there are.
_MISSING = tuple((None,) * (_BEFORE - there) for there in range(_BEFORE + 1))


class ArrayStage(NamedTuple):
    """Machine code at an address, the number of its tasks, and what it reads if not the plan's."""

    kernel: int
    tasks: int
    record: NDArray[Any] | None = None


class ArrayPack(NamedTuple):
    """How a weight is brought into a kernel's order, once for many calls.

    Parameters
    ----------
    stage : ArrayStage
        The packer: its first array is the weight and `out` what it is packed into.
    size, scratch : int
        Bytes of the packed weight, and of memory that the packer needs beside it.
    order : hashable
        Names the order: plans with an equal one share what is packed.
    """

    stage: ArrayStage
    size: int
    scratch: int
    order: Hashable


def array_record(
    fields: Sequence[str], values: Mapping[str, float], reals: Sequence[str] = ()
) -> NDArray[Any]:
    """Return a record of length 1 with `values` set; `as_record` of the same names reads it.

    Parameters
    ----------
    fields, reals : sequence of str
        A kernel's whole and real numbers beside those that every record has (see `record`).
    values : mapping of str to number
        Of these and of the common ones; what is not told is zero.
    """
    record = np.zeros(1, record_type(tuple(fields), tuple(reals)))
    for name, value in values.items():
        record[name] = value
    return record


def name_strides(letter: str, strides: Sequence[int]) -> dict[str, int]:
    """Return the strides of an ``(N, C, *spatial)`` array by field: letter and n, c, d, h or w.

    Examples
    --------
    >>> name_strides("x", (512, 256, 32, 4))
    {'xn': 512, 'xc': 256, 'xd': 0, 'xh': 32, 'xw': 4}
    """
    first = {f"{letter}n": strides[0], f"{letter}c": strides[1]}
    return first | name_axes(letter, strides[2:], 0)


@dataclass(frozen=True, slots=True, eq=False)
class ArrayPlan:
    """A kernel made ready for one problem and one binding; immutable, so threads share it.

    Parameters
    ----------
    record : ndarray
        What the machine code reads, see `array_record`; a stage may have one of its own.
    stages : tuple of ArrayStage
        What a call runs, one after the other.
    workers : int
        Most threads on them.
    workspace_bytes : int
        Scratch memory of one call.
    flush : bool
        Whether denormal numbers count as zero.
    tables : tuple of ndarray
        Memory whose addresses the record holds.
    packer : ArrayPack, optional
        How one of the inputs is packed; `run` is then given it packed.
    """

    record: NDArray[Any]
    stages: tuple[ArrayStage, ...]
    workers: int
    workspace_bytes: int = 0
    flush: bool = True
    tables: tuple[NDArray[Any], ...] = ()
    packer: ArrayPack | None = None
    jobs: tuple[NDArray[np.int64], ...] = field(init=False)
    addresses: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        jobs = tuple(
            pool.make_job(
                stage.kernel,
                (self.record if stage.record is None else stage.record).ctypes.data,
                stage.tasks,
                self.workers,
                int(self.flush),
            )
            for stage in self.stages
        )
        object.__setattr__(self, "jobs", jobs)  # kept alive for their addresses
        object.__setattr__(self, "addresses", tuple(job.ctypes.data for job in jobs))

    def run(self, *arrays: NDArray[Any]) -> None:
        """Compute: the arrays are the problem's inputs and then its outputs, the last one `out`."""
        if len(arrays) > _BEFORE + 1:
            more = np.array([each.ctypes.data for each in arrays[_BEFORE - 1 : -1]], np.int64)
            arrays = (*arrays[: _BEFORE - 1], more, arrays[-1])
        missing = _MISSING[len(arrays) - 1]
        scratch = borrow(self.workspace_bytes)
        try:
            operands: Any = (*arrays[:-1], *missing, arrays[-1], scratch)
            for job in self.addresses:
                pool.run(job, self.workers, operands, self)
        finally:
            give_back(scratch)

    @property
    def packing(self) -> Hashable:
        """Name of the packed weight's order; None where there is no such weight."""
        return None if self.packer is None else self.packer.order

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Return a weight in the kernel's order; itself where the kernel reads it as it is."""
        if self.packer is None:
            return weight
        stage, size, scratch_bytes, _ = self.packer
        packed = aligned(size)
        if config.poison_workspace:
            packed.fill(0xFF)  # NaN in every float type
        job = pool.make_job(
            stage.kernel, self.record.ctypes.data, stage.tasks, self.workers, int(self.flush)
        )
        scratch = borrow(scratch_bytes)
        try:
            operands = (weight, None, None, None, packed, scratch)
            pool.run(job.ctypes.data, self.workers, operands)
        finally:
            give_back(scratch)
        return packed
