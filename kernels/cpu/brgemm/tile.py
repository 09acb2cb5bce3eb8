"""A register tile that reads the input where it lies: it is found by a table of tap runs.

``C[rows, lanes] = bias + sum over tap runs and steps of rows x lanes``::

    for tap run:                  an offset in bytes from the table         (a tap, or a kernel row)
      for step:                   a constant distance in bytes              (channels, or taps)
        rows x nv accumulators += broadcast * vector

The input takes either side, the packed weights and the bias the other:

- `PIXEL_ROWS`: rows are output pixels, which lie equally far apart and are broadcast one by one;
  lanes are output channels. Nothing is asked of the input's order, so any stride, dilation and
  memory order is read in place.
- `PIXEL_LANES`: rows are output channels, whose weights are broadcast; lanes are neighbouring
  pixels of one output row. The vectors must be contiguous; they need not be aligned: two loads
  across a cache line cost 4 of the 24 cycles of a 12 x 2 tile.

Against gemm/tile.py's tile this saves packing the input. After E. Georganas et al.,
"High-Performance Deep Learning via a Single Building Block" (arXiv:1906.06440), whose batch-reduce
GEMM is `PIXEL_ROWS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..runtime import jit
from ..simd.ir import (
    I8,
    I64,
    ITEMSIZE,
    broadcast,
    call_address,
    clamp_high,
    clamp_low,
    compute_ir,
    first_lanes,
    fmuladd,
    literals,
    load_vector,
    pointer,
    store_vector,
)
from ..simd.register_tiles import RegisterTile
from .costs import PIXEL_ROWS

__all__ = ["brgemm_tiles_address", "call_brgemm_tiles"]


@dataclass(slots=True)
class _Emitter:
    """Emits one tile; the fields are LLVM values, but for the last five."""

    builder: Any
    x: Any
    x_pitch: Any
    x_step: Any
    w: Any
    w_step: Any
    table: Any
    tap_runs: Any
    steps: Any
    c: Any
    c_pitch: Any
    bias: Any
    low: Any
    high: Any
    width: Any
    partial: Any
    first: Any
    last: Any
    rows: int
    nv: int
    lanes: int
    code: int
    side: int

    def at(self, base: Any, offset: Any) -> Any:
        """Return the pointer `offset` bytes behind `base`."""
        return self.builder.gep(base, [offset])

    def scalar(self, address: Any) -> Any:
        """Emit the load of one number into every lane."""
        kind, size = compute_ir(self.code), ITEMSIZE[self.code]
        typed = self.builder.bitcast(address, kind.as_pointer())
        return broadcast(self.builder, self.builder.load(typed, align=size), self.lanes)

    def vectors(self, base: Any, masks: Sequence[Any] | None = None) -> list[Any]:
        """Emit the loads of the tile's nv vectors."""
        step = self.lanes * ITEMSIZE[self.code]
        return [
            load_vector(
                self.builder, self.at(base, I64(j * step)), self.lanes, self.code,
                masks[j] if masks else None,
            )
            for j in range(self.nv)
        ]  # fmt: skip

    def start(self, masks: list[Any]) -> list[Any]:
        """Emit the sums' start, row by row: the bias."""
        if self.side == PIXEL_ROWS:
            return self.vectors(self.bias, masks) * self.rows
        size = ITEMSIZE[self.code]
        scalars = [self.scalar(self.at(self.bias, I64(i * size))) for i in range(self.rows)]
        return [scalar for scalar in scalars for _ in range(self.nv)]

    def step(self, x: Any, w: Any, sums: list[Any]) -> list[Any]:
        """Emit one step's multiply-adds."""
        size, after = ITEMSIZE[self.code], []
        panel = self.vectors(w if self.side == PIXEL_ROWS else x)
        for i in range(self.rows):
            if self.side == PIXEL_ROWS:
                scalar = self.scalar(self.at(x, self.builder.mul(self.x_pitch, I64(i))))
            else:
                scalar = self.scalar(self.at(w, I64(i * size)))
            for j in range(self.nv):
                after.append(fmuladd(self.builder, scalar, panel[j], sums[i * self.nv + j]))
        return after

    def reduce(self, start: list[Any]) -> list[Any]:
        """Emit the two loops; there is at least one step a tap run."""
        builder = self.builder
        entry = builder.block
        tap_run_loop, step_loop, tap_run_end, end = (
            builder.append_basic_block(name)
            for name in ("tap_run", "step", "tap_run_end", "reduced")
        )
        builder.cbranch(builder.icmp_signed(">", self.tap_runs, I64(0)), tap_run_loop, end)
        builder.position_at_end(tap_run_loop)
        tap_run, w_first = builder.phi(I64), builder.phi(self.w.type)
        first_sums = [builder.phi(value.type) for value in start]
        x_first = self.at(self.x, builder.load(builder.gep(self.table, [tap_run])))
        builder.branch(step_loop)
        builder.position_at_end(step_loop)
        left, x, w = builder.phi(I64), builder.phi(self.x.type), builder.phi(self.w.type)
        sums = [builder.phi(value.type) for value in start]
        after = self.step(x, w, sums)
        x_next = self.at(x, self.x_step)
        w_next = self.at(w, self.w_step)
        left_next = builder.sub(left, I64(1))
        builder.cbranch(builder.icmp_signed(">", left_next, I64(0)), step_loop, tap_run_end)
        builder.position_at_end(tap_run_end)
        tap_run_next = builder.add(tap_run, I64(1))
        builder.cbranch(builder.icmp_signed("<", tap_run_next, self.tap_runs), tap_run_loop, end)
        for phi, first, following in (
            (left, self.steps, left_next), (x, x_first, x_next), (w, w_first, w_next),
            *zip(sums, first_sums, after, strict=True),
        ):  # fmt: skip
            phi.add_incoming(first, tap_run_loop)
            phi.add_incoming(following, step_loop)
        for phi, first, following in (
            (tap_run, I64(0), tap_run_next), (w_first, self.w, w_next),
            *zip(first_sums, start, after, strict=True),
        ):  # fmt: skip
            phi.add_incoming(first, entry)
            phi.add_incoming(following, tap_run_end)
        builder.position_at_end(end)
        totals = [builder.phi(value.type) for value in start]
        for total, first, last in zip(totals, start, after, strict=True):
            total.add_incoming(first, entry)
            total.add_incoming(last, tap_run_end)
        return totals

    def clamp(self, sums: list[Any]) -> list[Any]:
        """Emit the clamp, and a jump over it where there is nothing to clamp."""
        builder = self.builder
        infinity = ir.Constant(self.low.type, float("inf"))
        lowest = ir.Constant(self.low.type, float("-inf"))
        any_bound = builder.or_(
            builder.fcmp_ordered("!=", self.low, lowest),
            builder.fcmp_ordered("!=", self.high, infinity),
        )
        before = builder.block
        with builder.if_then(any_bound):
            floor = broadcast(builder, self.low, self.lanes)
            ceiling = broadcast(builder, self.high, self.lanes)
            clamped = [
                clamp_high(builder, clamp_low(builder, value, floor), ceiling) for value in sums
            ]
            inside = builder.block
        return self.joined(sums, before, clamped, inside)

    def add_partial(self, sums: list[Any]) -> list[Any]:
        """Emit the addition of what earlier tap runs left, where there are any."""
        builder, step = self.builder, self.lanes * ITEMSIZE[self.code]
        before = builder.block
        with builder.if_then(builder.icmp_signed("==", self.first, I64(0))):
            parts = [
                load_vector(builder, self.at(self.partial, I64(n * step)), self.lanes, self.code)
                for n in range(len(sums))
            ]
            added = [builder.fadd(*pair) for pair in zip(parts, sums, strict=True)]
            inside = builder.block
        return self.joined(sums, before, added, inside)

    def joined(self, plain: list[Any], before: Any, changed: list[Any], inside: Any) -> list[Any]:
        """Return values that are `plain` coming from one block and `changed` from another."""
        result = [self.builder.phi(value.type) for value in plain]
        for phi, one, other in zip(result, plain, changed, strict=True):
            phi.add_incoming(one, before)
            phi.add_incoming(other, inside)
        return result

    def store(self, sums: list[Any], masks: list[Any] | None) -> None:
        """Emit the stores to the output."""
        for i in range(self.rows):
            row = self.at(self.c, self.builder.mul(self.c_pitch, I64(i)))
            for j in range(self.nv):
                address = self.at(row, I64(j * self.lanes * ITEMSIZE[self.code]))
                value = sums[i * self.nv + j]
                store_vector(self.builder, address, value, self.code, masks[j] if masks else None)

    def emit(self) -> None:
        """Emit the tile: start, loops, then a partial sum or clamp and store."""
        builder, step = self.builder, self.lanes * ITEMSIZE[self.code]
        masks = [first_lanes(builder, self.width, self.lanes, j * self.lanes)
                 for j in range(self.nv)]  # fmt: skip
        totals = self.add_partial(self.reduce(self.start(masks)))
        with builder.if_else(builder.icmp_signed("!=", self.last, I64(0))) as (last, more):
            with last:
                sums = self.clamp(totals)
                full = builder.icmp_signed(">=", self.width, I64(self.nv * self.lanes))
                with builder.if_else(full) as (whole, edge):
                    with whole:
                        self.store(sums, None)
                    with edge:
                        self.store(sums, masks)
            with more:
                for n, value in enumerate(totals):
                    store_vector(builder, self.at(self.partial, I64(n * step)), value, self.code)


