"""What `cpu.brgemm` can run, and which tile and tasks it takes, by counting cycles.

Nothing here is compiled, so that the dispatcher can ask for the count as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from fastconv.contract.problem import ConvProblem
from fastconv.contract.spec import DeviceInfo

from ..common.specs import cpu_spec, extent_reasons, operand_bytes
from ..gemm.split import RESIDENT_SHARE, halvings
from ..machine.seconds import call_seconds, profile

__all__ = ["PIXEL_LANES", "PIXEL_ROWS", "SPECS", "Blocks", "as_row", "choose_blocks"]

#: Which side of the register tile the pixels are; output channels are the other.
PIXEL_ROWS, PIXEL_LANES = 0, 1

#: Where channels lie a multiple of so many bytes apart, and nothing but channels is summed in a
#: row, a tile's pixels share few sets of L1.
_L1_STRIDE = 256
_LINE = 64  # bytes of a cache line
#: Most steps of the reduction, whose tap runs are listed, and bytes of a copied band.
_MOST_STEPS, _MOST_BAND = 1 << 20, 32 << 20


class Blocks(NamedTuple):
    """Tile and tasks, see `brgemm`.

    Parameters
    ----------
    side : int
        `PIXEL_ROWS` or `PIXEL_LANES`.
    rows, nv, lanes : int
        The register tile.
    row_tail, vector_tail : int
        Rows of the last tile along the rows' axis, and vectors of the last along the lanes'.
    band_rows, band_tiles, part_panels : int
        Output rows, tiles across them and panels of output channels of one task.
    cycles : float
        Predicted for the busiest thread.
    """

    side: int
    rows: int
    nv: int
    lanes: int
    row_tail: int
    vector_tail: int
    band_rows: int = 1
    band_tiles: int = 1
    part_panels: int = 1
    cycles: float = math.inf

    @property
    def pixels(self) -> int:
        """Output pixels of a tile."""
        return self.rows if self.side == PIXEL_ROWS else self.nv * self.lanes

    def channels_of(self, rows: int, nv: int) -> int:
        """Output channels of a tile of so many rows and vectors."""
        return nv * self.lanes if self.side == PIXEL_ROWS else rows

    @property
    def channels(self) -> int:
        """Output channels of a tile."""
        return self.nv * self.lanes if self.side == PIXEL_ROWS else self.rows


def as_row(problem: ConvProblem) -> ConvProblem | None:
    """Return a 1x1 problem over the pixels as one row, None where they are not one."""
    taps = math.prod(problem.kernel_size) * math.prod(problem.stride)
    if problem.ndim == 1 or taps > 1 or any(low or high for low, high in problem.padding):
        return None
    return replace(
        problem, in_size=(math.prod(problem.in_size),), kernel_size=(1,), stride=(1,),
        padding=((0, 0),), dilation=(1,),
    )  # fmt: skip


def _reasons(problem: ConvProblem, device: DeviceInfo) -> list[str]:
    """Return why the kernel cannot run a problem."""
    reasons = extent_reasons(problem)
    lanes = device.lanes(problem.compute_itemsize)
    channels = problem.out_channels // problem.groups
    steps = math.prod(problem.weight_shape[1:])
    if channels < lanes // 2:
        reasons.append(
            f"spreads output channels over {lanes} lanes; a group of {channels} fills less than "
            "half of them"
        )
        return reasons
    if steps > _MOST_STEPS:
        return [
            *reasons,
            f"lists the tap runs of at most {_MOST_STEPS} products of a sum; this has {steps}",
        ]
    # Of one tile, whatever its shape: how many threads there are may not decide.
    row = as_row(problem) or problem
    elements = max(_band_elements(row, blocks) for blocks in _tiles(row, device))
    if (band := elements * problem.compute_itemsize) > _MOST_BAND:
        return [*reasons, f"copies {band >> 20} MiB under one tile, more than {_MOST_BAND >> 20}"]
    return reasons


def _tiles(problem: ConvProblem, device: DeviceInfo) -> Iterator[Blocks]:
    """Yield the tiles that fit the registers: sums, nv vectors and one broadcast."""
    lanes = device.lanes(problem.compute_itemsize)
    k, width = problem.out_channels // problem.groups, problem.out_size[-1]
    sides = [PIXEL_ROWS] if problem.layout == "channels_last" else [PIXEL_ROWS, PIXEL_LANES]
    for side in sides:
        along, across = (width, k) if side == PIXEL_ROWS else (k, width)
        vectors = -(-across // lanes)
        for nv in range(1, min(vectors, 4) + 1):
            most = (device.registers - nv - 1) // nv
            rows = -(-along // -(-along // most))  # even tiles
            row_tail = rows if side == PIXEL_ROWS else along - (along - 1) // rows * rows
            yield Blocks(side, rows, nv, lanes, row_tail, vectors - (vectors - 1) // nv * nv)


def _step_cycles(
    rows: int, nv: int, side: int, device: DeviceInfo, tile_bytes: int, arriving: float
) -> float:
    """Return the cycles of one step: multiply-adds, or loads, or their latency, or bytes.

    Where the operands of a tile's steps, `tile_bytes`, outgrow L1, loads are fewer a cycle, and the
    step's bytes take `arriving` cycles.
    """
    core, wide = profile(device).core, device.vector_bytes == 64
    products = rows * nv / (core.multiply_adds * (1.0 if device.fma else 0.5))
    crossing = 2 if side == PIXEL_LANES and wide else 1  # a vector that is in two cache lines
    rate = core.loads if tile_bytes <= device.l1 else min(core.loads, core.far_loads)
    loads = (rows + nv * crossing) / rate
    return max(products, loads, core.latency, arriving if tile_bytes > device.l1 else 0.0)


def _tile_cycles(
    problem: ConvProblem, blocks: Blocks, device: DeviceInfo, rows: int, nv: int, steps: int
) -> float:
    """Return what a tile costs beside its steps: start, stores, and weights that it waits for."""
    costs, weights = profile(device).brgemm, steps * nv * blocks.lanes * problem.compute_itemsize
    stores = costs.stored * rows * nv
    if blocks.side == PIXEL_ROWS and problem.layout != "channels_last":
        stores += (costs.transposed_lane * blocks.lanes + costs.transposed_row * rows) * nv
    return costs.tile + stores + weights / costs.weights_cycle


def _read_bytes(problem: ConvProblem, pixels: int) -> int:
    """Return the bytes of L1 under the input of a tile: whole lines of each channel's rows."""
    size, channels = problem.compute_itemsize, problem.in_channels // problem.groups
    pixel_span = (pixels - 1) * problem.stride[-1] + 1
    across = pixel_span + (problem.kernel_size[-1] - 1) * problem.dilation[-1]
    rows = channels * math.prod(problem.kernel_size[:-1])
    if problem.layout == "channels_last":
        return rows * across * size
    # Taps far apart do not read what lies between them.
    apart = problem.kernel_size[-1] * (_LINE + (pixel_span - 1) * size)
    return rows * min(_LINE + (across - 1) * size, apart)


