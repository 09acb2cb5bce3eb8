"""Strips: columns of output rows whose sums roll through registers.

A `Strip` is a column of output rows, `nv` vectors wide. Input rows pass by once, from top to
bottom, and each is added to all the output rows that it reaches, whose sums live in registers::

    for step t (one output row ends at each)
      for input row e of the `row_step` rows that the window moves, unless it is padding
        for plane (input channel x kernel depth)
          for tap column s
            load nv vectors                          at any offset; across a cache line 2 cycles
            for output row t - m, for output channel of the block
              sums[m] += w[e + m * row_step, s] * vectors
      store the oldest row, make room for a new one

Where loads would take longer than multiply-adds, the vectors of most taps are made from those of
an earlier one by shuffles, which have a port of their own. A loaded vector serves ``kh / row_step``
rows and a weight serves nv vectors: a step makes
``kh kw nv`` multiply-adds (3x3, nv = 4: 36) out of ``2 kw nv`` cycles of loads (24), and weights
stay in registers where there is room. Output rows of one strip are those that share input rows:
with dilation every ``dilation``-th, with a stride all.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir

from ..simd.ir import I32, I64, call, fmuladd, lanes_between, load_vector
from .row_costs import pattern_vectors
from .row_tile import Sums, Window

__all__ = ["COPY", "DENSE", "PAIRS", "Strip", "StripShape", "beyond_lanes"]

#: Where the vectors of a strip's row come from: a copy whose rows are split by the horizontal
#: stride, or the input itself with that stride.
COPY, DENSE, PAIRS = 0, 1, 2

#: Steps by which a strip asks for its input in advance. Rows of a large image lie on pages of their
#: own, where the processor does not see them coming (7x7 on 2048x2048: 3.6 ms without, 2.1 with).
_AHEAD = 6


def beyond_lanes(kw: int) -> int:
    """Return how many elements after a pair of vectors are loaded for `kw` taps."""
    return max(4, 1 << (2 * (kw // 2) - 1).bit_length())


class StripShape(NamedTuple):
    """What a strip is compiled for, every entry a whole number.

    Parameters
    ----------
    kh, kw : int
        Taps.
    row_step : int
        Input rows, in units of the dilation, between successive output rows.
    nv, lanes, tail : int
        Vectors, lanes of all but the last, and of the last.
    block : int
        Output channels computed at once.
    source : int
        `COPY`, `DENSE` or `PAIRS`.
    dense, shifted : int
        Whether taps of a row are neighbours; whether shuffles take the place of most loads.
    singleton_flags : int
        Of `row_costs.singleton_flags`.
    in_registers : int
        Whether all weights stay there.
    masked : int
        Which vectors may reach over a side: bits 1 first, 2 last, 4 any.
    period : int
        Interleaved channels whose weights come back after so many lanes; 0 for none.
    code, storage, stored : int
        Element type of sums, weights and copies; of what is read in place; of outputs.
    """

    kh: int
    kw: int
    row_step: int
    nv: int
    lanes: int
    tail: int
    block: int
    source: int
    dense: int
    shifted: int
    singleton_flags: int
    in_registers: int
    masked: int
    period: int
    code: int
    storage: int
    stored: int


class Strip(Window):
    """Emits a column of output rows whose sums roll through registers."""

    def __init__(self, builder: Any, args: Any, shape: Sequence[int]) -> None:
        strip = StripShape(*shape)
        self.kh, self.kw, self.row_step = strip.kh, strip.kw, strip.row_step
        self.lanes, self.block, self.source = strip.lanes, strip.block, strip.source
        self.dense, self.shifted, self.period = strip.dense, strip.shifted, strip.period
        self.singleton_flags, self.in_registers = strip.singleton_flags, strip.in_registers
        self.masked, tail = strip.masked, strip.tail
        self.height = -(-self.kh // self.row_step)
        self.weights: dict[tuple[int, int], list[Any]] = {}
        self.flags: dict[tuple[int, int], Any] = {}
        self.loaded: dict[Any, Any] = {}
        # One pair of vectors for all taps: they reach no further than into the next vector.
        self.paired = self.source == PAIRS and self.dense and 2 * (self.kw // 2) <= tail
        super().__init__(builder, args, strip.code, [self.lanes] * (strip.nv - 1) + [tail])
        self.storage, self.stored = strip.storage, strip.stored

    def weight(self, base: Any, block: int, tap: Any) -> list[Any]:
        """Return a weight for each vector: one number, or what interleaved channels make of it."""
        if not self.period:
            return super().weight(base, block, tap)
        step = I64(pattern_vectors(self.period) * self.lanes * self.size)
        return self.pattern(self.at(base, (tap, step)))

    def initial(self, block: int) -> list[Any]:
        """Return what the sums of one output row start from, likewise."""
        return self.pattern(self.arg["bias"]) if self.period else super().initial(block)

    def pattern(self, base: Any) -> list[Any]:
        """Load the vectors of interleaved channels, each of which comes back after a period."""
        vectors: list[Any] = []
        for j, width in enumerate(self.widths):
            if j >= self.period and width == self.lanes:
                vectors.append(vectors[j - self.period])
                continue
            at = self.builder.gep(base, [I64(j % self.period * self.lanes * self.size)])
            vectors.append(load_vector(self.builder, at, width, self.code))
        return vectors

    def place(self, j: int) -> tuple[int, int]:
        """Return the first lane and the width of vector `j`; there may be one after the last."""
        if j == len(self.widths):
            return self.starts[-1] + self.lanes, self.lanes
        return self.starts[j], self.widths[j]

    def inside(self, s: int, first: int, width: int) -> Any:
        """Return flags for the lanes whose element lies in the input's row."""
        builder = self.builder
        column = builder.add(self.arg["col0"], builder.mul(I64(s), self.arg["dw"]))
        end = builder.sub(self.arg["iw"], column)
        return lanes_between(builder, builder.neg(column), end, width, first)

    def load(self, row: Any, s: int, j: int, half: int = 0) -> Any:
        """Load the elements under tap column `s` for vector `j` (one of two for a pair)."""
        builder, (start, width) = self.builder, self.place(j)
        if self.source == COPY:
            base = builder.gep(row, [self.offsets[s]])
            return load_vector(
                builder, builder.gep(base, [I64(start * self.size)]), width, self.code
            )
        first = start * self.source + half * width
        flags = self.flags.get((s, first))
        column = builder.add(self.arg["col0"], builder.mul(I64(s), self.arg["dw"]))
        offset = builder.mul(builder.add(column, I64(first)), I64(self.item))
        return load_vector(builder, builder.gep(row, [offset]), width, self.storage, flags)

    def vector(self, row: Any, s: int, j: int) -> Any:
        """Return the elements under tap column `s` for vector `j`."""
        if self.shifted:
            return self.shift(row, s, j)
        if self.source != PAIRS:
            return self.load(row, s, j)
        if not self.paired:
            return self.stream(row, s, j, 0)
        by, parity = s // 2, s % 2
        stream = self.stream(row, 0, j, parity)
        if by == 0:
            return stream
        width = self.widths[j]
        # The rest comes from the vector after it, or from a few elements after the last.
        if j + 1 < len(self.widths):
            after, step, first = self.stream(row, 0, j + 1, parity), 1, 0
        else:
            after, step, first = self.beyond(row), 2, parity
        if after.type.count != width:
            lanes = [I32(i % after.type.count) for i in range(width)]
            pattern = ir.Constant(ir.VectorType(I32, width), lanes)
            after = self.builder.shuffle_vector(after, after, pattern)
        places = [*range(by, width), *(width + first + step * i for i in range(by))]
        pattern = ir.Constant(ir.VectorType(I32, width), [I32(i) for i in places])
        return self.builder.shuffle_vector(stream, after, pattern)

    def stream(self, row: Any, s: int, j: int, parity: int) -> Any:
        """Return the even or odd elements of the pair of vectors under tap column `s`."""
        if (s, j) not in self.loaded:
            self.loaded[s, j] = [self.load(row, s, j, half) for half in (0, 1)]
        if (s, j, parity) not in self.loaded:
            width = self.widths[j]
            places = [I32(2 * i + parity) for i in range(width)]
            pattern = ir.Constant(ir.VectorType(I32, width), places)
            self.loaded[s, j, parity] = self.builder.shuffle_vector(*self.loaded[s, j], pattern)
        return self.loaded[s, j, parity]

    def beyond(self, row: Any) -> Any:
        """Load the elements after the last pair of vectors that later taps reach."""
        if "beyond" not in self.loaded:
            builder = self.builder
            first, lanes = 2 * sum(self.widths), beyond_lanes(self.kw)
            column = builder.add(self.arg["col0"], I64(first))
            at = builder.gep(row, [builder.mul(column, I64(self.item))])
            flags = self.flags.get((0, first))
            self.loaded["beyond"] = load_vector(builder, at, lanes, self.storage, flags)
        return self.loaded["beyond"]

    def shift(self, row: Any, s: int, j: int) -> Any:
        """Return the elements under tap column `s` out of two vectors loaded for an earlier tap."""
        by, vectors = s % self.lanes, []
        for key in ((s - by, j), (s - by, j + 1))[: 2 if by else 1]:
            if key not in self.loaded:
                self.loaded[key] = self.load(row, *key)
            vectors.append(self.loaded[key])
        if not by:
            return vectors[0]
        pattern = ir.Constant(
            ir.VectorType(I32, self.lanes), [I32(by + i) for i in range(self.lanes)]
        )
        return self.builder.shuffle_vector(*vectors, pattern)

    def taps(self, row: Any, w: Any, e: int, sums: Sums) -> Sums:
        """Emit all products of one input row of one plane."""
        result, nv = list(sums), len(self.widths)
        self.loaded = {}
        self.prefetch(row)
        for s in range(self.kw):
            vectors = [self.vector(row, s, j) for j in range(nv)]
            for block in range(self.block):
                for m in range(self.height):
                    i = e + m * self.row_step
                    if i >= self.kh:
                        continue
                    tap = i * self.kw + s
                    weights = self.weights.get((block, tap)) or self.weight(w, block, I64(tap))
                    at = (block * self.height + m) * nv
                    for j, x in enumerate(vectors):
                        if x is not None:
                            result[at + j] = fmuladd(self.builder, weights[j], x, result[at + j])
        return result

    def input_row(self, h: Any, e: int, sums: Sums) -> Sums:
        """Emit the products of one input row."""
        row = self.at(self.arg["x"], (h, self.arg["xh"]))
        return self.loop_planes(lambda x, w, sums: self.taps(x, w, e, sums), row, sums)

    def reaches_over(self, j: int) -> bool:
        """Return whether loads of vector `j` need masks."""
        first, last = self.masked & 1 and j == 0, self.masked & 2 and j >= len(self.widths) - 1
        return bool(first or last or self.masked & 4)

    def prepare(self) -> None:
        """Emit what holds for all rows: offsets, masks, weights where there is room for them."""
        builder = self.builder
        if self.source == COPY:
            table = builder.bitcast(self.arg["columns"], I64.as_pointer())
            self.offsets = [builder.load(builder.gep(table, [I64(s)])) for s in range(self.kw)]
        elif self.masked:
            together = self.kw if self.paired else self.lanes if self.shifted else 1
            for s in range(0, self.kw, together):
                for j in range(len(self.widths) + self.shifted):
                    start, width = self.place(j)
                    for half in range(self.source if self.reaches_over(j) else 0):
                        first = start * self.source + half * width
                        self.flags[s, first] = self.inside(s, first, width)
            if self.paired and self.reaches_over(len(self.widths) - 1):
                first = 2 * sum(self.widths)
                self.flags[0, first] = self.inside(0, first, beyond_lanes(self.kw))
        if self.in_registers:
            for block in range(self.block):
                for tap in range(self.kh * self.kw):
                    self.weights[block, tap] = self.weight(self.arg["w"], block, I64(tap))

    def store_mask(self, j: int) -> Any:
        """Return flags for the lanes of vector `j` that exist, None for all."""
        return super().store_mask(j) if self.masked & 6 else None

    def prefetched(self) -> list[Any]:
        """Return the byte offsets in a row of the cache lines that a strip reads."""
        builder, size = self.builder, self.size if self.source == COPY else self.item
        total = sum(self.widths) * size * max(self.source, 1)
        start = builder.mul(self.arg["col0"], I64(size))
        return [builder.add(start, I64(at)) for at in range(0, total + 64, 64)]

    def prefetch(self, row: Any) -> None:
        """Ask for what is needed some steps after the input row at an address."""
        if self.kh == 1:  # signals: what follows comes along the row
            return
        builder = self.builder
        distance = builder.mul(
            builder.mul(self.arg["dh"], self.arg["xh"]), I64(_AHEAD * self.row_step)
        )
        for offset in self.prefetched():
            at = builder.gep(row, [builder.add(distance, offset)])
            call(builder, "llvm.prefetch.p0", ir.VoidType(), at, I32(0), I32(3), I32(1))

    def emit(self) -> None:
        """Emit the whole strip."""
        builder, nv = self.builder, len(self.widths)
        self.prepare()
        initial = [self.initial(block) for block in range(self.block)]
        per_block = self.height * nv

        def step(t: Any, sums: Sums) -> Sums:
            for e in range(min(self.row_step, self.kh)):
                q = builder.add(builder.mul(t, I64(self.row_step)), I64(e))
                h = builder.add(self.arg["h0"], builder.mul(q, self.arg["dh"]))
                exists = builder.icmp_unsigned("<", h, self.arg["h_end"])
                sums = self.when(exists, sums, functools.partial(self.input_row, h, e))
            row = builder.sub(t, I64(self.height - 1))
            rolled = []
            with builder.if_then(builder.icmp_signed(">=", row, I64(0))):
                for block in range(self.block):
                    end = (block + 1) * per_block
                    self.store(row, block, sums[end - nv : end])
            for block in range(self.block):
                start = block * per_block
                rolled += [*initial[block], *sums[start : start + per_block - nv]]
            return rolled

        sums = [value for block in initial for value in block * self.height]
        self.loop(builder.add(self.arg["rows"], I64(self.height - 1)), sums, step)
