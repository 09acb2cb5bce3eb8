"""Winograd transforms on vectors: one line of a tile at a time, for a vector's worth of tiles.

A transform in several dimensions is one matrix applied along each axis in turn. Each step here
takes a line of vectors (lane = tile), multiplies it by a constant matrix in registers and writes
the line back; the matrices (kernels/cook_toom.py) are written out as multiply-adds. Rows of a
matrix that belong to a pair of opposite points share their work: the even and the odd part are
formed once, and the rows are their sum and difference; columns that do are added and subtracted
first. Each matrix is compiled once, and kernels call it by address: a new kernel size costs tenths
of a second.

Reading tiles from an image row needs no gather: with ``step = stride m`` elements from one tile to
the next, step vectors of contiguous elements are split into their phases by shuffles. Elements of a
tile beyond its first `step` are the first ones of the next tile, read by the same loads `step`
elements on.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...cook_toom import Matrix, matrices
from ..runtime import jit
from ..simd.ir import (
    I8,
    I32,
    I64,
    ITEMSIZE,
    call_address,
    compute_code,
    constant,
    fmuladd,
    lane_mask,
    literal,
    literals,
    load_vector,
    pointer,
    store_vector,
    stream_vector,
)

__all__ = [
    "INPUT",
    "MORE",
    "OUTPUT",
    "PIECE_WORDS",
    "WEIGHT",
    "apply_matrix",
    "apply_to_plane",
    "call_gather",
    "call_lines",
    "gather_address",
    "lines_address",
]

OUTPUT, WEIGHT, INPUT = range(3)


def _weighted_sum(builder: Any, coefficients: list[Fraction], x: list[Any]) -> Any:
    """Return the sum of coefficient times vector, None for an empty sum."""
    total = None
    # Ones first: they start the sum without a multiplication.
    order = sorted(range(len(x)), key=lambda j: abs(coefficients[j]) != 1)
    for j in order:
        factor = coefficients[j]
        if factor == 0:
            continue
        if total is None:
            if factor == 1:
                total = x[j]
            else:
                total = builder.fmul(x[j], constant(x[j].type, float(factor)))
        elif abs(factor) == 1:
            total = (builder.fadd if factor == 1 else builder.fsub)(total, x[j])
        else:
            total = fmuladd(builder, x[j], constant(x[j].type, float(factor)), total)
    return total


def _fold_pairs(builder: Any, matrix: Matrix, x: list[Any]) -> tuple[Matrix, list[Any]]:
    """Add and subtract neighbours whose columns are equal but for signs: the same product, less.

    Columns of A^T that belong to a pair of opposite points are such: half the multiply-adds.
    """
    columns: list[tuple[Fraction, ...]] = []
    folded: list[Any] = []
    j = 0
    while j < len(x):
        column = tuple(row[j] for row in matrix)
        following = tuple(row[j + 1] for row in matrix) if j + 1 < len(x) else ()
        opposite = [abs(a) == abs(b) for a, b in zip(column, following, strict=False)]
        if following and all(opposite) and column != following:
            even = tuple(
                a if a == b else Fraction(0) for a, b in zip(column, following, strict=True)
            )
            columns += [even, tuple(a - e for a, e in zip(column, even, strict=True))]
            folded += [builder.fadd(x[j], x[j + 1]), builder.fsub(x[j], x[j + 1])]
            j += 2
        else:
            columns.append(column)
            folded.append(x[j])
            j += 1
    return tuple(zip(*columns, strict=True)), folded


def apply_matrix(builder: Any, matrix: Matrix, x: list[Any]) -> list[Any]:
    """Multiply a constant matrix by a line of vectors."""
    matrix, x = _fold_pairs(builder, matrix, x)
    result: list[Any] = []
    row = 0
    while row < len(matrix):
        here = matrix[row]
        pair = matrix[row + 1] if row + 1 < len(matrix) else None
        mirrored = pair is not None and all(
            abs(a) == abs(b) for a, b in zip(here, pair, strict=True)
        )
        same = [
            a if mirrored and a == b else Fraction(0)
            for a, b in zip(here, pair or here, strict=True)
        ]
        even = _weighted_sum(builder, same, x) if mirrored else None
        odd = None
        if mirrored:
            rest = [a - s for a, s in zip(here, same, strict=True)]
            odd = _weighted_sum(builder, rest, x)
        if even is None or odd is None:
            result.append(_weighted_sum(builder, list(here), x))
            row += 1
        else:
            result += [builder.fadd(even, odd), builder.fsub(even, odd)]
            row += 2
    return result


def apply_to_plane(
    builder: Any, down: Matrix, across: Matrix, rows: list[list[Any]]
) -> list[list[Any]]:
    """Multiply a constant matrix by every row of a plane of vectors, then one by every column."""
    columns = zip(*(apply_matrix(builder, across, row) for row in rows), strict=True)
    made = [apply_matrix(builder, down, list(column)) for column in columns]
    return [list(row) for row in zip(*made, strict=True)]


@intrinsic(prefer_literal=True)
def transform_line(
    typingctx: Any, source: Any, source_step: Any, target: Any, target_step: Any,
    kind: Any, m: Any, r: Any, stride: Any, samples: Any, lanes: Any, code: Any, streamed: Any,
) -> Any:  # fmt: skip
    """Multiply a line of vectors by the `kind` matrix of F(m, r) with a stride; steps are bytes.

    Source and target may be the same line, unless it is `streamed`: stored past the caches. The
    last eight arguments are literal; see `cook_toom.matrices`.
    """
    which, form = literal(kind), literals((m, r, stride, samples))
    count, storage, past = literal(lanes), literal(code), literal(streamed)
    if which is None or form is None or count is None or storage is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        matrix = matrices(*form)[which]
        base, goal = pointer(builder, args[0], I8), pointer(builder, args[2], I8)
        x = [
            load_vector(builder, builder.gep(base, [builder.mul(args[1], I64(j))]), count, storage)
            for j in range(len(matrix[0]))
        ]
        for i, value in enumerate(apply_matrix(builder, matrix, x)):
            address = builder.gep(goal, [builder.mul(args[3], I64(i))])
            if past:
                stream_vector(builder, address, value)
            else:
                store_vector(builder, address, value, storage)
        return context.get_dummy_value()

    words = [types.intp] * 4
    return types.void(*words, kind, m, r, stride, samples, lanes, code, streamed), codegen


def _shuffle(builder: Any, a: Any, b: Any, pattern: list[int]) -> Any:
    kind = ir.VectorType(I32, len(pattern))
    return builder.shuffle_vector(a, b, ir.Constant(kind, [I32(index) for index in pattern]))


def split_phases(builder: Any, vectors: list[Any]) -> list[Any]:
    """Split m vectors of contiguous elements into m vectors of every m-th element."""
    m, lanes = len(vectors), vectors[0].type.count
    if m == 1:
        return vectors
    if m % 2 == 0:
        halves = []
        for parity in (0, 1):
            pattern = [2 * i + parity for i in range(lanes)]
            picked = [_shuffle(builder, vectors[v], vectors[v + 1], pattern)
                      for v in range(0, m, 2)]  # fmt: skip
            halves.append(split_phases(builder, picked))
        return [halves[phase % 2][phase // 2] for phase in range(m)]
    return [_pick(builder, vectors, [m * i + phase for i in range(lanes)]) for phase in range(m)]


def _pick(builder: Any, vectors: list[Any], wanted: list[int]) -> Any:
    """Return elements `wanted` of several vectors laid end to end, one vector at a time."""
    lanes = vectors[0].type.count
    result = vectors[0]
    for v in range(1, len(vectors)):
        keep = [
            (lanes + e % lanes if e // lanes == v else (lane if v > 1 or e // lanes else e % lanes))
            for lane, e in enumerate(wanted)
        ]
        result = _shuffle(builder, result, vectors[v], keep)
    return result


#: A piece of a vector of samples: byte offset, mask; the last bit says that another follows.
PIECE_WORDS = 2
MORE = 1 << 32


def _load_pieces(builder: Any, table: Any, base: Any, lanes: int, storage: int) -> tuple[Any, Any]:
    """Emit the loads of one vector's pieces; return it and the place behind them."""
    entry, loop = builder.block, builder.append_basic_block("piece")
    end = builder.append_basic_block("pieces")
    builder.branch(loop)
    builder.position_at_end(loop)
    bits = ir.VectorType(ir.IntType(8 * ITEMSIZE[compute_code(storage)]), lanes)
    now, before = builder.phi(table.type), builder.phi(bits)
    word = builder.load(builder.gep(now, [I64(1)]))
    address = builder.gep(base, [builder.load(now)])
    piece = load_vector(builder, address, lanes, storage, lane_mask(builder, word, lanes))
    total = builder.or_(before, builder.bitcast(piece, bits))
    behind = builder.gep(now, [I64(PIECE_WORDS)])
    for phi, first, following in ((now, table, behind), (before, ir.Constant(bits, None), total)):
        phi.add_incoming(first, entry)
        phi.add_incoming(following, loop)
    more = builder.icmp_signed(">=", word, I64(MORE))
    builder.cbranch(more, loop, end)
    builder.position_at_end(end)
    return builder.bitcast(total, piece.type), behind


