"""Sparse rows: one layer over the voxels of a scan.

A line names the function of `fastconv.sparse`, the geometry and the channels::

    sparse_conv k3x3x3 s2x2x2 p1x1x1 ic32oc64 n"down"

``rulebook`` in place of a function is a submanifold kernel's rulebook alone. The word ``fresh``
has every call build its rulebook; else that is done once, beforehand. ``sparse_inverse_conv`` leads
from the sites after the downsampling with that geometry back to the scan's.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

__all__ = ["OPS", "SparseLayer", "is_sparse_line", "parse_layer"]

#: What a line can time.
OPS = ("rulebook", "subm_conv", "sparse_conv", "sparse_inverse_conv", "sparse_max_pool")

_SIZES = r"\d+x\d+x\d+"
_LINE = re.compile(
    rf"(?P<op>\w+) k(?P<k>{_SIZES})(?: s(?P<s>{_SIZES}))?(?: p(?P<p>{_SIZES}))? "
    r"(?:g(?P<g>\d+))?ic(?P<ic>\d+)oc(?P<oc>\d+)(?P<fresh> fresh)?"
)


@dataclass(frozen=True, slots=True)
class SparseLayer:
    """One sparse layer, described without its sites, which are the scan's.

    Parameters
    ----------
    op : str
        One of `OPS`.
    kernel_size, stride, padding : tuple of int
        One entry an axis: z, y, x. Padding is that of both sides, a submanifold kernel's that of
        the low one: half its reach, rounded down.
    in_channels, out_channels, groups : int
        As for a dense convolution.
    fresh : bool
        Whether each call builds its rulebook.
    dtype : str
        Element type of features and weight.
    """

    op: str
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    in_channels: int
    out_channels: int
    groups: int = 1
    fresh: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise ValueError(f"got {self.op!r}, want one of {', '.join(OPS)}")
        if min(*self.kernel_size, *self.stride, self.groups, self.in_channels) < 1:
            raise ValueError("got a size of 0, want kernel, stride and channels of at least 1")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(f"got g{self.groups}, want a divisor of both numbers of channels")
        if self.is_submanifold and set(self.stride) != {1}:
            raise ValueError(f"got s{_sizes(self.stride)}, want {self.op} to have a stride of 1")

    @property
    def is_submanifold(self) -> bool:
        """Whether outputs are at the inputs' sites alone."""
        return self.op in ("rulebook", "subm_conv")

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, ``(K, C / groups, *kernel_size)``."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def flops(self, pairs: int) -> int:
        """Return the floating point operations over so many pairs; 0 where none multiplies."""
        if self.op in ("rulebook", "sparse_max_pool"):
            return 0
        return 2 * pairs * math.prod(self.weight_shape[:2])

    def line(self) -> str:
        """Return the layer as the line that `parse_layer` reads."""
        words = [self.op, f"k{_sizes(self.kernel_size)}"]
        if not self.is_submanifold:
            words += [f"s{_sizes(self.stride)}", f"p{_sizes(self.padding)}"]
        groups = f"g{self.groups}" if self.groups > 1 else ""
        words += [f"{groups}ic{self.in_channels}oc{self.out_channels}"]
        return " ".join(words + ["fresh"] * self.fresh)


def _sizes(values: tuple[int, ...]) -> str:
    return "x".join(map(str, values))


def is_sparse_line(text: str) -> bool:
    """Whether a line means a sparse layer: its first word is one of `OPS`."""
    return text.split(maxsplit=1)[:1] in [[op] for op in OPS]


def parse_layer(text: str) -> SparseLayer:
    """Read a line without its quoted name.

    Examples
    --------
    >>> layer = parse_layer("subm_conv k3x3x3 ic16oc32")
    >>> layer.padding, layer.weight_shape
    ((1, 1, 1), (32, 16, 3, 3, 3))
    >>> parse_layer("sparse_max_pool k2x2x2 s2x2x2 ic32oc32").line()
    'sparse_max_pool k2x2x2 s2x2x2 p0x0x0 ic32oc32'
    """
    match = _LINE.fullmatch(text.strip())
    if not match:
        raise ValueError(
            f"{text.strip()}: want 'OP k3x3x3 [s2x2x2] [p1x1x1] [g16]ic16oc16 [fresh]'"
        )
    kernel = _numbers(match["k"])
    submanifold = match["op"] in ("rulebook", "subm_conv")
    padding = tuple((size - 1) // 2 for size in kernel) if submanifold else (0, 0, 0)
    try:
        return SparseLayer(
            match["op"],
            kernel,
            _numbers(match["s"]) if match["s"] else (1, 1, 1),
            _numbers(match["p"]) if match["p"] else padding,
            int(match["ic"]),
            int(match["oc"]),
            int(match["g"] or 1),
            bool(match["fresh"]),
        )
    except ValueError as error:
        raise ValueError(f"{text.strip()}: {error}") from None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))
