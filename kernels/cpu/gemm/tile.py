"""The arithmetic that GEMM-like kernels share: one register tile, and the panels it reads.

``C[rows, lanes] (+)= A[rows, kc] * B[kc, lanes]``::

    A panel: kc steps of mr weights        B panel: kc steps of nr pixels
    (broadcast one at a time)              (nv vectors)
         |                                      |
         +---------> mr x nv accumulators <-----+      in registers for the whole kc loop
                            |
                            C: rows at any pitch, lanes contiguous

The sum starts from the bias (first block) or from zero; in the end C is added (later blocks), then
comes a clamp (last block), each only where it is wanted. C's lines are prefetched before the loop:
rows of an output map lie kilobytes apart, in no cache, and 28 stores that wait for L3 one after the
other would take as long as the loop over 64 steps.

On Zen 4 the loop runs at the FMA peak from L1 and from L2: a step of the 12 x 2 tile is 24 cycles
of multiply-adds and asks for 176 bytes, 7 a cycle, of the 32 that L2 delivers. What surrounds it is
60 to 90 cycles, 4% of a tile of 64 steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..machine.lines import LINE
from ..runtime import jit
from ..simd.ir import (
    I1,
    I8,
    I64,
    ITEMSIZE,
    broadcast,
    call_address,
    clamp_high,
    clamp_low,
    compute_code,
    compute_ir,
    first_lanes,
    literals,
    load_vector,
    multiply_add,
    pointer,
    prefetch,
    store_vector,
)
from ..simd.register_tiles import RegisterTile

__all__ = ["TileArguments", "call_tile", "multiply_tile", "tile_address"]

#: Rows, vectors and lanes of a tile.
Shape = tuple[int, ...]


class TileArguments(NamedTuple):
    """What a tile is computed from: numbers in machine code, their LLVM values where it is emitted.

    Parameters
    ----------
    a, a_step : intp
        Address of the first row's weights, and bytes to those of `adjacent` steps later.
    b, b_step : intp
        Likewise for the panel of pixels.
    kc : intp
        Steps of the reduction.
    c, c_pitch : intp
        Address of the output and bytes between its rows.
    bias : intp
        Address of a number for each row to add where `accumulate` is 0.
    accumulate : intp
        1 to add what C holds.
    low, high : float64
        Clamp of the result; skipped where they are infinite.
    width : intp
        Lanes to store; less than the tile's own at an edge.
    """

    a: Any
    a_step: Any
    b: Any
    b_step: Any
    kc: Any
    c: Any
    c_pitch: Any
    bias: Any
    accumulate: Any
    low: Any
    high: Any
    width: Any


def _at(builder: Any, base: Any, offset: Any, kind: ir.Type) -> Any:
    """Return a typed pointer `offset` bytes behind `base`."""
    return builder.bitcast(builder.gep(base, [offset]), kind.as_pointer())


def _reduction_loop(
    builder: Any,
    start: list[list[Any]],
    a: Any,
    b: Any,
    steps: tuple[Any, Any, Any],
    code: int,
    ahead: int,
    adjacent: int,
) -> list[list[Any]]:
    """Emit the loop over kc.

    `steps` is (bytes of A in `adjacent` steps, bytes of B a step, kc).
    """
    mr, nv, lanes = len(start), len(start[0]), start[0][0].type.count
    kind, size = compute_ir(code), ITEMSIZE[code]
    a_step, b_step, kc = steps
    entry = builder.block
    loop, end = builder.append_basic_block("reduce"), builder.append_basic_block("reduced")
    builder.cbranch(builder.icmp_signed(">", kc, I64(0)), loop, end)
    builder.position_at_end(loop)
    k, a_now, b_now = builder.phi(I64), builder.phi(a.type), builder.phi(b.type)
    sums = [[builder.phi(value.type) for value in row] for row in start]
    panel = [load_vector(builder, builder.gep(b_now, [I64(j * lanes * size)]), lanes, code)
             for j in range(nv)]  # fmt: skip
    if ahead:
        following = builder.gep(b_now, [builder.mul(b_step, I64(ahead))])
        for line in range(0, nv * lanes * size, LINE):
            prefetch(builder, builder.gep(following, [I64(line)]))
    after = []
    for i in range(mr):
        scalar = builder.load(_at(builder, a_now, I64(i * adjacent * size), kind), align=size)
        weight = broadcast(builder, scalar, lanes)
        after.append([multiply_add(builder, weight, panel[j], sums[i][j], code)
                      for j in range(nv)])  # fmt: skip
    k_next = builder.add(k, I64(1))
    a_next, b_next = builder.gep(a_now, [a_step]), builder.gep(b_now, [b_step])
    if adjacent > 1:
        a_next = builder.gep(a_next, [I64(-(adjacent - 1) * size)])
        ends = builder.icmp_signed("==", builder.and_(k_next, I64(adjacent - 1)), I64(0))
        a_next = builder.select(ends, a_next, builder.gep(a_now, [I64(size)]))
    for phi, first, following in (
        (k, I64(0), k_next), (a_now, a, a_next), (b_now, b, b_next),
        *((sums[i][j], start[i][j], after[i][j]) for i in range(mr) for j in range(nv)),
    ):  # fmt: skip
        phi.add_incoming(first, entry)
        phi.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", k_next, kc), loop, end)
    builder.position_at_end(end)
    result = []
    for i in range(mr):
        row = []
        for j in range(nv):
            total = builder.phi(start[i][j].type)
            total.add_incoming(start[i][j], entry)
            total.add_incoming(after[i][j], loop)
            row.append(total)
        result.append(row)
    return result


def _rows(builder: Any, tile: TileArguments, shape: Shape, result: int) -> list[list[Any]]:
    """Return the addresses of C's vectors."""
    mr, nv, lanes = shape
    pitches = [builder.gep(tile.c, [builder.mul(tile.c_pitch, I64(i))]) for i in range(mr)]
    steps = [I64(j * lanes * ITEMSIZE[result]) for j in range(nv)]
    return [[builder.gep(row, [step]) for step in steps] for row in pitches]


