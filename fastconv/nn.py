"""Convolutions made from a weight array: packed once, then called."""

from __future__ import annotations

from typing import Any

from numpy.typing import DTypeLike

from .arrays import Array
from .boundary_modes import conv_family, conv_problem
from .calls import CONV
from .companions import check_groups
from .contract.arguments import (
    Activation,
    Padding,
    PaddingMode,
    Sizes,
    canonical_arguments,
    canonical_dtype,
)
from .contract.boundary_problem import BoundaryProblem
from .contract.problem import ConvProblem
from .packed_layer import PackedLayer, refuse_sizes

__all__ = ["Conv1d", "Conv2d", "Conv3d"]


class _Conv(PackedLayer):
    """What the three ranks share."""

    _names = ("stride", "padding", "dilation", "groups", "out_dtype")
    _leading = "output channels, input channels / groups"

    def __init__(
        self,
        weight: Array,
        bias: Array | None = None,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        *,
        padding_mode: PaddingMode = "zeros",
        activation: Activation = None,
        out_dtype: DTypeLike | None = None,
        tune: bool = False,
    ) -> None:
        self._family = conv_family(padding_mode)
        if self._family is not CONV:
            self._options = {
                "padding_mode": padding_mode
                if isinstance(padding_mode, str)
                else tuple(padding_mode)
            }
        told = () if out_dtype is None else (canonical_dtype(out_dtype),)
        arguments = (stride, padding, dilation, groups, *told)
        self._set(weight, bias, arguments, activation, tune)

    def __new__(cls, *given: Any, **named: Any) -> Any:
        """Refuse sizes in the place of the weight."""
        refuse_sizes(cls, _Conv.__init__, cls._leading, given, named)
        return super().__new__(cls)

    # What tools show as the signature: that of the arguments, not of this check.
    __new__.__wrapped__ = __init__  # type: ignore[attr-defined]

    def _groups(self, weight: Array, arguments: tuple[Any, ...]) -> int:
        return check_groups(canonical_arguments(self._ndim, arguments)[3], weight)

    def _out_channels(self, weight: Array, groups: int) -> int:
        return int(weight.shape[0])

    def problem(self, input: Array) -> ConvProblem | BoundaryProblem:
        """Return the problem that a call with this input computes."""
        x, mode = self._batched(input), self._options.get("padding_mode", "zeros")
        return conv_problem(self._ndim, x, self._weight, self._arguments, mode)


class Conv1d(_Conv):
    """A 1-D convolution with packed weights; see `Conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> smooth = fastconv.Conv1d(np.full((1, 1, 5), 0.2, np.float32), padding="same")
    >>> smooth(np.ones((1, 8), np.float32)).shape
    (1, 8)
    """

    _ndim = 1


class Conv2d(_Conv):
    """A 2-D convolution with packed weights.

    Parameters
    ----------
    weight : array, shape (K, C / groups, kh, kw)
        Filters, of NumPy, PyTorch or CuPy; on a GPU as inputs must be; copied.
    bias : array, shape (K,), optional
        Added to each output channel; copied.
    stride, padding, dilation, groups, padding_mode, activation
        As for `fastconv.conv2d`.
    out_dtype : dtype, optional
        What becomes of integers, as for `fastconv.conv2d`: they are convolved by weights of
        float32.
    tune : bool
        Measure which kernel is fastest the first time that an input of another shape comes, and
        remember it on disk, as for `fastconv.conv2d`.

    Notes
    -----
    Calls take ``(input, residual=None, out=None)``, and may come from many threads at once.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> layer = fastconv.Conv2d(np.ones((8, 3, 3, 3), np.float32), padding=1, activation="relu")
    >>> layer(np.ones((1, 3, 32, 32), np.float32)).shape
    (1, 8, 32, 32)
    """

    _ndim = 2


class Conv3d(_Conv):
    """A 3-D convolution with packed weights; see `Conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> layer = fastconv.Conv3d(np.ones((2, 1, 3, 3, 3), np.float32), stride=2)
    >>> layer(np.ones((1, 1, 9, 9, 9), np.float32)).shape
    (1, 2, 4, 4, 4)
    """

    _ndim = 3
