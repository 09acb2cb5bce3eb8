"""Rulebooks on the CPU: which rows meet, from sorted keys; and what is derived from that.

=================  ===============================================================================
function           what it makes
=================  ===============================================================================
sort_keys          rising 64-bit keys and the rows they came from (`rulebook_sort`)
build              sites after (`rulebook_sites`), table of neighbours (`rulebook_walk`)
reverse            the table of inputs and outputs exchanged (`rulebook_tables`, as all that follow)
masks, order       which offsets a row has, as bits; the rows sorted by them
pair_lists         the pairs by output row
hash_table         rows by key: open addressing
=================  ===============================================================================

No function depends on the number of threads or, but for the numbers of rows themselves, on the
order of the rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastconv.contract.geometry import Geometry

from .lines import line_sites, make_lines
from .neighbours import find_neighbours
from .sites import sites_after
from .sort import make_keys, sort_keys, sort_rows
from .tables import hash_table, masks, order, pair_lists, reverse

__all__ = ["build", "hash_table", "masks", "order", "pair_lists", "reverse", "sort_keys"]

Indices = NDArray[np.int32]


def build(geometry: Geometry, indices: Indices) -> tuple[Indices, NDArray[np.int32], int]:
    """Return the sites after an operator, the table of neighbours, and the number of pairs.

    Parameters
    ----------
    geometry : Geometry
        What is computed.
    indices : (rows, 1 + ndim) int32 array
        Sites before, contiguous: inside the grid, no two equal, in any order.

    Returns
    -------
    out_indices : (out_rows, 1 + ndim) int32 array
        For a submanifold kernel `indices` itself, else sorted by key.
    neighbours : (volume, out_rows) int32 array
        Row before that each row after meets at each offset, -1 where there is none.
    pairs : int
        Entries that are not -1.
    """
    batch, before, after = geometry.batch_size, geometry.in_shape, geometry.out_shape
    keys, least, most, rise = make_keys(before, batch, indices)
    rows = None
    if not rise:
        keys, rows = sort_rows(keys, least, most)
    lines = make_lines(before, batch, keys)
    if geometry.kind == "submanifold":
        return indices, *find_neighbours(geometry, lines, rows, lines, rows, len(indices))
    keys_after = sites_after(geometry, keys)
    lines_after = make_lines(after, batch, keys_after)
    if geometry.kind == "regular":
        table_and_pairs = find_neighbours(geometry, lines_after, None, lines, rows, len(keys_after))
    else:
        table_and_pairs = find_neighbours(geometry, lines, rows, lines_after, None, len(keys_after))
    return line_sites(lines_after), *table_and_pairs
