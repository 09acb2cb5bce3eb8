"""What is to be computed: one frozen, hashable value for a convolution.

A `ConvProblem` holds sizes only, never data, so it is a cache key, a test's parameter, a
benchmark's row and, as one line of text (problem_line.py), a line in a log, all in the same words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from . import first_use
from .errors import DeviceError, DTypeError, ShapeError
from .padding import Pads, output_size
from .reach import Reach, window_reach

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "DTYPES",
    "INTEGERS",
    "LAYOUTS",
    "MOST",
    "ConvProblem",
    "DenseSizes",
    "ElementSizes",
    "result_dtypes",
]

#: Supported element types and their names in a problem line.
DTYPES = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}
#: Integers that a convolution reads and stores, with a weight of float32.
INTEGERS = {"uint8": "u8", "uint16": "u16", "int16": "s16"}
_ITEMSIZE = {"float64": 8, "float32": 4, "uint8": 1} | dict.fromkeys(
    ("float16", "bfloat16", "uint16", "int16"), 2
)
#: Most bytes of an operand, and most positions that a step, a pad or a padded axis may span: what
#: an address space holds. Kernels may so multiply and add sizes in 64 bits.
MOST = 1 << 47
#: Memory orders of the input and their names in a problem line ("strided" is any other order).
LAYOUTS = {"channels_first": "abx", "channels_last": "axb", "strided": "any"}


def result_dtypes(dtype: str) -> tuple[str, ...]:
    """Return the element types that an input's convolution can have; the first is the default."""
    return ("float32", *INTEGERS) if dtype == "float32" or dtype in INTEGERS else (dtype,)


class ElementSizes:
    """What the element type of a problem says of sizes."""

    __slots__ = ()
    dtype: str

    @property
    def itemsize(self) -> int:
        """Bytes of one stored element, of the input where arrays differ."""
        return _ITEMSIZE[self.dtype]

    @property
    def weight_dtype(self) -> str:
        """Element type of weight and bias."""
        return self.dtype

    @property
    def result_dtype(self) -> str:
        """Element type of the output, and of a residual."""
        return self.dtype

    @property
    def weight_itemsize(self) -> int:
        """Bytes of one element of the weight."""
        return _ITEMSIZE[self.weight_dtype]

    @property
    def out_itemsize(self) -> int:
        """Bytes of one element of the output."""
        return _ITEMSIZE[self.result_dtype]

    @property
    def compute_itemsize(self) -> int:
        """Bytes of one element of a sum; the halves and integers are summed in float32."""
        return max(self.itemsize, 4)