def _map_vectors(tile: list[list[Any]], others: list[list[Any]], change: Any) -> list[list[Any]]:
    """Return ``change(value, other, column)`` of each pair of vectors."""
    return [
        [change(value, other, j) for j, (value, other) in enumerate(zip(row, more, strict=True))]
        for row, more in zip(tile, others, strict=True)
    ]


def _where(builder: Any, condition: Any, tile: list[list[Any]], change: Any) -> list[list[Any]]:
    """Emit a change of the tile that is skipped where the condition does not hold."""
    before = builder.block
    with builder.if_then(condition):
        changed = change()
        inside = builder.block

    def merged(value: Any, other: Any, _: int) -> Any:
        phi = builder.phi(value.type)
        phi.add_incoming(value, before)
        phi.add_incoming(other, inside)
        return phi

    return _map_vectors(tile, changed, merged)


def _first_sums(builder: Any, tile: TileArguments, shape: Shape, code: int) -> list[list[Any]]:
    """Emit the sums' start: the bias, or zero where C is added in the end."""
    mr, nv, lanes = shape
    kind, size = compute_ir(code), ITEMSIZE[code]
    zeros = ir.Constant(ir.ArrayType(kind, mr), None)
    nothing = cgutils.global_constant(builder.module, "no_bias", zeros)
    nothing = builder.bitcast(nothing, tile.bias.type)
    bias = builder.select(builder.trunc(tile.accumulate, I1), nothing, tile.bias)
    scalars = [builder.load(_at(builder, bias, I64(i * size), kind), align=size)
               for i in range(mr)]  # fmt: skip
    return [[broadcast(builder, scalar, lanes)] * nv for scalar in scalars]