@intrinsic(prefer_literal=True)
def _brgemm_tile(
    typingctx: Any, x: Any, x_pitch: Any, x_step: Any, w: Any, w_step: Any, table: Any,
    tap_runs: Any, steps: Any, c: Any, c_pitch: Any, bias: Any, low: Any, high: Any, width: Any,
    partial: Any, first: Any, last: Any, rows: Any, nv: Any, lanes: Any, code: Any, side: Any,
) -> Any:  # fmt: skip
    """Compute one tile, see `call_brgemm_tiles`; the last five arguments are literal.

    `x_pitch` is the distance of the rows' pixels, `width` the number of lanes to store. Runs that
    are not the `last` leave their sums at `partial`, and those that are not the `first` add them.
    """
    shape = literals((rows, nv, lanes, code, side))
    if shape is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile = _Emitter(builder, *args[:17], *shape)
        for name in ("x", "w", "c", "bias", "partial"):
            setattr(tile, name, pointer(builder, getattr(tile, name), I8))
        tile.table = pointer(builder, tile.table, I64)
        kind = compute_ir(tile.code)
        if kind != tile.low.type:
            tile.low, tile.high = builder.fptrunc(tile.low, kind), builder.fptrunc(tile.high, kind)
        tile.emit()
        return context.get_dummy_value()

    word, real = types.intp, types.float64
    signature = types.void(
        *([word] * 11), real, real, word, word, word, word, rows, nv, lanes, code, side
    )
    return signature, codegen


