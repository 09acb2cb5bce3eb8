"""A register tile whose rows lie anywhere: one offset's weights times the rows that meet there.

``sums[out_i, lanes] += x[in_i, channels] @ W[channels, lanes]`` for a list of pairs (in_i, out_i)::

    for tile of at most `most` pairs, all tiles of a list equally large or one pair less
      R x nv accumulators = 0
      for channel: nv vectors of W, R broadcasts straight from the features, R * nv multiply-adds
      sums[out_i] += accumulators

A pair costs its useful products and nothing else: there is code for every number of rows up to
`most`, and a tile of one row and 4 vectors is as quick as its multiply-adds' latency lets it be.
Output rows of a list are all different, so the old sums may be loaded when the new ones are ready,
and no tile waits for the one before it.

Budget (AVX-512, float32), for 64 channels of input:

====  ====  ============  ============================  ====================================
 nv    R    accumulators  a channel                     beside the products, a tile
====  ====  ============  ============================  ====================================
 4     6    24            24 multiply-adds of 10 loads  24 loads and 24 stores of 1536 cycles
 3     8    24            24 of 11                      24 and 24 of 1536
 2     8    16            16 of 10                      16 and 16 of 1024
 1     8    8             8 of 9                        8 and 8 of 512
====  ====  ============  ============================  ====================================

The loop over tiles is in machine code around the tile: a call's saved registers would fill the
store queue behind the tile's stores. Memory is asked for without a branch, spread over the tile:
each pass over some channels asks for its share of the rows of later tiles, and each tile for one
row of the output. In loops of their own the same requests cost 37 of a tile's 1536 cycles.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..machine.lines import LINE
from ..runtime import jit
from ..simd.intrinsics import expect_write
from ..simd.ir import (
    I8,
    I32,
    I64,
    ITEMSIZE,
    broadcast,
    call_address,
    compute_ir,
    literals,
    load_vector,
    multiply_add,
    pointer,
    prefetch,
    store_vector,
)

__all__ = ["MOST_AHEAD", "call_gather_tiles", "gather_tiles_address"]

#: Vectors of multiply-adds after which a row has come from memory, and the most pairs behind a run
#: whose rows are prefetched.
_AHEAD, MOST_AHEAD = 1024, 64
#: Most passes over a cache line of channels; each asks for at least one row.
_MOST_PASSES = LINE // 4
#: Bytes of a pair: row of the input, row of the panel's sums, 32 bits each.
_PAIR = 8


@dataclass(slots=True)
class _Emitter:
    """Emits tiles; the fields are LLVM values, but for the last four."""

    builder: Any
    x: Any
    x_pitch: Any
    w: Any
    steps: Any
    sums: Any
    pairs: Any
    ahead: Any
    nv: int
    lanes: int
    code: int
    unroll: int

    @property
    def vector(self) -> int:
        """Bytes of a vector."""
        return self.lanes * ITEMSIZE[self.code]

    def vectors(self, base: Any) -> list[Any]:
        """Emit the loads of nv neighbouring vectors."""
        return [
            load_vector(
                self.builder, self.builder.gep(base, [I64(j * self.vector)]), self.lanes, self.code
            )
            for j in range(self.nv)
        ]

    def step(self, rows: list[Any], at: Any, w: Any, sums: list[list[Any]]) -> list[list[Any]]:
        """Emit one channel's multiply-adds."""
        kind, after = compute_ir(self.code), []
        panel = self.vectors(w)
        for row, values in zip(rows, sums, strict=True):
            address = self.builder.bitcast(self.builder.gep(row, [at]), kind.as_pointer())
            scalar = broadcast(self.builder, self.builder.load(address, align=2), self.lanes)
            after.append([
                multiply_add(self.builder, scalar, vector, value, self.code)
                for vector, value in zip(panel, values, strict=True)
            ])  # fmt: skip
        return after

    def expect(self, rows: int, at: Any) -> None:
        """Ask for this pass's share of the rows that come `ahead` pairs later."""
        builder, step = self.builder, self.unroll * ITEMSIZE[self.code]
        share = -(-rows * step // LINE)
        pass_number = builder.udiv(builder.and_(at, I64(LINE - 1)), I64(step))
        first = builder.add(self.ahead, builder.mul(pass_number, I64(share)))
        for i in range(share):
            half = builder.mul(builder.add(first, I64(i)), I64(_PAIR))
            word = builder.bitcast(builder.gep(self.pairs, [half]), I32.as_pointer())
            row = builder.mul(builder.sext(builder.load(word, align=4), I64), self.x_pitch)
            prefetch(builder, builder.gep(self.x, [builder.add(row, at)]))

    def reduce(self, rows: list[Any]) -> list[list[Any]]:
        """Emit the loop over channels; there is at least one."""
        builder, size = self.builder, ITEMSIZE[self.code]
        zero = ir.Constant(ir.VectorType(compute_ir(self.code), self.lanes), None)
        entry = builder.block
        loop, end = builder.append_basic_block("channel"), builder.append_basic_block("reduced")
        builder.branch(loop)
        builder.position_at_end(loop)
        at, w = builder.phi(I64), builder.phi(self.w.type)
        start = [[builder.phi(zero.type) for _ in range(self.nv)] for _ in rows]
        sums = start
        self.expect(len(rows), at)
        for i in range(self.unroll):
            panel = builder.gep(w, [I64(i * self.nv * self.vector)])
            sums = self.step(rows, builder.add(at, I64(i * size)), panel, sums)
        at_next = builder.add(at, I64(self.unroll * size))
        w_next = builder.gep(w, [I64(self.unroll * self.nv * self.vector)])
        stop = builder.mul(self.steps, I64(size))
        builder.cbranch(builder.icmp_signed("<", at_next, stop), loop, end)
        zeros = [zero] * (len(rows) * self.nv)
        for phi, first, following in zip(
            [at, w, *chain(*start)], [I64(0), self.w, *zeros], [at_next, w_next, *chain(*sums)],
            strict=True,
        ):  # fmt: skip
            phi.add_incoming(first, entry)
            phi.add_incoming(following, loop)
        builder.position_at_end(end)
        return sums

    def emit(self, count: int) -> None:
        """Emit the tile of the next `count` pairs."""
        builder = self.builder
        rows = [
            builder.gep(self.x, [builder.mul(self.pair(i, 0), self.x_pitch)]) for i in range(count)
        ]
        for i, values in enumerate(self.reduce(rows)):
            offset = builder.mul(self.pair(i, 1), I64(self.nv * self.vector))
            target = builder.gep(self.sums, [offset])
            for j, (value, old) in enumerate(zip(values, self.vectors(target), strict=True)):
                address = builder.gep(target, [I64(j * self.vector)])
                store_vector(builder, address, builder.fadd(old, value), self.code)

    def pair(self, i: int, which: int) -> Any:
        """Emit the load of one half of the i-th pair."""
        half = self.builder.gep(self.pairs, [I64(_PAIR * i + 4 * which)])
        word = self.builder.load(self.builder.bitcast(half, I32.as_pointer()), align=4)
        return self.builder.sext(word, I64)


@intrinsic(prefer_literal=True)
def _gather_tile(
    typingctx: Any, x: Any, x_pitch: Any, w: Any, steps: Any, sums: Any, pairs: Any, ahead: Any,
    rows: Any, most: Any, nv: Any, lanes: Any, code: Any, unroll: Any,
) -> Any:  # fmt: skip
    """Compute one tile of 1 to `most` rows; the last five arguments are literal."""
    shape = literals((most, nv, lanes, code, unroll))
    if shape is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, x_pitch, w, steps, sums, pairs, ahead, rows = args[:8]
        x, w, sums, pairs = (pointer(builder, address, I8) for address in (x, w, sums, pairs))
        tile = _Emitter(builder, x, x_pitch, w, steps, sums, pairs, ahead, *shape[1:])
        done = builder.append_basic_block("stored")
        blocks = [builder.append_basic_block(f"rows_{n}") for n in range(1, shape[0] + 1)]
        switch = builder.switch(rows, blocks[-1])
        for n, block in enumerate(blocks, 1):
            if n < shape[0]:
                switch.add_case(I64(n), block)
            builder.position_at_end(block)
            tile.emit(n)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*([types.intp] * 8), most, nv, lanes, code, unroll), codegen


