"""Sliding windows in registers: the arithmetic of the depthwise and the direct kernel.

A `Strip` is a column of output rows, `nv` vectors wide. Input rows pass by once, from top to
bottom, and each is added to all the output rows that it reaches, whose sums live in registers::

    for step t (one output row ends at each)
      for input row e of the `down` rows that the window moves, unless it is padding
        for plane (input channel x kernel depth)
          for tap column s
            load nv vectors                          at any offset; across a cache line 2 cycles
            for output row t - m, for output channel of the block
              sums[m] += w[e + m * down, s] * vectors
      store the oldest row, make room for a new one

So a loaded vector serves ``kh / down`` rows and a weight serves nv vectors: a step makes
``kh kw nv`` multiply-adds (3x3, nv = 4: 36) out of ``2 kw nv`` cycles of loads (24), and weights
stay in registers where there is room. Output rows of one strip are those that share input rows:
with dilation every ``dilation``-th, with a stride all.

A `Tile` is for kernels of more rows than registers hold sums: rh output rows by nv vectors, and
loops over kernel rows and columns. A tap makes ``rh nv`` multiply-adds (6 x 4: 24) out of
``2 nv + rh`` cycles of loads (14). The first and last rh - 1 input rows, which reach only some
output rows, are written out.

In both no product is ever formed with a weight that is not there, so a NaN stays within its window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .vectors import (
    I8,
    I32,
    I64,
    ITEMSIZE,
    broadcast,
    call,
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

__all__ = ["Strip", "Window", "emit_window", "rolling_strip", "window_tile"]

Sums = list[Any]

#: Where the vectors of a strip's row come from: a copy whose rows are split by the horizontal
#: stride, or the input itself with that stride.
COPY, DENSE, PAIRS = 0, 1, 2

#: Steps by which a strip asks for its input in advance. Rows of a large image lie on pages of their
#: own, where the processor does not see them coming (7x7 on 2048x2048: 3.6 ms without, 2.1 with).
_AHEAD = 6


class Window:
    """What strips and tiles share: loops, loads of weights, the store of a finished row."""

    #: Names of the integer arguments of the intrinsics, in order; addresses and bytes.
    words = (
        "x",  # where input row 0 of the first channel and depth lies
        "channels", "xc", "depths", "xd",  # planes to sum over, and the bytes between them
        "h0", "dh", "h_end", "xh",  # first input row, rows between taps, end of rows, bytes
        "col0", "dw", "iw",  # first input column, columns between taps, number of columns
        "columns",  # offsets of the tap columns in a copy
        "w", "wk", "wc", "wd",  # weights: bytes between output channels, planes
        "out", "yh", "yc",  # bytes between output rows of this strip and output channels
        "bias", "width", "rows",  # lanes and rows to store
    )  # fmt: skip
    addresses = ("x", "columns", "w", "out", "bias")

    def __init__(self, builder: Any, args: Sequence[Any], code: int, widths: Sequence[int]) -> None:
        self.builder, self.code, self.widths = builder, code, list(widths)
        self.kind, self.size = compute_ir(code), ITEMSIZE[code]
        self.storage = code  # of what is read and stored
        self.starts = [sum(widths[:j]) for j in range(len(widths))]
        self.arg = dict(zip(self.words, args, strict=False))
        for name in self.addresses:
            self.arg[name] = pointer(builder, self.arg[name], I8)
        self.bounds = list(args[len(self.words) :])
        if self.kind != self.bounds[0].type:
            self.bounds = [builder.fptrunc(bound, self.kind) for bound in self.bounds]

    def loop(self, count: Any, sums: Sums, body: Callable[[Any, Sums], Sums]) -> Sums:
        """Emit ``for i in range(count): sums = body(i, sums)``."""
        builder = self.builder
        entry = builder.block
        head, block, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        carried = [builder.phi(value.type) for value in sums]
        builder.cbranch(builder.icmp_signed("<", index, count), block, end)
        builder.position_at_end(block)
        after = body(index, carried)
        following = builder.add(index, I64(1))
        last = builder.block
        builder.branch(head)
        index.add_incoming(I64(0), entry)
        index.add_incoming(following, last)
        for phi, before, value in zip(carried, sums, after, strict=True):
            phi.add_incoming(before, entry)
            phi.add_incoming(value, last)
        builder.position_at_end(end)
        return carried

    def when(self, flag: Any, sums: Sums, body: Callable[[Sums], Sums]) -> Sums:
        """Emit ``if flag: sums = body(sums)``."""
        builder = self.builder
        before = builder.block
        with builder.if_then(flag):
            after = body(sums)
            inside = builder.block
        merged = []
        for old, new in zip(sums, after, strict=True):
            phi = builder.phi(old.type)
            phi.add_incoming(old, before)
            phi.add_incoming(new, inside)
            merged.append(phi)
        return merged

    def at(self, base: Any, *terms: tuple[Any, Any]) -> Any:
        """Return ``base`` plus the products of some pairs."""
        for index, step in terms:
            base = self.builder.gep(base, [self.builder.mul(index, step)])
        return base

    def scalar(self, base: Any, index: int) -> list[Any]:
        """Load one number into every lane, once for each width of vector."""
        typed = self.builder.bitcast(base, self.kind.as_pointer())
        value = self.builder.load(self.builder.gep(typed, [I64(index)]), align=self.size)
        made = {width: broadcast(self.builder, value, width) for width in set(self.widths)}
        return [made[width] for width in self.widths]

    def weight(self, base: Any, block: int, tap: Any) -> list[Any]:
        """Return a weight for each of the vectors."""
        base = self.at(base, (self.arg["wk"], I64(block)), (tap, I64(self.size)))
        return self.scalar(base, 0)

    def initial(self, block: int) -> list[Any]:
        """Return what the sums of one output row start from."""
        return self.scalar(self.arg["bias"], block)

    def each_plane(self, body: Callable[[Any, Any, Sums], Sums], x: Any, sums: Sums) -> Sums:
        """Emit loops over input channels and kernel depths."""
        arg = self.arg

        def channel(c: Any, sums: Sums) -> Sums:
            x_channel = self.at(x, (c, arg["xc"]))
            w_channel = self.at(arg["w"], (c, arg["wc"]))

            def depth(d: Any, sums: Sums) -> Sums:
                return body(
                    self.at(x_channel, (d, arg["xd"])), self.at(w_channel, (d, arg["wd"])), sums
                )

            return self.loop(arg["depths"], sums, depth)

        return self.loop(arg["channels"], sums, channel)

    def target(self, row: Any, block: int, j: int) -> Any:
        """Return where vector `j` of an output row goes."""
        base = self.at(self.arg["out"], (row, self.arg["yh"]), (I64(block), self.arg["yc"]))
        return self.builder.gep(base, [I64(self.starts[j] * self.size)])

    def store_mask(self, j: int) -> Any:
        """Return flags for the lanes of vector `j` that exist, None for all."""
        if j < len(self.widths) - 1:
            return None
        return first_lanes(self.builder, self.arg["width"], self.widths[j], self.starts[j])

    def store(self, row: Any, block: int, values: Sequence[Any]) -> None:
        """Emit the clamp and the stores of one output row."""
        for j, value in enumerate(values):
            low, high = (broadcast(self.builder, bound, self.widths[j]) for bound in self.bounds)
            value = clamp_high(self.builder, clamp_low(self.builder, value, low), high)
            store_vector(
                self.builder, self.target(row, block, j), value, self.storage, self.store_mask(j)
            )


class Strip(Window):
    """Emits a column of output rows whose sums roll through registers."""

    def __init__(self, builder: Any, args: Any, shape: Sequence[int]) -> None:
        (self.kh, self.kw, self.down, nv, self.lanes, tail, self.block, self.source, self.dense,
         self.single, self.kept, self.masked, code) = shape  # fmt: skip
        self.height = -(-self.kh // self.down)
        self.weights: dict[tuple[int, int], list[Any]] = {}
        self.flags: dict[tuple[int, int], Any] = {}
        self.runs: dict[tuple[int, int], Any] = {}
        super().__init__(builder, args, code, [self.lanes] * (nv - 1) + [tail])

    def inside(self, s: int, first: int, width: int) -> Any:
        """Return flags for the lanes whose element lies in the input's row."""
        builder, kind = self.builder, ir.VectorType(I32, width)
        column = builder.add(self.arg["col0"], builder.mul(I64(s), self.arg["dw"]))
        lane = ir.Constant(kind, [I32(first + i) for i in range(width)])
        start = broadcast(builder, builder.trunc(column, I32), width)
        limit = broadcast(builder, builder.trunc(self.arg["iw"], I32), width)
        return builder.icmp_unsigned("<", builder.add(lane, start), limit)

    def run(self, row: Any, s: int, j: int, half: int = 0) -> Any:
        """Load the elements under tap column `s` for vector `j` (one of two for a pair)."""
        builder, width = self.builder, self.widths[j]
        if self.source == COPY:
            base = builder.gep(row, [self.offsets[s]])
            return load_vector(
                builder, builder.gep(base, [I64(self.starts[j] * self.size)]), width, self.code
            )
        first = self.starts[j] * self.source + half * width
        flags = self.flags.get((s, first))
        column = builder.add(self.arg["col0"], builder.mul(I64(s), self.arg["dw"]))
        offset = builder.mul(builder.add(column, I64(first)), I64(self.size))
        return load_vector(builder, builder.gep(row, [offset]), width, self.code, flags)

    def vector(self, row: Any, s: int, j: int) -> Any:
        """Return the elements under tap column `s` for vector `j`."""
        if self.source != PAIRS:
            return self.run(row, s, j)
        odd = s % 2 if self.dense else 0  # its elements come with those of the tap before
        if (s - odd, j) not in self.runs:
            self.runs[s - odd, j] = [self.run(row, s - odd, j, half) for half in (0, 1)]
        width = self.widths[j]
        pattern = ir.Constant(ir.VectorType(I32, width), [I32(2 * i + odd) for i in range(width)])
        return self.builder.shuffle_vector(*self.runs[s - odd, j], pattern)

    def taps(self, row: Any, w: Any, e: int, sums: Sums) -> Sums:
        """Emit all products of one input row of one plane."""
        result, nv = list(sums), len(self.widths)
        self.runs = {}
        for s in range(self.kw):
            vectors = [self.vector(row, s, j) for j in range(nv)]
            for block in range(self.block):
                for m in range(self.height):
                    i = e + m * self.down
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
        if self.single:
            return self.taps(row, self.arg["w"], e, sums)
        return self.each_plane(lambda x, w, sums: self.taps(x, w, e, sums), row, sums)

    def reaches_over(self, j: int) -> bool:
        """Return whether loads of vector `j` need masks."""
        first, last = self.masked & 1 and j == 0, self.masked & 2 and j == len(self.widths) - 1
        return bool(first or last or self.masked & 4)

    def prepare(self) -> None:
        """Emit what holds for all rows: offsets, masks, weights where there is room for them."""
        builder = self.builder
        if self.source == COPY:
            table = builder.bitcast(self.arg["columns"], I64.as_pointer())
            self.offsets = [builder.load(builder.gep(table, [I64(s)])) for s in range(self.kw)]
        elif self.masked:
            for s in range(0, self.kw, 2 if self.source == PAIRS and self.dense else 1):
                for j, width in enumerate(self.widths):
                    for half in range(self.source if self.reaches_over(j) else 0):
                        first = self.starts[j] * self.source + half * width
                        self.flags[s, first] = self.inside(s, first, width)
        if self.kept:
            for block in range(self.block):
                for tap in range(self.kh * self.kw):
                    self.weights[block, tap] = self.weight(self.arg["w"], block, I64(tap))

    def store_mask(self, j: int) -> Any:
        """Return flags for the lanes of vector `j` that exist, None for all."""
        return super().store_mask(j) if self.masked & 6 else None

    def prefetched(self) -> list[Any]:
        """Return the byte offsets in a row of the cache lines that a strip reads."""
        builder, total = self.builder, sum(self.widths) * self.size * max(self.source, 1)
        start = builder.mul(self.arg["col0"], I64(self.size))
        return [builder.add(start, I64(at)) for at in range(0, total + 64, 64)]

    def prefetch(self, h: Any) -> None:
        """Ask for an input row that is needed some steps after row `h`."""
        builder = self.builder
        row = builder.add(h, builder.mul(I64(_AHEAD * self.down), self.arg["dh"]))
        base = self.at(self.arg["x"], (row, self.arg["xh"]))
        for offset in self.prefetched():
            at = builder.gep(base, [offset])
            call(builder, "llvm.prefetch.p0", ir.VoidType(), at, I32(0), I32(3), I32(1))

    def emit(self) -> None:
        """Emit the whole strip."""
        builder, nv = self.builder, len(self.widths)
        self.prepare()
        initial = [self.initial(block) for block in range(self.block)]
        per_block = self.height * nv

        def step(t: Any, sums: Sums) -> Sums:
            for e in range(min(self.down, self.kh)):
                q = builder.add(builder.mul(t, I64(self.down)), I64(e))
                h = builder.add(self.arg["h0"], builder.mul(q, self.arg["dh"]))
                exists = builder.icmp_unsigned("<", h, self.arg["h_end"])
                self.prefetch(h)
                sums = self.when(exists, sums, lambda sums, h=h, e=e: self.input_row(h, e, sums))
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


