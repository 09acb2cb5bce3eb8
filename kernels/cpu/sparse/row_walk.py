"""One output row of a sparse operator whose channels do not mix: a walk over the row's pairs.

Depthwise convolution, the pools and their gradients differ in what a pair adds to the row. The
lanes of all vectors are channels, and a row's sums stay in registers while its pairs pass by, in
rising offset::

    task = block of output rows
      for row
        for block of 4 vectors of channels        then single ones, under a mask
          for pair of the row                     offset and input row: 8 bytes
            for vector: sum = rule(sum, x[input row], ...)
          store 4 vectors

Bound by memory: a pair reads one row of x from wherever its last use left it, mostly L2, since rows
are sorted by place. Rows of pairs to come are prefetched by software, as no hardware prefetcher
sees which they are. At 64 float32 channels a scan of 115,000 sites moves 88 MB (outputs are read
before they are written) in 3.7 ms, 24 GB/s, on the two cores of a Zen 4 whose memory gives 20 to
25. Registers (AVX-512): 4 sums and 4 to 8 operands of 32.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..runtime.record import as_record
from ..simd.intrinsics import get_word
from ..simd.ir import (
    I8,
    I32,
    I64,
    ITEMSIZE,
    broadcast,
    compute_code,
    compute_ir,
    constant,
    first_lanes,
    fmuladd,
    literals,
    load_vector,
    pointer,
    prefetch,
    store_vector,
)

__all__ = [
    "CHOSEN",
    "FIELDS",
    "FIRST",
    "LARGEST",
    "MEAN",
    "MULTIPLY",
    "PRODUCTS",
    "SHARES",
    "make_row",
    "make_walk",
    "view",
]

#: What a pair adds: the product with the offset's weight; that with another row; the row; the
#: larger; an equal share of the row; the number of the first offset whose row holds a wanted value;
#: the row where such a number is the pair's own.
MULTIPLY, PRODUCTS, MEAN, LARGEST, SHARES, FIRST, CHOSEN = range(7)

FIELDS = (
    "rows",  # output rows
    "block",  # of one task
    "channels",
    "row_start",  # addresses of the pair lists
    "pairs",  # and their length
    "pair_offset",
    "pair_input",
    "x_pitch",  # bytes between the rows that pairs read
    "out_pitch",
    "starts",  # address of the row starts of the rulebook that `row_start` reverses
    "other_size",  # bytes between the second operand's channels,
    "other_pitch",  # between offsets or input rows, whichever the rule reads it by,
    "own_pitch",  # and between output rows
    "sums_pitch",  # between the rows of sums of two workers
)
view = as_record(FIELDS)

_VECTORS = 4  # of a block
#: Pairs that a row is asked for ahead of its use: 64 channels depthwise over a scan of 115,000
#: sites took 8.4 ms without, 6.7 at 16, 6.0 at 32 and 6.2 at 64 (one thread).
_AHEAD = 32


class _Walk:
    """Emits the loop over the pairs of one row; subclasses say what a pair adds."""

    def __init__(self, builder: Any, args: Any, shape: tuple[int, ...]) -> None:
        names = "offsets inputs count left x x_pitch other other_pitch start target width"
        self.builder = builder
        self.arg = dict(zip(names.split(), args, strict=False))
        self.vectors, self.lanes, self.storage, self.result, masked = shape
        self.code = compute_code(self.storage)
        self.kind = ir.VectorType(compute_ir(self.code), self.lanes)
        self.mask = first_lanes(builder, self.arg["width"], self.lanes) if masked else None

    def load(self, address: Any, j: int, code: int) -> Any:
        """Load vector `j` of a row at an address."""
        place = self.builder.add(address, I64(j * self.lanes * ITEMSIZE[code]))
        at = pointer(self.builder, place, I8)
        return load_vector(self.builder, at, self.lanes, code, self.mask)

    def index(self, table: str, p: Any) -> Any:
        """Return entry `p` of a list of the row's pairs."""
        entry = self.builder.gep(pointer(self.builder, self.arg[table], I32), [p])
        return self.builder.sext(self.builder.load(entry), I64)

    def place(self, base: str, number: Any) -> Any:
        """Return the address of a numbered row."""
        offset = self.builder.mul(number, self.arg[f"{base}_pitch"])
        return self.builder.add(self.arg[base], offset)

    def first(self, j: int) -> Any:
        """Return where the sums of vector `j` start."""
        return constant(self.kind, 0.0)

    def meet(self, row: Any, offset: Any) -> None:
        """Work out what all vectors of a pair share."""

    def step(self, total: Any, value: Any, j: int) -> Any:
        """Return the sum after a pair whose row of x holds `value`."""
        raise NotImplementedError

    def last(self, total: Any, j: int) -> Any:
        """Return what is stored of the sum of vector `j`."""
        return total

    def ask(self, p: Any) -> None:
        """Ask for the row of a pair to come, of this output row or of one behind it."""
        builder = self.builder
        ahead = builder.add(p, I64(_AHEAD))
        last = self.arg["left"]
        ahead = builder.select(builder.icmp_signed("<", ahead, last), ahead, last)
        row = self.place("x", self.index("inputs", ahead))
        width = self.vectors * self.lanes * ITEMSIZE[self.storage]
        for line in range(0, width, 64):
            prefetch(builder, pointer(builder, builder.add(row, I64(line)), I8))

    def emit(self) -> None:
        """Emit first values, loop and stores."""
        builder, count = self.builder, self.arg["count"]
        start = [self.first(j) for j in range(self.vectors)]
        entry = builder.block
        loop, end = builder.append_basic_block("pairs"), builder.append_basic_block("stored")
        some = builder.icmp_signed(">", count, I64(0))
        builder.cbranch(some, loop, end)
        builder.position_at_end(loop)
        p, sums = builder.phi(I64), [builder.phi(self.kind) for _ in start]
        row = self.index("inputs", p)
        self.meet(row, self.index("offsets", p))
        source = self.place("x", row)
        after = [
            self.step(total, self.load(source, j, self.storage), j) for j, total in enumerate(sums)
        ]
        self.ask(p)
        following, latch = builder.add(p, I64(1)), builder.block
        for phi, before, later in zip([p, *sums], [I64(0), *start], [following, *after],
                                      strict=True):  # fmt: skip
            phi.add_incoming(before, entry)
            phi.add_incoming(later, latch)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, end)
        builder.position_at_end(end)
        totals = [builder.phi(self.kind) for _ in start]
        for total, before, later in zip(totals, start, after, strict=True):
            total.add_incoming(before, entry)
            total.add_incoming(later, latch)
        for j, total in enumerate(totals):
            step = I64(j * self.lanes * ITEMSIZE[self.result])
            at = pointer(builder, builder.add(self.arg["target"], step), I8)
            store_vector(builder, at, self.last(total, j), self.result, self.mask)


