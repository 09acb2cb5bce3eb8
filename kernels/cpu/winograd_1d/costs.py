"""Which transform and which tasks `cpu.winograd_1d` takes for a problem, by counting cycles.

With a stride s the taps of one remainder modulo s meet every s-th sample: a *phase*. All phases are
padded to as many taps, and longer ones are cut into *pieces* of r taps, so that one F(m, r) serves
them all and their products meet in the same sums::

    7 taps, stride 2    phase 0: 0 2 4 6    phase 1: 1 3 5 -     F(4, 4): 2 x 7 products for 28
    5 taps, stride 1    pieces: 0 1 2, 3 4 -                     F(4, 3): 2 x 6 products for 20

Nothing here is compiled, so that the dispatcher can ask for the count as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import cpu_spec, operand_bytes
from ..gemm.split import halvings
from ..machine.seconds import call_seconds, profile, transform_seconds
from ..winograd.costs import TOLERANCE

__all__ = [
    "SPECS",
    "Blocks",
    "band_extent",
    "choose_blocks",
    "row_pieces",
]

#: Outputs of a Winograd tile; fewer where a vector has fewer lanes.
_OUTPUTS = 4
#: Taps of a piece: more would take more sums than there are registers.
_TAPS = (2, 3, 4)
#: Longest sum of products. Of random layers with so many the largest errors were 3.4e-6 of the
#: largest output for pieces of two taps, 2.5e-6 for three and 5.9e-6 for four; half as much for a
#: quarter of them.
_MOST_STEPS = 1024
#: Most products of a block of tiles' transform, which is written out, and bytes of a task's V.
_MOST_WRITTEN, _MOST_BAND = 1 << 10, 32 << 20


class Blocks(NamedTuple):
    """F(m, r) along the width, its pieces, and the tasks.

    Parameters
    ----------
    m, r : int
        Outputs of a Winograd tile, and taps of a piece.
    kernel, stride : int
        Of the width.
    lanes : int
        Elements of a vector: Winograd tiles of a block, and pixels and channels of a register tile.
    band_rows, band_blocks : int
        Output rows of one task, and blocks across them.
    cycles : float
        Predicted for the busiest thread.
    """

    m: int
    r: int
    kernel: int
    stride: int
    lanes: int
    band_rows: int = 1
    band_blocks: int = 1
    cycles: float = math.inf

    @property
    def n(self) -> int:
        """Elements of a Winograd tile."""
        return self.m + self.r - 1

    @property
    def pieces(self) -> int:
        """Pieces of the taps, over all phases."""
        return sum(many * -(-taps // self.r) for taps, many, _ in _phases(self.kernel, self.stride))

    @property
    def pixels(self) -> int:
        """Output pixels of a block."""
        return self.m * self.lanes

    @property
    def reads(self) -> int:
        """Samples of a tile, rounded up to those from which its neighbours begin."""
        step = self.m * self.stride
        last = max(
            phase + self.stride * ((taps - 1) // self.r * self.r + self.n - 1)
            for taps, _, phase in _phases(self.kernel, self.stride)
        )
        return -(-(last + 1) // step) * step


def _phases(kernel: int, stride: int) -> list[tuple[int, int, int]]:
    """Return the phases of a row: (taps of each, how many there are, the last of them)."""
    whole, rest = divmod(kernel, stride)
    kinds = [(whole + 1, rest, rest - 1), (whole, stride - rest, stride - 1)]
    return [(taps, many, last) for taps, many, last in kinds if taps and many]


def row_pieces(kernel: int, stride: int, r: int) -> list[tuple[int, int]]:
    """Return the phase of each piece of a row's taps, and its first tap in that phase.

    `Blocks.pieces` counts them; only of few enough is there a list.
    """
    return [
        (phase, first)
        for phase in range(min(stride, kernel))
        for first in range(0, -(-(kernel - phase) // stride), r)
    ]


def _reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return why the kernel cannot run a problem."""
    sentences = []
    if problem.kernel_size[-1] <= problem.stride[-1]:
        sentences.append(
            f"wants two taps of a phase at least; {problem.kernel_size[-1]} taps across with a "
            f"stride of {problem.stride[-1]} have one"
        )
    else:
        steps = _steps(problem, _transform(problem, device))
        if steps > _MOST_STEPS:
            sentences.append(
                f"would sum {steps} transformed products in one go, whose error is too large; at "
                f"most {_MOST_STEPS}"
            )
    if problem.dilation[-1] != 1:
        sentences.append(f"wants taps side by side; this has dilation {problem.dilation}")
    lanes = device.lanes(problem.compute_itemsize)
    channels = problem.out_channels // problem.groups
    if channels < lanes // 2:
        sentences.append(
            f"spreads output channels over {lanes} lanes; a group of {channels} fills less than "
            "half of them"
        )
    return sentences or _size_reasons(problem, device)


def _size_reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return what stands against the code that a transform would be, and against a task's V."""
    blocks = _transform(problem, device)
    written = blocks.m * blocks.n * blocks.pieces
    if written > _MOST_WRITTEN:
        return [f"writes out {written} products of a tile's transform, more than {_MOST_WRITTEN}"]
    lines = _band_lines(problem, blocks._replace(band_rows=1, band_blocks=1))
    band = lines * blocks.pieces * blocks.n * blocks.lanes * problem.compute_itemsize
    if band > _MOST_BAND:
        return [f"transforms {band >> 20} MiB at once, more than {_MOST_BAND >> 20}"]
    return []


def _steps(problem: ConvProblem, blocks: Blocks) -> int:
    """Return the products of one sum."""
    channels = problem.in_channels // problem.groups
    return channels * math.prod(problem.kernel_size[:-1]) * blocks.pieces


