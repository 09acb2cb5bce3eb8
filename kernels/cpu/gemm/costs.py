"""What kernels of packed panels can run and cost: cycles of a task, for split.py and for dispatch.

No compiler is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo, dense_binding

from ...taps import Region, dilated_reasons, regions, whole
from ...tolerance import INTEGER_TOLERANCE
from ..common.specs import cpu_spec, operand_bytes
from ..machine.seconds import call_seconds, profile
from ..simd.register_tiles import operand_tile
from .in_place import InPlace, channel_rows_in_place, pixel_rows_in_place
from .split import Split, TaskCosts, choose_split

__all__ = [
    "SPECS",
    "channel_row_split",
    "pack_cycles",
    "pixel_row_split",
    "transpose_cycles",
]


def pack_cycles(problem: ConvProblem, device: DeviceInfo) -> float:
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


def transpose_cycles(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return cycles for a vector of a square that is transposed: its shuffles and the rest."""
    lanes = device.lanes(problem.compute_itemsize)
    return math.log2(lanes) + profile(device).gemm.transposed_vector


def _epilogue_cycles(problem: ConvProblem, device: DeviceInfo, direct: bool) -> float:
    """Return cycles for one output that is moved to its place behind the tiles."""
    if direct:
        return 0.0
    lanes, costs = device.lanes(problem.compute_itemsize), profile(device).gemm
    return costs.moved / lanes if problem.layout == "channels_first" else costs.scattered


def channel_row_split(
    problem: ConvProblem, device: DeviceInfo, regions: Sequence[Region], in_place: InPlace
) -> Split:
    """Return the split of channel_rows.py, by what a task of it takes."""
    task = TaskCosts(
        tile=operand_tile(device, problem),
        rows_are_pixels=False,
        pack=0.0 if in_place.reads else pack_cycles(problem, device),
        epilogue=_epilogue_cycles(problem, device, in_place.stores),
        sum_bytes=0 if in_place.stores else problem.compute_itemsize,
    )
    pixels = tuple(
        (math.prod(sizes), math.prod(end - first for first, end in zip(firsts, ends, strict=True)))
        for _, sizes, firsts, ends in regions
    )
    return choose_split(problem, device, task, pixels)


def pixel_row_split(problem: ConvProblem, device: DeviceInfo, in_place: InPlace) -> Split:
    """Return the split of pixel_rows.py, by what a task of it takes."""
    size = problem.compute_itemsize
    transpose = transpose_cycles(problem, device) / device.lanes(size)
    task = TaskCosts(
        tile=operand_tile(device, problem, rows_are_pixels=True),
        rows_are_pixels=True,
        pack=0.0 if in_place.reads else pack_cycles(problem, device),
        epilogue=transpose + _epilogue_cycles(problem, device, in_place.stores),
        sum_bytes=size,
    )
    pixels = (math.prod(problem.out_size), math.prod(problem.kernel_size))
    return choose_split(problem, device, task, (pixels,))


def _no_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    return []


def _seconds(problem: ConvProblem, device: DeviceInfo, split: Split, bandwidth: float) -> float:
    """Return the time of tasks that are split so."""
    machine = profile(device)
    return call_seconds(
        split.cycles,
        operand_bytes(problem),
        clock=machine.core.sustained,
        bandwidth=bandwidth,
        start=machine.calls.start,
    )


def _channel_row_cost(
    problem: ConvProblem, device: DeviceInfo, cut: Sequence[Region], bandwidth: float
) -> float:
    in_place = channel_rows_in_place(problem, dense_binding(problem), device, cut)
    return _seconds(problem, device, channel_row_split(problem, device, cut, in_place), bandwidth)


def _im2col_gemm_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    return _channel_row_cost(
        problem, device, whole(problem), profile(device).memory.scattered_writes
    )


def _dilated_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    return _channel_row_cost(problem, device, regions(problem), profile(device).memory.operands)


def _swapped_gemm_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    in_place = pixel_rows_in_place(problem, dense_binding(problem))
    split, machine = pixel_row_split(problem, device, in_place), profile(device)
    return machine.gemm.transposed * _seconds(
        problem, device, split, machine.memory.scattered_writes
    )


def _dilated_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    return dilated_reasons(problem)


SPECS = tuple(
    cpu_spec(name, f"gemm.{module}", reasons, cost, tolerance=INTEGER_TOLERANCE)
    for name, module, reasons, cost in (
        ("im2col_gemm", "channel_rows", _no_reasons, _im2col_gemm_cost),
        ("swapped_gemm", "pixel_rows", _no_reasons, _swapped_gemm_cost),
        ("dilated", "dilated", _dilated_reasons, _dilated_cost),
    )
)
