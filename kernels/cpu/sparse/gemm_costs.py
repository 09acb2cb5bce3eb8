"""How `cpu.sparse_gemm` cuts a problem: register tile, panels of output rows, blocks of channels.

Needs no compiler: the table of kernels counts with it.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv.contract.sparse_problem import SparseProblem
from fastconv.contract.spec import DeviceInfo

from ..machine.seconds import call_seconds, profile

__all__ = ["Blocks", "choose_blocks", "cost", "tile_rows"]

#: Most rows of a panel. The sums of 64 channels are then 128 KB, and the features of rows and
#: neighbours somewhat more: with the weights of all offsets (442 KB) within 1 MB of L2.
_PANEL_ROWS = 512
#: Fewest rows of a panel, and the panels that each thread should have at least.
_LEAST_ROWS, _PANELS = 32, 4
#: Words of a row that are summed at once: weights of 4 vectors each then fill half of L1.
_STEPS = 64
#: Most rows of a tile: the processor has addresses for no more in its registers.
_TILE_ROWS = 8


class Blocks(NamedTuple):
    """Tile and tasks.

    Parameters
    ----------
    lanes : int
        Elements of a vector of sums.
    depth : int
        Channels that one step multiplies: 2 for pairs of bfloat16, else 1.
    steps : int
        Steps of a row, for one group.
    chunk : int
        Steps that are summed at once.
    unroll : int
        Steps in one pass of the tile's loop; divides `steps` and `chunk`.
    nv, tail, parts : int
        Vectors of output channels of a block and of a group's last block, blocks of a group.
    panel_rows : int
        Output rows of a panel.
    """

    lanes: int
    depth: int
    steps: int
    chunk: int
    unroll: int
    nv: int
    tail: int
    parts: int
    panel_rows: int

    @property
    def vectors(self) -> int:
        """Vectors of output channels of a group."""
        return (self.parts - 1) * self.nv + self.tail


def tile_rows(nv: int, device: DeviceInfo) -> int:
    """Return the rows of the largest tile: sums, nv vectors and a broadcast fill the registers."""
    return min((device.registers - nv - 1) // nv, _TILE_ROWS)


def _panel_rows(out_rows: int, threads: int) -> int:
    """Return the rows of a panel: fewer where threads would be left without one."""
    shared = -(-out_rows // (_PANELS * threads))
    return max(_LEAST_ROWS, min(_PANEL_ROWS, shared))


def choose_blocks(problem: SparseProblem, device: DeviceInfo) -> Blocks:
    """Return how a problem is cut."""
    lanes = device.lanes(problem.compute_itemsize)
    channels = problem.in_channels // problem.groups
    paired = problem.dtype == "bfloat16" and device.bf16_dot and channels % 2 == 0
    steps = channels // 2 if paired else channels
    vectors = -(-(problem.out_channels // problem.groups) // lanes)
    most = 4 if device.registers == 32 else 2
    parts = -(-vectors // most)
    nv = -(-vectors // parts)
    chunks = -(-steps // _STEPS)
    return Blocks(
        lanes=lanes,
        depth=2 if paired else 1,
        steps=steps,
        chunk=-(-steps // (4 * chunks)) * 4,
        unroll=next(unroll for unroll in (4, 2, 1) if steps % unroll == 0),
        nv=nv,
        tail=vectors - (parts - 1) * nv,
        parts=parts,
        panel_rows=_panel_rows(problem.out_rows, device.threads),
    )


def cost(problem: SparseProblem, device: DeviceInfo) -> float:
    """Return the predicted seconds of a call whose weight is packed and whose schedule is kept."""
    blocks = choose_blocks(problem, device)
    machine = profile(device)
    costs, latency = machine.sparse.gemm, machine.core.latency
    slots = 1 / machine.core.multiply_adds / (1.0 if device.fma else 0.5)
    panels = -(-problem.out_rows // blocks.panel_rows)
    pair_lists, cycles = panels * problem.volume, 0.0
    for nv, count in ((blocks.nv, blocks.parts - 1), (blocks.tail, 1)):
        most = tile_rows(nv, device)
        tiles = max(problem.pairs / most, min(problem.pairs, pair_lists))
        rows = problem.pairs / max(tiles, 1)
        step = max(rows * nv * slots, (rows + nv) * min(slots, 1.0), latency)
        part = tiles * (blocks.steps * step + costs.tile) + problem.pairs * nv * costs.sum
        part += pair_lists * costs.pair_list + problem.out_rows * nv * costs.finished
        cycles += count * problem.groups * part
    features, written = (
        problem.in_rows * problem.in_channels,
        problem.out_rows * problem.out_channels,
    )
    moved = problem.itemsize * (features + written)
    if problem.itemsize < problem.compute_itemsize and blocks.depth == 1:
        moved += problem.compute_itemsize * features  # a widened copy
    return call_seconds(
        cycles,
        moved + 8 * problem.pairs,
        clock=machine.core.sustained,
        bandwidth=machine.memory.operands,
        start=machine.sparse.start,
        workers=min(device.threads, max(panels, 1)),
    )
