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
from .printing import print_address
from .ptx import FENCE, meeting, register, template
from .text import split_commas

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
        """Whether the block or the warp meets here, or the thread ends."""
        if self.opcode == context.RAISE:
            return context.RAISING
        return context.AT_BARRIER if self.opcode <= context.BARRIER_OR else context.AT_WARP


_STRUCT = "{ i32, i1 }"

#: After ``fc.nvvm.``.
_REGISTERS = {
    name: register(name)
    for name in OFFSETS
    if "." in name or name in ("laneid", "warpid", "nwarpid")
}
_CALLS: dict[str, str] = {
    **{f"read.ptx.sreg.{name}": text for name, text in _REGISTERS.items()},
    "read.ptx.sreg.warpsize": "{r} = add i32 32, 0",
    "membar.cta": FENCE,
    "membar.gl": FENCE,
    "membar.sys": FENCE,
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
    "raise": (context.RAISE, "void", None),
}

_PRINT = (
    "%fc.{{n}}.c = ptrtoint ptr {{c}} to i64\n%fc.{{n}}.f = ptrtoint ptr {{0}} to i64\n"
    "%fc.{{n}}.v = ptrtoint ptr {{1}} to i64\n"
    "call void inttoptr (i64 {} to ptr)(i64 %fc.{{n}}.c, i64 %fc.{{n}}.f, i64 %fc.{{n}}.v)"
)

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
    match = re.match(
        r"^(\w+|<[^>]*>|\{[^}]*\}|\[[^\]]*\]) .*?"
        r"((?:getelementptr|inttoptr|ptrtoint|bitcast) .*|[%@]\"[^\"]*\"|\S+)$",
        argument,
    )
    assert match is not None, argument
    return match.group(1), match.group(2)


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
        match = _CALL.match(line)
        if match is None:
            body.append(line)
            continue
        arguments = [_value(argument) for argument in split_commas(match["rest"])]
        dbg = re.search(r", !dbg !\d+", line)
        location = dbg.group(0) if dbg else ""
        result = match["result"] or ""
        if match["name"] is not None:
            new = _lower_call(match["name"], result, arguments, location, known)
        else:
            new = _lower_ptx(_unescape(match["ptx"]), match["before"], result, arguments, location)
        if new is None:
            file, row = module.source(line)
            what = f"inline PTX `{_unescape(match['ptx'])}`" if match["ptx"] else match["name"]
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
    if name == "vprintf":
        return _PRINT.format(print_address()) + ("\n{r} = add i32 0, 0" if result else "")
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
    meets = meeting(text)
    if meets:
        opcode, mask = meets
        return _meeting(opcode, _type_of(before), mask, result, arguments, location)
    return template(text, [type_ for type_, _ in arguments])


def _type_of(before: str) -> str:
    """Result type of a call: attributes may precede it."""
    match = re.search(r"(\{.*\}|<[^>]*>|\[[^\]]*\]|[\w.]+)\s*$", before)
    assert match is not None, before
    return match.group(1)


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
