"""Points out of PLY files, of text or of either byte order; coordinates and intensity."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from .checks import Table, check_room, shortened

__all__ = ["read_ply"]

#: Names that scanners and converters give to the strength of a return.
_INTENSITIES = ("intensity", "scalar_Intensity", "scalar_intensity", "reflectance", "reflectivity")
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"), **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"), **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"), **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"), **dict.fromkeys(("double", "float64"), "f8"),
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_HEADER = 1 << 20  # most bytes of a header


@dataclass(slots=True)
class _Element:
    """Rows of one kind in a PLY file; a property of no type is a list."""

    name: str
    count: int
    properties: dict[str, str] = field(default_factory=dict)

    def dtype(self, order: str) -> np.dtype[Any]:
        return np.dtype([(name, order + type_) for name, type_ in self.properties.items()])


def read_ply(file: Path) -> Table:
    """Return the vertices of a PLY file, with their intensity where it has one."""
    with file.open("rb") as stream:
        order, elements = _header(stream)
        before = list(itertools.takewhile(lambda element: element.name != "vertex", elements))
        rest = elements[len(before) :]
        if not rest or not {"x", "y", "z"} <= rest[0].properties.keys():
            raise ValueError("it has no element vertex with x, y and z")
        for element in (*before, rest[0]):
            if "" in element.properties.values():
                raise ValueError(
                    f"element {element.name} has lists; want the vertices first, without lists"
                )
        vertex = rest[0]
        held = [name for name in _INTENSITIES if name in vertex.properties][:1]
        names = ["x", "y", "z", *held]
        room = file.stat().st_size - stream.tell()
        if order:
            return _rows(stream, before, vertex, names, order, room)
        return _lines(stream, before, vertex, names, room)


def _header(stream: IO[bytes]) -> tuple[str, list[_Element]]:
    """Return the byte order (empty for text) and the elements."""
    order, elements = None, list[_Element]()
    for words in _header_lines(stream):
        match words:
            case ["format", form, "1.0"] if form in _ORDERS:
                order = _ORDERS[form]
            case ["element", name, count] if re.fullmatch(r"\d{1,18}", count):
                elements.append(_Element(name, int(count)))
            case ["property", "list", *_, name] if elements:
                elements[-1].properties[name] = ""
            case ["property", type_, name] if (
                elements and type_ in _TYPES and name not in elements[-1].properties
            ):
                elements[-1].properties[name] = _TYPES[type_]
            case ["comment" | "obj_info", *_] | []:
                pass
            case _:
                raise ValueError(f"its header has the line {shortened(' '.join(words))!r}")
    if order is None:
        raise ValueError("its header has no format that is known")
    return order, elements


def _header_lines(stream: IO[bytes]) -> Iterator[list[str]]:
    """Yield the words of every line between the first and the last of a header."""
    if stream.readline(16).strip() != b"ply":
        raise ValueError("it does not begin with the line ply")
    while stream.tell() < _HEADER:
        line = stream.readline(4096)
        if not line.endswith(b"\n"):
            break
        words = line.decode("latin-1").split()
        if words == ["end_header"]:
            return
        yield words
    raise ValueError("its header has no end")


def _rows(
    stream: IO[bytes], before: list[_Element], vertex: _Element, names: list[str], order: str,
    room: int,
) -> Table:  # fmt: skip
    for element in before:
        size = element.dtype(order).itemsize
        check_room(element.name, element.count, size, room)
        stream.seek(element.count * size, 1)
        room -= element.count * size
    dtype = vertex.dtype(order)
    check_room("vertices", vertex.count, dtype.itemsize, room)
    rows = np.fromfile(stream, dtype, vertex.count)
    return np.column_stack([rows[name] for name in names])


def _lines(
    stream: IO[bytes], before: list[_Element], vertex: _Element, names: list[str], room: int
) -> Table:
    """Rows as text: a line each, and each property at least a digit and a blank."""
    for element in (*before, vertex):
        check_room(element.name, element.count, max(2 * len(element.properties), 1), room + 1)
    for _ in range(sum(element.count for element in before)):
        stream.readline()
    if vertex.count == 0:
        return np.zeros((0, len(names)))
    order = list(vertex.properties)
    lines = (line.decode("latin-1") for line in itertools.islice(stream, vertex.count))
    usecols = [order.index(name) for name in names]
    table = np.loadtxt(lines, np.float64, comments=None, usecols=usecols, ndmin=2)
    if len(table) != vertex.count:
        raise ValueError(f"it says that it holds {vertex.count} vertices and holds {len(table)}")
    return table