def _transform(problem: ConvProblem, device: DeviceInfo) -> Blocks:
    """Return the F(m, r) with the fewest products, the more exact where two are equal."""
    lanes = device.lanes(problem.compute_itemsize)
    kernel, stride = problem.kernel_size[-1], problem.stride[-1]
    transforms = [Blocks(min(_OUTPUTS, lanes), r, kernel, stride, lanes) for r in _TAPS]
    return min(transforms, key=lambda blocks: (blocks.n * blocks.pieces, blocks.r))


def band_extent(problem: ConvProblem, rows: int) -> tuple[int, int]:
    """Return the planes and rows of input under `rows` output rows."""
    kernel, stride, dilation = (
        (1, *axis)[-2] for axis in (problem.kernel_size, problem.stride, problem.dilation)
    )
    planes = math.prod(problem.kernel_size[:-2])
    return planes, (rows - 1) * stride + (kernel - 1) * dilation + 1


def _band_lines(problem: ConvProblem, blocks: Blocks) -> int:
    """Return the blocks of input, over all channels, that a task transforms."""
    planes, rows = band_extent(problem, blocks.band_rows)
    return problem.in_channels // problem.groups * planes * rows * blocks.band_blocks


def _splits(problem: ConvProblem, blocks: Blocks) -> Iterator[Blocks]:
    """Yield the ways of cutting the output into tasks."""
    across = max(1, -(-problem.out_size[-1] // blocks.pixels))
    for rows in halvings(max(1, (1, *problem.out_size)[-2])):
        for part in halvings(across) if rows == 1 else [across]:
            yield blocks._replace(band_rows=rows, band_blocks=part)


def _tile_cycles(problem: ConvProblem, blocks: Blocks, device: DeviceInfo) -> float:
    """Return the cycles of a register tile: multiply-adds or loads, and its outputs."""
    steps, size = _steps(problem, blocks), problem.compute_itemsize
    wide, tiles = device.vector_bytes == 64, blocks.lanes // blocks.m
    core, costs = profile(device).core, profile(device).winograd_1d
    products = tiles / core.multiply_adds * (1.0 if device.fma else 2.0)
    loads = 1 + tiles / 2 if wide else (1 + tiles) / 2
    output = costs.output
    if problem.layout != "channels_last":
        output += costs.transposed if wide else costs.transposed_parts
    if problem.dtype not in ("float32", "float64"):
        output += costs.finished
    cycles = steps * max(blocks.n * max(products, loads), core.latency) + blocks.lanes * output
    # U of a panel and V of a register tile, where they outgrow L1.
    operands = steps * blocks.n * (blocks.lanes + tiles) * size
    return max(cycles, (operands - device.l1 // 2) / costs.l2)


def _count(problem: ConvProblem, blocks: Blocks, device: DeviceInfo) -> float:
    """Return the cycles of the busiest thread."""
    size, lanes = problem.compute_itemsize, blocks.lanes
    machine = profile(device)
    costs = machine.winograd_1d
    k, lines = problem.out_channels // problem.groups, _band_lines(problem, blocks)
    held = lines * blocks.pieces * blocks.n * lanes * size
    if held > device.l2 // 2 and (blocks.band_rows > 1 or blocks.band_blocks > 1):
        return math.inf
    panels, width = -(-k // lanes), problem.out_size[-1]
    tiles = min(blocks.band_blocks * blocks.m, -(-width // lanes))
    row = tiles * _tile_cycles(problem, blocks, device) + costs.row
    copy = costs.copied if problem.layout == "channels_first" else costs.gathered
    line = blocks.pieces * blocks.n * costs.element
    line += blocks.m * blocks.stride * (copy + costs.element)
    task = panels * blocks.band_rows * row + lines * line + machine.calls.task
    weights = panels * _steps(problem, blocks) * blocks.n * lanes * size
    if weights > device.l2 // 2:
        task += weights / costs.l3
    tasks = problem.batch * problem.groups * math.prod(problem.out_size[:-2])
    tasks *= -(-(1, *problem.out_size)[-2] // blocks.band_rows)
    tasks *= -(-width // (blocks.band_blocks * blocks.pixels))
    return -(-tasks // device.threads) * task


@functools.lru_cache(1024)
def choose_blocks(problem: ConvProblem, device: DeviceInfo) -> Blocks:
    """Return the transform, and the tasks whose busiest thread ends first."""
    shape = _transform(problem, device)
    counted = [
        blocks._replace(cycles=_count(problem, blocks, device))
        for blocks in _splits(problem, shape)
    ]
    return min(counted, key=lambda blocks: blocks.cycles)


def _seconds(problem: ConvProblem, device: DeviceInfo) -> float:
    """Return the time of the cycles, or of the bytes where they take longer."""
    machine = profile(device)
    return call_seconds(
        choose_blocks(problem, device).cycles,
        operand_bytes(problem),
        clock=machine.core.peak,
        bandwidth=machine.memory.operands,
        start=machine.calls.start,
    )


def _pack_seconds(problem: ConvProblem, device: DeviceInfo) -> float:
    """Count the elements of the transformed weight."""
    blocks = _transform(problem, device)
    elements = math.prod(problem.weight_shape[:-1]) * blocks.pieces * blocks.n
    return transform_seconds(elements, problem, device)


SPECS = (
    cpu_spec(
        "winograd_1d", "winograd_1d.plan", _reasons, _seconds,
        tolerance=TOLERANCE, pack_cost=_pack_seconds, exact=False,
    ),
)  # fmt: skip
