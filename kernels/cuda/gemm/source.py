"""The text of the implicit GEMM kernels, one function for each configuration.

The text is put together from three choices, each of which changes what the machine code is made of;
all else is a parameter of the kernel (see `common.params`).

- `loader`: how a thread fetches its part of a B panel, the input samples that a panel's steps need
  for the block's pixels.

  ==========  ==========================  =================================================
  loader      a load fetches              where it fits
  ==========  ==========================  =================================================
  single      one sample                  everything; neighbouring threads, neighbouring pixels
  pixels      four pixels of one channel  1x1 kernels on maps that are read as they lie
  channels    four channels of one pixel  channels-last input, multiples of four channels
  ==========  ==========================  =================================================

- `words`: how many 32-bit words tell which taps of a pixel lie inside the input.
- `store`: what is contiguous in the output, and so which sums neighbouring threads store.

Neither loop nor loader divides: samples are found through the table of `steps`.

Which pixels a block computes and which panels it multiplies is told by a `Walk`. `IN_ORDER` takes
all of both one after another, in parts where the reduction is split; a part stores its sums as they
are, for `reduce_splits` to add up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..common.params import SCALARS
from ..common.source import EPILOGUE, compile_text, namespace_of
from ..common.steps import decode, is_inside, pixel_state, read_step, row_length
from .tile import (
    COUNT_DOWN,
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

__all__ = ["IN_ORDER", "Config", "Walk", "kernel_function", "reduce_function"]

#: Parameters of a split reduction: its parts, and the strides of a part's sums.
PARTS = "splits, part_row, part_pixel"


#: Tiles and loaders for which 128 registers a thread, what 16 warps leave, are too few: ptxas
#: spills 4 to 92 bytes on some architecture.
_CROWDED = {("128x64x8", "channels"), ("64x64x8", "channels"), ("64x64x8", "pixels")}


@dataclass(frozen=True, slots=True)
class Config:
    """What a kernel is compiled for.

    Parameters
    ----------
    tile : Tile
        Block and thread tile.
    storage : str
        Element type in memory.
    loader : {"single", "pixels", "channels"}
        How input samples are fetched.
    words : {1, 3, 7}
        Words of bits for the taps that lie outside the input.
    store : {"pixels", "channels"}
        What is contiguous in the output.
    """

    tile: BlockTile
    storage: str
    loader: str
    words: int
    store: str

    @property
    def name(self) -> str:
        """The configuration as logs and the audit say it."""
        return f"{self.tile.name} {self.storage} {self.loader} w{self.words} {self.store}"

    @property
    def blocks(self) -> int:
        """Blocks that must fit a multiprocessor: fewer of the tile's where registers would spill.

        Half of them with more words of bits.
        """
        crowded = (self.tile.name, self.loader) in _CROWDED
        quarters = 2 if self.words > 1 else 3 if crowded else 4
        return max(1, self.tile.blocks * quarters // 4)

    @property
    def width(self) -> int:
        """Samples that one load fetches."""
        return 1 if self.loader == "single" else 4

    @property
    def loads(self) -> int:
        """Loads of a thread for one B panel."""
        return self.tile.bk * self.tile.bn // self.width // self.tile.threads

    @property
    def load_columns(self) -> int:
        """Distinct pixels (or runs of four) that a thread loads; their state is kept."""
        return self.loads if self.loader == "channels" else 1


@dataclass(frozen=True, slots=True)
class Walk:
    """The pixels and panels of a block: the text in which kernels differ.

    Parameters
    ----------
    name : str
        The kernel's name.
    arrays, numbers : str
        Parameters: arrays behind `out`, and whole numbers behind the scalars.
    group : str
        Code that sets `group`.
    pixel : str
        The number of the pixel at a place `{at}` of the grid.
    start : str
        Code that finds the first panel.
    before, after : str
        Code before and behind the loads of a panel, which read at `weight_at` and `steps_at`.
    more : str
        Code that sets `more`: whether a panel is left behind the one that was loaded last.
    epilogue : str
        Where a sum goes; `{epilogue}` adds bias and residual, activates and stores.
    """

    name: str
    arrays: str
    numbers: str
    group: str
    pixel: str
    start: str
    before: str
    after: str
    more: str
    epilogue: str


IN_ORDER = Walk(
    name="implicit_gemm",
    arrays="partial",
    numbers=f"panel_count, split_panels, {PARTS}",
    group="part = u(cuda.blockIdx.z)\ngroup = part // splits",
    pixel="{at}",
    start="""
panel = u((part % splits) * split_panels)
left = u(min(split_panels, panel_count - panel))
block = u((group * u(cuda.gridDim.y) + u(cuda.blockIdx.y)) * panel_count + panel)
weight_at = u(block * A_PANEL + tid * u(4))
steps_at = u((panel * BK + row) * ROW)
""",
    before="",
    after="weight_at = u(weight_at + A_PANEL)\nsteps_at = u(steps_at + BK * ROW)",
    more=COUNT_DOWN,
    epilogue="""
if splits > u(1):
    place = part * channels * pixels + row * part_row + (first_pixel + column) * part_pixel
    partial[u(place)] = value
else:
    {epilogue}
