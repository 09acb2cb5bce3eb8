"""Which rows meet: the table that follows from a geometry and its sites.

A rulebook holds plain arrays, on the device that the sites are on. It is built once and used by
every layer over the same sites with the same geometry. Everything but the table of neighbours is
derived when it is first asked for, and kept.

Machine code goes wherever the table sends it, so there is no rulebook whose arrays have not been
checked or made by the library, and none whose arrays change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..arrays import on_host
from ..contract import first_use
from ..contract.errors import DTypeError
from ..contract.geometry import Geometry
from ..contract.rulebook import HashTable, PairLists, check_table_size
from ..device_arrays import DeviceArray
from .frozen import freeze, restored, same_memory, shown, stored
from .rulebook_checks import check_parts, sites_of
from .sites import check_rows

__all__ = [
    "Rulebook",
    "require_rulebook",
]

Built = TypeVar("Built")


class Rulebook:
    """The rows that meet at each offset of a kernel.

    Parameters
    ----------
    geometry : Geometry
        What it is for.
    in_indices, out_indices : (rows, 1 + ndim) int32 array
        Sites before and after, batch first; of NumPy, or of one GPU. Those after are the same array
        for a submanifold kernel, else sorted by key (batch first, last axis fastest).
    neighbours : (volume, out_rows) int32 array
        The input row that an output row meets at each offset, -1 where there is none.
    pairs : int
        How many entries of `neighbours` are rows.
    is_reversed : bool
        Whether sites before and after have changed places (see `reverse`): `geometry` is that of
        the rulebook which this one undoes.

    Raises
    ------
    DTypeError
        Where an array is not of int32.
    DeviceError
        Where the arrays are not all in one place.
    ShapeError
        Where an array has another shape than the others and the geometry ask for, or holds a site
        outside its grid or twice, or a row that there is none of; where an input row comes twice at
        one offset; where `pairs` is not the number of rows in the table.

    Notes
    -----
    An input row and an offset decide the output row too, so the reversed relation is a table of the
    same form.

    A rulebook may be made by hand, say to leave pairs out. It is checked when it is made and keeps
    copies. Whether the rows of the table are those that the geometry pairs is not looked at: a
    kernel of any shape, or neighbours by any other rule, are tables too. NumPy arrays that a
    rulebook gives out are read-only; what lies on a GPU is not to be written.

    Examples
    --------
    >>> import numpy as np
    >>> sites = np.array([[0, 2], [0, 3]], np.int32)
    >>> geometry = Geometry("submanifold", (8,), 1, (3,), (1,), (1,), ((1, 1),), (0,))
    >>> before_only = np.array([[-1, 0], [-1, -1], [-1, -1]], np.int32)
    >>> Rulebook(geometry, sites, sites, before_only, 1)
    Rulebook(submanifold, kernel 3, 2 > 2 sites, 1 pairs)
    """

    __slots__ = (
        "__weakref__", "_derived", "_geometry", "_in_indices", "_is_reversed", "_neighbours",
        "_out_indices", "_pairs",
    )  # fmt: skip

    def __init__(
        self, geometry: Geometry, in_indices: Any, out_indices: Any, neighbours: Any, pairs: int,
        is_reversed: bool = False,
    ) -> None:  # fmt: skip
        parts = check_parts(geometry, in_indices, out_indices, neighbours, pairs, is_reversed)
        self._set(geometry, *parts, bool(is_reversed))

    def _set(
        self, geometry: Geometry, in_indices: Any, out_indices: Any, neighbours: Any, pairs: int,
        is_reversed: bool,
    ) -> None:  # fmt: skip
        self._geometry = geometry
        self._in_indices = in_indices
        self._out_indices = out_indices
        self._neighbours = neighbours
        self._pairs = pairs
        self._is_reversed = is_reversed
        self._derived: dict[Any, Any] = {}

    @classmethod
    def _trusted(cls, *parts: Any) -> Rulebook:
        """Return a rulebook of arrays that the library has made and that nobody else holds."""
        made = object.__new__(cls)
        made._set(*parts)
        return made

    @classmethod
    def build(cls, geometry: Geometry, indices: Any) -> Rulebook:
        """Find the rows that meet.

        Parameters
        ----------
        geometry : Geometry
            What is computed.
        indices : (rows, 1 + ndim) array
            Sites before, batch first, in any order; of any integer type and strides, or of int32 on
            a GPU. Those of a `SparseTensor` are taken as they are, others are checked and copied.

        Raises
        ------
        DTypeError, ShapeError
            Where the indices are no sites, are outside the grid or come twice, and where the table
            would be too large.

        Examples
        --------
        >>> import numpy as np
        >>> sites = np.array([[0, 5], [0, 2], [0, 6]], np.int32)
        >>> geometry = Geometry("submanifold", (8,), 1, (3,), (1,), (1,), ((1, 1),), (0,))
        >>> Rulebook.build(geometry, sites).neighbours.tolist()
        [[-1, -1, 0], [0, 1, 2], [2, -1, -1]]
        """
        return build_trusted(geometry, sites_of(geometry, indices))

    def __repr__(self) -> str:
        kernel = "x".join(map(str, self._geometry.kernel_size))
        back = ", reversed" if self._is_reversed else ""
        return (
            f"Rulebook({self._geometry.kind}{back}, kernel {kernel}, {self.in_rows} > "
            f"{self.out_rows} sites, {self._pairs} pairs)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = (self._in_indices, self._out_indices, self._neighbours)
        return _restore, (self._geometry, *map(stored, arrays), self._pairs, self._is_reversed)

    def __copy__(self) -> Rulebook:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Rulebook:
        return self

    @property
    def geometry(self) -> Geometry:
        """What it is for."""
        return self._geometry

    @property
    def in_indices(self) -> Any:
        """Sites before, ``(in_rows, 1 + ndim)`` int32, batch first."""
        return shown(self._in_indices)

    @property
    def out_indices(self) -> Any:
        """Sites after, ``(out_rows, 1 + ndim)`` int32, batch first."""
        return shown(self._out_indices)

    @property
    def neighbours(self) -> Any:
        """The input row that an output row meets at each offset, ``(volume, out_rows)`` int32."""
        return shown(self._neighbours)

    @property
    def pairs(self) -> int:
        """How many entries of `neighbours` are rows."""
        return self._pairs

    @property
    def is_reversed(self) -> bool:
        """Whether sites before and after have changed places."""
        return self._is_reversed

    @property
    def in_rows(self) -> int:
        """Number of sites before."""
        return int(self._in_indices.shape[0])

    @property
    def out_rows(self) -> int:
        """Number of sites after."""
        return int(self._out_indices.shape[0])

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Spatial shape of the grid before."""
        return self._geometry.out_shape if self._is_reversed else self._geometry.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Spatial shape of the grid after."""
        return self._geometry.in_shape if self._is_reversed else self._geometry.out_shape

    def starts_at(self, sites: Any) -> bool:
        """Tell whether the sites before are these, row for row."""
        return _same_sites(self._in_indices, sites)

    def leads_to(self, sites: Any) -> bool:
        """Tell whether the sites after are these, row for row."""
        return _same_sites(self._out_indices, sites)

    @property
    def place(self) -> tuple[Any, int] | None:
        """Library and number of the device that the arrays are on, None for NumPy's."""
        table = self._neighbours
        return (table.library, table.device) if isinstance(table, DeviceArray) else None

    def derive(self, build: Callable[..., Built], *arguments: Any) -> Built:
        """Return ``build(rulebook, *arguments)``, made once and kept.

        Kernels keep their schedules here. Who asks with another function gets another value, so
        nobody finds what he did not make. Threads that ask for the first time at once may build at
        once, and all get what the first of them built: a lock would be held by nobody after a fork.
        """
        key = (build, *arguments)
        if key not in self._derived:
            self._derived.setdefault(key, build(self, *arguments))
        built: Built = self._derived[key]
        return built

    def reverse(self) -> Rulebook:
        """Return the rulebook that leads back: its inputs are this one's outputs."""
        return self.derive(_reverse)

    @property
    def masks(self) -> Any:
        """Which offsets each output row has, ``(ceil(volume / 32), out_rows)`` uint32.

        Bit ``k % 32`` of word ``k // 32`` tells of offset ``k``.
        """
        return shown(self.derive(_masks))

    @property
    def order(self) -> Any:
        """Output rows sorted by mask, ``(out_rows,)`` int32; equal ones keep their order."""
        return shown(self.derive(_order))

    @property
    def counts(self) -> Any:
        """Pairs of each offset, a NumPy array ``(volume,)`` of int64."""
        return shown(self.derive(_counts))

    @property
    def pair_lists(self) -> PairLists:
        """The pairs by output row."""
        return PairLists(*map(shown, self.derive(_pair_lists)))

    @property
    def hash_table(self) -> HashTable:
        """Rows of the sites before by key."""
        return HashTable(*map(shown, self.derive(_hash_table)))


