"""LLVM building blocks of the intrinsics: vectors, masks, conversions between element types.

- *Storage* is what lies in memory: float32, float64, float16, bfloat16, unsigned bytes or 16-bit
  integers, named by the codes `F32`, `F64`, `F16`, `BF16`, `U8`, `U16`, `S16`.
- *Compute* is what lies in registers: float64 for float64, else float32. Loads widen, stores round
  to nearest even; to integers they saturate, and NaN becomes 0.
- `HALF_BITS` is a half as it lies, whatever it means, in the low bits of a float32: what is only
  moved keeps every bit.
- Operands of a matrix product lie in panels in compute precision, or as `BF16_PAIR`: words of two
  bfloat16, neighbours along the sum, which one instruction multiplies and adds up in float32
  (AVX512-BF16). Such a word travels as the float32 of the same bits.

Everything here runs while Numba compiles and emits LLVM; what kernels call is in intrinsics.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, register_model

from fastconv.contract.cpu import cpu_info
from fastconv.contract.problem import ConvProblem

F32, F64, F16, BF16, BF16_PAIR, HALF_BITS, U8, U16, S16 = range(9)
_CODES = {
    "float32": F32, "float64": F64, "float16": F16, "bfloat16": BF16,
    "uint8": U8, "uint16": U16, "int16": S16,
}  # fmt: skip
ITEMSIZE = {
    F32: 4, F64: 8, F16: 2, BF16: 2, BF16_PAIR: 4, HALF_BITS: 2, U8: 1, U16: 2, S16: 2,
}  # fmt: skip
#: Least and largest integer of a storage code.
_LIMITS = {U8: (0, 255), U16: (0, (1 << 16) - 1), S16: (-(1 << 15), (1 << 15) - 1)}
#: Added to a float32 below 2**22 in magnitude it leaves the nearest integer in the low bits.
_TO_INTEGER = 1.5 * 2.0**23
#: Elements of one word of a panel.
DEPTH = {F32: 1, F64: 1, BF16_PAIR: 2}

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()


class _BFloatType(ir.Type):
    """LLVM's bfloat, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"


_BFLOAT = _BFloatType()


def storage_code(dtype: str) -> int:
    """Return the storage code of a dtype's name."""
    return _CODES[dtype]


def compute_code(storage: int) -> int:
    """Return the code of what registers hold for a storage code."""
    return F64 if storage == F64 else F32


class Codes(NamedTuple):
    """The codes of a convolution's operands.

    Parameters
    ----------
    x, weight, out : int
        Storage codes of the input, of the weight, of output and residual.
    compute : int
        What registers hold; the bias is brought to it.
    """

    x: int
    weight: int
    out: int
    compute: int


def operand_codes(problem: ConvProblem) -> Codes:
    """Return the codes of a problem's operands."""
    types = (problem.dtype, problem.weight_dtype, problem.result_dtype)
    x, weight, out = (_CODES[dtype] for dtype in types)
    return Codes(x, weight, out, compute_code(x))


def panel_code(storage: int, depth: int) -> int:
    """Return the code of a matrix product's operands, `depth` elements in one word."""
    return BF16_PAIR if depth == 2 else compute_code(storage)


class VectorType(types.Type):
    """Numba type of a vector of `lanes` float32 or float64."""

    def __init__(self, element: types.Float, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(f"Vector({element}, {lanes})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        element = DOUBLE if fe_type.element is types.float64 else FLOAT
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.lanes))


def literal(value: Any) -> int | None:
    """Return the value of a literal integer's type, None for any other type."""
    return value.literal_value if isinstance(value, types.IntegerLiteral) else None


def literals(values: Sequence[Any]) -> tuple[int, ...] | None:
    """Return the values of literal integers' types, None where one is no literal."""
    numbers = tuple(value.literal_value for value in values if literal(value) is not None)
    return numbers if len(numbers) == len(values) else None


def compute_type(storage: int) -> types.Float:
    """Return the Numba type that registers hold for a storage code."""
    return types.float64 if storage == F64 else types.float32


def compute_ir(storage: int) -> ir.Type:
    """Return the LLVM type that registers hold for a storage code."""
    return DOUBLE if storage == F64 else FLOAT


def memory_ir(storage: int) -> ir.Type:
    """Return the LLVM type of one stored element; the halves travel as 16-bit integers."""
    return (FLOAT, DOUBLE, I16, I16, FLOAT, I16, I8, I16, I16)[storage]


