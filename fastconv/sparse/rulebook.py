"""Which rows meet: the geometry of a sparse convolution, and the table that follows from its sites.

A rulebook holds plain arrays, on the device that the sites are on. It is built once and used by
every layer over the same sites with the same geometry. Everything but the table of neighbours is
derived when it is first asked for, and kept.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from ..padding import Pads, output_size

__all__ = ["KINDS", "Geometry", "PairLists", "Rulebook"]

Built = TypeVar("Built")

#: Where outputs are: at the inputs' sites, wherever the kernel reaches one, or wherever a site's
#: spread by the kernel reaches.
KINDS = ("submanifold", "regular", "transposed")


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
    """

    row_start: Any
    pair_offset: Any
    pair_input: Any


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
