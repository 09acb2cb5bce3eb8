"""Windows taken out of an array as columns, and columns summed up where their windows were.

Column ``l`` is an output position of a convolution, and row ``c * taps + t`` of it the sample that
tap ``t`` of the window meets in channel ``c``: ``unfold`` copies the sample, zero where there is
none, and ``fold`` adds the column's number to it. Both are numbered row by row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .array_problem import ArrayProblem, Call, Operand, number, per_axis_size
from .errors import ShapeError
from .padding import output_size
from .reach import Reach, transposed_reach, window_reach
from .rearrange_problem import Axis

__all__ = ["UnfoldProblem"]


@dataclass(frozen=True, slots=True)
class UnfoldProblem(ArrayProblem):
    """Windows of an image as columns, or their sum, described by sizes alone.

    Parameters
    ----------
    op : {"unfold", "fold"}
        The operator.
    batch, channels : int
        ``N`` and ``C`` of the image.
    in_size, kernel_size, stride, padding, dilation : tuple of int
        One entry a spatial axis of the image, 1 to 3 axes; as many zeros are on both sides. Of
        "fold" the image is the output.
    dtype, layout, device
        As for `fastconv.ConvProblem`; the layout is the first operand's.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type do not fit.

    Examples
    --------
    >>> p = UnfoldProblem("unfold", 1, 64, (56, 56), (3, 3), padding=(1, 1))
    >>> p.out_shape, p.line()
    ((1, 576, 3136), '--op=unfold ic64ih56kh3ph1')
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    kernel_size: tuple[int, ...] = per_axis_size("k")
    stride: tuple[int, ...] = per_axis_size("s", 1)
    padding: tuple[int, ...] = per_axis_size("p", 0)
    dilation: tuple[int, ...] = per_axis_size("d", 1)
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._fill(stride=1, dilation=1, padding=0)
        self._check_kind()
        self._check_axes(in_size=1, kernel_size=1, stride=1, padding=0, dilation=1)
        if min(self.windows) < 1:
            raise ShapeError(
                f"kernel_size: got {self.kernel_size} with dilation={self.dilation}, want a window "
                f"within {self.padded}, the samples and their padding"
            )
        self._check_bytes()

    @property
    def padded(self) -> tuple[int, ...]:
        """Samples and the zeros on both sides along each axis."""
        return tuple(size + 2 * pad for size, pad in zip(self.in_size, self.padding, strict=True))

    @property
    def windows(self) -> tuple[int, ...]:
        """Windows along each axis."""
        along = zip(
            self.in_size, self.kernel_size, self.stride, self.padding, self.dilation, strict=True
        )
        return tuple(output_size(n, k, s, (p, p), d) for n, k, s, p, d in along)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of the array that windows lie in."""
        return (self.batch, self.channels, *self.in_size)

    @property
    def columns_shape(self) -> tuple[int, ...]:
        """Shape of the columns."""
        return (self.batch, self.channels * math.prod(self.kernel_size), math.prod(self.windows))

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The image, or the columns."""
        return (Operand("input", self.image_shape if self.op == "unfold" else self.columns_shape),)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """The other of the two."""
        return (Operand("out", self.columns_shape if self.op == "unfold" else self.image_shape),)

    @property
    def flops(self) -> int:
        """One operation for each number of the columns."""
        return math.prod(self.columns_shape)

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output sees along each axis of the image; columns are windows there."""
        pads = tuple((pad, pad) for pad in self.padding)
        of = window_reach if self.op == "unfold" else transposed_reach
        return of(self.kernel_size, self.stride, pads, self.dilation)

    @classmethod
    def _sample_fields(cls, op: str, shape: tuple[int, ...], sizes: dict[str, Any]) -> Any:
        made: dict[str, Any] = {"channels": shape[0], "in_size": shape[1:] or (1,)} | sizes
        if op == "fold":
            taps, size = made.get("kernel_size", 1), made["in_size"]
            axes = len(size) if isinstance(size, (tuple, list)) else 1
            made["channels"] //= max(1, taps**axes if isinstance(taps, int) else math.prod(taps))
        return made

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        names = ("kernel_size", "dilation", "padding", "stride")
        told = {name: getattr(self, name) for name in names}
        return Call(self.op, told if self.op == "unfold" else {"output_size": self.in_size, **told})

    def axes(
        self, image_strides: Sequence[int], columns_strides: Sequence[int]
    ) -> tuple[Axis, ...]:
        """Return the axes along which a padded image, the source, is copied to its columns."""
        _, row, column = columns_strides
        taps, windows = math.prod(self.kernel_size), math.prod(self.windows)
        axes = [
            Axis(self.batch, image_strides[0], columns_strides[0]),
            Axis(self.channels, image_strides[1], row * taps),
        ]
        along = list(
            zip(
                image_strides[2:], self.kernel_size, self.dilation, self.windows, self.stride,
                strict=True,
            )
        )  # fmt: skip
        for step, kernel, dilation, _, _ in along:
            taps //= kernel
            axes.append(Axis(kernel, step * dilation, row * taps))
        for step, _, _, count, stride in along:
            windows //= count
            axes.append(Axis(count, step * stride, column * windows))
        return tuple(axes)

    @property
    def steps(self) -> tuple[int, ...]:
        """The stride, 1 along axes of one window, which makes no step."""
        return tuple(s if o > 1 else 1 for s, o in zip(self.stride, self.windows, strict=True))

    @property
    def tiles(self) -> bool:
        """Whether each sample is in one window alone: both operators are then permutations."""
        return (
            self.kernel_size == self.stride
            and not any(self.padding)
            and all(d == 1 or k == 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))
            and all(
                s * o == n for s, o, n in zip(self.stride, self.windows, self.in_size, strict=True)
            )
        )
