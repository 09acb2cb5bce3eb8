"""What kernels of packed panels can run and cost: cycles of a task, for split.py and for dispatch.

No compiler is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ...taps import dilated_reasons, regions
from ..common.specs import conv_spec, operand_bytes
from ..simd.register_tiles import operand_tile
from .split import HERTZ, Count, choose_split, sums_at_once

__all__ = ["SPECS", "direct_likely", "im2col_count", "in_place_likely", "swapped_count"]

#: Cycles to place a chunk for one tap.
_PLACE = 30
#: Cycles that a vector of a strided row waits for a large input, of which it takes every other
#: element; shared by the taps that meet it.
_WAIT = 36


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
    step = problem.stride[-1]
    if problem.layout != "channels_first" or step > 2:
        vector = 4.0 + 2.0 * lanes  # gathered
    else:
        vector = 6.0 if step == 1 else 9.0
        outgrows = math.prod(problem.x_shape[1:]) * problem.itemsize > device.l2 * device.threads
        if step > 1 and outgrows:
            vector += _WAIT / math.prod(problem.kernel_size)
    # Where a chunk of a tap begins is worked out once for all channels.
    vector += _PLACE / channels
    width = max(1, problem.out_size[-1])
    return vector * (1 / lanes + (1 / width if width % lanes else 0.0))


def _finish_cycles(problem: ConvProblem, device: DeviceInfo, direct: bool) -> float:
    """Return cycles for one output that is moved to its place behind the tiles."""
    if direct:
        return 0.0
    lanes = device.lanes(problem.compute_itemsize)
    return 10.0 / lanes if problem.layout == "channels_first" else 2.5


def im2col_count(problem: ConvProblem, device: DeviceInfo, direct: bool, in_place: bool) -> Count:
    """Return what a task of `im2col_gemm` takes."""
    size = problem.compute_itemsize
    return Count(
        tile=operand_tile(device, problem),
        swapped=False,
        pack=0.0 if in_place else _pack_cycles(problem, device),
        finish=_finish_cycles(problem, device, direct),
        kept=0 if direct else size,
    )


def swapped_count(problem: ConvProblem, device: DeviceInfo, direct: bool, in_place: bool) -> Count:
    """Return what a task of `swapped_gemm` takes."""
    size = problem.compute_itemsize
    lanes = device.lanes(size)
    # Turning a block of lanes x lanes: log2(lanes) shuffles, a load and a store for each vector.
    turn = (math.log2(lanes) + 5) / lanes
    return Count(
        tile=operand_tile(device, problem, swapped=True),
        swapped=True,
        pack=0.0 if in_place else _pack_cycles(problem, device),
        finish=turn + _finish_cycles(problem, device, direct),
        kept=size,
    )


def _no_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    return []


def _count_seconds(
    problem: ConvProblem, device: DeviceInfo, count: Callable[..., Count], direct: bool
) -> float:
    """Return the time of a GEMM-like kernel: its cycles, or its bytes where they take longer."""
    pixels = (math.prod(problem.out_size), math.prod(problem.kernel_size))
    made = count(problem, device, direct, in_place_likely(problem))
    split = choose_split(problem, device, made, (pixels,))
    # Tiles of a dozen channels write in as many places in turn: a tenth slower than one run.
    return max(split.cycles / HERTZ, operand_bytes(problem) / 18e9) + 2e-6


def _im2col_gemm_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    return _count_seconds(problem, device, im2col_count, direct_likely(problem, device))


#: What turned sums cost beside their count: 1x1 layers took 1.0 to 1.24 times as long.
_TURNED = 1.08


def _swapped_gemm_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    direct = problem.layout == "channels_first"
    return _TURNED * _count_seconds(problem, device, swapped_count, direct)


def _dilated_cost(problem: ConvProblem, device: DeviceInfo) -> float:
    pixels = tuple(
        (math.prod(sizes), math.prod(end - first for first, end in zip(firsts, ends, strict=True)))
        for _, sizes, firsts, ends in regions(problem)
    )
    made = im2col_count(problem, device, direct=False, in_place=False)
    split = choose_split(problem, device, made, pixels)
    return max(split.cycles / HERTZ, operand_bytes(problem) / 20e9) + 2e-6


SPECS = (
    conv_spec("im2col_gemm", "gemm.channel_rows", _no_reasons, _im2col_gemm_cost),
    conv_spec("swapped_gemm", "gemm.pixel_rows", _no_reasons, _swapped_gemm_cost),
    conv_spec(
        "dilated", "gemm.dilated", lambda problem, _: dilated_reasons(problem), _dilated_cost
    ),
)
