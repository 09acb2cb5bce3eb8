"""A deformable convolution: what is to be computed.

Each tap of each output pixel is displaced by an offset (dy, dx) of its own, and reads the input
there by bilinear interpolation; what lies outside the input counts as zero. Version 2 multiplies
each sample by a mask. Channels of one offset group share offsets and masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .array_problem import ArrayProblem, Call, Operand, number, option, per_axis_size
from .errors import ShapeError
from .padding import output_size
from .reach import Reach, window_reach
from .spec import ACTIVATIONS

__all__ = ["DeformProblem"]

#: What each operator reads, in the order in which kernels take it.
_READ = {
    "deform_conv": ("input", "offset", "weight", "bias", "mask", "slopes"),
    "deform_conv_grad_input": ("grad_output", "offset", "weight", "mask"),
    "deform_conv_grad_offset": ("grad_output", "input", "offset", "weight", "mask"),
    "deform_conv_grad_weight": ("grad_output", "input", "offset", "mask"),
}


@dataclass(frozen=True, slots=True)
class DeformProblem(ArrayProblem):
    """One deformable convolution in two dimensions, described by sizes alone.

    Parameters
    ----------
    op : {"deform_conv", "deform_conv_grad_input", "deform_conv_grad_offset",
            "deform_conv_grad_weight"}
        The operator: the convolution or a gradient of it, that for the offset with the mask's.
    batch, in_channels, out_channels : int
        ``N``, ``C`` and ``K``, the channels counted over all groups.
    in_size, kernel_size, stride, padding, dilation : (int, int)
        Height and width; as many samples are missing on both sides.
    groups, offset_groups : int
        Independent groups of channels, and groups of input channels with offsets of their own.
    mask, bias : bool
        Whether samples are multiplied by a mask, and whether a bias is added.
    activation : str
        A key of `fastconv.contract.spec.ACTIVATIONS`, "" for none; "prelu" reads slopes.
    alpha : float
        The activation's parameter.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type are not a valid deformable convolution.

    Examples
    --------
    >>> p = DeformProblem("deform_conv", 1, 64, 32, (28, 28), (3, 3), padding=(1, 1), mask=True)
    >>> p.out_shape, p.line()
    ((1, 32, 28, 28), '--op=deform_conv --mask=1 ic64oc32ih28kh3ph1')
    >>> [operand.shape[1] for operand in p.inputs]
    [64, 18, 64, 9]
    """

    op: str
    batch: int = number("mb")
    in_channels: int = number("ic")
    out_channels: int = number("oc")
    in_size: tuple[int, ...] = per_axis_size("i")
    kernel_size: tuple[int, ...] = per_axis_size("k")
    stride: tuple[int, ...] = per_axis_size("s", 1)
    padding: tuple[int, ...] = per_axis_size("p", 0)
    dilation: tuple[int, ...] = per_axis_size("d", 1)
    groups: int = number("g")
    offset_groups: int = number("og")
    mask: bool = option(False)
    bias: bool = option(False)
    activation: str = option("")
    alpha: float = option(0.0)
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._fill(stride=1, dilation=1, padding=0)
        self._check_kind()
        if len(self.in_size) != 2:
            raise ShapeError(f"input: got {len(self.in_size)} spatial axes, want 2")
        self._check_axes(in_size=1, kernel_size=1, stride=1, padding=0, dilation=1)
        self._check_channels()
        if self.activation not in ("", *ACTIVATIONS, "prelu"):
            raise ShapeError(
                f"activation: got {self.activation!r}, want one of {', '.join(ACTIVATIONS)}, prelu"
            )
        if min(self.out_size) < 1:
            padded = tuple(n + 2 * p for n, p in zip(self.in_size, self.padding, strict=True))
            raise ShapeError(
                f"weight: got a kernel of {self.kernel_size} with dilation={self.dilation}, want "
                f"one that reaches over no more than the padded input's {padded}"
            )
        self._check_bytes()

    def _check_channels(self) -> None:
        for name, groups in (("groups", self.groups), ("offset_groups", self.offset_groups)):
            if groups < 1 or self.in_channels < 1 or self.in_channels % groups:
                raise ShapeError(
                    f"{name}: got {groups} with {self.in_channels} input channels, want a divisor "
                    "of them"
                )
        if self.out_channels < 1 or self.out_channels % self.groups:
            raise ShapeError(
                f"weight: got {self.out_channels} output channels, want a positive multiple of "
                f"the {self.groups} groups that its {self.in_channels // self.groups} input "
                f"channels make of the input's {self.in_channels}"
            )

    @property
    def out_size(self) -> tuple[int, ...]:
        """Height and width of the output."""
        along = zip(
            self.in_size, self.kernel_size, self.stride, self.padding, self.dilation, strict=True
        )
        return tuple(output_size(n, k, s, (p, p), d) for n, k, s, p, d in along)

    @property
    def slopes(self) -> bool:
        """Whether each output channel has a slope for its negative sums."""
        return self.activation == "prelu"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, ``(K, C / groups, kh, kw)``."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """Input, offset and weight, then bias, mask and slopes where there are such.

        Of a gradient that for the output first, and of these what it reads.
        """
        operands = self._operands()
        names = _READ[self.op]
        return tuple(operands[name] for name in names if getattr(self, name, True))

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """The output, or the gradients."""
        operands = self._operands()
        if self.op == "deform_conv":
            return (operands["grad_output"]._replace(name="out"),)
        of = self.op.rpartition("_")[2]
        made = [operands[of]]
        if of == "offset" and self.mask:
            made.append(operands["mask"])
        return tuple(operand._replace(name=f"grad_{operand.name}") for operand in made)

    def _operands(self) -> dict[str, Operand]:
        """Return whatever an operator reads, by its name."""
        taps = self.offset_groups * math.prod(self.kernel_size)
        shapes = {
            "grad_output": (self.batch, self.out_channels, *self.out_size),
            "input": (self.batch, self.in_channels, *self.in_size),
            "offset": (self.batch, 2 * taps, *self.out_size),
            "weight": self.weight_shape,
            "bias": (self.out_channels,),
            "mask": (self.batch, taps, *self.out_size),
            "slopes": (self.out_channels,),
        }
        return {name: Operand(name, shape) for name, shape in shapes.items()}

    @property
    def macs(self) -> int:
        """Multiply-adds of samples and weights."""
        pixels = self.batch * math.prod(self.out_size)
        return pixels * math.prod(self.weight_shape)

    @property
    def flops(self) -> int:
        """Two operations a product of a sample and a weight, eight a sample."""
        taps = math.prod(self.kernel_size)
        samples = self.batch * math.prod(self.out_size) * taps * self.in_channels
        return 2 * self.macs + 8 * samples

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output position sees along each axis where offsets are zero."""
        pads = tuple((pad, pad) for pad in self.padding)
        return window_reach(self.kernel_size, self.stride, pads, self.dilation)

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        names = ("stride", "padding", "dilation")
        keywords = {name: getattr(self, name) for name in names}
        if self.op != "deform_conv":
            return self._gradient_call(keywords)
        name = self.activation
        if not self.slopes:
            has_alpha = name and ACTIVATIONS[name].parameter
            keywords["activation"] = (name, self.alpha) if has_alpha else name or None
        return Call("deform_conv2d", keywords, "DeformConv2d")

    def _gradient_call(self, keywords: dict[str, object]) -> Call:
        of = self.op.rpartition("_")[2]
        if of == "offset":
            return Call("grad.deform_conv2d_offset", keywords)
        keywords[f"{of}_size"] = self._operands()[of].shape
        return Call(f"grad.deform_conv2d_{of}", keywords)
