"""What is to be computed: one frozen, hashable value for a convolution, and its one-line text.

A `ConvProblem` holds sizes only, never data, so it is a cache key, a test's parameter, a
benchmark's row and a line in a log, all in the same words. The text form is benchdnn's grammar
(oneDNN, ``tests/benchdnn/doc/knobs_conv.md``): ``ic64ih56oc64oh56kh3ph1n"name"``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from .errors import DeviceError, DTypeError, ShapeError
from .padding import Pads, output_size

__all__ = ["DTYPES", "LAYOUTS", "LINE_KEYS", "MOST", "ConvProblem", "ElementSizes", "parse_line"]

#: Supported element types and their names in a problem line.
DTYPES = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}
#: Most bytes of an operand, and most positions that a step, a pad or a padded axis may span: what
#: an address space holds. Kernels may so multiply and add sizes in 64 bits.
MOST = 1 << 47
#: Memory orders of the input and their names in a problem line ("strided" is any other order).
LAYOUTS = {"channels_first": "abx", "channels_last": "axb", "strided": "any"}


class ElementSizes:
    """What the element type of a problem says of sizes."""

    __slots__ = ()
    dtype: str

    @property
    def itemsize(self) -> int:
        """Bytes of one stored element."""
        return {"float64": 8, "float32": 4}.get(self.dtype, 2)

    @property
    def compute_itemsize(self) -> int:
        """Bytes of one element of a sum; the halves are summed in float32."""
        return max(self.itemsize, 4)


@dataclass(frozen=True, slots=True)
class ConvProblem(ElementSizes):
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
    dtype : {"float32", "float64", "float16", "bfloat16"}
        Element type of input, weight and output. The halves are accumulated in float32.
    layout : {"channels_first", "channels_last", "strided"}
        Memory order of the input; a channels-last input gives a channels-last output.
    device : {"cpu", "cuda"}
        Where the arrays live.
    op : {"conv"}
        The operator.

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

    def __post_init__(self) -> None:
        ndim = len(self.in_size)
        for name, default in (("stride", 1), ("dilation", 1), ("padding", (0, 0))):
            if not getattr(self, name):
                object.__setattr__(self, name, (default,) * ndim)
        self._check_choices()
        self._check_channels()
        self._check_spatial(ndim)

    def _check_choices(self) -> None:
        if self.dtype not in DTYPES:
            raise DTypeError(f"dtype: got {self.dtype}, want one of {', '.join(DTYPES)}")
        if self.layout not in LAYOUTS:
            raise ShapeError(f"layout: got {self.layout!r}, want one of {', '.join(LAYOUTS)}")
        if self.device not in ("cpu", "cuda"):
            raise DeviceError(f"device: got {self.device!r}, want cpu or cuda")

    def _check_channels(self) -> None:
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

    def _check_spatial(self, ndim: int) -> None:
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
        if len(self.padding) != ndim:
            raise ShapeError(f"padding: got {len(self.padding)} pairs, want {ndim}")
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
        shapes = {"input": self.x_shape, "weight": self.weight_shape, "output": self.out_shape}
        for name, shape in shapes.items():
            if math.prod(shape) * self.itemsize > MOST:
                raise ShapeError(f"{name}: got shape {shape}, want at most 2**47 bytes")

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 1 to 3."""
        return len(self.in_size)

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
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the input, ``(N, C, *spatial)``."""
        return (self.batch, self.in_channels, *self.in_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, ``(K, C / groups, *kernel)``."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output, ``(N, K, *spatial)``."""
        return (self.batch, self.out_channels, *self.out_size)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, counting those that meet padding."""
        return math.prod(self.out_shape) * math.prod(self.weight_shape[1:])

    @property
    def flops(self) -> int:
        """Floating point operations, two a multiply-accumulate."""
        return 2 * self.macs

    @property
    def is_depthwise(self) -> bool:
        """Whether each group holds one input channel (any channel multiplier)."""
        return self.groups == self.in_channels

    def with_(self, **changes: Any) -> ConvProblem:
        """Return a copy with some fields replaced (and checked again)."""
        return replace(self, **changes)

    def line(self, name: str = "") -> str:
        """Return the problem as one line of benchdnn's grammar; `parse_line` reads it back."""
        return _format_line(self, name)


