"""Tiles of the matrix product, and the text of what every tiled kernel shares.

A block computes ``bm`` output channels times ``bn`` pixels, a thread ``tm x tn`` of them. Panels of
``bk`` steps of the reduction lie in shared memory twice: while one is multiplied, the next is on
its way from global memory into registers, and is stored into the other half behind the arithmetic.

    for each panel of bk steps:
        start loading the next panel into registers      A: 128 bits a thread, B: the kernel's own
        for step in bk:                                  written out as text
            a = A[step, tm rows of this thread]          128-bit loads, one address a half-warp
            b = B[step, tn columns of this thread]       128-bit loads, neighbours side by side
            acc += a x b                                 tm * tn FFMA, all in registers
        store the next panel into the other half;  barrier

A thread's rows and columns come in runs of four, `bm / (tm / 4)` apart, so that each run is one
128-bit load. Rows of B are four words longer than ``bn``: a loader that reads four steps of one
pixel at once stores them to rows whose banks then differ.

=============  =======  ==============  =========  ===================  ==========
tile           threads  a thread, sums  registers  shared, float32      FFMA : LDS
=============  =======  ==============  =========  ===================  ==========
128 x 128 x 8  256      8 x 8, 64       <= 128     16.6 + 1 KiB         16
128 x 64 x 8   128      8 x 8, 64       <= 128     12.5 + 0.5 KiB       16
64 x 64 x 8    64       8 x 8, 64       <= 128     8.3 + 0.5 KiB        16
32 x 32 x 16   64       4 x 4, 16       <= 80      8.5 + 0.25 KiB       8
=============  =======  ==============  =========  ===================  ==========

float64 has two registers a sum and twice the shared memory: its tiles are 64x64x16 and 32x32x16
with 4 x 4 sums a thread.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "COUNT_DOWN",
    "TILES",
    "BlockTile",
    "fill",
    "indent",
    "load_weights",
    "main_loop",
    "names",
    "start_sums",
    "store_channels",
    "store_rounds",
    "store_weights",
    "tiles_for",
]


@dataclass(frozen=True, slots=True)
class BlockTile:
    """A block's share of the output, and how its threads share that.

    Parameters
    ----------
    bm, bn, bk : int
        Output channels, pixels, and steps of the reduction in one panel.
    tm, tn : int
        Sums of one thread, multiples of four.
    blocks : int
        Blocks that should fit a multiprocessor at once, which bounds the registers of a thread.
    """

    bm: int
    bn: int
    bk: int
    tm: int
    tn: int
    blocks: int

    def __post_init__(self) -> None:
        for side in (self.bm, self.bn):
            if side * self.bk % (4 * self.threads):
                raise ValueError(f"{self.name}: {self.threads} threads cannot share a panel")

    @property
    def name(self) -> str:
        """The tile's sizes, as logs and the audit say them."""
        return f"{self.bm}x{self.bn}x{self.bk}"

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.bm // self.tm * (self.bn // self.tn)

    @property
    def pitch(self) -> int:
        """Elements from one row of a B panel to the next."""
        return self.bn + 4

    @property
    def shared_elements(self) -> int:
        """Elements of shared memory: two A panels, then two B panels."""
        return 2 * self.bk * (self.bm + self.pitch)

    def shared_bytes(self, itemsize: int) -> int:
        """Return the bytes of shared memory, with the two offsets of each pixel."""
        return self.shared_elements * itemsize + 2 * 4 * self.bn


#: From large to small; what is not float64 computes in float32.
TILES = (
    BlockTile(128, 128, 8, 8, 8, 2),
    BlockTile(128, 64, 8, 8, 8, 4),
    BlockTile(64, 64, 8, 8, 8, 8),
    BlockTile(32, 32, 16, 4, 4, 12),
)
_DOUBLE_TILES = (BlockTile(64, 64, 16, 4, 4, 2), BlockTile(32, 32, 16, 4, 4, 8))


