"""How an output is cut into strips and tiles: by counting cycles of multiply-adds and of loads.

What the two ways of reading an input share: rows_in_place.py reads it in place, rows_copied.py
through a padded copy. Counts are for vectors of the full width, one multiply-add or aligned load a
cycle; a load across a cache line takes two. No compiler is imported here, so that the table of
kernels can ask what a problem would cost.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from fastconv.contract.problem import MOST, ConvProblem
from fastconv.contract.spec import DeviceInfo

from ...taps import share_in_reach
from ..machine.seconds import profile
from .row_parts import Parts

__all__ = [
    "RowBlocking",
    "copied_padding",
    "interleaved",
    "interleaved_cycles",
    "last_lanes",
    "pattern_period",
    "pattern_vectors",
    "phase_overlap",
    "row_blocking",
    "row_cycles",
    "row_phases",
    "row_strips",
    "rows_met",
    "singleton_flags",
    "widths",
]

#: Most taps, and most multiply-adds of a step, that are written out.
_UNROLLED_TAPS, _UNROLLED_WORK = 169, 700


class RowBlocking(NamedTuple):
    """How an output is cut.

    Parameters
    ----------
    lanes : int
        Elements of a full vector.
    vectors : int
        Most vectors of a strip.
    block : int
        Output channels computed at once.
    rows : int
        Output rows of a tile; 0 for strips that roll.
    row_step : int
        Input rows, in units of the dilation, between successive output rows of a strip.
    row_interleave : int
        Distance of those output rows.
    in_registers : bool
        Whether all weights stay in registers.
    shifted : bool
        Whether shuffles take the place of most loads where the input is read in place.
    cycles : float
        Cycles for a row of one group's outputs.
    """

    lanes: int
    vectors: int
    block: int
    rows: int
    row_step: int
    row_interleave: int
    in_registers: bool
    shifted: bool
    cycles: float


def row_strips(total: int, lanes: int, most: int) -> Parts:
    """Cut a row into strips of about equal width, of at most so many vectors."""
    vectors = -(-total // lanes)
    return Parts(vectors, -(-vectors // most))


def last_lanes(total: int, lanes: int, end: int) -> int:
    """Return the lanes of the last vector of a strip that ends behind `end` vectors of a row."""
    tail, rest = lanes, min(total, end * lanes) - (end - 1) * lanes
    while tail > 4 and rest <= tail // 2:
        tail //= 2  # a narrower vector costs less where a wide one would be half empty
    return tail


def widths(total: int, lanes: int, most: int) -> list[tuple[int, int, int]]:
    """Return the strips of a row: how many, of how many vectors, lanes of the last vector."""
    return [
        (many, width, last_lanes(total, lanes, begin + width))
        for stretch in row_strips(total, lanes, most).stretches(())
        for width, begin, many in stretch.kinds
    ]


def singleton_flags(problem: ConvProblem) -> int:
    """Return what a group has one of, for `Window`: a channel, a depth that is always there."""
    depth = zip(problem.kernel_size[:-2], problem.padding[:-2], strict=True)
    flat = all(k == 1 and not any(pads) for k, pads in depth)
    return int(problem.in_channels == problem.groups) | 2 * int(flat)


def rows_met(problem: ConvProblem) -> float:
    """Return the share of kernel rows, over all output rows, that meet the input."""
    return share_in_reach(problem, problem.ndim - 2) if problem.ndim > 1 else 1.0


def row_phases(problem: ConvProblem) -> int:
    """Return how many columns of a stride some tap meets: a copied row is split by them."""
    sw, dw = problem.stride[-1], problem.dilation[-1]
    return min(problem.kernel_size[-1], sw // math.gcd(sw, dw))


def phase_overlap(problem: ConvProblem) -> int:
    """Return the elements of a phase behind those of the first tap; successive spans share them."""
    return (problem.kernel_size[-1] - 1) * problem.dilation[-1] // problem.stride[-1] + 1


def copied_padding(problem: ConvProblem) -> int:
    """Return the elements of an image's copied rows beside those of input and output.

    None where a kernel is smaller than the map. A kernel that reaches far over both sides makes a
    copy whose length is that of the padding.
    """
    row = row_phases(problem) * (problem.out_size[-1] + phase_overlap(problem))
    beside = max(0, row - problem.in_size[-1] - problem.out_size[-1])
    return beside * problem.in_channels * math.prod(problem.in_size[:-1])


def _rolling(problem: ConvProblem, device: DeviceInfo, size: int) -> Iterator[RowBlocking]:
    """Yield the ways of cutting the output into strips that fit the registers."""
    kh, kw = (1, *problem.kernel_size)[-2:]
    sh, dh = (1, *problem.stride)[-2], (1, *problem.dilation)[-2] if kh > 1 else 1
    common = math.gcd(sh, dh)
    row_step, row_interleave = sh // common, dh // common
    height, taps = -(-kh // row_step), kh * kw
    dense = problem.stride[-1] == problem.dilation[-1] == 1 < kw
    lanes, outputs = device.lanes(size), problem.out_channels // problem.groups
    step = profile(device).window.row_step
    for nv in range(1, min(8 if height == 1 else 4, -(-problem.out_size[-1] // lanes)) + 1):
        for block in (n for n in range(1, min(outputs, 8) + 1) if outputs % n == 0):
            used = block * height * nv + nv + 1
            if used >= device.registers or taps > _UNROLLED_TAPS:
                continue
            if taps * nv * block > _UNROLLED_WORK:
                continue
            in_registers = singleton_flags(problem) == 3 and used + taps * block < device.registers
            for shifted in (False, True)[: 2 if dense else 1]:
                cycles = 0.0
                for many, n, tail in widths(problem.out_size[-1], lanes, nv):
                    vectors, rows = n - 1 + tail / lanes, min(row_step, kh)
                    multiplies, loads = taps * block * vectors, 0 if in_registers else taps * block
                    if shifted and tail == lanes:
                        loaded = -(-kw // lanes)
                        loads += 2 * (n + 1) * loaded * rows
                        # Three pipes: two multiply, two shuffle.
                        shuffles = (kw - loaded) * n * rows
                        multiplies = max(multiplies, 2 * (multiplies + shuffles) / 3)
                    elif problem.stride[-1] == 2:
                        loads += rows * (4 * n + 1 if problem.dilation[-1] == 1 else 4 * n * kw)
                    else:
                        loads += 2 * n * kw * rows
                    cycles += many * (max(multiplies, loads) + step)
                cycles *= outputs / block
                yield RowBlocking(
                    lanes, nv, block, 0, row_step, row_interleave, in_registers, shifted, cycles
                )


def _tiles(problem: ConvProblem, device: DeviceInfo, size: int) -> Iterator[RowBlocking]:
    """Yield the ways of cutting the output into tiles that fit the registers."""
    kh, kw = (1, *problem.kernel_size)[-2:]
    sh, dh = (1, *problem.stride)[-2], (1, *problem.dilation)[-2]
    row_interleave, height = (dh, (1, *problem.out_size)[-2]) if sh == 1 else (1, 1)
    lanes, outputs = device.lanes(size), problem.out_channels // problem.groups
    met, machine = rows_met(problem), profile(device)
    latency, costs = machine.core.latency, machine.window
    for nv in range(1, min(4, -(-problem.out_size[-1] // lanes)) + 1):
        for rh in range(1, min(kh, -(-height // row_interleave), 14) + 1):
            if rh * nv + nv + 1 >= device.registers:
                continue
            cycles = 0.0
            for many, n, tail in widths(problem.out_size[-1], lanes, nv):
                vectors = n - 1 + tail / lanes
                taps = [
                    max(r * vectors, 2 * n + r, latency) + costs.row_tap for r in range(1, rh + 1)
                ]
                tile = taps[-1] * (kh - rh + 1) + 2 * sum(taps[:-1])
                tile = tile * kw + 2 * costs.row_step * (kh + rh - 1)
                cycles += many * tile * met * -(-height // rh) / height
            yield RowBlocking(lanes, nv, 1, rh, 1, row_interleave, False, False, cycles * outputs)


@functools.lru_cache(maxsize=256)
def row_blocking(problem: ConvProblem, device: DeviceInfo, size: int) -> RowBlocking:
    """Choose the cut of fewest cycles; strips where they fit."""
    blockings = list(_rolling(problem, device, size)) or list(_tiles(problem, device, size))
    return min(blockings, key=lambda blocking: blocking.cycles)


def row_cycles(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the cycles of one image by the best cut."""
    blocking = row_blocking(problem, device, problem.compute_itemsize)
    planes = math.prod(problem.kernel_size[:-2]) * problem.in_channels
    return blocking.cycles * math.prod(problem.out_size[:-1]) * planes


