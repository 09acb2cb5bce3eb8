"""A pool into a given number of windows: what is to be computed.

The windows of an axis lie side by side: output ``o`` of ``O`` sees the samples from
``o * I // O`` to before ``ceil((o + 1) * I / O)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from .array_problem import ArrayProblem, Call, Operand, number, option, per_axis_size
from .errors import ShapeError
from .reach import Reach

__all__ = ["AdaptivePoolProblem"]


@dataclass(frozen=True, slots=True)
class AdaptivePoolProblem(ArrayProblem):
    """One pool into a given number of windows, described by sizes alone.

    Parameters
    ----------
    op : {"adaptive_max_pool", "adaptive_avg_pool", "adaptive_avg_pool_grad"}
        The operator; the last one is the gradient of an average for its input, by the sizes of the
        average.
    batch, channels : int
        ``N`` and ``C``.
    in_size, out_size : tuple of int
        One entry a spatial axis, 1 to 3 axes.
    return_indices : bool
        Whether a maximum comes with its place in the channel, counted in samples.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type are not a valid pool.

    Examples
    --------
    >>> p = AdaptivePoolProblem("adaptive_avg_pool", 1, 512, (7, 7), (1, 1))
    >>> p.line()
    '--op=adaptive_avg_pool ic512ih7oh1'
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    out_size: tuple[int, ...] = per_axis_size("o")
    return_indices: bool = option(False)
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_axes(in_size=1, out_size=1)
        if self.return_indices and self.op != "adaptive_max_pool":
            raise ShapeError(f"return_indices: got True, want none for {self.op}")
        self._check_bytes()

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The input, or the gradient for the output."""
        if self.op == "adaptive_avg_pool_grad":
            return (Operand("grad_output", (self.batch, self.channels, *self.out_size)),)
        return (Operand("input", (self.batch, self.channels, *self.in_size)),)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """The pooled input, and the places of maxima; or the gradient for the input."""
        if self.op == "adaptive_avg_pool_grad":
            return (Operand("out", (self.batch, self.channels, *self.in_size)),)
        shape = (self.batch, self.channels, *self.out_size)
        places = (Operand("indices", shape, "int64"),) if self.return_indices else ()
        return (Operand("out", shape), *places)

    @property
    def flops(self) -> int:
        """One operation for each sample of each window, were all as large as the largest."""
        along = zip(self.in_size, self.out_size, strict=True)
        taps = math.prod(-(-size // outputs) for size, outputs in along)
        return self.batch * self.channels * math.prod(self.out_size) * taps

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output position sees of the input along each spatial axis.

        From ``floor(o * step)`` to before ``ceil((o + 1) * step)``: whatever is more than one less
        than the first of these products and less than the second one, in steps of their grain.
        """
        made = []
        for size, outputs in zip(self.in_size, self.out_size, strict=True):
            step = Fraction(size, outputs)
            grain = Fraction(1, step.denominator)
            made.append(Reach(step + 2 - 2 * grain, step, grain - 1))
        return tuple(made)

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        ndim = len(self.in_size)
        if self.op == "adaptive_avg_pool_grad":
            size = {"input_size": self.out_shape}
            return Call(f"grad.adaptive_avg_pool{ndim}d_input", size)
        places = {"return_indices": True} if self.return_indices else {}
        return Call(f"{self.op}{ndim}d", {"output_size": self.out_size, **places})
