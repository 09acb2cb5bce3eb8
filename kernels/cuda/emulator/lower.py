"""Instructions of the GPU as instructions of the host: one table by name, one for inline PTX.

An entry is a template of LLVM IR lines, or the opcode of an operation in which threads meet: that
becomes a `Suspend`, which `coroutine` turns into code. In a template ``{r}`` is the result, ``{0}``
the first argument, ``{n}`` a number of this call, ``{c}`` the thread's context.
What has no entry raises an error that names it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from . import context
from .context import OFFSETS
from .errors import UnsupportedInstructionError
from .ir import Module
from .text import size_of, split_commas

__all__ = ["CONTEXT", "Suspend", "lower"]

CONTEXT = "%fc.ctx"


@dataclass
class Suspend:
    """A place where a thread waits for others."""

    opcode: int
    result: str  # name, empty for none
    type: str  # of the result
    operands: list[tuple[str, str]]  # type and value
    location: str  # ", !dbg !7" or empty
    mask: str = "-1"
    site: int = field(default=-1)

    @property
    def reason(self) -> int:
        """Whether the block or the warp meets here."""
        return context.AT_BARRIER if self.opcode <= context.BARRIER_OR else context.AT_WARP


def _register(name: str) -> str:
    return (
        f"%fc.{{n}}.p = getelementptr i8, ptr {{c}}, i64 {OFFSETS[name]}\n"
        "{r} = load i32, ptr %fc.{n}.p, align 4, !invariant.load !0"
    )


_NOTHING = ""
_FENCE = "fence seq_cst"
_STRUCT = "{ i32, i1 }"

#: After ``fc.nvvm.``.
_REGISTERS = {
    name: _register(name)
    for name in OFFSETS
    if "." in name or name in ("laneid", "warpid", "nwarpid")
}
_CALLS: dict[str, str] = {
    **{f"read.ptx.sreg.{name}": text for name, text in _REGISTERS.items()},
    "read.ptx.sreg.warpsize": "{r} = add i32 32, 0",
    "membar.cta": _FENCE,
    "membar.gl": _FENCE,
    "membar.sys": _FENCE,
    "atomic.load.add.f32.p0f32": "{r} = atomicrmw fadd ptr {0}, float {1} monotonic, align 4",
    "atomic.load.add.f64.p0f64": "{r} = atomicrmw fadd ptr {0}, double {1} monotonic, align 8",
    "atomic.load.inc.32.p0i32": "{r} = atomicrmw uinc_wrap ptr {0}, i32 {1} monotonic, align 4",
    "atomic.load.dec.32.p0i32": "{r} = atomicrmw udec_wrap ptr {0}, i32 {1} monotonic, align 4",
}

#: Atomics that Numba defines by loops of compare-and-swap: the host has the operation itself.
_NUMBA_ATOMICS = {
    f"___numba_atomic_{type_}_{name}": (
        f"{{r}} = atomicrmw {op} ptr {{0}}, {type_} {{1}} monotonic, align {size}"
    )
    for type_, size in (("float", 4), ("double", 8))
    for name, op in (
        ("add", "fadd"), ("sub", "fsub"), ("max", "fmax"), ("min", "fmin"),
        ("nanmax", "fmax"), ("nanmin", "fmin"),
    )
} | {
    f"___numba_atomic_u64_{name}": f"{{r}} = atomicrmw {op} ptr {{0}}, i64 {{1}} monotonic, align 8"
    for name, op in (("inc", "uinc_wrap"), ("dec", "udec_wrap"))
}  # fmt: skip

#: name: opcode, type of the result, which argument is the mask of lanes.
_MEETINGS: dict[str, tuple[int, str, int | None]] = {
    "barrier0": (context.BARRIER, "void", None),
    "barrier0.popc": (context.BARRIER_COUNT, "i32", None),
    "barrier0.and": (context.BARRIER_AND, "i32", None),
    "barrier0.or": (context.BARRIER_OR, "i32", None),
    "bar.warp.sync": (context.SYNC_WARP, "void", 0),
    "shfl.sync.i32": (context.SHUFFLE, _STRUCT, 0),
    "vote.sync": (context.VOTE, _STRUCT, 0),
    "match.any.sync.i32": (context.MATCH_ANY_32, "i32", 0),
    "match.any.sync.i64": (context.MATCH_ANY_64, "i32", 0),
    "match.all.sync.i32": (context.MATCH_ALL_32, _STRUCT, 0),
    "match.all.sync.i64": (context.MATCH_ALL_64, _STRUCT, 0),
}

_LANE_MASKS = {
    "eq": "{r} = shl i32 1, %fc.{n}.l",
    "lt": "%fc.{n}.e = shl i32 1, %fc.{n}.l\n{r} = sub i32 %fc.{n}.e, 1",
    "le": "%fc.{n}.e = shl i32 2, %fc.{n}.l\n{r} = sub i32 %fc.{n}.e, 1",
    "gt": "{r} = shl i32 -2, %fc.{n}.l",
    "ge": "{r} = shl i32 -1, %fc.{n}.l",
}
_LANE = _register("laneid").replace("{r}", "%fc.{n}.l")

# A 32-bit address of shared memory is the low half of a 64-bit one; the upper half is that of the
# buffer, from which it lies less than 2 GiB away.
_SHARED_ADDRESS = f"""%fc.{{n}}.bp = getelementptr i8, ptr {{c}}, i64 {OFFSETS["shared"]}
%fc.{{n}}.b = load ptr, ptr %fc.{{n}}.bp, align 8, !invariant.load !0
%fc.{{n}}.bi = ptrtoint ptr %fc.{{n}}.b to i64
%fc.{{n}}.bl = trunc i64 %fc.{{n}}.bi to i32
%fc.{{n}}.d = sub i32 {{0}}, %fc.{{n}}.bl
%fc.{{n}}.w = sext i32 %fc.{{n}}.d to i64
%fc.{{n}}.s = getelementptr i8, ptr %fc.{{n}}.b, i64 %fc.{{n}}.w
"""


def _copy(size: int) -> str:
    type_ = {4: "i32", 8: "<2 x i32>", 16: "<4 x i32>"}[size]
    return (
        f"{_SHARED_ADDRESS}%fc.{{n}}.g = inttoptr i64 {{1}} to ptr\n"
        f"%fc.{{n}}.v = load {type_}, ptr %fc.{{n}}.g, align {size}\n"
        f"store {type_} %fc.{{n}}.v, ptr %fc.{{n}}.s, align {size}"
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


def _access(text: str) -> str | None:
    """``ld`` and ``st`` with cache hints: of one number, at a generic or global address."""
    found = re.fullmatch(
        r"(ld|st)(?:\.global)?(?:\.\w+(?:::\w+)?)*?\.([bfsu]\d+) "
        r"(?:\$0, \[\$1\]|\[\$0\], \$1);",
        text,
    )
    if not found or found.group(2) not in _TYPES:
        return None
    type_ = _TYPES[found.group(2)]
    size = int(found.group(2)[1:]) // 8
    if found.group(1) == "ld":
        return f"{{r}} = load {type_}, ptr {{0}}, align {size}"
    return f"store {type_} {{1}}, ptr {{0}}, align {size}"


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


#: Inline PTX, blanks made one; the template gets the match's groups through a function.
_PTX: list[tuple[str, object]] = [
    (r"mov\.u32 \$0, %dynamic_smem_size;", lambda m: _register("dynamic_smem_size")),
    (r"mov\.u32 \$0, %(laneid|warpid|nwarpid|n?(?:cta|t)id\.[xyz]|nctaid\.[xyz]);",
     lambda m: _register(m.group(1))),
    (r"mov\.u32 \$0, %lanemask_(eq|lt|le|gt|ge);", lambda m: f"{_LANE}\n{_LANE_MASKS[m.group(1)]}"),
    (r"(?:membar\.(?:cta|gl|sys)|fence\.[\w.]+);", lambda m: _FENCE),
    (r"cp\.async\.(?:ca|cg)\.shared\.global(?:\.L2::\w+)? \[\$0\], \[\$1\], (4|8|16);",
     lambda m: _copy(int(m.group(1)))),
    (r"cp\.async\.(?:commit_group|wait_all|wait_group (?:\d+|\$0));", lambda m: _NOTHING),
    (r"(?:nanosleep\.u32 \$0|prefetch\.[\w.:]+ \[\$0\]);", lambda m: _NOTHING),
    (r"(tanh|ex2|lg2|sin|cos|sqrt)\.approx(?:\.ftz)?\.f32 \$0, \$1;",
     lambda m: _approximate(m.group(1))),
    (r"rcp\.approx(?:\.ftz)?\.f32 \$0, \$1;", lambda m: "{r} = fdiv float 1.0, {0}"),
    (r"cvt\.rna\.tf32\.f32 \$0, \$1;", lambda m: (
        "%fc.{n}.i = bitcast {t0} {0} to i32\n%fc.{n}.h = add i32 %fc.{n}.i, 4096\n"
        "{r} = and i32 %fc.{n}.h, -8192")),
    (r"cvt(?:\.(rn|rni|rzi|rz))?(?:\.sat)?\.([fsu]\d+)\.([fsu]\d+) \$0, \$1;",
     lambda m: _convert(*m.groups())),
    (r"((?:ld|st)[\w.:]* .*;)", lambda m: _access(m.group(1))),
]  # fmt: skip
_MMA = r"mma\.sync\.aligned\.{}\.row\.col\.f32\.{}\.{}\.f32 .*;"
_PTX_MEETINGS: list[tuple[str, int, int | None]] = [
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

_CALL = re.compile(
    r"^\s*(?:(?P<result>%(?:\"[^\"]*\"|\S+)) = )?(?:tail |musttail |notail )?call (?P<before>.*?)"
    r"(?:@(?P<quote>\"?)(?P<name>[\w.$]+)(?P=quote)"
    r"|asm (?:sideeffect )?(?:alignstack )?\"(?P<ptx>(?:[^\"\\]|\\.)*)\", \"[^\"]*\")"
    r"\((?P<rest>.*)$"
)
#: Functions of LLVM and of the C library stay what they are.
_HOST = re.compile(r"llvm\.(?!nvvm)[\w.]+")


def _value(argument: str) -> tuple[str, str]:
    """Type and value of an argument: attributes may stand between them."""
    found = re.match(
        r"^(\w+|<[^>]*>|\{[^}]*\}|\[[^\]]*\]) .*?"
        r"((?:getelementptr|inttoptr|ptrtoint|bitcast) .*|[%@]\"[^\"]*\"|\S+)$",
        argument,
    )
    assert found is not None, argument
    return found.group(1), found.group(2)


def lower(module: Module, known: set[str]) -> list[str | Suspend]:
    """Return the kernel's body without any instruction of the GPU.

    Parameters
    ----------
    module : Module
        The kernel.
    known : set of str
        Functions that exist on the host.
    """
    body: list[str | Suspend] = []
    for number, line in enumerate(module.body):
        found = _CALL.match(line)
        if found is None:
            body.append(line)
            continue
        arguments = [_value(argument) for argument in split_commas(found["rest"])]
        dbg = re.search(r", !dbg !\d+", line)
        location = dbg.group(0) if dbg else ""
        result = found["result"] or ""
        if found["name"] is not None:
            new = _lower_call(found["name"], result, arguments, location, known)
        else:
            new = _lower_ptx(_unescape(found["ptx"]), found["before"], result, arguments, location)
        if new is None:
            file, row = module.source(line)
            what = f"inline PTX `{_unescape(found['ptx'])}`" if found["ptx"] else found["name"]
            raise UnsupportedInstructionError(
                f"{module.title}: no twin on the host for {what} ({file}:{row})"
            )
        if isinstance(new, Suspend):
            body.append(new)
        elif new is _SAME:
            body.append(line)
        else:
            values = {f"t{i}": type_ for i, (type_, _) in enumerate(arguments)}
            text = new.format(
                *(value for _, value in arguments), r=result, n=number, c=CONTEXT, **values
            )
            body += [f"  {row}{location}" for row in text.split("\n") if row]
    return body


_SAME = "the call itself"


def _lower_call(
    name: str, result: str, arguments: list[tuple[str, str]], location: str, known: set[str]
) -> str | Suspend | None:
    if not name.startswith("fc.nvvm."):
        if _HOST.fullmatch(name) or name in known:
            return _SAME
        return _NUMBA_ATOMICS.get(name)
    name = name.removeprefix("fc.nvvm.")
    if name in _MEETINGS:
        opcode, type_, mask = _MEETINGS[name]
        return _meeting(opcode, type_, mask, result, arguments, location)
    return _CALLS.get(name)


def _lower_ptx(
    text: str, before: str, result: str, arguments: list[tuple[str, str]], location: str
) -> str | Suspend | None:
    for pattern, opcode, mask in _PTX_MEETINGS:
        if re.fullmatch(pattern, text):
            return _meeting(opcode, _type_of(before), mask, result, arguments, location)
    for pattern, template in _PTX:
        found = re.fullmatch(pattern, text)
        if found:
            return template(found)  # type: ignore[operator]
    return None


def _type_of(before: str) -> str:
    """Result type of a call: attributes may precede it."""
    found = re.search(r"(\{.*\}|<[^>]*>|\[[^\]]*\]|[\w.]+)\s*$", before)
    assert found is not None, before
    return found.group(1)


def _meeting(
    opcode: int,
    type_: str,
    mask: int | None,
    result: str,
    arguments: list[tuple[str, str]],
    location: str,
) -> Suspend:
    operands = [argument for i, argument in enumerate(arguments) if i != mask]
    lanes = "-1" if mask is None else arguments[mask][1]
    return Suspend(opcode, result, type_, operands, location, lanes)


def _unescape(ptx: str) -> str:
    """PTX as it was written, blanks made one."""
    text = re.sub(r"\\([0-9A-Fa-f]{2})", lambda m: chr(int(m.group(1), 16)), ptx)
    return " ".join(text.replace("$$", "$").split())
