"""The geometry of a sparse operator: how the sites before and after it are related.

Every number of it reaches machine code, so all are checked here, as Python's integers, whoever made
the geometry; sums and products of what passes stay below 2**63.
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from typing import Any

from .arguments import per_axis, whole_number
from .errors import ShapeError
from .padding import Pads, canonical_padding, output_size

__all__ = [
    "KINDS",
    "LONGEST_AXIS",
    "MOST_KEYS",
    "MOST_OFFSETS",
    "Geometry",
    "check_grid",
    "is_word",
]

#: Where outputs are: at the inputs' sites, wherever the kernel reaches one, or wherever a site's
#: spread by the kernel reaches.
KINDS = ("submanifold", "regular", "transposed")

#: Most offsets of a kernel: each is a row of the table of neighbours, and on a GPU one of the grid.
MOST_OFFSETS = 2**16 - 1

_MOST_AXES = 4

#: Most sites that have keys of 64 bits, and the longest axis, the largest batch and the most rows
#: whose indices are int32.
MOST_KEYS = 2**63 - 1
LONGEST_AXIS = 2**31 - 1


def check_grid(shape: tuple[int, ...], batch_size: int) -> None:
    """Raise where a grid has an empty axis, or sites whose coordinates or keys overflow."""
    if not 1 <= batch_size <= LONGEST_AXIS:
        raise ShapeError(
            f"batch_size: got {batch_size}, want at least 1 and at most {LONGEST_AXIS} "
            "(indices are int32)"
        )
    if min(shape) < 1:
        raise ShapeError(f"spatial_shape: got {shape}, want every axis to be at least 1")
    if max(shape) > LONGEST_AXIS:
        raise ShapeError(
            f"spatial_shape: got {shape}, want no axis above {LONGEST_AXIS} (indices are int32)"
        )
    if batch_size * math.prod(shape) > MOST_KEYS:
        raise ShapeError(
            f"spatial_shape: got {shape} with batch_size={batch_size}, "
            f"{batch_size * math.prod(shape):.3g} sites, want at most 2**63 - 1, "
            "which have keys of 64 bits"
        )


def is_word(value: Any, words: tuple[str, ...]) -> bool:
    """Tell whether a value, which may be an array of terabytes, is one of some words."""
    return isinstance(value, str) and value in words


@dataclass(frozen=True, slots=True)
class Geometry:
    """How sites before and after a sparse operator are related.

    The input at ``i`` and the output at ``o`` meet at the offset ``k`` where, on every axis,
    ``i = o * stride - low + k * dilation`` ("submanifold", "regular") or
    ``o = i * stride - low + k * dilation`` ("transposed"). Offsets are numbered in row-major order.

    Parameters
    ----------
    kind : {"submanifold", "regular", "transposed"}
        See `KINDS`.
    in_shape : tuple of int
        Spatial shape of the grid before, 1 to 4 axes.
    batch_size : int
        Number of grids.
    kernel_size, stride, dilation : tuple of int
        One entry an axis.
    padding : tuple of (int, int)
        ``(low, high)`` an axis. A submanifold kernel's is half its reach, rounded down at the low
        side, as dense convolution's ``padding="same"`` has it.
    output_padding : tuple of int
        Positions that a transposed kernel's grid has more at its high side.

    Raises
    ------
    ShapeError
        For numbers that are none or out of range, a submanifold kernel with a stride or with other
        padding, and grids that are empty or whose sites cannot be counted.

    Examples
    --------
    >>> Geometry("regular", (8, 8), 1, (3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), (0, 0)).out_shape
    (4, 4)
    """

    kind: str
    in_shape: tuple[int, ...]
    batch_size: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pads
    output_padding: tuple[int, ...]

    def __post_init__(self) -> None:
        if not is_word(self.kind, KINDS):
            raise ShapeError(f"kind: got {self.kind!r}, want one of {', '.join(KINDS)}")
        self._check_numbers()
        if self.kind == "submanifold":
            self._check_submanifold()
        check_grid(self.in_shape, self.batch_size)
        if min(self.out_shape) < 1:
            raise ShapeError(
                f"kernel_size: got {self.kernel_size} with dilation={self.dilation} and "
                f"padding={self.padding} over spatial_shape={self.in_shape}, which leaves an "
                f"output of {self.out_shape}, want every axis to be at least 1"
            )
        check_grid(self.out_shape, self.batch_size)

    def _check_numbers(self) -> None:
        """Bring all numbers to Python's integers, and raise where one is out of range."""
        shape: Any = self.in_shape
        if not isinstance(shape, (tuple, list)) or not 1 <= len(shape) <= _MOST_AXES:
            raise ShapeError(
                f"in_shape: got {reprlib.repr(shape)}, want 1 to {_MOST_AXES} whole numbers"
            )
        ndim = len(shape)
        values: dict[str, Any] = {
            "in_shape": per_axis("in_shape", shape, ndim),
            "batch_size": whole_number("batch_size", self.batch_size),
        }
        for name in ("kernel_size", "stride", "dilation"):
            values[name] = numbers = per_axis(name, getattr(self, name), ndim)
            if min(numbers) < 1:
                raise ShapeError(f"{name}: got {numbers}, want every value to be at least 1")
            _check_reach(name, max(numbers))
        if math.prod(values["kernel_size"]) > MOST_OFFSETS:
            raise ShapeError(
                f"kernel_size: got {values['kernel_size']}, "
                f"{math.prod(values['kernel_size'])} offsets, want at most {MOST_OFFSETS}"
            )
        values["padding"] = pads = canonical_padding(self.padding, ndim)
        if isinstance(pads, str):
            raise ShapeError(f"padding: got {pads!r}, want two whole numbers an axis")
        if min(map(min, pads)) < 0:
            raise ShapeError(f"padding: got {pads}, want no negative value")
        _check_reach("padding", max(map(max, pads)) if self.kind != "submanifold" else 0)
        values["output_padding"] = more = per_axis("output_padding", self.output_padding, ndim)
        limits = tuple(map(max, values["stride"], values["dilation"]))
        if any(not 0 <= extra < limit for extra, limit in zip(more, limits, strict=True)):
            raise ShapeError(
                f"output_padding: got {more}, want values of at least 0 and below the stride or "
                f"the dilation, {limits}"
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_submanifold(self) -> None:
        """Raise where outputs are not at the inputs' sites, or a kernel is off its centre."""
        if max(self.stride) > 1:
            raise ShapeError(f"stride: got {self.stride}, want 1: the sites stay as they are")
        extents = [
            hole * (taps - 1) for hole, taps in zip(self.dilation, self.kernel_size, strict=True)
        ]
        wanted = tuple((extent // 2, extent - extent // 2) for extent in extents)
        if self.padding != wanted:
            raise ShapeError(
                f"padding: got {self.padding}, want {wanted} for a submanifold kernel of "
                f"{self.kernel_size} with dilation={self.dilation}"
            )

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.in_shape)

    @property
    def volume(self) -> int:
        """Number of offsets of the kernel."""
        return math.prod(self.kernel_size)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Spatial shape of the grid after."""
        if self.kind == "submanifold":
            return self.in_shape
        axes = zip(
            self.in_shape, self.kernel_size, self.stride, self.padding, self.dilation,
            self.output_padding, strict=True,
        )  # fmt: skip
        if self.kind == "transposed":
            return tuple(
                (size - 1) * step - low - high + hole * (taps - 1) + 1 + more
                for size, taps, step, (low, high), hole, more in axes
            )
        return tuple(
            output_size(size, taps, step, pads, hole) for size, taps, step, pads, hole, _ in axes
        )


def _check_reach(name: str, value: int) -> None:
    if value > LONGEST_AXIS:
        raise ShapeError(f"{name}: got {value}, want no value above {LONGEST_AXIS}")