_SIGNATURE = types.void(*([types.intp] * 10))


def gather_tiles_address(most: int, nv: int, lanes: int, code: int, unroll: int) -> int:
    """Return the address of a function that multiplies a list of pairs with one offset's weights.

    Parameters
    ----------
    most : int
        Rows of the largest tile.
    nv, lanes : int
        Vectors of output channels, and elements of each.
    code : int
        What features and weights hold: F32, F64 or BF16_PAIR.
    unroll : int
        Steps in one pass of the loop; divides their number.
    """
    row_bytes = nv * lanes * ITEMSIZE[code]

    def gather_tiles(
        x: int, x_pitch: int, w: int, steps: int, sums: int, pairs: int, count: int, ask: int,
        ask_step: int, ask_last: int,
    ) -> None:  # fmt: skip
        tiles = -(-count // most)
        if tiles == 0:
            return
        small = count // tiles
        larger = count - small * tiles
        ahead = min(max(_AHEAD // (steps * nv), most), MOST_AHEAD - _MOST_PASSES)
        for tile in range(tiles):
            rows = small + int(tile < larger)
            for line in range(0, row_bytes, LINE):
                expect_write(min(ask, ask_last) + line)
            ask += ask_step
            _gather_tile(
                x, x_pitch, w, steps, sums, pairs, ahead, rows, most, nv, lanes, code, unroll
            )
            pairs += rows * _PAIR

    key = ("gather_tiles", most, nv, lanes, code, unroll)
    return int(jit.compile_callback(gather_tiles, _SIGNATURE, key).address)


@intrinsic
def call_gather_tiles(
    typingctx: Any, function: Any, x: Any, x_pitch: Any, w: Any, steps: Any, sums: Any,
    pairs: Any, count: Any, ask: Any, ask_step: Any, ask_last: Any,
) -> Any:  # fmt: skip
    """Call the function at a `gather_tiles_address`.

    Parameters
    ----------
    x, x_pitch : intp
        Address of the first channel of row 0, and bytes between rows.
    w, steps : intp
        Address of the weights, ``(steps, nv, lanes)``, and the number of words of a row.
    sums : intp
        Address of the sums, ``(rows of the panel, nv, lanes)``, to which is added.
    pairs, count : intp
        Address of the pairs, and how many there are. Rows of later ones are prefetched, so
        `MOST_AHEAD` pairs more must be there.
    ask, ask_step, ask_last : intp
        Address of a row that is going to be written: each tile asks for the lines of one, the
        next tile for those `ask_step` bytes on, but for none behind `ask_last`.
    """
    return types.void(types.intp, *_SIGNATURE.args), call_address