def tiles_for(dtype: str) -> tuple[BlockTile, ...]:
    """Return the tiles of an element type, from large to small."""
    return _DOUBLE_TILES if dtype == "float64" else TILES


def indent(text: str, levels: int = 1) -> str:
    """Return a block of code without its common indentation, at another one."""
    return textwrap.indent(textwrap.dedent(text).strip("\n"), "    " * levels) + "\n"


def fill(template: str, **parts: str) -> str:
    """Replace each line that is nothing but ``{name}`` by a part, at that line's indentation."""
    lines = []
    for line in template.splitlines():
        name = line.strip().strip("{}")
        if name in parts:
            line = textwrap.indent(indent(parts[name], 0).rstrip(), line.partition("{")[0])
        lines.append(line)
    return "\n".join(lines)


def names(tile: BlockTile) -> dict[str, Any]:
    """Return the constants that the generated text uses, as uint32 where they are computed with.

    An ordinary Python integer would turn the index arithmetic around it into 64-bit signed.
    """
    sizes = {
        "BM": tile.bm,
        "BN": tile.bn,
        "BK": tile.bk,
        "TM": tile.tm,
        "TN": tile.tn,
        "THREADS": tile.threads,
        "PITCH": tile.pitch,
        "A_PANEL": tile.bk * tile.bm,
        "HALF": tile.bk * (tile.bm + tile.pitch),
        "COLUMNS": tile.bn // tile.tn,
        "STAGE_PITCH": max(tile.bm, tile.bn) + 4,
    }
    # Shapes of arrays must be ordinary integers.
    shapes = {
        "SHARED": tile.shared_elements,
        "PIXELS": tile.bn,
        "TILE_ROWS": tile.tm,
        "TILE_COLUMNS": tile.tn,
    }
    return shapes | {name: np.uint32(value) for name, value in sizes.items()}