@intrinsic(prefer_literal=True)
def gather_line(
    typingctx: Any, table: Any, source: Any, target: Any, target_step: Any,
    m: Any, r: Any, stride: Any, rows: Any, step: Any, lanes: Any, storage: Any, code: Any,
) -> Any:  # fmt: skip
    """Read the line of `lanes` tiles, transform it and return the place behind its pieces.

    Tile t's line is the ``n = stride (m - 1) + r`` samples from ``t * step`` on: the first `step`
    come from `step` vectors of contiguous samples, each further `step` from as many again. A vector
    is made of pieces, one for each row of the input that its tiles lie in. With `rows` a tile's
    samples are as many lines, each `m` samples behind the one before, and each is transformed.

    Parameters
    ----------
    table, source : intp
        Pieces in the order of reading, and what their offsets count from.
    target, target_step : intp
        Where the n transformed vectors of each line go.
    m, r, stride, rows, step, lanes, storage, code : literal int
        F(m, r) and its stride, lines and step of a tile, the vector, the input's storage code and
        that of sums.
    """
    form, count, shape = literals((m, r, stride)), literal(lanes), literals((rows, step))
    stored, made = literal(storage), literal(code)
    if form is None or count is None or shape is None or stored is None or made is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        matrix = matrices(*form)[INPUT]
        starts = range(0, shape[0] * form[0], form[0])
        now, base = pointer(builder, args[0], I64), pointer(builder, args[1], I8)
        goal = pointer(builder, args[2], I8)
        line: list[Any] = []
        while len(line) < starts[-1] + len(matrix):
            vectors = []
            for _ in range(shape[1]):
                vector, now = _load_pieces(builder, now, base, count, stored)
                vectors.append(vector)
            line += split_phases(builder, vectors)
        lines = [line[start : start + len(matrix)] for start in starts]
        values = [value for part in lines for value in apply_matrix(builder, matrix, part)]
        for i, value in enumerate(values):
            store_vector(builder, builder.gep(goal, [builder.mul(args[3], I64(i))]), value, made)
        return builder.ptrtoint(now, I64)

    words = [types.intp] * 4
    return types.intp(*words, m, r, stride, rows, step, lanes, storage, code), codegen


