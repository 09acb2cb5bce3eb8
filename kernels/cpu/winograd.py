"""Winograd convolution: fewer multiplications, for stride 1 in one, two or three dimensions.

Wins for kernels of 2 to 7 taps an axis with some tens of channels on both sides: F(4x4, 3x3) needs
36 products where the definition has 144, F(6x6, 3x3) 64 instead of 324. What it saves is partly
spent on transforms, whose share is about ``1 / K + 1 / C``::

    task = image x group x block of tiles (x part of K, where there are few tiles)
      transform: for channel, for panel of tiles             V[e, C, tiles]     in L2
      for part of K: rows whose products fit L2
        for e in the n_d * n_h * n_w elements of a tile
          M[e] = U[e] * V[e]                                 the register tile of gemm.py
        for row: inverse transform, join tiles to rows       bias, residual, activation, store

Tiles are numbered through the whole output, as pixels are in `im2col_gemm`, so a vector holds one
element of `lanes` tiles. Axes of kernel size 1 (1x7, 7x1) are not transformed.

With few tiles (a 14x14 map has 16) the same transformed input is needed by several parts of K that
run on different threads: then a first stage transforms all of it into shared memory.

Transformed weights are ``prod(n / r)`` times as large as the weights: 4 times for F(4x4, 3x3).
Where they outgrow L3 and there are few tiles to use them on, the definition is faster.

Rounding: see cook_toom.py. The arithmetic is not that of the definition, so a NaN or an infinity
spreads over its tile, and ``precision("exact")`` leaves this kernel out.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from fastconv.problem import ConvProblem
from fastconv.spec import Binding, DeviceInfo

from .finish import FINISH_FIELDS, finish_fields, make_finish_vector
from .gemm import call_tile, tile_address
from .geometry import as_record, make_record
from .isa import Tile, gemm_tile
from .pack import SEGMENT_WORDS, make_list_segments
from .plan import CpuPlan, Stage, compile_kernel, compute_dtype, worth_helpers
from .simd import (
    F32,
    F64,
    ITEMSIZE,
    get_word,
    load,
    load_gather,
    load_scalar,
    range_mask,
    storage_code,
    store,
    store_masked,
)
from .transform import (
    INPUT,
    OUTPUT,
    WEIGHT,
    call_gather,
    call_join,
    call_lines,
    gather_address,
    join_address,
    lines_address,
)

__all__ = ["Sizes", "plan", "plan_f2", "plan_f4", "plan_f6", "tile_sizes", "workspace"]

#: Addresses of the transforms; 0 where an axis has none.
_TRANSFORMS = (
    "gather",
    "input_h",
    "input_d",
    "output_d",
    "output_h",
    "join",
    "weight_w",
    "weight_h",
    "weight_d",
)

_FIELDS = (
    *FINISH_FIELDS,
    "td",  # tiles along depth, height, width
    "th",
    "tw",
    "region",  # address of the region of all tiles
    "panels",  # panels of one task
    "blocks",  # tasks along the tiles
    "parts",  # parts of K
    "part_rows",  # rows of one part, a multiple of mr
    "shared",  # 1: the first stage has transformed the input
    "tile",  # address of the micro-kernel
    "zeros",  # address of mr zeros, from which products start
    "panel_bytes",  # V of one panel
    "worker_at",  # where the workers' own memory begins
    "worker_bytes",
    "products_at",  # M
    "lines_at",  # lines between two passes
    "more_lines_at",
    "joined_at",  # rows of outputs
    "segments_at",
    "scratch_at",
    "weight_bytes",  # U of one group
    *(f"{letter}{axis}" for letter in "mn" for axis in "dhw"),  # outputs, elements of a tile
    *_TRANSFORMS,
)
_view = as_record(_FIELDS)


@dataclass(frozen=True, slots=True)
class Sizes:
    """F(m, r) along depth, height and width; (1, 1) where there is nothing to transform."""

    m: tuple[int, int, int]
    r: tuple[int, int, int]

    @property
    def n(self) -> tuple[int, ...]:
        """Elements of a tile along each axis."""
        return tuple(m + r - 1 for m, r in zip(self.m, self.r, strict=True))

    @property
    def elements(self) -> int:
        """Elements of a tile."""
        return math.prod(self.n)


def tile_sizes(problem: ConvProblem, m: int) -> Sizes:
    """Return the tile of a problem with `m` outputs along each transformed axis."""
    kernel = (1, 1, *problem.kernel_size)[-3:]
    return Sizes(tuple(m if r > 1 else 1 for r in kernel), kernel)  # type: ignore[arg-type]


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
def _make_finish_row(tile: Tile, storage: int, compute: int) -> Any:
    """Return a function that brings one row (output channel) of a panel's products to `out`."""
    lanes, nr, size = tile.lanes, tile.nr, ITEMSIZE[compute]
    line = nr * size
    finish_vector = make_finish_vector(lanes, storage, compute)

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
    def store_rows(
        g: Any, joined: int, segments: int, count: int, bias: float, out: int, residual: int,
        scratch: int,
    ) -> None:  # fmt: skip
        """Store the joined rows, segment by segment."""
        for s in range(count):
            words = segments + 8 * SEGMENT_WORDS * s
            lane, length = get_word(words, 0), get_word(words, 1)
            ow = get_word(words, 4) * g.mw
            stop = min(length * g.mw, g.ow - ow)
            for i in range(g.md):
                for j in range(g.mh):
                    od, oh = get_word(words, 2) * g.md + i, get_word(words, 3) * g.mh + j
                    if od >= g.od or oh >= g.oh:
                        continue
                    source = joined + ((i * g.mh + j) * nr + lane) * g.mw * size
                    to = out + od * g.yd + oh * g.yh + ow * g.yw
                    extra = residual + od * g.rd + oh * g.rh + ow * g.rw
                    for start in range(0, stop, lanes):
                        finish_vector(
                            g, source + start * size, bias, to + start * g.yw,
                            extra + start * g.rw, min(lanes, stop - start), scratch,
                        )  # fmt: skip

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
                    b = v + start // nr * g.panel_bytes + e * g.c * nr * size
                    call_tile(
                        g.tile, a, mr * size, b, nr * size, g.c, c + start * size, pitch, g.zeros,
                        0, -math.inf, math.inf, min(nr, width - start), min(mr, rows - row),
                    )  # fmt: skip

    return multiply


