"""The machine code of winograd.py: its tasks, from the input to the output.

In the order in which the data goes through it: tiles are gathered and transformed (V), and
multiplied by the transformed weights (M). What follows is in winograd_output.py, the packer of the
weights in winograd_weights.py.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from .finish import FINISH_FIELDS
from .gemm import call_tile
from .geometry import as_record
from .isa import Tile
from .pack import SEGMENT_WORDS, make_list_segments
from .simd import get_word, load, store
from .transform import call_gather, call_lines
from .vectors import ITEMSIZE
from .winograd_output import make_finish_panel

__all__ = [
    "FIELDS",
    "STAGE_CHANNELS",
    "TRANSFORMS",
    "make_kernel",
    "make_stage",
]

#: Addresses of the transforms; 0 where an axis has none.
TRANSFORMS = (
    "gather",
    "input_h",
    "input_d",
    "output_d",
    "output_h",
    "output_w",
    "weight_w",
    "weight_h",
    "weight_d",
)

FIELDS = (
    *FINISH_FIELDS,
    "td",  # tiles along depth, height, width
    "th",
    "tw",
    "region",  # address of the region of all tiles
    "image_panels",  # panels of one image
    "block_panels",  # panels of one task
    "blocks",  # tasks along the panels of all images
    "part_panels",  # panels of K of one part
    "parts",  # parts of K
    "channel_block",  # input channels of one sum
    "shared",  # 1: the first stage has transformed the input
    "plain",  # 1: outputs need no more than a bias and a clamp, and lie side by side
    "weight_is_run",  # 1: a filter's channels and taps are one run of memory
    "tile",  # address of the micro-kernel
    "zeros",  # address of mr zeros, from which products start
    "panel_bytes",  # V of one panel
    "weight_bytes",  # U of one group
    "element_pitch",  # bytes from one element of a tile's products to the next
    "tile_pitch",  # bytes from one tile's products to the next
    "joined_pitch",  # bytes from one row of joined outputs to the next
    "run",  # tiles that are joined at once
    "worker_at",  # where the workers' own memory begins
    "worker_bytes",
    "pack_worker_bytes",
    "products_at",  # M
    "lines_at",  # lines between two passes
    "more_lines_at",
    "joined_at",  # rows of outputs
    "segments_at",
    "scratch_at",
    *(f"{letter}{axis}" for letter in "mn" for axis in "dhw"),  # outputs, elements of a tile
    *TRANSFORMS,
)
_view = as_record(FIELDS)


@functools.cache
def _make_transform_panel(tile: Tile, compute: int) -> Any:
    """Return a function that transforms one panel of tiles for some channels: V[e, C, tile]."""
    lanes, nr, size = tile.lanes, tile.nr, ITEMSIZE[compute]
    pitch = (nr + lanes) * size  # a chunk's last vector may run over the panel's end
    list_segments = make_list_segments(nr)

    @numba.njit
    def gather(g: Any, x: int, segments: int, count: int, lines: int) -> None:
        """Read the panel's tiles of one channel and transform them along the width."""
        for s in range(count):
            words = segments + 8 * SEGMENT_WORDS * s
            lane, length = get_word(words, 0), get_word(words, 1)
            d0 = get_word(words, 2) * g.md - g.pd
            h0 = get_word(words, 3) * g.mh - g.ph
            for start in range(0, length, lanes):
                w0 = (get_word(words, 4) + start) * g.mw - g.pw
                target = lines + (lane + start) * size
                for i in range(g.nd):
                    for j in range(g.nh):
                        d, h = d0 + i, h0 + j
                        inside = 0 <= d < g.id and 0 <= h < g.ih
                        call_gather(
                            g.gather, x + d * g.xd + h * g.xh + w0 * g.xw, g.xw, -w0,
                            g.iw - w0 if inside else -w0,
                            target + (i * g.nh + j) * g.nw * pitch, pitch,
                        )  # fmt: skip

    @numba.njit
    def transform_vector(g: Any, lines: int, v: int, e_step: int) -> None:
        """Transform one vector of tiles along height and depth, into V."""
        row, plane = g.nw * pitch, g.nh * g.nw * pitch
        if g.kd > 1:
            if g.kh > 1:
                for i in range(g.nd):
                    at = lines + i * plane
                    call_lines(g.input_h, at, row, at, row, g.nw, pitch, pitch)
            call_lines(g.input_d, lines, plane, v, g.nh * g.nw * e_step, g.nh * g.nw, pitch, e_step)
        elif g.kh > 1:
            call_lines(g.input_h, lines, row, v, g.nw * e_step, g.nw, pitch, e_step)
        else:
            for k in range(g.nw):
                store(v + k * e_step, load(lines + k * pitch, compute, lanes), compute)

    @numba.njit
    def transform_panel(
        g: Any, x: int, panel: int, width: int, c0: int, c1: int, v: int, segments: int, lines: int
    ) -> None:
        count = list_segments(g.region, panel * nr, segments)
        for c in range(c0, c1):
            gather(g, x + c * g.xc, segments, count, lines)
            for start in range(0, width, lanes):
                target = v + (c * nr + start) * size
                transform_vector(g, lines + start * size, target, g.c * nr * size)

    return transform_panel


