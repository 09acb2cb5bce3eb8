"""What plan.py does in registers: correlate a plane with one phase, split and join phases.

The tile is `rh` output rows by `nv` vectors of sums over channels, rows and columns of a plane that
lies padded in L2, so there is no border and nothing is masked. A loaded vector serves every output
row that it reaches::

    for plane
      for input row q                       q - r is the kernel's row for output row r
        for tap column s
          load nv vectors                   two cycles each across a cache line
          for output row r with 0 <= q - r < kh
            sums[r] += w[q - r, s] * vectors

AVX-512: 6 x 4 sums, 4 vectors, 1 weight: 29 of 32 registers; 24 multiply-adds out of 11 cycles of
loads. The first and last rh - 1 input rows reach only some output rows and are written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...cook_toom import matrices
from ..common.toom_cook_lines import INPUT, OUTPUT, apply_matrix, split_phases
from ..runtime import jit
from ..simd.ir import (
    I8,
    I32,
    I64,
    ITEMSIZE,
    broadcast,
    call_address,
    compute_ir,
    fmuladd,
    lanes_between,
    literals,
    load_vector,
    pointer,
    store_vector,
)

__all__ = [
    "call_correlate",
    "call_join",
    "call_split",
    "correlate_address",
    "join_address",
    "split_address",
]

Sums = list[list[Any]]


def _loop(builder: Any, count: Any, sums: Sums, body: Callable[[Any, Sums], Sums]) -> Sums:
    """Emit ``for i in range(count): sums = body(i, sums)``."""
    entry = builder.block
    head, block, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(I64)
    carried = [[builder.phi(value.type) for value in row] for row in sums]
    builder.cbranch(builder.icmp_signed("<", index, count), block, end)
    builder.position_at_end(block)
    after = body(index, carried)
    following, last = builder.add(index, I64(1)), builder.block
    builder.branch(head)
    index.add_incoming(I64(0), entry)
    index.add_incoming(following, last)
    for phis, first, new in zip(carried, sums, after, strict=True):
        for phi, before, value in zip(phis, first, new, strict=True):
            phi.add_incoming(before, entry)
            phi.add_incoming(value, last)
    builder.position_at_end(end)
    return carried


class _Correlation:
    """Emits one tile; holds the LLVM values that its parts share."""

    def __init__(self, builder: Any, args: Sequence[Any], shape: Sequence[int]) -> None:
        self.builder = builder
        self.rh, self.nv, self.lanes, self.single, self.code = shape
        (self.x, self.plane_step, self.planes, self.row_step, self.w, self.kh, self.kw, self.c,
         self.c_pitch) = args  # fmt: skip
        self.kind, self.size = compute_ir(self.code), ITEMSIZE[self.code]

    def tap(self, row: Any, weights: list[Any], s: Any, reached: range, sums: Sums) -> Sums:
        """Add the products of one tap to the output rows that it reaches."""
        builder, step = self.builder, self.lanes * self.size
        base = builder.gep(row, [builder.mul(s, I64(self.size))])
        vectors = [
            load_vector(builder, builder.gep(base, [I64(j * step)]), self.lanes, self.code)
            for j in range(self.nv)
        ]
        result = list(sums)
        for r, weight in zip(reached, weights, strict=True):
            scalar = builder.load(builder.gep(weight, [s]), align=self.size)
            factor = broadcast(builder, scalar, self.lanes)
            result[r] = [
                fmuladd(builder, factor, vector, total)
                for vector, total in zip(vectors, sums[r], strict=True)
            ]
        return result

    def input_row(self, x: Any, w: Any, q: Any, reached: range, sums: Sums) -> Sums:
        """Emit the loop over the tap columns of input row `q`."""
        builder = self.builder
        row = builder.gep(x, [builder.mul(self.row_step, q)])
        weights = [builder.gep(w, [builder.mul(builder.sub(q, I64(r)), self.kw)]) for r in reached]
        if self.single:
            return self.tap(row, weights, I64(0), reached, sums)
        return _loop(
            builder, self.kw, sums, lambda s, sums: self.tap(row, weights, s, reached, sums)
        )

    def plane(self, i: Any, sums: Sums) -> Sums:
        """Emit one plane: first rows, middle rows, last rows."""
        builder, rh = self.builder, self.rh
        x = builder.gep(self.x, [builder.mul(self.plane_step, i)])
        w = builder.bitcast(self.w, self.kind.as_pointer())
        w = builder.gep(w, [builder.mul(builder.mul(self.kh, self.kw), i)])
        for q in range(rh - 1):
            sums = self.input_row(x, w, I64(q), range(q + 1), sums)
        middle = builder.sub(self.kh, I64(rh - 1))

        def middle_row(q: Any, sums: Sums) -> Sums:
            return self.input_row(x, w, builder.add(q, I64(rh - 1)), range(rh), sums)

        sums = _loop(builder, middle, sums, middle_row)
        for q in range(rh - 1):
            sums = self.input_row(x, w, builder.add(self.kh, I64(q)), range(q + 1, rh), sums)
        return sums

    def emit(self) -> None:
        """Emit the whole tile."""
        builder = self.builder
        zero = ir.Constant(ir.VectorType(self.kind, self.lanes), None)
        sums = _loop(builder, self.planes, [[zero] * self.nv] * self.rh, self.plane)
        for r, row in enumerate(sums):
            base = builder.gep(self.c, [builder.mul(self.c_pitch, I64(r))])
            for j, value in enumerate(row):
                target = builder.gep(base, [I64(j * self.lanes * self.size)])
                store_vector(builder, target, value, self.code)


@intrinsic(prefer_literal=True)
def _correlate(
    typingctx: Any, x: Any, plane_step: Any, planes: Any, row_step: Any, w: Any, kh: Any, kw: Any,
    c: Any, c_pitch: Any, rh: Any, nv: Any, lanes: Any, single: Any, code: Any,
) -> Any:  # fmt: skip
    """Compute one tile; the last five arguments are literal.

    Parameters
    ----------
    x, plane_step, planes, row_step : intp
        Address of the tile's first input element, bytes between planes, their number, bytes
        between rows.
    w, kh, kw : intp
        Address of the weights (planes, kh, kw) and the kernel's size, ``kh >= rh - 1``.
    c, c_pitch : intp
        Address of the sums and bytes between their rows.
    rh, nv, lanes, single, code : literal int
        The tile, 1 for a kernel one column wide, and the storage code of all operands.
    """
    shape = literals((rh, nv, lanes, single, code))
    if shape is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = list(args[:9])
        for index in (0, 4, 7):
            values[index] = pointer(builder, values[index], I8)
        _Correlation(builder, values, shape).emit()
        return context.get_dummy_value()

    return types.void(*([types.intp] * 9), rh, nv, lanes, single, code), codegen


@intrinsic(prefer_literal=True)
def _split_line(
    typingctx: Any, source: Any, low: Any, high: Any, target: Any, target_step: Any, m: Any,
    lanes: Any, masked: Any, code: Any,
) -> Any:  # fmt: skip
    """Transform the phases of `lanes` tiles of m contiguous elements, and the next m - 1.

    Elements before `low` and from `high` on, counted from `source`, are zero and not read where
    `masked` is 1. The last four arguments are literal.
    """
    shape = literals((m, lanes, masked, code))
    if shape is None:
        return None
    phases, count, border, storage = shape

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, goal = pointer(builder, args[0], I8), pointer(builder, args[3], I8)
        line: list[Any] = []
        for start in range(0, 2 * phases - 1, phases):
            vectors = []
            for v in range(phases):
                first = start + v * count
                flags = None
                if border:
                    flags = lanes_between(builder, args[1], args[2], count, first)
                address = builder.gep(base, [I64(first * ITEMSIZE[storage])])
                vectors.append(load_vector(builder, address, count, storage, flags))
            line += split_phases(builder, vectors)
        matrix = matrices(phases, phases)[INPUT]
        for i, value in enumerate(apply_matrix(builder, matrix, line[: len(matrix)])):
            store_vector(builder, builder.gep(goal, [builder.mul(args[4], I64(i))]), value, storage)
        return context.get_dummy_value()

    return types.void(*([types.intp] * 5), m, lanes, masked, code), codegen


def _interleaved(builder: Any, phases: list[Any]) -> list[Any]:
    """Return the vectors of which lane e belongs to phase e modulo their number."""
    m, lanes = len(phases), phases[0].type.count
    result = []
    for v in range(m):
        value = phases[0]
        for phase in range(m):
            pattern = []
            for lane in range(lanes):
                element = v * lanes + lane
                mine = element % m == phase
                pattern.append(I32(lanes + element // m if mine else lane))
            kind = ir.VectorType(I32, lanes)
            value = builder.shuffle_vector(value, phases[phase], ir.Constant(kind, pattern))
        result.append(value)
    return result


@intrinsic(prefer_literal=True)
def _join_line(
    typingctx: Any, source: Any, source_step: Any, target: Any, m: Any, lanes: Any, code: Any
) -> Any:
    """Transform the products of `lanes` tiles back and write their ``m * lanes`` outputs in order.

    The last three arguments are literal.
    """
    shape = literals((m, lanes, code))
    if shape is None:
        return None
    phases, count, storage = shape

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, goal = pointer(builder, args[0], I8), pointer(builder, args[2], I8)
        line = [
            load_vector(builder, builder.gep(base, [builder.mul(args[1], I64(i))]), count, storage)
            for i in range(2 * phases - 1)
        ]
        outputs = apply_matrix(builder, matrices(phases, phases)[OUTPUT], line)
        for v, value in enumerate(_interleaved(builder, outputs)):
            address = builder.gep(goal, [I64(v * count * ITEMSIZE[storage])])
            store_vector(builder, address, value, storage)
        return context.get_dummy_value()

    return types.void(*([types.intp] * 3), m, lanes, code), codegen


# What the kernel calls: the same by address, for a number of vectors.

_CORRELATE_SIGNATURE = jit.void(9)
_SPLIT_SIGNATURE = jit.void(6)
_JOIN_SIGNATURE = jit.void(4)


def correlate_address(rh: int, nv: int, lanes: int, single: int, code: int) -> int:
    """Return the address of a compiled tile; `call_correlate` calls it."""

    def tile(x: int, plane_step: int, planes: int, row_step: int, w: int, kh: int, kw: int, c: int,
             c_pitch: int) -> None:  # fmt: skip
        _correlate(x, plane_step, planes, row_step, w, kh, kw, c, c_pitch, rh, nv, lanes, single,
                   code)  # fmt: skip

    key = ("fir_tile", rh, nv, lanes, single, code)
    return int(jit.compile_callback(tile, _CORRELATE_SIGNATURE, key).address)


def split_address(m: int, lanes: int, code: int) -> int:
    """Return the address of a function that splits `count` vectors of tiles of one row."""
    size = ITEMSIZE[code]
    samples_read = (m + m * lanes) if m > 1 else lanes

    def split(source: int, low: int, high: int, target: int, target_step: int, count: int) -> None:
        for i in range(count):
            start = i * m * lanes
            at, to = source + start * size, target + i * lanes * size
            if low <= start and start + samples_read <= high:
                _split_line(at, 0, 0, to, target_step, m, lanes, 0, code)
            else:
                _split_line(at, low - start, high - start, to, target_step, m, lanes, 1, code)

    key = ("fir_split", m, lanes, code)
    return int(jit.compile_callback(split, _SPLIT_SIGNATURE, key).address)


def join_address(m: int, lanes: int, code: int) -> int:
    """Return the address of a function that joins `count` vectors of tiles of one row."""
    size = ITEMSIZE[code]

    def join(source: int, source_step: int, target: int, count: int) -> None:
        for i in range(count):
            at, to = source + i * lanes * size, target + i * m * lanes * size
            _join_line(at, source_step, to, m, lanes, code)

    key = ("fir_join", m, lanes, code)
    return int(jit.compile_callback(join, _JOIN_SIGNATURE, key).address)


@intrinsic
def call_correlate(
    typingctx: Any, function: Any, x: Any, plane_step: Any, planes: Any, row_step: Any, w: Any,
    kh: Any, kw: Any, c: Any, c_pitch: Any,
) -> Any:  # fmt: skip
    """Call the function at a `correlate_address`."""
    return types.void(types.intp, *_CORRELATE_SIGNATURE.args), call_address


@intrinsic
def call_split(
    typingctx: Any, function: Any, source: Any, low: Any, high: Any, target: Any, target_step: Any,
    count: Any,
) -> Any:  # fmt: skip
    """Call the function at a `split_address`."""
    return types.void(types.intp, *_SPLIT_SIGNATURE.args), call_address


@intrinsic
def call_join(
    typingctx: Any, function: Any, source: Any, source_step: Any, target: Any, count: Any
) -> Any:
    """Call the function at a `join_address`."""
    return types.void(types.intp, *_JOIN_SIGNATURE.args), call_address
