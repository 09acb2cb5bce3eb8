"""Convolutions made from a weight array: packed once, then called.

The functional form must bring the weight into the kernel's order in every call; an object does it
once for each order that its inputs ask for.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from .array_libraries import view_array, view_beside, view_operands
from .arrays import Array, private_copy, require_array, shown, unwrap
from .calls import (
    PreparedCall,
    make_problem,
    prepare,
    run_prepared,
    unbatch,
)
from .companions import check_groups
from .contract.arguments import (
    Activation,
    Padding,
    Sizes,
    canonical_arguments,
    flag,
    parse_activation,
)
from .contract.errors import DTypeError, ShapeError
from .contract.problem import ConvProblem
from .device_arrays import DeviceArray
from .packing import PackedWeights

__all__ = ["Conv1d", "Conv2d", "Conv3d"]


def _fixed(value: Any) -> Any:
    """Return lists, also those within, as tuples, which nobody can change later."""
    return tuple(map(_fixed, value)) if isinstance(value, (list, tuple)) else value


def _finish(array: Array | None) -> None:
    """Wait for what an object keeps: its calls may come on any stream of the device."""
    if isinstance(array, DeviceArray):
        array.synchronize()


class _Conv:
    """What the three ranks share."""

    _ndim: int

    def __init__(
        self,
        weight: Array,
        bias: Array | None = None,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        *,
        activation: Activation = None,
        tune: bool = False,
    ) -> None:
        weight = require_array("weight", view_array("weight", weight) or weight)
        if weight.ndim != self._ndim + 2:
            raise ShapeError(
                f"weight: got {weight.ndim} axes {weight.shape}, want {self._ndim + 2} "
                "(output channels, input channels / groups, kernel size)"
            )
        if isinstance(bias, bool):
            raise DTypeError(
                f"bias: got {bias}, want an array of shape {weight.shape[:1]}, or None"
            )
        if bias is not None:
            if isinstance(weight, DeviceArray):
                bias = view_beside("bias", bias, "weight", weight)
            bias = require_array("bias", bias)
            if bias.shape != weight.shape[:1]:
                raise ShapeError(f"bias: got shape {bias.shape}, want {weight.shape[:1]}")
            if bias.dtype != weight.dtype:
                raise DTypeError(f"bias: got {bias.dtype}, want {weight.dtype} as the weight has")
        parse_activation(activation)
        *_, number = canonical_arguments(self._ndim, (stride, padding, dilation, groups))
        check_groups(number, weight)
        # Private copies: what is packed later must be what was given.
        self._weight = private_copy(weight)
        self._bias = None if bias is None else private_copy(bias)
        _finish(self._weight)
        self.activation = activation
        self.tune = flag("tune", tune)
        self._arguments = (_fixed(stride), _fixed(padding), _fixed(dilation), _fixed(groups))
        self._packed = PackedWeights()

    def __new__(cls, *given: Any, **named: Any) -> Any:
        """Refuse sizes in the place of the weight, whichever names and places they are given."""
        if cls.__init__ is not _Conv.__init__:  # a subclass may take sizes and make the weight
            return super().__new__(cls)
        weight = given[0] if given else named.get("weight")
        sizes = [name for name in ("in_channels", "out_channels", "kernel_size") if name in named]
        if isinstance(weight, int) or sizes:
            got = f"the number {weight}" if isinstance(weight, int) else f"{', '.join(sizes)}"
            raise DTypeError(
                f"weight: got {got}, want the filters themselves, an array of shape "
                "(output channels, input channels / groups, kernel size): they hold all sizes"
            )
        return super().__new__(cls)

    # What tools show as the signature: that of the arguments, not of this check.
    __new__.__wrapped__ = __init__  # type: ignore[attr-defined]

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: what was given, and nothing that was packed."""
        given = {"_weight": self.weight, "_bias": self.bias, "_arguments": self._arguments}
        return given | {"activation": self.activation, "tune": self.tune}

    def __setstate__(self, state: dict[str, Any]) -> None:
        stride, padding, dilation, groups = state["_arguments"]
        type(self).__init__(
            self, state["_weight"], state["_bias"], stride, padding, dilation, groups,
            activation=state["activation"], tune=state["tune"],
        )  # fmt: skip

    @property
    def weight(self) -> Array:
        """The filters, of the kind that was given."""
        return shown(self._weight)

    @property
    def bias(self) -> Array | None:
        """The bias, of the kind that was given."""
        return None if self._bias is None else shown(self._bias)

    def __repr__(self) -> str:
        names = ("stride", "padding", "dilation", "groups")
        described = ", ".join(
            f"{name}={value}" for name, value in zip(names, self._arguments, strict=True)
        )
        return f"{type(self).__name__}({self._weight.shape} {self._weight.dtype}, {described})"

    def problem(self, input: Array) -> ConvProblem:
        """Return the problem that a call with this input computes."""
        x = require_array("input", view_array("input", input) or input)
        batched = x[None] if x.ndim == self._ndim + 1 else x
        return make_problem(self._ndim, batched, self._weight, self._arguments)

    def prepare(self, input: Array, residual: Array | None = None, out: Array | None = None) -> str:
        """Choose and compile the kernel for an input and pack the weight, without computing.

        Returns
        -------
        str
            Name of the kernel that a call will run.
        """
        views = view_operands(input, self._weight, self._bias, residual, out)
        x, _, _, residual, out = views or (input, None, None, residual, out)
        if x.ndim == self._ndim + 1:
            x, residual, out = unbatch(self._ndim, x, residual, out)
        with x.on_device() if isinstance(x, DeviceArray) else contextlib.nullcontext():
            call = self._prepare(x, residual, out)
            self._pack(call)
        return call.kernel

    def _prepare(self, x: Array, residual: Array | None, out: Array | None) -> PreparedCall:
        return prepare(
            self._ndim,
            x,
            self._weight,
            self._bias,
            self._arguments,
            self.activation,
            residual,
            out,
            True,
            self.tune,
        )

    def _pack(self, call: PreparedCall) -> Array | None:
        packed: Array | None
        order, packed = self._packed.last
        if order is call.packing and packed is not None:
            return packed  # as most calls of an object find it
        if call.plan is None:
            return None
        packed = self._packed.find(call.packing, lambda: self._make_packed(call))
        return packed

    def _make_packed(self, call: PreparedCall) -> Array | None:
        packed = call.pack(self._weight)
        _finish(packed)
        return packed

    def __call__(
        self, input: Array, residual: Array | None = None, out: Array | None = None
    ) -> Array:
        """Convolve `input`; arguments and result are those of the function of the same name."""
        views = None
        if type(input) is not np.ndarray or isinstance(self._weight, DeviceArray):
            views = view_operands(input, self._weight, self._bias, residual, out)
        if views is None:
            return self._compute(input, residual, out)
        x, _, _, residual, target = views
        with x.on_device():
            result = self._compute(x, residual, target)
        return unwrap(result) if out is None else out

    def _compute(self, x: Array, residual: Array | None, out: Array | None) -> Array:
        if getattr(x, "ndim", 0) == self._ndim + 1:
            x_n, residual_n, out_n = unbatch(self._ndim, x, residual, out)
            result = self._compute(x_n, residual_n, out_n)
            return result[0] if out is None else out
        call = self._prepare(x, residual, out)
        packed = self._pack(call)
        return run_prepared(call, x, self._weight, packed, self._bias, residual, out)


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
        Filters, of NumPy, CuPy or PyTorch (CUDA), as inputs must be; copied.
    bias : array, shape (K,), optional
        Added to each output channel; copied.
    stride, padding, dilation, groups, activation
        As for `fastconv.conv2d`.
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