def pattern_period(channels: int, lanes: int) -> int:
    """Return after how many vectors interleaved channels repeat, 0 for a single channel."""
    return math.lcm(channels, lanes) // lanes if channels > 1 else 0


def pattern_vectors(period: int) -> int:
    """Return the vectors of one tap of interleaved channels: a period from each of its vectors."""
    return 2 * period - 1


def interleaved(problem: ConvProblem, device: DeviceInfo) -> ConvProblem | None:
    """Return a depthwise problem as one channel whose rows hold all channels side by side."""
    size, channels = problem.compute_itemsize, problem.groups
    lanes = device.lanes(size)
    depthwise = problem.in_channels == problem.out_channels == channels
    if (
        not depthwise
        or not 1 < channels < lanes
        or problem.stride[-1] != 1
        or size != problem.weight_itemsize
    ):
        return None
    vectors = pattern_vectors(pattern_period(channels, lanes)) * math.prod(problem.kernel_size)
    if vectors * lanes * size > device.l1 // 2:
        return None
    low, high = problem.padding[-1]
    if channels * max(low, high, problem.dilation[-1]) > MOST:
        return None
    row = replace(
        problem, in_channels=1, out_channels=1, groups=1, layout="channels_first",
        in_size=(*problem.in_size[:-1], problem.in_size[-1] * channels),
        padding=(*problem.padding[:-1], (low * channels, high * channels)),
        dilation=(*problem.dilation[:-1], problem.dilation[-1] * channels),
    )  # fmt: skip
    return row if row_blocking(row, device, size).rows == 0 else None


def interleaved_cycles(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the cycles of one image whose channels are interleaved, infinite if it is not one."""
    row = interleaved(problem, device)
    return math.inf if row is None else profile(device).window.pattern * row_cycles(row, device)