@functools.cache
def _make_kernel(tile: Tile, storage: int, compute: int) -> Any:
    """Return the main task: see the drawing at the top of this file."""
    nr, size = tile.nr, ITEMSIZE[compute]
    transform_panel = _make_transform_panel(tile, compute)
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
        g = _view(geometry)
        parts = g.parts if g.shared else 1
        part, rest = number % parts, number // parts
        block, rest = rest % g.blocks, rest // g.blocks
        group, image = rest % g.groups, rest // g.groups
        first_tile = block * g.panels * nr
        width = min(g.panels * nr, g.td * g.th * g.tw - first_tile)
        mine = workspace + g.worker_at + worker * g.worker_bytes
        x += image * g.xn + group * g.c * g.xc
        out += image * g.yn + group * g.k * g.yc
        residual += image * g.rn + group * g.k * g.rc
        bias += group * g.k * size
        weight += group * g.weight_bytes
        v = mine
        if g.shared:
            v = (
                workspace
                + ((image * g.groups + group) * g.blocks + block) * g.panels * g.panel_bytes
            )
        else:
            for start in range(0, width, nr):
                transform_panel(
                    g, x, first_tile // nr + start // nr, min(nr, width - start), 0, g.c,
                    v + start // nr * g.panel_bytes, mine + g.segments_at, mine + g.lines_at,
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


#: Channels that one task of the first stage transforms.
_STAGE_CHANNELS = 16


@functools.cache
def _make_stage(tile: Tile, compute: int) -> Any:
    """Return the first stage's task: one panel of tiles, some channels, into shared memory."""
    nr = tile.nr
    transform_panel = _make_transform_panel(tile, compute)

    def task(
        geometry: int, x: int, weight: int, bias: int, residual: int, out: int,
        workspace: int, number: int, worker: int,
    ) -> None:  # fmt: skip
        g = _view(geometry)
        chunks = (g.c + _STAGE_CHANNELS - 1) // _STAGE_CHANNELS
        chunk, rest = number % chunks, number // chunks
        panels = g.blocks * g.panels
        panel, rest = rest % panels, rest // panels
        group, image = rest % g.groups, rest // g.groups
        width = min(nr, g.td * g.th * g.tw - panel * nr)
        mine = workspace + g.worker_at + worker * g.worker_bytes
        if width > 0:
            transform_panel(
                g, x + image * g.xn + group * g.c * g.xc, panel, width, chunk * _STAGE_CHANNELS,
                min((chunk + 1) * _STAGE_CHANNELS, g.c),
                workspace + (rest * panels + panel) * g.panel_bytes, mine + g.segments_at,
                mine + g.lines_at,
            )  # fmt: skip

    return task


@functools.cache
def _make_pack_kernel(tile: Tile, storage: int, compute: int) -> Any:
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
        g = _view(geometry)
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


#: Products of one part of K, as a part of L2.
_PRODUCTS_SHARE = 2
#: Most bytes of transformed input that threads share.
_MOST_SHARED = 16 << 20


def _layout(problem: ConvProblem, device: DeviceInfo, sizes: Sizes) -> Any:
    """Return the register tile, codes and block sizes."""
    storage = storage_code(problem.dtype)
    compute = F64 if storage == F64 else F32
    tile, size = gemm_tile(device, storage), ITEMSIZE[compute]
    out = (1, 1, *problem.out_size)[-3:]
    tiles = [-(-o // m) for o, m in zip(out, sizes.m, strict=True)]
    k, c = problem.out_channels // problem.groups, problem.in_channels // problem.groups
    count, jobs = math.prod(tiles), problem.batch * problem.groups
    panel_bytes = sizes.elements * c * tile.nr * size
    all_panels = -(-count // tile.nr)

    # Two panels a task where their transformed input still fits L2: the weights are read half as
    # often. Few tasks: share the transformed input and split K.
    panels = (
        2 if 2 * panel_bytes <= device.l2 // 2 and all_panels * jobs >= 4 * device.threads else 1
    )
    blocks = -(-all_panels // panels)
    shared = blocks * jobs < 4 * device.threads and device.threads > 1
    shared = shared and blocks * panels * jobs * panel_bytes <= _MOST_SHARED
    row_bytes = sizes.elements * panels * tile.nr * size
    fit = max(1, device.l2 // _PRODUCTS_SHARE // row_bytes // tile.mr)
    wanted = -(-4 * device.threads // max(1, blocks * jobs)) if shared else 1
    row_panels = -(-k // tile.mr)
    part_panels = max(1, min(fit, row_panels // wanted))
    fields = {
        "td": tiles[0], "th": tiles[1], "tw": tiles[2], "panels": panels, "blocks": blocks,
        "part_rows": part_panels * tile.mr, "parts": -(-row_panels // part_panels),
        "shared": int(shared), "panel_bytes": panel_bytes,
        "worker_at": blocks * panels * jobs * panel_bytes if shared else 0,
    }  # fmt: skip
    line = (tile.nr + tile.lanes) * size
    parts = {
        "products_at": 0 if shared else panels * panel_bytes,
        "lines_at": part_panels * tile.mr * row_bytes,
        "more_lines_at": sizes.elements * line,
        "joined_at": math.prod(sizes.m[:2]) * sizes.n[2] * tile.nr * size,
        "segments_at": math.prod(sizes.m) * tile.nr * size,
        "scratch_at": tile.nr * SEGMENT_WORDS * 8,
        "worker_bytes": tile.lanes * size,
    }
    end = 0
    for name, before in parts.items():
        end += -(-before // 64) * 64
        fields[name] = end
    return tile, storage, compute, fields


def _transforms(sizes: Sizes, lanes: int, storage: int, compute: int) -> dict[str, int]:
    """Return the addresses of `_TRANSFORMS`, compiled."""
    (md, mh, mw), (rd, rh, rw) = sizes.m, sizes.r
    found = dict.fromkeys(_TRANSFORMS, 0)
    found["gather"] = gather_address(mw, rw, lanes, storage, compute)
    found["join"] = join_address(mw, rw, lanes, compute)
    for axis, m, r in (("d", md, rd), ("h", mh, rh), ("w", mw, rw)):
        if r == 1:
            continue
        for name, kind in (("input", INPUT), ("output", OUTPUT), ("weight", WEIGHT)):
            if f"{name}_{axis}" in found:
                found[f"{name}_{axis}"] = lines_address(kind, m, r, lanes, compute)
    return found


def workspace(problem: ConvProblem, device: DeviceInfo, m: int) -> int:
    """Return the scratch bytes of a call, over all threads."""
    fields = _layout(problem, device, tile_sizes(problem, m))[-1]
    workers = worth_helpers(problem.macs, device.threads)
    return int(fields["worker_at"] + fields["worker_bytes"] * workers)


def plan_f2(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare F(2, r), the most exact and least saving."""
    return plan(problem, binding, device, 2)


def plan_f4(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare F(4, r)."""
    return plan(problem, binding, device, 4)


def plan_f6(problem: ConvProblem, binding: Binding, device: DeviceInfo) -> CpuPlan:
    """Prepare F(6, r), the most saving and least exact."""
    return plan(problem, binding, device, 6)


def plan(problem: ConvProblem, binding: Binding, device: DeviceInfo, m: int) -> CpuPlan:
    """Prepare the kernel with `m` outputs a tile for one problem and one binding."""
    sizes = tile_sizes(problem, m)
    tile, storage, compute, fields = _layout(problem, device, sizes)
    region = np.array([0, 0, 0, fields["td"], fields["th"], fields["tw"]], np.int64)
    zeros = np.zeros(tile.mr, compute_dtype(problem.dtype))
    fields |= finish_fields(binding, direct=False, clamped=False)
    fields |= {"region": region.ctypes.data, "zeros": zeros.ctypes.data}
    fields["tile"] = tile_address(tile, compute)
    workers = worth_helpers(problem.macs, device.threads)
    jobs = problem.batch * problem.groups
    c, k = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    row_panels = -(-k // tile.mr)
    weight_size = sizes.elements * row_panels * c * tile.mr
    fields["weight_bytes"] = weight_size * ITEMSIZE[compute]
    fields |= {f"m{axis}": m for axis, m in zip("dhw", sizes.m, strict=True)}
    fields |= {f"n{axis}": n for axis, n in zip("dhw", sizes.n, strict=True)}
    fields |= _transforms(sizes, tile.lanes, storage, compute)
    key = (tile.mr, tile.nv, tile.lanes, storage)
    stages = []
    if fields["shared"]:
        chunks = -(-c // _STAGE_CHANNELS)
        stage = compile_kernel(_make_stage(tile, compute), "winograd_input", *key)
        stages.append(Stage(stage, jobs * fields["blocks"] * fields["panels"] * chunks))
    main = compile_kernel(_make_kernel(tile, storage, compute), "winograd", *key)
    split = fields["parts"] if fields["shared"] else 1
    stages.append(Stage(main, jobs * fields["blocks"] * split))
    pack = compile_kernel(_make_pack_kernel(tile, storage, compute), "winograd_pack", *key)
    return CpuPlan(
        record=make_record(problem, binding, {name: fields[name] for name in _FIELDS}),
        stages=tuple(stages),
        workers=workers,
        workspace_bytes=fields["worker_at"] + fields["worker_bytes"] * workers,
        compute=compute_dtype(problem.dtype),
        bias_size=problem.out_channels,
        pack_stage=Stage(pack, problem.groups * row_panels),
        pack_bytes=sizes.elements * tile.lanes * ITEMSIZE[compute] * workers,
        packed_size=problem.groups * weight_size,
        packing=("winograd", *sizes.m, *sizes.r, *key),
        tables=(region, zeros),
    )
