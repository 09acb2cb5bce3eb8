"""The kernels that go over sites and offsets of a kernel: one text, told apart by its end.

    grid: rows / 256, offsets of the kernel
      thread = a site and an offset
        other site = the one that they meet at, or none        any stride, dilation, padding
        key = ((batch * size0 + index0) * size1 + index1) ...  64 bits; coordinates are checked
        what is done with it:

==========  ======================================================================================
ending      does
==========  ======================================================================================
keys        stores the key
insert      puts it into the table, counts pairs
enter       stores the site's row beside its key in the table
gather      looks it up: neighbours[offset, row] = the row found, -1 where none; counts pairs
mirror      the same for the first half of the offsets, and neighbours[mirrored, found] = row
scatter     looks it up: neighbours[offset, row found] = row
==========  ======================================================================================

A submanifold kernel gathers, with neighbouring threads storing side by side. Where it is odd along
every axis, the site met at an offset meets the row at the offset on the other side of the centre,
and half of the look-ups do: for a part of a real scan (12,000 voxels, 6.8 pairs each) all look-ups
of a 3^3 kernel touch 498,000 sectors of the table, and the mirrored stores 14,000 to 35,000.

Other kinds scatter: an input meets few of the outputs (a 3^3 kernel of stride 2 has 27 offsets and
3.4 pairs a site), so only pairs are looked up, and every entry is written once, since an offset and
an output decide the input. With a kernel of one offset the other site is the site itself: tables
are built by that.

Indices along an axis are 32-bit. No kernel reaches 2**31 positions (`rulebook` refuses it), so that
negative ones, taken as unsigned, are above every size, divided by the stride too. Budget: under 40
registers, no shared memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import cuda, int32, int64, uint32
from numba.cuda import types

from ..common.launch import Kernel, flat, launch
from ..common.plan import blocks_of
from ..common.source import compile_text
from ..gemm.tile import fill, indent
from .hash import find, home_shift, insert
from .scan import THREADS

__all__ = ["ENDINGS", "Meeting", "decode_kernel", "decode_sites", "itself", "site_kernel", "visit"]

_HEAD = """
row, offset = u(cuda.grid(1)), u(cuda.blockIdx.y)
key = NOWHERE
if row < rows:
    at = u(row * COLUMNS)
    rest, inside = offset, True
    {taps}
    {axes}
    if inside:
        key = int64(indices[at])
        {key}
{ending}
"""

_TAP = "tap{a}, rest = u(rest % taps{a}), u(rest // taps{a})"

_AXIS = """
index = u(indices[u(at + u({a} + 1))])
if spreads != u(0):
    other{a} = u(index * step{a} + tap{a} * hole{a} - low{a})
