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
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import ShapeError
from .padding import Pads
from .problem import MOST, ConvProblem, DenseSizes
from .reach import Reach, transposed_reach

__all__ = ["Phase", "Stack", "TransposedProblem", "input_gradient"]


#: Bytes of the products of a band: what two cores' L2 hold; and of outputs that a cache holds.
_BAND_BYTES, _MOST_BYTES = 1 << 20, 8 << 20


class _AxisPhase(NamedTuple):
    """A phase along one axis."""

    taps: slice
    samples: slice
    outputs: slice
    padding: tuple[int, int]
    dilation: int


class Phase(NamedTuple):
    """One dense convolution of a transposed one.

    Parameters
    ----------
    taps : tuple of slice or None
        Along each axis the taps, in the order in which the dense convolution has them; None of the
        phase of all outputs, which gives them the bias where no tap reaches some.
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


class Stack(NamedTuple):
    """All phases as one dense convolution, whose channels are interleaved into pixels.

    Its window reaches over those of all phases, and each filter has zeros where its phase has none.

    Parameters
    ----------
    samples, padding : tuple
        Along each axis the samples that are read, and the zeros before and after them.
    taps : tuple of ndarray, each of shape (phases, window)
        Along each axis, for each phase by the first output that it writes and for each place of the
        window, the tap of the kernel; -1 where there is none.
    """

    samples: tuple[slice, ...]
    padding: Pads
    taps: tuple[NDArray[np.intp], ...]

    @property
    def kernel(self) -> tuple[int, ...]:
        """The window's size."""
        return tuple(taps.shape[1] for taps in self.taps)


