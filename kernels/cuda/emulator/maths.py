"""Twins of libdevice, CUDA's library of mathematics, as LLVM IR for the host.

One table a shape of function; `library` writes the definitions of those that a kernel calls. Where
LLVM has an intrinsic that is used, since it may be folded and vectorised; elsewhere the C library.
Functions of the GPU that are rounded otherwise than to nearest have no twin: an error that names
the function is better than a last bit that differs from the GPU's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["library"]

_REAL = {"": ("double", "f64", "i64"), "f": ("float", "f32", "i32")}

# libdevice's name without __nv_ and type: the function of LLVM or of the C library.
_LLVM = {
    "fabs": "fabs", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "sqrt": "sqrt",
    "rint": "rint", "nearbyint": "nearbyint", "round": "round", "exp": "exp", "exp2": "exp2",
    "exp10": "exp10", "log": "log", "log2": "log2", "log10": "log10", "sin": "sin", "cos": "cos",
    "pow": "pow", "fmax": "maxnum", "fmin": "minnum", "copysign": "copysign", "fma": "fma",
}  # fmt: skip
_ARITY = {"pow": 2, "fmax": 2, "fmin": 2, "copysign": 2, "fma": 3}
_LIBM = {
    1: "tan asin acos atan sinh cosh tanh asinh acosh atanh cbrt erf erfc expm1 log1p lgamma "
       "tgamma logb j0 j1 y0 y1",
    2: "atan2 fmod remainder hypot nextafter fdim",
}  # fmt: skip
_FAST = "sin cos tan exp exp10 log log2 log10 pow"

_INTEGERS: dict[str, tuple[str, str]] = {
    # name: (type, body with %a, %b, %c as arguments and %r as the result)
    "abs": ("i32", "%r = call T @llvm.abs.T(T %a, i1 false)"),
    "llabs": ("i64", "%r = call T @llvm.abs.T(T %a, i1 false)"),
    "brev": ("i32", "%r = call T @llvm.bitreverse.T(T %a)"),
    "brevll": ("i64", "%r = call T @llvm.bitreverse.T(T %a)"),
    "sad": ("i32", "%m = call T @llvm.smax.T(T %a, T %b)\n%n = call T @llvm.smin.T(T %a, T %b)\n"
                   "%d = sub T %m, %n\n%r = add T %d, %c"),
    "usad": ("i32", "%m = call T @llvm.umax.T(T %a, T %b)\n%n = call T @llvm.umin.T(T %a, T %b)\n"
                    "%d = sub T %m, %n\n%r = add T %d, %c"),
    "mul24": ("i32", "%p = shl T %a, 8\n%q = ashr T %p, 8\n%s = shl T %b, 8\n%t = ashr T %s, 8\n"
                     "%r = mul T %q, %t"),
    "umul24": ("i32", "%p = and T %a, 16777215\n%q = and T %b, 16777215\n%r = mul T %p, %q"),
    **{f"{prefix}{op}": (type_, f"%r = call T @llvm.{sign}{op}.T(T %a, T %b)")
       for prefix, sign, type_ in (("", "s", "i32"), ("u", "u", "i32"), ("ll", "s", "i64"),
                                   ("ull", "u", "i64")) for op in ("min", "max")},
}  # fmt: skip
_COUNTS = {
    "popc": ("i32", "%x = call T @llvm.ctpop.T(T %a)"),
    "popcll": ("i64", "%x = call T @llvm.ctpop.T(T %a)"),
    "clz": ("i32", "%x = call T @llvm.ctlz.T(T %a, i1 false)"),
    "clzll": ("i64", "%x = call T @llvm.ctlz.T(T %a, i1 false)"),
    "ffs": ("i32", "%z = call T @llvm.cttz.T(T %a, i1 true)\n%y = add T %z, 1\n"
                   "%e = icmp eq T %a, 0\n%x = select i1 %e, T 0, T %y"),
    "ffsll": ("i64", "%z = call T @llvm.cttz.T(T %a, i1 true)\n%y = add T %z, 1\n"
                     "%e = icmp eq T %a, 0\n%x = select i1 %e, T 0, T %y"),
}  # fmt: skip
_HIGH = {
    "mulhi": ("i32", "i64", "sext"), "umulhi": ("i32", "i64", "zext"),
    "mul64hi": ("i64", "i128", "sext"), "umul64hi": ("i64", "i128", "zext"),
}  # fmt: skip
_ROUND = {"rn": "rint", "rz": "trunc", "ru": "ceil", "rd": "floor"}
_WHOLE = {"int": ("i32", "s"), "uint": ("i32", "u"), "ll": ("i64", "s"), "ull": ("i64", "u")}


def library(wanted: set[str]) -> str:
    """Return IR that defines the functions of `wanted` that have a twin, and what those call."""
    bodies = {}
    for result, name, arguments, body in _definitions():
        if name in wanted:
            bodies[name] = f"define {result} @{name}({arguments}) {{\n{body}\n}}"
    text = "\n".join(bodies.values())
    return f"{_declarations(text)}\n{text}\n"


def _declarations(text: str) -> str:
    """Declare every function that the definitions call, with the types of the call."""
    defined = set(re.findall(r"^define [^@]*@([\w.]+)\(", text, re.M))
    declarations = {}
    for result, name, arguments in re.findall(r"call ([\w.]+) @([\w.]+)\(([^)]*)\)", text):
        types = [argument.split()[0] for argument in arguments.split(",")]
        declarations[name] = f"declare {result} @{name}({', '.join(types)})"
    return "\n".join(declarations[name] for name in sorted(declarations.keys() - defined))


_Definition = tuple[str, str, str, str]


def _definitions() -> Iterator[_Definition]:
    """Yield result type, name, arguments and body of every twin."""
    for write in (_of_reals, _composed, _predicates, _of_integers, _conversions, _views):
        yield from write()


def _arguments(type_: str, number: int) -> str:
    return ", ".join(f"{type_} %{letter}" for letter in "abc"[:number])


def _apply(type_: str, function: str, arity: int) -> str:
    arguments = _arguments(type_, arity)
    return f"%r = call {type_} @{function}({arguments})\nret {type_} %r"


def _of_reals() -> Iterator[_Definition]:
    for suffix, (type_, short, _) in _REAL.items():
        for name, intrinsic in _LLVM.items():
            arity = _ARITY.get(name, 1)
            body = _apply(type_, f"llvm.{intrinsic}.{short}", arity)
            yield type_, f"__nv_{name}{suffix}", _arguments(type_, arity), body
        for arity, names in _LIBM.items():
            for name in names.split():
                body = _apply(type_, f"{name}{suffix}", arity)
                yield type_, f"__nv_{name}{suffix}", _arguments(type_, arity), body
        for name in ("ldexp", "scalbn"):
            body = f"%r = call {type_} @{name}{suffix}({type_} %a, i32 %b)\nret {type_} %r"
            yield type_, f"__nv_{name}{suffix}", f"{type_} %a, i32 %b", body
        body = f"%r = call {type_} @llvm.powi.{short}.i32({type_} %a, i32 %b)\nret {type_} %r"
        yield type_, f"__nv_powi{suffix}", f"{type_} %a, i32 %b", body
        body = f"%r = call i32 @ilogb{suffix}({type_} %a)\nret i32 %r"
        yield "i32", f"__nv_ilogb{suffix}", f"{type_} %a", body
        for name in ("frexp", "modf"):
            body = f"%r = call {type_} @{name}{suffix}({type_} %a, ptr %b)\nret {type_} %r"
            yield type_, f"__nv_{name}{suffix}", f"{type_} %a, ptr %b", body
        letter = suffix or "d"
        for name, operation in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("div", "fdiv")):
            body = f"%r = {operation} {type_} %a, %b\nret {type_} %r"
            yield type_, f"__nv_{letter}{name}_rn", _arguments(type_, 2), body
        yield type_, f"__nv_{letter}sqrt_rn", f"{type_} %a", _apply(type_, f"llvm.sqrt.{short}", 1)
        body = f"%r = fdiv {type_} 1.0, %a\nret {type_} %r"
        yield type_, f"__nv_{letter}rcp_rn", f"{type_} %a", body
        yield (
            type_,
            f"__nv_fma{suffix}_rn",
            _arguments(type_, 3),
            _apply(type_, f"llvm.fma.{short}", 3),
        )
    for name in _FAST.split():
        arity = _ARITY.get(name, 1)
        function = f"llvm.{name}.f32"
        yield (
            "float",
            f"__nv_fast_{name}f",
            _arguments("float", arity),
            _apply("float", function, arity),
        )
    body = "%r = fdiv float %a, %b\nret float %r"
    for name in ("__nv_fast_fdividef", "__nv_fdividef"):
        yield "float", name, "float %a, float %b", body


def _composed() -> Iterator[_Definition]:
    """Functions made of two others."""
    pi = {"": "0x400921FB54442D18", "f": "0x400921FB60000000"}
    root_half = {"": "0x3FE6A09E667F3BCD", "f": "0x3FE6A09E60000000"}
    for suffix, (type_, short, _) in _REAL.items():
        for name, inner in (("rsqrt", f"llvm.sqrt.{short}"), ("rcbrt", f"cbrt{suffix}")):
            body = (
                f"%s = call {type_} @{inner}({type_} %a)\n%r = fdiv {type_} 1.0, %s\nret {type_} %r"
            )
            yield type_, f"__nv_{name}{suffix}", f"{type_} %a", body
        for name in ("sin", "cos"):
            # Reduced first, so that whole and half multiples of pi come out as they do on a GPU.
            body = (
                f"%m = call {type_} @fmod{suffix}({type_} %a, {type_} 2.0)\n"
                f"%s = fmul {type_} %m, {pi[suffix]}\n"
                f"%r = call {type_} @llvm.{name}.{short}({type_} %s)\nret {type_} %r"
            )
            yield type_, f"__nv_{name}pi{suffix}", f"{type_} %a", body
        body = (
            f"%n = fneg {type_} %a\n%s = fmul {type_} %n, {root_half[suffix]}\n"
            f"%e = call {type_} @erfc{suffix}({type_} %s)\n"
            f"%r = fmul {type_} %e, 0.5\nret {type_} %r"
        )
        yield type_, f"__nv_normcdf{suffix}", f"{type_} %a", body
    for name, suffix in (("sincos", ""), ("sincos", "f"), ("fast_sincos", "f")):
        type_, short, _ = _REAL[suffix]
        body = (
            f"%s = call {type_} @llvm.sin.{short}({type_} %a)\nstore {type_} %s, ptr %b\n"
            f"%c = call {type_} @llvm.cos.{short}({type_} %a)\nstore {type_} %c, ptr %d\nret void"
        )
        yield "void", f"__nv_{name}{suffix}", f"{type_} %a, ptr %b, ptr %d", body
    body = (
        "%m = call float @llvm.maxnum.f32(float %a, float 0.0)\n"
        "%r = call float @llvm.minnum.f32(float %m, float 1.0)\nret float %r"
    )
    yield "float", "__nv_saturatef", "float %a", body


def _predicates() -> Iterator[_Definition]:
    infinity = "0x7FF0000000000000"
    for suffix, (type_, short, whole) in _REAL.items():
        size = f"%m = call {type_} @llvm.fabs.{short}({type_} %a)\n"
        negative = f"%w = bitcast {type_} %a to {whole}\n%t = icmp slt {whole} %w, 0"
        letter = suffix or "d"
        tests = {
            f"isnan{letter}": f"%t = fcmp uno {type_} %a, %a",
            f"isinf{letter}": f"{size}%t = fcmp oeq {type_} %m, {infinity}",
            "finitef" if suffix else "isfinited": f"{size}%t = fcmp one {type_} %m, {infinity}",
            f"signbit{letter}": negative,
        }
        for name, test in tests.items():
            yield (
                "i32",
                f"__nv_{name}",
                f"{type_} %a",
                f"{test}\n%r = zext i1 %t to i32\nret i32 %r",
            )


def _of_integers() -> Iterator[_Definition]:
    for name, (type_, body) in _INTEGERS.items():
        arity = 1 + ("%b" in body) + ("%c" in body)
        text = re.sub(r"\bT\b", type_, body)
        yield type_, f"__nv_{name}", _arguments(type_, arity), f"{text}\nret {type_} %r"
    for name, (type_, body) in _COUNTS.items():
        # The result is an int also where the argument is a long.
        narrow = "%r = trunc i64 %x to i32" if type_ == "i64" else "%r = add i32 %x, 0"
        text = re.sub(r"\bT\b", type_, body)
        yield "i32", f"__nv_{name}", f"{type_} %a", f"{text}\n{narrow}\nret i32 %r"
    for name, (type_, wide, extend) in _HIGH.items():
        body = (
            f"%p = {extend} {type_} %a to {wide}\n%q = {extend} {type_} %b to {wide}\n"
            f"%m = mul {wide} %p, %q\n%h = lshr {wide} %m, {type_[1:]}\n"
            f"%r = trunc {wide} %h to {type_}\nret {type_} %r"
        )
        yield type_, f"__nv_{name}", _arguments(type_, 2), body
    for prefix, extend in (("", "sext"), ("u", "zext")):
        for name, one in (("hadd", 0), ("rhadd", 1)):
            body = (
                f"%p = {extend} i32 %a to i64\n%q = {extend} i32 %b to i64\n%s = add i64 %p, %q\n"
                f"%t = add i64 %s, {one}\n%h = lshr i64 %t, 1\n%r = trunc i64 %h to i32\nret i32 %r"
            )
            yield "i32", f"__nv_{prefix}{name}", "i32 %a, i32 %b", body


def _conversions() -> Iterator[_Definition]:
    for real, (type_, short, _) in (("float", _REAL["f"]), ("double", _REAL[""])):
        for whole, (integer, sign) in _WHOLE.items():
            for mode, rounding in _ROUND.items():
                body = (
                    f"%s = call {type_} @llvm.{rounding}.{short}({type_} %a)\n"
                    f"%r = call {integer} @llvm.fpto{sign}i.sat.{integer}.{short}({type_} %s)\n"
                    f"ret {integer} %r"
                )
                yield integer, f"__nv_{real}2{whole}_{mode}", f"{type_} %a", body
            body = f"%r = {sign}itofp {integer} %a to {type_}\nret {type_} %r"
            yield type_, f"__nv_{whole}2{real}_rn", f"{integer} %a", body
            if real == "double" and integer == "i32":
                yield type_, f"__nv_{whole}2{real}", f"{integer} %a", body
    for suffix, (type_, short, _) in _REAL.items():
        for name, rounding in (("llrint", "rint"), ("llround", "round")):
            body = (
                f"%s = call {type_} @llvm.{rounding}.{short}({type_} %a)\n"
                f"%r = call i64 @llvm.fptosi.sat.i64.{short}({type_} %s)\nret i64 %r"
            )
            yield "i64", f"__nv_{name}{suffix}", f"{type_} %a", body
    body = "%r = fptrunc double %a to float\nret float %r"
    yield "float", "__nv_double2float_rn", "double %a", body
    body = "%h = bitcast i16 %a to half\n%r = fpext half %h to float\nret float %r"
    yield "float", "__nv_half2float", "i16 %a", body
    body = "%h = fptrunc float %a to half\n%r = bitcast half %h to i16\nret i16 %r"
    yield "i16", "__nv_float2half_rn", "float %a", body


def _views() -> Iterator[_Definition]:
    """The same bits as another type."""
    for source, target, name in (
        ("float", "i32", "float_as_int"), ("i32", "float", "int_as_float"),
        ("float", "i32", "float_as_uint"), ("i32", "float", "uint_as_float"),
        ("double", "i64", "double_as_longlong"), ("i64", "double", "longlong_as_double"),
    ):  # fmt: skip
        body = f"%r = bitcast {source} %a to {target}\nret {target} %r"
        yield target, f"__nv_{name}", f"{source} %a", body
    for name, shift in (("double2loint", 0), ("double2hiint", 32)):
        body = (
            f"%w = bitcast double %a to i64\n%s = lshr i64 %w, {shift}\n"
            "%r = trunc i64 %s to i32\nret i32 %r"
        )
        yield "i32", f"__nv_{name}", "double %a", body
    body = (
        "%h = zext i32 %a to i64\n%s = shl i64 %h, 32\n%l = zext i32 %b to i64\n"
        "%w = or i64 %s, %l\n%r = bitcast i64 %w to double\nret double %r"
    )
    yield "double", "__nv_hiloint2double", "i32 %a, i32 %b", body