def _main_loop_steps(tile: BlockTile) -> str:
    """Return the arithmetic of one panel: `bk` steps written out.

    Unrolled as text and not by the compiler, because then every shared address is a register plus
    a constant: 88% of the loop's instructions are multiply-adds, against 81% (128x128x8).
    """
    rows, columns = tile.bm // (tile.tm // 4), tile.bn // (tile.tn // 4)
    steps = []
    for step in range(tile.bk):
        for quad in range(tile.tm // 4):
            place = ", ".join(f"a[{4 * quad + i}]" for i in range(4))
            steps.append(f"{place} = load4s(panels, a_read + u({step * tile.bm + quad * rows}))")
        for quad in range(tile.tn // 4):
            place = ", ".join(f"b[{4 * quad + i}]" for i in range(4))
            offset = step * tile.pitch + quad * columns
            steps.append(f"{place} = load4s(panels, b_read + u({offset}))")
        steps += ["for i in range(TM):", "    for j in range(TN):"]
        steps.append("        acc[i, j] += a[i] * b[j]")
    return "\n".join(steps)


def start_sums() -> str:
    """Return code for a thread's sums, all zero, and its rows and columns of a step."""
    return """
    acc = cuda.local.array((TILE_ROWS, TILE_COLUMNS), compute)
    a = cuda.local.array(TILE_ROWS, compute)
    b = cuda.local.array(TILE_COLUMNS, compute)
    for i in range(TM):
        for j in range(TN):
            acc[i, j] = ZERO
    half = u(0)
    """


def load_weights(tile: BlockTile) -> str:
    """Return code that fetches the A panel at `weight_at`, 128 bits at a time."""
    return "\n".join(
        f"a_next{j} = load4s(weight, weight_at + u({4 * j * tile.threads}))"
        for j in range(tile.bk * tile.bm // 4 // tile.threads)
    )


def store_weights(tile: BlockTile) -> str:
    """Return code that puts the A panel that was fetched into shared memory."""
    return "a_store = u(half + a_place)\n" + "\n".join(
        f"store4s(panels, a_store + u({4 * j * tile.threads}), *a_next{j})"
        for j in range(tile.bk * tile.bm // 4 // tile.threads)
    )


def store_channels(tile: BlockTile) -> str:
    """Return code that puts a B panel into shared memory, fetched as four steps of a column."""
    text = ["b_store = u(half + b_place)"]
    for j in range(tile.bk * tile.bn // 4 // tile.threads):
        across = j * tile.threads // (tile.bk // 4)
        for i in range(4):
            text.append(f"panels[b_store + u({i * tile.pitch + across})] = b_next{j}[{i}]")
    return "\n".join(text)


#: The main loop; its parts are indented as they stand here.
_MAIN_LOOP = """
{start_loads}
{store_panels}
cuda.syncthreads()
while True:
    {more}
    if more:
        {start_loads}
    a_read, b_read = u(half + ty), u(half + b_column)
    {steps}
    if not more:
        break
    half = u(half ^ HALF)
    {store_panels}
    cuda.syncthreads()
"""


#: Whether a panel is left, where `left` says how many.
COUNT_DOWN = "left = u(left - u(1))\nmore = left != u(0)"


def main_loop(tile: BlockTile, start_loads: str, store_panels: str, more: str = COUNT_DOWN) -> str:
    """Return the loop over panels, one of them at least.

    Parameters
    ----------
    start_loads : str
        Code that fetches the next panels into registers.
    store_panels : str
        Code that puts what was fetched into the half `half` of shared memory.
    more : str
        Code that sets `more`: whether a panel is left behind the one that was fetched last.
    """
    parts = {"start_loads": start_loads, "more": more, "store_panels": store_panels}
    return fill(_MAIN_LOOP, **parts, steps=_main_loop_steps(tile))


def store_rounds(tile: BlockTile, order: str, epilogue: str) -> str:
    """Return the way of the sums out of the registers, through shared memory.

    A thread's sums belong to places far apart in memory. In each round every thread puts one row
    (or column) of its sums into shared memory, and then takes others, such that neighbouring
    threads store to neighbouring addresses and that the code of `epilogue` stands there once.

    Parameters
    ----------
    order : {"pixels", "channels"}
        What is contiguous in the output.
    epilogue : str
        Code that stores `value`, the sum of the output channel `row` and pixel `column` of the
        tile.
    """
    along_pixels = order == "pixels"
    rounds, along, width = (tile.tm, tile.tn, "BN") if along_pixels else (tile.tn, tile.tm, "BM")
    lines, places = (tile.bm, tile.bn) if along_pixels else (tile.bn, tile.bm)
    quad_pitch = places // (along // 4)
    line, place = ("ty", "tx") if along_pixels else ("tx", "ty")
    across = "row, column" if along_pixels else "column, row"
    choices = []
    for round_index in range(rounds):
        choices.append(f"{'elif' if round_index else 'if'} round_index == u({round_index}):")
        for quad in range(along // 4):
            indices = [(round_index, i) for i in range(4 * quad, 4 * quad + 4)]
            if not along_pixels:
                indices = [(i, round_index) for _, i in indices]
            sums = ", ".join(f"acc[u({i}), u({j})]" for i, j in indices)
            choices.append(f"    store4s(panels, stage + u({quad * quad_pitch}), {sums})")
    return (
        f"stage = u({line} // u(4) * STAGE_PITCH + {place})\n"
        f"for round_index in range(u({rounds})):\n"
        f"    shift = u(round_index % u(4) + round_index // u(4) * u({4 * lines // rounds}))\n"
        "    cuda.syncthreads()\n" + indent("\n".join(choices)) + "    cuda.syncthreads()\n"
        f"    for chunk in range(u({lines * places // rounds // tile.threads})):\n"
        "        e = u(tid + chunk * THREADS)\n"
        f"        line, place = e // {width}, e % {width}\n"
        f"        {across} = u(line * u(4) + shift), place\n"
        "        value = panels[u(line * STAGE_PITCH + place)]\n" + indent(epilogue, 2)
    )
