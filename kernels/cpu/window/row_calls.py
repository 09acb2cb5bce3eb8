"""Machine code that goes through the parts of a row, each of which has a function of its own.

The table has three words for each stretch of parts (row_parts.py): the number of the first part
behind it, and the functions of its narrow and of its wide parts. So a row of millions of samples
has a table of a few stretches, and nothing that is compiled depends on its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..runtime import jit
from ..simd.intrinsics import get_word
from ..simd.ir import call_address
from .row_parts import Parts, Stretch

__all__ = ["PARTS_FIELDS", "PART_SIGNATURE", "Band", "call_parts", "part_begin", "parts_table"]

#: Fields of a geometry that `call_parts` reads.
PARTS_FIELDS = (
    "parts",  # of a row
    "part_width",  # of a narrow part, and how many are wide
    "part_rest",
    "part_unit",  # output columns of a place
    "table",  # address of the stretches
)

#: The arguments of a part's function: geometry, first output column, then those of `Band`.
PART_SIGNATURE = jit.void(11)
_STRETCH_WORDS = 3


class Band(NamedTuple):
    """What the function of a part is given beside the geometry and its first output column.

    Parameters
    ----------
    x, weight, bias, out : int
        Where the first group's input row 0 at the first depth lies (also where that row is outside
        a copy), its weights at that depth, bias, and its first output row.
    h0, h_end : int
        First input row of the first output row; the first one that is not there any more.
    rows, depths, groups : int
        Output rows, kernel depths that meet the input, groups or channels.
    """

    x: int
    weight: int
    bias: int
    out: int
    h0: int
    h_end: int
    rows: int
    depths: int
    groups: int


@intrinsic
def _call_part(typingctx: Any, function: Any, geometry: Any, start: Any, band: Any) -> Any:
    """Call the function of one part."""
    return types.void(types.intp, types.intp, types.intp, band), call_address


@numba.njit
def part_begin(g: Any, part: int) -> int:
    """Return the first output column of a part, or what lies behind the last one."""
    return (part * g.part_width + part * g.part_rest // g.parts) * g.part_unit


@numba.njit
def call_parts(g: Any, geometry: int, first: int, end: int, band: Band) -> None:
    """Call the functions of parts `first` to `end` - 1 of a row, in order.

    Parameters
    ----------
    g : record
        View of the geometry.
    geometry : intp
        The geometry, which has `PARTS_FIELDS`. A function gets it with its first output column.
    first, end : intp
        The parts.
    band : Band
        The rows.
    """
    stretch, begin, rest = g.table, part_begin(g, first), first * g.part_rest % g.parts
    while first >= get_word(stretch, 0):
        stretch += 8 * _STRETCH_WORDS
    for part in range(first, end):
        if part == get_word(stretch, 0):
            stretch += 8 * _STRETCH_WORDS
        rest += g.part_rest
        wide = int(rest >= g.parts)
        _call_part(get_word(stretch, 1 + wide), geometry, begin, band)
        begin += (g.part_width + wide) * g.part_unit
        rest -= wide * g.parts


def parts_table(
    parts: Parts, stretches: Iterable[Stretch], function: Callable[[int, int], int], unit: int
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return the table of a row's parts, and the fields that go with it.

    Parameters
    ----------
    parts : Parts
        How the row is cut.
    stretches : iterable of Stretch
        Parts that differ in their width alone.
    function : callable
        Compiles a part, by where it begins and its width, and returns its address.
    unit : int
        Output columns of a place.
    """
    table = []
    for stretch in stretches:
        addresses = {width: function(begin, width) for width, begin, _ in stretch.kinds}
        table.append((stretch.end, *(addresses.get(parts.width + wide, 0) for wide in (0, 1))))
    words = np.array(table, np.int64)
    return words, {
        "parts": parts.count,
        "part_width": parts.width,
        "part_rest": parts.rest,
        "part_unit": unit,
        "table": words.ctypes.data,
    }