def _same_sites(one: Any, other: Any) -> bool:
    if same_memory(one, other):
        return True
    return one.shape == other.shape and np.array_equal(on_host(one), on_host(other))


def require_rulebook(value: Any) -> Rulebook:
    """Return a value if it is a `Rulebook`, else raise."""
    if not isinstance(value, Rulebook):
        raise DTypeError(
            f"rulebook: got {type(value).__name__}, want a fastconv.sparse.Rulebook, of "
            "make_rulebook or of x.rulebooks"
        )
    return value


def build_trusted(geometry: Geometry, indices: Any) -> Rulebook:
    """Return the rulebook of sites that have been checked and are frozen."""
    check_rows(int(indices.shape[0]))
    after, table, pairs = _builder(indices).build(geometry, indices)
    check_rows(int(after.shape[0]))
    return Rulebook._trusted(geometry, indices, freeze(after), freeze(table), pairs, False)


def _builder(array: Any) -> Any:
    """Return the module that builds rulebooks where an array lives."""
    device = "cuda" if isinstance(array, DeviceArray) else "cpu"
    return first_use.load(f"fastconv.kernels.{device}.rulebook.build")


def _reverse(book: Rulebook) -> Rulebook:
    table = book._neighbours
    check_table_size(book.geometry.volume, book.in_rows)
    back = freeze(_builder(table).reverse(table, book.in_rows))
    other = Rulebook._trusted(
        book.geometry, book._out_indices, book._in_indices, back, book.pairs, not book.is_reversed
    )
    other._derived[(_reverse,)] = book
    return other


def _masks(book: Rulebook) -> Any:
    return freeze(_builder(book._neighbours).masks(book._neighbours))


def _order(book: Rulebook) -> Any:
    return freeze(_builder(book._neighbours).order(book.masks))


def _counts(book: Rulebook) -> NDArray[np.int64]:
    table = on_host(book._neighbours)
    counted: NDArray[np.int64] = freeze(
        np.array([np.count_nonzero(row >= 0) for row in table], np.int64)
    )
    return counted


def _pair_lists(book: Rulebook) -> PairLists:
    return PairLists(*map(freeze, _builder(book._neighbours).pair_lists(book._neighbours)))


def _hash_table(book: Rulebook) -> HashTable:
    indices = book._in_indices
    made = _builder(indices).hash_table(book.in_shape, book.geometry.batch_size, indices)
    return HashTable(*map(freeze, made))


def _restore(
    geometry: Geometry, before: Any, after: Any, table: Any, pairs: int, is_reversed: bool
) -> Rulebook:
    """Return a rulebook out of a pickle, checked as one that is made by hand."""
    sites = restored(before), restored(after)
    return Rulebook(geometry, *sites, restored(table), pairs, is_reversed)
