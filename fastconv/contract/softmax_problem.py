"""A softmax along the channels: what is to be computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .array_problem import ArrayProblem, Call, Operand, number, per_axis_size
from .errors import ShapeError
from .problem import MOST

__all__ = ["SoftmaxProblem"]


@dataclass(frozen=True, slots=True)
class SoftmaxProblem(ArrayProblem):
    """One softmax along axis 1 of an array, described by sizes alone.

    An axis of any place in an array of any rank becomes axis 1 where those before it are the batch,
    and those behind it one spatial axis.

    Parameters
    ----------
    op : {"softmax", "log_softmax"}
        The operator.
    batch, channels : int
        ``N`` and ``C``; the sum is over ``C``.
    in_size : tuple of int
        Axes behind the channels, 1 to 3. An array of one lone 1 has two axes.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type are not valid.

    Examples
    --------
    >>> p = SoftmaxProblem("softmax", 12, 1000, (1,))
    >>> p.x_shape, p.line()
    ((12, 1000), '--op=softmax mb12ic1000iw1')
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_axes(in_size=1)
        if not 0 <= self.batch <= MOST or not 1 <= self.channels <= MOST:
            raise ShapeError(
                f"input: got {self.batch} sums of {self.channels} channels, want 0 to 2**47 sums "
                "of at least one channel"
            )
        self._check_bytes()

    def _shape(self) -> tuple[int, ...]:
        lone = self.in_size == (1,)
        return (self.batch, self.channels, *(() if lone else self.in_size))

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The input."""
        return (Operand("input", self._shape()),)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """As many numbers."""
        return (Operand("out", self._shape()),)

    @property
    def flops(self) -> int:
        """An exponential is counted as twenty operations."""
        return 20 * math.prod(self.out_shape)

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        return Call(self.op, {"dim": 1})
