"""Sliding windows in registers: what the depthwise and the direct kernel's arithmetic shares.

Small kernels run as strips (row_strip.py). A `WindowTile` is for kernels of more rows than
registers hold sums: rh output rows by nv vectors, and loops over kernel rows and columns. A tap
makes ``rh nv`` multiply-adds (6 x 4: 24) out of ``2 nv + rh`` cycles of loads (14). The first and
last rh - 1 input rows, which reach only some output rows, are written out; rows of padding are
skipped.

No product is ever formed with a weight that is not there, so a NaN stays within its window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numba.core import cgutils, types
from numba.extending import intrinsic

from ..simd.ir import (
    I8,
    I64,
    ITEMSIZE,
    broadcast,
    clamp_high,
    clamp_low,
    compute_ir,
    first_lanes,
    fmuladd,
    load_vector,
    pointer,
    store_vector,
)

__all__ = ["Rows", "Sums", "TapColumns", "Window", "WindowTile", "make_window"]

Sums = list[Any]


class Rows(NamedTuple):
    """What a strip or a tile reads, multiplies and writes: addresses, counts, steps in bytes.

    Parameters
    ----------
    x : int
        Where input row 0 of the first channel and depth lies.
    channels, xc, depths, xd : int
        Planes to sum over, and the bytes between them.
    h0, dh, h_end, xh : int
        First input row, rows between taps, end of the rows, bytes between them.
    col0, dw, iw : int
        First input column, columns between taps, number of columns.
    columns : int
        Address of the tap columns' offsets in a copy.
    w, wk, wc, wd : int
        Weights, and the bytes between output channels and planes.
    out, yh, yc : int
        Output, and the bytes between output rows of this strip and output channels.
    bias : int
        Address of the biases.
    width, rows : int
        Lanes and rows to store.
    """

    x: int
    channels: int
    xc: int
    depths: int
    xd: int
    h0: int
    dh: int
    h_end: int
    xh: int
    col0: int
    dw: int
    iw: int
    columns: int
    w: int
    wk: int
    wc: int
    wd: int
    out: int
    yh: int
    yc: int
    bias: int
    width: int
    rows: int


class TapColumns(NamedTuple):
    """The taps of a tile.

    Parameters
    ----------
    kh, kw : int
        Rows and columns of the kernel.
    tap0, tap_end : int
        The columns that meet the input.
    """

    kh: int
    kw: int
    tap0: int
    tap_end: int


class _Arguments(NamedTuple):
    """The values of the records that a strip or a tile is given, by name, and its clamp."""

    words: dict[str, Any]
    bounds: Sequence[Any]


class Window:
    """What strips and tiles share: loops, loads of weights, the store of a finished row."""

    #: What is there once, so that no loop is needed: bits 1 the channel, 2 the depth.
    singleton_flags = 0
    addresses: tuple[str, ...] = ("x", "columns", "w", "out", "bias")

    def __init__(self, builder: Any, args: _Arguments, code: int, widths: Sequence[int]) -> None:
        self.builder, self.code, self.widths = builder, code, list(widths)
        self.kind, self.size = compute_ir(code), ITEMSIZE[code]
        self.storage = self.stored = code  # of what is read, and of what is stored
        self.starts = [sum(widths[:j]) for j in range(len(widths))]
        self.arg, self.bounds = dict(args.words), list(args.bounds)
        for name in self.addresses:
            self.arg[name] = pointer(builder, self.arg[name], I8)
        if self.kind != self.bounds[0].type:
            self.bounds = [builder.fptrunc(bound, self.kind) for bound in self.bounds]

    @property
    def item(self) -> int:
        """Bytes of an element of what is read."""
        return ITEMSIZE[self.storage]

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

    def loop_planes(self, body: Callable[[Any, Any, Sums], Sums], x: Any, sums: Sums) -> Sums:
        """Emit loops over input channels and kernel depths."""
        arg = self.arg

        def channel(c: Any, sums: Sums) -> Sums:
            x_channel = self.at(x, (c, arg["xc"]))
            w_channel = self.at(arg["w"], (c, arg["wc"]))

            def depth(d: Any, sums: Sums) -> Sums:
                return body(
                    self.at(x_channel, (d, arg["xd"])), self.at(w_channel, (d, arg["wd"])), sums
                )

            return (
                depth(I64(0), sums)
                if self.singleton_flags & 2
                else self.loop(arg["depths"], sums, depth)
            )

        return (
            channel(I64(0), sums)
            if self.singleton_flags & 1
            else self.loop(arg["channels"], sums, channel)
        )

    def target(self, row: Any, block: int, j: int) -> Any:
        """Return where vector `j` of an output row goes."""
        base = self.at(self.arg["out"], (row, self.arg["yh"]), (I64(block), self.arg["yc"]))
        return self.builder.gep(base, [I64(self.starts[j] * ITEMSIZE[self.stored])])

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
                self.builder, self.target(row, block, j), value, self.stored, self.store_mask(j)
            )


class WindowTile(Window):
    """Emits one tile of a kernel with loops over its rows and columns; reads a padded copy."""

    def __init__(self, builder: Any, args: _Arguments, shape: Sequence[int]) -> None:
        self.rh, nv, lanes, tail, code = shape
        super().__init__(builder, args, code, [lanes] * (nv - 1) + [tail])

    def vectors(self, row: Any, s: Any) -> list[Any]:
        """Load the elements under tap column `s`."""
        builder = self.builder
        table = builder.bitcast(self.arg["columns"], I64.as_pointer())
        base = builder.gep(row, [builder.load(builder.gep(table, [s]))])
        return [
            load_vector(builder, builder.gep(base, [I64(at * self.size)]), width, self.code)
            for at, width in zip(self.starts, self.widths, strict=True)
        ]

    def input_row(self, x: Any, w: Any, q: Any, reached: Sequence[int], sums: Sums) -> Sums:
        """Emit the loop over the tap columns of input row `q`, unless it is padding."""
        builder, arg, nv = self.builder, self.arg, len(self.widths)
        h = builder.add(arg["h0"], builder.mul(q, arg["dh"]))
        row = self.at(x, (h, arg["xh"]))
        starts = [builder.mul(builder.sub(q, I64(r)), arg["kw"]) for r in reached]

        def tap(i: Any, sums: Sums) -> Sums:
            s = builder.add(arg["tap0"], i)
            result, vectors = list(sums), self.vectors(row, s)
            for r, start in zip(reached, starts, strict=True):
                weights = self.weight(w, 0, builder.add(start, s))
                for j in range(nv):
                    at = r * nv + j
                    result[at] = fmuladd(builder, weights[j], vectors[j], result[at])
            return result

        exists = builder.icmp_unsigned("<", h, arg["h_end"])
        count = builder.sub(arg["tap_end"], arg["tap0"])
        return self.when(exists, sums, lambda sums: self.loop(count, sums, tap))

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
        sums = self.loop_planes(self.plane, self.arg["x"], self.initial(0) * self.rh)
        for r in range(self.rh):
            with builder.if_then(builder.icmp_signed("<", I64(r), self.arg["rows"])):
                self.store(I64(r), 0, sums[r * nv : (r + 1) * nv])


def make_window(made: Callable[..., Any], shape: Sequence[int]) -> Any:
    """Return a function for machine code that computes a strip or a tile of one shape.

    It takes a tuple of records, `Rows` first, and the clamp: low and high.

    Parameters
    ----------
    made : subclass of Window
        What is computed.
    shape : sequence of int
        What `made` is compiled for, part of the key of what calls it.
    """

    @intrinsic
    def window(typingctx: Any, records: Any, low: Any, high: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            words: dict[str, Any] = {}
            for kind, record in zip(
                records.types, cgutils.unpack_tuple(builder, args[0]), strict=True
            ):
                words |= zip(kind.fields, cgutils.unpack_tuple(builder, record), strict=True)
            made(builder, _Arguments(words, args[1:]), shape).emit()
            return context.get_dummy_value()

        return types.void(records, types.float64, types.float64), codegen

    return window
