"""Sliding windows in registers: the arithmetic of the depthwise and the direct kernel.

A tile is `rh` output rows by `nv` vectors of one output channel. Its input rows lie in a padded
copy (sliding.py), so that no tap needs a border test, or are read in place under masks
(stencil.py). Every input vector is loaded once and used for every output row that it reaches::

    for plane (input channels x kernel depth)
      for input row q of the window                    q - r is the kernel's row for output row r
        for tap column s
          load nv vectors                              at any offset, from L1
          for output row r with 0 <= q - r < kh
            acc[r] += w[q - r, s] * vectors            rh * nv multiply-adds a nv + rh loads

Rows share input only where the vertical stride is 1; with dilation the rows of a tile are those
that do share (every `dilation`-th). Otherwise rh is 1.

Small kernels are unrolled with their weights in registers; larger ones loop over rows and columns,
with the first and last rh - 1 input rows, which reach only some output rows, written out. So no
product is ever formed with a weight that is not there, and a NaN stays within its window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numba.core import types
from numba.extending import intrinsic

from .vectors import (
    I8,
    I64,
    ITEMSIZE,
    broadcast,
    clamp_high,
    clamp_low,
    compute_ir,
    first_lanes,
    fmuladd,
    literal,
    literals,
    load_vector,
    pointer,
    store_vector,
)

__all__ = ["Sums", "Window", "window_tile"]

Sums = list[list[Any]]


class Window:
    """Emits one tile; holds the LLVM values and literal sizes that its parts share."""

    #: Input rows between the first ones of successive output rows (unrolled kernels).
    row_share = 1

    def __init__(self, builder: Any, args: Sequence[Any], shape: Sequence[int], code: int) -> None:
        self.builder, self.code = builder, code
        self.rh, self.nv, self.lanes, self.kh_literal, self.kw_literal = shape
        (self.x, self.plane_step, self.planes, self.row_step, self.columns, self.w, self.kh,
         self.kw, self.c, self.c_pitch, self.bias, self.low, self.high, self.width,
         self.rows) = args  # fmt: skip
        self.kind, self.size = compute_ir(code), ITEMSIZE[code]

    def loop(self, count: Any, sums: Sums, body: Callable[[Any, Sums], Sums]) -> Sums:
        """Emit ``for i in range(count): sums = body(i, sums)``."""
        builder = self.builder
        entry = builder.block
        head, block, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        carried = [[builder.phi(value.type) for value in row] for row in sums]
        builder.cbranch(builder.icmp_signed("<", index, count), block, end)
        builder.position_at_end(block)
        after = body(index, carried)
        following = builder.add(index, I64(1))
        last = builder.block
        builder.branch(head)
        index.add_incoming(I64(0), entry)
        index.add_incoming(following, last)
        for phis, first, new in zip(carried, sums, after, strict=True):
            for phi, before, value in zip(phis, first, new, strict=True):
                phi.add_incoming(before, entry)
                phi.add_incoming(value, last)
        builder.position_at_end(end)
        return carried

    def scalar(self, base: Any, index: Any) -> Any:
        """Load one weight into every lane."""
        typed = self.builder.bitcast(base, self.kind.as_pointer())
        value = self.builder.load(self.builder.gep(typed, [index]), align=self.size)
        return broadcast(self.builder, value, self.lanes)

    def plane(self, i: Any) -> Any:
        """Return where plane `i` of the input begins."""
        return self.builder.gep(self.x, [self.builder.mul(self.plane_step, i)])

    def row(self, x: Any, q: Any) -> Any:
        """Return where input row `q` of the window begins."""
        return self.builder.gep(x, [self.builder.mul(self.row_step, q)])

    def vectors(self, row: Any, column: Any) -> list[Any]:
        """Load the tile's vectors of one input row at one tap column."""
        offsets = self.builder.bitcast(self.columns, I64.as_pointer())
        offset = self.builder.load(self.builder.gep(offsets, [column]))
        base = self.builder.gep(row, [offset])
        step = self.lanes * self.size
        return [
            load_vector(
                self.builder, self.builder.gep(base, [I64(j * step)]), self.lanes, self.code
            )
            for j in range(self.nv)
        ]

    def multiply(
        self, sums: Sums, reached: Sequence[int], weights: list[Any], x: list[Any]
    ) -> Sums:
        """Add one tap's products to the output rows that it reaches."""
        result = [list(row) for row in sums]
        for r, weight in zip(reached, weights, strict=True):
            result[r] = [fmuladd(self.builder, weight, x[j], sums[r][j]) for j in range(self.nv)]
        return result

    def plane_unrolled(self, x: Any, w: Any, sums: Sums) -> Sums:
        """Emit a plane of a small kernel: weights in registers, every tap written out."""
        kh, kw = self.kh_literal, self.kw_literal
        weights = [self.scalar(w, I64(tap)) for tap in range(kh * kw)]
        for q in range(kh + (self.rh - 1) * self.row_share):
            row = self.row(x, I64(q))
            reached = [r for r in range(self.rh) if 0 <= q - r * self.row_share < kh]
            for s in range(kw):
                taps = [weights[(q - r * self.row_share) * kw + s] for r in reached]
                sums = self.multiply(sums, reached, taps, self.vectors(row, I64(s)))
        return sums

    def input_row(self, x: Any, w: Any, q: Any, reached: Sequence[int], sums: Sums) -> Sums:
        """Emit the loop over the tap columns of input row `q`."""
        builder = self.builder
        row = self.row(x, q)
        starts = [builder.mul(builder.sub(q, I64(r)), self.kw) for r in reached]

        def tap(s: Any, sums: Sums) -> Sums:
            weights = [self.scalar(w, builder.add(start, s)) for start in starts]
            return self.multiply(sums, reached, weights, self.vectors(row, s))

        return self.loop(self.kw, sums, tap)

    def plane_looped(self, x: Any, w: Any, sums: Sums) -> Sums:
        """Emit a plane of any kernel of at least rh rows: first rows, middle rows, last rows."""
        builder, rh = self.builder, self.rh
        for q in range(rh - 1):
            sums = self.input_row(x, w, I64(q), range(q + 1), sums)
        middle = builder.sub(self.kh, I64(rh - 1))

        def middle_row(i: Any, sums: Sums) -> Sums:
            return self.input_row(x, w, builder.add(i, I64(rh - 1)), range(rh), sums)

        sums = self.loop(middle, sums, middle_row)
        for i in range(rh - 1):
            q = builder.add(self.kh, I64(i))
            sums = self.input_row(x, w, q, range(i + 1, rh), sums)
        return sums

    def store(self, sums: Sums) -> None:
        """Emit the clamp and the stores of the rows and lanes that exist."""
        builder = self.builder
        floor, ceiling = (broadcast(builder, bound, self.lanes) for bound in (self.low, self.high))
        full = builder.icmp_signed(">=", self.width, I64(self.nv * self.lanes))
        masks = [first_lanes(builder, self.width, self.lanes, j * self.lanes)
                 for j in range(self.nv)]  # fmt: skip
        for r, row in enumerate(sums):
            with builder.if_then(builder.icmp_signed("<", I64(r), self.rows)):
                base = builder.gep(self.c, [builder.mul(self.c_pitch, I64(r))])
                values = [clamp_high(builder, clamp_low(builder, value, floor), ceiling)
                          for value in row]  # fmt: skip
                targets = [builder.gep(base, [I64(j * self.lanes * self.size)])
                           for j in range(self.nv)]  # fmt: skip
                with builder.if_else(full) as (whole, edge):
                    with whole:
                        for target, value in zip(targets, values, strict=True):
                            store_vector(builder, target, value, self.code)
                    with edge:
                        for target, value, mask in zip(targets, values, masks, strict=True):
                            store_vector(builder, target, value, self.code, mask)

    def emit(self) -> None:
        """Emit the whole tile."""
        builder = self.builder
        start = self.scalar(self.bias, I64(0))
        sums = [[start] * self.nv for _ in range(self.rh)]
        taps = builder.mul(builder.mul(self.kh, self.kw), I64(self.size))
        add_plane = self.plane_unrolled if self.kh_literal else self.plane_looped

        def each_plane(i: Any, sums: Sums) -> Sums:
            return add_plane(self.plane(i), builder.gep(self.w, [builder.mul(taps, i)]), sums)

        self.store(self.loop(self.planes, sums, each_plane))


