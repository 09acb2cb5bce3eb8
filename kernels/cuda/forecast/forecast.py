"""The roofline forecast of one call: what dispatch counts, told in full.

A forecast is no measurement. It says how long a call takes if nothing but the counted bounds holds
it up (see `roofline`); `NOT_COUNTED` says what that leaves out. Its time is the cost by which
dispatch chooses, from the same function. Nothing here imports a compiler, unless the call is run in
the emulator to count what its accesses cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import CudaInfo

from ..common.roofline import BOUNDS, LaunchCost, bounds, breakdown
from ..specs import LAUNCHES

__all__ = ["COUNTED", "EMULATED", "NOT_COUNTED", "Forecast", "forecast"]

COUNTED = (
    "multiply-adds of whole tiles at the boost clock, by the share of them in the compiled main "
    "loop; bytes of shared memory over its banks; idle units in the last round of blocks; bytes of "
    "input, packed weight, output and workspace once a launch; bytes that blocks read, once a "
    "block, over the ports to L2; 4 microseconds a launch"
)
EMULATED = (
    "in the emulator, access by access: wavefronts of the banks, and sectors read and written, "
    "over the 128 bytes a cycle of L1 and shared memory (the bound shared); sectors written over "
    "the ports to L2 (the bound l2)"
)
NOT_COUNTED = (
    "latency that too few warps leave open, bank conflicts, the slices of L2, what stays in L2 "
    "from one launch to the next, the table of steps, arithmetic of epilogues and of Winograd's "
    "transforms, packing the weight, clocks below the boost clock"
)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one call of a kernel is forecast to take on a GPU model.

    Parameters
    ----------
    kernel, gpu : str
        Names of the kernel and the model.
    problem : str
        The problem's line.
    forecast_ms : float
        Milliseconds of the call: over its launches, the greatest bound of each and its start.
    bounds_ms : dict of str to float
        Milliseconds of each bound over all launches, whether it decides or not: arithmetic, shared
        (memory), waves (idle units, on top of either), memory, l2, launch.
    decides : str
        The bound that most of `forecast_ms` is due to.
    launches : int
        Kernels that the call starts.
    blocks : int
        Blocks of the launch with most arithmetic.
    rounds : float
        How often those blocks fill the device.
    memory_bytes, l2_bytes : int
        Bytes moved to and from memory, and read by the blocks.
    sectors : float or None
        Sectors of 32 bytes that a warp's request of global memory touches on average; None unless
        the call was run in the emulator.
    conflicts : float or None
        Wavefronts of the banks of shared memory for each that was needed, as counted there.
    """

    kernel: str
    gpu: str
    problem: str
    forecast_ms: float
    bounds_ms: dict[str, float]
    decides: str
    launches: int
    blocks: int
    rounds: float
    memory_bytes: int
    l2_bytes: int
    sectors: float | None = None
    conflicts: float | None = None


def forecast(kernel: str, problem: ConvProblem, device: CudaInfo, count: bool = False) -> Forecast:
    """Forecast a call whose weight is packed.

    Parameters
    ----------
    kernel : str
        Name of a CUDA kernel that can run the problem.
    problem : ConvProblem
        What is computed.
    device : CudaInfo
        The GPU model, say one of `fastconv.cuda_device.MODELS`.
    count : bool
        Whether to run the call in the emulator and take what it counted (see `emulated_launches`).

    Returns
    -------
    Forecast
        As values.

    Examples
    --------
    >>> from fastconv.cuda_device import MODELS
    >>> from fastconv.contract.problem_line import parse_line
    >>> problem, _ = parse_line("mb64ic256ih56oc256kh3ph1")
    >>> found = forecast("cuda.implicit_gemm", problem, MODELS["A100"])
    >>> found.decides, found.launches
    ('arithmetic', 1)
    """
    launches = LAUNCHES[kernel](problem, device)
    if not count:
        return _forecast(kernel, problem, device, launches)
    from .emulated_launches import count_call

    counted = count_call(kernel, problem, device, launches)
    forecast = _forecast(kernel, problem, device, counted.launches)
    return replace(forecast, sectors=counted.sectors, conflicts=counted.conflicts)


def _forecast(
    kernel: str, problem: ConvProblem, device: CudaInfo, launches: tuple[LaunchCost, ...]
) -> Forecast:
    by_launch = [bounds(work, device) for work in launches]
    parts = breakdown(launches, device)
    main = max(launches, key=lambda work: work.blocks * work.macs)
    return Forecast(
        kernel=kernel,
        gpu=device.name,
        problem=problem.line(),
        forecast_ms=1e3 * sum(parts.values()),
        bounds_ms={name: 1e3 * sum(seconds[name] for seconds in by_launch) for name in BOUNDS},
        decides=max(parts, key=lambda name: parts[name]),
        launches=len(launches),
        blocks=main.blocks,
        rounds=main.blocks / (device.multiprocessors * main.resident),
        memory_bytes=sum(work.read + work.written for work in launches),
        l2_bytes=sum(work.requested for work in launches),
    )
