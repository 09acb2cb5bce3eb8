"""What a sparse operator is to compute, described by sizes alone.

A `SparseProblem` is to `fastconv.dispatch` what a `ConvProblem` is: a key of choices and plans, and
one line in a log. Which rows meet is told by a `fastconv.sparse.rulebook.Rulebook`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import DeviceError, DTypeError, ShapeError
from .problem import DTYPES, ElementSizes

__all__ = ["OPERANDS", "SparseProblem"]

#: The arrays that a plan of each operator takes, in order; the last one is written. Features are
#: row-major ``(rows, channels)``; `bias` may be None; `weight_grad` is ``(K, C / groups, volume)``
#: and row-major; `batches` holds each row's number in the batch, int32. A plan of "sparse_conv"
#: takes its weight packed by itself.
OPERANDS: dict[str, tuple[str, ...]] = {
    "sparse_conv": ("x", "packed", "bias", "out"),
    "sparse_weight_grad": ("x", "grad_out", "weight_grad"),
    "sparse_max_pool": ("x", "out"),
    "sparse_max_pool_grad": ("x", "out", "grad_out", "grad_x"),
    "sparse_avg_pool": ("x", "out"),
    "sparse_avg_pool_grad": ("grad_out", "grad_x"),
    "sparse_global_max_pool": ("x", "batches", "out"),
    "sparse_global_avg_pool": ("x", "batches", "out"),
}

_NUMBERS = ("in_rows", "out_rows", "pairs", "in_channels", "out_channels", "groups")


@dataclass(frozen=True, slots=True)
class SparseProblem(ElementSizes):
    """One sparse operator, described by sizes alone.

    Parameters
    ----------
    op : str
        A key of `OPERANDS`. The gradient of a convolution for its features is a "sparse_conv" by
        the reversed rulebook.
    in_rows, out_rows : int
        Active sites before and after; a gradient's are those of the operator that it belongs to.
    pairs : int
        Pairs of sites that meet, over all offsets of the kernel.
    kernel_size : tuple of int
        One entry a spatial axis; empty for a pool over everything.
    in_channels, out_channels : int
        Counted over all groups; equal for pools.
    groups : int
        Number of independent channel groups.
    dtype : {"float32", "float64", "float16", "bfloat16"}
        Element type of features and weight. The halves are accumulated in float32.
    device : {"cpu", "cuda"}
        Where the arrays live.

    Raises
    ------
    ShapeError, DTypeError, DeviceError
        Where the sizes, the element type or the device are none.

    Examples
    --------
    >>> SparseProblem("sparse_conv", 9, 9, 33, (3, 3, 3), 16, 32).line()
    'sparse_conv rows9>9 pairs33 k3x3x3 ic16oc32'
    """

    op: str
    in_rows: int
    out_rows: int
    pairs: int
    kernel_size: tuple[int, ...]
    in_channels: int
    out_channels: int
    groups: int = 1
    dtype: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.op not in OPERANDS:
            raise ShapeError(f"op: got {self.op!r}, want one of {', '.join(OPERANDS)}")
        if self.dtype not in DTYPES:
            raise DTypeError(f"dtype: got {self.dtype}, want one of {', '.join(DTYPES)}")
        if self.device not in ("cpu", "cuda"):
            raise DeviceError(f"device: got {self.device!r}, want cpu or cuda")
        numbers = (
            self.in_rows, self.out_rows, self.pairs, self.in_channels, self.out_channels,
            self.groups,
        )  # fmt: skip
        for name, number in zip(_NUMBERS, numbers, strict=True):
            if type(number) is not int or number < 0:
                raise ShapeError(f"{name}: got {number!r}, want a whole number, at least 0")
        taps = self.kernel_size
        if type(taps) is not tuple or not all(type(tap) is int and tap > 0 for tap in taps):
            raise ShapeError(
                f"kernel_size: got {self.kernel_size!r}, want a tuple of positive whole numbers"
            )
        if self.groups < 1:
            raise ShapeError(f"groups: got {self.groups}, want at least 1")
        for name in ("in_channels", "out_channels"):
            channels = getattr(self, name)
            if channels < 1 or channels % self.groups:
                raise ShapeError(
                    f"{name}: got {channels}, want a positive multiple of groups={self.groups}"
                )

    @property
    def volume(self) -> int:
        """Number of offsets of the kernel."""
        return math.prod(self.kernel_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, ``(K, C / groups, *kernel_size)``."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    @property
    def operand_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the arrays that `OPERANDS` names, in its order, but for weight and bias."""
        before, after = (self.in_rows, self.in_channels), (self.out_rows, self.out_channels)
        shapes = {
            "x": before,
            "out": after,
            "grad_out": after,
            "grad_x": before,
            "batches": (self.in_rows,),
            "weight_grad": (*self.weight_shape[:2], self.volume),
        }
        return tuple(shapes[name] for name in OPERANDS[self.op] if name in shapes)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a convolution: every pair meets once."""
        return self.pairs * self.in_channels // self.groups * self.out_channels

    @property
    def flops(self) -> int:
        """Floating point operations, two a multiply-accumulate."""
        return 2 * self.macs

    @property
    def is_depthwise(self) -> bool:
        """Whether each group holds one input channel and one output channel."""
        return self.groups == self.in_channels == self.out_channels

    def line(self) -> str:
        """Return the problem as one line for logs, tables and errors."""
        kernel = f" k{'x'.join(map(str, self.kernel_size))}" if self.kernel_size else ""
        groups = f"g{self.groups}" if self.groups > 1 else ""
        dtype = f"--dt={DTYPES[self.dtype]} " if self.dtype != "float32" else ""
        return (
            f"{dtype}{self.op} rows{self.in_rows}>{self.out_rows} pairs{self.pairs}{kernel} "
            f"{groups}ic{self.in_channels}oc{self.out_channels}"
        )