def _make_tile(rows: int, nv: int, lanes: int, code: int, side: int) -> Any:
    """Return a function that computes one tile, a chunk of tap runs at a time."""

    @numba.njit(forceinline=True)
    def tile(
        x: int, x_pitch: int, x_step: int, w: int, w_step: int, table: int, tap_runs: int,
        steps: int, chunk: int, c: int, c_pitch: int, bias: int, zeros: int, low: float,
        high: float, width: int, partial: int,
    ) -> None:  # fmt: skip
        for first in range(0, max(tap_runs, 1), chunk):  # without any the sum is the bias
            count = min(chunk, tap_runs - first)
            _brgemm_tile(
                x, x_pitch, x_step, w + first * steps * w_step, w_step, table + 8 * first, count,
                steps, c, c_pitch, zeros if first else bias, low, high, width, partial,
                int(first == 0), int(first + count >= tap_runs), rows, nv, lanes, code, side,
            )  # fmt: skip

    return tile


_SIGNATURE = types.void(*([types.intp] * 16), types.float64, types.float64, types.intp)


def brgemm_tiles_address(tile: RegisterTile, narrow: int, code: int, side: int) -> int:
    """Return the address of a function that computes tiles along one output row.

    `call_brgemm_tiles` calls it. With `PIXEL_LANES` what fits in `narrow` vectors takes a narrower
    tile. The loop over the tiles is in here because a call's arguments and saved registers fill
    the store queue (64 entries, a 512-bit store takes two) behind a tile's stores, so that the
    next tile could not begin under them: 60 of 700 cycles on a first layer.
    """
    rows, nv, lanes = tile.mr, tile.nv, tile.lanes
    pixels = rows if side == PIXEL_ROWS else nv * lanes
    wide_tile = _make_tile(rows, nv, lanes, code, side)
    narrow_tile = wide_tile if narrow == nv else _make_tile(rows, narrow, lanes, code, side)

    def brgemm_tiles(
        x: int, x_move: int, x_step: int, w: int, w_step: int, table: int, tap_runs: int,
        steps: int, chunk: int, c: int, c_pitch: int, c_move: int, bias: int, zeros: int,
        partial: int, count: int, low: float, high: float, channels: int,
    ) -> None:  # fmt: skip
        for start in range(0, count, pixels):
            at, width = start, count - start
            if side == PIXEL_ROWS:  # the last tile goes back over pixels of the one before
                at, width = min(start, count - pixels), channels
            if side == PIXEL_ROWS or width > narrow * lanes:
                wide_tile(
                    x + at * x_move, x_move, x_step, w, w_step, table, tap_runs, steps, chunk,
                    c + at * c_move, c_pitch, bias, zeros, low, high, width, partial,
                )  # fmt: skip
            else:
                narrow_tile(
                    x + at * x_move, x_move, x_step, w, w_step, table, tap_runs, steps, chunk,
                    c + at * c_move, c_pitch, bias, zeros, low, high, width, partial,
                )  # fmt: skip

    key = ("brgemm_tiles", rows, nv, narrow, lanes, code, side)
    return int(jit.compile_callback(brgemm_tiles, _SIGNATURE, key).address)


