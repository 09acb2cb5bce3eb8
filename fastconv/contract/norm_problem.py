"""A normalisation: what is to be computed.

Each subtracts a mean, divides by a standard deviation and, where they are given, multiplies by a
weight and adds a bias. They differ in what the statistics are taken over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .array_problem import ArrayProblem, Call, Operand, number, option, per_axis_size
from .errors import ShapeError
from .problem import MOST

__all__ = ["NormProblem"]


@dataclass(frozen=True, slots=True)
class NormProblem(ArrayProblem):
    """One normalisation, described by sizes alone.

    Parameters
    ----------
    op : str
        "batch_norm", "group_norm", "instance_norm" or "layer_norm", or any of these but the third
        with "_grad" behind it: the gradient for an input that statistics are taken from.
        Statistics are those of a channel over all images, of the channels of a group in an image,
        of a channel in an image, or of the last axis.
    batch, channels : int
        ``N`` and ``C``. A layer norm has its rows there.
    in_size : tuple of int
        Spatial axes, 1 to 3; of a layer norm the numbers of one row. An array of one lone 1 has
        none.
    groups : int
        Of a group norm.
    weight, bias : bool
        Whether they are given.
    training : bool
        Whether a batch norm takes its statistics from the input. They are then its second output:
        means and variances, in float64, as those of an instance norm are.
    eps : float
        What is added to variances.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type are not valid.

    Examples
    --------
    >>> p = NormProblem("layer_norm", 1, 197, (768,))
    >>> p.x_shape, p.line()
    ((1, 197, 768), '--op=layer_norm ic197iw768')
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    groups: int = number("g")
    weight: bool = option(True)
    bias: bool = option(True)
    training: bool = option(False)
    eps: float = option(1e-5)
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_axes(in_size=1)
        if not 0 <= self.batch <= MOST or not 1 <= self.channels <= MOST:
            raise ShapeError(
                f"input: got {self.batch} images of {self.channels} channels, want at least one "
                "channel"
            )
        if not 1 <= self.groups <= self.channels or self.channels % self.groups:
            raise ShapeError(
                f"num_groups: got {self.groups} with {self.channels} channels, want a divisor"
            )
        if self.computes_statistics and self.sampled == 1:
            raise ShapeError(
                f"input: got shape {self.x_shape}, want more than one value for each statistic of "
                f"{self.op}"
            )
        self._check_bytes()

    @property
    def kind(self) -> str:
        """The normalisation that a gradient belongs to."""
        return self.op.removesuffix("_grad")

    @property
    def is_gradient(self) -> bool:
        """Whether it is a gradient."""
        return self.op != self.kind

    @property
    def computes_statistics(self) -> bool:
        """Whether one value alone would be no statistic: PyTorch refuses it."""
        return self.training or self.op == "instance_norm"

    @property
    def sampled(self) -> int:
        """Values that each statistic is taken over."""
        pixels = math.prod(self.in_size)
        over = {"batch_norm": self.batch * pixels, "layer_norm": pixels, "instance_norm": pixels}
        return over.get(self.kind, pixels * self.channels // self.groups)

    @property
    def statistics(self) -> int:
        """How many means there are."""
        groups = {"batch_norm": self.channels, "group_norm": self.batch * self.groups}
        return groups.get(self.kind, self.batch * self.channels)

    @property
    def parameters(self) -> int:
        """Length of the weight and the bias."""
        return self.in_size[0] if self.kind == "layer_norm" else self.channels

    def _shape(self) -> tuple[int, ...]:
        lone = self.in_size == (1,) and self.kind != "layer_norm"
        return (self.batch, self.channels, *(() if lone else self.in_size))

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The input, the statistics where they are given, weight and bias."""
        own = (self.parameters,)
        given = [Operand("input", self._shape())]
        if self.op == "batch_norm" and not self.training:
            given += [Operand("running_mean", own), Operand("running_var", own)]
        told = {"weight": self.weight, "bias": self.bias and not self.is_gradient}
        given += [Operand(name, own) for name, is_given in told.items() if is_given]
        if self.is_gradient:
            given.append(Operand("grad_output", self._shape()))
        return tuple(given)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """As many numbers, and the statistics that running ones are updated by."""
        out = Operand("out", self._shape())
        if self.is_gradient or not self.computes_statistics:
            return (out,)
        return (out, Operand("statistics", (2, self.statistics), "float64"))

    @property
    def flops(self) -> int:
        """Two operations for the result and four for the statistics."""
        given = self.op == "batch_norm" and not self.training
        return (2 if given else 6) * math.prod(self.out_shape)

    @classmethod
    def _sample_fields(cls, op: str, shape: tuple[int, ...], sizes: dict[str, Any]) -> Any:
        rows, size = shape[:1], shape[1:] or (1,)
        if op == "layer_norm":
            rows, size = shape[:-1], shape[-1:]
        return {"channels": math.prod(rows), "in_size": size} | sizes

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        keywords: dict[str, Any] = {"eps": self.eps}
        if self.kind == "group_norm":
            keywords["num_groups"] = self.groups
        elif self.kind == "layer_norm":
            keywords["normalized_shape"] = self.in_size
        elif self.training or self.op == "batch_norm_grad":
            keywords |= {"running_mean": None, "running_var": None, "training": True}
        if not self.is_gradient:
            return Call(self.op, keywords)
        if not self.weight:
            keywords["weight"] = None
        return Call(f"grad.{self.kind}_input", keywords)
