"""What a softmax costs: cycles, counted. No compiler is imported."""

from __future__ import annotations

import math

from fastconv.contract.softmax_problem import SoftmaxProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import array_seconds, array_spec

__all__ = ["SPECS", "run_tasks"]

#: Cycles of a vector: exponential, comparison, product, loads and stores.
_VECTOR = 24.0
#: Times an element that is not reached by a whole vector's load costs more.
_GATHERED = 4.0
#: Sums that are worth a task.
_TASK_ELEMENTS = 1 << 14


def run_tasks(problem: SoftmaxProblem) -> int:
    """Return the tasks of sums along the lanes: some thousand elements each."""
    sums = problem.batch * math.prod(problem.in_size)
    each = max(1, _TASK_ELEMENTS // problem.channels)
    return -(-sums // each)


def _cycles(problem: SoftmaxProblem, device: DeviceInfo) -> float:
    lanes = device.lanes(problem.compute_itemsize)
    return _VECTOR * -(-math.prod(problem.x_shape) // lanes)


def _along(problem: SoftmaxProblem, device: DeviceInfo) -> float:
    """Count sums along the lanes: short ones do not fill them."""
    lanes = device.lanes(problem.compute_itemsize)
    filled = problem.channels / (-(-problem.channels // lanes) * lanes)
    dense = problem.layout == "channels_last" or problem.in_size == (1,)
    cycles = _cycles(problem, device) / filled * (1.0 if dense else _GATHERED)
    return array_seconds(problem, device, cycles, run_tasks(problem))


def _across(problem: SoftmaxProblem, device: DeviceInfo) -> float:
    """Count sums across the lanes, and that vectors lie along the last axis."""
    dense = problem.layout == "channels_first" and problem.in_size != (1,)
    cycles = 1.1 * _cycles(problem, device) * (1.0 if dense else _GATHERED)
    return array_seconds(problem, device, cycles, run_tasks(problem))


def _reasons(problem: SoftmaxProblem, device: DeviceInfo) -> list[str]:
    return []


SPECS = tuple(
    array_spec(f"{op}_{name}", f"softmax.{name}", op, _reasons, cost)
    for op in ("softmax", "log_softmax")
    for name, cost in (("along", _along), ("across", _across))
)