def _finished(
    builder: Any, tile: TileArguments, sums: list[list[Any]], c: Any, masks: Any, result: int
) -> list[list[Any]]:
    """Emit what follows the loop: C is added, then the clamp, each only where it is wanted."""
    lanes, kind = sums[0][0].type.count, sums[0][0].type.element

    def add_c() -> list[list[Any]]:
        return _map_vectors(sums, c, lambda value, address, j: builder.fadd(
            value, load_vector(builder, address, lanes, result, masks[j])))  # fmt: skip

    total = _where(builder, builder.trunc(tile.accumulate, I1), sums, add_c)
    bounded = builder.or_(
        builder.fcmp_ordered(">", tile.low, ir.Constant(kind, -math.inf)),
        builder.fcmp_ordered("<", tile.high, ir.Constant(kind, math.inf)),
    )

    def clamp() -> list[list[Any]]:
        floor, ceiling = (broadcast(builder, bound, lanes) for bound in (tile.low, tile.high))
        return _map_vectors(total, total, lambda value, _, j: clamp_high(
            builder, clamp_low(builder, value, floor), ceiling))  # fmt: skip

    return _where(builder, bounded, total, clamp)


def _emit_tile(
    builder: Any,
    tile: TileArguments,
    shape: Shape,
    codes: Sequence[int],
    whole: bool,
    ahead: int,
    adjacent: int,
) -> None:
    """Emit one tile: start, loop, finish, store; without masks where it is `whole`."""
    (_, nv, lanes), (code, result) = shape, codes
    masks = [None if whole else first_lanes(builder, tile.width, lanes, j * lanes)
             for j in range(nv)]  # fmt: skip
    c = _rows(builder, tile, shape, result)
    for row in c:
        end = builder.gep(row[0], [I64(nv * lanes * ITEMSIZE[result] - 1)])
        for address in (*row, end):  # a row that starts within a line ends in one more
            prefetch(builder, address, write=True)
    start = _first_sums(builder, tile, shape, code)
    steps = (tile.a_step, tile.b_step, tile.kc)
    sums = _reduction_loop(builder, start, tile.a, tile.b, steps, code, ahead, adjacent)
    for values, addresses in zip(_finished(builder, tile, sums, c, masks, result), c, strict=True):
        for value, address, mask in zip(values, addresses, masks, strict=True):
            store_vector(builder, address, value, result, mask)


@intrinsic(prefer_literal=True)
def multiply_tile(
    typingctx: Any, arguments: Any,
    mr: Any, nv: Any, lanes: Any, code: Any, result: Any, whole: Any, ahead: Any, adjacent: Any,
) -> Any:  # fmt: skip
    """Compute one tile.

    Parameters
    ----------
    arguments : TileArguments
        What it is computed from.
    mr, nv, lanes, code : literal int
        The tile, and the code of A and B (F32, F64 or BF16_PAIR).
    result : literal int
        The storage code of C.
    whole : literal int
        1 where `width` is the tile's own: no masks.
    ahead : literal int
        Steps by which the loop asks for B ahead of its use; 0 where B is near.
    adjacent : literal int
        Steps of which a row's weights lie side by side, a power of two; rows lie that far apart.
    """
    shape = literals((mr, nv, lanes))
    codes, flags = literals((code, result)), literals((whole, ahead, adjacent))
    if shape is None or codes is None or flags is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile = TileArguments(*cgutils.unpack_tuple(builder, args[0]))
        places = {
            name: pointer(builder, getattr(tile, name), I8) for name in ("a", "b", "c", "bias")
        }
        kind, bounds = compute_ir(codes[0]), {"low": tile.low, "high": tile.high}
        if kind != tile.low.type:
            bounds = {name: builder.fptrunc(bound, kind) for name, bound in bounds.items()}
        tile = tile._replace(**places, **bounds)
        _emit_tile(builder, tile, shape, codes, bool(flags[0]), *flags[1:])
        return context.get_dummy_value()

    signature = types.void(arguments, mr, nv, lanes, code, result, whole, ahead, adjacent)
    return signature, codegen


