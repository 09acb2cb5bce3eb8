"""The layers that `fastconv.analysis` follows, and the window that each slides over its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex

from .contract.errors import ShapeError
from .contract.padding import normalise_padding, output_size

__all__ = [
    "Conv",
    "Layer",
    "Linear",
    "Padding",
    "Pool",
    "Size",
    "Window",
    "by",
    "describe",
    "window_of",
]

#: One whole number for every spatial axis, or one per axis.
Size = int | tuple[int, ...]
#: The paddings that `fastconv.conv2d` takes.
Padding = int | str | tuple[int | tuple[int, int], ...]


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


Layer = Conv | Pool | Linear


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


def window_of(layer: Conv | Pool, ndim: int) -> Window:
    """Return the window of a layer on `ndim` spatial axes."""
    stride = layer.kernel_size if layer.stride is None else layer.stride
    return Window.of(ndim, layer.kernel_size, stride, layer.padding, layer.dilation)


def _per_axis(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * ndim
    if len(values) != ndim or not all(isinstance(v, SupportsIndex) and int(v) >= 1 for v in values):
        raise ShapeError(f"{name}: got {value!r}, want a number of at least 1, or {ndim} of them")
    return tuple(int(number) for number in values)


def describe(layer: Layer) -> str:
    """Return a layer's sizes in words, ``conv 3x3 s2``, for a layer without a name."""
    if isinstance(layer, Linear):
        return "linear"
    words = ["conv" if isinstance(layer, Conv) else "pool", by(layer.kernel_size)]
    words += [f"s{by(layer.stride)}"] if layer.stride not in (1, None) else []
    words += [f"d{by(layer.dilation)}"] if layer.dilation != 1 else []
    return " ".join(words)


def by(sizes: Size) -> str:
    """Return sizes as people write them, ``3x3``."""
    return str(sizes) if isinstance(sizes, int) else "x".join(map(str, sizes))
