"""The layers that `fastconv.analysis` follows, and the figures that each has of one sample.

A layer makes the problem that a sample of some shape asks for, as a call does; what there is to
know of the operator the problem says itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex

from .contract import first_use
from .contract.arguments import per_axis
from .contract.array_problem import ARRAY_OPS, ArrayProblem
from .contract.errors import ArgumentError, ShapeError
from .contract.padding import canonical_padding, normalise_padding, output_size
from .contract.problem import ConvProblem, DenseSizes
from .contract.reach import Reach, transposed_reach, window_reach
from .contract.transposed_problem import TransposedProblem

__all__ = [
    "Conv",
    "ConvTranspose",
    "Figures",
    "Layer",
    "Linear",
    "Operator",
    "Padding",
    "Pool",
    "Size",
    "Window",
    "by",
]

#: One whole number for every spatial axis, or one per axis.
Size = int | tuple[int, ...]
#: The paddings that `fastconv.conv2d` takes.
Padding = int | str | tuple[int | tuple[int, int], ...]


class Figures(NamedTuple):
    """What a layer is and does for one sample.

    Parameters
    ----------
    out_shape : tuple of int
        ``(C, *spatial)`` or ``(features,)``.
    parameters, macs, flops, moved : int
        Weights and biases, multiply-accumulates, operations, and what is read and written, in
        elements of the sample's type.
    reach : tuple of Reach
        What an output sees along each spatial axis; empty where it sees its own place.
    """

    out_shape: tuple[int, ...]
    parameters: int
    macs: int
    flops: int
    moved: int
    reach: tuple[Reach, ...]


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution layer of 1 to 3 spatial axes.

    Parameters
    ----------
    out_channels, groups : int
        Number of filters over all groups, and number of groups.
    kernel_size, stride, dilation : int or tuple of int
        One number for every spatial axis, or one per axis.
    padding : int, 'same', 'valid', tuple of int or tuple of (low, high)
        Zeros around the input, as `fastconv.conv2d` takes it.
    bias : bool
        Whether there is one bias per filter.
    name : str
        What the report calls the layer; made from its sizes when empty.
    """

    out_channels: int
    kernel_size: Size
    stride: Size = 1
    padding: Padding = 0
    dilation: Size = 1
    groups: int = 1
    bias: bool = True
    name: str = ""

    def reach(self, ndim: int) -> tuple[Reach, ...]:
        """Return what an output sees along each of so many axes."""
        return self._window(ndim).reach()

    def figures(self, shape: tuple[int, ...], dtype: str) -> Figures:
        """Return the figures for a sample of a shape and element type."""
        window = self._window(_axes(shape))
        return _dense_figures(
            ConvProblem(1, shape[0], self.out_channels, shape[1:], *window, self.groups, dtype),
            self.bias,
        )

    def describe(self) -> str:
        """Return the sizes in words, for a layer without a name."""
        return _describe("conv", self)

    def _window(self, ndim: int) -> Window:
        return Window.of(ndim, self.kernel_size, self.stride, self.padding, self.dilation)


@dataclass(frozen=True, slots=True)
class ConvTranspose:
    """A transposed convolution layer of 1 to 3 spatial axes.

    Parameters
    ----------
    out_channels, kernel_size, stride, groups, dilation, bias, name
        As for `Conv`.
    padding : int, tuple of int or tuple of (low, high)
        What is cropped, as `fastconv.conv_transpose2d` takes it.
    output_padding : int or tuple of int
        More outputs behind the last ones.
    """

    out_channels: int
    kernel_size: Size
    stride: Size = 1
    padding: Padding = 0
    output_padding: Size = 0
    groups: int = 1
    dilation: Size = 1
    bias: bool = True
    name: str = ""

    def reach(self, ndim: int) -> tuple[Reach, ...]:
        """Return what an output sees along each of so many axes."""
        return transposed_reach(*self._window(ndim))

    def figures(self, shape: tuple[int, ...], dtype: str) -> Figures:
        """Return the figures for a sample of a shape and element type."""
        ndim = _axes(shape)
        kernel_size, stride, padding, dilation = self._window(ndim)
        extra = per_axis("output_padding", self.output_padding, ndim)
        problem = TransposedProblem(
            1, shape[0], self.out_channels, shape[1:], kernel_size, stride, padding, extra,
            dilation, self.groups, dtype,
        )  # fmt: skip
        return _dense_figures(problem, self.bias)

    def describe(self) -> str:
        """Return the sizes in words, for a layer without a name."""
        return _describe("conv_transpose", self)

    def _window(self, ndim: int) -> Window:
        if isinstance(canonical_padding(self.padding, ndim), str):
            raise ShapeError(f"padding: got {self.padding!r}, want numbers")
        return Window.of(ndim, self.kernel_size, self.stride, self.padding, self.dilation)