def _mean_cycles(problem: ConvProblem, blocks: Blocks, device: DeviceInfo) -> float:
    """Return the cycles of a tile, averaged over a row's tiles and the panels."""
    steps = problem.in_channels // problem.groups * math.prod(problem.kernel_size)
    k, width = problem.out_channels // problem.groups, problem.out_size[-1]
    along, across = (width, k) if blocks.side == PIXEL_ROWS else (k, width)
    row_tiles = -(-along // blocks.rows)
    vector_tiles = -(-across // (blocks.nv * blocks.lanes))
    size = problem.compute_itemsize
    in_place = problem.layout == "channels_first" and max(problem.kernel_size[-2:]) == 1
    shares_sets = in_place and math.prod(problem.in_size) * size % _L1_STRIDE == 0
    shares_sets = shares_sets and blocks.side == PIXEL_ROWS
    costs, total = profile(device).brgemm, 0.0
    conflict = costs.conflict if shares_sets else 1.0
    # A panel of weights meets the pixels of a band, which are at most half of L2.
    input_bytes = min(math.prod(problem.x_shape[1:]) // problem.groups * size, device.l2 // 2)
    panel, reach = steps * blocks.channels * size, device.l2 * RESIDENT_SHARE
    for rows, row_count in ((blocks.rows, row_tiles - 1), (blocks.row_tail, 1)):
        for nv, count in ((blocks.nv, vector_tiles - 1), (blocks.vector_tail, 1)):
            pixels = rows if blocks.side == PIXEL_ROWS else nv * blocks.lanes
            tile_bytes = _read_bytes(problem, pixels) + steps * blocks.channels_of(rows, nv) * size
            arriving = tile_bytes / steps / (costs.l3 if input_bytes + panel > reach else costs.l2)
            cycles = (
                conflict * steps * _step_cycles(rows, nv, blocks.side, device, tile_bytes, arriving)
            )
            cycles += _tile_cycles(problem, blocks, device, rows, nv, steps)
            total += row_count * count * cycles
    return total / (row_tiles * vector_tiles)


def band_extent(problem: ConvProblem, rows: int, pixels: int) -> tuple[int, int, int]:
    """Return the planes, rows and columns of input under a band of output."""
    kernel, stride, dilation = (
        (1, *axis)[-2:] for axis in (problem.kernel_size, problem.stride, problem.dilation)
    )
    height = (rows - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1
    width = (pixels - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1
    return math.prod(problem.kernel_size[:-2]), height, width


def _band_elements(problem: ConvProblem, blocks: Blocks) -> int:
    """Return the elements of input under a task's band of output."""
    pixels = min(blocks.band_tiles * blocks.pixels, problem.out_size[-1])
    extent = band_extent(problem, blocks.band_rows, pixels)
    return problem.in_channels // problem.groups * math.prod(extent)


def _splits(problem: ConvProblem, blocks: Blocks) -> Iterator[Blocks]:
    """Yield the ways of cutting the output into tasks."""
    height = (1, *problem.out_size)[-2]
    tiles = -(-problem.out_size[-1] // blocks.pixels)
    panels = -(-(problem.out_channels // problem.groups) // blocks.channels)
    for rows in halvings(height):
        for across in halvings(tiles) if rows == 1 else [tiles]:
            for parts in range(1, min(panels, 8) + 1):
                yield blocks._replace(
                    band_rows=rows, band_tiles=across, part_panels=-(-panels // parts)
                )


def _count(problem: ConvProblem, blocks: Blocks, device: DeviceInfo, tile: float) -> float:
    """Return the cycles of the busiest thread, where a tile takes `tile`."""
    size, machine = problem.compute_itemsize, profile(device)
    channels, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    steps = channels * math.prod(problem.kernel_size)
    panels, width = -(-k // blocks.channels), problem.out_size[-1]
    band = _band_elements(problem, blocks)
    if band * size > device.l2 // 2 and (blocks.band_rows > 1 or blocks.band_tiles > 1):
        return math.inf
    tasks = problem.batch * problem.groups * math.prod(problem.out_size[:-2])
    tasks *= -(-(1, *problem.out_size)[-2] // blocks.band_rows)
    tiles = -(-width // blocks.pixels)
    tasks *= -(-tiles // blocks.band_tiles)
    tasks *= -(-panels // blocks.part_panels)
    weights = blocks.part_panels * blocks.channels * steps * size
    reread = weights if k * steps * size > device.l2 // 2 else 0
    task = tile * blocks.part_panels * blocks.band_rows * blocks.band_tiles
    copied = band / blocks.lanes * machine.brgemm.copied
    task += copied + reread / machine.brgemm.weights + machine.calls.task
    return -(-tasks // device.threads) * task


@functools.lru_cache(1024)
def choose_blocks(problem: ConvProblem, device: DeviceInfo) -> Blocks:
    """Return the tile and the tasks whose busiest thread ends first."""
    best = None
    for shape in _tiles(problem, device):
        tile = _mean_cycles(problem, shape, device)
        for blocks in _splits(problem, shape):
            cycles = _count(problem, blocks, device, tile)
            if best is None or cycles < best.cycles:
                best = blocks._replace(cycles=cycles)
    assert best is not None
    return best


def _cost(problem: ConvProblem, device: DeviceInfo) -> float:
    problem, machine = as_row(problem) or problem, profile(device)
    return call_seconds(
        choose_blocks(problem, device).cycles,
        operand_bytes(problem),
        clock=machine.core.peak,
        bandwidth=machine.memory.operands,
        start=machine.calls.start,
        wait=machine.brgemm.wait,
    )


SPECS = (cpu_spec("brgemm", "brgemm.plan", _reasons, _cost),)