# What kernels call: the same by address, for a number of lines.

_GATHER_SIGNATURE = jit.void(6)
_LINES_SIGNATURE = jit.void(7)


def gather_address(
    m: int, r: int, stride: int, lines: int, step: int, lanes: int, storage: int, code: int
) -> int:
    """Return the address of `gather_line` for a number of rows; `call_gather` calls it."""

    def gather(table: int, source: int, rows: int, target: int, target_row: int,
               target_step: int) -> None:  # fmt: skip
        for row in range(rows):
            table = gather_line(table, source, target + row * target_row, target_step, m, r,
                                stride, lines, step, lanes, storage, code)  # fmt: skip

    key = ("winograd_gather", m, r, stride, lines, step, lanes, storage)
    return int(jit.compile_callback(gather, _GATHER_SIGNATURE, key).address)


def lines_address(
    kind: int, m: int, r: int, stride: int, samples: int, lanes: int, code: int, streamed: int = 0
) -> int:
    """Return the address of `transform_line` for a number of lines; `call_lines` calls it."""

    def lines(source: int, source_step: int, target: int, target_step: int, count: int,
              source_next: int, target_next: int) -> None:  # fmt: skip
        for i in range(count):
            transform_line(source + i * source_next, source_step, target + i * target_next,
                           target_step, kind, m, r, stride, samples, lanes, code,
                           streamed)  # fmt: skip

    key = ("winograd_lines", kind, m, r, stride, samples, lanes, code, streamed)
    return int(jit.compile_callback(lines, _LINES_SIGNATURE, key).address)


@intrinsic
def call_gather(
    typingctx: Any, function: Any, table: Any, source: Any, rows: Any, target: Any,
    target_row: Any, target_step: Any,
) -> Any:  # fmt: skip
    """Call the function at a `gather_address`."""
    return types.void(types.intp, *_GATHER_SIGNATURE.args), call_address


@intrinsic
def call_lines(
    typingctx: Any, function: Any, source: Any, source_step: Any, target: Any, target_step: Any,
    count: Any, source_next: Any, target_next: Any,
) -> Any:  # fmt: skip
    """Call the function at a `lines_address`."""
    return types.void(types.intp, *_LINES_SIGNATURE.args), call_address
