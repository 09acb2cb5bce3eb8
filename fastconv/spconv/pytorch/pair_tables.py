"""Rulebooks as spconv's tables of pairs, and back.

spconv's table tells for each offset of a kernel which rows before and after meet, one pair behind
the other. A rulebook tells for each offset and each row after which row before it meets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...contract.errors import DTypeError, ShapeError
from ...contract.geometry import Geometry
from ...sparse.rulebook import Rulebook
from .arrays import array_of

__all__ = ["book_of", "pairs_of"]


def pairs_of(book: Rulebook) -> torch.Tensor:
    """Return the rows before and after that meet, (2, volume, rows before) int32.

    Behind the last pair of an offset stands -1.
    """
    table = book.neighbours
    pairs = np.full((2, len(table), book.in_rows), -1, np.int32)
    for offset, rows in enumerate(table):
        after = np.flatnonzero(rows >= 0)
        pairs[0, offset, : len(after)] = rows[after]
        pairs[1, offset, : len(after)] = after
    return torch.from_numpy(pairs)


def book_of(
    indice_pairs: Any, indice_pair_num: Any, rows: tuple[int, int], kernel_size: Sequence[int],
    inverse: bool = False, subm: bool = False,
) -> Rulebook:  # fmt: skip
    """Return the rulebook of a table of pairs, over a grid that stands for any.

    Parameters
    ----------
    indice_pairs : torch.Tensor, shape (2, volume, pairs)
        int32; rows before, rows after.
    indice_pair_num : torch.Tensor, shape (volume,)
        int32, pairs of each offset.
    rows : (int, int)
        Number of rows before and after, as they are with `inverse`.
    kernel_size : sequence of int
        Taps an axis.
    inverse : bool
        Whether rows before and after have changed places in the table.
    subm : bool
        Whether the table is a submanifold convolution's: at the offset in the middle each row meets
        itself, and those behind it have as many pairs as those that they mirror.

    Raises
    ------
    DTypeError
        For tables that are not int32.
    ShapeError
        For tables that do not fit the kernel, rows that there are none of, and rows that meet
        several at one offset.
    """
    pairs, counts = _integers(indice_pairs, indice_pair_num, math.prod(kernel_size))
    if inverse:
        pairs = pairs[::-1]
    table = np.full((pairs.shape[1], rows[1]), -1, np.int32)
    middle = len(counts) // 2
    for offset in range(len(counts)):
        if subm and offset == middle:
            table[offset] = np.arange(rows[1])
            continue
        count = int(counts[len(counts) - 1 - offset if subm and offset > middle else offset])
        before, after = pairs[:, offset, :count]
        if after.min(initial=0) < 0 or after.max(initial=-1) >= rows[1]:
            raise ShapeError(
                f"indice_pairs: got a row after among {count} at offset {offset} that is none of "
                f"{rows[1]}"
            )
        table[offset, after] = before
        if np.count_nonzero(table[offset] >= 0) != count:
            raise ShapeError(
                f"indice_pairs: got a row after twice, or none before, at offset {offset}, want "
                "each to meet one"
            )
    return Rulebook(*_line(rows, kernel_size), table, int(np.count_nonzero(table >= 0)))


def _integers(pairs: Any, counts: Any, volume: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    given = array_of("indice_pairs", pairs), array_of("indice_pair_num", counts)
    for name, array in zip(("indice_pairs", "indice_pair_num"), given, strict=True):
        if array.dtype != np.int32:
            raise DTypeError(f"{name}: got {array.dtype}, want torch.int32")
    table, number = given
    if table.ndim != 3 or table.shape[:2] != (2, volume):
        raise ShapeError(
            f"indice_pairs: got shape {table.shape}, want (2, {volume}, pairs) as the kernel has "
            f"{volume} offsets"
        )
    if number.shape != (volume,) or number.min() < 0 or number.max() > table.shape[2]:
        raise ShapeError(
            f"indice_pair_num: got {number.tolist()}, want {volume} numbers of at most "
            f"{table.shape[2]}, the places of indice_pairs"
        )
    return table, number


def _line(
    rows: tuple[int, int], kernel_size: Sequence[int]
) -> tuple[Geometry, NDArray[np.int32], NDArray[np.int32]]:
    """Return a geometry with room for rows along its first axis, and sites there."""
    length = max(1, *rows)
    first, *others = kernel_size
    axes = len(kernel_size)
    geometry = Geometry(
        "regular", (length + first - 1, *others), 1, tuple(kernel_size), (1,) * axes, (1,) * axes,
        ((0, 0),) * axes, (0,) * axes,
    )  # fmt: skip
    before, after = (np.zeros((count, 1 + axes), np.int32) for count in rows)
    before[:, 1], after[:, 1] = np.arange(rows[0]), np.arange(rows[1])
    return geometry, before, after
