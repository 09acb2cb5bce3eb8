"""What pools cost: vectors that are loaded and joined, counted. No compiler is imported."""

from __future__ import annotations

import math

from fastconv.contract.array_problem import dense_array_binding
from fastconv.contract.spec import DeviceInfo, KernelSpec
from fastconv.contract.unpool_problem import UnpoolProblem

from ..common.specs import array_seconds, array_spec
from ..machine.seconds import profile
from .geometry import LARGEST, NORM, AnyPool, Windows, lanes_along, spreads_along, windows_of
from .layout import split, split_spread, spread_memory, worker_bytes

__all__ = ["SPECS"]

#: Bytes of a worker's row buffer that a window may make necessary.
_MOST_BYTES = 256 << 20
#: Samples that a place may be counted from its window's first one: half of 32 bits.
_MOST_REACH = 1 << 31

#: Instructions that join a vector: a maximum that keeps NaN, a sum, a sum of powers.
_JOIN = {LARGEST: 3.0, NORM: 2.0}
#: Instructions of a tap where places ride along.
_PLACE = 6.0
#: Instructions of a power that is no product, an element.
_POWER = 40.0
#: Instructions of a sample that goes to a place: two addresses, a load, a sum, a store.
_PLACED = 8.0


def _reasons(problem: AnyPool, device: DeviceInfo) -> list[str]:
    windows = windows_of(problem)
    if worker_bytes(problem, device) > _MOST_BYTES:
        return [f"joins rows of a window in at most {_MOST_BYTES} bytes; this takes more"]
    if problem.return_indices:
        row, reach = 1, 0
        for size, taps, step in reversed(
            list(zip(problem.in_size, windows.kernel, windows.dilation, strict=True))
        ):
            reach += (taps - 1) * step * row
            row *= size
        if reach >= _MOST_REACH:
            return [f"counts places over less than {_MOST_REACH} samples; windows reach {reach}"]
    return []


def _row_vectors(problem: AnyPool, windows: Windows, lanes: int) -> tuple[float, float]:
    """Return vectors that are loaded and joined where lanes lie along a row."""
    rows = problem.batch * problem.channels * math.prod(problem.out_size[:-1])
    taps, step = windows.kernel[-1], windows.stride[-1]
    outputs, samples = (-(-size[-1] // lanes) for size in (problem.out_size, problem.in_size))
    if problem.return_indices:
        taps = math.prod(windows.kernel)
        return rows * outputs * taps * min(step, 2), rows * outputs * taps
    deep = math.prod(windows.kernel[:-1])
    return (
        rows * (samples * (deep + 1) + outputs * taps * min(step, lanes)),
        rows * (samples * (deep - 1) + outputs * (taps - 1) + outputs * (min(step, 4) - 1) * taps),
    )


def _seconds(problem: AnyPool, device: DeviceInfo) -> float:
    lanes, core = device.lanes(problem.compute_itemsize), profile(device).core
    windows, along = windows_of(problem), lanes_along(problem, dense_array_binding(problem))
    if along == "row":
        loads, joins = _row_vectors(problem, windows, lanes)
    else:
        taps = math.prod(windows.kernel)
        outputs = problem.batch * math.prod(problem.out_size) * -(-problem.channels // lanes)
        loads = joins = outputs * taps
        if along == "plane":
            loads = joins = problem.batch * problem.channels * -(-taps // lanes)
    each = _PLACE if problem.return_indices else _JOIN.get(windows.rule, 1.0)
    if windows.rule == NORM and windows.degree == 0:
        each += _POWER * lanes
    cycles = loads / core.loads + joins * each / core.multiply_adds
    return array_seconds(problem, device, cycles, split(problem, along, device).tasks)


def _spread_reasons(problem: AnyPool, device: DeviceInfo) -> list[str]:
    if spread_memory(problem, device).fields["worker_bytes"] > _MOST_BYTES:
        return [f"adds rows up in at most {_MOST_BYTES} bytes; this takes more"]
    return []


def _spread_seconds(problem: AnyPool, device: DeviceInfo) -> float:
    """Count the windows that see a sample: a load and a sum each, by one axis after the other."""
    lanes, core = device.lanes(problem.compute_itemsize), profile(device).core
    windows = windows_of(problem)
    along = spreads_along(problem, dense_array_binding(problem))
    seen = [-(-k // s) for k, s in zip(windows.kernel, windows.stride, strict=True)]
    if along == "channels":
        vectors = math.prod(problem.in_size) * -(-problem.channels // lanes)
        sums = vectors * math.prod(seen)
    else:
        vectors = problem.channels * math.prod(problem.in_size[:-1])
        vectors *= -(-problem.in_size[-1] // lanes)
        sums = vectors * (math.prod(seen[:-1]) + seen[-1])
    cycles = problem.batch * (sums / core.loads + (sums + vectors) / core.multiply_adds)
    return array_seconds(problem, device, cycles, split_spread(problem, along, device).tasks)


def _unpool_reasons(problem: UnpoolProblem, device: DeviceInfo) -> list[str]:
    return []


def _unpool_seconds(problem: UnpoolProblem, device: DeviceInfo) -> float:
    """Count an element at a time."""
    tasks = problem.batch * problem.channels
    return array_seconds(problem, device, _PLACED * problem.flops, tasks)


def _spec(op: str) -> KernelSpec:
    return array_spec(op, "pool.plan", op, _reasons, _seconds)


def _spread_spec(op: str) -> KernelSpec:
    return array_spec(op, "pool.spread", op, _spread_reasons, _spread_seconds)


def _unpool_spec(op: str) -> KernelSpec:
    return array_spec(op, "pool.unpool", op, _unpool_reasons, _unpool_seconds)


SPECS = (
    *map(_spec, ("max_pool", "avg_pool", "lp_pool", "adaptive_max_pool", "adaptive_avg_pool")),
    *map(_spread_spec, ("avg_pool_grad", "adaptive_avg_pool_grad")),
    *map(_unpool_spec, ("max_unpool", "max_pool_grad", "max_unpool_grad")),
)