class _Tile(Window):
    """Emits one tile of a kernel with loops over its rows and columns; reads a padded copy."""

    words = (*Window.words, "kh", "kw")

    def __init__(self, builder: Any, args: Any, shape: Sequence[int]) -> None:
        self.rh, nv, lanes, tail, code = shape
        super().__init__(builder, args, code, [lanes] * (nv - 1) + [tail])

    def input_row(self, x: Any, w: Any, q: Any, reached: Sequence[int], sums: Sums) -> Sums:
        """Emit the loop over the tap columns of input row `q`, unless it is padding."""
        builder, arg, nv = self.builder, self.arg, len(self.widths)
        h = builder.add(arg["h0"], builder.mul(q, arg["dh"]))
        row = self.at(x, (h, arg["xh"]))
        starts = [builder.mul(builder.sub(q, I64(r)), arg["kw"]) for r in reached]
        table = builder.bitcast(arg["columns"], I64.as_pointer())

        def tap(s: Any, sums: Sums) -> Sums:
            result = list(sums)
            base = builder.gep(row, [builder.load(builder.gep(table, [s]))])
            vectors = [
                load_vector(builder, builder.gep(base, [I64(at * self.size)]), width, self.code)
                for at, width in zip(self.starts, self.widths, strict=True)
            ]
            for r, start in zip(reached, starts, strict=True):
                weights = self.weight(w, 0, builder.add(start, s))
                for j in range(nv):
                    at = r * nv + j
                    result[at] = fmuladd(builder, weights[j], vectors[j], result[at])
            return result

        exists = builder.icmp_unsigned("<", h, arg["h_end"])
        return self.when(exists, sums, lambda sums: self.loop(arg["kw"], sums, tap))

    def plane(self, x: Any, w: Any, sums: Sums) -> Sums:
        """Emit a plane of a kernel of at least rh rows: first rows, middle rows, last rows."""
        builder, rh, kh = self.builder, self.rh, self.arg["kh"]
        for q in range(rh - 1):
            sums = self.input_row(x, w, I64(q), range(q + 1), sums)

        def middle_row(i: Any, sums: Sums) -> Sums:
            return self.input_row(x, w, builder.add(i, I64(rh - 1)), range(rh), sums)

        sums = self.loop(builder.sub(kh, I64(rh - 1)), sums, middle_row)
        for i in range(rh - 1):
            sums = self.input_row(x, w, builder.add(kh, I64(i)), range(i + 1, rh), sums)
        return sums

    def emit(self) -> None:
        """Emit the whole tile."""
        builder, nv = self.builder, len(self.widths)
        sums = self.each_plane(self.plane, self.arg["x"], self.initial(0) * self.rh)
        for r in range(self.rh):
            with builder.if_then(builder.icmp_signed("<", I64(r), self.arg["rows"])):
                self.store(I64(r), 0, sums[r * nv : (r + 1) * nv])


