"""A convolution whose input goes on at its borders: what is computed, and of which dense parts.

Outputs are cut into boxes, each a dense convolution without padding. Most of a large output reads
nothing from outside: that box is computed from the input as it lies, by any kernel at full speed,
and a *frame* of slabs around it, at most two an axis, from small copies with the boundary in them.
A slab of few columns may be *turned*, as kernels go along rows.
Of a small input, or where taps reach far, the *whole* with its boundary is copied instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from . import first_use
from .errors import ArgumentError, ShapeError
from .pad_problem import MODES, MOST_OUTSIDE, PadProblem, check_constant
from .padding import Pads
from .problem import ConvProblem, DenseSizes

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "NO_BOUNDARY",
    "Boundary",
    "BoundaryProblem",
    "Part",
    "canonical_mode",
    "check_pads",
    "parse_mode",
    "turn",
]

#: A boundary mode and its constant.
Boundary = tuple[str, float]
#: Padding with zeros, which convolutions do themselves.
NO_BOUNDARY: Boundary = ("constant", 0.0)

#: Pixels of an input with its boundary, beyond 32 for each of its own: mirrored and wrapped ones
#: have 27 at most.
_MOST_PADDED = 1 << 24
#: Columns of a slab that may be turned.
_MOST_TURNED = 16
#: One object, so that keys with it are equal.
_NAN = math.nan


def canonical_mode(padding_mode: Any) -> Boundary:
    """Return a boundary mode and its constant; padding with zeros is ("constant", 0.0).

    Raises
    ------
    ArgumentError
        For anything else than a mode.

    Examples
    --------
    >>> canonical_mode("reflect"), canonical_mode("zeros"), canonical_mode(("constant", 2))
    (('reflect', 0.0), ('constant', 0.0), ('constant', 2.0))
    """
    if isinstance(padding_mode, str):
        if padding_mode == "zeros":
            return NO_BOUNDARY
        if padding_mode in MODES[1:]:
            return padding_mode, 0.0
    elif isinstance(padding_mode, (tuple, list)) and len(padding_mode) == 2:
        name, value = padding_mode
        if isinstance(name, str) and name == "constant":
            return "constant", _constant(value)
    words = ", ".join(repr(mode) for mode in ("zeros", *MODES[1:]))
    raise ArgumentError(
        f"padding_mode: got {padding_mode!r:.200}, want one of {words} or ('constant', NUMBER)"
    )


def _constant(value: Any) -> float:
    number = first_use.load("fastconv.contract.arguments").real_number("padding_mode", value)
    return _NAN if math.isnan(number) else float(number)


def parse_mode(word: str) -> Boundary:
    """Return the mode that a problem line names: ``reflect``, ``constant:1.5``."""
    name, _, number = word.partition(":")
    if name == "constant" and number:
        try:
            return canonical_mode((name, float(number)))
        except ValueError:
            pass
    elif not number and name in ("zeros", *MODES[1:]):
        return canonical_mode(name)
    raise ShapeError(
        f"problem line: got --padding_mode={word}, want zeros, {', '.join(MODES[1:])} or "
        "constant:NUMBER"
    )


def check_pads(pads: Pads, size: tuple[int, ...], mode: str) -> None:
    """Raise where a boundary mode cannot make pads of an input: one mirrors or wraps it once.

    Parameters
    ----------
    pads : tuple of (int, int)
        Positions before and behind the samples of each axis.
    size : tuple of int
        Samples of each axis.
    mode : str
        One of `fastconv.contract.pad_problem.MODES`.

    Raises
    ------
    ShapeError
        For pads beyond 2**20 or around whose input there would be too many pixels, an input
        without samples where the mode takes some, and pads wider than the samples that
        ``circular`` and ``symmetric`` take for them, of which ``reflect`` has one less.

    Examples
    --------
    >>> check_pads(((4, 4),), (5,), "reflect")
    """
    told = f"padding: got {pads} with padding_mode={mode!r}"
    if max(map(max, pads)) > MOST_OUTSIDE:
        raise ShapeError(f"{told}, want at most {MOST_OUTSIDE} at each side")
    pixels = math.prod(count + sum(sides) for count, sides in zip(size, pads, strict=True))
    most_pixels = _MOST_PADDED + 32 * math.prod(size)
    if pixels > most_pixels:
        raise ShapeError(
            f"{told} and an input of size {size}, want at most {most_pixels} pixels in all; there "
            f"would be {pixels}"
        )
    if mode == "constant":
        return
    if min(size) < 1:
        raise ShapeError(
            f"input: got a size of {size} with padding_mode={mode!r}, want at least one sample "
            "along each axis"
        )
    if mode == "replicate":
        return
    most = tuple(count - (mode == "reflect") for count in size)
    if any(max(sides) > limit for sides, limit in zip(pads, most, strict=True)):
        which = "one less than" if mode == "reflect" else "as many as"
        raise ShapeError(
            f"{told} and an input of size {size}, want at most {most}, {which} there are samples"
        )


def turn(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what there is of each axis with the last two in the other order."""
    return (*values[:-2], values[-1], values[-2])


