"""What sparse kernels that walk over rows have in common: a record, a rulebook's lists, stages.

A `RowPlan` is made for a problem and knows no rulebook. The addresses of a rulebook's lists go into
a record that is made when the plan first meets the rulebook, and kept with it (`Rulebook.derive`),
so that a call after the first one only runs machine code.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.rulebook import Rulebook
from fastconv.contract.spec import DeviceInfo

from ..runtime import pool
from ..runtime.plan import as_bias
from ..runtime.record import record_type
from ..runtime.scratch import borrow, give_back

__all__ = ["RowPlan", "RowStage", "reversed_lists", "row_blocks", "row_lists"]

#: Lists of a rulebook as machine code reads them, by the name of their field.
Lists = Mapping[str, NDArray[Any]]
_INPUTS = 4


def row_lists(rulebook: Rulebook) -> Lists:
    """Return the pairs of each output row."""
    return rulebook.pair_lists._asdict()


def reversed_lists(rulebook: Rulebook) -> Lists:
    """Return the pairs of each input row: offset and output row."""
    return rulebook.reverse().pair_lists._asdict()


def row_blocks(rows: int, device: DeviceInfo) -> tuple[int, int]:
    """Return the rows of a task, and the number of tasks.

    Enough tasks that the last to end keeps nobody waiting for long, of enough rows that taking one
    (some 50 ns) does not count.
    """
    block = max(16, -(-rows // (16 * device.threads)))
    return block, -(-rows // block)


@dataclass(frozen=True, slots=True, eq=False)
class RowStage:
    """Machine code, and the record that it reads.

    Parameters
    ----------
    kernel, tasks : int
        Address of the code, and the number of its tasks.
    values : mapping of str to number
        What the problem decides, by field.
    lists : callable
        Returns the arrays of a rulebook whose addresses the record holds, by field.
    """

    kernel: int
    tasks: int
    values: Mapping[str, float]
    lists: Callable[[Any], Lists]


class _Schedule(NamedTuple):
    """A plan's jobs for one rulebook, and what must live as long as their addresses are used."""

    addresses: tuple[int, ...]
    referenced: tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True, eq=False)
class RowPlan:
    """A sparse kernel made ready for one problem; immutable, so threads share it.

    Parameters
    ----------
    fields : tuple of str
        Names of the record's whole numbers, as the kernels' own `as_record` has them.
    stages : tuple of RowStage
        What a call runs, one after the other.
    workers : int
        Most threads on them.
    workspace_bytes : int
        Scratch memory of one call.
    packing : hashable
        Names the order of the packed weight.
    pack_weight : callable or None
        Brings a weight into that order; None for operators without one.
    no_bias : ndarray or None
        Zeros that stand for a bias that is None; None for operators without one.
    flush : bool
        Whether denormal numbers count as zero.
    """

    fields: tuple[str, ...]
    stages: tuple[RowStage, ...]
    workers: int
    workspace_bytes: int
    packing: Hashable = None
    pack_weight: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    no_bias: NDArray[Any] | None = None
    flush: bool = True

    def pack(self, weight: Any) -> Any:
        """Return `weight` in the kernel's order; as it is for operators without one."""
        return weight if self.pack_weight is None else self.pack_weight(weight)

    def _schedule(self, rulebook: Rulebook | None) -> _Schedule:
        jobs: list[NDArray[Any]] = []
        referenced: list[NDArray[Any]] = []
        for stage in self.stages:
            lists = stage.lists(rulebook)
            record = np.zeros(1, record_type(self.fields))
            for name, value in stage.values.items():
                record[name] = value
            for name, array in lists.items():
                record[name] = array.ctypes.data
            job = (stage.kernel, record.ctypes.data, stage.tasks, self.workers, int(self.flush))
            jobs.append(pool.make_job(*job))
            referenced += [record, *lists.values()]
        return _Schedule(tuple(job.ctypes.data for job in jobs), (*jobs, *referenced))

    def run(self, rulebook: Any, *arrays: Any) -> None:
        """Compute; the operands are those that `OPERANDS` names, the last one is written."""
        schedule: _Schedule = (
            self._schedule(None) if rulebook is None else rulebook.derive(self._schedule)
        )
        *inputs, out = arrays
        inputs += [None] * (_INPUTS - len(inputs))
        if self.no_bias is not None:
            inputs[2] = as_bias(inputs[2], self.no_bias)
        x, second, third, fourth = inputs
        scratch = borrow(self.workspace_bytes)
        try:
            operands = (x, second, third, fourth, out, scratch)
            for job in schedule.addresses:
                pool.run(job, self.workers, operands, self)
        finally:
            give_back(scratch)