def _make_rows(tile: RegisterTile, codes: tuple[int, int], mr: int, adjacent: int) -> Any:
    """Return a function that computes `mr` rows, on one vector where the width fits in it."""
    nv, lanes, nr, ahead = tile.nv, tile.lanes, tile.nr, tile.ahead
    code, result = codes

    @numba.njit
    def rows(arguments: TileArguments) -> None:
        if arguments.width == nr:
            multiply_tile(arguments, mr, nv, lanes, code, result, 1, ahead, adjacent)
        elif arguments.width > lanes:
            multiply_tile(arguments, mr, nv, lanes, code, result, 0, ahead, adjacent)
        else:
            multiply_tile(arguments, mr, 1, lanes, code, result, 0, ahead, adjacent)

    return rows


@numba.njit
def _moved(tile: TileArguments, a: int, c: int, bias: int) -> TileArguments:
    """Return the arguments of rows further down, by bytes of A, C and the bias."""
    return TileArguments(
        tile.a + a, tile.a_step, tile.b, tile.b_step, tile.kc, tile.c + c, tile.c_pitch,
        tile.bias + bias, tile.accumulate, tile.low, tile.high, tile.width,
    )  # fmt: skip


_TILE_SIGNATURE = types.void(
    *([types.intp] * 9), types.float64, types.float64, types.intp, types.intp
)


def tile_address(
    tile: RegisterTile, code: int, result: int | None = None, adjacent: int = 1
) -> int:
    """Return the address of a function that computes any part of a tile; `call_tile` calls it.

    `code` tells what A and B hold, `result` what C does: sums, where it is None. Rows that do not
    fill the tile are made of 8, 4, 2 and 1, and a width that fits in one vector takes a narrower
    tile, so an edge costs what it holds. It is compiled once for all kernels.
    """
    mr, nv, lanes, nr, ahead = tile.mr, tile.nv, tile.lanes, tile.nr, tile.ahead
    size, row = ITEMSIZE[code], adjacent * ITEMSIZE[code]
    codes = (code, compute_code(code) if result is None else result)
    rows_full, rows_4, rows_2, rows_1 = (
        _make_rows(tile, codes, n, adjacent) for n in (mr, 4, 2, 1)
    )
    # Never asked for where mr <= 8.
    rows_8 = _make_rows(tile, codes, 8, adjacent) if mr > 8 else rows_4
    result = codes[1]

    def any_rows(a: int, a_step: int, b: int, b_step: int, kc: int, c: int, c_pitch: int,
                 bias: int, accumulate: int, low: float, high: float, width: int,
                 rows: int) -> None:  # fmt: skip
        arguments = TileArguments(
            a, a_step, b, b_step, kc, c, c_pitch, bias, accumulate, low, high, width
        )
        if rows == mr and width == nr:
            multiply_tile(arguments, mr, nv, lanes, code, result, 1, ahead, adjacent)
            return
        if rows == mr:
            rows_full(arguments)
            return
        if rows & 8:
            rows_8(arguments)
            arguments = _moved(arguments, 8 * row, 8 * c_pitch, 8 * size)
        if rows & 4:
            rows_4(arguments)
            arguments = _moved(arguments, 4 * row, 4 * c_pitch, 4 * size)
        if rows & 2:
            rows_2(arguments)
            arguments = _moved(arguments, 2 * row, 2 * c_pitch, 2 * size)
        if rows & 1:
            rows_1(arguments)

    key = ("gemm_tile", tile.mr, tile.nv, tile.lanes, tile.ahead, code, result, adjacent)
    return int(jit.compile_callback(any_rows, _TILE_SIGNATURE, key).address)


@intrinsic
def call_tile(typingctx: Any, function: Any, arguments: Any, rows: Any) -> Any:
    """Call the function at a `tile_address`: `TileArguments`, then the rows that there are."""
    return types.void(types.intp, arguments, types.intp), call_address
