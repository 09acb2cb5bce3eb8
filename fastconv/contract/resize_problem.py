"""Resizing along spatial axes by interpolation: what is to be computed.

Output position ``o`` of an axis takes the samples about the source position ``s``:

==================================  =================================  ===================
mode                                source position                    samples
==================================  =================================  ===================
``nearest``                         ``o * step``                       ``floor(s)``
``nearest-exact``                   ``(o + 0.5) * step``               ``floor(s)``
``linear``, ``bilinear``,           ``(o + 0.5) * step - 0.5``, at     2 about ``s``
``trilinear``                       least 0
``bicubic``                         ``(o + 0.5) * step - 0.5``         4 about ``s``
either of these, aligned corners    ``o * step``
==================================  =================================  ===================

Samples beyond an end are the last one there. `ResizeProblem.steps` says what a step is. The nearest
modes compute positions in float32 whatever the element type, as PyTorch does for float32 and where
it has kernels for small images and for channels that are neighbours; the others in float64, where
PyTorch takes the element type's own precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .array_problem import ArrayProblem, Call, Operand, number, option, per_axis_size
from .errors import ArgumentError, ShapeError
from .reach import Reach

__all__ = ["MODES", "NEAREST_MODES", "ResizeProblem", "scaled_size"]

#: Modes, and the spatial axes that each is for; None where any number of them will do.
MODES: dict[str, int | None] = {
    "nearest": None,
    "nearest-exact": None,
    "linear": 1,
    "bilinear": 2,
    "trilinear": 3,
    "bicubic": 2,
}
#: Modes that take one sample.
NEAREST_MODES = ("nearest", "nearest-exact")


def scaled_size(size: int, scale: float) -> int:
    """Return the outputs of an axis that is enlarged by a factor; 0 where there are none.

    Examples
    --------
    >>> scaled_size(5, 1.5), scaled_size(5, 0.1)
    (7, 0)
    """
    outputs = size * scale
    return int(outputs) if math.isfinite(outputs) else 0


def _is_ratio(scale: float, size: int, outputs: int) -> bool:
    """Tell whether a factor is exactly the ratio of the sizes."""
    above, below = scale.as_integer_ratio()
    return above * size == outputs * below


@dataclass(frozen=True, slots=True)
class ResizeProblem(ArrayProblem):
    """One resizing, or the gradient for its input, described by sizes alone.

    Parameters
    ----------
    op : {"interpolate", "interpolate_grad"}
        The operator.
    batch, channels : int
        ``N`` and ``C``.
    in_size, out_size : tuple of int
        One entry a spatial axis, 1 to 3 axes; outputs follow from `scale` where they are empty.
    mode : str
        A key of `MODES`.
    align_corners : bool
        Whether the first and last samples of both grids lie on each other.
    scale : tuple of float
        Factors that positions are computed with; empty where the sizes' ratios are meant, which is
        also what factors become that are those ratios or that no position depends on.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        Where sizes, element type or mode are not a valid resizing.

    Examples
    --------
    >>> p = ResizeProblem("interpolate", 1, 64, (32, 32), (64, 64), "bilinear")
    >>> p.out_shape, p.line()
    ((1, 64, 64, 64), '--op=interpolate --mode=bilinear ic64ih32oh64')
    >>> p.call().keywords
    {'size': (64, 64), 'mode': 'bilinear', 'align_corners': False}
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    out_size: tuple[int, ...] = per_axis_size("o")
    mode: str = option("nearest")
    align_corners: bool = option(False)
    scale: tuple[float, ...] = option(())
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_mode()
        self._check_axes(in_size=1)
        self._check_scale()
        self._check_axes(out_size=1)
        self._check_bytes()

    def _check_mode(self) -> None:
        if self.mode not in MODES:
            raise ArgumentError(f"mode: got {self.mode!r}, want one of {', '.join(MODES)}")
        axes = MODES[self.mode]
        if axes not in (None, len(self.in_size)):
            raise ShapeError(
                f"mode: got {self.mode!r} for {len(self.in_size)} spatial axes, want {axes}"
            )
        if self.align_corners and self.mode in NEAREST_MODES:
            raise ArgumentError(
                f"align_corners: got True with mode={self.mode!r}, want a mode that interpolates"
            )

    def _check_scale(self) -> None:
        if not self.scale:
            return
        if len(self.scale) != len(self.in_size):
            raise ShapeError(
                f"scale: got {len(self.scale)} factors {self.scale}, want {len(self.in_size)}"
            )
        if not all(0 < factor < math.inf for factor in self.scale):
            raise ShapeError(f"scale: got {self.scale}, want positive numbers")
        along = list(zip(self.in_size, self.scale, strict=True))
        outputs = tuple(scaled_size(size, factor) for size, factor in along)
        if min(outputs) < 1:
            raise ShapeError(
                f"scale_factor: got {self.scale} for sizes {self.in_size}, want an output of at "
                f"least 1 along each axis"
            )
        if self.out_size not in ((), outputs):
            raise ShapeError(f"out_size: got {self.out_size}, want {outputs} by the factors")
        object.__setattr__(self, "out_size", outputs)
        ratios = zip(self.scale, self.in_size, outputs, strict=True)
        if self.align_corners or all(_is_ratio(*axis) for axis in ratios):
            object.__setattr__(self, "scale", ())

    def steps(self) -> tuple[float, ...]:
        """Return the samples from one output to the next, along each axis.

        That is the reciprocal of a factor, else the ratio of the sizes, or of the sizes less one
        where corners are aligned; in the nearest modes what is nearest in float32.
        """
        scales: Sequence[float | None] = self.scale or (None,) * len(self.in_size)
        return tuple(map(self._step, self.in_size, self.out_size, scales))

    def _step(self, inputs: int, outputs: int, scale: float | None) -> float:
        if self.align_corners:
            return (inputs - 1) / (outputs - 1) if outputs > 1 else 0.0
        if self.mode not in NEAREST_MODES:
            return inputs / outputs if scale is None else 1 / scale
        if scale is None:
            return float(np.float32(inputs) / np.float32(outputs))
        return float(np.float32(1 / scale))

    @property
    def _input(self) -> tuple[int, ...]:
        return (self.batch, self.channels, *self.in_size)

    @property
    def _output(self) -> tuple[int, ...]:
        return (self.batch, self.channels, *self.out_size)

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The input, or the gradient for the output."""
        if self.op == "interpolate":
            return (Operand("input", self._input),)
        return (Operand("grad_output", self._output),)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """The resized input, or the gradient for the input."""
        return (Operand("out", self._output if self.op == "interpolate" else self._input),)

    @property
    def flops(self) -> int:
        """A multiplication and an addition for each sample of each output, one axis at a time."""
        if self.mode in NEAREST_MODES:
            return math.prod(self._output)
        taps = 4 if self.mode == "bicubic" else 2
        return 2 * taps * len(self.in_size) * math.prod(self._output)

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output position sees of the input along each spatial axis.

        Samples are those between ``s - width`` and ``s + width``, without these two, or, in the
        nearest modes, between ``s - 1``, without it, and ``s``.
        """
        scales: Sequence[float | None] = self.scale or (None,) * len(self.in_size)
        return tuple(map(self._reach, self.in_size, self.out_size, scales))

    def _reach(self, inputs: int, outputs: int, scale: float | None) -> Reach:
        if self.align_corners:
            step = Fraction(inputs - 1, outputs - 1) if outputs > 1 else Fraction(0)
        elif scale is None:
            step = Fraction(inputs, outputs)
        else:
            step = (1 / Fraction(scale)).limit_denominator(1 << 20)
        first = Fraction(0)
        if not self.align_corners and self.mode != "nearest":
            first = step / 2 - (0 if self.mode == "nearest-exact" else Fraction(1, 2))
        # Positions are multiples of the grain: less than a number is at most one grain less.
        grain = Fraction(1, math.lcm(step.denominator, first.denominator))
        if self.mode in NEAREST_MODES:
            return Reach(2 - grain, step, first - 1 + grain)
        width = 2 if self.mode == "bicubic" else 1
        return Reach(2 * (width - grain) + 1, step, first - width + grain)

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        given: dict[str, object] = {}
        if self.scale:
            given["scale_factor"] = self.scale
        else:
            given["size"] = self.out_size
        given["mode"] = self.mode
        if self.mode not in NEAREST_MODES:
            given["align_corners"] = self.align_corners
        if self.op == "interpolate":
            return Call("interpolate", given)
        given = {"input_size": self._input} | given
        return Call("grad.interpolate_input", given)
