"""What dense layers of few rows cost: cycles, counted. No compiler is imported."""

from __future__ import annotations

import math

from fastconv.contract.linear_problem import MOST_ROWS, LinearProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import array_seconds, array_spec

__all__ = ["SPECS", "features_of_task"]

#: Bytes of the weight that a task reads, about.
_TASK_BYTES = 64 << 10


def features_of_task(problem: LinearProblem, device: DeviceInfo) -> int:
    """Return the output features of a task, whole vectors of them."""
    lanes = device.lanes(problem.compute_itemsize)
    vector = lanes * problem.channels * problem.itemsize
    return lanes * max(1, min(_TASK_BYTES // vector, -(-problem.out_channels // lanes)))


def _reasons(problem: LinearProblem, device: DeviceInfo) -> list[str]:
    if problem.in_size[0] > MOST_ROWS:
        return [f"keeps the sums of at most {MOST_ROWS} rows; here are {problem.in_size[0]}"]
    return []


def _seconds(problem: LinearProblem, device: DeviceInfo) -> float:
    vectors = math.ceil(problem.channels / device.lanes(problem.compute_itemsize))
    cycles = problem.out_channels * (vectors * max(1.0, problem.in_size[0] / 2) + 8.0)
    tasks = -(-problem.out_channels // features_of_task(problem, device))
    return array_seconds(problem, device, cycles, tasks)


SPECS = (array_spec("linear", "linear.plan", "linear", _reasons, _seconds),)
