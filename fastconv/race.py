"""Measuring which of a problem's kernels is the fastest, with the arrays of a call.

The kernels of lowest predicted cost run in turn; what `fastconv.tuning` remembers of it is the
dispatcher's choice from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from . import tuning
from .contract.spec import ConvPlan, KernelSpec
from .device_arrays import DeviceArray
from .dispatch import Problem, calls_of_weight, keep_choice, list_candidates, settings, tuned_choice

__all__ = ["Operands", "measure_choice", "trial"]

#: Kernels that tuning measures, those of lowest predicted cost.
_MEASURED = 3


class Operands(NamedTuple):
    """The arrays of one call; `out` is written to."""

    x: Any
    weight: Any
    bias: Any | None
    residual: Any | None
    out: Any


def measure_choice(
    problem: Problem, packed: bool, prepare: Callable[[KernelSpec, bool], Callable[[], None]]
) -> bool:
    """Measure the kernels of lowest predicted cost, unless that was done, and remember the fastest.

    Parameters
    ----------
    problem : ConvProblem, SparseProblem or ArrayProblem
        What is computed.
    packed : bool
        Whether the weight is packed once for many calls, or in each call.
    prepare : callable
        ``prepare(spec, once)`` returns a call of one kernel, which packs its weight before or in
        it.

    Returns
    -------
    bool
        Whether something was measured.
    """
    if tuning.must_not_race():
        return False
    with tuning.lock:
        if settings()[0] or tuned_choice(problem, packed) is not None:
            return False
        candidates = list_candidates(problem, packed)
        able = [candidate for candidate in candidates if not candidate.reasons]
        able.sort(key=lambda candidate: candidate.seconds)
        if len(able) < 2:
            return False
        once = packed or calls_of_weight(problem) > 1
        specs = [candidate.spec for candidate in able[:_MEASURED]]
        choice = tuning.race({spec.name: prepare(spec, once) for spec in specs})
        keep_choice(problem, packed, choice)
    return True


def trial(plan: ConvPlan, operands: Operands, packed: bool) -> Callable[[], None]:
    """Return a call of one kernel that packs its weight before or in it."""
    x, weight, bias, residual, out = operands
    packed_before = plan.pack(weight) if packed else None

    def call() -> None:
        plan.run(
            x, plan.pack(weight) if packed_before is None else packed_before, bias, residual, out
        )
        if isinstance(x, DeviceArray):
            x.synchronize()

    return call
