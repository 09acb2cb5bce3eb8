"""Two convolutions in a row, the second of the first one's output, and the bands they are made by.

A depthwise layer and its 1x1, or ``k x 1`` and ``1 x k``. What lies between them, the middle, is
written and read once each. Where it is larger than the caches it is made by bands of rows: of an
output's rows the second convolution reads some rows of the middle, and those are made of some rows
of the input. Rows that two bands read are kept, none is made twice.

After L. Sifre and S. Mallat, "Rigid-motion scattering for texture classification" (2014),
arXiv:1403.1687, and C. Szegedy et al., "Rethinking the Inception architecture for computer vision"
(2015), arXiv:1512.00567.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import first_use
from .errors import ShapeError
from .problem import ConvProblem

__all__ = ["Band", "PairProblem"]

#: Bytes of a middle that is made at once, and of a band of a larger one.
_WHOLE_BYTES, _BAND_BYTES = 4 << 20, 2 << 20

#: Bands in which an image's edge passes by all taps of the first convolution, at most: each of them
#: is of a kind of its own.
_EDGE = 8

_Pads = tuple[int, int]


class Band(NamedTuple):
    """What of a pair is made at once: rows are those of the first spatial axis.

    Parameters
    ----------
    images : slice
        Along the batch.
    outputs, middle : slice
        Rows of the output, and those of the middle that they read.
    kept : int
        How many of these, the first ones, an earlier band made.
    samples : slice
        Rows of the input that the others are made of.
    first_padding, second_padding : (int, int)
        Zeros before and after the rows that each convolution reads.
    """

    images: slice
    outputs: slice
    middle: slice
    kept: int
    samples: slice
    first_padding: _Pads
    second_padding: _Pads

    @property
    def kind(self) -> tuple[Any, ...]:
        """What bands have in common that are computed alike, at other places."""
        sizes = (part.stop - part.start for part in (self.images, self.outputs, self.middle))
        samples = self.samples.stop - self.samples.start
        return (*sizes, self.kept, samples, self.first_padding, self.second_padding)


@dataclass(frozen=True, slots=True)
class PairProblem:
    """Two convolutions in a row, described by sizes alone.

    Parameters
    ----------
    first, second : ConvProblem
        The convolutions; the second one's input is the first one's output. What lies between is of
        the element type of both, and channels-last where the input is.
    op : {"conv_pair"}
        The operator.

    Raises
    ------
    ShapeError
        Where the second convolution is not of the first one's output.

    Examples
    --------
    >>> depthwise = ConvProblem(1, 32, 32, (56, 56), (3, 3), padding=((1, 1), (1, 1)), groups=32)
    >>> pair = PairProblem(depthwise, ConvProblem(1, 32, 64, (56, 56), (1, 1)))
    >>> pair.out_shape, pair.line(), pair.is_separable
    ((1, 64, 56, 56), '--op=conv_pair g32ic32ih56oc32oh56kh3ph1+oc64oh56kh1', True)
    >>> [(band.outputs, band.kept) for band in pair.bands()]
    [(slice(0, 56, None), 0)]
    """

    first: ConvProblem
    second: ConvProblem
    op: str = "conv_pair"

    def __post_init__(self) -> None:
        first = self.first
        layout = "channels_last" if first.layout == "channels_last" else "channels_first"
        object.__setattr__(self, "second", self.second.with_(layout=layout))
        for of in (first, self.second):
            if of.op != "conv":
                raise ShapeError(f"op: got {of.op!r} in a pair, want conv")
        if first.out_shape != self.second.x_shape:
            raise ShapeError(
                f"second convolution: got an input of {self.second.x_shape}, want "
                f"{first.out_shape}, the first one's output"
            )
        if (first.dtype, first.device) != (self.second.dtype, self.second.device):
            raise ShapeError(
                "second convolution: got another element type or device, want the same"
            )

    @property
    def dtype(self) -> str:
        """Element type of all arrays."""
        return self.first.dtype

    @property
    def layout(self) -> str:
        """Memory order of the input."""
        return self.first.layout

    @property
    def device(self) -> str:
        """Where the arrays live."""
        return self.first.device

    @property
    def weight_dtype(self) -> str:
        """Element type of weights and biases."""
        return self.first.dtype

    @property
    def result_dtype(self) -> str:
        """Element type of the output."""
        return self.first.dtype

    @property
    def itemsize(self) -> int:
        """Bytes of one stored element."""
        return self.first.itemsize

    @property
    def batch(self) -> int:
        """Images."""
        return self.first.batch

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return self.first.ndim

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the input."""
        return self.first.x_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output."""
        return self.second.out_shape

    @property
    def macs(self) -> int:
        """Multiply-accumulates of both, each row of the middle made once."""
        return self.first.macs + self.second.macs

    @property
    def flops(self) -> int:
        """Floating point operations, two a multiply-accumulate."""
        return 2 * self.macs

    @property
    def is_separable(self) -> bool:
        """Whether it is a depthwise layer followed by one of a single tap: depthwise separable."""
        one = (1,) * self.ndim
        second = self.second
        return (
            self.first.is_depthwise
            and second.kernel_size == second.stride == one
            and second.groups == 1
            and not any(map(sum, second.padding))
        )

    def with_(self, **changes: Any) -> PairProblem:
        """Return a copy whose convolutions have some fields replaced, both alike."""
        return PairProblem(self.first.with_(**changes), self.second.with_(**changes))

    def line(self, name: str = "") -> str:
        """Return the problem as one line, which `problem_line.parse_any_line` reads back."""
        grammar = first_use.load("fastconv.contract.problem_line")
        return str(grammar.format_line(self, name))

    def _step(self) -> tuple[int, int]:
        """Return how many images, and how many rows of their outputs, a band has."""
        shape, outputs = self.second.x_shape, self.second.out_size[0]
        image = math.prod(shape[1:]) * self.itemsize
        if image <= _WHOLE_BYTES:
            return _evenly(self.batch, _WHOLE_BYTES // max(1, image)), outputs
        rows = _BAND_BYTES // max(1, image // shape[2])
        stride, reach = self.second.stride[0], _reach(self.second)
        edge = -(-_reach(self.first) // (_EDGE * self.first.stride[0] * stride))
        # What is kept is copied, and so not more than what is new.
        least = max(edge, (reach - 1) // stride)
        most = outputs // max(1, least)
        count = min(-(-outputs // max(1, (rows - reach) // stride + 1)), max(1, most))
        return 1, -(-outputs // count)

    def is_one(self, band: Band) -> bool:
        """Whether a band reads all of the input and makes all of the output."""
        samples, outputs = slice(0, self.first.in_size[0]), slice(0, self.second.out_size[0])
        whole = slice(0, self.batch), outputs, samples
        return (band.images, band.outputs, band.samples) == whole

    @property
    def band_count(self) -> int:
        """Number of bands."""
        images, rows = self._step()
        return -(-self.batch // max(1, images)) * -(-self.second.out_size[0] // rows)

    def bands(self) -> Iterator[Band]:
        """Yield the bands, top to bottom and image after image."""
        images, rows = self._step()
        size = self.second.out_size[0]
        for image in range(0, self.batch, max(1, images)):
            made = 0
            for start in range(0, size, rows):
                band = self._band(
                    slice(image, min(image + images, self.batch)),
                    slice(start, min(start + rows, size)),
                    made,
                )
                made = max(made, band.middle.stop)
                yield band

    def _band(self, images: slice, outputs: slice, made: int) -> Band:
        """Return one band, of whose middle the rows before `made` are there."""
        middle, second_padding = _reads(self.second, outputs)
        kept = min(max(0, made - middle.start), middle.stop - middle.start)
        samples, first_padding = _reads(self.first, slice(middle.start + kept, middle.stop))
        return Band(images, outputs, middle, kept, samples, first_padding, second_padding)

    @property
    def band_bytes(self) -> int:
        """Bytes of the middle of a band."""
        band = next(self.bands(), None)
        if band is None:
            return 0
        row = math.prod(self.second.x_shape[1:]) // self.second.in_size[0] * self.itemsize
        images = band.images.stop - band.images.start
        return images * (band.middle.stop - band.middle.start) * row

    def kinds(self) -> Iterator[tuple[Band, int]]:
        """Yield bands and how many are computed alike; of some kinds more than one comes.

        It takes no more time for more bands.
        """
        images, rows = self._step()
        if not self.batch:
            return
        middle, size = self.first.out_size[0], self.second.out_size[0]
        groups = -(-self.batch // images)

        def numbered(group: int, number: int) -> Band:
            start, image = number * rows, group * images
            made = _reads(self.second, slice(0, start))[0].stop
            batch = slice(image, min(image + images, self.batch))
            return self._band(batch, slice(start, min(start + rows, size)), made)

        def alike(group: int, number: int) -> Hashable:
            band = numbered(group, number)
            # Zeros after the last row count for others than those before the first.
            return band.kind, band.middle.start < middle, band.samples.start < self.first.in_size[0]

        for group, repeats in {0: groups - 1, groups - 1: 1}.items():
            for first, count in _runs(0, -(-size // rows) - 1, functools.partial(alike, group)):
                yield numbered(group, first), count * repeats

    def parts(self, band: Band) -> tuple[ConvProblem | None, ConvProblem]:
        """Return the convolutions of a band; the first is None where nothing is new."""
        second = _part(self.second, band.images, band.middle, band.second_padding)
        if band.middle.stop - band.middle.start == band.kept:
            return None, second
        return _part(self.first, band.images, band.samples, band.first_padding), second


def _evenly(size: int, most: int) -> int:
    """Return into how large parts a size is cut: as few as possible, of about the same size."""
    count = -(-size // max(1, most))
    return -(-size // max(1, count))


def _runs(first: int, last: int, key: Callable[[int], Hashable]) -> Iterator[tuple[int, int]]:
    """Yield where numbers of equal keys begin and how many there are; no key comes back later."""
    if key(first) == key(last):
        yield first, last - first + 1
    else:
        half = (first + last) // 2
        yield from _runs(first, half, key)
        yield from _runs(half + 1, last, key)


def _reach(of: ConvProblem) -> int:
    """Return how many rows of its input an output reads, the holes between them too."""
    return of.dilation[0] * (of.kernel_size[0] - 1) + 1


def _reads(of: ConvProblem, outputs: slice) -> tuple[slice, _Pads]:
    """Return the rows of a convolution's input that rows of its output read, and zeros around."""
    if outputs.stop <= outputs.start:
        return slice(0, 0), (0, 0)
    begin = outputs.start * of.stride[0] - of.padding[0][0]
    end = (outputs.stop - 1) * of.stride[0] - of.padding[0][0]
    end += _reach(of)
    low, high = max(begin, 0), min(end, of.in_size[0])
    if low >= high:  # zeros alone
        edge = min(low, of.in_size[0])
        return slice(edge, edge), (end - begin, 0)
    return slice(low, high), (low - begin, end - high)


def _part(of: ConvProblem, images: slice, rows: slice, padding: _Pads) -> ConvProblem:
    """Return the part of a convolution that reads some rows of some images."""
    return of.with_(
        batch=images.stop - images.start,
        in_size=(rows.stop - rows.start, *of.in_size[1:]),
        padding=(padding, *of.padding[1:]),
    )