@intrinsic
def call_brgemm_tiles(
    typingctx: Any, function: Any, x: Any, x_move: Any, x_step: Any, w: Any, w_step: Any,
    table: Any, tap_runs: Any, steps: Any, chunk: Any, c: Any, c_pitch: Any, c_move: Any, bias: Any,
    zeros: Any, partial: Any, count: Any, low: Any, high: Any, channels: Any,
) -> Any:  # fmt: skip
    """Call the function at a `brgemm_tiles_address`.

    Parameters
    ----------
    x, x_move, x_step : intp
        Address of the first pixel, bytes from a pixel to the next, and from a step to the next.
    w, w_step : intp
        Address of the packed weights, for each step the tile's rows or lanes, and bytes from one
        step to the next.
    table, tap_runs, steps, chunk : intp
        Address of the offsets of the tap runs, their number, the steps of each, and how many are
        summed before the sum is set aside: adding up short sums rounds less than one long one.
    c, c_pitch, c_move : intp
        Address of the output, bytes between the rows of a tile, and from a pixel to the next.
    bias, zeros : intp
        Addresses of the sums' start, one number an output channel, and of as many zeros.
    partial : intp
        Address of room for a tile of sums.
    count : intp
        Pixels; with `PIXEL_ROWS` at least as many as the tile has rows.
    low, high : float64
        Clamp of the result.
    channels : intp
        Output channels, where they are the lanes.
    """
    return types.void(types.intp, *_SIGNATURE.args), call_address
