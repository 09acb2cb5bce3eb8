"""Dense layers: matrix products, by the kernels of convolutions of one tap.

The rows of the input are the pixels of a signal whose channels lie last, so nothing is copied: a
product is the convolution of ``(1, in_features, rows)`` with filters ``(out_features, in_features,
1)``. Of a few rows the time is that of reading the weight: they have a kernel of their own, which
reads it where it lies.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

from ..arrays import Array, check_writable, dtype_name, empty_output, require_array
from ..companions import check_memory
from ..contract.arguments import Activation, parse_activation
from ..contract.errors import DTypeError, ShapeError
from ..contract.linear_problem import MOST_ROWS, LinearProblem
from ..contract.settings import config
from ..dense_problem import make_problem
from ..dispatch import choose, steady_choice
from ..functional import conv1d
from ..nn import Conv1d
from ..slopes import split_slopes
from ..tensors import compute_tensors, holds_tensors
from .array_calls import ArrayOp, compute
from .telling import tell

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
        raise DTypeError(
            f"input: got {x.dtype} with a weight of {weight.dtype}, want one type: "
            f"weight.astype('{x.dtype}')"
        )
    return x


def as_signal(array: Array) -> Array:
    """Return the rows of an array as the pixels of one signal; a copy where rows are no axis."""
    return _as_rows(array).T[None]


def _as_rows(array: Array) -> Array:
    """Return an array with one axis of rows, a copy where they are none in memory."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _few_problem(arrays: tuple[Any, ...], arguments: tuple[Any, ...]) -> LinearProblem:
    (x, weight, bias, _), (activation,) = arrays, arguments
    name, alpha = parse_activation(activation)
    return LinearProblem(
        "linear", x.shape[1], x.shape[:1], weight.shape[0], bias is not None, name or "", alpha,
        dtype=dtype_name("input", x.dtype),
    )  # fmt: skip


#: Rows up to which halves that are read in place are faster than packed: 4096 > 4096 features take
#: 1.2 and 2.8 ms with one row, 4096 > 1000 1.2 and 1.0 with eight.
_MOST_HALF_ROWS = 4
_FEW_ROWS = ArrayOp(
    "linear", ("input", "weight", "bias", "slopes"), _few_problem, optional=("bias", "slopes")
)


def _reads_in_place(x: Array, weight: Array, packed: bool) -> bool:
    """Return whether a call is the business of the kernel of few rows.

    One row reads each weight once: a packed one lies in memory twice and is read no faster (Zen 3,
    one thread, 4096 > 4096 features: 3.5 ms packed, 3.1 in place). Halves are packed in float32.
    """
    rows, most = math.prod(x.shape[:-1]), MOST_ROWS
    if packed:
        most = _MOST_HALF_ROWS if weight.itemsize < 4 else 1
    return 1 <= rows <= most and (weight.shape[1] == 1 or weight.strides[1] == weight.itemsize)


def _check_out(out: Any, x: Array, shape: tuple[int, ...]) -> Array:
    out = require_array("out", out)
    check_memory("out", out, "linear")
    if out.shape != shape:
        raise ShapeError(f"out: got shape {out.shape}, want {shape}")
    if out.dtype != x.dtype:
        raise DTypeError(f"out: got {out.dtype}, want {x.dtype} as the input has")
    check_writable("out", out)
    return out


def _multiply(
    x: Array, weight: Array, bias: Any, activation: Activation, out: Array | None, convolve: Any,
    packed: bool = False, measured: bool = False,
) -> Array:  # fmt: skip
    """Compute a call whose input and weight are checked; ``convolve(x, out)`` is for many rows.

    Its kernel is chosen as for one thread, so that the bits are the same for any number, unless it
    is `measured` which one is the fastest.
    """
    shape = (*x.shape[:-1], weight.shape[0])
    target = made = None if out is None else _check_out(out, x, shape)
    if made is None:
        made = empty_output(x, shape, "channels_first")
    if x.size:
        rows = _as_rows(made)
        if _reads_in_place(x, weight, packed):
            activation, slopes = split_slopes(activation, len(weight), weight)
            compute(_FEW_ROWS, (_as_rows(x), weight, bias, slopes), (activation,), rows)
        else:
            with contextlib.nullcontext() if measured or config.tune else steady_choice():
                convolve(as_signal(x), rows.T[None])
        if target is not None and not np.may_share_memory(rows, target):
            target[...] = rows.reshape(shape)
    return made if out is None else out


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
    activation : str, (str, float) or ("prelu", ndarray), optional
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
    parse_activation(split_slopes(activation, len(checked), checked)[0])

    def convolve(signal: Array, target: Array) -> None:
        filters = checked[..., None]
        tell(make_problem(1, signal, filters, (1, 0, 1, 1)))
        conv1d(signal, filters, bias, activation=activation, out=target)

    return _multiply(x, checked, bias, activation, out, convolve)


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
        if holds_tensors(weight):
            compute_tensors(self._set, (weight, bias, activation, tune), {})
        else:
            self._set(weight, bias, activation, tune)

    def _set(self, weight: Array, bias: Array | None, activation: Activation, tune: bool) -> None:
        """Check what is given and keep private copies of it."""
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
        if holds_tensors(input):
            name: str = compute_tensors(self.prepare, (input,), {})
            return name
        weight = self.weight
        x = _check_input(input, weight)
        if x.size == 0:
            return ""
        if _reads_in_place(x, weight, packed=True):
            self(x)
            activation, slopes = split_slopes(self._layer.activation, len(weight), weight)
            arrays = (_as_rows(x), weight, self.bias, slopes)
            return choose(_few_problem(arrays, (activation,))).name
        made = empty_output(x, (math.prod(x.shape[:-1]), len(weight)), "channels_first")
        measured = self._layer.tune or config.tune
        with contextlib.nullcontext() if measured else steady_choice():
            return self._layer.prepare(as_signal(x), out=as_signal(made))

    def __call__(self, input: Array, out: Array | None = None) -> Array:
        """Multiply rows; arguments and result are those of `fastconv.linear`."""
        if holds_tensors(input):
            return compute_tensors(self.__call__, (input, out), {})
        weight = self.weight
        x = _check_input(input, weight)

        def convolve(signal: Array, target: Array) -> None:
            tell(self._layer.problem(signal))
            self._layer(signal, out=target)

        bias, activation = self.bias, self._layer.activation
        tune = self._layer.tune
        return _multiply(x, weight, bias, activation, out, convolve, packed=True, measured=tune)