# The text form. A key is one or two letters: `kh3` is the kernel's height.
_AXES = "dhw"
#: The keys of a problem line, as help and errors tell them.
LINE_KEYS = (
    "g (groups), mb (batch), ic and oc (input and output channels), and with d, h or w for depth, "
    "height or width: i (input), o (output), k (kernel), s (stride), p (padding), d (dilation: 0 "
    "is dense)"
)
#: More digits than these are no size (`MOST` has 15), and would take long to read.
_MOST_DIGITS = 19
_TOKEN = re.compile(rf'([a-z]+)(-?[0-9]{{1,{_MOST_DIGITS}}})(?![0-9])|n"([^"]*)"|n([^\s"]\S*)$|_')


def _format_line(problem: ConvProblem, name: str) -> str:
    axes = _AXES[3 - problem.ndim :]
    parts = []
    if problem.dtype != "float32":
        parts.append(f"--dt={DTYPES[problem.dtype]} ")
    if problem.layout != "channels_first":
        parts.append(f"--tag={LAYOUTS[problem.layout]} ")
    if problem.groups != 1:
        parts.append(f"g{problem.groups}")
    if problem.batch != 1:
        parts.append(f"mb{problem.batch}")
    sizes = {
        "i": (problem.in_size, None),
        "o": (problem.out_size, None),
        "k": (problem.kernel_size, None),
        "s": (problem.stride, 1),
        "p": (tuple(low for low, _ in problem.padding), 0),
        "d": (tuple(d - 1 for d in problem.dilation), 0),
    }
    for letter, (values, default) in sizes.items():
        if letter == "i":
            parts.append(f"ic{problem.in_channels}")
        if letter == "o":
            parts.append(f"oc{problem.out_channels}")
        parts.append(_format_sizes(letter, axes, values, default))
    return "".join(parts) + (f'n"{name}"' if name else "")


def _format_sizes(letter: str, axes: str, values: tuple[int, ...], default: int | None) -> str:
    if all(value == default for value in values):
        return ""
    if len(set(values)) == 1 and default != values[0]:
        return f"{letter}{axes[0]}{values[0]}"  # the other axes copy the first
    return "".join(f"{letter}{axis}{value}" for axis, value in zip(axes, values, strict=True))


def parse_line(text: str) -> tuple[ConvProblem, str]:
    """Read a problem line.

    Parameters
    ----------
    text : str
        Flags ``--dt=f32|f64|f16|bf16`` and ``--tag=abx|axb|any`` first, then keys and numbers in
        benchdnn's grammar, as the notes list them.

    Returns
    -------
    (ConvProblem, str)
        The problem and its name ("" without one).

    Notes
    -----
    =====================  ==================================================================
    key                    meaning
    =====================  ==================================================================
    ``g``                  groups (1)
    ``mb``                 batch (1)
    ``ic``, ``oc``         input and output channels, over all groups
    ``id``, ``ih``, ``iw`` input size: which of the three are there says how many axes there are
    ``od``, ``oh``, ``ow`` output size; where it is told, it decides the padding at the high side
    ``kd``, ``kh``, ``kw`` kernel size
    ``sd``, ``sh``, ``sw`` stride (1)
    ``pd``, ``ph``, ``pw`` padding at the low side, and at the high side unless output is told (0)
    ``dd``, ``dh``, ``dw`` dilation, counted from zero (0): ``dh1`` leaves one hole
    ``n"name"``            a name for people
    =====================  ==================================================================

    A missing width copies the height, a missing height the depth.

    Examples
    --------
    >>> problem, name = parse_line('g64ic64ih56oc64kh3sh2ph1n"dw"')
    >>> problem.out_size, problem.groups, name
    ((28, 28), 64, 'dw')
    """
    dtype, layout, descriptor = "float32", "channels_first", text.strip()
    while descriptor.startswith("--"):
        flag, _, descriptor = descriptor.partition(" ")
        descriptor = descriptor.strip()
        key, _, value = flag.partition("=")
        if key == "--dt":
            dtype = _lookup("dt", value, DTYPES)
        elif key in ("--tag", "--stag"):
            layout = _lookup("tag", value, LAYOUTS)
        else:
            raise ShapeError(f"problem line: got flag {flag!r}, want --dt= or --tag=")
    values, name = _tokens(descriptor, text)
    return _from_values(values, dtype, layout, text), name


