"""The text of the sparse implicit GEMM, one function for each configuration, and of its tile lists.

The product is that of `tile`; what is told here is how the B panel is gathered, for the block's
output rows and `bk` channels at one offset of the kernel:

    input row of a column    neighbours[offset, order[first_row + column]], or none: zeros
    its samples              x[input row, group's channels], four neighbours a thread

A load of samples waits for its input row, and that for the offset's number. Both are read ahead, by
one thread a column, and handed on through shared memory in two halves: when the loop goes to an
offset, the next one's input rows are stored and those of the one after it asked for. A barrier lies
between two offsets, since each panel ends with one.

    go to offset       n - 1                n                    n + 1
    samples            by rows n - 1        by rows n            by rows n + 1
    stored for all     rows n               rows n + 1           rows n + 2
    asked for          rows n + 1           rows n + 2           rows n + 3
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda, uint32

from ..common.source import compile_text, namespace_of
from ..gemm.tile import (
    BlockTile,
    fill,
    indent,
    load_weights,
    main_loop,
    names,
    start_sums,
    store_channels,
    store_rounds,
    store_weights,
)

__all__ = ["EPILOGUE_SPARSE", "LIST_END", "SIZES", "Config", "kernel_function", "tile_offsets"]

#: Whole numbers that the kernel is given: output rows, input channels and those of a group, output
#: channels of a group and all, offsets, panels of an offset, and what follows the sum.
SIZES = "rows in_channels depth channels out_channels volume panel_count has_bias activation alpha"

#: Entries behind a tile's list of offsets, which are read ahead and never used.
LIST_END = 2

#: What happens to `value`, the sum of output channel `channel`.
EPILOGUE_SPARSE = """
if has_bias != u(0):
    value += load1(bias, channel)