def call(builder: Any, name: str, returns: ir.Type, *arguments: Any) -> Any:
    """Call an LLVM intrinsic by its mangled name (llvmlite's own helper rejects vectors)."""
    function_type = ir.FunctionType(returns, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)


def call_address(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Lower an intrinsic that calls machine code: the first argument is its address.

    Of a record among the others every field is an argument.
    """
    words: list[Any] = []
    for kind, value in zip(signature.args[1:], args[1:], strict=True):
        is_record = isinstance(kind, types.BaseTuple)
        words += cgutils.unpack_tuple(builder, value) if is_record else [value]
    function = ir.FunctionType(ir.VoidType(), [word.type for word in words])
    builder.call(pointer(builder, args[0], function), words)
    return context.get_dummy_value()


def mangle(kind: ir.Type) -> str:
    """Return the suffix by which LLVM names an overload: ``v16f32`` for 16 floats."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{mangle(kind.element)}"
    if isinstance(kind, ir.IntType):
        return f"i{kind.width}"
    return "f64" if isinstance(kind, ir.DoubleType) else "f32"


def constant(kind: ir.Type, value: float) -> ir.Constant:
    """Return a scalar constant, or a vector with `value` in every lane."""
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [ir.Constant(kind.element, value)] * kind.count)
    return ir.Constant(kind, value)


def pointer(builder: Any, address: Any, kind: ir.Type) -> Any:
    """Turn an integer address into a pointer."""
    return builder.inttoptr(address, kind.as_pointer())


def broadcast(builder: Any, scalar: Any, lanes: int) -> Any:
    """Return a vector with `scalar` in every lane."""
    kind = ir.VectorType(scalar.type, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), None))


def fmuladd(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c``: one instruction where the CPU has FMA, two where not."""
    return call(builder, f"llvm.fmuladd.{mangle(a.type)}", a.type, a, b, c)


def multiply_add(builder: Any, a: Any, b: Any, c: Any, code: int) -> Any:
    """Return ``a * b + c`` of a panel's elements: one product each, or the two of a pair."""
    if code != BF16_PAIR:
        return fmuladd(builder, a, b, c)
    kind = ir.VectorType(_BFLOAT, 2 * c.type.count)
    name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * c.type.count}"
    return call(builder, name, c.type, c, *(builder.bitcast(value, kind) for value in (a, b)))


def lane_mask(builder: Any, bits: Any, lanes: int) -> Any:
    """Turn the low bits of an integer into one flag a lane."""
    narrow = builder.trunc(bits, ir.IntType(lanes))
    return builder.bitcast(narrow, ir.VectorType(I1, lanes))


def lanes_between(builder: Any, low: Any, high: Any, lanes: int, first: int = 0) -> Any:
    """Return flags for the lanes i with ``low <= first + i < high``.

    The ends are 64-bit positions and may lie any distance away. They are brought to the vector
    before the lanes are compared in 32 bits.
    """

    def in_vector(end: Any) -> Any:
        place = builder.sub(end, I64(first))
        place = builder.select(builder.icmp_signed("<", place, I64(0)), I64(0), place)
        beyond = builder.icmp_signed(">", place, I64(lanes))
        return builder.trunc(builder.select(beyond, I64(lanes), place), I32)

    kind = ir.VectorType(I32, lanes)
    index = ir.Constant(kind, [I32(lane) for lane in range(lanes)])
    floor, ceiling = (broadcast(builder, in_vector(end), lanes) for end in (low, high))
    above = builder.icmp_signed(">=", index, floor)
    return builder.and_(above, builder.icmp_signed("<", index, ceiling))


def first_lanes(builder: Any, count: Any, lanes: int, offset: int = 0) -> Any:
    """Return flags for the lanes i with ``i + offset < count``."""
    return lanes_between(builder, I64(0), count, lanes, offset)