class Part(NamedTuple):
    """A box of outputs.

    Parameters
    ----------
    outputs : tuple of slice
        Along each axis the outputs.
    start, size : tuple of int
        The first position of the input that they read, negative in what lies before it, and how
        many.
    inside : bool
        Whether all of these are samples of the input.
    turned : bool
        Whether it is computed with rows for columns and columns for rows: kernels go along rows,
        of which a slab of few columns has nothing but ends.
    """

    outputs: tuple[slice, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]
    inside: bool
    turned: bool = False

    @property
    def samples(self) -> tuple[slice, ...]:
        """What a part that is inside reads."""
        return tuple(
            slice(start, start + size) for start, size in zip(self.start, self.size, strict=True)
        )


@dataclass(frozen=True, slots=True)
class BoundaryProblem(DenseSizes):
    """One convolution with a boundary mode, described by sizes alone.

    Parameters
    ----------
    sizes : ConvProblem
        The convolution of the same sizes, whose padding is with zeros.
    mode : str
        One of `fastconv.contract.pad_problem.MODES`.
    value : float
        The constant of that mode.

    Raises
    ------
    ShapeError
        For pads that `check_pads` refuses.
    ArgumentError
        For a constant that an input of integers cannot hold.

    Examples
    --------
    >>> sizes = ConvProblem(1, 8, 16, (9, 9), (3, 3), (2, 2), ((1, 1), (1, 1)))
    >>> of = BoundaryProblem(sizes, "reflect")
    >>> of.out_shape, of.line()
    ((1, 16, 5, 5), '--padding_mode=reflect ic8ih9oc16oh5kh3sh2ph1')
    >>> for part in of.frame():
    ...     print([(each.start, each.stop) for each in part.outputs], part.start, part.size)
    [(0, 1), (0, 5)] (-1, -1) (3, 11)
    [(4, 5), (0, 5)] (7, -1) (3, 11)
    [(1, 4), (0, 1)] (1, -1) (7, 3)
    [(1, 4), (4, 5)] (1, 7) (7, 3)
    [(1, 4), (1, 4)] (1, 1) (7, 7)
    """

    sizes: ConvProblem
    mode: str
    value: float = 0.0

    def __post_init__(self) -> None:
        check_pads(self.sizes.padding, self.in_size, self.mode)
        check_constant("padding_mode", self.value, self.sizes.dtype)

    def __getattr__(self, name: str) -> Any:
        """Return a size of the convolution with zeros."""
        return getattr(object.__getattribute__(self, "sizes"), name)

    @property
    def weight_dtype(self) -> str:
        """Element type of weight and bias."""
        return self.sizes.weight_dtype

    @property
    def result_dtype(self) -> str:
        """Element type of the output, and of a residual."""
        return self.sizes.result_dtype

    @property
    def out_size(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        return self.sizes.out_size

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, ``(K, C / groups, *kernel)``."""
        return self.sizes.weight_shape

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.sizes.macs

    def with_(self, **changes: Any) -> Self:
        """Return a copy with other sizes, mode or constant."""
        own = {name: changes.pop(name) for name in ("mode", "value") if name in changes}
        record: Any = self
        copy: Self = replace(record, sizes=self.sizes.with_(**changes), **own)
        return copy

    @property
    def word(self) -> str:
        """The mode as a problem line says it."""
        return f"constant:{self.value!r}" if self.mode == "constant" else self.mode

    def _reads(self, axis: int, first: int, last: int) -> tuple[int, int]:
        """Return the first position that outputs of an axis read, and how many."""
        of = self.sizes
        step, reach = of.stride[axis], of.dilation[axis] * (of.kernel_size[axis] - 1) + 1
        return first * step - of.padding[axis][0], (last - 1 - first) * step + reach

    def _part(self, spans: list[tuple[int, int]]) -> Part:
        """Return the box of outputs of these spans, one an axis."""
        reads = [self._reads(axis, *span) for axis, span in enumerate(spans)]
        inside = all(
            start >= 0 and start + size <= n
            for (start, size), n in zip(reads, self.sizes.in_size, strict=True)
        )
        start, size = (tuple(values) for values in zip(*reads, strict=True))
        return Part(tuple(slice(*span) for span in spans), start, size, inside)

    def whole(self) -> Part:
        """Return the box of all outputs."""
        return self._part([(0, count) for count in self.out_size])

    def _inner(self, axis: int) -> tuple[int, int]:
        """Return the outputs of an axis that read nothing from outside: the first and the end."""
        of, count = self.sizes, self.out_size[axis]
        step, low = of.stride[axis], of.padding[axis][0]
        reach = of.dilation[axis] * (of.kernel_size[axis] - 1) + 1
        first = min(-(-low // step), count)
        return first, max(first, min((of.in_size[axis] + low - reach) // step + 1, count))

    def frame(self) -> list[Part]:
        """Return the slabs around the outputs that read nothing from outside, and their box.

        It is the last, as it reads again what the slabs read. There are none where every output
        reads something from outside.
        """
        inner = [self._inner(axis) for axis in range(self.ndim)]
        if any(first == end for first, end in inner):
            return []
        return [*self._slabs(inner), self._part(inner)]

    def _slabs(self, inner: list[tuple[int, int]]) -> Iterator[Part]:
        """Yield what lies before and behind the inner box along each axis.

        Slabs of the first axes go all along the others, so their rows are whole.
        """
        for axis, (first, end) in enumerate(inner):
            for span in ((0, first), (end, self.out_size[axis])):
                if span[0] < span[1]:
                    behind = [(0, count) for count in self.out_size[axis + 1 :]]
                    yield self._part([*inner[:axis], span, *behind])

    def can_turn(self, part: Part) -> bool:
        """Tell whether a part is a slab of few columns and more rows, with sums over channels."""
        if self.ndim < 2 or part.inside or self.sizes.layout == "channels_last":
            return False
        rows, columns = (each.stop - each.start for each in part.outputs[-2:])
        return not self.sizes.is_depthwise and columns < _MOST_TURNED and columns < rows

    def dense(self, part: Part) -> ConvProblem:
        """Return the convolution of a part."""
        layout = self.sizes.layout
        if not part.inside and layout == "strided":
            layout = "channels_first"  # as it is copied
        of = self.sizes.with_(in_size=part.size, padding=((0, 0),) * self.ndim, layout=layout)
        if not part.turned:
            return of
        names = ("in_size", "kernel_size", "stride", "dilation")
        return of.with_(**{name: turn(getattr(of, name)) for name in names})

    def copy(self, part: Part) -> PadProblem:
        """Return the copy of what a part reads."""
        of, low = self.sizes, tuple(-start for start in part.start)
        sizes = of.in_size, low, part.size
        if part.turned:
            sizes = turn(of.in_size), turn(low), turn(part.size)
        return PadProblem(
            "pad", of.batch, of.in_channels, *sizes, self.mode, self.value, of.dtype,
            "strided" if part.turned else of.layout,
        )  # fmt: skip
