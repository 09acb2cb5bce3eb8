"""A dense layer of few rows: what is to be computed.

Layers of more rows are convolutions of one tap (`fastconv.ops.linear`); here the weight is all that
counts, and is read once, as it lies.
"""

from __future__ import annotations

from dataclasses import dataclass

from .array_problem import ArrayProblem, Call, Operand, number, option, per_axis_size
from .errors import ShapeError

__all__ = ["MOST_ROWS", "LinearProblem"]

#: Rows of an input that a sum over the features of a weight keeps in registers.
MOST_ROWS = 8


@dataclass(frozen=True, slots=True)
class LinearProblem(ArrayProblem):
    """One product of a few rows and a matrix, described by sizes alone.

    Parameters
    ----------
    op : {"linear"}
        The operator.
    channels, out_channels : int
        Features of a row of the input, and of the output.
    in_size : tuple of int
        ``(rows,)``.
    bias : bool
        Whether there is one.
    activation : str
        As for `fastconv.conv2d`, "" for none; "prelu" reads slopes.
    alpha : float
        Its parameter.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type are not those of a layer.

    Examples
    --------
    >>> p = LinearProblem("linear", 4096, (1,), 1000)
    >>> p.out_shape, p.line()
    ((1, 1000), '--op=linear ic4096iw1oc1000')
    """

    op: str
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    out_channels: int = number("oc")
    bias: bool = option(False)
    activation: str = option("")
    alpha: float = option(0.0)
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_axes(in_size=1)
        if len(self.in_size) != 1:
            raise ShapeError(f"in_size: got {self.in_size}, want one number of rows")
        if min(self.channels, self.out_channels) < 1:
            raise ShapeError(
                f"weight: got {(self.out_channels, self.channels)} features, want at least 1"
            )
        self._check_bytes()

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """Rows, the matrix, and the bias and slopes where there are such."""
        bias = (Operand("bias", (self.out_channels,)),) * self.bias
        slopes = (Operand("slopes", (self.out_channels,)),) * (self.activation == "prelu")
        weight = Operand("weight", (self.out_channels, self.channels))
        return (Operand("input", (*self.in_size, self.channels)), weight, *bias, *slopes)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """Rows of the output."""
        return (Operand("out", (*self.in_size, self.out_channels)),)

    @property
    def macs(self) -> int:
        """Multiply-accumulates: one for each number of the matrix and each row."""
        return self.in_size[0] * self.channels * self.out_channels

    @property
    def flops(self) -> int:
        """A multiplication and an addition for each number of the matrix and each row."""
        return 2 * self.macs

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        if self.activation in ("", "prelu"):
            return Call("linear", {})
        return Call("linear", {"activation": (self.activation, self.alpha)})