store1(out, u({out} + channel), activate(value, activation, alpha))
"""


@dataclass(frozen=True, slots=True)
class Config:
    """What a kernel is compiled for.

    Parameters
    ----------
    tile : Tile
        Block and thread tile; its columns ("pixels") are output rows.
    storage : str
        Element type in memory.
    width : {1, 4}
        Channels that one load fetches.
    """

    tile: BlockTile
    storage: str
    width: int

    @property
    def name(self) -> str:
        """The configuration as logs and the audit say it: output rows, channels, steps."""
        return f"{tile_name(self.tile)} {self.storage} x{self.width}"

    @property
    def columns(self) -> int:
        """Output rows whose samples one thread fetches, four channels of each."""
        return self.tile.bk * self.tile.bn // 4 // self.tile.threads


def tile_name(tile: BlockTile) -> str:
    """Return output rows, output channels and steps of a tile."""
    return f"{tile.bn}x{tile.bm}x{tile.bk}"


def _prologue(config: Config) -> str:
    """Return the set-up of a block: its place in the output, and whose samples a thread fetches."""
    quads = config.tile.bk // 4
    return f"""
    panels = cuda.shared.array(SHARED, compute, 16)
    out_rows = cuda.shared.array(PIXELS, uint32)
    input_rows = cuda.shared.array(TWICE_PIXELS, uint32)
    tid = u(cuda.threadIdx.x)
    group = u(cuda.blockIdx.z)
    first_row = u(u(cuda.blockIdx.x) * BN)
    first_channel = u(u(cuda.blockIdx.y) * BM)
    ty = u((tid // COLUMNS) * u(4))
    tx = u((tid % COLUMNS) * u(4))
    row, column = u((tid % u({quads})) * u(4)), u(tid // u({quads}))
    # Columns beyond the last row repeat it; they are not stored.
    if tid < BN:
        out_rows[tid] = u(order[u(min(first_row + tid, rows - u(1)))])
    """


#: Addresses, and the tile's list of offsets.
_LOOP_SETUP = """
offset_size = u(panel_count * A_PANEL)
block = u((group * u(cuda.gridDim.y) + u(cuda.blockIdx.y)) * volume)
block_at = u(block * offset_size + tid * u(4))
span = u(panel_count * BK)
channel = u(group * depth + row + span)
end, stop = u(group * depth + depth), u(group * depth + span)
a_place, b_place = u(tid * u(4)), u(A_PANEL + row * PITCH + column)
b_column = u(A_PANEL + tx)
left = u(u(counts[u(cuda.blockIdx.x)]) * panel_count)
"""


#: Stores the first offset's input rows, and asks for the second's.
_FIRST_ROWS = """
list_at = u(u(cuda.blockIdx.x) * (volume + LIST_END))
offset, ahead = u(offsets[list_at]), u(offsets[u(list_at + u(1))])
list_at = u(list_at + u(2))
row_ahead = u(0)
{each_column}
rows_at = u(column ^ BN)
cuda.syncthreads()
"""

#: Goes to the next offset; `rows_at` is where in `input_rows` a thread's first column is found.
_NEXT_OFFSET = """
weight_at = u(block_at + offset * offset_size)
channel = u(channel - span)
rows_at = u(rows_at ^ BN)
offset, ahead = ahead, u(offsets[list_at])
list_at = u(list_at + u(1))
{each_column}
"""


def _each_column(config: Config, text: str) -> str:
    """Return code of one thread a column; no test where no thread is left over."""
    return text if config.tile.threads == config.tile.bn else f"if tid < BN:\n{indent(text)}"


def _first_rows(config: Config) -> str:
    text = """
    input_rows[tid] = u(neighbours[u(offset * rows + out_rows[tid])])
    row_ahead = u(neighbours[u(ahead * rows + out_rows[tid])])
    """
    return fill(_FIRST_ROWS, each_column=_each_column(config, indent(text, 0)))


def _next_offset(config: Config) -> str:
    text = """
    input_rows[u((rows_at & BN) ^ (tid ^ BN))] = row_ahead
    row_ahead = u(neighbours[u(ahead * rows + out_rows[tid])])
    """
    return fill(_NEXT_OFFSET, each_column=_each_column(config, indent(text, 0)))


def _start_loads(config: Config) -> str:
    """Return code that fetches the next panels into registers."""
    quads = config.tile.bk // 4
    text = ["if channel >= stop:", indent(_next_offset(config)), load_weights(config.tile)]
    for j in range(config.columns):
        across = j * config.tile.threads // quads
        text.append(f"input{j} = input_rows[u(rows_at + u({across}))]")
        place = f"input{j} * in_channels + channel"
        if config.width == 4:
            text.append(f"b_next{j} = (ZERO, ZERO, ZERO, ZERO)")
            text.append(f"if input{j} != NONE and channel < end:")
            text.append(f"    b_next{j} = load4(x, u({place}))")
            continue
        for i in range(4):
            text.append(f"sample{i} = ZERO")
            text.append(f"if input{j} != NONE and u(channel + u({i})) < end:")
            text.append(f"    sample{i} = load1(x, u({place} + u({i})))")
        text.append(f"b_next{j} = (sample0, sample1, sample2, sample3)")
    text += ["weight_at = u(weight_at + A_PANEL)", "channel = u(channel + BK)"]
    return "\n".join(text)


def source(config: Config) -> str:
    """Return the kernel's text; see `tile` for the arithmetic and the way of the sums."""
    tile = config.tile
    loop = main_loop(tile, _start_loads(config), f"{store_weights(tile)}\n{store_channels(tile)}")
    epilogue = (
        "row = u(first_channel + row)\n"
        "if row < channels and first_row + column < rows:\n"
        "    channel = u(group * channels + row)\n"
        + indent(EPILOGUE_SPARSE.format(out="out_rows[column] * out_channels"))
    )
    return (
        f"def sparse_gemm(x, weight, neighbours, order, counts, offsets, bias, out, "
        f"{', '.join(SIZES.split())}):\n"
        + indent(_prologue(config))
        + indent(_LOOP_SETUP)
        + indent(start_sums())
        # A tile whose rows meet nothing has an empty list.
        + "    if left != u(0):\n"
        + indent(_first_rows(config), 2)
        + indent(loop, 2)
        + indent(store_rounds(tile, "channels", epilogue))
    )


@functools.cache
def kernel_function(config: Config) -> Callable[..., None]:
    """Return the kernel as a plain Python function."""
    namespace = namespace_of(config.storage) | names(config.tile)
    namespace |= {"NONE": np.uint32(2**32 - 1), "LIST_END": np.uint32(LIST_END)}
    namespace["TWICE_PIXELS"] = 2 * config.tile.bn
    return compile_text(source(config), "sparse_gemm", f"sparse_gemm {config.name}", namespace)


def tile_offsets(
    masks: Any, order: Any, counts: Any, offsets: Any, rows: Any, words: Any, volume: Any
) -> None:
    """List the offsets at which a tile's rows meet anything, rising; one block a tile.

    A block has as many threads as the tile has rows. The OR of their masks does not depend on the
    order in which they add their bits.
    """
    met = cuda.shared.array(1, uint32)
    length = uint32(volume + uint32(LIST_END))
    tid, tile = uint32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
    row = uint32(order[uint32(min(tile * uint32(cuda.blockDim.x) + tid, rows - uint32(1)))])
    count = uint32(0)
    for word in range(words):
        if tid == uint32(0):
            met[0] = uint32(0)
        cuda.syncthreads()
        cuda.atomic.or_(met, 0, masks[uint32(uint32(word) * rows + row)])
        cuda.syncthreads()
        bits = met[0]
        if tid < uint32(32) and (bits >> tid) & uint32(1):
            below = uint32(bits & uint32((uint32(1) << tid) - uint32(1)))
            place = uint32(tile * length + count + uint32(cuda.popc(below)))
            offsets[place] = uint32(uint32(word) * uint32(32) + tid)
        count = uint32(count + uint32(cuda.popc(bits)))
        cuda.syncthreads()
    if tid == uint32(0):
        counts[tile] = count
    if tid < uint32(LIST_END):
        offsets[uint32(tile * length + count + tid)] = uint32(0)