class _Multiply(_Walk):
    """The product of the row and the weight of the offset."""

    def first(self, j: int) -> Any:
        return self.load(self.arg["start"], j, self.code)

    def meet(self, row: Any, offset: Any) -> None:
        self.weights = self.place("other", offset)

    def step(self, total: Any, value: Any, j: int) -> Any:
        return fmuladd(self.builder, value, self.load(self.weights, j, self.code), total)


class _Products(_Walk):
    """The product of the row and the row of `other`; the sum is added to what `start` holds."""

    def meet(self, row: Any, offset: Any) -> None:
        self.others = self.place("other", offset)

    def step(self, total: Any, value: Any, j: int) -> Any:
        return fmuladd(self.builder, value, self.load(self.others, j, self.storage), total)

    def last(self, total: Any, j: int) -> Any:
        return self.builder.fadd(self.load(self.arg["start"], j, self.code), total)


class _Mean(_Walk):
    """The row; the sum is divided by the number of pairs."""

    def step(self, total: Any, value: Any, j: int) -> Any:
        return self.builder.fadd(total, value)

    def last(self, total: Any, j: int) -> Any:
        count = self.builder.sitofp(self.arg["count"], self.kind.element)
        return self.builder.fdiv(total, broadcast(self.builder, count, self.lanes))


class _Largest(_Walk):
    """The larger of the two; a NaN stays."""

    def first(self, j: int) -> Any:
        return constant(self.kind, -math.inf)

    def step(self, total: Any, value: Any, j: int) -> Any:
        builder = self.builder
        larger = builder.fcmp_ordered("<", total, value)
        is_nan = builder.fcmp_unordered("uno", value, value)
        return builder.select(builder.or_(larger, is_nan), value, total)


class _Shares(_Walk):
    """The row over the number of pairs that it has itself, by the row starts at `other`."""

    def meet(self, row: Any, offset: Any) -> None:
        builder = self.builder
        starts = builder.gep(pointer(builder, self.arg["other"], I64), [row])
        after = builder.load(builder.gep(starts, [I64(1)]))
        count = builder.sitofp(builder.sub(after, builder.load(starts)), self.kind.element)
        self.counts = broadcast(builder, count, self.lanes)

    def step(self, total: Any, value: Any, j: int) -> Any:
        return self.builder.fadd(total, self.builder.fdiv(value, self.counts))


