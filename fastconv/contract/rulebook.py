"""What kernels read of a rulebook, and what its builders return.

`fastconv.sparse.Rulebook` is the class that holds it; builders and kernels know this file only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from .errors import ShapeError
from .geometry import Geometry

__all__ = [
    "HASH_FACTOR",
    "MOST_ENTRIES",
    "HashTable",
    "PairLists",
    "Rulebook",
    "check_table_size",
]

Built = TypeVar("Built")

#: What a key is multiplied by to find its slot: 2**64 over the golden ratio, which spreads keys
#: that follow each other evenly (Knuth, The Art of Computer Programming, vol. 3, 6.4).
HASH_FACTOR = 0x9E3779B97F4A7C15


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


#: Most entries of a table of neighbours: 64 GB.
MOST_ENTRIES = 2**34


class Rulebook(Protocol):
    """The rows that meet at each offset of a kernel; see `fastconv.sparse.Rulebook`."""

    @property
    def geometry(self) -> Geometry:
        """What it is for."""

    @property
    def in_rows(self) -> int:
        """Number of sites before."""

    @property
    def out_rows(self) -> int:
        """Number of sites after."""

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Spatial shape of the grid after."""

    @property
    def out_indices(self) -> Any:
        """Sites after, ``(out_rows, 1 + ndim)`` int32, batch first."""

    @property
    def neighbours(self) -> Any:
        """The input row that an output row meets at each offset, ``(volume, out_rows)`` int32."""

    @property
    def pairs(self) -> int:
        """How many entries of `neighbours` are rows."""

    @property
    def masks(self) -> Any:
        """Which offsets each output row has, ``(ceil(volume / 32), out_rows)`` uint32."""

    @property
    def order(self) -> Any:
        """Output rows sorted by mask, ``(out_rows,)`` int32."""

    @property
    def pair_lists(self) -> PairLists:
        """The pairs by output row."""

    def reverse(self) -> Rulebook:
        """Return the rulebook that leads back."""

    def derive(self, build: Callable[..., Built], *arguments: Any) -> Built:
        """Return ``build(rulebook, *arguments)``, made once and kept."""


def check_table_size(volume: int, rows: int) -> None:
    """Raise where a table of neighbours would be absurdly large."""
    if volume * rows > MOST_ENTRIES:
        raise ShapeError(
            f"kernel_size: got {volume} offsets over {rows} sites, a table of {volume * rows} "
            f"entries, want at most {MOST_ENTRIES}"
        )