def _lookup(flag: str, value: str, table: dict[str, str]) -> str:
    for name, short in table.items():
        if value in (short, name):
            return name
    raise ShapeError(f"problem line: got --{flag}={value}, want one of {', '.join(table.values())}")


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def _tokens(descriptor: str, text: str) -> tuple[dict[str, int], str]:
    values: dict[str, int] = {}
    name, position = "", 0
    while position < len(descriptor):
        match = _TOKEN.match(descriptor, position)
        if match is None:
            raise ShapeError(
                f"problem line: got {_shorten(descriptor[position:])} in {_shorten(text)}, want "
                f"keys and numbers of at most {_MOST_DIGITS} digits, such as "
                'ic64ih56oc64kh3ph1n"name"'
            )
        if match.group(1) in values:
            raise ShapeError(f"problem line: got {match.group(1)} twice in {_shorten(text)}")
        if match.group(1):
            values[match.group(1)] = int(match.group(2))
        name = match.group(3) or match.group(4) or name
        position = match.end()
    return values, name


def _axes_of(values: dict[str, int], text: str) -> str:
    """Return the letters of a line's axes, its keys checked."""
    known = {"g", "mb", "ic", "oc"} | {f"{letter}{axis}" for letter in "ioskpd" for axis in _AXES}
    if unknown := sorted(set(values) - known):
        raise ShapeError(
            f"problem line: got keys {', '.join(unknown)} in {text!r}, want {LINE_KEYS}"
        )
    axes = next((_AXES[i:] for i in range(3) if f"i{_AXES[i]}" in values), "")
    if not axes or "ic" not in values or "oc" not in values:
        raise ShapeError(f"problem line: got {text!r}, want at least ic, oc and iw, ih or id")
    return axes


def _from_values(values: dict[str, int], dtype: str, layout: str, text: str) -> ConvProblem:
    axes = _axes_of(values, text)

    def sizes(letter: str, default: int | None) -> tuple[int, ...] | None:
        along_axes: list[int] = []
        for axis in axes:
            copied = along_axes[-1] if along_axes else default
            value = values.get(f"{letter}{axis}", copied)
            if value is None:
                return None
            along_axes.append(value)
        return tuple(along_axes)

    in_size, kernel, out = sizes("i", None), sizes("k", None), sizes("o", None)
    stride, low, holes = sizes("s", 1), sizes("p", 0), sizes("d", 0)
    if in_size is None or kernel is None:
        raise ShapeError(f"problem line: got no kernel size in {text!r}, want kw, kh or kd")
    assert stride is not None and low is not None and holes is not None
    if min(holes) < 0:
        raise ShapeError(
            f"problem line: got a dilation of {min(holes)} in {_shorten(text)}, want 0 for a dense "
            "kernel, or more"
        )
    dilation = tuple(hole + 1 for hole in holes)
    high = low
    if out is not None:  # which decides the zeros behind the input, where those before it do not
        high = tuple(
            max((o - 1) * s + d * (k - 1) + 1 - i - p, 0)
            if o != output_size(i, k, s, (p, p), d)
            else p
            for i, o, k, s, p, d in zip(in_size, out, kernel, stride, low, dilation, strict=True)
        )
    problem = ConvProblem(
        values.get("mb", 1),
        values["ic"],
        values["oc"],
        in_size,
        kernel,
        stride,
        tuple(zip(low, high, strict=True)),
        dilation,
        values.get("g", 1),
        dtype,
        layout,
    )
    if out is not None and problem.out_size != out:
        raise ShapeError(f"problem line: got output {out} in {text!r}, want {problem.out_size}")
    return problem
