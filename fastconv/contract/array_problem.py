"""What operators without a weight of their own compute: pools, resizing, norms, rearrangements.

An `ArrayProblem` is to `fastconv.dispatch` what a `ConvProblem` is. Its class says by its fields'
metadata how each is written in a problem line, and by four properties what the operator reads and
writes and how a user calls it; the line grammar, `explain`, tuning, benchmarks and generated tests
follow from these.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from . import first_use
from .errors import ArgumentError, DeviceError, DTypeError, ShapeError
from .problem import DTYPES, LAYOUTS, MOST, ElementSizes
from .reach import Reach
from .spec import dense_strides

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "ARRAY_OPS",
    "BYTES",
    "ArrayBinding",
    "ArrayProblem",
    "Call",
    "Operand",
    "dense_array_binding",
    "number",
    "option",
    "per_axis_size",
]

#: Bytes of the element types that operands have beside the problem's.
BYTES = {"int64": 8, "float64": 8}
#: Every operator that an `ArrayProblem` describes, and where its class is.
ARRAY_OPS = {
    "max_pool": "pool_problem:PoolProblem",
    "avg_pool": "pool_problem:PoolProblem",
    "lp_pool": "pool_problem:PoolProblem",
    "adaptive_max_pool": "adaptive_pool_problem:AdaptivePoolProblem",
    "adaptive_avg_pool": "adaptive_pool_problem:AdaptivePoolProblem",
    "max_unpool": "unpool_problem:UnpoolProblem",
    "max_pool_grad": "unpool_problem:UnpoolProblem",
    "max_unpool_grad": "unpool_problem:UnpoolProblem",
    "avg_pool_grad": "pool_problem:PoolProblem",
    "adaptive_avg_pool_grad": "adaptive_pool_problem:AdaptivePoolProblem",
    "deform_conv": "deform_problem:DeformProblem",
    "interleave": "interleave_problem:InterleaveProblem",
    "pixel_shuffle": "rearrange_problem:RearrangeProblem",
    "pixel_unshuffle": "rearrange_problem:RearrangeProblem",
    "channel_shuffle": "rearrange_problem:RearrangeProblem",
    "unfold": "unfold_problem:UnfoldProblem",
    "fold": "unfold_problem:UnfoldProblem",
    "pad": "pad_problem:PadProblem",
    "batch_norm": "norm_problem:NormProblem",
    "group_norm": "norm_problem:NormProblem",
    "instance_norm": "norm_problem:NormProblem",
    "layer_norm": "norm_problem:NormProblem",
    "batch_norm_grad": "norm_problem:NormProblem",
    "group_norm_grad": "norm_problem:NormProblem",
    "layer_norm_grad": "norm_problem:NormProblem",
    "prelu": "pointwise_problem:PReluProblem",
    "local_response_norm": "pointwise_problem:LocalResponseProblem",
    "softmax": "softmax_problem:SoftmaxProblem",
    "log_softmax": "softmax_problem:SoftmaxProblem",
    "interpolate": "resize_problem:ResizeProblem",
    "deform_conv_grad_input": "deform_problem:DeformProblem",
    "deform_conv_grad_offset": "deform_problem:DeformProblem",
    "deform_conv_grad_weight": "deform_problem:DeformProblem",
    "linear": "linear_problem:LinearProblem",
    "interpolate_grad": "resize_problem:ResizeProblem",
}


def number(key: str, default: int = 1) -> Any:
    """Return a field that a problem line writes as ``key`` and one number."""
    return dataclasses.field(default=default, metadata={"key": key})


def per_axis_size(letter: str, default: int | None = None) -> Any:
    """Return a field of one number an axis, which a problem line writes behind a letter.

    Parameters
    ----------
    letter : str
        ``i`` makes the keys ``id``, ``ih`` and ``iw``.
    default : int or None
        What is not written, along each axis; None where each line must tell it.
    """
    return dataclasses.field(default=(), metadata={"letter": letter, "default": default})


def option(default: Any) -> Any:
    """Return a field that a problem line writes as a flag, ``--name=value``.

    Its default's type is the value's: a boolean is written as 0 or 1.
    """
    return dataclasses.field(default=default, metadata={"flag": True})


def _fields(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    """Return what a problem's class is made of beside the operator."""
    return {each.name: each for each in dataclasses.fields(cls) if each.name != "op"}


