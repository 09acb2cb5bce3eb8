"""What the tables of all mechanisms share: tolerances, bytes of operands, how a spec is written.

No compiler is imported here or in any `costs.py`, so that explaining and choosing are cheap; a
kernel's module is imported when it first runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fastconv.contract import first_use
from fastconv.contract.array_problem import BYTES, ArrayProblem
from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo, KernelSpec, Tolerance

from ...tolerance import TOLERANCE
from ..machine.seconds import call_seconds, copy_seconds, profile

__all__ = [
    "MOST_PLANES",
    "array_bytes",
    "array_seconds",
    "array_spec",
    "cpu_spec",
    "extent_reasons",
    "operand_bytes",
    "plain_pack_cost",
]

#: Input channels of a group times kernel depth that a kernel of windows copies at once.
MOST_PLANES = 64

#: Bytes over which the taps of a kernel that copies its padded input may reach.
_MOST_EXTENT = 256 << 20


def _ask_workspace(module: str, variant: tuple[int, ...]) -> Callable[[Any, DeviceInfo], int]:
    """Return a function that asks a kernel's module for its workspace."""

    def workspace(problem: Any, device: DeviceInfo) -> int:
        planner = first_use.load(f"fastconv.kernels.cpu.{module}")
        return int(planner.workspace(problem, device, *variant))

    return workspace


def operand_bytes(problem: ConvProblem) -> int:
    """Return the bytes of all operands."""
    return (
        problem.itemsize * math.prod(problem.x_shape)
        + problem.weight_itemsize * math.prod(problem.weight_shape)
        + problem.out_itemsize * math.prod(problem.out_shape)
    )


def plain_pack_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    """Count nothing for a weight that is read as it lies; the halves are widened."""
    return copy_seconds(problem, device) if problem.weight_itemsize < 4 else 0.0


def extent_reasons(problem: ConvProblem) -> list[str]:
    """Return why a kernel that may copy what lies under its taps is not for taps so far apart."""
    along = zip(problem.kernel_size, problem.dilation, strict=True)
    longest = max((taps - 1) * step + 1 for taps, step in along)
    copied = problem.in_channels // problem.groups * longest * problem.compute_itemsize
    if copied > _MOST_EXTENT:
        return [f"copies what its taps reach over, at most {_MOST_EXTENT} bytes; here {copied}"]
    return []


def cpu_spec(
    name: str,
    module: str,
    reasons: Callable[[Any, DeviceInfo], list[str]],
    cost: Callable[[Any, DeviceInfo], float],
    op: str = "conv",
    plan: str = "plan",
    variant: tuple[int, ...] = (),
    tolerance: Mapping[str, Tolerance] = TOLERANCE,
    pack_cost: Callable[[Any, DeviceInfo], float] = copy_seconds,
    exact: bool = True,
) -> KernelSpec:
    """Return the spec of a kernel whose module has `plan` and `workspace`.

    Parameters
    ----------
    name : str
        Without the device.
    module : str
        Below ``fastconv.kernels.cpu``.
    reasons, cost, op, tolerance, pack_cost, exact
        Of `KernelSpec`.
    plan : str
        Name of the function that plans, where a module has several.
    variant : tuple of int
        What `workspace` is given after problem and device, where a module's plans differ in it.
    """
    return KernelSpec(
        name=f"cpu.{name}",
        op=op,
        device="cpu",
        reasons=reasons,
        cost=cost,
        target=f"fastconv.kernels.cpu.{module}:{plan}",
        workspace=_ask_workspace(module, variant),
        tolerance=tolerance,
        exact=exact,
        pack_cost=pack_cost,
    )


def _nothing(problem: ArrayProblem, device: DeviceInfo) -> float:
    """Count nothing for packing: there is no weight."""
    return 0.0


def array_bytes(problem: ArrayProblem) -> int:
    """Return the bytes of all operands of a problem without a weight."""
    operands = (*problem.inputs, *problem.outputs)
    return sum(
        BYTES.get(operand.dtype, problem.itemsize) * math.prod(operand.shape)
        for operand in operands
    )


def array_seconds(problem: ArrayProblem, device: DeviceInfo, cycles: float, tasks: int) -> float:
    """Return the time of so many cycles, over all threads and tasks, beside the operands' bytes."""
    machine = profile(device)
    cycles += tasks * machine.calls.task
    return call_seconds(
        cycles, array_bytes(problem), clock=machine.core.sustained,
        bandwidth=machine.memory.operands, start=machine.calls.start,
        workers=max(1, min(tasks, device.threads)),
    )  # fmt: skip


def array_spec(
    name: str,
    module: str,
    op: str,
    reasons: Callable[[Any, DeviceInfo], list[str]],
    cost: Callable[[Any, DeviceInfo], float],
    plan: str = "plan",
    tolerance: Mapping[str, Tolerance] = TOLERANCE,
) -> KernelSpec:
    """Return the spec of a kernel of an operator without a weight; arguments as for `cpu_spec`."""
    return cpu_spec(name, module, reasons, cost, op, plan, tolerance=tolerance, pack_cost=_nothing)
