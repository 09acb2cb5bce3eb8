"""Operators that meet each element by itself, or with its neighbours in other channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .array_problem import ArrayProblem, Call, Operand, number, option, per_axis_size
from .errors import ShapeError
from .problem import MOST

__all__ = ["LocalResponseProblem", "PReluProblem"]


def _check_channels(channels: int, batch: int) -> None:
    if not 0 <= batch <= MOST or not 1 <= channels <= MOST:
        raise ShapeError(
            f"input: got {batch} images of {channels} channels, want at least one channel"
        )


def _shape(batch: int, channels: int, in_size: tuple[int, ...]) -> tuple[int, ...]:
    """Return an array's shape: one lone 1 is no axis."""
    return (batch, channels, *(() if in_size == (1,) else in_size))


@dataclass(frozen=True, slots=True)
class PReluProblem(ArrayProblem):
    """A leaky ReLU whose slope is an operand, described by sizes alone.

    Parameters
    ----------
    op : {"prelu"}
        The operator.
    batch, channels : int
        ``N`` and ``C``.
    in_size : tuple of int
        Spatial axes, 1 to 3. An array of one lone 1 has none.
    shared : bool
        Whether there is one slope for all channels; so it is where there is one channel.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Examples
    --------
    >>> PReluProblem("prelu", 1, 64, (56, 56)).line()
    '--op=prelu ic64ih56'
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    shared: bool = option(False)
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.channels == 1:
            object.__setattr__(self, "shared", True)
        self._check_kind()
        self._check_axes(in_size=1)
        _check_channels(self.channels, self.batch)
        self._check_bytes()

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The input and the slopes."""
        shape = _shape(self.batch, self.channels, self.in_size)
        slopes = 1 if self.shared else self.channels
        return (Operand("input", shape), Operand("weight", (slopes,)))

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """As many numbers."""
        return (Operand("out", _shape(self.batch, self.channels, self.in_size)),)

    @property
    def flops(self) -> int:
        """A product and a choice."""
        return 2 * math.prod(self.out_shape)

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        return Call("prelu", {})


@dataclass(frozen=True, slots=True)
class LocalResponseProblem(ArrayProblem):
    """A local response norm, described by sizes alone.

    Parameters
    ----------
    op : {"local_response_norm"}
        The operator.
    batch, channels : int
        ``N`` and ``C``.
    in_size : tuple of int
        Spatial axes, 1 to 3.
    size : int
        Channels whose squares are summed: ``size // 2`` before an element's own, and its own.
    alpha, beta, k : float
        An element is divided by ``(k + alpha * mean of the squares) ** beta``; a channel that is
        not there counts as zero.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Examples
    --------
    >>> LocalResponseProblem("local_response_norm", 1, 96, (55, 55)).line()
    '--op=local_response_norm ic96ih55'
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    size: int = option(5)
    alpha: float = option(1e-4)
    beta: float = option(0.75)
    k: float = option(1.0)
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_axes(in_size=1)
        _check_channels(self.channels, self.batch)
        if not 1 <= self.size <= MOST:
            raise ShapeError(f"size: got {self.size}, want from 1 to 2**47")
        self._check_bytes()

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The input."""
        return (Operand("input", (self.batch, self.channels, *self.in_size)),)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """As many numbers."""
        return (Operand("out", (self.batch, self.channels, *self.in_size)),)

    @property
    def window(self) -> int:
        """Channels that a sum has at most."""
        return min(self.size, 2 * self.channels)

    @property
    def flops(self) -> int:
        """The squares, and forty operations for the power."""
        return (40 + 2 * self.window) * math.prod(self.out_shape)

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        names = ("size", "alpha", "beta", "k")
        return Call("local_response_norm", {name: getattr(self, name) for name in names})
