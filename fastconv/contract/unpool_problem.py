"""Samples brought to places, and gathered from them: what is to be computed.

Every sample of a channel comes with a place in a larger channel, counted in its samples, as
`max_pool2d` returns it with ``return_indices=True``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .array_problem import ArrayProblem, Call, Operand, number, per_axis_size
from .errors import ShapeError
from .reach import Reach, transposed_reach

__all__ = ["UnpoolProblem"]


@dataclass(frozen=True, slots=True)
class UnpoolProblem(ArrayProblem):
    """Samples brought to places or gathered from them, described by sizes alone.

    Parameters
    ----------
    op : {"max_unpool", "max_pool_grad", "max_unpool_grad"}
        Samples at their places and zeros elsewhere; the same where samples of one place add up,
        which is a maximum's gradient for its input; and the samples that lie at the places, the
        gradient of an unpooled input.
    batch, channels : int
        ``N`` and ``C``.
    in_size : tuple of int
        One entry a spatial axis, 1 to 3 axes: the size of the indices.
    kernel_size, stride, padding : tuple of int
        Of the pool that `max_unpool` goes back behind; they say which sizes it may have had.
    out_size : tuple of int
        The size in which indices count; the least that such a pool has where it is empty.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type are not valid.

    Examples
    --------
    >>> p = UnpoolProblem("max_unpool", 1, 64, (56, 56), (2, 2), (2, 2), (0, 0), (112, 112))
    >>> p.line()
    '--op=max_unpool ic64ih56kh2sh2oh112'
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    kernel_size: tuple[int, ...] = per_axis_size("k", 1)
    stride: tuple[int, ...] = per_axis_size("s", 1)
    padding: tuple[int, ...] = per_axis_size("p", 0)
    out_size: tuple[int, ...] = per_axis_size("o")
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._fill(kernel_size=1, stride=1, padding=0)
        self._check_kind()
        self._check_axes(in_size=1, kernel_size=1, stride=1, padding=0)
        if not self.out_size:
            object.__setattr__(self, "out_size", self._usual_size)
        self._check_axes(out_size=1)
        if self.op == "max_unpool":
            self._check_unpooled()
        self._check_bytes()

    @property
    def _usual_size(self) -> tuple[int, ...]:
        """The least size that a pool makes the input's of without leaving any out."""
        along = zip(self.in_size, self.kernel_size, self.stride, self.padding, strict=True)
        return tuple((size - 1) * step + kernel - 2 * pad for size, kernel, step, pad in along)

    def _check_unpooled(self) -> None:
        """Raise where no pool makes the input's size of the output's."""
        for axis, (size, usual, step) in enumerate(
            zip(self.out_size, self._usual_size, self.stride, strict=True)
        ):
            if not usual - step < size < usual + step:
                raise ShapeError(
                    f"output_size: got {size} along spatial axis {axis}, want more than "
                    f"{usual - step} and less than {usual + step}"
                )

    def _shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return (self.batch, self.channels, *size)

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """Samples, or the gradients for what they became, and places."""
        name = "input" if self.op == "max_unpool" else "grad_output"
        size = self.out_size if self.op == "max_unpool_grad" else self.in_size
        places = Operand("indices", self._shape(self.in_size), "int64")
        return (Operand(name, self._shape(size)), places)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """The larger channels, or what lies at the places."""
        size = self.in_size if self.op == "max_unpool_grad" else self.out_size
        return (Operand("out", self._shape(size)),)

    @property
    def flops(self) -> int:
        """One operation for each place."""
        return math.prod(self._shape(self.in_size))

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output position sees of the input along each spatial axis."""
        pads, none = tuple((pad, pad) for pad in self.padding), (1,) * len(self.in_size)
        return transposed_reach(self.kernel_size, self.stride, pads, none)

    @classmethod
    def _sample_fields(cls, op: str, shape: tuple[int, ...], sizes: dict[str, Any]) -> Any:
        own = {"channels": shape[0], "in_size": shape[1:] or (1,)}
        return own | {"stride": sizes.get("kernel_size", ())} | sizes

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        ndim = len(self.in_size)
        if self.op == "max_unpool_grad":
            return Call(f"grad.max_unpool{ndim}d_input", {})
        if self.op == "max_pool_grad":
            return Call(f"grad.max_pool{ndim}d_input", {"input_size": self.out_shape})
        keywords = {
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "output_size": self.out_size,
        }
        return Call(f"max_unpool{ndim}d", keywords)