@functools.cache
def _make_multiply(tile: Tile, panel_tiles: int, compute: int) -> Any:
    """Return a function that multiplies one block of panels by one part of K: M[tile, e, K]."""
    mr, nr, lanes, size = tile.mr, tile.nr, tile.lanes, ITEMSIZE[compute]

    @numba.njit
    def multiply_panel(g: Any, u: int, v: int, width: int, channels: int, products: int) -> None:
        """Multiply one element of one panel of tiles by one panel of K."""
        for row in range(0, width, mr):
            for c in range(0, g.c, g.channel_block):
                call_tile(
                    g.tile, v + (c * panel_tiles + row) * size, panel_tiles * size,
                    u + c * nr * size, nr * size, min(g.channel_block, g.c - c),
                    products + row * g.tile_pitch, g.tile_pitch, g.zeros, int(c > 0), -math.inf,
                    math.inf, channels, min(mr, width - row),
                )  # fmt: skip

    @numba.njit
    def multiply(
        g: Any, u: int, v: int, first_panel: int, panels: int, k: int, stop: int, products: int
    ) -> None:
        """Multiply all elements; k and `stop` are the part's output channels."""
        e_step = (g.k + nr - 1) // nr * nr * g.c * size
        for e in range(g.nd * g.nh * g.nw):
            for j in range(k, stop, nr):
                channels = min(nr, (stop - j + lanes - 1) // lanes * lanes)
                at = products + e * g.element_pitch + (j - k) * size
                for p in range(panels):
                    multiply_panel(
                        g, u + e * e_step + j * g.c * size,
                        v + p * g.panel_bytes + e * g.c * panel_tiles * size,
                        _panel_width(g, panel_tiles, first_panel + p), channels,
                        at + p * panel_tiles * g.tile_pitch,
                    )  # fmt: skip

    return multiply


@numba.njit
def _panel_width(g: Any, panel_tiles: int, panel: int) -> int:
    """Return the tiles of a panel; the last of each image may not be full."""
    return min(panel_tiles, g.td * g.th * g.tw - panel % g.image_panels * panel_tiles)


@functools.cache
def make_kernel(tile: Tile, panel: Tile, storage: int, compute: int) -> Any:
    """Return the main task, for register tiles and panels of tiles of these shapes."""
    nr, panel_tiles, size = tile.nr, panel.nr, ITEMSIZE[compute]
    transform_panel = _make_transform_panel(panel, compute)
    finish_panel = make_finish_panel(tile, storage, compute)
    list_segments = make_list_segments(panel_tiles)
    multiply = _make_multiply(tile, panel_tiles, compute)

    @numba.njit
    def transform(g: Any, x: int, first_panel: int, panels: int, v: int, worker: int) -> None:
        for p in range(panels):
            image, at = (first_panel + p) // g.image_panels, (first_panel + p) % g.image_panels
            transform_panel(
                g, x + image * g.xn, at, _panel_width(g, panel_tiles, at), 0, g.c,
                v + p * g.panel_bytes, worker + g.segments_at, worker + g.lines_at,
            )  # fmt: skip

    @numba.njit
    def finish(
        g: Any, products: int, channels: int, first_panel: int, panels: int, bias: int, out: int,
        residual: int, worker: int,
    ) -> None:  # fmt: skip
        segments = worker + g.segments_at
        for p in range(panels):
            image, at = (first_panel + p) // g.image_panels, (first_panel + p) % g.image_panels
            count = list_segments(g.region, at * panel_tiles, segments)
            finish_panel(
                g, products + p * panel_tiles * g.tile_pitch, channels, segments, count, bias,
                out + image * g.yn, residual + image * g.rn, worker,
            )  # fmt: skip

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        parts = g.parts if g.shared else 1
        # Tasks that follow each other read the same weights.
        block, rest = number % g.blocks, number // g.blocks
        part, group = rest % parts, rest // parts
        first_panel = block * g.block_panels
        panels = min(g.block_panels, g.n * g.image_panels - first_panel)
        mine = workspace + g.worker_at + worker * g.worker_bytes
        v = mine
        if g.shared:
            v = workspace + (group * g.n * g.image_panels + first_panel) * g.panel_bytes
        else:
            transform(g, x + group * g.c * g.xc, first_panel, panels, v, mine)
        first_part, end_part = (part, part + 1) if g.shared else (0, g.parts)
        for p in range(first_part, end_part):
            k = p * g.part_panels * nr
            stop = min(k + g.part_panels * nr, g.k)
            multiply(
                g, weight + group * g.weight_bytes, v, first_panel, panels, k, stop,
                mine + g.products_at,
            )  # fmt: skip
            k_out = group * g.k + k
            finish(
                g, mine + g.products_at, stop - k, first_panel, panels, bias + k_out * size,
                out + k_out * g.yc, residual + k_out * g.rc, mine,
            )  # fmt: skip

    return task


#: Channels that one task of the first stage transforms.
STAGE_CHANNELS = 16


@functools.cache
def make_stage(panel: Tile, compute: int) -> Any:
    """Return the first stage's task: one panel of tiles, some channels, into shared memory."""
    panel_tiles = panel.nr
    transform_panel = _make_transform_panel(panel, compute)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        chunks = (g.c + STAGE_CHANNELS - 1) // STAGE_CHANNELS
        chunk, rest = number % chunks, number // chunks
        at, image = rest % g.image_panels, rest // g.image_panels % g.n
        group = rest // (g.image_panels * g.n)
        mine = workspace + g.worker_at + worker * g.worker_bytes
        transform_panel(
            g, x + image * g.xn + group * g.c * g.xc, at, _panel_width(g, panel_tiles, at),
            chunk * STAGE_CHANNELS, min((chunk + 1) * STAGE_CHANNELS, g.c),
            workspace + rest * g.panel_bytes, mine + g.segments_at, mine + g.lines_at,
        )  # fmt: skip

    return task
