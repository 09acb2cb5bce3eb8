"""What pools cost: cycles, counted. No compiler is imported."""

from __future__ import annotations

from fastconv.contract.pool_problem import PoolProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import array_seconds, array_spec

__all__ = ["SPECS", "tasks"]


def tasks(problem: PoolProblem) -> int:
    """Return the tasks of a call: a channel of an image each."""
    return problem.batch * problem.channels


def _reasons(problem: PoolProblem, device: DeviceInfo) -> list[str]:
    return []


def _seconds(problem: PoolProblem, device: DeviceInfo) -> float:
    return array_seconds(problem, device, 3.0 * problem.flops, tasks(problem))


SPECS = (array_spec("max_pool", "pool.plan", "max_pool", _reasons, _seconds),)
