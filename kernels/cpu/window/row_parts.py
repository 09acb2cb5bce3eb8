"""A row cut into parts of about equal width, told by classes of parts and never one by one.

Part i of a row begins at ``total * i // count``, so widths differ by one at most. A row may be of
any length (a signal has one, of millions of samples), while only few of its parts differ in more
than that: those that reach over a side. So a plan asks for *stretches*, parts in a row that no
given place separates, and for a stretch's two widths at most; machine code goes through the parts
of a stretch by adding up the remainder (row_calls.py)::

    total 11, count 4     begin  0  2  5  8     width  2 3 3 3
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Parts", "Stretch"]


class Stretch(NamedTuple):
    """Parts in a row.

    Parameters
    ----------
    end : int
        Number of the first part behind them.
    kinds : tuple of (int, int, int)
        (width, where the first of that width begins, how many), for each width that there is.
    """

    end: int
    kinds: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """A row of `total` places in `count` parts, none of them empty."""

    total: int
    count: int

    @property
    def width(self) -> int:
        """Places of a narrow part; a wide one has one more."""
        return self.total // self.count

    @property
    def rest(self) -> int:
        """How many parts are wide."""
        return self.total % self.count

    def begin(self, part: int) -> int:
        """Return where a part begins."""
        return self.total * part // self.count

    def first_from(self, place: int) -> int:
        """Return the first part that begins at a place or behind it."""
        return min(max(-(-place * self.count // self.total), 0), self.count)

    def stretches(self, places: Iterable[int]) -> Iterator[Stretch]:
        """Yield the stretches that places separate: a part belongs to where it begins.

        The last part, behind which nothing lies, is a stretch of its own.
        """
        ends = {self.first_from(place) for place in places} | {self.count - 1, self.count}
        first = 0
        for end in sorted(ends - {0}):
            yield Stretch(end, tuple(self._kinds(first, end)))
            first = end

    def _kinds(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield the widths of parts `first` to `end` - 1, narrow before wide."""
        width, rest, count = self.width, self.rest, self.count
        before = rest * first // count  # wide parts
        wide = rest * end // count - before
        if end - first > wide:
            narrow = (first - before) * count // (count - rest)
            yield width, self.begin(narrow), end - first - wide
        if wide:
            part = -(-(before + 1) * count // rest) - 1
            yield width + 1, self.begin(part), wide
