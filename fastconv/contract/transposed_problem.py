"""A transposed convolution: what is to be computed, and the dense convolutions that it is made of.

It is the gradient of a convolution with respect to its input: position ``f = stride * i + dilation
* t`` of the full result takes ``weight[t] * x[i]``, and padding crops what it has at both ends.
Outputs whose ``f`` leave the same remainder modulo the stride, a *phase*, meet the same taps, and
along them the samples that they read move by one from output to output. So each phase is a dense
convolution of stride 1 with its own part of the kernel, reversed, and writes every stride-th
output: no zeros are put between the samples, and no sum is scattered.

After W. Shi et al., "Is the deconvolution layer the same as a convolutional layer?" (2016),
arXiv:1609.07009.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from . import first_use
from .errors import ShapeError
from .padding import Pads
from .problem import MOST, ConvProblem, ElementSizes, check_bytes, check_sizes

__all__ = ["Phase", "TransposedProblem"]


class _AxisPhase(NamedTuple):
    """A phase along one axis; `samples` and `outputs` are what a range or a slice is made of."""

    taps: slice | None
    samples: tuple[int, int]
    outputs: tuple[int, int, int]
    padding: tuple[int, int]
    dilation: int


class Phase(NamedTuple):
    """One dense convolution of a transposed one.

    Parameters
    ----------
    taps : tuple of slice or None
        Along each axis the taps, in the order in which the dense convolution has them; None where
        no tap reaches these outputs, which are then the bias alone.
    samples, outputs : tuple of slice
        Along each axis the samples that it reads and the outputs that it writes.
    padding : tuple of (int, int)
        Zeros before and after those samples.
    dilation : tuple of int
        Step between its taps, in samples.
    """

    taps: tuple[slice, ...] | None
    samples: tuple[slice, ...]
    outputs: tuple[slice, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TransposedProblem(ElementSizes):
    """One transposed convolution, described by sizes alone.

    Parameters
    ----------
    batch, in_channels, out_channels : int
        ``N``, ``C`` and ``K``, the channels counted over all groups.
    in_size, kernel_size, stride, dilation, output_padding : tuple of int
        One entry per spatial axis, 1 to 3 axes.
    padding : tuple of (int, int)
        Positions that are cropped before and after each spatial axis of the full result.
    groups, dtype, layout, device
        As for `ConvProblem`.
    op : {"conv_transpose"}
        The operator.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type are not a valid transposed convolution.

    Examples
    --------
    >>> of = TransposedProblem(1, 8, 3, (5, 5), (3, 3), (2, 2), ((1, 1), (1, 1)))
    >>> of.x_shape, of.weight_shape, of.out_shape
    ((1, 8, 5, 5), (8, 3, 3, 3), (1, 3, 9, 9))
    >>> of.line()
    '--op=conv_transpose ic8ih5oc3oh9kh3sh2ph1'
    >>> for phase in of.phases():
    ...     print(phase.outputs, [len(range(*taps.indices(3))) for taps in phase.taps])
    (slice(0, 9, 2), slice(0, 9, 2)) [1, 1]
    (slice(0, 9, 2), slice(1, 9, 2)) [1, 2]
    (slice(1, 9, 2), slice(0, 9, 2)) [2, 1]
    (slice(1, 9, 2), slice(1, 9, 2)) [2, 2]
    """

    batch: int
    in_channels: int
    out_channels: int
    in_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: Pads = ()
    output_padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"
    op: str = "conv_transpose"

    def __post_init__(self) -> None:
        ndim = len(self.in_size)
        defaults = (("stride", 1), ("dilation", 1), ("output_padding", 0), ("padding", (0, 0)))
        for name, default in defaults:
            if not getattr(self, name):
                object.__setattr__(self, name, (default,) * ndim)
        check_sizes(self)
        self._check_output()
        check_bytes(self)

    def _check_output(self) -> None:
        for name in ("output_padding", "padding"):
            values = getattr(self, name)
            if len(values) != self.ndim:
                raise ShapeError(f"{name}: got {len(values)} values {values}, want {self.ndim}")
        numbers = {"output_padding": self.output_padding, "padding": sum(self.padding, ())}
        for name, entries in numbers.items():
            if not 0 <= min(entries) <= max(entries) <= MOST:
                raise ShapeError(
                    f"{name}: got {getattr(self, name)}, want every value from 0 to 2**47"
                )
        along = zip(self.output_padding, self.stride, self.dilation, strict=True)
        if any(extra >= max(step, hole) for extra, step, hole in along):
            raise ShapeError(
                f"output_padding: got {self.output_padding}, want every value below the stride "
                f"{self.stride} or the dilation {self.dilation} of its axis"
            )
        if min(*self.in_size, *self.out_size) < 1:
            raise ShapeError(
                f"input: got a size of {self.in_size} and padding={self.padding}, which leave an "
                f"output of {self.out_size}, want at least one position along each axis"
            )

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 1 to 3."""
        return len(self.in_size)

    @property
    def out_size(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        return tuple(
            (size - 1) * step - low - high + hole * (taps - 1) + extra + 1
            for size, step, (low, high), hole, taps, extra in zip(
                self.in_size, self.stride, self.padding, self.dilation, self.kernel_size,
                self.output_padding, strict=True,
            )
        )  # fmt: skip

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the input, ``(N, C, *spatial)``."""
        return (self.batch, self.in_channels, *self.in_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, ``(C, K / groups, *kernel)``."""
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output, ``(N, K, *spatial)``."""
        return (self.batch, self.out_channels, *self.out_size)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, counting those of outputs that padding crops."""
        return math.prod(self.x_shape) * math.prod(self.weight_shape[1:])

    @property
    def flops(self) -> int:
        """Floating point operations, two a multiply-accumulate."""
        return 2 * self.macs

    def with_(self, **changes: Any) -> TransposedProblem:
        """Return a copy with some fields replaced (and checked again)."""
        return replace(self, **changes)

    def line(self, name: str = "") -> str:
        """Return the problem as one line, which `problem_line.parse_line` reads back."""
        grammar = first_use.load("fastconv.contract.problem_line")
        return str(grammar.format_line(self, name))

    def phases(self) -> Iterator[Phase]:
        """Yield the dense convolutions that together write every output once."""
        along = [
            list(_axis_phases(*axis))
            for axis in zip(
                self.in_size, self.out_size, self.kernel_size, self.stride, self.padding,
                self.dilation, strict=True,
            )
        ]  # fmt: skip
        for axes in itertools.product(*along):
            yield _join(axes)

    def dense(self, phase: Phase) -> ConvProblem:
        """Return the problem of one of its phases."""
        one = (slice(0, 1),) * self.ndim
        kernel = tuple(
            len(range(*taps.indices(size)))
            for taps, size in zip(phase.taps or one, self.kernel_size, strict=True)
        )
        return ConvProblem(
            self.batch, self.in_channels, self.out_channels,
            tuple(samples.stop - samples.start for samples in phase.samples), kernel,
            (1,) * self.ndim, phase.padding, phase.dilation, self.groups, self.dtype, self.layout,
            self.device,
        )  # fmt: skip


def _axis_phases(
    samples: int, outputs: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int
) -> Iterator[_AxisPhase]:
    """Yield the phases of one axis, those without outputs left out.

    Tap ``t`` reaches full position ``f`` from sample ``(f - dilation * t) / stride`` where that is
    whole: of a phase for every ``stride / gcd``-th tap, if for any.
    """
    common = math.gcd(stride, dilation)
    for start in range(min(stride, outputs)):
        count = (outputs - 1 - start) // stride + 1
        full = start + pads[0]
        between, hole = stride // common, dilation // common
        first = next((t for t in range(min(between, kernel))
                      if (full - dilation * t) % stride == 0), None)  # fmt: skip
        targets = (start, outputs, stride)
        if first is None:
            yield _AxisPhase(None, (0, 0), targets, (0, 0), 1)
            continue
        taps = (kernel - 1 - first) // between + 1
        newest = (full - dilation * first) // stride  # the sample of the first output's first tap
        begin, end = newest - (taps - 1) * hole, newest + count
        low, high = max(begin, 0), min(end, samples)
        if low >= high:  # padding alone
            low = high = 0
            padding = (end - begin, 0)
        else:
            padding = (low - begin, end - high)
        last = first + (taps - 1) * between
        backwards = slice(last, first - between if first >= between else None, -between)
        yield _AxisPhase(backwards, (low, high), targets, padding, hole)


def _join(axes: tuple[_AxisPhase, ...]) -> Phase:
    """Return the phase of all axes; without taps along one of them there are none."""
    outputs = tuple(slice(*axis.outputs) for axis in axes)
    if any(axis.taps is None for axis in axes):
        counts = (len(range(*axis.outputs)) for axis in axes)
        nothing = (slice(0, 0),) * len(axes)
        return Phase(None, nothing, outputs, tuple((n, 0) for n in counts), (1,) * len(axes))
    return Phase(
        tuple(axis.taps for axis in axes if axis.taps),
        tuple(slice(*axis.samples) for axis in axes),
        outputs,
        tuple(axis.padding for axis in axes),
        tuple(axis.dilation for axis in axes),
    )
