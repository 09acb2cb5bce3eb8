"""A call's accesses to memory as the emulator counts them, in place of those that are assumed.

The call is run once, on zeros. What is counted of each launch (see `emulator.counters`):

    shared      wavefronts of the banks, conflicts among them 128 bytes each
                sectors of global memory, read and written     32 bytes each, through the same L1
    requested   sectors that requests write, 32 bytes each, beside what blocks are assumed to read:
                L1 passes every store on to L2, a sector in two parts twice

What stays assumed: bytes of memory, and those read from L2, since the emulator has no caches. The
arithmetic is that of whole tiles, as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.errors import DeviceError
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import Binding, CudaInfo

from ..common.launch import emulation
from ..common.roofline import LaunchCost
from ..emulator import Checks, Report
from ..specs import SPECS

__all__ = ["CountedCall", "count_call"]

_SECTOR, _WAVEFRONT = 32, 128


@dataclass(frozen=True, slots=True)
class CountedCall:
    """The launches of a call, as the emulator counted them.

    Parameters
    ----------
    works : tuple of Work
        The launches.
    sectors, conflicts : float
        Sectors a request of global memory; wavefronts of the banks for each that was needed.
    """

    launches: tuple[LaunchCost, ...]
    sectors: float
    conflicts: float


def count_call(
    kernel: str, problem: ConvProblem, device: CudaInfo, launches: Sequence[LaunchCost]
) -> CountedCall:
    """Run a call in the emulator and count its accesses.

    Parameters
    ----------
    kernel, problem, device
        What runs, on a model of which tiles and splits are chosen.
    works : sequence of Work
        Its launches with assumed accesses, in order.
    """
    reports = _run(kernel, problem, device)
    if any(report.uncounted for report in reports):
        raise DeviceError(f"{kernel}: too many accesses between two barriers to count them all")
    pairs = zip(launches, reports, strict=True)
    counted = tuple(_with_counts(work, report) for work, report in pairs)
    shared = _total(reports, "shared", "cost"), _total(reports, "shared", "least")
    requests = max(1, _total(reports, "global", "requests"))
    sectors = _total(reports, "global", "cost") / requests
    return CountedCall(counted, sectors, shared[0] / shared[1] if shared[1] else 1.0)


def _run(kernel: str, problem: ConvProblem, device: CudaInfo) -> list[Report]:
    """Return what each launch of a call showed; the weight is packed before."""
    (spec,) = (candidate for candidate in SPECS if candidate.name == kernel)
    module, _, function = spec.target.partition(":")
    x, out = (_zeros(problem, shape) for shape in (problem.x_shape, problem.out_shape))
    weight = np.zeros(problem.weight_shape, x.dtype)
    binding = Binding(x.strides, weight.strides, out.strides)
    plan = getattr(import_module(module), function)(problem, binding, device)
    packed = plan.pack(weight)
    with emulation(checks=Checks.COUNTS) as reports:
        plan.run(x, packed, None, None, out)
    return reports


def _zeros(problem: ConvProblem, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return zeros in the problem's memory order; halves as the words that kernels see."""
    dtype = np.dtype(np.uint16 if problem.itemsize == 2 else problem.dtype)
    if problem.layout != "channels_last":
        return np.zeros(shape, dtype)
    return np.moveaxis(np.zeros((shape[0], *shape[2:], shape[1]), dtype), -1, 1)


def _total(reports: Iterable[Report], space: str, what: str, kind: str | None = None) -> int:
    return sum(
        getattr(access, what)
        for report in reports
        for access in report.accesses
        if access.space == space and kind in (None, access.kind)
    )


def _with_counts(work: LaunchCost, report: Report) -> LaunchCost:
    """Return a launch with its accesses as counted; one that only moves bytes has no blocks."""
    wavefronts, sectors = _total([report], "shared", "cost"), _total([report], "global", "cost")
    moved = wavefronts * _WAVEFRONT + sectors * _SECTOR
    stored = _total([report], "global", "cost", "store") * _SECTOR
    shared = moved // work.blocks if work.blocks else 0
    return replace(work, shared=shared, requested=work.requested + stored)
