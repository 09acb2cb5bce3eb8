"""Transposed convolutions made from a weight array: packed once, then called."""

from __future__ import annotations

from typing import Any

from ..arrays import Array
from ..companions import check_groups
from ..contract.arguments import Activation, Padding, Sizes
from ..contract.transposed_problem import TransposedProblem
from ..packed_layer import PackedLayer, refuse_sizes
from .transposed_calls import CONV_TRANSPOSE, make_transposed_problem

__all__ = ["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]


class _ConvTranspose(PackedLayer):
    """What the three ranks of transposed convolution share."""

    _family = CONV_TRANSPOSE
    _names = ("stride", "padding", "output_padding", "groups", "dilation")
    _leading = "input channels, output channels / groups"

    def __init__(
        self,
        weight: Array,
        bias: Array | None = None,
        stride: Sizes = 1,
        padding: Padding = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        dilation: Sizes = 1,
        *,
        activation: Activation = None,
        tune: bool = False,
    ) -> None:
        arguments = (stride, padding, output_padding, groups, dilation)
        self._set(weight, bias, arguments, activation, tune)

    def __new__(cls, *given: Any, **named: Any) -> Any:
        """Refuse sizes in the place of the weight."""
        refuse_sizes(cls, _ConvTranspose.__init__, cls._leading, given, named)
        return super().__new__(cls)

    __new__.__wrapped__ = __init__  # type: ignore[attr-defined]

    def _groups(self, weight: Array, arguments: tuple[Any, ...]) -> int:
        _, _, _, number, _ = CONV_TRANSPOSE.canonical(self._ndim, arguments)
        return check_groups(number, weight, "input")

    def _out_channels(self, weight: Array, groups: int) -> int:
        return int(weight.shape[1]) * groups

    def problem(self, input: Array) -> TransposedProblem:
        """Return the problem that a call with this input computes."""
        x = self._batched(input)
        return make_transposed_problem(self._ndim, x, self._weight, self._arguments)


class ConvTranspose1d(_ConvTranspose):
    """A 1-D transposed convolution with packed weights; see `ConvTranspose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> twice = fastconv.ConvTranspose1d(np.ones((1, 1, 2), np.float32), stride=2)
    >>> twice(np.ones((1, 8), np.float32)).shape
    (1, 16)
    """

    _ndim = 1


class ConvTranspose2d(_ConvTranspose):
    """A 2-D transposed convolution with packed weights.

    Parameters
    ----------
    weight : ndarray, shape (C, K / groups, kh, kw)
        Filters; copied.
    bias : ndarray, shape (K,), optional
        Added to each output channel; copied.
    stride, padding, output_padding, groups, dilation, activation, tune
        As for `fastconv.conv_transpose2d`.

    Notes
    -----
    Calls take ``(input, residual=None, out=None)``, and may come from many threads at once.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> layer = fastconv.ConvTranspose2d(np.ones((8, 3, 4, 4), np.float32), stride=2, padding=1)
    >>> layer(np.ones((1, 8, 16, 16), np.float32)).shape
    (1, 3, 32, 32)
    """

    _ndim = 2


class ConvTranspose3d(_ConvTranspose):
    """A 3-D transposed convolution with packed weights; see `ConvTranspose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> layer = fastconv.ConvTranspose3d(np.ones((2, 1, 2, 2, 2), np.float32), stride=2)
    >>> layer(np.ones((1, 2, 4, 4, 4), np.float32)).shape
    (1, 1, 8, 8, 8)
    """

    _ndim = 3
