"""The machine code of plan.py: its tasks, from the input to the output.

In the order in which the data goes through it: tiles are gathered and transformed (V), and
multiplied by the transformed weights (M). What follows is in output.py, the packer of the
weights in weights.py.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from ..common.segments import make_list_segments
from ..gemm.tile import TileArguments, call_tile
from ..simd.ir import ITEMSIZE
from ..simd.register_tiles import RegisterTile
from .fields import view
from .input_tiles import make_transform, panel_width
from .output import make_epilogue_panel

__all__ = ["make_kernel"]


@functools.cache
def _make_multiply(tile: RegisterTile, panel_tiles: int, adjacent: int, compute: int) -> Any:
    """Return a function that multiplies one block of panels by one part of K: M[tile, e, K].

    `adjacent` channels of a tile lie side by side in V.
    """
    mr, nr, lanes, size = tile.mr, tile.nr, tile.lanes, ITEMSIZE[compute]

    @numba.njit
    def multiply_panel(g: Any, u: int, v: int, width: int, channels: int, products: int) -> None:
        """Multiply one element of one panel of tiles by one panel of K."""
        for row in range(0, width, mr):
            for c in range(0, g.c, g.channel_block):
                arguments = TileArguments(
                    a=v + c // adjacent * g.v_step + row * adjacent * size, a_step=g.v_step,
                    b=u + c * nr * size, b_step=nr * size, kc=min(g.channel_block, g.c - c),
                    c=products + row * g.tile_pitch, c_pitch=g.tile_pitch, bias=g.zeros,
                    accumulate=int(c > 0), low=-math.inf, high=math.inf, width=channels,
                )  # fmt: skip
                call_tile(g.tile, arguments, min(mr, width - row))

    @numba.njit
    def multiply(
        g: Any, u: int, v: int, first_panel: int, panels: int, k: int, stop: int, products: int
    ) -> None:
        """Multiply all elements; k and `stop` are the part's output channels."""
        for e in range(g.nd * g.nh * g.nw):
            for j in range(k, stop, nr):
                channels = min(nr, (stop - j + lanes - 1) // lanes * lanes)
                at = products + e * g.element_pitch + (j - k) * size
                for p in range(panels):
                    multiply_panel(
                        g, u + e * g.u_step + j * g.c * size,
                        v + p * g.panel_bytes + e * g.element_bytes,
                        panel_width(g, panel_tiles, first_panel + p), channels,
                        at + p * panel_tiles * g.tile_pitch,
                    )  # fmt: skip

    return multiply


@functools.cache
def make_kernel(
    tile: RegisterTile, panel: RegisterTile, across: int, storages: tuple[int, int], compute: int
) -> Any:
    """Return the main task, for register tiles and panels of tiles of these shapes.

    Channels are in the lanes where `across`; `storages` are of what is read and what is written.
    """
    nr, panel_tiles, size = tile.nr, panel.nr, ITEMSIZE[compute]
    transform_panel = make_transform(panel, across, storages[0], compute)
    epilogue_panel = make_epilogue_panel(tile, storages[1], compute)
    list_segments = make_list_segments(panel_tiles)
    multiply = _make_multiply(tile, panel_tiles, tile.lanes if across else 1, compute)

    @numba.njit
    def transform(g: Any, source: int, first_panel: int, panels: int, v: int, worker: int) -> None:
        for p in range(panels):
            image, at = (first_panel + p) // g.image_panels, (first_panel + p) % g.image_panels
            transform_panel(
                g, source + image * g.source_n, at, panel_width(g, panel_tiles, at), 0, g.c,
                v + p * g.panel_bytes, worker,
            )  # fmt: skip

    @numba.njit
    def epilogue(
        g: Any, products: int, channels: int, first_panel: int, panels: int, bias: int, out: int,
        residual: int, worker: int,
    ) -> None:  # fmt: skip
        segments = worker + g.segments_at
        for p in range(panels):
            image, at = (first_panel + p) // g.image_panels, (first_panel + p) % g.image_panels
            count = list_segments(g.region, at * panel_tiles, segments)
            epilogue_panel(
                g, products + p * panel_tiles * g.tile_pitch, channels, segments, count, bias,
                out + image * g.yn, residual + image * g.rn, worker,
            )  # fmt: skip

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        parts = g.parts if g.shared else 1
        # Tasks that follow each other read the same weights.
        block, rest = number % g.blocks, number // g.blocks
        part, group = rest % parts, rest // parts
        first_panel = block * g.block_panels
        panels = min(g.block_panels, g.n * g.image_panels - first_panel)
        mine = workspace + g.worker_at + worker * g.worker_bytes
        v = mine
        if g.shared:
            v = workspace + g.shared_at
            v += (group * g.n * g.image_panels + first_panel) * g.panel_bytes
        else:
            source = (workspace if g.copied else x) + group * g.source_g
            transform(g, source, first_panel, panels, v, mine)
        first_part, end_part = (part, part + 1) if g.shared else (0, g.parts)
        for p in range(first_part, end_part):
            k = p * g.part_panels * nr
            stop = min(k + g.part_panels * nr, g.k)
            multiply(
                g, weight + group * g.weight_bytes, v, first_panel, panels, k, stop,
                mine + g.products_at,
            )  # fmt: skip
            k_out = group * g.k + k
            epilogue(
                g, mine + g.products_at, stop - k, first_panel, panels, bias + k_out * size,
                out + k_out * g.yc, residual + k_out * g.rc, mine,
            )  # fmt: skip

    return task