else:
    reach = u(index + low{a} - tap{a} * hole{a})
    other{a} = u(reach // step{a})
    inside = inside and u(other{a} * step{a}) == reach
inside = inside and other{a} < size{a}
"""

_COUNT = """
count = int32(cuda.syncthreads_count(int32(met)))
if u(cuda.threadIdx.x) == u(0) and count > int32(0):
    cuda.atomic.add(pairs, u(0), {pairs})
"""
_COUNT_ONCE = _COUNT.format(pairs="count")

_FIND = """
found = u(last + u(1))
if key >= int64(0):
    found = find(slots, key, shift, last)
"""

_GATHER = """
met, neighbour = found <= last, int32(-1)
if met:
    neighbour = table_rows[found]
if row < rows:
    neighbours[u(offset * width + row)] = neighbour
"""

#: The arrays of each ending behind `indices`, as letters of their types, and its code.
ENDINGS = {
    "keys": (("keys",), "if row < rows:\n    keys[row] = key"),
    "insert": (
        ("slots", "pairs"),
        "met = key >= int64(0)\nif met:\n    insert(slots, key, shift, last)\n" + _COUNT_ONCE,
    ),
    "enter": (
        ("slots", "table_rows"),
        _FIND + "if found <= last:\n    table_rows[found] = int32(row)",
    ),
    "gather": (
        ("slots", "table_rows", "neighbours", "pairs"),
        _FIND + _GATHER + _COUNT_ONCE,
    ),
    "mirror": (
        ("slots", "table_rows", "neighbours", "pairs"),
        "middle = u(u(cuda.gridDim.y) - u(1))\n"
        + _FIND
        + _GATHER
        + "if met:\n"
        + "    neighbours[u(u(middle + middle - offset) * width + u(neighbour))] = int32(row)\n"
        + _COUNT.format(pairs="count if offset == middle else int32(count + count)"),
    ),
    "scatter": (
        ("slots", "table_rows", "neighbours"),
        _FIND
        + "if found <= last:\n"
        + "    neighbours[u(offset * width + u(table_rows[found]))] = int32(row)",
    ),
}  # fmt: skip

_SCALARS = ("rows", "width", "shift", "last", "spreads")
_PER_AXIS = ("size", "taps", "step", "hole", "low")
_LONG_ARRAYS = ("keys", "slots")


def site_text(ending: str, ndim: int) -> str:
    """Return the text of a kernel."""
    arrays, code = ENDINGS[ending]
    axes = range(ndim)
    scalars = (*_SCALARS, *(f"{name}{a}" for a in axes for name in _PER_AXIS))
    body = fill(
        _HEAD,
        taps="\n".join(_TAP.format(a=a) for a in reversed(axes)),
        axes="".join(_AXIS.format(a=a) for a in axes),
        key="\n".join(f"key = int64(key * int64(size{a}) + int64(other{a}))" for a in axes),
        ending=code,
    )
    return f"def {ending}_sites({', '.join(('indices', *arrays, *scalars))}):\n" + indent(body)


def _decode_text(ndim: int) -> str:
    sizes = ", ".join(f"size{a}" for a in range(ndim))
    body = "row = u(cuda.grid(1))\nif row < rows:\n    key, at = keys[row], u(row * COLUMNS)\n"
    for a in reversed(range(ndim)):
        body += f"    indices[u(at + u({a} + 1))] = int32(key % int64(size{a}))\n"
        body += f"    key = int64(key // int64(size{a}))\n"
    body += "    indices[at] = int32(key)\n"
    return f"def decode_sites(keys, indices, rows, {sizes}):\n" + indent(body)


def _function(text: str, name: str, ndim: int) -> Callable[..., None]:
    namespace = {
        "cuda": cuda, "u": uint32, "int32": int32, "int64": int64, "find": find, "insert": insert,
        "COLUMNS": np.uint32(1 + ndim), "NOWHERE": np.int64(-1),
    }  # fmt: skip
    return compile_text(text, name, f"{name} {ndim}d", namespace)


@functools.cache
def site_kernel(ending: str, ndim: int) -> Kernel:
    """Return the kernel of one ending, for sites of `ndim` spatial axes."""
    longs, words = types.int64[::1], types.int32[::1]
    arrays = (longs if name in _LONG_ARRAYS else words for name in ENDINGS[ending][0])
    scalars = [types.uint32] * (len(_SCALARS) + ndim * len(_PER_AXIS))
    function = _function(site_text(ending, ndim), f"{ending}_sites", ndim)
    return Kernel(f"{ending}_sites {ndim}d", function, (words, *arrays, *scalars), THREADS, 4)


@functools.cache
def decode_kernel(ndim: int) -> Kernel:
    """Return the kernel that makes sites of keys."""
    arrays = types.int64[::1], types.int32[::1]
    function = _function(_decode_text(ndim), "decode_sites", ndim)
    return Kernel(
        f"decode_sites {ndim}d", function, (*arrays, *[types.uint32] * (1 + ndim)), THREADS, 4
    )


class Meeting:
    """What the kernels are told of where sites meet: one entry an axis.

    Parameters
    ----------
    spreads : bool
        Whether the other site is ``index * step + tap * hole - low``, else it is the one of which
        ``index = other * step + tap * hole - low``.
    sizes : sequence of int
        The other grid.
    taps, steps, holes, lows : sequence of int
        Kernel, stride, dilation and padding at the low side.
    """

    def __init__(
        self, spreads: bool, sizes: Sequence[int], taps: Sequence[int], steps: Sequence[int],
        holes: Sequence[int], lows: Sequence[int],
    ) -> None:  # fmt: skip
        self.ndim, self.volume = len(sizes), int(np.prod(taps, dtype=np.int64))
        axes = zip(sizes, taps, steps, holes, lows, strict=True)
        self.scalars = (int(spreads), *(word for axis in axes for word in axis))


def itself(shape: Sequence[int]) -> Meeting:
    """Return the meeting of every site with itself."""
    ones, zeros = (1,) * len(shape), (0,) * len(shape)
    return Meeting(True, shape, ones, ones, ones, zeros)


def visit(
    ending: str, meeting: Meeting, indices: Any, *arrays: Any, width: int = 0, capacity: int = 2,
    offsets: int = 0,
) -> None:  # fmt: skip
    """Run a kernel over all sites and offsets.

    Parameters
    ----------
    ending : str
        A key of `ENDINGS`.
    meeting : Meeting
        Where a site and an offset meet another site.
    indices : (rows, 1 + ndim) int32 array
        Sites, at least one.
    *arrays : array
        What the ending names.
    width : int
        Columns of the table of neighbours.
    capacity : int
        Slots of the hash table.
    offsets : int
        How many offsets, from the first on; 0 for all.
    """
    rows = indices.shape[0]
    scalars = (rows, width, home_shift(capacity), capacity - 1, *meeting.scalars)
    grid = (blocks_of(rows, THREADS), offsets or meeting.volume, 1)
    elements = (flat(indices), *map(flat, arrays))
    launch(site_kernel(ending, meeting.ndim), grid, indices, (*elements, *map(np.uint32, scalars)))


def decode_sites(shape: Sequence[int], keys: Any, indices: Any) -> None:
    """Write the sites of keys."""
    rows = keys.size
    grid = (blocks_of(rows, THREADS), 1, 1)
    scalars = map(np.uint32, (rows, *shape))
    launch(decode_kernel(len(shape)), grid, keys, (flat(keys), flat(indices), *scalars))
