"""Sizes and costs of a stack of layers, computed from shapes alone.

For each layer: output shape, parameters, multiply-accumulates (MACs), operations (FLOPs; two a
multiply-accumulate, and what pools, norms and activations do instead), bytes and receptive field.
Nothing is run and no array is made, so the numbers of a whole network take microseconds.

Examples
--------
The first layers of AlexNet:

>>> from fastconv.analysis import Conv, Pool, analyse
>>> report = analyse(
...     [Conv(96, 11, stride=4, name="conv1"), Pool(3, stride=2, name="pool1")], (3, 227, 227)
... )
>>> print(report)
layer    output  parameters         MACs        FLOPs      bytes  receptive field  step
conv1  96x55x55      34,944  105,415,200  210,830,400  1,919,724            11x11   4x4
pool1  96x27x27           0            0      629,856  1,441,536            19x19   8x8
total  96x27x27      34,944  105,415,200  211,460,256  3,361,260            19x19   8x8

A decoder's: an output of a layer that enlarges sees a step of less than one further on.

>>> from fastconv.analysis import ConvTranspose, Operator
>>> stack = [ConvTranspose(8, 4, stride=2, padding=1), Operator("interpolate", scale=2.0)]
>>> print(analyse(stack, (16, 8, 8)))
layer                 output  parameters     MACs    FLOPs   bytes  receptive field     step
conv_transpose 4 s2  8x16x16       2,056  131,072  262,144  20,512              2x2  1/2x1/2
interpolate 2.0      8x32x32           0        0    8,192  40,960              2x2  1/4x1/4
total                8x32x32       2,056  131,072  270,336  61,472              2x2  1/4x1/4
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from .analysis_layers import (
    Conv,
    ConvTranspose,
    Layer,
    Linear,
    Operator,
    Padding,
    Pool,
    Size,
    Window,
    by,
)
from .contract.errors import ArgumentError, DTypeError, ShapeError
from .contract.reach import Reach

__all__ = [
    "Conv",
    "ConvTranspose",
    "Layer",
    "LayerReport",
    "Linear",
    "Operator",
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

    Output position ``i`` sees the inputs from ``start + i * step`` to ``start + i * step + size -
    1``, both included; those below zero or past the end are padding. Behind layers that enlarge an
    axis the three may be fractions, as what an output sees then depends on where it is: the whole
    numbers between the two bounds.

    Parameters
    ----------
    size : tuple of (int or Fraction)
        Extent in input positions, holes of a dilation included.
    step : tuple of (int or Fraction)
        Distance between neighbouring outputs, in input positions (the product of all strides).
    start : tuple of (int or Fraction)
        First input position that output 0 sees; negative inside padding.
    """

    size: tuple[int | Fraction, ...]
    step: tuple[int | Fraction, ...]
    start: tuple[int | Fraction, ...]


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
    flops : int
        Floating point operations, two a multiply-accumulate. Of layers without them the operations
        on elements, as the operator's problem counts them.
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
    flops: int
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
        """Floating point operations of all layers."""
        return sum(row.flops for row in self.rows)

    @property
    def bytes(self) -> int:
        """Bytes that all layers move when every tensor between them goes through memory."""
        return sum(row.bytes for row in self.rows)

    def __str__(self) -> str:
        head = ("layer", "output", "parameters", "MACs", "FLOPs", "bytes", "receptive field",
                "step")  # fmt: skip
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
    counts = (f"{count:,}" for count in (row.parameters, row.macs, row.flops, row.bytes))
    most = tuple(map(math.floor, field.size))
    return (name, by(row.output_shape), *counts, by(most), by(field.step))


def analyse(
    stack: Iterable[Layer], input_shape: tuple[int, ...], *, dtype: str = "float32"
) -> Report:
    """Follow a shape through a stack of layers.

    Parameters
    ----------
    stack : iterable of Conv, ConvTranspose, Pool, Linear or Operator
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
    ArgumentError
        Where an `Operator` has another argument than its problem.

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
        name = layer.name or layer.describe()
        try:
            row = _layer_report(name, layer, shape, field, dtype)
        except (ArgumentError, ShapeError) as error:
            raise type(error)(f"layer {index} ({name}): {error}") from error
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
    stack : iterable of Conv, ConvTranspose or Pool
        The layers in order. What a `Linear` or an `Operator` sees depends on the input's size:
        `analyse` tells it.
    ndim : int
        Number of spatial axes, 1 to 3.

    Returns
    -------
    ReceptiveField
        Size, step and start, one number per axis.

    Raises
    ------
    ShapeError
        Where a layer's sizes do not fit `ndim`, and for a `Linear` or an `Operator`.

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
        field = _seen_through(field, layer.reach(ndim))
    return field


def _input_field(ndim: int) -> ReceptiveField:
    """Return the field of the input itself: each position sees one."""
    if ndim not in (1, 2, 3):
        raise ShapeError(f"ndim: got {ndim!r}, want 1, 2 or 3")
    return ReceptiveField((1,) * ndim, (1,) * ndim, (0,) * ndim)


def _seen_through(field: ReceptiveField, reach: tuple[Reach, ...]) -> ReceptiveField:
    """Return what is seen by outputs whose layer sees positions that see `field`."""
    if not reach:
        return field
    if len(reach) != len(field.size):
        raise ShapeError(
            f"input: got {len(reach)} spatial axes, want {len(field.size)} as the stack's input has"
        )
    before = zip(field.size, field.step, field.start, strict=True)
    axes = [
        Reach(*map(Fraction, own)).through(later) for own, later in zip(before, reach, strict=True)
    ]
    return ReceptiveField(*(tuple(map(_plain, numbers)) for numbers in zip(*axes, strict=True)))


def _plain(number: Fraction) -> int | Fraction:
    """Return a whole number as an integer."""
    return number.numerator if number.denominator == 1 else number


def _layer_report(
    name: str, layer: Layer, shape: tuple[int, ...], field: ReceptiveField, dtype: str
) -> LayerReport:
    own = layer.figures(shape, dtype)
    seen = _seen_through(field, own.reach)
    moved = _ITEM_BYTES[dtype] * own.moved
    return LayerReport(name, shape, own.out_shape, own.parameters, own.macs, own.flops, moved, seen)
