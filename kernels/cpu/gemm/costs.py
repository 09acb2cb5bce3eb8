"""What kernels of packed panels can run and cost: cycles of a task, for split.py and for dispatch.

No compiler is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ...taps import dilated_reasons, regions
from ..common.specs import cpu_spec, operand_bytes
from ..machine.seconds import call_seconds, profile
from ..simd.register_tiles import operand_tile
from .split import TaskCosts, choose_split, sums_at_once

__all__ = ["SPECS", "channel_row_costs", "direct_likely", "in_place_likely", "pixel_row_costs"]


def in_place_likely(problem: ConvProblem) -> bool:
    """Return whether pixels of a dense input are the columns of the matrix as they lie."""
    pointwise = math.prod(problem.kernel_size) == 1 and max(problem.stride) == 1
    padded = any(max(pair) for pair in problem.padding)
    return (
        pointwise and not padded and problem.layout == "channels_first"
        and problem.dtype in ("float32", "float64")
    )  # fmt: skip


def direct_likely(problem: ConvProblem, device: DeviceInfo) -> bool:
    """Return whether tiles store into a dense output: halves only where their sums are complete."""
    if problem.layout != "channels_first":
        return False
    full = problem.dtype in ("float32", "float64")
    return full or sums_at_once(problem, operand_tile(device, problem).depth)


def _pack_cycles(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return cycles to copy one pixel of one step: vectors, of which each row's end breaks one."""
    lanes = device.lanes(problem.compute_itemsize)
    channels = problem.in_channels // problem.groups
    step, costs = problem.stride[-1], profile(device).gemm
    if problem.layout != "channels_first" or step > 2:
        vector = costs.gathered + costs.gathered_element * lanes
    else:
        vector = costs.copied if step == 1 else costs.copied_pairs
        outgrows = math.prod(problem.x_shape[1:]) * problem.itemsize > device.l2 * device.threads
        if step > 1 and outgrows:
            vector += costs.waited / math.prod(problem.kernel_size)
    # Where a chunk of a tap begins is worked out once for all channels.
    vector += costs.placed / channels
    width = max(1, problem.out_size[-1])
    return vector * (1 / lanes + (1 / width if width % lanes else 0.0))


def _finish_cycles(problem: ConvProblem, device: DeviceInfo, direct: bool) -> float:
    """Return cycles for one output that is moved to its place behind the tiles."""
    if direct:
        return 0.0
    lanes, costs = device.lanes(problem.compute_itemsize), profile(device).gemm
    return costs.moved / lanes if problem.layout == "channels_first" else costs.scattered


def channel_row_costs(
    problem: ConvProblem, device: DeviceInfo, direct: bool, in_place: bool
) -> TaskCosts:
    """Return what a task of `im2col_gemm` takes."""
    size = problem.compute_itemsize
    return TaskCosts(
        tile=operand_tile(device, problem),
        swapped=False,
        pack=0.0 if in_place else _pack_cycles(problem, device),
        finish=_finish_cycles(problem, device, direct),
        kept=0 if direct else size,
    )


def pixel_row_costs(
    problem: ConvProblem, device: DeviceInfo, direct: bool, in_place: bool
) -> TaskCosts:
    """Return what a task of `swapped_gemm` takes."""
    size = problem.compute_itemsize
    lanes = device.lanes(size)
    # Turning a block of lanes x lanes: log2(lanes) shuffles for each vector, and what is beside.
    turn = (math.log2(lanes) + profile(device).gemm.turned_vector) / lanes
    return TaskCosts(
        tile=operand_tile(device, problem, swapped=True),
        swapped=True,
        pack=0.0 if in_place else _pack_cycles(problem, device),
        finish=turn + _finish_cycles(problem, device, direct),
        kept=size,
    )


def _no_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    return []


def _split_seconds(
    problem: ConvProblem,
    device: DeviceInfo,
    count: TaskCosts,
    pixels: tuple[tuple[int, int], ...],
    bandwidth: float,
) -> float:
    """Return the time of the best split of a task's count."""
    machine = profile(device)
    return call_seconds(
        choose_split(problem, device, count, pixels).cycles,
        operand_bytes(problem),
        clock=machine.core.sustained,
        bandwidth=bandwidth,
        start=machine.calls.start,
    )


def _gemm_seconds(
    problem: ConvProblem, device: DeviceInfo, count: Callable[..., TaskCosts], direct: bool
) -> float:
    """Return the time of a kernel that multiplies every pixel by every tap."""
    pixels = (math.prod(problem.out_size), math.prod(problem.kernel_size))
    made = count(problem, device, direct, in_place_likely(problem))
    return _split_seconds(problem, device, made, (pixels,), profile(device).memory.turns)


def _im2col_gemm_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    return _gemm_seconds(problem, device, channel_row_costs, direct_likely(problem, device))


def _swapped_gemm_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    direct = problem.layout == "channels_first"
    return profile(device).gemm.turned * _gemm_seconds(problem, device, pixel_row_costs, direct)


def _dilated_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    pixels = tuple(
        (math.prod(sizes), math.prod(end - first for first, end in zip(firsts, ends, strict=True)))
        for _, sizes, firsts, ends in regions(problem)
    )
    made = channel_row_costs(problem, device, direct=False, in_place=False)
    return _split_seconds(problem, device, made, pixels, profile(device).memory.operands)


SPECS = (
    cpu_spec("im2col_gemm", "gemm.channel_rows", _no_reasons, _im2col_gemm_cost),
    cpu_spec("swapped_gemm", "gemm.pixel_rows", _no_reasons, _swapped_gemm_cost),
    cpu_spec("dilated", "gemm.dilated", lambda problem, _: dilated_reasons(problem), _dilated_cost),
)
