"""Twins of CUDA's C++ functions on float16 and bfloat16, which Numba calls by their mangled names.

Numba-CUDA compiles a shim in C++ for each of them, that takes and returns everything by address:
``int _ZplRK6__halfS1__nbst(__half &result, __half *a, __half *b)`` is ``a + b``. Here they are LLVM
IR on ``half`` and ``bfloat``, which the host rounds after every operation as the GPU does.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["CONVERSIONS", "half_library"]

# Mangled class, its name inside function names, LLVM's type and suffix of intrinsics.
_TYPES = (("6__half", "half", "half", "f16"), ("13__nv_bfloat16", "bfloat16", "bfloat", "bf16"))
_OPERATORS = {"pl": "fadd", "mi": "fsub", "ml": "fmul", "dv": "fdiv"}
_IN_PLACE = {"pL": "fadd", "mI": "fsub", "mL": "fmul", "dV": "fdiv"}
_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_NUMBERS = {
    "f": ("float", "real"), "d": ("double", "real"), "a": ("i8", "s"), "c": ("i8", "s"),
    "h": ("i8", "u"), "s": ("i16", "s"), "t": ("i16", "u"), "i": ("i32", "s"), "j": ("i32", "u"),
    "l": ("i64", "s"), "m": ("i64", "u"), "x": ("i64", "s"), "y": ("i64", "u"),
}  # fmt: skip
_WORDS = {"float": "f", "double": "d", "short": "s", "ushort": "t", "int": "i", "uint": "j",
          "ll": "x", "ull": "y"}  # fmt: skip
_UNARY = {"hsqrt": "sqrt", "hexp": "exp", "hexp2": "exp2", "hexp10": "exp10", "hlog": "log",
          "hlog2": "log2", "hlog10": "log10", "hsin": "sin", "hcos": "cos", "htanh": "tanh",
          "hceil": "ceil", "hfloor": "floor", "htrunc": "trunc", "hrint": "rint",
          "__habs": "fabs"}  # fmt: skip
_FREE = {"__hadd": "fadd", "__hsub": "fsub", "__hmul": "fmul", "__hdiv": "fdiv",
         "__hadd_rn": "fadd", "__hsub_rn": "fsub", "__hmul_rn": "fmul"}  # fmt: skip


def half_library(wanted: set[str]) -> str:
    """Return IR that defines the functions of `wanted` that have a twin here."""
    definitions = {
        name: f"define i32 @{name}({arguments}) {{\n{body}\nret i32 0\n}}"
        for name, arguments, body in _definitions()
        if name in wanted
    }
    text = "\n".join(definitions.values())
    used = [line for line in _INTRINSICS if line.split("@")[1].split("(")[0] + "(" in text]
    return "\n".join([*used, text, ""])


_INTRINSICS = [
    f"declare {type_} @llvm.{name}.{short}({', '.join([type_] * arity)})"
    for _, _, type_, short in _TYPES
    for name, arity in (
        *((name, 1) for name in sorted(set(_UNARY.values()))),
        ("fma", 3),
        ("maxnum", 2),
        ("minnum", 2),
    )
]

# What LLVM calls where the processor has no instruction for a conversion. A double is first rounded
# to odd: cut off, and the last bit set if something was lost; the second rounding is then right.
CONVERSIONS = """
define internal float @fc.round_to_odd(double %d) alwaysinline {
  %f = fptrunc double %d to float
  %b = fpext float %f to double
  %exact = fcmp ueq double %b, %d
  %mb = call double @llvm.fabs.f64(double %b)
  %md = call double @llvm.fabs.f64(double %d)
  %up = fcmp ogt double %mb, %md
  %i = bitcast float %f to i32
  %less = sext i1 %up to i32
  %cut = add i32 %i, %less
  %odd = or i32 %cut, 1
  %bits = select i1 %exact, i32 %i, i32 %odd
  %r = bitcast i32 %bits to float
  ret float %r
}
define half @__truncdfhf2(double %d) {
  %f = call float @fc.round_to_odd(double %d)
  %r = fptrunc float %f to half
  ret half %r
}
define bfloat @__truncdfbf2(double %d) {
  %f = call float @fc.round_to_odd(double %d)
  %r = call bfloat @__truncsfbf2(float %f)
  ret bfloat %r
}
define bfloat @__truncsfbf2(float %f) {
  %i = bitcast float %f to i32
  %high = lshr i32 %i, 16
  %last = and i32 %high, 1
  %bias = add i32 %last, 32767
  %sum = add i32 %i, %bias
  %rounded = lshr i32 %sum, 16
  %quiet = or i32 %high, 64
  %nan = fcmp uno float %f, %f
  %bits = select i1 %nan, i32 %quiet, i32 %rounded
  %short = trunc i32 %bits to i16
  %r = bitcast i16 %short to bfloat
  ret bfloat %r
}
"""


def _mangled(name: str, parameters: str) -> str:
    return f"_ZL{len(name)}{name}{parameters}_nbst"


def _definitions() -> Iterator[tuple[str, str, str]]:
    for mangled, word, type_, short in _TYPES:
        yield from _arithmetic(mangled, type_)
        yield from _functions(mangled, type_, short)
        yield from _constructions(mangled, word, type_)
        yield from _conversions(mangled, word, type_, short)


_STORE_BOOL = "%b = zext i1 %t to i8\nstore i8 %b, ptr %r"
_TWO = "ptr %r, ptr %p, ptr %q"


def _load(type_: str, operands: str = "pq") -> str:
    return "".join(f"%{x}v = load {type_}, ptr %{x}, align 2\n" for x in operands)


def _arithmetic(mangled: str, type_: str) -> Iterator[tuple[str, str, str]]:
    both = _load(type_)
    compute = f"{both}%v = {{}} {type_} %pv, %qv\nstore {type_} %v, ptr %r, align 2"
    for name, operation in _OPERATORS.items():
        yield f"_Z{name}RK{mangled}S1__nbst", _TWO, compute.format(operation)
    for name, operation in _FREE.items():
        yield _mangled(name, f"{mangled}S_"), _TWO, compute.format(operation)
    for name, operation in _IN_PLACE.items():
        body = compute.format(operation) + f"\nstore {type_} %v, ptr %p, align 2"
        yield f"_Z{name}R{mangled}RKS__nbst", _TWO, body
    for name, condition in _COMPARE.items():
        body = f"{both}%t = fcmp {condition} {type_} %pv, %qv\n{_STORE_BOOL}"
        yield f"_Z{name}RK{mangled}S1__nbst", _TWO, body
        yield _mangled(f"__h{name}", f"{mangled}S_"), _TWO, body
    body = f"{_load(type_, 'p')}%v = fneg {type_} %pv\nstore {type_} %v, ptr %r, align 2"
    yield f"_ZngRK{mangled}_nbst", "ptr %r, ptr %p", body
    yield _mangled("__hneg", mangled), "ptr %r, ptr %p", body
    body = f"{_load(type_, 'p')}store {type_} %pv, ptr %r, align 2"
    yield f"_ZpsRK{mangled}_nbst", "ptr %r, ptr %p", body


def _functions(mangled: str, type_: str, short: str) -> Iterator[tuple[str, str, str]]:
    store = f"store {type_} %v, ptr %r, align 2"
    for name, intrinsic in _UNARY.items():
        call = f"%v = call {type_} @llvm.{intrinsic}.{short}({type_} %pv)\n"
        yield _mangled(name, mangled), "ptr %r, ptr %p", _load(type_, "p") + call + store
    for name, intrinsic in (("__hmax", "maxnum"), ("__hmin", "minnum")):
        call = f"%v = call {type_} @llvm.{intrinsic}.{short}({type_} %pv, {type_} %qv)\n"
        yield _mangled(name, f"{mangled}S_"), _TWO, _load(type_) + call + store
    call = f"%v = call {type_} @llvm.fma.{short}({type_} %pv, {type_} %qv, {type_} %sv)\n"
    body = _load(type_, "pqs") + call + store
    yield _mangled("__hfma", f"{mangled}S_S_"), f"{_TWO}, ptr %s", body
    one = f"%v = fdiv {type_} 1.0, %pv\n"
    yield _mangled("hrcp", mangled), "ptr %r, ptr %p", _load(type_, "p") + one + store
    body = f"{_load(type_, 'p')}%t = fcmp uno {type_} %pv, %pv\n{_STORE_BOOL}"
    yield _mangled("__hisnan", mangled), "ptr %r, ptr %p", body


def _from_number(code: str, type_: str, target: str) -> str:
    number, kind = _NUMBERS[code]
    how = "fptrunc" if kind == "real" else f"{kind}itofp"
    return (
        f"%n = load {number}, ptr %p\n%v = {how} {number} %n to {type_}\n"
        f"store {type_} %v, ptr {target}, align 2"
    )


def _constructions(mangled: str, word: str, type_: str) -> Iterator[tuple[str, str, str]]:
    for code in _NUMBERS:
        yield (
            f"_ZN{mangled}C1E{code}_nbst",
            "ptr %i, ptr %r, ptr %p",
            _from_number(code, type_, "%r"),
        )
    for name, code in _WORDS.items():
        for mode in ("", "_rn"):
            yield (
                _mangled(f"__{name}2{word}{mode}", code),
                "ptr %r, ptr %p",
                _from_number(code, type_, "%r"),
            )


def _conversions(mangled: str, word: str, type_: str, short: str) -> Iterator[tuple[str, str, str]]:
    value = _load(type_, "p")
    widen = f"{value}%v = fpext {type_} %pv to float\nstore float %v, ptr %r"
    class_name = mangled.lstrip("0123456789")
    yield _mangled(f"__{word}2float", mangled), "ptr %r, ptr %p", widen
    yield f"__{class_name}__ZNK{mangled}cvfEv_1", "ptr %r, ptr %p", widen
    for code, (number, kind) in _NUMBERS.items():
        if kind == "real":
            continue
        plain = f"{value}%v = fpto{kind}i {type_} %pv to {number}\nstore {number} %v, ptr %r"
        yield f"__{class_name}__ZNK{mangled}cv{code}Ev_1", "ptr %r, ptr %p", plain
    for name, code in _WORDS.items():
        number, kind = _NUMBERS[code]
        if kind == "real":
            continue
        for mode, rounding in (("rz", "trunc"), ("rn", "rint")):
            body = (
                f"{value}%w = call {type_} @llvm.{rounding}.{short}({type_} %pv)\n"
                f"%v = fpto{kind}i {type_} %w to {number}\nstore {number} %v, ptr %r"
            )
            yield _mangled(f"__{word}2{name}_{mode}", mangled), "ptr %r, ptr %p", body
    for name in ("short", "ushort"):
        body = "%v = load i16, ptr %p, align 2\nstore i16 %v, ptr %r, align 2"
        yield _mangled(f"__{word}_as_{name}", mangled), "ptr %r, ptr %p", body
        yield _mangled(f"__{name}_as_{word}", "st"[name == "ushort"]), "ptr %r, ptr %p", body