def emit_window(made: type[Strip] | type[_Tile], shape: Any, args: Any) -> Any:
    """Return what an intrinsic returns that emits a strip or a tile with literal sizes."""
    sizes = literals(shape.types) if isinstance(shape, types.BaseTuple) else None
    if sizes is None:
        return None
    count = len(made.words)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made(builder, list(args[: count + 2]), sizes).emit()
        return context.get_dummy_value()

    words = [types.intp] * count
    return types.void(*words, types.float64, types.float64, shape), codegen


@intrinsic(prefer_literal=True)
def rolling_strip(
    typingctx: Any, x: Any, channels: Any, xc: Any, depths: Any, xd: Any, h0: Any, dh: Any,
    h_end: Any, xh: Any, col0: Any, dw: Any, iw: Any, columns: Any, w: Any, wk: Any, wc: Any,
    wd: Any, out: Any, yh: Any, yc: Any, bias: Any, width: Any, rows: Any, low: Any, high: Any,
    shape: Any,
) -> Any:  # fmt: skip
    """Compute a strip; the arguments are those of `Window.words`, the clamp, and literal sizes.

    shape : kh, kw; input rows (of the dilated kernel) between successive output rows; vectors,
        lanes, lanes of the last vector; output channels computed at once; where rows come from
        (`COPY`, `DENSE`, `PAIRS`); 1 for a horizontal dilation of 1; 1 for a single plane; 1 to
        keep all weights in registers; vectors that may reach over a side (bits: 1 the first, 2 the
        last, 4 all); storage code.
    """
    return emit_window(Strip, shape, None)


@intrinsic(prefer_literal=True)
def window_tile(
    typingctx: Any, x: Any, channels: Any, xc: Any, depths: Any, xd: Any, h0: Any, dh: Any,
    h_end: Any, xh: Any, col0: Any, dw: Any, iw: Any, columns: Any, w: Any, wk: Any, wc: Any,
    wd: Any, out: Any, yh: Any, yc: Any, bias: Any, width: Any, rows: Any, kh: Any, kw: Any,
    low: Any, high: Any, shape: Any,
) -> Any:  # fmt: skip
    """Compute a tile; arguments as for `rolling_strip`, and the kernel's size (``kh >= rh``).

    shape : rows, vectors, lanes, lanes of the last vector, storage code.
    """
    return emit_window(_Tile, shape, None)