@intrinsic(prefer_literal=True)
def window_tile(
    typingctx: Any, x: Any, plane_step: Any, planes: Any, row_step: Any, columns: Any, w: Any,
    kh: Any, kw: Any, c: Any, c_pitch: Any, bias: Any, low: Any, high: Any, width: Any, rows: Any,
    rh: Any, nv: Any, lanes: Any, kh_literal: Any, kw_literal: Any, code: Any,
) -> Any:  # fmt: skip
    """Compute one tile; the last six arguments are literal.

    Parameters
    ----------
    x, plane_step, planes, row_step : intp
        Address of the tile's first input element, bytes between planes, number of planes, bytes
        between the input rows of successive kernel rows.
    columns : intp
        Address of the byte offset of each tap column.
    w, kh, kw : intp
        Address of the weights (planes, kh, kw) and the kernel's size.
    c, c_pitch : intp
        Address of the output and bytes between its rows.
    bias : intp
        Address of the number to start from.
    low, high : float64
        Clamp of the result.
    width, rows : intp
        Lanes and rows to store.
    rh, nv, lanes : literal int
        The tile.
    kh_literal, kw_literal : literal int
        The kernel's size where it is to be unrolled, else 0 (then ``kh >= rh``).
    code : literal int
        Storage code of input copy, weights, bias and sums (F32 or F64).
    """
    shape = literals((rh, nv, lanes, kh_literal, kw_literal))
    storage = literal(code)
    if shape is None or storage is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = list(args[:15])
        for index in (0, 4, 5, 8, 10):
            values[index] = pointer(builder, values[index], I8)
        if compute_ir(storage) != values[11].type:
            values[11:13] = (builder.fptrunc(value, compute_ir(storage)) for value in values[11:13])
        Window(builder, values, shape, storage).emit()
        return context.get_dummy_value()

    word, real = types.intp, types.float64
    signature = types.void(
        *([word] * 11), real, real, word, word, rh, nv, lanes, kh_literal, kw_literal, code
    )
    return signature, codegen