""",
)


#: The set-up of a block: its place in the output, and the offsets of its pixels.
_PROLOGUE = """
panels = cuda.shared.array(SHARED, compute, 16)
out_at = cuda.shared.array(PIXELS, uint32)
residual_at = cuda.shared.array(PIXELS, uint32)
tid = u(cuda.threadIdx.x)
{group}
first_pixel = u(u(cuda.blockIdx.x) * BN)
first_channel = u(u(cuda.blockIdx.y) * BM)
ty = u((tid // COLUMNS) * u(4))
tx = u((tid % COLUMNS) * u(4))
if tid < BN:
    {decode}
    out_at[tid] = u(y_first + group * yg + n * yn + d * yd + h * yh + w * yw)
    residual_at[tid] = u(r_first + group * rg + n * rn + d * rd + h * rh + w * rw)
"""


def _load_places(config: Config) -> str:
    """Return code for where in a B panel a thread's loads go: `row`, and `column0`, `column1`..."""
    tile = config.tile
    if config.loader == "channels":
        quads = tile.bk // 4
        columns = [
            f"column{j} = u(tid // u({quads}) + u({j * tile.threads // quads}))"
            for j in range(config.load_columns)
        ]
        return "\n".join([f"row = u((tid % u({quads})) * u(4))", *columns])
    row_loads = tile.bn // config.width
    return f"row = tid // u({row_loads})\ncolumn0 = u((tid % u({row_loads})) * u({config.width}))"


def _row_step(config: Config) -> int:
    """Return how many rows of the panel lie between a thread's loads."""
    tile = config.tile
    return 0 if config.loader == "channels" else tile.threads * config.width // tile.bn


def _start_loads(config: Config) -> str:
    """Return code that fetches the next panels into registers."""
    tile, length = config.tile, row_length(config.words)
    text = [load_weights(tile)]
    for j in range(config.loads):
        if j == 0 or config.loader != "channels":
            text.append(read_step(f"steps_at + u({j * _row_step(config) * length})", config.words))
        column = j if config.loader == "channels" else 0
        text.append(f"b_next{j} = {'ZERO' if config.width == 1 else '(ZERO, ZERO, ZERO, ZERO)'}")
        text.append(f"if {is_inside(column, config.words)}:")
        text.append(f"    b_next{j} = load{config.width}(x, u(from{column} + step0[0]))")
    return "\n".join(text)


def _store_panels(config: Config) -> str:
    """Return code that puts what was fetched into the half `half` of shared memory."""
    tile = config.tile
    if config.loader == "channels":
        return f"{store_weights(tile)}\n{store_channels(tile)}"
    text = [store_weights(tile), "b_store = u(half + b_place)"]
    for j in range(config.loads):
        at = f"b_store + u({j * _row_step(config) * tile.pitch})"
        text.append(
            f"panels[{at}] = b_next{j}"
            if config.width == 1
            else f"store4s(panels, {at}, *b_next{j})"
        )
    return "\n".join(text)


#: Where a thread's weights and samples go, and its columns of a B panel.
_PLACES = """
a_place, b_place = u(tid * u(4)), u(A_PANEL + row * PITCH + column0)
b_column = u(A_PANEL + tx)
"""


#: What becomes of a sum that comes out of shared memory (see `tile.store_rounds`).
_EPILOGUE_TILE = """
row = u(first_channel + row)
if row < channels and first_pixel + column < pixels:
    {sum}
"""


def source(config: Config, walk: Walk = IN_ORDER) -> str:
    """Return the kernel's text; see `tile` for the arithmetic and the way of the sums."""
    loads = "\n".join((walk.before, _start_loads(config), walk.after))
    loop = main_loop(config.tile, loads, _store_panels(config), walk.more)
    store = EPILOGUE.format(residual="residual_at[column]", out="out_at[column]")
    epilogue = fill(_EPILOGUE_TILE, sum=fill(walk.epilogue, epilogue=store))
    own_pixel = decode(walk.pixel.format(at="first_pixel + tid"))
    states = (pixel_state(j, config.words, walk.pixel) for j in range(config.load_columns))
    return (
        f"def {walk.name}(x, weight, steps, bias, residual, out, {walk.arrays}, "
        f"{', '.join(SCALARS)}, {walk.numbers}):\n"
        + indent(fill(_PROLOGUE, group=walk.group, decode=own_pixel))
        + indent(_load_places(config))
        + indent("".join(states))
        + indent(walk.start)
        + indent(_PLACES)
        + indent(start_sums())
        + indent(loop)
        + indent(store_rounds(config.tile, config.store, epilogue))
    )


@functools.cache
def kernel_function(config: Config, walk: Walk = IN_ORDER) -> Callable[..., None]:
    """Return the kernel as a plain Python function."""
    namespace = namespace_of(config.storage) | names(config.tile)
    namespace["ROW"] = np.uint32(row_length(config.words))
    return compile_text(source(config, walk), walk.name, f"{walk.name} {config.name}", namespace)


@functools.cache
def reduce_function(storage: str) -> Callable[..., None]:
    """Return the kernel that adds up the parts of a split reduction; a thread has one output."""
    text = (
        f"def reduce_splits(partial, bias, residual, out, {', '.join(SCALARS)}, size, {PARTS}):\n"
        + indent(f"""
        at = u(cuda.grid(1))
        if at < size:
            pixel, row = u(at % pixels), u(at // pixels % channels)
            group = u(at // pixels // channels)
            {decode("pixel")}
            residual_at = u(r_first + group * rg + n * rn + d * rd + h * rh + w * rw)
            out_at = u(y_first + group * yg + n * yn + d * yd + h * yh + w * yw)
            value = ZERO
            place = group * splits * channels * pixels + row * part_row + pixel * part_pixel
            for part in range(splits):
                value += partial[u(place)]
                place += channels * pixels
        """)
        + indent(EPILOGUE.format(residual="residual_at", out="out_at"), 2)
    )
    return compile_text(text, "reduce_splits", f"reduce_splits {storage}", namespace_of(storage))
