"""The machine code of winograd.py: its tasks, from the input to the output.

In the order in which the data goes through it: tiles are gathered and transformed (V), multiplied
by the transformed weights (M = U V), transformed back and stored; then the packer of the weights.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from .finish import make_finish_vector
from .gemm import call_tile
from .isa import Tile
from .pack import SEGMENT_WORDS, make_list_segments
from .simd import get_word, load, load_gather, load_scalar, range_mask, store, store_masked
from .transform import call_join, call_lines
from .vectors import ITEMSIZE
from .winograd_fields import first_sample, view
from .winograd_input import make_transform_panel

__all__ = ["make_kernel", "make_pack_kernel"]


@functools.cache
def _make_store_rows(tile: Tile, storage: int, compute: int) -> Any:
    """Return a function that stores a panel's joined outputs of one channel where they belong."""
    lanes, nr, size = tile.lanes, tile.nr, ITEMSIZE[compute]
    finish_vector = make_finish_vector(lanes, storage, compute)

    @numba.njit
    def store_run(
        g: Any, source: int, stop: int, d: int, h: int, w: int, bias: float, out: int,
        residual: int, scratch: int,
    ) -> None:  # fmt: skip
        """Store rows of `stop` joined outputs of one sub-grid, the first of them at (d, h, w).

        ``g.yw`` and ``g.rw`` are the steps within a sub-grid, ``g.qw`` outputs each.
        """
        out, residual = out + w * (g.yw // g.qw), residual + w * (g.rw // g.qw)
        for i in range(g.md):
            for j in range(g.mh):
                od, oh = d + i * g.qd, h + j * g.qh
                if od >= g.od or oh >= g.oh:
                    continue
                joined = source + (i * g.mh + j) * nr * g.mw * size
                to = out + od * g.yd + oh * g.yh
                extra = residual + od * g.rd + oh * g.rh
                for start in range(0, stop, lanes):
                    finish_vector(
                        g, joined + start * size, bias, to + start * g.yw, extra + start * g.rw,
                        min(lanes, stop - start), scratch,
                    )  # fmt: skip

    @numba.njit
    def store_rows(
        g: Any, joined: int, segments: int, count: int, bias: float, out: int, residual: int,
        scratch: int,
    ) -> None:  # fmt: skip
        """Store the joined rows, run by run: what of a segment lies in one sub-grid."""
        for s in range(count):
            words = segments + 8 * SEGMENT_WORDS * s
            lane, end = get_word(words, 0), get_word(words, 0) + get_word(words, 1)
            d = first_sample(get_word(words, 2), g.ud, 1, g.md * g.qd)
            h = first_sample(get_word(words, 3), g.uh, 1, g.mh * g.qh)
            tile = get_word(words, 4)
            while lane < end:
                length = min(g.uw - tile % g.uw, end - lane)
                w = first_sample(tile, g.uw, 1, g.mw * g.qw)
                stop = min(length * g.mw, (g.ow - w + g.qw - 1) // g.qw)
                store_run(
                    g, joined + lane * g.mw * size, stop, d, h, w, bias, out, residual, scratch
                )
                lane, tile = lane + length, tile + length

    return store_rows


@functools.cache
def _make_finish_row(tile: Tile, storage: int, compute: int) -> Any:
    """Return a function that brings one row (output channel) of a panel's products to `out`."""
    lanes, nr, size = tile.lanes, tile.nr, ITEMSIZE[compute]
    line = nr * size
    store_rows = _make_store_rows(tile, storage, compute)

    @numba.njit
    def inverse(g: Any, products: int, e_step: int, lines: int, more: int, joined: int) -> None:
        """Transform one vector of tiles back: along depth, height, then width."""
        source, step = products, e_step
        if g.kd > 1:
            plane = g.nh * g.nw
            call_lines(g.output_d, source, plane * step, lines, plane * line, plane, step, line)
            source, step = lines, line
        if g.kh > 1:
            for i in range(g.md):
                call_lines(
                    g.output_h, source + i * g.nh * g.nw * step, g.nw * step,
                    more + i * g.mh * g.nw * line, g.nw * line, g.nw, step, line,
                )  # fmt: skip
            source, step = more, line
        call_join(g.join, source, step, joined, g.md * g.mh, g.nw * step, g.mw * line)

    @numba.njit
    def finish_row(
        g: Any, products: int, e_step: int, width: int, segments: int, count: int, bias: float,
        out: int, residual: int, worker: int,
    ) -> None:  # fmt: skip
        lines, more, joined = worker + g.lines_at, worker + g.more_lines_at, worker + g.joined_at
        for start in range(0, width, lanes):
            inverse(
                g, products + start * size, e_step, lines + start * size, more + start * size,
                joined + start * g.mw * size,
            )  # fmt: skip
        store_rows(g, joined, segments, count, bias, out, residual, worker + g.scratch_at)

    return finish_row


@functools.cache
def _make_multiply(tile: Tile, compute: int) -> Any:
    """Return a function that multiplies all elements for the rows of one part: M[e, row, tile]."""
    mr, nr, size = tile.mr, tile.nr, ITEMSIZE[compute]

    @numba.njit
    def multiply(g: Any, u: int, v: int, rows: int, width: int, products: int) -> None:
        pitch = g.panels * nr * size
        row_panels = (g.k + mr - 1) // mr
        for e in range(g.nd * g.nh * g.nw):
            for row in range(0, rows, mr):
                a = u + (e * row_panels + row // mr) * g.c * mr * size
                c = products + (e * g.part_rows + row) * pitch
                for start in range(0, width, nr):
                    b = v + start // nr * g.panel_bytes + e * g.element_bytes
                    call_tile(
                        g.tile, a, mr * size, b, nr * size, g.c, c + start * size, pitch, g.zeros,
                        0, -math.inf, math.inf, min(nr, width - start), min(mr, rows - row),
                    )  # fmt: skip

    return multiply


@functools.cache
def make_kernel(tile: Tile, storage: int, compute: int) -> Any:
    """Return the main task: see the drawing at the top of this file."""
    nr, size = tile.nr, ITEMSIZE[compute]
    transform_panel = make_transform_panel(tile, compute)
    finish_row = _make_finish_row(tile, storage, compute)
    list_segments = make_list_segments(nr)

    multiply = _make_multiply(tile, compute)

    @numba.njit
    def finish(
        g: Any, products: int, rows: int, first_tile: int, width: int, bias: int, out: int,
        residual: int, worker: int,
    ) -> None:  # fmt: skip
        pitch, segments = g.panels * nr * size, worker + g.segments_at
        for start in range(0, width, nr):
            count = list_segments(g.region, first_tile + start, segments)
            for row in range(rows):
                finish_row(
                    g, products + row * pitch + start * size, g.part_rows * pitch,
                    min(nr, width - start), segments, count,
                    load_scalar(bias + row * size, compute), out + row * g.yc,
                    residual + row * g.rc, worker,
                )  # fmt: skip

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        parts = g.parts if g.shared else 1
        part, rest = number % parts, number // parts
        block, rest = rest % g.blocks, rest // g.blocks
        group, image = rest % g.groups, rest // g.groups
        first_tile = block * g.panels * nr
        width = min(g.panels * nr, g.td * g.th * g.tw - first_tile)
        mine = workspace + g.worker_at + worker * g.worker_bytes
        source = (workspace if g.copied else x) + image * g.source_n + group * g.c * g.source_c
        out += image * g.yn + group * g.k * g.yc
        residual += image * g.rn + group * g.k * g.rc
        bias += group * g.k * size
        weight += group * g.weight_bytes
        v = mine
        if g.shared:
            v = (
                workspace
                + g.shared_at
                + ((image * g.groups + group) * g.blocks + block) * g.panels * g.panel_bytes
            )
        else:
            for start in range(0, width, nr):
                transform_panel(
                    g, source, first_tile // nr + start // nr, min(nr, width - start), 0, g.c,
                    v + start // nr * g.panel_bytes, mine,
                )  # fmt: skip
        first_part, end_part = (part, part + 1) if g.shared else (0, g.parts)
        for p in range(first_part, end_part):
            row = p * g.part_rows
            rows = min(g.part_rows, g.k - row)
            multiply(g, weight + row * g.c * size, v, rows, width, mine + g.products_at)
            finish(
                g, mine + g.products_at, rows, first_tile, width, bias + row * size,
                out + row * g.yc, residual + row * g.rc, mine,
            )  # fmt: skip

    return task


@functools.cache
def make_pack_kernel(tile: Tile, storage: int, compute: int) -> Any:
    """Return the task that transforms the weights of mr output channels: U[e, panel, C, row]."""
    mr, lanes, size = tile.mr, tile.lanes, ITEMSIZE[compute]
    line = lanes * size

    @numba.njit
    def transform(g: Any, lines: int) -> None:
        """Transform a kernel in place, held as [nd, nh, nw] vectors with taps in the corner."""
        row, plane = g.nw * line, g.nh * g.nw * line
        for i in range(g.kd):
            at = lines + i * plane
            if g.kw > 1:
                call_lines(g.weight_w, at, line, at, line, g.kh, row, row)
            if g.kh > 1:
                call_lines(g.weight_h, at, row, at, row, g.nw, line, line)
        if g.kd > 1:
            call_lines(g.weight_d, lines, plane, lines, plane, g.nh * g.nw, line, line)

    @numba.njit
    def pack_rows(g: Any, weight: int, mask: int, target: int, e_step: int, lines: int) -> None:
        """Transform up to `lanes` rows."""
        for c in range(g.c):
            for i in range(g.kd):
                for j in range(g.kh):
                    for k in range(g.kw):
                        tap = weight + c * g.wc + i * g.wd + j * g.wh + k * g.ww
                        taps = load_gather(tap, g.wk, mask, storage, lanes)
                        store(lines + ((i * g.nh + j) * g.nw + k) * line, taps, compute)
            transform(g, lines)
            for e in range(g.nd * g.nh * g.nw):
                row = load(lines + e * line, compute, lanes)
                store_masked(target + e * e_step + c * mr * size, row, mask, compute)

    def task(
        geometry: int, weight: int, unused: int, bias: int, residual: int, packed: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = view(geometry)
        row_panels = (g.k + mr - 1) // mr
        group, panel = number // row_panels, number % row_panels
        target = packed + group * g.weight_bytes + panel * g.c * mr * size
        rows = min(mr, g.k - panel * mr)
        source = weight + (group * g.k + panel * mr) * g.wk
        lines = workspace + worker * g.nd * g.nh * g.nw * line
        for first in range(0, rows, lanes):
            mask = range_mask(0, min(lanes, rows - first))
            pack_rows(
                g, source + first * g.wk, mask, target + first * size, row_panels * g.c * mr * size,
                lines,
            )  # fmt: skip

    return task
