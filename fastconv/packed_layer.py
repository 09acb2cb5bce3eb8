"""What objects that keep a packed weight share.

The functional form must bring the weight into the kernel's order in every call; an object does it
once for each order that its inputs ask for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .array_libraries import view_array, view_beside, view_operands
from .arrays import Array, private_copy, require_array, shown, unwrap
from .calls import Family, prepare, run_prepared
from .contract.arguments import Activation, flag, parse_activation
from .contract.errors import DTypeError, ShapeError
from .dense_problem import unbatch
from .device_arrays import DeviceArray
from .packing import PackedWeights
from .slopes import join_slopes, split_slopes
from .tensors import compute_tensors, holds_tensors

__all__ = ["PackedLayer", "refuse_sizes"]


def _fixed(value: Any) -> Any:
    """Return lists, also those within, as tuples, which nobody can change later."""
    return tuple(map(_fixed, value)) if isinstance(value, (list, tuple)) else value


def _finish(array: Array | None) -> None:
    """Wait for what an object keeps: its calls may come on any stream of the device."""
    if isinstance(array, DeviceArray):
        array.synchronize()


def refuse_sizes(
    cls: type, own: Callable[..., None], leading: str, given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """Raise where sizes stand in the place of the weight, whichever names and places they have.

    A subclass with an `__init__` other than `own` may take sizes and make the weight.
    """
    if cls.__init__ is not own:  # type: ignore[misc]
        return
    weight = given[0] if given else named.get("weight")
    sizes = [name for name in ("in_channels", "out_channels", "kernel_size") if name in named]
    if isinstance(weight, int) or sizes:
        got = f"the number {weight}" if isinstance(weight, int) else f"{', '.join(sizes)}"
        raise DTypeError(
            f"weight: got {got}, want the filters themselves, an array of shape "
            f"({leading}, kernel size): they hold all sizes"
        )


class PackedLayer:
    """An operator's weight and arguments, and the weight packed for each kernel that asked."""

    _ndim: int
    #: Operators that a call computes one of, names of their arguments, of which the last may have
    #: no value, and the weight's first axes.
    _family: Family
    _names: tuple[str, ...]
    _leading: str
    #: Arguments by name alone, beside activation and tune, where they are not as usual.
    _options: dict[str, Any] = {}  # noqa: RUF012 - replaced, never changed

    def _set(
        self, weight: Array, bias: Array | None, arguments: tuple[Any, ...],
        activation: Activation, tune: bool,
    ) -> None:  # fmt: skip
        """Check what is given and keep private copies of it."""
        if holds_tensors(weight):
            compute_tensors(self._set, (weight, bias, arguments, activation, tune), {})
            return
        weight = require_array("weight", view_array("weight", weight) or weight)
        if weight.ndim != self._ndim + 2:
            raise ShapeError(
                f"weight: got {weight.ndim} axes {weight.shape}, want {self._ndim + 2} "
                f"({self._leading}, kernel size)"
            )
        number = self._groups(weight, arguments)
        channels = self._out_channels(weight, number)
        self._bias = self._own_bias(weight, bias, channels)
        parsed, slopes = split_slopes(activation, channels, weight)
        parse_activation(parsed)
        if slopes is not None:
            activation = ("prelu", private_copy(slopes))
        #: What calls are prepared with in the place of bias and activation.
        self._bias_row, self._epilogue = join_slopes(self._bias, activation, weight)
        # Private copies: what is packed later must be what was given.
        self._weight = private_copy(weight)
        _finish(self._weight)
        self.activation = activation
        self.tune = flag("tune", tune)
        self._arguments = tuple(map(_fixed, arguments))
        self._packed = PackedWeights()

    def _own_bias(self, weight: Array, bias: Any, channels: int) -> Array | None:
        """Return a private copy of a bias of so many channels."""
        if isinstance(bias, bool):
            raise DTypeError(f"bias: got {bias}, want an array of shape {(channels,)}, or None")
        if bias is None:
            return None
        if isinstance(weight, DeviceArray):
            bias = view_beside("bias", bias, "weight", weight)
        bias = require_array("bias", bias)
        if bias.shape != (channels,):
            raise ShapeError(f"bias: got shape {bias.shape}, want {(channels,)}")
        if bias.dtype != weight.dtype:
            raise DTypeError(f"bias: got {bias.dtype}, want {weight.dtype} as the weight has")
        return private_copy(bias)

    def _groups(self, weight: Array, arguments: tuple[Any, ...]) -> int:
        """Check the arguments beside the arrays and return the number of groups."""
        raise NotImplementedError

    def _out_channels(self, weight: Array, groups: int) -> int:
        """Return the output channels of a weight of so many groups."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: what was given, and nothing that was packed."""
        given = {"_weight": self.weight, "_bias": self.bias, "_arguments": self._arguments}
        named = {"activation": self.activation, "tune": self.tune, "options": self._options}
        return given | named

    def __setstate__(self, state: dict[str, Any]) -> None:
        make: Any = type(self).__init__
        arguments = dict(zip(self._names, state["_arguments"], strict=False))
        make(
            self, state["_weight"], state["_bias"], **arguments, **state["options"],
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
        given = dict(zip(self._names, self._arguments, strict=False)) | self._options
        described = ", ".join(f"{name}={value}" for name, value in given.items())
        return f"{type(self).__name__}({self._weight.shape} {self._weight.dtype}, {described})"

    def _batched(self, input: Array) -> Array:
        """Return an input as kernels see it, with a batch axis."""
        x = require_array("input", view_array("input", input) or input, integers=True)
        return x[None] if x.ndim == self._ndim + 1 else x

    def prepare(self, input: Array, residual: Array | None = None, out: Array | None = None) -> str:
        """Choose and compile the kernel for an input and pack the weight, without computing.

        Returns
        -------
        str
            Name of the kernel that a call will run.
        """
        if holds_tensors(input):
            name: str = compute_tensors(self.prepare, (input, residual, out), {})
            return name
        views = view_operands(input, self._weight, self._bias, residual, out)
        x, _, _, residual, out = views or (input, None, None, residual, out)
        if x.ndim == self._ndim + 1:
            x, residual, out = unbatch(self._ndim, x, residual, out)
        with x.on_device() if isinstance(x, DeviceArray) else contextlib.nullcontext():
            call = self._prepare(x, residual, out)
            self._pack(call)
        return call.kernel

    def _prepare(self, x: Array, residual: Array | None, out: Array | None) -> Any:
        return prepare(
            self._family,
            self._ndim,
            x,
            self._weight,
            self._bias_row,
            self._arguments,
            self._epilogue,
            residual,
            out,
            True,
            self.tune,
        )

    def _pack(self, call: Any) -> Array | None:
        packed: Array | None
        order, packed = self._packed.last
        if order is call.packing and packed is not None:
            return packed  # as most calls of an object find it
        if call.plan is None:
            return None
        packed = self._packed.find(call.packing, lambda: self._make_packed(call))
        return packed

    def _make_packed(self, call: Any) -> Array | None:
        packed = call.pack(self._weight)
        _finish(packed)
        return packed

    def __call__(
        self, input: Array, residual: Array | None = None, out: Array | None = None
    ) -> Array:
        """Convolve `input`; arguments and result are those of the function of the same name."""
        views = None
        if type(input) is not np.ndarray or isinstance(self._weight, DeviceArray):
            if holds_tensors(input):
                return compute_tensors(self.__call__, (input, residual, out), {})
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
        return run_prepared(call, x, self._weight, packed, self._bias_row, residual, out)
