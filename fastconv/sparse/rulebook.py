"""Which rows meet: the geometry of a sparse convolution, and the table that follows from its sites.

A rulebook holds plain arrays, on the device that the sites are on. It is built once and used by
every layer over the same sites with the same geometry. Everything but the table of neighbours is
derived when it is first asked for, and kept.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..arrays import on_host
from ..device_arrays import DeviceArray
from ..errors import DTypeError, ShapeError
from ..padding import Pads, output_size
from .sites import check_grid

__all__ = ["HASH_FACTOR", "KINDS", "Geometry", "HashTable", "PairLists", "Rulebook"]

Built = TypeVar("Built")

#: Where outputs are: at the inputs' sites, wherever the kernel reaches one, or wherever a site's
#: spread by the kernel reaches.
KINDS = ("submanifold", "regular", "transposed")

#: What a key is multiplied by to find its slot: 2**64 over the golden ratio, which spreads keys
#: that follow each other evenly (Knuth, The Art of Computer Programming, vol. 3, 6.4).
HASH_FACTOR = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Geometry:
    """How sites before and after a sparse operator are related.

    The input at ``i`` and the output at ``o`` meet at the offset ``k`` where, on every axis,
    ``i = o * stride - low + k * dilation`` ("submanifold", "regular") or
    ``o = i * stride - low + k * dilation`` ("transposed"). Offsets are numbered in row-major order.

    Parameters
    ----------
    kind : {"submanifold", "regular", "transposed"}
        See `KINDS`.
    in_shape : tuple of int
        Spatial shape of the grid before, 1 to 4 axes.
    batch_size : int
        Number of grids.
    kernel_size, stride, dilation : tuple of int
        One entry an axis.
    padding : tuple of (int, int)
        ``(low, high)`` an axis. A submanifold kernel's is half its reach, rounded down at the low
        side, as dense convolution's ``padding="same"`` has it.
    output_padding : tuple of int
        Positions that a transposed kernel's grid has more at its high side.

    Examples
    --------
    >>> Geometry("regular", (8, 8), 1, (3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), (0, 0)).out_shape
    (4, 4)
    """

    kind: str
    in_shape: tuple[int, ...]
    batch_size: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pads
    output_padding: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.in_shape)

    @property
    def volume(self) -> int:
        """Number of offsets of the kernel."""
        return math.prod(self.kernel_size)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Spatial shape of the grid after."""
        if self.kind == "submanifold":
            return self.in_shape
        axes = zip(
            self.in_shape, self.kernel_size, self.stride, self.padding, self.dilation,
            self.output_padding, strict=True,
        )  # fmt: skip
        if self.kind == "transposed":
            return tuple(
                (size - 1) * step - low - high + hole * (taps - 1) + 1 + more
                for size, taps, step, (low, high), hole, more in axes
            )
        return tuple(
            output_size(size, taps, step, pads, hole) for size, taps, step, pads, hole, _ in axes
        )


class PairLists(NamedTuple):
    """The pairs of a rulebook, grouped by output row: compressed sparse rows.

    Those of output row ``r`` are ``row_start[r]`` to ``row_start[r + 1]``, by rising offset.

    Parameters
    ----------
    row_start : (out_rows + 1,) int64 array
        First pair of each output row, and the number of pairs.
    pair_offset, pair_input : (pairs,) int32 array
        Offset and input row of each pair.
    """

    row_start: Any
    pair_offset: Any
    pair_input: Any


class HashTable(NamedTuple):
    """Rows of sites by key: open addressing, the next slot tried where one is taken.

    A key's search begins at slot ``(key * HASH_FACTOR mod 2**64) >> (64 - log2(capacity))`` and
    ends at the key, or at an empty slot where there is none.

    Parameters
    ----------
    keys : (capacity,) int64 array
        Key in each slot, -1 in an empty one. The capacity is a power of two, at least 2 and at
        least twice the rows.
    rows : (capacity,) int32 array
        Row of each key.
    """

    keys: Any
    rows: Any


