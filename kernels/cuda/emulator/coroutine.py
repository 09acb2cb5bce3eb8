"""One kernel as an LLVM coroutine: every place where threads meet is a point of suspension.

::

    fc_make(args, context) -> handle     reads the arguments, stops before the first instruction
    fc_step(handle)        -> done?      runs to the next meeting, or to the end
    fc_destroy(handle)

Shared arrays become slices of one buffer, the dynamic ones last; with checks on, a gap that no
access may touch lies between them. Every worker loads the machine code anew and thereby gets a
buffer of its own at an address that is known when the code is linked: nothing is added to an
access.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .context import OFFSETS, OPERANDS, RESULTS
from .halves import CONVERSIONS
from .ir import Module
from .lower import CONTEXT, Suspend
from .text import size_of

__all__ = ["MAXIMUM_SHARED", "SharedArray", "host_module"]

#: The most shared memory that any GPU gives one block.
MAXIMUM_SHARED = 232448

_SHARED = re.compile(
    r'^@("?_cudapy_smem_\d+"?) = extern_weak (?:\w+ )*?global (\[.*?\])(?:, align (\d+))?.*$'
)
#: The host does not mind where an access begins; what a GPU would refuse must not end the process.
_UNALIGNED = re.compile(r"(?m)^(\s*(?:%\S+ = )?(?:load|store) (?!atomic).*), align \d+")
_COPY = re.compile(r"(?m)^.*call void @llvm\.mem.*$")
_PHI = re.compile(r"^\s*%(?:\"[^\"]*\"|\S+) = phi ")
_LABEL = re.compile(r'^("[^"]*"|[-\w.$]+):')

_HEAD = """fc.entry:
{allocas}
  %fc.id = call token @llvm.coro.id(i32 0, ptr null, ptr null, ptr null)
  %fc.size = call i64 @llvm.coro.size.i64()
  %fc.memory = call ptr @malloc(i64 %fc.size)
  %fc.handle = call ptr @llvm.coro.begin(token %fc.id, ptr %fc.memory)
  %fc.first = call i8 @llvm.coro.suspend(token none, i1 false)
  switch i8 %fc.first, label %fc.suspend [i8 0, label %fc.start
    i8 1, label %fc.cleanup]
fc.start:
  br label %{entry}"""
_TAIL = """fc.final:
  %fc.last = call i8 @llvm.coro.suspend(token none, i1 true)
  switch i8 %fc.last, label %fc.suspend [i8 0, label %fc.trap
    i8 1, label %fc.cleanup]
fc.trap:
  unreachable
fc.cleanup:
  %fc.freed = call ptr @llvm.coro.free(token %fc.id, ptr %fc.handle)
  call void @free(ptr %fc.freed)
  br label %fc.suspend
fc.suspend:
  call void @llvm.coro.end(ptr %fc.handle, i1 false, token none)
  ret ptr %fc.handle
}"""
_INTERFACE = """
define i64 @fc_step(ptr %h) {
  call void @llvm.coro.resume(ptr %h)
  %d = call i1 @llvm.coro.done(ptr %h)
  %r = zext i1 %d to i64
  ret i64 %r
}
define i64 @fc_destroy(ptr %h) {
  call void @llvm.coro.destroy(ptr %h)
  ret i64 0
}
declare token @llvm.coro.id(i32, ptr, ptr, ptr)
declare i64 @llvm.coro.size.i64()
declare ptr @llvm.coro.begin(token, ptr)
declare i8 @llvm.coro.suspend(token, i1)
declare ptr @llvm.coro.free(token, ptr)
declare void @llvm.coro.end(ptr, i1, token)
declare void @llvm.coro.resume(ptr)
declare i1 @llvm.coro.done(ptr)
declare void @llvm.coro.destroy(ptr)
declare ptr @malloc(i64)
declare void @free(ptr)
!0 = !{}
"""


@dataclass(frozen=True)
class SharedArray:
    """One shared array of a kernel, as it lies in the block's buffer."""

    symbol: str
    offset: int
    size: int  # 0 for a dynamic one


def host_module(
    module: Module, body: list[str | Suspend], extra: str, gap: int
) -> tuple[str, list[SharedArray]]:
    """Return IR for the host, and where its shared arrays lie.

    Parameters
    ----------
    module : Module
        The kernel.
    body : list
        Its lines, after `lower` and, maybe, the checks.
    extra : str
        Declarations that the body needs.
    gap : int
        Bytes between two shared arrays.
    """
    head = [line for line in module.head if not _SHARED.match(line)]
    shared, layout = _shared_memory(module, gap)
    parts = [*head, shared, extra, _define(module, body), _maker(module), CONVERSIONS, _INTERFACE]
    text = "\n".join(parts)
    if "@llvm.fabs.f64(double)" not in "".join(head):
        text += "declare double @llvm.fabs.f64(double)\n"
    # Locations have been read by now; and NVVM fuses a product with a sum, so the host may too.
    text = re.sub(r", !(?!invariant)[\w.]+ !\d+", "", text)
    text = re.sub(r"(?m)^(define .*?) !dbg !\d+", r"\1", text)
    text = re.sub(r"\) #\d+", ")", text)
    text = _UNALIGNED.sub(r"\1, align 1", text)
    text = _COPY.sub(lambda match: re.sub(r"align \d+ ", "", match.group(0)), text)
    text = re.sub(
        r" = (f(?:mul|add|sub)) (?!fast|contract)((?:\w+ )*?)(?=float|double|<)",
        r" = \1 contract \2",
        text,
    )
    return text, layout


