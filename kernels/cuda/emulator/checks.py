"""Put a call of the checks before every access to memory that other threads could see.

Every load, store and atomic of the kernel gets its address through `watch`, which returns it, or a
scratch area where the access must not happen. What begins in an array of the thread's own, or in
constant memory, is only held against the size of that array.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .context import AT_BARRIER, AT_WARP, RAISING
from .flight import COMMIT, WAIT_ALL
from .ir import Module
from .lower import CONTEXT, Suspend
from .places import ATOMIC, COPY, WRITE
from .text import leading_type, size_of, split_commas
from .watch import watch_address, watch_groups_address, watch_local_address

__all__ = ["Site", "instrument", "number_meetings"]


@dataclass(frozen=True)
class Site:
    """A place in the kernel: an access or a meeting."""

    kind: str  # load, store, copy (asynchronous), atomic, or what threads meet for
    file: str
    line: int
    size: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else "an unknown line"


_MEETINGS = {AT_BARRIER: "barrier", AT_WARP: "warp operation", RAISING: "exception"}
_ACCESS = re.compile(r"^\s*(?:%(?:\"[^\"]*\"|\S+) = )?(load|store|atomicrmw|cmpxchg) ")
_COPY = re.compile(r"call void @llvm\.mem(cpy|move|set)\.")
_GROUPS = re.compile(r"^\s*; fc\.async (\w+)")
_DEFINITION = re.compile(r"^\s*(%(?:\"[^\"]*\"|\S+)) = (getelementptr|alloca|bitcast)\b(.*)$")
_GLOBAL = re.compile(r'^(@(?:"[^"]*"|[\w.$]+)) = (?:\w+ )*?constant (.+?)(?:, align \d+)?$')


def number_meetings(module: Module, body: list[str | Suspend], sites: list[Site]) -> None:
    """Give each meeting its site; copies of one line, as unrolling makes, are one."""
    known: dict[Site, int] = {}
    for line in body:
        if isinstance(line, Suspend):
            kind = _MEETINGS[line.reason]
            site = Site(kind, *module.source(line.location))
            if site not in known:
                known[site] = len(sites)
                sites.append(site)
            line.site = known[site]


def instrument(module: Module, body: list[str | Suspend], sites: list[Site]) -> list[str | Suspend]:
    """Return the body with the checks in it, and add its accesses to `sites`."""
    roots = _Roots(module, body)
    out: list[str | Suspend] = []
    for line in body:
        if isinstance(line, str) and "!invariant.load" not in line and _ACCESS.match(line):
            out += _checked(module, line, roots, sites)
        elif isinstance(line, str) and (match := _GROUPS.match(line)):
            out += _groups(match.group(1), len(out))
        elif isinstance(line, str) and _COPY.search(line):
            out += _checked_copy(module, line, roots, sites)
        else:
            out.append(line)
    return out


class _Roots:
    """From where an address is derived, and how large that array is."""

    def __init__(self, module: Module, body: list[str | Suspend]) -> None:
        self.base: dict[str, str] = {}
        self.size: dict[str, int] = {}
        for line in module.head:
            variable = _GLOBAL.match(line)
            if variable:
                self.size[variable.group(1)] = size_of(leading_type(variable.group(2)))
        definitions = (_DEFINITION.match(line) for line in body if isinstance(line, str))
        for definition in filter(None, definitions):
            name, how, rest = definition.groups()
            if how == "alloca":
                parts = split_commas(rest)
                count = re.match(r"i\d+ (\d+)$", parts[1]) if len(parts) > 1 else None
                self.size[name] = size_of(parts[0]) * (int(count.group(1)) if count else 1)
            else:
                pointer = next((p for p in split_commas(rest) if p.startswith("ptr ")), "")
                self.base[name] = pointer.removeprefix("ptr ").split(" to ")[0]

    def find(self, operand: str) -> tuple[str, int] | None:
        """The array of known size that `operand` points into."""
        while operand in self.base:
            operand = self.base[operand]
        inner = re.search(r"ptr (@[\w.$]+|@\"[^\"]*\")", operand)
        if operand not in self.size and inner:
            operand = inner.group(1)
        return (operand, self.size[operand]) if operand in self.size else None


def _access_parts(line: str) -> tuple[str, str, str]:
    """Kind, type of the value and address of a memory instruction."""
    match = _ACCESS.match(line)
    assert match is not None
    kind = match.group(1)
    parts = split_commas(re.sub(r"\b(?:volatile|atomic|weak) ", "", line[match.end() :]))
    if kind == "load":
        return kind, leading_type(parts[0]), parts[1].removeprefix("ptr ")
    if kind == "store":
        kind = "copy" if "!fc.async" in line else kind
        return kind, leading_type(parts[0]), parts[1].removeprefix("ptr ")
    return "atomic", leading_type(parts[1]), parts[0].split("ptr ", 1)[1]


def _checked(module: Module, line: str, roots: _Roots, sites: list[Site]) -> list[str]:
    kind, type_, address = _access_parts(line)
    size = size_of(type_)
    number = len(sites)
    name = f"%fc.w{number}"
    calls = _call(name, address, size, kind, number, roots)
    sites.append(Site(kind, *module.source(line), size))
    # The operand is the last of its spelling that follows "ptr" (a stored value may look the same).
    head, _, tail = line.rpartition(f"ptr {address}")
    return [*calls, f"{head}ptr {name}{tail}"]


def _call(name: str, address: str, size: int, kind: str, number: int, roots: _Roots) -> list[str]:
    """The lines that check an address and define `name` as the one to use."""
    root = roots.find(address)
    lines = [
        f"  {name}.i = ptrtoint ptr {address} to i64",
        f"  {name}.c = ptrtoint ptr {CONTEXT} to i64",
    ]
    if root:
        target, base = watch_local_address(), f"{name}.b"
        lines.append(f"  {base} = ptrtoint ptr {root[0]} to i64")
        arguments = (
            f"i64 {name}.c, i64 {name}.i, i64 {base}, i64 {size << 32 | root[1]}, i64 {number}"
        )
    else:
        bits = {"load": 0, "store": WRITE, "copy": WRITE | COPY, "atomic": WRITE | ATOMIC}[kind]
        arguments = f"i64 {name}.c, i64 {name}.i, i64 {size | bits}, i64 {number}"
        target = watch_address()
    lines.append(f"  {name}.o = call i64 inttoptr (i64 {target} to ptr)({arguments})")
    lines.append(f"  {name} = inttoptr i64 {name}.o to ptr")
    return lines


def _groups(what: str, number: int) -> list[str]:
    """Tell the checks that a thread commits its asynchronous copies or waits for them."""
    groups = {"commit": COMMIT, "all": WAIT_ALL}.get(what) or int(what)
    function = f"inttoptr (i64 {watch_groups_address()} to ptr)"
    return [
        f"  %fc.k{number} = ptrtoint ptr {CONTEXT} to i64",
        f"  %fc.r{number} = call i64 {function}(i64 %fc.k{number}, i64 {groups})",
    ]


def _checked_copy(module: Module, line: str, roots: _Roots, sites: list[Site]) -> list[str]:
    """``memcpy`` and ``memset`` of a constant size."""
    parts = split_commas(line[line.index("(", line.index("@")) + 1 :])
    size = re.fullmatch(r"i64 (\d+)", parts[2])
    if not size or int(size.group(1)) >= 1 << 16:
        return [line]
    lines: list[str] = []
    for part, kind in list(zip(parts, ("store", "load")))[: 1 if "memset" in line else 2]:
        address = part.split()[-1]
        number = len(sites)
        lines += _call(f"%fc.w{number}", address, int(size.group(1)), kind, number, roots)
        sites.append(Site(kind, *module.source(line), int(size.group(1))))
        line = line.replace(part, f"ptr %fc.w{number}", 1)
    return [*lines, line]
