"""Deformable convolutions made from a weight array: packed once, then called."""

from __future__ import annotations

from typing import Any

from ..arrays import Array
from ..contract.arguments import Activation, Sizes, per_axis
from ..contract.deform_problem import DeformProblem
from ..dispatch import choose
from ..packed_layer import PackedLayer, refuse_sizes
from ..tensors import compute_tensors, holds_tensors
from .deform import compute_deform
from .telling import told

__all__ = ["DeformConv2d"]


class DeformConv2d(PackedLayer):
    """A deformable convolution with packed weights.

    Parameters
    ----------
    weight : ndarray, shape (K, C / groups, kh, kw)
        Filters; copied.
    bias : ndarray, shape (K,), optional
        Added to each output channel; copied.
    stride, padding, dilation, activation
        As for `fastconv.deform_conv2d`.

    Notes
    -----
    Calls take ``(input, offset, mask=None, out=None)``, and may come from many threads at once.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> layer = fastconv.DeformConv2d(np.ones((8, 3, 3, 3), np.float32), padding=1)
    >>> x, offset = np.ones((1, 3, 32, 32), np.float32), np.zeros((1, 18, 32, 32), np.float32)
    >>> layer(x, offset).shape
    (1, 8, 32, 32)
    """

    _ndim = 2
    _names = ("stride", "padding", "dilation")
    _leading = "output channels, input channels / groups"

    def __init__(
        self,
        weight: Array,
        bias: Array | None = None,
        stride: Sizes = 1,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        *,
        activation: Activation = None,
    ) -> None:
        self._set(weight, bias, (stride, padding, dilation), activation, False)

    def __new__(cls, *given: Any, **named: Any) -> Any:
        """Refuse sizes in the place of the weight."""
        refuse_sizes(cls, DeformConv2d.__init__, cls._leading, given, named)
        return super().__new__(cls)

    __new__.__wrapped__ = __init__  # type: ignore[attr-defined]

    def __setstate__(self, state: dict[str, Any]) -> None:
        make: Any = type(self).__init__
        make(
            self, state["_weight"], state["_bias"], *state["_arguments"],
            activation=state["activation"],
        )  # fmt: skip

    def _groups(self, weight: Array, arguments: tuple[Any, ...]) -> int:
        for name, value in zip(self._names, arguments, strict=True):
            per_axis(name, value, 2)
        return 1  # an input tells by its channels how many there are

    def _out_channels(self, weight: Array, groups: int) -> int:
        return int(weight.shape[0])

    def problem(self, input: Array, offset: Array, mask: Array | None = None) -> DeformProblem:
        """Return the problem that a call with these arrays computes."""
        problem: Any = told(self, input, offset, mask)
        return problem

    def prepare(self, input: Array, offset: Array, mask: Array | None = None) -> str:  # type: ignore[override]
        """Choose and compile the kernel for an input and pack the weight.

        Returns
        -------
        str
            Name of the kernel that a call will run.
        """
        self(input, offset, mask)
        return choose(self.problem(input, offset, mask)).name

    def __call__(  # type: ignore[override]
        self, input: Array, offset: Array, mask: Array | None = None, out: Array | None = None
    ) -> Array:
        """Convolve `input`; arguments and result are those of `fastconv.deform_conv2d`."""
        if holds_tensors(input):
            return compute_tensors(self.__call__, (input, offset, mask, out), {})
        return compute_deform(
            (input, offset, self._weight, self._bias, mask),
            (*self._arguments, self.activation), out, self._packed,
        )  # fmt: skip
