"""An array with samples around it: what a boundary mode puts there, and which part is made.

Along an axis of ``n`` samples position ``i``, which may lie outside, holds the sample

=============  =====================================================================
mode           of
=============  =====================================================================
``constant``   none: a number
``reflect``    ``i`` mirrored at the first and last sample, which are not repeated
``symmetric``  ``i`` mirrored beside them, so that they are
``replicate``  the sample that is nearest
``circular``   ``i`` modulo ``n``
=============  =====================================================================

However far ``i`` lies outside: what is mirrored is mirrored again, as `numpy.pad` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .array_problem import ArrayProblem, Call, Operand, number, option, per_axis_size
from .errors import ArgumentError, ShapeError
from .problem import DTYPES, INTEGERS, MOST

__all__ = [
    "MODES",
    "MOST_OUTSIDE",
    "AxisMap",
    "PadProblem",
    "check_constant",
    "map_axis",
    "source_indices",
]

MODES = ("constant", "reflect", "symmetric", "replicate", "circular")
#: Positions outside at one side of an axis: each is an entry of a table.
MOST_OUTSIDE = 1 << 20


def source_indices(mode: str, size: int, start: int, count: int) -> NDArray[np.int64]:
    """Return which sample of `size` each of `count` positions from `start` on holds.

    It is -1 for the constant.

    Examples
    --------
    >>> [source_indices(mode, 3, -2, 7).tolist() for mode in ("reflect", "symmetric", "circular")]
    [[2, 1, 0, 1, 2, 1, 0], [1, 0, 0, 1, 2, 2, 1], [1, 2, 0, 1, 2, 0, 1]]
    """
    places = np.arange(start, start + count, dtype=np.int64)
    if mode == "constant":
        return np.where((places >= 0) & (places < size), places, -1)
    if mode == "replicate":
        return np.clip(places, 0, size - 1)
    if mode == "circular":
        return places % size
    if mode == "symmetric":
        places %= 2 * size
        return np.minimum(places, 2 * size - 1 - places)
    period = max(2 * (size - 1), 1)  # one sample is its own mirror image
    places %= period
    return np.minimum(places, period - places)


def check_constant(name: str, value: float, dtype: str) -> None:
    """Raise where integers cannot hold a constant that is put among them.

    Parameters
    ----------
    name : str
        The argument that told it, for the message.
    value : float
        The constant.
    dtype : str
        Element type of the samples; floating point holds every constant, rounded.

    Raises
    ------
    ArgumentError
        For what is no whole number, or beyond the ends of an integer type.

    Examples
    --------
    >>> check_constant("padding_mode", 255.0, "uint8")
    """
    if dtype not in INTEGERS:
        return
    limits = np.iinfo(dtype)
    if not (limits.min <= value <= limits.max and value == int(value)):
        raise ArgumentError(
            f"{name}: got a constant of {value!r} with an input of {dtype}, want a whole number "
            f"from {limits.min} to {limits.max}, or an input of float32"
        )


class AxisMap(NamedTuple):
    """How the positions of an axis lie: those before the samples, within and behind.

    Parameters
    ----------
    low, inside : int
        How many lie before and within; the rest lies behind.
    first : int
        The sample that the first of those within is.
    """

    low: int
    inside: int
    first: int


def map_axis(size: int, start: int, count: int) -> AxisMap:
    """Return how `count` positions from `start` on lie on an axis of `size` samples.

    Examples
    --------
    >>> map_axis(10, -2, 20), map_axis(10, 4, 3)
    (AxisMap(low=2, inside=10, first=0), AxisMap(low=0, inside=3, first=4))
    """
    low = min(max(-start, 0), count)
    end = max(min(size - start, count), low)
    return AxisMap(low, end - low, start + low)


@dataclass(frozen=True, slots=True)
class PadProblem(ArrayProblem):
    """An array with a boundary around it, or a box of one, described by sizes alone.

    Parameters
    ----------
    op : {"pad"}
        The operator.
    batch, channels : int
        ``N`` and ``C``.
    in_size, padding, out_size : tuple of int
        One entry a spatial axis, 1 to 3 axes: samples, positions before the first one (negative:
        so many samples are left out), and positions in all; as many behind as before the samples
        where it is empty.
    mode : str
        One of `MODES`.
    value : float
        The constant.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        Where the sizes, the element type or the constant do not fit.

    Examples
    --------
    >>> p = PadProblem("pad", 1, 12, (5, 7), (1, 2), mode="reflect")
    >>> p.out_shape, p.line()
    ((1, 12, 7, 11), '--op=pad --mode=reflect ic12ih5iw7ph1pw2oh7ow11')
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    padding: tuple[int, ...] = per_axis_size("p", 0)
    out_size: tuple[int, ...] = per_axis_size("o")
    mode: str = option("constant")
    value: float = option(0.0)
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    _element_types: ClassVar[dict[str, str]] = DTYPES | INTEGERS

    def __post_init__(self) -> None:
        self._fill(padding=0)
        self._check_kind()
        self._check_axes(in_size=0, padding=-MOST)
        if not self.out_size:
            along = zip(self.in_size, self.padding, strict=True)
            object.__setattr__(self, "out_size", tuple(n + 2 * p for n, p in along))
        self._check_axes(out_size=1)
        self._check_mode()
        self._check_bytes()

    def _check_mode(self) -> None:
        if self.mode not in MODES:
            raise ShapeError(f"mode: got {self.mode!r}, want one of {', '.join(MODES)}")
        if self.mode != "constant" and self.value != 0:
            raise ShapeError(f"value: got {self.value} for {self.mode}, want 0")
        check_constant("value", self.value, self.dtype)
        outside = [
            count - along.inside for along, count in zip(self.maps, self.out_size, strict=True)
        ]
        if max(outside) > 2 * MOST_OUTSIDE:
            raise ShapeError(
                f"padding: got {max(outside)} positions outside the input along one axis, want at "
                f"most {2 * MOST_OUTSIDE}"
            )
        if self.mode != "constant" and min(self.in_size) < 1:
            raise ShapeError(
                f"input: got a size of {self.in_size}, want at least one sample along each axis "
                f"for mode={self.mode!r}"
            )

    @property
    def maps(self) -> list[AxisMap]:
        """How the positions of each axis lie."""
        along = zip(self.in_size, self.padding, self.out_size, strict=True)
        return [map_axis(size, -low, count) for size, low, count in along]

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The samples."""
        return (Operand("input", (self.batch, self.channels, *self.in_size)),)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """The samples and what lies around them."""
        return (Operand("out", (self.batch, self.channels, *self.out_size)),)

    @property
    def flops(self) -> int:
        """One operation for each element that is moved."""
        return math.prod(self.out_shape)

    def call(self) -> Call:
        """Return the function that computes it, and its keyword arguments."""
        names = ("padding", "out_size", "mode", "value")
        return Call("ops.padding.pad", {name: getattr(self, name) for name in names})

    def tables(self) -> list[Any]:
        """Return for each axis the sample that every position outside holds, -1 for the constant.

        The positions before the samples come first, then those behind.
        """
        made = []
        sizes = zip(self.in_size, self.padding, self.out_size, self.maps, strict=True)
        for size, low, count, along in sizes:
            behind = along.low + along.inside
            parts = (
                source_indices(self.mode, size, -low, along.low),
                source_indices(self.mode, size, behind - low, count - behind),
            )
            made.append(np.concatenate(parts))
        return made