@dataclass(frozen=True, slots=True)
class Pool:
    """A pooling layer, maximum or average: channels stay, no parameters, no MACs.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, name
        As for `Conv`; a stride of None is the `kernel_size`.
    ceil_mode : bool
        Also keep a last window that reaches past the padded input, provided that it starts inside
        the input or its low padding, as PyTorch does.
    """

    kernel_size: Size
    stride: Size | None = None
    padding: Padding = 0
    dilation: Size = 1
    ceil_mode: bool = False
    name: str = ""

    def reach(self, ndim: int) -> tuple[Reach, ...]:
        """Return what an output sees along each of so many axes."""
        return self._window(ndim).reach()

    def figures(self, shape: tuple[int, ...], dtype: str) -> Figures:
        """Return the figures for a sample of a shape: an operation for each tap of each window."""
        window = self._window(_axes(shape))
        out = (shape[0], *window.positions(shape[1:], self.ceil_mode))
        flops = math.prod(out) * math.prod(window.kernel_size)
        return Figures(out, 0, 0, flops, math.prod(shape) + math.prod(out), window.reach())

    def describe(self) -> str:
        """Return the sizes in words, for a layer without a name."""
        return _describe("pool", self)

    def _window(self, ndim: int) -> Window:
        stride = self.kernel_size if self.stride is None else self.stride
        return Window.of(ndim, self.kernel_size, stride, self.padding, self.dilation)


@dataclass(frozen=True, slots=True)
class Linear:
    """A fully connected layer on its flattened input.

    Parameters
    ----------
    out_features : int
        Number of outputs.
    bias, name
        As for `Conv`.
    """

    out_features: int
    bias: bool = True
    name: str = ""

    def reach(self, ndim: int) -> tuple[Reach, ...]:
        """Raise: what an output sees is the whole input."""
        raise ShapeError("stack: got a Linear, which sees its whole input; want analyse()")

    def figures(self, shape: tuple[int, ...], dtype: str) -> Figures:
        """Return the figures for a sample of a shape."""
        if self.out_features < 1:
            raise ShapeError(f"out_features: got {self.out_features}, want at least 1")
        macs = math.prod(shape) * self.out_features
        parameters = macs + self.bias * self.out_features
        moved = math.prod(shape) + parameters + self.out_features
        # One output sees the whole map, as a kernel of the map's size would.
        window = Window.of(len(shape) - 1, shape[1:], 1, 0, 1)
        return Figures((self.out_features,), parameters, macs, 2 * macs, moved, window.reach())

    def describe(self) -> str:
        """Return what it is, for a layer without a name."""
        return "linear"


#: Operators that others are made of.
_PARTS = ("interleave", "pad")


class Operator:
    """Any other operator, by its name in problem lines.

    Parameters
    ----------
    op : str
        ``"max_pool"``, ``"adaptive_avg_pool"``, ``"max_unpool"``, ``"interpolate"``,
        ``"batch_norm"``, ``"group_norm"``, ``"prelu"``, ``"softmax"``, ``"pixel_shuffle"``,
        ``"deform_conv"`` and so on.
    name : str
        As for `Conv`.
    **sizes
        Fields of the operator's problem beside the sample's own: ``kernel_size``, ``out_size``,
        ``scale``, ``mode``, ``groups``, ``factor``, ``out_channels``, ``bias``. One number stands
        for every spatial axis; the stride of a pool is its kernel size where it is not told.

    Examples
    --------
    >>> from fastconv.analysis import Operator, analyse
    >>> up = Operator("interpolate", scale=2.0, mode="bilinear")
    >>> analyse([up, Operator("pixel_shuffle", factor=2)], (16, 8, 8)).output_shape
    (4, 32, 32)
    """

    __slots__ = ("name", "op", "sizes")

    def __init__(self, op: str, *, name: str = "", **sizes: Any) -> None:
        forward = [each for each in ARRAY_OPS if "_grad" not in each and each not in _PARTS]
        if op not in forward:
            raise ArgumentError(f"op: got {op!r}, want one of {', '.join(forward)}")
        self.op, self.name, self.sizes = op, name, sizes

    def __repr__(self) -> str:
        told = "".join(f", {key}={value!r}" for key, value in self.sizes.items())
        return f"Operator({self.op!r}{told})"

    def reach(self, ndim: int) -> tuple[Reach, ...]:
        """Raise: what an output sees may follow from the input's size."""
        raise ShapeError(
            f"stack: got {self.op}, whose window is known with the input's size; want analyse()"
        )

    def figures(self, shape: tuple[int, ...], dtype: str) -> Figures:
        """Return the figures for a sample of a shape and element type."""
        module, _, name = ARRAY_OPS[self.op].partition(":")
        kind: type[ArrayProblem] = getattr(first_use.load(f"fastconv.contract.{module}"), name)
        problem = kind.of_sample(self.op, shape, **self.sizes, dtype=dtype)
        out, reach = problem.out_shape[1:], problem.reach()
        if not reach and math.prod(out) == math.prod(shape):
            out = shape  # as it came: the problem may see some axes as one
        moved = problem.moved // problem.itemsize
        return Figures(out, problem.learned, problem.macs, problem.flops, moved, reach)

    def describe(self) -> str:
        """Return what it is, for a layer without a name."""
        words = [by(value) for value in self.sizes.values() if not isinstance(value, bool)]
        return " ".join([self.op, *words])