@dataclass(frozen=True, slots=True)
class TransposedProblem(DenseSizes):
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
    ...     starts = [outputs.start for outputs in phase.outputs]
    ...     print(starts, [len(range(*taps.indices(3))) for taps in phase.taps])
    [1, 1] [2, 2]
    [1, 0] [2, 1]
    [0, 1] [1, 2]
    [0, 0] [1, 1]
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
        self._fill(stride=1, dilation=1, output_padding=0, padding=(0, 0))
        self._check_sizes()
        self._check_output()
        self._check_bytes()

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
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, ``(C, K / groups, *kernel)``."""
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, counting those of outputs that padding crops."""
        return math.prod(self.x_shape) * math.prod(self.weight_shape[1:])

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output position sees of the input along each spatial axis."""
        return transposed_reach(self.kernel_size, self.stride, self.padding, self.dilation)

    def phases(self) -> Iterator[Phase]:
        """Yield the dense convolutions that together write every output.

        Where no tap reaches some outputs, the first one gives the bias to all of them.
        """
        along = [
            list(_axis_phases(*axis))
            for axis in zip(
                self.in_size, self.out_size, self.kernel_size, self.stride, self.padding,
                self.dilation, strict=True,
            )
        ]  # fmt: skip
        reached = [sum(len(range(*each.outputs.indices(size))) for each in axis)
                   for axis, size in zip(along, self.out_size, strict=True)]  # fmt: skip
        if tuple(reached) != self.out_size:
            nothing, everything = slice(0, 0), (slice(None),) * self.ndim
            pads = tuple((size, 0) for size in self.out_size)
            yield Phase(None, (nothing,) * self.ndim, everything, pads, (1,) * self.ndim)
        for axes in itertools.product(*along):
            yield Phase(*(tuple(part) for part in zip(*axes, strict=True)))

    @property
    def is_woven(self) -> bool:
        """Whether phases are written side by side and interleaved by whole vectors.

        They are as large as one another then, pixels of a row contiguous, and a cache holds all.
        """
        along = zip(self.out_size, self.stride, self.kernel_size, self.dilation, strict=True)
        return (
            self.layout == "channels_first"
            and self.stride[-1] > 1
            and math.prod(self.out_shape) * self.itemsize <= _MOST_BYTES
            and all(n % s == 0 and k >= s and math.gcd(s, d) == 1 for n, s, k, d in along)
        )

    @property
    def is_product(self) -> bool:
        """Whether samples make boxes of outputs of their own: a stack whose window has one tap."""
        return (
            self.kernel_size == self.stride
            and self.stride[-1] > 1
            and set(self.dilation) == {1}
            and not any(map(sum, self.padding))
            and not any(self.output_padding)
            and self.layout == "channels_first"
        )

    def stack(self) -> Stack | None:
        """Return the phases as one convolution; None where they can not, or better not, be one."""
        if not (self.is_product or (self.is_woven and set(self.dilation) == {1})):
            return None
        along = [
            _stack_axis(*axis)
            for axis in zip(
                self.in_size, self.out_size, self.kernel_size, self.stride, self.padding,
                strict=True,
            )
        ]  # fmt: skip
        samples, padding, taps = zip(*along, strict=True)
        return Stack(samples, padding, taps) if all(s.start < s.stop for s in samples) else None

    def bands(self) -> list[slice]:
        """Return the rows of samples, along the first axis, whose outputs are made at once."""
        size = self.in_size[0]
        if not self.is_product:
            return [slice(0, size)]
        row = math.prod(self.out_shape) // size * self.itemsize
        count = -(-size // max(1, _BAND_BYTES // max(1, row)))
        rows = -(-size // count)
        return [slice(start, min(start + rows, size)) for start in range(0, size, rows)]

    def stacked(self, stack: Stack, rows: slice) -> ConvProblem:
        """Return the convolution of a stack that a band of samples goes through."""
        size = tuple(each.stop - each.start for each in stack.samples)
        if self.is_product:
            size = (rows.stop - rows.start, *size[1:])
        return ConvProblem(
            self.batch, self.in_channels, self.out_channels * math.prod(self.stride), size,
            stack.kernel, padding=stack.padding, groups=self.groups, dtype=self.dtype,
            device=self.device,
        )  # fmt: skip

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


def input_gradient(problem: ConvProblem) -> TransposedProblem:
    """Return the gradient of a convolution for its input: of the output's gradient, transposed.

    Samples that the last step of the stride passed over are its output padding.

    Examples
    --------
    >>> of = ConvProblem(1, 8, 16, (10, 10), (3, 3), (2, 2), ((1, 1), (1, 1)))
    >>> input_gradient(of).line()
    '--op=conv_transpose ic16ih5oc8oh10kh3sh2ph1'
    """
    left = tuple(
        n + low + high - d * (k - 1) - 1 - (o - 1) * s
        for n, (low, high), d, k, o, s in zip(
            problem.in_size, problem.padding, problem.dilation, problem.kernel_size,
            problem.out_size, problem.stride, strict=True,
        )
    )  # fmt: skip
    return TransposedProblem(
        problem.batch, problem.out_channels, problem.in_channels, problem.out_size,
        problem.kernel_size, problem.stride, problem.padding, left, problem.dilation,
        problem.groups, problem.dtype, problem.layout, problem.device,
    )  # fmt: skip


def _stack_axis(
    samples: int, outputs: int, kernel: int, stride: int, pads: tuple[int, int]
) -> tuple[slice, tuple[int, int], NDArray[np.intp]]:
    """Return what a stack reads along one axis, its padding, and the taps of its window.

    Tap ``t`` reaches output ``stride * o + phase`` from sample ``o + (phase + pad - t) / stride``,
    for the one phase for which that is whole.
    """
    taps = np.arange(kernel)
    phase = (taps - pads[0]) % stride
    place = (phase + pads[0] - taps) // stride
    low = int(place.min())
    window = np.full((stride, int(place.max()) - low + 1), -1)
    window[phase, place - low] = taps
    end = low + outputs // stride - 1 + window.shape[1]
    read = slice(max(low, 0), min(end, samples))
    return read, (read.start - low, end - read.stop), window


def _axis_phases(
    samples: int, outputs: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int
) -> Iterator[_AxisPhase]:
    """Yield the phases of one axis that have taps and outputs.

    Tap ``t`` reaches full position ``f`` from sample ``(f - dilation * t) / stride`` where that is
    whole. ``dilation * t`` leaves as many remainders as taps until it repeats them, and those of a
    phase are so many taps apart.
    """
    common = math.gcd(stride, dilation)
    between, hole = stride // common, dilation // common
    for first in range(min(between, kernel)):
        start = (dilation * first - pads[0]) % stride
        if start >= outputs:
            continue
        count = (outputs - 1 - start) // stride + 1
        taps = (kernel - 1 - first) // between + 1
        # The samples of the first output's last tap and of the last output's first one.
        newest = (start + pads[0] - dilation * first) // stride
        begin, end = newest - (taps - 1) * hole, newest + count
        low, high = max(begin, 0), min(end, samples)
        padding = (low - begin, end - high)
        if low >= high:  # padding alone
            low, high, padding = 0, 0, (end - begin, 0)
        last = first + (taps - 1) * between
        yield _AxisPhase(
            slice(last, first - between if first >= between else None, -between),
            slice(low, high), slice(start, None, stride), padding, hole,
        )  # fmt: skip