def _define(module: Module, body: list[str | Suspend]) -> str:
    allocas = [line for line in body if isinstance(line, str) and " = alloca " in line]
    out: list[str] = []
    entry = block = ""
    number = 0
    renamed: dict[str, str] = {}
    for line in body:
        if isinstance(line, Suspend):
            number += 1
            out += _suspension(line, number)
            renamed[block] = f"fc.go.{number}"
            continue
        label = _LABEL.match(line)
        if label:
            block = label.group(1)
            entry = entry or block
        if " = alloca " in line:
            continue
        out.append("  br label %fc.final" if line.strip().startswith("ret void") else line)
    out = [_rename(line, renamed) if _PHI.match(line) else line for line in out]
    head = _HEAD.format(allocas="\n".join(allocas), entry=entry)
    parameters = f"{module.parameter_text}, ptr {CONTEXT}".removeprefix(", ")
    signature = f"define ptr @{module.name}({parameters}) presplitcoroutine {{"
    return "\n".join([signature, head, *out, _TAIL])


def _rename(phi: str, renamed: dict[str, str]) -> str:
    """Name the blocks that a phi comes from by their last part."""

    def new(match: re.Match[str]) -> str:
        return f"{match.group(1)}%{renamed.get(match.group(2), match.group(2))} ]"

    return re.sub(r'(, )%("[^"]*"|[-\w.$]+) \]', new, phi)


def _suspension(meeting: Suspend, number: int) -> list[str]:
    """Write the request, suspend, read the result."""
    name = f"%fc.s{number}"
    values = [
        ("reason", "i32", str(meeting.reason)), ("site", "i32", str(meeting.site)),
        ("opcode", "i32", str(meeting.opcode)), ("mask", "i32", meeting.mask),
    ]  # fmt: skip
    places = [(OFFSETS[field], type_, value) for field, type_, value in values]
    places += [(OPERANDS + 8 * i, *operand) for i, operand in enumerate(meeting.operands)]
    lines = []
    for offset, type_, value in places:
        lines += [
            f"  {name}.{offset} = getelementptr i8, ptr {CONTEXT}, i64 {offset}",
            f"  store {type_} {value}, ptr {name}.{offset}, align 4",
        ]
    lines += [
        f"  {name} = call i8 @llvm.coro.suspend(token none, i1 false)",
        f"  switch i8 {name}, label %fc.suspend [i8 0, label %fc.go.{number}",
        "    i8 1, label %fc.cleanup]",
        f"fc.go.{number}:",
    ]
    if meeting.result:
        lines += [
            f"  {name}.r = getelementptr i8, ptr {CONTEXT}, i64 {RESULTS}",
            f"  {meeting.result} = load {meeting.type}, ptr {name}.r, align 4",
        ]
    return lines


def _maker(module: Module) -> str:
    """``fc_make``: every argument lies in 16 bytes of its own."""
    loads, arguments = [], []
    for i, type_ in enumerate(module.parameters):
        loads.append(f"  %p{i} = getelementptr i8, ptr %args, i64 {16 * i}")
        loads.append(f"  %a{i} = load {type_}, ptr %p{i}")
        arguments.append(f"{type_} %a{i}")
    arguments.append("ptr %ctx")
    return "\n".join([
        "define ptr @fc_make(ptr %args, ptr %ctx) {", *loads,
        f"  %h = call ptr @{module.name}({', '.join(arguments)})", "  ret ptr %h", "}",
    ])  # fmt: skip


def _shared_memory(module: Module, gap: int) -> tuple[str, list[SharedArray]]:
    """Definitions of the shared arrays as parts of one buffer, and the table of them."""
    matches = [match for line in module.head if (match := _SHARED.match(line))]
    # Dynamic arrays have no size; they all begin behind the last static one.
    matches.sort(key=lambda match: match.group(2).startswith("[0 x"))
    layout, lines, end = [], [], 0
    for match in matches:
        symbol, type_, align = match.group(1), match.group(2), int(match.group(3) or 1)
        size = size_of(type_)
        align = max(align, 1 if size else 16)
        begin = -(-end // align) * align
        layout.append(SharedArray(symbol, begin, size))
        lines.append(f"@{symbol} = alias {type_}, getelementptr (i8, ptr @fc_shared, i64 {begin})")
        if size:
            end = -(-(begin + size + gap) // 4) * 4
    total = end + (MAXIMUM_SHARED if any(a.size == 0 for a in layout) else 0) + 256
    return "\n".join(
        [f"@fc_shared = global [{total} x i8] zeroinitializer, align 1024", *lines]
    ), layout