Layer = Conv | ConvTranspose | Pool | Linear | Operator


class Window(NamedTuple):
    """The sliding window of a layer, one entry per spatial axis."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @classmethod
    def of(
        cls, ndim: int, kernel_size: Size, stride: Size, padding: Padding, dilation: Size
    ) -> Window:
        """Check the arguments of a layer and spread them over `ndim` axes."""
        kernel_size = _per_axis("kernel_size", kernel_size, ndim)
        stride = _per_axis("stride", stride, ndim)
        dilation = _per_axis("dilation", dilation, ndim)
        # Of the input's size only the number of axes matters here.
        pads = normalise_padding(padding, (0,) * ndim, kernel_size, stride, dilation)
        if any(pad < 0 for pair in pads for pad in pair):
            raise ShapeError(f"padding: got {padding!r}, want no negative value")
        return cls(kernel_size, stride, pads, dilation)

    def positions(self, in_size: Sequence[int], ceil_mode: bool = False) -> tuple[int, ...]:
        """Return how many places the window has along each axis of an input."""
        counts = []
        for size, kernel, stride, (low, high), dilation in zip(in_size, *self, strict=True):
            count = output_size(size, kernel, stride, (low, high), dilation)
            left_over = (size + low + high - dilation * (kernel - 1) - 1) % stride
            if ceil_mode and left_over and count * stride < size + low:
                count += 1
            if size < 1 or count < 1:
                raise ShapeError(
                    f"kernel_size: got {kernel} with dilation {dilation} over {low} + {size} + "
                    f"{high} positions, want a kernel that fits into the padded input"
                )
            counts.append(count)
        return tuple(counts)

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output sees along each axis."""
        return window_reach(*self)


def _dense_figures(problem: DenseSizes, bias: bool) -> Figures:
    parameters = math.prod(problem.weight_shape) + bias * problem.out_channels
    moved = math.prod(problem.x_shape) + parameters + math.prod(problem.out_shape)
    return Figures(
        problem.out_shape[1:], parameters, problem.macs, problem.flops, moved, problem.reach()
    )


def _axes(shape: tuple[int, ...]) -> int:
    """Return how many spatial axes a sample has, else raise."""
    if len(shape) == 1:
        raise ShapeError(f"input: got the {shape[0]} features of a Linear, want spatial axes")
    return len(shape) - 1


def _per_axis(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * ndim
    if len(values) != ndim or not all(isinstance(v, SupportsIndex) and int(v) >= 1 for v in values):
        raise ShapeError(f"{name}: got {value!r}, want a number of at least 1, or {ndim} of them")
    return tuple(int(number) for number in values)


def _describe(kind: str, layer: Conv | ConvTranspose | Pool) -> str:
    """Return a layer's sizes in words, ``conv 3x3 s2``."""
    words = [kind, by(layer.kernel_size)]
    words += [f"s{by(layer.stride)}"] if layer.stride not in (1, None) else []
    words += [f"d{by(layer.dilation)}"] if layer.dilation != 1 else []
    return " ".join(words)


def by(sizes: Any) -> str:
    """Return sizes as people write them, ``3x3``."""
    return "x".join(map(str, sizes)) if isinstance(sizes, (tuple, list)) else str(sizes)
