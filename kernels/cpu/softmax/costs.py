"""What a softmax costs: cycles, counted. No compiler is imported."""

from __future__ import annotations

import math

from fastconv.contract.softmax_problem import SoftmaxProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import array_seconds, array_spec

__all__ = ["SPECS", "across_block", "run_tasks"]

#: Cycles of a vector: exponential, comparison, product, loads and stores.
_VECTOR = 28.0
#: Cycles of a vector that is copied into scratch memory and back, or transposed twice.
_COPIED, _TRANSPOSED = 4.0, 14.0
#: Cycles of one sum along the lanes: reductions, a division, a last vector.
_SUM = 120.0
#: Cycles of a vector whose elements are gathered and scattered.
_GATHERED = 120.0
#: Elements of a task whose sums are along the lanes.
_TASK_ELEMENTS = 1 << 14
#: Most pixels of a block across the lanes, the bytes that it is to have, and may have.
_PIXELS, _BYTES, _MOST_BYTES = 2048, 1 << 18, 1 << 26


def run_tasks(problem: SoftmaxProblem) -> int:
    """Return the tasks of sums along the lanes: some thousand elements each."""
    sums = problem.batch * math.prod(problem.in_size)
    each = max(1, _TASK_ELEMENTS // problem.channels)
    return -(-sums // each)


def across_block(problem: SoftmaxProblem, device: DeviceInfo) -> int:
    """Return the pixels that a task across the lanes copies at once: whole vectors."""
    lanes, size = device.lanes(problem.compute_itemsize), problem.compute_itemsize
    pixels = problem.batch * math.prod(problem.in_size)
    fitting = min(_PIXELS, _BYTES // (problem.channels * size), pixels + lanes - 1)
    return max(1, fitting // lanes) * lanes


def _along(problem: SoftmaxProblem, device: DeviceInfo) -> float:
    """Count sums along the lanes: short ones do not fill them."""
    lanes = device.lanes(problem.compute_itemsize)
    dense = problem.layout == "channels_last" or problem.in_size == (1,)
    sums = problem.batch * math.prod(problem.in_size)
    vector = _VECTOR if dense else 2 * _VECTOR + _GATHERED
    cycles = sums * (_SUM + vector * -(-problem.channels // lanes))
    return array_seconds(problem, device, cycles, run_tasks(problem))


def _across(problem: SoftmaxProblem, device: DeviceInfo) -> float:
    """Count sums across the lanes, where vectors lie along the last axis, or are transposed."""
    lanes = device.lanes(problem.compute_itemsize)
    size = math.prod(problem.in_size)
    if problem.layout == "channels_first" and size > 1:
        pixels, moved = problem.batch * -(-size // lanes) * lanes, _COPIED
    else:
        pixels, moved = -(-problem.batch * size // lanes) * lanes, _TRANSPOSED
        moved = moved if problem.layout != "strided" else _GATHERED
    cycles = (_VECTOR + moved) * pixels / lanes * problem.channels
    tasks = max(1, pixels // across_block(problem, device))
    return array_seconds(problem, device, cycles, tasks)


def _nothing_against(problem: SoftmaxProblem, device: DeviceInfo) -> list[str]:
    return []


def _too_large(problem: SoftmaxProblem, device: DeviceInfo) -> list[str]:
    copied = across_block(problem, device) * problem.channels * problem.compute_itemsize
    if copied > _MOST_BYTES:
        return [f"copies the channels of a vector, at most {_MOST_BYTES} bytes; here {copied}"]
    return []


SPECS = tuple(
    array_spec(f"{op}_{name}", f"softmax.{name}", op, reasons, cost)
    for op in ("softmax", "log_softmax")
    for name, reasons, cost in (
        ("along", _nothing_against, _along),
        ("across", _too_large, _across),
    )
)