@dataclass(frozen=True, eq=False)
class Rulebook:
    """The rows that meet at each offset of a kernel.

    Parameters
    ----------
    geometry : Geometry
        What it was built for.
    in_indices, out_indices : (rows, 1 + ndim) int32 array
        Sites before and after, batch first. Those after are the same array for a submanifold
        kernel, else sorted by key (batch first, last axis fastest).
    neighbours : (volume, out_rows) int32 array
        The input row that an output row meets at each offset, -1 where there is none.
    pairs : int
        How many entries of `neighbours` are rows.
    is_reversed : bool
        Whether sites before and after have changed places (see `reverse`): `geometry` is that of
        the rulebook which this one undoes.

    Notes
    -----
    An input row and an offset decide the output row too, so the reversed relation is a table of the
    same form.

    Every array is open, and a rulebook may be made by hand, say to leave pairs out; operators
    `check` one that they are given.

    Examples
    --------
    >>> import numpy as np
    >>> sites = np.array([[0, 2], [0, 3]], np.int32)
    >>> geometry = Geometry("submanifold", (8,), 1, (3,), (1,), (1,), ((1, 1),), (0,))
    >>> before_only = np.array([[-1, 0], [-1, -1], [-1, -1]], np.int32)
    >>> Rulebook(geometry, sites, sites, before_only, 1).check()
    """

    geometry: Geometry
    in_indices: Any
    out_indices: Any
    neighbours: Any
    pairs: int
    is_reversed: bool = False
    _derived: dict[Any, Any] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=threading.RLock, repr=False)

    @property
    def in_rows(self) -> int:
        """Number of sites before."""
        return int(self.in_indices.shape[0])

    @property
    def out_rows(self) -> int:
        """Number of sites after."""
        return int(self.out_indices.shape[0])

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Spatial shape of the grid before."""
        return self.geometry.out_shape if self.is_reversed else self.geometry.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Spatial shape of the grid after."""
        return self.geometry.in_shape if self.is_reversed else self.geometry.out_shape

    def derive(self, name: Any, build: Callable[[Rulebook], Built]) -> Built:
        """Return what `build` makes of this rulebook, made once and kept under `name`.

        Kernels keep their schedules here.
        """
        with self._lock:
            if name not in self._derived:
                self._derived[name] = build(self)
            found: Built = self._derived[name]
        return found

    def check(self) -> None:
        """Check a rulebook that was made by hand; `build` makes none that fails.

        Raises
        ------
        DTypeError
            Where an array is not of int32.
        ShapeError
            Where an array is not contiguous, has another shape than the others and the geometry ask
            for, or holds a site outside its grid or a row that there is none of; where an input row
            comes twice at one offset; where `pairs` is not the number of rows in the table.

        Notes
        -----
        A rulebook is checked once. Whether the rows of the table are those that the geometry pairs
        is not looked at: a kernel of any shape, or neighbours by any other rule, are tables too.
        """
        self.derive("check", _check)

    @classmethod
    def build(cls, geometry: Geometry, indices: Any) -> Rulebook:
        """Find the rows that meet.

        Parameters
        ----------
        geometry : Geometry
            What is computed.
        indices : (rows, 1 + ndim) int32 array
            Sites before, batch first, contiguous: inside the grid, no two equal, in any order.

        Raises
        ------
        ShapeError
            Where the grid after has an empty axis, or coordinates or keys that overflow.

        Examples
        --------
        >>> import numpy as np
        >>> sites = np.array([[0, 5], [0, 2], [0, 6]], np.int32)
        >>> geometry = Geometry("submanifold", (8,), 1, (3,), (1,), (1,), ((1, 1),), (0,))
        >>> Rulebook.build(geometry, sites).neighbours.tolist()
        [[-1, -1, 0], [0, 1, 2], [2, -1, -1]]
        """
        check_grid(geometry.out_shape, geometry.batch_size)
        out_indices, neighbours, pairs = _builder(indices).build(geometry, indices)
        return cls(geometry, indices, out_indices, neighbours, pairs, _derived={"check": None})

    def reverse(self) -> Rulebook:
        """Return the rulebook that leads back: its inputs are this one's outputs."""
        return self.derive("reverse", _reverse)

    @property
    def masks(self) -> Any:
        """Which offsets each output row has, ``(ceil(volume / 32), out_rows)`` uint32.

        Bit ``k % 32`` of word ``k // 32`` tells of offset ``k``.
        """
        return self.derive("masks", lambda book: _builder(book.neighbours).masks(book.neighbours))

    @property
    def order(self) -> Any:
        """Output rows sorted by mask, ``(out_rows,)`` int32; equal ones keep their order."""
        return self.derive("order", lambda book: _builder(book.neighbours).order(book.masks))

    @property
    def counts(self) -> Any:
        """Pairs of each offset, a NumPy array ``(volume,)`` of int64."""
        return self.derive("counts", _counts)

    @property
    def pair_lists(self) -> PairLists:
        """The pairs by output row."""
        found: PairLists = self.derive(
            "pair_lists", lambda book: _builder(book.neighbours).pair_lists(book.neighbours)
        )
        return found

    @property
    def hash_table(self) -> HashTable:
        """Rows of the sites before by key."""
        found: HashTable = self.derive("hash_table", _hash_table)
        return found


