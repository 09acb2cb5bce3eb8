"""The register tile of plan.py: products of transformed samples, transformed back in place.

A tile is ``lanes`` output pixels times ``lanes`` output channels, cut into ``T = lanes / m``
Winograd tiles of m pixels. Its ``n T`` sums stay in registers from the first product to the
outputs, so no product is ever stored::

    for step:                            channel, kernel depth and row, phase    (offsets: a table)
      for a in n:
        for t in T:  sums[a, t] += V[step, a, t] * U[step, a, channels]          broadcast * vector
    outputs[m t + i] = sum over a of A^T[i, a] * sums[a, t]
    bias, clamp; for channels-first outputs the square block is transposed; store

The samples of a register tile lie side by side, ``V[step][register tile][a][t]``: all are constant
distances from one address, and fill whole lines of L1.

Registers (AVX-512, F(4, r)): T = 4, so 20, 24 or 28 sums for r = 2, 3, 4. A step reads n vectors
of U and broadcasts n T scalars for as many multiply-adds, which 512-bit vectors hide. With 16
registers T is 2, and 3 loads for 2 multiply-adds bound a step.

The way back takes 13 operations for the 4 outputs of F(4, 3), 6 of them multiply-adds, and a
transposition 4 shuffles an output. Additions run beside the multiply-adds of the next tile, but
shuffles take their place: 16.4 cycles an output vector of 13.5 products, 19.7 with a transposition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...cook_toom import matrices
from ..common.toom_cook_lines import OUTPUT, apply_matrix
from ..runtime import jit
from ..simd.ir import (
    F64,
    I8,
    I64,
    ITEMSIZE,
    broadcast,
    call_address,
    clamp_high,
    clamp_low,
    compute_ir,
    constant,
    first_lanes,
    fmuladd,
    literals,
    load_vector,
    pointer,
    store_vector,
    transposed,
)

__all__ = ["call_row_tiles", "row_tiles_address"]


@dataclass(slots=True)
class _Emitter:
    """Emits one tile; the fields are LLVM values, but for the last five."""

    builder: Any
    v: Any
    table: Any
    steps: Any
    u: Any
    c: Any
    row_step: Any
    rows: Any
    width: Any
    bias: Any
    channels: Any
    low: Any
    high: Any
    m: int
    r: int
    lanes: int
    rows_are_channels: int
    code: int

    @property
    def n(self) -> int:
        """Elements of a Winograd tile."""
        return self.m + self.r - 1

    @property
    def line(self) -> int:
        """Bytes of a vector."""
        return self.lanes * ITEMSIZE[self.code]

    def at(self, base: Any, offset: Any) -> Any:
        """Return the pointer `offset` bytes behind `base`."""
        return self.builder.gep(base, [offset])

    def row(self, i: int) -> Any:
        """Return the address of a row of the output."""
        return self.at(self.c, self.builder.mul(self.row_step, I64(i)))

    def step(self, v: Any, u: Any, sums: list[Any]) -> list[Any]:
        """Emit one step's multiply-adds."""
        builder, size, after = self.builder, ITEMSIZE[self.code], []
        tiles, kind = self.lanes // self.m, compute_ir(self.code).as_pointer()
        for a in range(self.n):
            weights = load_vector(builder, self.at(u, I64(a * self.line)), self.lanes, self.code)
            for t in range(tiles):
                address = builder.bitcast(self.at(v, I64((a * tiles + t) * size)), kind)
                sample = broadcast(builder, builder.load(address, align=size), self.lanes)
                after.append(fmuladd(builder, sample, weights, sums[a * tiles + t]))
        return after

    def reduce(self) -> list[Any]:
        """Emit the loop over the steps; there is at least one."""
        builder = self.builder
        entry, loop, end = (
            builder.block, builder.append_basic_block("step"), builder.append_basic_block("reduced")
        )  # fmt: skip
        kind = ir.VectorType(compute_ir(self.code), self.lanes)
        builder.branch(loop)
        builder.position_at_end(loop)
        number, u = builder.phi(I64), builder.phi(self.u.type)
        sums = [builder.phi(kind) for _ in range(self.n * self.lanes // self.m)]
        v = self.at(self.v, builder.load(builder.gep(self.table, [number])))
        after = self.step(v, u, sums)
        following = builder.add(number, I64(1))
        behind = self.at(u, I64(self.n * self.line))
        builder.cbranch(builder.icmp_signed("<", following, self.steps), loop, end)
        builder.position_at_end(end)
        zero = constant(kind, 0.0)
        for phi, first, then in (
            (number, I64(0), following), (u, self.u, behind),
            *((one, zero, other) for one, other in zip(sums, after, strict=True)),
        ):  # fmt: skip
            phi.add_incoming(first, entry)
            phi.add_incoming(then, loop)
        return after

    def outputs(self, sums: list[Any]) -> list[Any]:
        """Emit the transform of the sums and the bias; one vector of channels a pixel."""
        builder, tiles = self.builder, self.lanes // self.m
        matrix = matrices(self.m, self.r)[OUTPUT]
        mask = first_lanes(builder, self.channels, self.lanes)
        bias = load_vector(builder, self.bias, self.lanes, self.code, mask)
        pixels = []
        for t in range(tiles):
            line = sums[t::tiles]
            pixels += apply_matrix(builder, matrix, line)
        return [builder.fadd(value, bias) for value in pixels]

    def clamp(self, values: list[Any]) -> list[Any]:
        """Emit the clamp, and a jump over it where there is nothing to clamp."""
        builder = self.builder
        any_bound = builder.or_(
            builder.fcmp_ordered("!=", self.low, constant(self.low.type, float("-inf"))),
            builder.fcmp_ordered("!=", self.high, constant(self.high.type, float("inf"))),
        )
        before = builder.block
        with builder.if_then(any_bound):
            floor = broadcast(builder, self.low, self.lanes)
            ceiling = broadcast(builder, self.high, self.lanes)
            clamped = [
                clamp_high(builder, clamp_low(builder, value, floor), ceiling) for value in values
            ]
            inside = builder.block
        result = [builder.phi(value.type) for value in values]
        for phi, plain, changed in zip(result, values, clamped, strict=True):
            phi.add_incoming(plain, before)
            phi.add_incoming(changed, inside)
        return result

    def store(self, values: list[Any]) -> None:
        """Emit the stores: `rows` rows of `width` elements."""
        builder = self.builder
        whole = builder.and_(
            builder.icmp_signed(">=", self.rows, I64(self.lanes)),
            builder.icmp_signed(">=", self.width, I64(self.lanes)),
        )
        with builder.if_else(whole) as (full, edge):
            with full:
                for i, value in enumerate(values):
                    store_vector(builder, self.row(i), value, self.code)
            with edge:
                mask = first_lanes(builder, self.width, self.lanes)
                none = constant(mask.type, 0)
                for i, value in enumerate(values):
                    present = builder.icmp_signed("<", I64(i), self.rows)
                    flags = builder.select(present, mask, none)
                    store_vector(builder, self.row(i), value, self.code, flags)

    def emit(self) -> None:
        """Emit the tile."""
        values = self.clamp(self.outputs(self.reduce()))
        self.store(transposed(self.builder, values) if self.rows_are_channels else values)


@intrinsic(prefer_literal=True)
def _row_tile(
    typingctx: Any, v: Any, table: Any, steps: Any, u: Any, c: Any, row_step: Any, rows: Any,
    width: Any, bias: Any, channels: Any, low: Any, high: Any, m: Any, r: Any, lanes: Any,
    rows_are_channels: Any, code: Any,
) -> Any:  # fmt: skip
    """Compute one tile, see `call_row_tiles`; the last five arguments are literal."""
    shape = literals((m, r, lanes, rows_are_channels, code))
    if shape is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile = _Emitter(builder, *args[:12], *shape)
        for name in ("v", "u", "c", "bias"):
            setattr(tile, name, pointer(builder, getattr(tile, name), I8))
        tile.table = pointer(builder, tile.table, I64)
        if tile.code != F64:
            kind = compute_ir(tile.code)
            tile.low, tile.high = builder.fptrunc(tile.low, kind), builder.fptrunc(tile.high, kind)
        tile.emit()
        return context.get_dummy_value()

    word, real = types.intp, types.float64
    signature = types.void(*([word] * 10), real, real, m, r, lanes, rows_are_channels, code)
    return signature, codegen


_SIGNATURE = types.void(*([types.intp] * 11), types.float64, types.float64)


def row_tiles_address(m: int, r: int, lanes: int, rows_are_channels: int, code: int) -> int:
    """Return the address of a function that computes tiles along one output row.

    `call_row_tiles` calls it. The loop over the tiles is in here, so that the stores of one tile
    run under the products of the next.
    """
    samples = (m + r - 1) * (lanes // m) * ITEMSIZE[code]

    def row_tiles(
        v: int, table: int, steps: int, u: int, c: int, row_step: int, tile_step: int, first: int,
        pixels: int, bias: int, channels: int, low: float, high: float,
    ) -> None:  # fmt: skip
        for pixel in range(0, pixels, lanes):
            rows, width = min(lanes, pixels - pixel), channels
            if rows_are_channels:
                rows, width = width, rows
            _row_tile(
                v + (first + pixel) // lanes * samples, table, steps, u,
                c + pixel // lanes * tile_step, row_step, rows, width, bias, channels, low, high,
                m, r, lanes, rows_are_channels, code,
            )  # fmt: skip

    key = ("row_tiles", m, r, lanes, rows_are_channels, code)
    return int(jit.compile_callback(row_tiles, _SIGNATURE, key).address)


@intrinsic
def call_row_tiles(
    typingctx: Any, function: Any, v: Any, table: Any, steps: Any, u: Any, c: Any, row_step: Any,
    tile_step: Any, first: Any, pixels: Any, bias: Any, channels: Any, low: Any, high: Any,
) -> Any:  # fmt: skip
    """Call the function at a `row_tiles_address`.

    Parameters
    ----------
    v, table, steps : intp
        Transformed input under the first step of an output row, byte offsets of the steps from
        there, and their number.
    u : intp
        Transformed weights, ``U[step, a, lanes channels]``.
    c, row_step, tile_step : intp
        Output of the first pixel, bytes from one row of a tile (a channel where
        `rows_are_channels`, else a pixel) to the next, and from one tile to the next.
    first, pixels : intp
        First pixel, a multiple of the lanes, and their number.
    bias, channels : intp
        Address of the bias of the lanes, and how many of them are channels of the output.
    low, high : float64
        Clamp of the result.
    """
    return types.void(types.intp, *_SIGNATURE.args), call_address