class _First(_Walk):
    """The offset, as a number, where the row holds the wanted value and no earlier one did."""

    def first(self, j: int) -> Any:
        if j == 0:
            self.wanted = [self.load(self.arg["other"], v, self.storage)
                           for v in range(self.vectors)]  # fmt: skip
        return constant(self.kind, -1.0)

    def meet(self, row: Any, offset: Any) -> None:
        number = self.builder.sitofp(offset, self.kind.element)
        self.number = broadcast(self.builder, number, self.lanes)

    def step(self, total: Any, value: Any, j: int) -> Any:
        builder, wanted = self.builder, self.wanted[j]
        equal = builder.fcmp_ordered("==", value, wanted)
        both_nan = builder.and_(
            builder.fcmp_unordered("uno", value, value),
            builder.fcmp_unordered("uno", wanted, wanted),
        )
        none_yet = builder.fcmp_ordered("<", total, constant(self.kind, 0.0))
        is_first = builder.and_(none_yet, builder.or_(equal, both_nan))
        return builder.select(is_first, self.number, total)


class _Chosen(_Walk):
    """The row, in the channels whose number at `other` is the pair's offset."""

    def meet(self, row: Any, offset: Any) -> None:
        number = self.builder.sitofp(offset, self.kind.element)
        self.number = broadcast(self.builder, number, self.lanes)
        self.winners = self.place("other", row)

    def step(self, total: Any, value: Any, j: int) -> Any:
        builder = self.builder
        winner = self.load(self.winners, j, self.code)
        chosen = builder.fcmp_ordered("==", winner, self.number)
        return builder.fadd(total, builder.select(chosen, value, constant(self.kind, 0.0)))


_RULES = {
    MULTIPLY: _Multiply,
    PRODUCTS: _Products,
    MEAN: _Mean,
    LARGEST: _Largest,
    SHARES: _Shares,
    FIRST: _First,
    CHOSEN: _Chosen,
}


@intrinsic(prefer_literal=True)
def walk_pairs(
    typingctx: Any, offsets: Any, inputs: Any, count: Any, left: Any, x: Any, x_pitch: Any,
    other: Any, other_pitch: Any, start: Any, target: Any, width: Any, rule: Any, vectors: Any,
    lanes: Any, storage: Any, result: Any, masked: Any,
) -> Any:  # fmt: skip
    """Compute some vectors of one output row; the last six arguments are literal.

    Parameters
    ----------
    offsets, inputs, count, left : intp
        Addresses of the row's pairs, their number, and that of the pairs behind the first one,
        those of other rows too: they are prefetched.
    x, x_pitch : intp
        The features of these channels, and bytes between their rows.
    other, other_pitch : intp
        The rule's second operand.
    start : intp
        Address of what the sums start from, where that is not the rule's own.
    target : intp
        Where the row goes.
    width : intp
        Channels from here on; those beyond are not touched where `masked` is 1.
    rule : literal int
        What a pair adds.
    vectors, lanes, storage, result, masked : literal int
        The block, the storage codes of features and target, and whether there is a mask.
    """
    shape = literals((rule, vectors, lanes, storage, result, masked))
    if shape is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _RULES[shape[0]](builder, args[:11], shape[1:]).emit()
        return context.get_dummy_value()

    literal_types = (rule, vectors, lanes, storage, result, masked)
    return types.void(*([types.intp] * 11), *literal_types), codegen


@functools.cache
def make_walk(rule: int, lanes: int, storage: int, result: int) -> Any:
    """Return a function that walks over pairs for any number of channels.

    Its arguments are those of `walk_pairs`, with the bytes between channels of `other`.
    """
    item, size, to = ITEMSIZE[storage], ITEMSIZE[compute_code(storage)], ITEMSIZE[result]
    vectors = _VECTORS

    @numba.njit
    def walk(
        offsets: int, inputs: int, count: int, left: int, x: int, x_pitch: int, other: int,
        other_size: int, other_pitch: int, start: int, target: int, channels: int,
    ) -> None:  # fmt: skip
        whole = channels // (vectors * lanes) * vectors * lanes
        for c in range(0, whole, vectors * lanes):
            walk_pairs(
                offsets, inputs, count, left, x + c * item, x_pitch,
                other + c * other_size, other_pitch, start + c * size, target + c * to, 0,
                rule, vectors, lanes, storage, result, 0,
            )  # fmt: skip
        for c in range(whole, channels, lanes):
            walk_pairs(
                offsets, inputs, count, left, x + c * item, x_pitch,
                other + c * other_size, other_pitch, start + c * size, target + c * to,
                channels - c, rule, 1, lanes, storage, result, 1,
            )  # fmt: skip

    return walk


@functools.cache
def make_row(rule: int, lanes: int, storage: int, result: int) -> Any:
    """Return a function that computes one output row, stored as `result`."""
    walk = make_walk(rule, lanes, storage, result)

    @numba.njit
    def compute_row(g: Any, x: int, other: int, start: int, out: int, row: int) -> None:
        first = get_word(g.row_start, row)
        count = get_word(g.row_start, row + 1) - first
        walk(
            g.pair_offset + 4 * first, g.pair_input + 4 * first, count, g.pairs - 1 - first, x,
            g.x_pitch, other + row * g.own_pitch, g.other_size, g.other_pitch, start, out,
            g.channels,
        )  # fmt: skip

    return compute_row