def _builder(array: Any) -> Any:
    """Return the module that builds rulebooks where an array lives."""
    device = "cuda" if isinstance(array, DeviceArray) else "cpu"
    return importlib.import_module(f"fastconv.kernels.{device}.rulebook")


def _rows_of(name: str, array: Any) -> Any:
    """Return a contiguous array of int32 as NumPy's."""
    if array.dtype != np.int32:
        raise DTypeError(f"{name}: got {array.dtype}, want int32")
    if isinstance(array, np.ndarray) and not array.flags.c_contiguous:
        raise ShapeError(f"{name}: got strides {array.strides}, want a contiguous array")
    return on_host(array)


def _check(book: Rulebook) -> None:
    batch_size, volume = book.geometry.batch_size, book.geometry.volume
    _check_sites("in_indices", book.in_indices, (batch_size, *book.in_shape))
    _check_sites("out_indices", book.out_indices, (batch_size, *book.out_shape))
    table = _rows_of("neighbours", book.neighbours)
    if table.shape != (volume, book.out_rows):
        raise ShapeError(
            f"neighbours: got shape {table.shape}, want {(volume, book.out_rows)}, offsets of a "
            f"kernel of {book.geometry.kernel_size} by rows of out_indices"
        )
    for row in (table.min(initial=-1), table.max(initial=-1)):
        if not -1 <= row < book.in_rows:
            raise ShapeError(
                f"neighbours: got {row} in the table, want -1 or one of the {book.in_rows} rows of "
                "in_indices"
            )
    for offset, rows in enumerate(table):
        met = np.bincount(rows[rows >= 0])
        if met.max(initial=0) > 1:
            raise ShapeError(
                f"neighbours: got row {met.argmax()} {met.max()} times at offset {offset}, want "
                "an input row to be met by one output row there"
            )
    if book.pairs != book.counts.sum():
        raise ShapeError(
            f"pairs: got {book.pairs}, want {book.counts.sum()}, the rows in neighbours"
        )


def _check_sites(name: str, sites: Any, grid: tuple[int, ...]) -> None:
    """Raise where sites are outside their grid, batch first."""
    rows = _rows_of(name, sites)
    if rows.ndim != 2 or rows.shape[1] != len(grid):
        raise ShapeError(f"{name}: got shape {rows.shape}, want (rows, {len(grid)}), batch first")
    for column, size in enumerate(grid):
        for place in (rows[:, column].min(initial=0), rows[:, column].max(initial=0)):
            if not 0 <= place < size:
                raise ShapeError(
                    f"{name}: got {place} in column {column}, want 0 to {size - 1} as the grid is "
                    f"{grid}, batch first"
                )


def _counts(book: Rulebook) -> NDArray[np.int64]:
    table = _rows_of("neighbours", book.neighbours)
    return np.array([np.count_nonzero(row >= 0) for row in table], np.int64)


def _reverse(book: Rulebook) -> Rulebook:
    table = _builder(book.neighbours).reverse(book.neighbours, book.in_rows)
    other = Rulebook(
        book.geometry, book.out_indices, book.in_indices, table, book.pairs, not book.is_reversed
    )
    other._derived["reverse"] = book
    if "check" in book._derived:
        other._derived["check"] = None
    return other


def _hash_table(book: Rulebook) -> HashTable:
    module = _builder(book.in_indices)
    found: HashTable = module.hash_table(book.in_shape, book.geometry.batch_size, book.in_indices)
    return found
