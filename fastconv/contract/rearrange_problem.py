"""Arrays whose elements change their places and nothing else: what is to be moved where.

With ``C`` channels, a factor ``r`` and ``g`` groups of ``k`` channels::

    pixel_shuffle    out[n, c, h * r + a, w * r + b] = input[n, (c * r + a) * r + b, h, w]
    pixel_unshuffle  out[n, (c * r + a) * r + b, h, w] = input[n, c, h * r + a, w * r + b]
    channel_shuffle  out[n, j * g + i, ...] = input[n, i * k + j, ...]

Each is a copy along axes that are steps of both arrays: `RearrangeProblem.axes` tells them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .array_problem import ArrayProblem, Call, Operand, number, per_axis_size
from .errors import ShapeError
from .problem import MOST
from .reach import Reach, transposed_reach, window_reach

__all__ = ["Axis", "RearrangeProblem"]


class Axis(NamedTuple):
    """One axis of a copy.

    Parameters
    ----------
    size : int
        Elements along it.
    source, target : int
        Bytes from one element to the next where they are read, and where they are written.
    """

    size: int
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class RearrangeProblem(ArrayProblem):
    """One rearrangement, described by sizes alone.

    Parameters
    ----------
    op : {"pixel_shuffle", "pixel_unshuffle", "channel_shuffle"}
        The operator. Pixels are shuffled along two spatial axes, channels with one to three.
    batch, channels : int
        ``N`` and ``C`` of the input.
    in_size : tuple of int
        Samples along each spatial axis of the input.
    factor : int
        Of pixels; 1 for channels.
    groups : int
        Of channels; 1 for pixels.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type are not those of a rearrangement.

    Examples
    --------
    >>> p = RearrangeProblem("pixel_shuffle", 1, 12, (5, 7), factor=2)
    >>> p.out_shape, p.line()
    ((1, 3, 10, 14), '--op=pixel_shuffle ic12ih5iw7r2')
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    factor: int = number("r")
    groups: int = number("g")
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_axes(in_size=1)
        if self.op == "channel_shuffle":
            self._check_groups()
        else:
            self._check_factor()
        self._check_bytes()

    def _check_groups(self) -> None:
        if not 1 <= self.groups <= MOST or self.channels % self.groups:
            raise ShapeError(
                f"groups: got {self.groups} with an input of {self.channels} channels, want a "
                "divisor of the channels"
            )

    def _check_factor(self) -> None:
        name = f"{'up' if self.op == 'pixel_shuffle' else 'down'}scale_factor"
        if not 1 <= self.factor <= MOST:
            raise ShapeError(f"{name}: got {self.factor}, want at least 1")
        if len(self.in_size) != 2:
            raise ShapeError(f"input: got {len(self.in_size)} spatial axes, want height and width")
        if self.op == "pixel_shuffle" and self.channels % self.factor**2:
            raise ShapeError(
                f"input: got {self.channels} channels with {name}={self.factor}, want a multiple "
                f"of {self.factor**2}"
            )
        if self.op == "pixel_unshuffle" and any(size % self.factor for size in self.in_size):
            raise ShapeError(
                f"input: got {self.in_size} pixels with {name}={self.factor}, want height and "
                f"width to be multiples of {self.factor}"
            )

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The input."""
        return (Operand("input", (self.batch, self.channels, *self.in_size)),)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """The same elements at other places."""
        channels, size, r = self.channels, self.in_size, self.factor
        if self.op == "pixel_shuffle":
            channels, size = channels // r**2, tuple(n * r for n in size)
        elif self.op == "pixel_unshuffle":
            channels, size = channels * r**2, tuple(n // r for n in size)
        return (Operand("out", (self.batch, channels, *size)),)

    @property
    def flops(self) -> int:
        """One operation for each element that is moved."""
        return math.prod(self.out_shape)

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output pixel sees of the input along each spatial axis."""
        if self.op == "channel_shuffle":
            return ()
        block, pads = (self.factor,) * 2, ((0, 0),) * 2
        of = transposed_reach if self.op == "pixel_shuffle" else window_reach
        return of(block, block, pads, (1, 1))

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        if self.op == "channel_shuffle":
            return Call(self.op, {"groups": self.groups})
        name = "upscale_factor" if self.op == "pixel_shuffle" else "downscale_factor"
        return Call(self.op, {name: self.factor})

    def axes(self, x_strides: Sequence[int], out_strides: Sequence[int]) -> tuple[Axis, ...]:
        """Return the axes of the copy for arrays of these strides in bytes.

        Examples
        --------
        >>> p = RearrangeProblem("channel_shuffle", 1, 6, (5,), groups=2)
        >>> [tuple(axis) for axis in p.axes((120, 20, 4), (120, 20, 4))]
        [(1, 120, 120), (2, 60, 20), (3, 20, 40), (5, 4, 4)]
        """
        images = Axis(self.batch, x_strides[0], out_strides[0])
        if self.op == "channel_shuffle":
            inner, (source, target) = self.channels // self.groups, (x_strides[1], out_strides[1])
            spatial = zip(self.in_size, x_strides[2:], out_strides[2:], strict=True)
            return (
                images,
                Axis(self.groups, source * inner, target),
                Axis(inner, source, target * self.groups),
                *(Axis(*axis) for axis in spatial),
            )
        if self.op == "pixel_shuffle":
            return (images, *self._pixel_axes(self.out_shape[1], self.in_size, x_strides,
                                              out_strides))  # fmt: skip
        turned = self._pixel_axes(self.channels, self.out_shape[2:], out_strides, x_strides)
        return (images, *(Axis(axis.size, axis.target, axis.source) for axis in turned))

    def _pixel_axes(
        self, channels: int, size: Sequence[int], few: Sequence[int], many: Sequence[int]
    ) -> tuple[Axis, ...]:
        """Return the axes from the array of few pixels, whose strides are `few`, to the other."""
        r = self.factor
        return (
            Axis(channels, few[1] * r * r, many[1]),
            Axis(r, few[1] * r, many[2]),
            Axis(r, few[1], many[3]),
            Axis(size[0], few[2], many[2] * r),
            Axis(size[1], few[3], many[3] * r),
        )
