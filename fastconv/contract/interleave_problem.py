"""Maps of phases put between each other: what a transposed convolution ends with.

With ``C`` channels and steps ``s``, one an axis::

    out[n, c, i * s + a] = input[n, c * prod(s) + a, i]     a, i and s by axis, a counted row by row

Of two axes and one step it is a pixel shuffle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .array_problem import ArrayProblem, Call, Operand, number, per_axis_size
from .errors import ShapeError
from .rearrange_problem import Axis

__all__ = ["InterleaveProblem"]


@dataclass(frozen=True, slots=True)
class InterleaveProblem(ArrayProblem):
    """Maps to interleave, described by sizes alone.

    Parameters
    ----------
    op : {"interleave"}
        The operator.
    batch, channels : int
        ``N`` and the channels of the input: a multiple of all steps.
    in_size, stride : tuple of int
        One entry a spatial axis, 1 to 3 axes: samples, and outputs from one to the next.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type do not fit.

    Examples
    --------
    >>> p = InterleaveProblem("interleave", 1, 12, (5, 7), (2, 3))
    >>> p.out_shape, p.line()
    ((1, 2, 10, 21), '--op=interleave ic12ih5iw7sh2sw3')
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    stride: tuple[int, ...] = per_axis_size("s", 1)
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._fill(stride=1)
        self._check_kind()
        self._check_axes(in_size=1, stride=1)
        if self.channels % math.prod(self.stride):
            raise ShapeError(
                f"input: got {self.channels} channels with stride={self.stride}, want a multiple "
                f"of {math.prod(self.stride)}"
            )
        self._check_bytes()

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The maps."""
        return (Operand("input", (self.batch, self.channels, *self.in_size)),)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """The same elements at other places."""
        size = (n * step for n, step in zip(self.in_size, self.stride, strict=True))
        channels = self.channels // math.prod(self.stride)
        return (Operand("out", (self.batch, channels, *size)),)

    @property
    def flops(self) -> int:
        """One operation for each element that is moved."""
        return math.prod(self.out_shape)

    def call(self) -> Call:
        """Return the function that computes it, and its keyword arguments."""
        return Call("ops.rearrange.interleave", {"stride": self.stride})

    def axes(self, x_strides: Sequence[int], out_strides: Sequence[int]) -> tuple[Axis, ...]:
        """Return the axes of the copy for arrays of these strides in bytes."""
        phase, phases = x_strides[1], []
        for step, target in zip(reversed(self.stride), reversed(out_strides[2:]), strict=True):
            phases.append(Axis(step, phase, target))
            phase *= step
        pixels = (
            Axis(size, source, target * step)
            for size, step, source, target in zip(
                self.in_size, self.stride, x_strides[2:], out_strides[2:], strict=True
            )
        )
        return (
            Axis(self.batch, x_strides[0], out_strides[0]),
            Axis(self.out_shape[1], phase, out_strides[1]),
            *reversed(phases),
            *pixels,
        )