class DenseSizes(ElementSizes):
    """What problems over dense arrays share: a record of sizes, whose operator tells the others.

    A subclass is a frozen dataclass with the fields that are named here, and its own padding.
    """

    __slots__ = ()
    _element_types: ClassVar[dict[str, str]] = DTYPES
    batch: int
    in_channels: int
    out_channels: int
    in_size: tuple[int, ...]
    groups: int
    layout: str
    device: str

    @property
    def out_size(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        raise NotImplementedError

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        raise NotImplementedError

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        raise NotImplementedError

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output position sees of the input along each spatial axis."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 1 to 3."""
        return len(self.in_size)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the input, ``(N, C, *spatial)``."""
        return (self.batch, self.in_channels, *self.in_size)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output, ``(N, K, *spatial)``."""
        return (self.batch, self.out_channels, *self.out_size)

    @property
    def flops(self) -> int:
        """Floating point operations, two a multiply-accumulate."""
        return 2 * self.macs

    def with_(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced (and checked again)."""
        record: Any = self
        copy: Self = replace(record, **changes)
        return copy

    def line(self, name: str = "") -> str:
        """Return the problem as one line, which `problem_line.parse_any_line` reads back."""
        grammar = first_use.load("fastconv.contract.problem_line")
        return str(grammar.format_line(self, name))

    def _fill(self, **defaults: Any) -> None:
        """Set fields that are empty to one value an axis."""
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, (value,) * self.ndim)

    def _check_sizes(self) -> None:
        """Raise where what every dense problem has is not valid by itself."""
        if self.dtype not in self._element_types:
            wanted = ", ".join(self._element_types)
            raise DTypeError(f"dtype: got {self.dtype}, want one of {wanted}")
        if self.layout not in LAYOUTS:
            raise ShapeError(f"layout: got {self.layout!r}, want one of {', '.join(LAYOUTS)}")
        if self.device not in ("cpu", "cuda"):
            raise DeviceError(f"device: got {self.device!r}, want cpu or cuda")
        if self.groups < 1:
            raise ShapeError(f"groups: got {self.groups}, want at least 1")
        if self.batch < 0:
            raise ShapeError(f"input: got a batch of {self.batch}, want at least 0")
        for name, argument in (("in_channels", "input"), ("out_channels", "weight")):
            channels = getattr(self, name)
            if channels < 1 or channels % self.groups:
                raise ShapeError(
                    f"{argument}: got {channels} {name.replace('_', ' ').replace('in ', 'input ')}"
                    f", want a positive multiple of groups={self.groups}"
                )
        ndim = self.ndim
        if not 1 <= ndim <= 3:
            raise ShapeError(f"input: got {ndim} spatial axes, want 1, 2 or 3")
        for name, low in (("kernel_size", 1), ("stride", 1), ("dilation", 1), ("in_size", 0)):
            values = getattr(self, name)
            if len(values) != ndim:
                raise ShapeError(f"{name}: got {len(values)} values {values}, want {ndim}")
            if min(values) < low:
                raise ShapeError(f"{name}: got {values}, want every value to be at least {low}")
            if max(values) > MOST:
                raise ShapeError(f"{name}: got {values}, want every value to be at most 2**47")

    def _check_bytes(self) -> None:
        """Raise where an operand would not fit in an address space."""
        operands = (
            ("input", self.x_shape, self.itemsize),
            ("weight", self.weight_shape, self.weight_itemsize),
            ("output", self.out_shape, self.out_itemsize),
        )
        for name, shape, itemsize in operands:
            if math.prod(shape) * itemsize > MOST:
                raise ShapeError(f"{name}: got shape {shape}, want at most 2**47 bytes")


@dataclass(frozen=True, slots=True)
class ConvProblem(DenseSizes):
    """One dense convolution (cross-correlation), described by sizes alone.

    Parameters
    ----------
    batch, in_channels, out_channels : int
        ``N``, ``C`` and ``K``, the channels counted over all groups.
    in_size, kernel_size, stride, dilation : tuple of int
        One entry per spatial axis, 1 to 3 axes; a dilation of 1 is dense.
    padding : tuple of (int, int)
        Zeros before and after each spatial axis.
    groups : int
        Number of independent channel groups.
    dtype : {"float32", "float64", "float16", "bfloat16", "uint8", "uint16", "int16"}
        Element type of the input, and of weight and output too but for the integers, whose weight
        is float32. Halves and integers are accumulated in float32.
    layout : {"channels_first", "channels_last", "strided"}
        Memory order of the input; a channels-last input gives a channels-last output.
    device : {"cpu", "cuda"}
        Where the arrays live.
    op : {"conv", "conv_input_grad", "conv_weight_grad"}
        The operator: the convolution, or one of its gradients, whose sizes are the convolution's.
    out_dtype : str
        Element type of the output where it is not the default, one of `result_dtypes`: integers
        and float32 give float32, or integers that are rounded to nearest even and saturated.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type are not a valid convolution.

    Examples
    --------
    >>> p = ConvProblem(1, 64, 64, (56, 56), (3, 3), padding=((1, 1), (1, 1)))
    >>> p.out_shape, p.macs
    ((1, 64, 56, 56), 115605504)
    >>> p.line("res2")
    'ic64ih56oc64oh56kh3ph1n"res2"'
    """

    batch: int
    in_channels: int
    out_channels: int
    in_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: Pads = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"
    op: str = "conv"
    out_dtype: str = ""

    _element_types: ClassVar[dict[str, str]] = DTYPES | INTEGERS

    def __post_init__(self) -> None:
        self._fill(stride=1, dilation=1, padding=(0, 0))
        self._check_sizes()
        if self.out_dtype or self.dtype in INTEGERS:
            self._check_results()
        self._check_padding()
        self._check_bytes()

    def _check_results(self) -> None:
        """Raise where an input has no such output; the default becomes ""."""
        wanted = result_dtypes(self.dtype)
        if self.dtype in INTEGERS and self.op != "conv":
            raise DTypeError(f"dtype: got {self.dtype}, want one of {', '.join(DTYPES)}")
        if self.op != "conv":
            wanted = (self.dtype,)
        if self.out_dtype and self.out_dtype not in wanted:
            raise DTypeError(
                f"out_dtype: got {self.out_dtype}, want {' or '.join(wanted)} of an input of "
                f"{self.dtype}"
            )
        if self.out_dtype == wanted[0]:
            object.__setattr__(self, "out_dtype", "")

    def _check_padding(self) -> None:
        if len(self.padding) != self.ndim:
            raise ShapeError(f"padding: got {len(self.padding)} pairs, want {self.ndim}")
        if min(min(pair) for pair in self.padding) < 0:
            raise ShapeError(f"padding: got {self.padding}, want no negative value")
        if max(max(pair) for pair in self.padding) > MOST:
            raise ShapeError(f"padding: got {self.padding}, want every value to be at most 2**47")
        for axis, size in enumerate(self.out_size):
            if size < 1:
                reach = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
                padded = self.in_size[axis] + sum(self.padding[axis])
                raise ShapeError(
                    f"weight: got a kernel that reaches over {reach} positions of spatial axis "
                    f"{axis}, want at most the padded input's {padded}"
                )

    @property
    def weight_dtype(self) -> str:
        """Element type of weight and bias."""
        return "float32" if self.dtype in INTEGERS else self.dtype

    @property
    def result_dtype(self) -> str:
        """Element type of the output, and of a residual."""
        return self.out_dtype or self.weight_dtype

    @property
    def out_size(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        return tuple(
            output_size(*axis)
            for axis in zip(
                self.in_size,
                self.kernel_size,
                self.stride,
                self.padding,
                self.dilation,
                strict=True,
            )
        )

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, ``(K, C / groups, *kernel)``."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, counting those that meet padding."""
        return math.prod(self.out_shape) * math.prod(self.weight_shape[1:])

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output position sees of the input along each spatial axis."""
        return window_reach(self.kernel_size, self.stride, self.padding, self.dilation)

    @property
    def is_depthwise(self) -> bool:
        """Whether each group holds one input channel (any channel multiplier)."""
        return self.groups == self.in_channels
