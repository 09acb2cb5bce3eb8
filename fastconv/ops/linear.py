"""Dense layers: matrix products, by the kernels of convolutions of one tap.

The rows of the input are the pixels of a signal whose channels lie last, so nothing is copied: a
product is the convolution of ``(1, in_features, rows)`` with filters ``(out_features, in_features,
1)``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array, check_writable, empty_output, require_array
from ..companions import check_memory
from ..contract.arguments import Activation, parse_activation
from ..contract.errors import DTypeError, ShapeError
from ..functional import conv1d
from ..nn import Conv1d

__all__ = ["Linear", "linear"]


def _check_weight(weight: Any) -> Array:
    """Return a weight that has an axis of outputs and one of inputs, else raise."""
    weight = require_array("weight", weight)
    check_memory("weight", weight, "linear")
    if weight.ndim != 2 or 0 in weight.shape:
        raise ShapeError(
            f"weight: got shape {weight.shape}, want (out_features, in_features), both at least 1"
        )
    return weight


def _check_input(x: Any, weight: Array) -> Array:
    """Return an input whose last axis is as long as a row of the weight, else raise."""
    x = require_array("input", x)
    check_memory("input", x, "linear")
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"input: got shape {x.shape} with a weight of {weight.shape[1]} input features, want "
            f"(..., {weight.shape[1]})"
        )
    if x.dtype != weight.dtype:
        raise DTypeError(f"input: got {x.dtype} with a weight of {weight.dtype}, want one type")
    return x


def as_signal(array: Array) -> Array:
    """Return the rows of an array as the pixels of one signal; a copy where rows are no axis."""
    features = array.shape[-1]
    return array.reshape(math.prod(array.shape[:-1]), features).T[None]


def _compute(product: Any, x: Array, features: int, out: Array | None) -> Array:
    """Call ``product(signal, out)`` for the rows of a checked input, if it has any."""
    shape = (*x.shape[:-1], features)
    if out is not None:
        target = require_array("out", out)
        check_memory("out", target, "linear")
        if target.shape != shape or target.dtype != x.dtype:
            raise (ShapeError if target.shape != shape else DTypeError)(
                f"out: got {target.dtype} of shape {target.shape}, want {x.dtype} of shape {shape}"
            )
        check_writable("out", target)
        if x.size == 0:
            return out
        signal = as_signal(target)
        product(as_signal(x), signal)
        if not np.may_share_memory(signal, target):
            target[...] = signal[0].T.reshape(shape)
        return out
    made = empty_output(x, (math.prod(shape[:-1]), features), "channels_first")
    if x.size:
        product(as_signal(x), as_signal(made))
    return made.reshape(shape)


def linear(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    activation: Activation = None,
    out: Array | None = None,
) -> Array:
    """Multiply rows by a matrix: ``out = activation(input @ weight.T + bias)``.

    Parameters
    ----------
    input : ndarray, shape (..., in_features)
        Rows, of any strides and with any axes in front. float32, float64, float16 or bfloat16; the
        halves are summed in float32.
    weight : ndarray, shape (out_features, in_features)
        Of the input's dtype.
    bias : ndarray, shape (out_features,), optional
        Added to each row.
    activation : str or (str, float), optional
        As for `fastconv.conv2d`.
    out : ndarray, shape of the output, optional
        Where to write; of the input's dtype and any strides.

    Returns
    -------
    ndarray, shape (..., out_features)
        `out` where it was given.

    Raises
    ------
    ShapeError
        For sizes that do not fit.
    DTypeError
        For unsupported or mixed element types.
    DeviceError
        For arrays on a GPU.

    Notes
    -----
    NaN, infinities and denormal numbers are treated as by `fastconv.conv2d`, and a weight that
    comes again and again is remembered in the order that its kernel reads, as there.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, w = np.ones((2, 3), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)
    >>> fastconv.linear(x, w, np.array([0.0, -20.0], np.float32), activation="relu")
    array([[3., 0.],
           [3., 0.]], dtype=float32)
    """
    checked = _check_weight(weight)
    x = _check_input(input, checked)
    _check_bias(bias, checked)
    parse_activation(activation)

    def product(signal: Array, target: Array) -> None:
        conv1d(signal, checked[..., None], bias, activation=activation, out=target)

    return _compute(product, x, checked.shape[0], out)


def _check_bias(bias: Any, weight: Array) -> None:
    if bias is None:
        return
    bias = require_array("bias", bias)
    if bias.shape != weight.shape[:1]:
        raise ShapeError(f"bias: got shape {bias.shape}, want {weight.shape[:1]}")
    if bias.dtype != weight.dtype:
        raise DTypeError(f"bias: got {bias.dtype}, want {weight.dtype} as the weight has")


class Linear:
    """A dense layer with a packed weight.

    Parameters
    ----------
    weight : ndarray, shape (out_features, in_features)
        Matrix; copied.
    bias : ndarray, shape (out_features,), optional
        Added to each row; copied.
    activation, tune
        As for `fastconv.Conv2d`.

    Notes
    -----
    Calls take ``(input, out=None)``, and may come from many threads at once.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> layer = fastconv.Linear(np.ones((4, 3), np.float32), activation="relu")
    >>> layer(np.ones((2, 5, 3), np.float32)).shape
    (2, 5, 4)
    """

    def __init__(
        self,
        weight: Array,
        bias: Array | None = None,
        *,
        activation: Activation = None,
        tune: bool = False,
    ) -> None:
        checked = _check_weight(weight)
        self._layer = Conv1d(checked[..., None], bias, activation=activation, tune=tune)

    @property
    def weight(self) -> Array:
        """The matrix."""
        return self._layer.weight[..., 0]

    @property
    def bias(self) -> Array | None:
        """The bias."""
        return self._layer.bias

    def __repr__(self) -> str:
        return f"Linear({self.weight.shape} {self.weight.dtype})"

    def prepare(self, input: Array) -> str:
        """Choose and compile the kernel for an input and pack the weight, without computing.

        Returns
        -------
        str
            Name of the kernel that a call will run; "" where there are no rows.
        """
        x = _check_input(input, self.weight)
        if x.size == 0:
            return ""
        made = empty_output(x, (math.prod(x.shape[:-1]), len(self.weight)), "channels_first")
        return self._layer.prepare(as_signal(x), out=as_signal(made))

    def __call__(self, input: Array, out: Array | None = None) -> Array:
        """Multiply rows; arguments and result are those of `fastconv.linear`."""
        weight = self.weight
        x = _check_input(input, weight)

        def product(signal: Array, target: Array) -> None:
            self._layer(signal, out=target)

        return _compute(product, x, weight.shape[0], out)
