"""Sizes and costs of a stack of layers, computed from shapes alone.

For each layer: output shape, parameters, multiply-accumulates (MACs), bytes and receptive field.
Nothing is run and no array is made, so the numbers of a whole network take microseconds.

Examples
--------
The first layers of AlexNet:

>>> from fastconv.analysis import Conv, Pool, analyse
>>> report = analyse(
...     [Conv(96, 11, stride=4, name="conv1"), Pool(3, stride=2, name="pool1")], (3, 227, 227)
... )
>>> print(report)
layer    output  parameters         MACs      bytes  receptive field  step
conv1  96x55x55      34,944  105,415,200  1,919,724            11x11   4x4
pool1  96x27x27           0            0  1,441,536            19x19   8x8
total  96x27x27      34,944  105,415,200  3,361,260            19x19   8x8
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from .analysis_layers import (
    Conv,
    Layer,
    Linear,
    Padding,
    Pool,
    Size,
    Window,
    by,
    describe,
    window_of,
)
from .contract.errors import DTypeError, ShapeError
from .contract.problem import ConvProblem

__all__ = [
    "Conv",
    "Layer",
    "LayerReport",
    "Linear",
    "Pool",
    "ReceptiveField",
    "Report",
    "analyse",
    "output_size",
    "receptive_field",
]

SizeT = TypeVar("SizeT", int, tuple[int, ...])
_ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """Which input positions one output position sees, per spatial axis of the input.

    Output position ``i`` sees the inputs ``start + i * step`` up to, but not including,
    ``start + i * step + size``; those below zero or past the end are padding.

    Parameters
    ----------
    size : tuple of int
        Extent in input positions, holes of a dilation included.
    step : tuple of int
        Distance between neighbouring outputs, in input positions (the product of all strides).
    start : tuple of int
        First input position that output 0 sees; negative inside padding.
    """

    size: tuple[int, ...]
    step: tuple[int, ...]
    start: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerReport:
    """The figures of one layer, for one sample.

    Parameters
    ----------
    name : str
        The layer's name, or its sizes in words.
    input_shape, output_shape : tuple of int
        ``(C, *spatial)``, or ``(features,)`` after a `Linear`.
    parameters, macs : int
        Weights and biases; multiply-accumulates, those that meet padding included and biases not.
    bytes : int
        Input and parameters read once and output written once.
    receptive_field : ReceptiveField
        What one output sees of the stack's input.
    """

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    bytes: int
    receptive_field: ReceptiveField


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a stack: one row per layer, and their totals. `str` gives a table."""

    rows: tuple[LayerReport, ...]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the last layer's output."""
        return self.rows[-1].output_shape

    @property
    def receptive_field(self) -> ReceptiveField:
        """What one of the last layer's outputs sees of the input."""
        return self.rows[-1].receptive_field

    @property
    def parameters(self) -> int:
        """Weights and biases of all layers."""
        return sum(row.parameters for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(row.macs for row in self.rows)

    @property
    def flops(self) -> int:
        """Floating point operations, two a multiply-accumulate."""
        return 2 * self.macs

    @property
    def bytes(self) -> int:
        """Bytes that all layers move when every tensor between them goes through memory."""
        return sum(row.bytes for row in self.rows)

    def __str__(self) -> str:
        head = ("layer", "output", "parameters", "MACs", "bytes", "receptive field", "step")
        table = [head, *(_cells(row.name, row) for row in self.rows), _cells("total", self)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            for cells in table
        )


def _cells(name: str, row: LayerReport | Report) -> tuple[str, ...]:
    field = row.receptive_field
    counts = (f"{count:,}" for count in (row.parameters, row.macs, row.bytes))
    return (name, by(row.output_shape), *counts, by(field.size), by(field.step))


def analyse(
    stack: Iterable[Layer], input_shape: tuple[int, ...], *, dtype: str = "float32"
) -> Report:
    """Follow a shape through a stack of layers.

    Parameters
    ----------
    stack : iterable of Conv, Pool or Linear
        The layers in order; at least one.
    input_shape : tuple of int
        ``(C, *spatial)`` of one sample, 1 to 3 spatial axes.
    dtype : {"float32", "float64", "float16", "bfloat16"}
        Element type, for the bytes.

    Returns
    -------
    Report
        One row per layer, and totals.

    Raises
    ------
    ShapeError
        Where a layer does not fit the output of the one before; the message names the layer.
    DTypeError
        For another `dtype`.

    Examples
    --------
    A fully connected layer on 7x7x512 costs what a 7x7 convolution does:

    >>> conv, linear = analyse([Conv(4096, 7)], (512, 7, 7)), analyse([Linear(4096)], (512, 7, 7))
    >>> conv.output_shape, conv.parameters == linear.parameters, conv.macs == linear.macs
    ((4096, 1, 1), True, True)
    """
    if dtype not in _ITEM_BYTES:
        raise DTypeError(f"dtype: got {dtype!r}, want one of {', '.join(_ITEM_BYTES)}")
    if not 2 <= len(input_shape) <= 4 or min(input_shape) < 1:
        raise ShapeError(
            f"input_shape: got {input_shape!r}, want positive channels and 1 to 3 spatial sizes"
        )
    shape, field = tuple(input_shape), _input_field(len(input_shape) - 1)
    rows: list[LayerReport] = []
    for index, layer in enumerate(stack):
        name = layer.name or describe(layer)
        try:
            row = _layer_report(name, layer, shape, field, _ITEM_BYTES[dtype])
        except ShapeError as error:
            raise ShapeError(f"layer {index} ({name}): {error}") from error
        rows.append(row)
        shape, field = row.output_shape, row.receptive_field
    if not rows:
        raise ShapeError("stack: got no layers, want at least one")
    return Report(tuple(rows))


def output_size(
    in_size: SizeT,
    kernel_size: Size,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    *,
    ceil_mode: bool = False,
) -> SizeT:
    """Return the spatial size of a convolution's or a pooling's output.

    Parameters
    ----------
    in_size : int or tuple of int
        Spatial size of the input, one number per axis; the result is of the same kind.
    kernel_size, stride, padding, dilation
        As for `Conv`.
    ceil_mode : bool
        As for `Pool`.

    Returns
    -------
    int or tuple of int
        Output positions along each axis.

    Raises
    ------
    ShapeError
        Where a size is out of range or the kernel is larger than the padded input.

    Examples
    --------
    >>> output_size(256, 3, stride=2, padding=1)
    128
    >>> output_size((224, 224), (7, 7), stride=2, padding=((2, 3), (2, 3)))
    (112, 112)
    """
    if isinstance(in_size, int):
        window = Window.of(1, kernel_size, stride, padding, dilation)
        return window.positions((in_size,), ceil_mode)[0]
    window = Window.of(len(in_size), kernel_size, stride, padding, dilation)
    return window.positions(in_size, ceil_mode)


def receptive_field(stack: Iterable[Layer], ndim: int = 2) -> ReceptiveField:
    """Return what one output of a stack sees of the stack's input.

    Parameters
    ----------
    stack : iterable of Conv or Pool
        The layers in order. What a `Linear` sees depends on the input's size: `analyse` tells it.
    ndim : int
        Number of spatial axes, 1 to 3.

    Returns
    -------
    ReceptiveField
        Size, step and start, one number per axis.

    Raises
    ------
    ShapeError
        Where a layer's sizes do not fit `ndim`, and for a `Linear`.

    Examples
    --------
    Three 3x3 layers see as much as one 7x7 layer:

    >>> receptive_field([Conv(64, 3)] * 3).size
    (7, 7)
    >>> receptive_field([Conv(64, 7, stride=2, padding=3), Pool(3, stride=2, padding=1)])
    ReceptiveField(size=(11, 11), step=(4, 4), start=(-5, -5))
    """
    field = _input_field(ndim)
    for layer in stack:
        if isinstance(layer, Linear):
            raise ShapeError("stack: got a Linear, which sees its whole input; want analyse()")
        field = _seen_through(field, window_of(layer, ndim))
    return field


def _input_field(ndim: int) -> ReceptiveField:
    """Return the field of the input itself: each position sees one."""
    if ndim not in (1, 2, 3):
        raise ShapeError(f"ndim: got {ndim!r}, want 1, 2 or 3")
    return ReceptiveField((1,) * ndim, (1,) * ndim, (0,) * ndim)


def _seen_through(field: ReceptiveField, window: Window) -> ReceptiveField:
    """Return what one position sees when `window` slides over positions that see `field`."""
    axes = [
        (size + dilation * (kernel - 1) * step, step * stride, start - low * step)
        for size, step, start, kernel, stride, (low, _), dilation in zip(
            field.size, field.step, field.start, *window, strict=True
        )
    ]
    return ReceptiveField(*zip(*axes, strict=True))


def _layer_report(
    name: str, layer: Layer, shape: tuple[int, ...], field: ReceptiveField, item_bytes: int
) -> LayerReport:
    out_shape, parameters, macs, window = _cost(layer, shape, len(field.size))
    moved = item_bytes * (math.prod(shape) + parameters + math.prod(out_shape))
    seen = _seen_through(field, window)
    return LayerReport(name, shape, out_shape, parameters, macs, moved, seen)


def _cost(
    layer: Layer, shape: tuple[int, ...], ndim: int
) -> tuple[tuple[int, ...], int, int, Window]:
    """Return output shape, parameters, MACs and the window through which the layer sees."""
    if isinstance(layer, Linear):
        if layer.out_features < 1:
            raise ShapeError(f"out_features: got {layer.out_features}, want at least 1")
        weights = math.prod(shape) * layer.out_features
        # One output sees the whole map, as a kernel of the map's size would.
        window = Window.of(ndim, shape[1:] or 1, 1, 0, 1)
        return (layer.out_features,), weights + layer.bias * layer.out_features, weights, window
    if len(shape) == 1:
        raise ShapeError(f"input: got the {shape[0]} features of a Linear, want spatial axes")
    window = window_of(layer, ndim)
    if isinstance(layer, Pool):
        return (shape[0], *window.positions(shape[1:], layer.ceil_mode)), 0, 0, window
    problem = ConvProblem(1, shape[0], layer.out_channels, shape[1:], *window, layer.groups)
    parameters = math.prod(problem.weight_shape) + layer.bias * layer.out_channels
    return problem.out_shape[1:], parameters, problem.macs, window