def widen(builder: Any, raw: Any, storage: int) -> Any:
    """Turn loaded elements (scalar or vector) into compute precision."""
    if storage in (F32, F64, BF16_PAIR):
        return raw
    vector = isinstance(raw.type, ir.VectorType)

    def like(kind: ir.Type) -> ir.Type:
        return ir.VectorType(kind, raw.type.count) if vector else kind

    if storage == S16:
        return builder.sitofp(builder.sext(raw, like(I32)), like(FLOAT))
    bits = builder.zext(raw, like(I32))
    if storage in (U8, U16):
        return builder.sitofp(bits, like(FLOAT))
    if storage == HALF_BITS:
        return builder.bitcast(bits, like(FLOAT))
    if storage == BF16:
        shifted = builder.shl(bits, constant(like(I32), 16))
        return builder.bitcast(shifted, like(FLOAT))
    if vector and raw.type.count >= 8:  # a CPU with such vectors has F16C
        return builder.fpext(builder.bitcast(raw, like(ir.HalfType())), like(FLOAT))
    return _widen_half_bits(builder, bits, like)


def _widen_half_bits(builder: Any, bits: Any, like: Any) -> Any:
    """Widen float16 by integer arithmetic, with no denormal float32 on the way."""

    def k(value: int) -> Any:
        return constant(like(I32), value)

    magnitude = builder.and_(bits, k(0x7FFF))
    shifted = builder.shl(magnitude, k(13))
    rebased = builder.add(shifted, k((127 - 15) << 23))
    special = builder.icmp_unsigned(">=", magnitude, k(0x7C00))
    finite = builder.select(special, builder.or_(shifted, k(0x7F800000)), rebased)
    # A subnormal's bits, put behind the leading one of 2**-14, are worth 2**-14 more than it.
    least = constant(like(FLOAT), 2.0**-14)
    raised = builder.bitcast(builder.or_(shifted, k((127 - 14) << 23)), like(FLOAT))
    subnormal = builder.bitcast(builder.fsub(raised, least), like(I32))
    is_subnormal = builder.icmp_unsigned("<", magnitude, k(0x0400))
    wide = builder.select(is_subnormal, subnormal, finite)
    sign = builder.shl(builder.and_(bits, k(0x8000)), k(16))
    return builder.bitcast(builder.or_(wide, sign), like(FLOAT))


def narrow(builder: Any, value: Any, storage: int) -> Any:
    """Round compute precision (scalar or vector) to stored elements, nearest even."""
    if storage in (F32, F64, BF16_PAIR):
        return value
    vector = isinstance(value.type, ir.VectorType)

    def like(kind: ir.Type) -> ir.Type:
        return ir.VectorType(kind, value.type.count) if vector else kind

    if storage in _LIMITS:
        return _round_integer(builder, value, storage, like)
    if storage == F16 and vector and value.type.count >= 8:
        return builder.bitcast(builder.fptrunc(value, like(ir.HalfType())), like(I16))
    if storage == BF16 and vector and cpu_info().bf16_dot:
        return builder.bitcast(builder.fptrunc(value, like(_BFLOAT)), like(I16))
    bits = builder.bitcast(value, like(I32))
    if storage == HALF_BITS:
        return builder.trunc(bits, like(I16))
    wide = (_round_half if storage == F16 else _round_bfloat)(builder, bits, like)
    return builder.trunc(wide, like(I16))


def _round_integer(builder: Any, value: Any, storage: int, like: Any) -> Any:
    """Round float32 to the nearest integer that can be stored; NaN becomes 0.

    The adder rounds: the sum of a value within the limits and a number of 24 bits has whole bits
    only, of which the low ones are the integer's own.
    """
    low, high = (constant(like(FLOAT), float(limit)) for limit in _LIMITS[storage])
    if _LIMITS[storage][0] < 0:  # else the comparison with the lower limit makes 0 of NaN
        is_number = builder.fcmp_ordered("ord", value, value)
        value = builder.select(is_number, value, constant(like(FLOAT), 0.0))
    value = builder.select(builder.fcmp_ordered(">", value, low), value, low)
    value = builder.select(builder.fcmp_ordered("<", value, high), value, high)
    summed = builder.fadd(value, constant(like(FLOAT), _TO_INTEGER))
    return builder.trunc(builder.bitcast(summed, like(I32)), like(memory_ir(storage)))


def _round_bfloat(builder: Any, bits: Any, like: Any) -> Any:
    def k(value: int) -> Any:
        return constant(like(I32), value)

    high = builder.lshr(bits, k(16))
    odd = builder.and_(high, k(1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, k(0x7FFF))), k(16))
    is_nan = builder.icmp_unsigned(">", builder.and_(bits, k(0x7FFFFFFF)), k(0x7F800000))
    return builder.select(is_nan, builder.or_(high, k(0x40)), rounded)