def _spread(cls: Any, op: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """Return fields by name, as tuples those that have a number for each axis, else raise."""
    known, axes = _fields(cls), sizes["in_size"]
    count = len(axes) if isinstance(axes, (tuple, list)) else 1
    made: dict[str, Any] = {}
    for name, value in sizes.items():
        if name not in known:
            raise ArgumentError(f"{name}: got it for {op}, want one of {', '.join(known)}")
        made[name] = value
        if known[name].default == ():
            made[name] = tuple(value) if isinstance(value, (tuple, list)) else (value,) * count
    return made


class Operand(NamedTuple):
    """One array that an operator reads or writes.

    Parameters
    ----------
    name : str
        The argument's, or "out" and the like.
    shape : tuple of int
        Its shape, with a batch axis.
    dtype : str
        Its element type where that is not the problem's: a key of `BYTES`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = ""


class Call(NamedTuple):
    """How a user asks for what a problem describes.

    Parameters
    ----------
    function : str
        Name below `fastconv`: PyTorch's functional form, if it has one, is called alike.
    keywords : dict
        What is given beside the operands.
    layer : str
        Name below `fastconv` of what is made from weight and bias once for many calls, "" where
        there is nothing such.
    """

    function: str
    keywords: dict[str, Any]
    layer: str = ""


@dataclass(frozen=True, slots=True)
class ArrayBinding:
    """How the arrays of one call lie in memory.

    Parameters
    ----------
    strides : tuple of (tuple of int)
        In bytes, of the problem's inputs and then its outputs.
    flush : bool
        As for `fastconv.contract.spec.Binding`.
    """

    strides: tuple[tuple[int, ...], ...]
    flush: bool = True


def dense_array_binding(problem: ArrayProblem) -> ArrayBinding:
    """Return the binding of arrays that lie in a problem's memory order without gaps.

    A "strided" input, which is any other order, has room for one more behind each element.
    """
    last, spacing = problem.layout == "channels_last", 1 + (problem.layout == "strided")
    strides = []
    for number, operand in enumerate((*problem.inputs, *problem.outputs)):
        size = BYTES.get(operand.dtype, problem.itemsize) * (1 if number else spacing)
        strides.append(dense_strides(operand.shape, size, last and len(operand.shape) > 2))
    return ArrayBinding(tuple(strides))


class ArrayProblem(ElementSizes):
    """What problems without a packed weight share. A subclass is a frozen dataclass with slots.

    Beside the operator's own fields it has ``op``, ``dtype``, ``layout`` and ``device``; `in_size`
    where it has spatial axes.
    """

    __slots__ = ()
    _element_types: ClassVar[dict[str, str]] = DTYPES
    op: str
    dtype: str
    layout: str
    device: str

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The arrays that are read, in the order in which a call and a kernel take them."""
        raise NotImplementedError

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """The arrays that are written; a call returns one, or a tuple of several."""
        raise NotImplementedError

    @property
    def flops(self) -> int:
        """Operations on elements, for rates in tables."""
        raise NotImplementedError

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a weight: none where there are no such sums."""
        return 0

    @property
    def learned(self) -> int:
        """Numbers of weight, bias and slopes, which training finds."""
        own = (each for each in self.inputs if each.name in ("weight", "bias", "slopes"))
        return sum(math.prod(each.shape) for each in own)

    @property
    def moved(self) -> int:
        """Bytes of all operands: each input read once, each output written once."""
        return sum(
            math.prod(operand.shape) * BYTES.get(operand.dtype, self.itemsize)
            for operand in (*self.inputs, *self.outputs)
        )

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output position sees of the input along each spatial axis.

        Empty where it sees its own place, in whichever channels. Statistics do not count: what
        they are taken over is not seen.
        """
        return ()

    @classmethod
    def of_sample(cls, op: str, shape: tuple[int, ...], **sizes: Any) -> Self:
        """Return the problem whose input is one sample.

        Parameters
        ----------
        op : str
            The operator.
        shape : tuple of int
            ``(C, *spatial)``, or ``(features,)``.
        **sizes
            Other fields; one number stands for all spatial axes.

        Raises
        ------
        ShapeError, DTypeError, ArgumentError
            Where the problem has no such field, or the sample and the fields do not fit.
        """
        make: Any = cls
        made: Self = make(op, **_spread(cls, op, cls._sample_fields(op, shape, sizes)))
        if math.prod(made.x_shape) != math.prod(shape):
            raise ShapeError(f"input: got shape {shape}, want {made.x_shape[1:]}")
        return made

    @classmethod
    def _sample_fields(cls, op: str, shape: tuple[int, ...], sizes: dict[str, Any]) -> Any:
        """Return the fields of a sample's problem; `sizes` are those that the caller knows."""
        channels = "channels" if "channels" in _fields(cls) else "in_channels"
        return {channels: shape[0], "in_size": shape[1:] or (1,)} | sizes

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        raise NotImplementedError

    def arguments(self, given: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return a call's arguments, by position and by name, from arrays for the inputs.

        Only an input of that name is given by position: what is no array may stand before others.
        """
        named = {operand.name: array for operand, array in zip(self.inputs, given, strict=True)}
        first = (named.pop("input"),) if "input" in named else ()
        if "slopes" in named:
            named["activation"] = ("prelu", named.pop("slopes"))
        return first, self.call().keywords | named

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the first input."""
        return self.inputs[0].shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return self.outputs[0].shape

    def with_(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced (and checked again)."""
        record: Any = self
        copy: Self = replace(record, **changes)
        return copy

    def line(self, name: str = "") -> str:
        """Return the problem as one line, which `problem_line.parse_any_line` reads back."""
        grammar = first_use.load("fastconv.contract.problem_line")
        return str(grammar.format_line(self, name))

    def _fill(self, **defaults: Any) -> None:
        """Set fields that are empty to one value an axis."""
        axes = len(self.in_size)  # type: ignore[attr-defined]
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, (value,) * axes)

    def _check_kind(self) -> None:
        """Raise where operator, element type, memory order or device are none."""
        if self.op not in ARRAY_OPS:
            raise ShapeError(f"op: got {self.op!r}, want one of {', '.join(ARRAY_OPS)}")
        if self.dtype not in self._element_types:
            wanted = ", ".join(self._element_types)
            raise DTypeError(f"dtype: got {self.dtype}, want one of {wanted}")
        if self.layout not in LAYOUTS:
            raise ShapeError(f"layout: got {self.layout!r}, want one of {', '.join(LAYOUTS)}")
        if self.device != "cpu":
            raise DeviceError(
                f"device: got {self.device!r}, want cpu: {self.op} has kernels of the CPU alone"
            )

    def _check_axes(self, **low: int) -> None:
        """Raise where fields of one number an axis have other numbers, or smaller ones than `low`.

        ``in_size`` tells how many axes there are.
        """
        axes = len(self.in_size)  # type: ignore[attr-defined]
        if not 1 <= axes <= 3:
            raise ShapeError(f"input: got {axes} spatial axes, want 1, 2 or 3")
        for name, least in low.items():
            values = getattr(self, name)
            if len(values) != axes:
                raise ShapeError(f"{name}: got {len(values)} values {values}, want {axes}")
            if not least <= min(values) <= max(values) <= MOST:
                raise ShapeError(
                    f"{name}: got {values}, want every value to be from {least} to 2**47"
                )

    def _check_bytes(self) -> None:
        """Raise where an operand would not fit in an address space."""
        for operand in (*self.inputs, *self.outputs):
            if math.prod(operand.shape) * 8 > MOST:
                raise ShapeError(
                    f"{operand.name}: got shape {operand.shape}, want at most 2**47 bytes"
                )
