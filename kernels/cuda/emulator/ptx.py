"""Inline PTX as instructions of the host: a table of patterns.

An entry is a function that writes a template of LLVM IR (see `lower`) from the match and the types
of the operands, or the opcode of an operation in which threads meet.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from . import context
from .context import OFFSETS
from .text import size_of

__all__ = ["FENCE", "meeting", "register", "template"]

FENCE = "fence seq_cst"


def register(name: str) -> str:
    """Template that reads a special register."""
    return (
        f"%fc.{{n}}.p = getelementptr i8, ptr {{c}}, i64 {OFFSETS[name]}\n"
        "{r} = load i32, ptr %fc.{n}.p, align 4, !invariant.load !0"
    )


_LANE_MASKS = {
    "eq": "{r} = shl i32 1, %fc.{n}.l",
    "lt": "%fc.{n}.e = shl i32 1, %fc.{n}.l\n{r} = sub i32 %fc.{n}.e, 1",
    "le": "%fc.{n}.e = shl i32 2, %fc.{n}.l\n{r} = sub i32 %fc.{n}.e, 1",
    "gt": "{r} = shl i32 -2, %fc.{n}.l",
    "ge": "{r} = shl i32 -1, %fc.{n}.l",
}
_LANE = register("laneid").replace("{r}", "%fc.{n}.l")

# A 32-bit address of shared memory is the low half of a 64-bit one; the upper half is that of the
# buffer, from which it lies less than 2 GiB away.
_FROM_SHARED = f"""%fc.{{n}}.bp = getelementptr i8, ptr {{c}}, i64 {OFFSETS["shared"]}
%fc.{{n}}.b = load ptr, ptr %fc.{{n}}.bp, align 8, !invariant.load !0
%fc.{{n}}.bi = ptrtoint ptr %fc.{{n}}.b to i64
%fc.{{n}}.bl = trunc i64 %fc.{{n}}.bi to i32
%fc.{{n}}.d = sub i32 {{0}}, %fc.{{n}}.bl
%fc.{{n}}.w = sext i32 %fc.{{n}}.d to i64
%fc.{{n}}.0 = getelementptr i8, ptr %fc.{{n}}.b, i64 %fc.{{n}}.w
"""


def _pointer(argument: int, type_: str) -> tuple[str, str]:
    """Lines that make a pointer of an address operand, and its name."""
    if type_ == "ptr":
        return "", f"{{{argument}}}"
    if type_ == "i64":
        return (
            f"%fc.{{n}}.{argument} = inttoptr i64 {{{argument}}} to ptr\n",
            f"%fc.{{n}}.{argument}",
        )
    return _FROM_SHARED.replace("{0}", f"{{{argument}}}").replace("n}.0", f"n}}.{argument}"), (
        f"%fc.{{n}}.{argument}"
    )


def _copy(size: int, types: list[str]) -> str:
    """``cp.async``: at once; the checks know that it is in flight until it is waited for."""
    type_ = {4: "i32", 8: "<2 x i32>", 16: "<4 x i32>"}[size]
    (make_target, target), (make_source, source) = (_pointer(i, types[i]) for i in range(2))
    return (
        f"{make_target}{make_source}%fc.{{n}}.v = load {type_}, ptr {source}, align {size}\n"
        f"store {type_} %fc.{{n}}.v, ptr {target}, align {size}, !fc.async !0"
    )


_FLOATS = {"tanh": "tanh", "ex2": "llvm.exp2", "lg2": "llvm.log2", "sin": "llvm.sin",
           "cos": "llvm.cos", "sqrt": "llvm.sqrt"}  # fmt: skip


def _approximate(name: str) -> str:
    function = _FLOATS[name]
    suffix = ".f32" if function.startswith("llvm.") else "f"
    return f"{{r}} = call float @{function}{suffix}(float {{0}})"


_TYPES = {"f32": "float", "f64": "double", "b32": "i32", "u32": "i32", "s32": "i32", "b64": "i64",
          "u64": "i64", "s64": "i64", "b16": "i16", "u16": "i16", "s16": "i16", "b8": "i8",
          "u8": "i8", "s8": "i8"}  # fmt: skip


_ACCESS = re.compile(
    r"(ld|st)(?:\.volatile)?(?:\.(?:global|shared))?(?:\.[a-z]\w*(?:::\w+)*)*?"
    r"(?:\.v(?P<lanes>[24]))?\.(?P<type>[bfsu]\d+) "
    r"(?:\{?[$\d, ]+\}?, \[\$\d\]|\[\$0\], \{?[$\d, ]+\}?);"
)


def _access(text: str, types: list[str]) -> str | None:
    """``ld`` and ``st``: of one number or a vector, with any cache hint."""
    match = _ACCESS.fullmatch(text)
    if not match or match["type"] not in _TYPES:
        return None
    type_, lanes = _TYPES[match["type"]], int(match["lanes"] or 1)
    size = int(match["type"][1:]) // 8 * lanes
    make, address = _pointer(0, types[0])
    if lanes == 1:
        if match[1] == "ld":
            return f"{make}{{r}} = load {type_}, ptr {address}, align {size}"
        return f"{make}store {type_} {{1}}, ptr {address}, align {size}"
    vector = f"<{lanes} x {type_}>"
    struct = f"{{{{ {', '.join([type_] * lanes)} }}}}"
    if match[1] == "ld":
        lines = [f"{make}%fc.{{n}}.v = load {vector}, ptr {address}, align {size}"]
        name = "poison"
        for i in range(lanes):
            new = "{r}" if i == lanes - 1 else f"%fc.{{n}}.s{i}"
            lines += [
                f"%fc.{{n}}.e{i} = extractelement {vector} %fc.{{n}}.v, i32 {i}",
                f"{new} = insertvalue {struct} {name}, {type_} %fc.{{n}}.e{i}, {i}",
            ]
            name = new
        return "\n".join(lines)
    lines, name = [], "poison"
    for i in range(lanes):
        lines.append(
            f"%fc.{{n}}.e{i} = insertelement {vector} {name}, {type_} {{{i + 1}}}, i32 {i}"
        )
        name = f"%fc.{{n}}.e{i}"
    return "\n".join([*lines, f"{make}store {vector} {name}, ptr {address}, align {size}"])


def _convert(mode: str | None, target: str, source: str) -> str:
    """``cvt`` between numbers; float16 travels as the 16 bits of a register."""
    value, type_ = "{0}", _TYPES.get(source, "i16")
    lines = []
    if source == "f16":
        lines += [
            "%fc.{n}.h = bitcast i16 {0} to half",
            "%fc.{n}.f = fpext half %fc.{n}.h to float",
        ]
        value, type_ = "%fc.{n}.f", "float"
    if target[0] == "f":
        wanted = "half" if target == "f16" else _TYPES[target]
        narrower = size_of(wanted) < size_of(type_)
        how = f"{source[0]}itofp" if source[0] != "f" else "fptrunc" if narrower else "fpext"
        how = "bitcast" if wanted == type_ else how
        name = "%fc.{n}.t" if target == "f16" else "{r}"
        lines.append(f"{name} = {how} {type_} {value} to {wanted}")
        if target == "f16":
            lines.append("{r} = bitcast half %fc.{n}.t to i16")
    else:
        short = "f64" if type_ == "double" else "f32"
        rounding = "trunc" if mode in ("rz", "rzi") else "rint"
        lines.append(f"%fc.{{n}}.w = call {type_} @llvm.{rounding}.{short}({type_} {value})")
        lines.append(f"{{r}} = fpto{target[0]}i {type_} %fc.{{n}}.w to {_TYPES[target]}")
    return "\n".join(lines)


_Writer = Callable[[re.Match[str], list[str]], "str | None"]

#: Blanks made one; a function of the match and the operands' types writes the template.
_INSTRUCTIONS: list[tuple[str, _Writer]] = [
    (r"mov\.u32 \$0, %dynamic_smem_size;", lambda m, _: register("dynamic_smem_size")),
    (r"mov\.u32 \$0, %(laneid|warpid|nwarpid|n?(?:cta|t)id\.[xyz]|nctaid\.[xyz]);",
     lambda m, _: register(m.group(1))),
    (r"mov\.u32 \$0, %lanemask_(eq|lt|le|gt|ge);",
     lambda m, _: f"{_LANE}\n{_LANE_MASKS[m.group(1)]}"),
    (r"(?:membar\.(?:cta|gl|sys)|fence\.[\w.]+);", lambda m, _: FENCE),
    (r"cp\.async\.(?:ca|cg)\.shared\.global(?:\.L2::\w+)? \[\$0\], \[\$1\], (4|8|16);",
     lambda m, types: _copy(int(m.group(1)), types)),
    (r"cp\.async\.commit_group;", lambda m, _: "; fc.async commit"),
    (r"cp\.async\.wait_all;", lambda m, _: "; fc.async all"),
    (r"cp\.async\.wait_group (?:(\d+)|\$0);", lambda m, _: f"; fc.async {m.group(1) or '{0}'}"),
    (r"(?:nanosleep\.u32 \$0|prefetch\.[\w.:]+ \[\$0\]);", lambda m, _: ""),
    (r"(tanh|ex2|lg2|sin|cos|sqrt)\.approx(?:\.ftz)?\.f32 \$0, \$1;",
     lambda m, _: _approximate(m.group(1))),
    (r"rcp\.approx(?:\.ftz)?\.f32 \$0, \$1;", lambda m, _: "{r} = fdiv float 1.0, {0}"),
    (r"cvt\.rna\.tf32\.f32 \$0, \$1;", lambda m, _: (
        "%fc.{n}.i = bitcast {t0} {0} to i32\n%fc.{n}.h = add i32 %fc.{n}.i, 4096\n"
        "{r} = and i32 %fc.{n}.h, -8192")),
    (r"cvt(?:\.(rn|rni|rzi|rz))?(?:\.sat)?\.([fsu]\d+)\.([fsu]\d+) \$0, \$1;",
     lambda m, _: _convert(*m.groups())),
    (r"((?:ld|st)[\w.:]* .*;)", lambda m, types: _access(m.group(1), types)),
]  # fmt: skip
_MMA = r"mma\.sync\.aligned\.{}\.row\.col\.f32\.{}\.{}\.f32 .*;"
_MEETINGS: list[tuple[str, int, int | None]] = [
    (r"activemask\.b32 \$0;", context.ACTIVE_MASK, None),
    (r"(?:bar|barrier)(?:\.cta)?\.sync(?:\.aligned)? 0;", context.BARRIER, None),
    (r"bar\.warp\.sync \$0;", context.SYNC_WARP, 0),
    (_MMA.format("m16n8k8", "tf32", "tf32"), context.MMA_TF32, None),
    (_MMA.format("m16n8k8", "f16", "f16"), context.MMA_F16_K8, None),
    (_MMA.format("m16n8k16", "f16", "f16"), context.MMA_F16_K16, None),
    (_MMA.format("m16n8k16", "bf16", "bf16"), context.MMA_BF16_K16, None),
    *((rf"redux\.sync\.{name} \$0, \$1, \$2;", opcode, 1) for name, opcode in (
        ("add.[su]32", context.REDUX_ADD), ("min.s32", context.REDUX_MIN),
        ("max.s32", context.REDUX_MAX), ("min.u32", context.REDUX_UMIN),
        ("max.u32", context.REDUX_UMAX), ("and.b32", context.REDUX_AND),
        ("or.b32", context.REDUX_OR), ("xor.b32", context.REDUX_XOR))),
]  # fmt: skip


def meeting(text: str) -> tuple[int, int | None] | None:
    """Opcode of an operation in which threads meet, and which operand is the mask of lanes."""
    for pattern, opcode, mask in _MEETINGS:
        if re.fullmatch(pattern, text):
            return opcode, mask
    return None


def template(text: str, types: list[str]) -> str | None:
    """Template of an instruction that a thread carries out alone."""
    for pattern, write in _INSTRUCTIONS:
        match = re.fullmatch(pattern, text)
        if match:
            return write(match, types)
    return None