def _round_half(builder: Any, bits: Any, like: Any) -> Any:
    """Round to float16 by integer arithmetic; the three ranges are subnormal, normal, overflow."""

    def k(value: int) -> Any:
        return constant(like(I32), value)

    sign = builder.lshr(builder.and_(bits, k(0x80000000)), k(16))
    magnitude = builder.and_(bits, k(0x7FFFFFFF))
    # Adding 0.5 moves a subnormal half's bits to the end of the mantissa, rounded by the adder.
    magic = k(0x3F000000)
    summed = builder.fadd(
        builder.bitcast(magnitude, like(FLOAT)), builder.bitcast(magic, like(FLOAT))
    )
    subnormal = builder.sub(builder.bitcast(summed, like(I32)), magic)
    odd = builder.and_(builder.lshr(magnitude, k(13)), k(1))
    rebased = builder.add(magnitude, builder.add(odd, k(((15 - 127) << 23) + 0xFFF)))
    normal = builder.lshr(rebased, k(13))
    finite = builder.select(builder.icmp_unsigned("<", magnitude, k(0x38800000)), subnormal, normal)
    is_nan = builder.icmp_unsigned(">", magnitude, k(0x7F800000))
    special = builder.select(is_nan, k(0x7E00), k(0x7C00))
    overflow = builder.icmp_unsigned(">=", magnitude, k(0x477FF000))
    return builder.or_(sign, builder.select(overflow, special, finite))


def load_vector(builder: Any, ptr: Any, lanes: int, storage: int, mask: Any = None) -> Any:
    """Load (under a mask: zero elsewhere, and those bytes are not touched) and widen."""
    kind = ir.VectorType(memory_ir(storage), lanes)
    typed = builder.bitcast(ptr, kind.as_pointer())
    align = ITEMSIZE[storage]
    if mask is None:
        return widen(builder, builder.load(typed, align=align), storage)
    name = f"llvm.masked.load.{mangle(kind)}.p0"
    zero = ir.Constant(kind, None)
    return widen(builder, call(builder, name, kind, typed, I32(align), mask, zero), storage)


def store_vector(builder: Any, ptr: Any, value: Any, storage: int, mask: Any = None) -> None:
    """Round and store (under a mask: other bytes are not touched)."""
    raw = narrow(builder, value, storage)
    typed = builder.bitcast(ptr, raw.type.as_pointer())
    align = ITEMSIZE[storage]
    if mask is None:
        builder.store(raw, typed, align=align)
        return
    name = f"llvm.masked.store.{mangle(raw.type)}.p0"
    call(builder, name, ir.VoidType(), raw, typed, I32(align), mask)


def stream_vector(builder: Any, ptr: Any, value: Any) -> None:
    """Store past the caches, at a multiple of the vector's size; see `runtime.atomics.fence`."""
    size = value.type.count * (8 if value.type.element == DOUBLE else 4)
    instruction = builder.store(value, builder.bitcast(ptr, value.type.as_pointer()), align=size)
    instruction.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))


def prefetch(builder: Any, ptr: Any, write: bool = False) -> None:
    """Ask for a cache line, to be read or to be written."""
    arguments = (I32(int(write)), I32(3), I32(1))
    call(builder, "llvm.prefetch.p0", ir.VoidType(), builder.bitcast(ptr, I8.as_pointer()),
         *arguments)  # fmt: skip


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the columns of a square block of vectors.

    Interleaving vectors i and i + n / 2 for all i, log2(n) times, is a transposition: each pass
    moves one bit of the row number behind the bits of the lane number.
    """
    count = len(rows)
    kind = ir.VectorType(I32, count)
    half = count // 2
    low = ir.Constant(kind, [I32(i // 2 + i % 2 * count) for i in range(count)])
    high = ir.Constant(kind, [I32(half + i // 2 + i % 2 * count) for i in range(count)])
    for _ in range(count.bit_length() - 1):
        pairs = [(rows[i], rows[i + half]) for i in range(half)]
        rows = [builder.shuffle_vector(a, b, which) for a, b in pairs for which in (low, high)]
    return rows


def clamp_low(builder: Any, value: Any, low: Any) -> Any:
    """Return the larger; a NaN in `value` stays NaN."""
    return builder.select(builder.fcmp_ordered("<", value, low), low, value)


def clamp_high(builder: Any, value: Any, high: Any) -> Any:
    """Return the smaller; a NaN in `value` stays NaN."""
    return builder.select(builder.fcmp_ordered(">", value, high), high, value)
