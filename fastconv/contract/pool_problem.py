"""A pool over windows: what is to be computed.

Output position ``o`` sees the samples ``o * stride - padding + dilation * t`` of each channel for
the taps ``t`` of the window, those that there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from .array_problem import ArrayProblem, Call, Operand, number, option, per_axis_size
from .errors import ShapeError
from .padding import output_size
from .problem import MOST
from .reach import Reach, window_reach

__all__ = ["PoolProblem", "pooled_size"]


def pooled_size(
    size: int, kernel: int, stride: int, pad: int, dilation: int, ceil_mode: bool
) -> int:
    """Return the outputs along one axis; PyTorch's rule where they are rounded up.

    The last window must begin within the samples or the padding before them.

    Examples
    --------
    >>> pooled_size(7, 2, 2, 0, 1, False), pooled_size(7, 2, 2, 0, 1, True)
    (3, 4)
    """
    if not ceil_mode:
        return output_size(size, kernel, stride, (pad, pad), dilation)
    outputs = -(-(size + 2 * pad - dilation * (kernel - 1) - 1) // stride) + 1
    return outputs - ((outputs - 1) * stride >= size + pad)


@dataclass(frozen=True, slots=True)
class PoolProblem(ArrayProblem):
    """One pool over windows, described by sizes alone.

    Parameters
    ----------
    op : {"max_pool", "avg_pool", "lp_pool", "avg_pool_grad"}
        The operator; the last one is the gradient of an average for its input, by the sizes of the
        average.
    batch, channels : int
        ``N`` and ``C``.
    in_size, kernel_size, stride, padding, dilation : tuple of int
        One entry a spatial axis, 1 to 3 axes; as many samples are missing on both sides. Only a
        maximum has a dilation, and a norm has no padding.
    out_size : tuple of int
        Outputs along each axis: rounded down where it is empty.
    return_indices : bool
        Whether a maximum comes with its place in the channel, counted in samples.
    count_include_pad, divisor_override : bool, int
        Whether an average counts the padding, and what it divides by instead of a count, if not 0.
    norm_type : float
        The power of a norm.
    dtype, layout, device
        As for `fastconv.ConvProblem`.

    Raises
    ------
    ShapeError, DTypeError
        Where the sizes or the element type are not a valid pool.

    Examples
    --------
    >>> p = PoolProblem("max_pool", 1, 64, (112, 112), (3, 3), (2, 2), (1, 1))
    >>> p.out_shape, p.line()
    ((1, 64, 56, 56), '--op=max_pool ic64ih112kh3sh2ph1oh56')
    >>> p.call().function
    'max_pool2d'
    """

    op: str
    batch: int = number("mb")
    channels: int = number("ic")
    in_size: tuple[int, ...] = per_axis_size("i")
    kernel_size: tuple[int, ...] = per_axis_size("k")
    stride: tuple[int, ...] = per_axis_size("s", 1)
    padding: tuple[int, ...] = per_axis_size("p", 0)
    dilation: tuple[int, ...] = per_axis_size("d", 1)
    out_size: tuple[int, ...] = per_axis_size("o")
    return_indices: bool = option(False)
    count_include_pad: bool = option(True)
    divisor_override: int = option(0)
    norm_type: float = option(2.0)
    dtype: str = "float32"
    layout: str = "channels_first"
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._fill(stride=1, dilation=1, padding=0)
        self._check_kind()
        self._check_axes(in_size=1, kernel_size=1, stride=1, padding=0, dilation=1)
        self._check_options()
        if not self.out_size:
            object.__setattr__(self, "out_size", self._sizes(ceil_mode=False))
        self._check_outputs()
        self._check_bytes()

    def _check_options(self) -> None:
        """Raise where a pool is told what it has not."""
        mean = self.op in ("avg_pool", "avg_pool_grad")
        has = {
            "return_indices": self.op == "max_pool",
            "count_include_pad": mean,
            "divisor_override": mean,
            "norm_type": self.op == "lp_pool",
        }
        told = {field.name: field.default for field in fields(self)}
        for name, allowed in has.items():
            if not allowed and getattr(self, name) != told[name]:
                raise ShapeError(f"{name}: got {getattr(self, name)}, want none for {self.op}")
        if self.op != "max_pool" and max(self.dilation) > 1:
            raise ShapeError(f"dilation: got {self.dilation}, want 1 for {self.op}")
        if self.op == "lp_pool" and max(self.padding):
            raise ShapeError(f"padding: got {self.padding}, want 0 for {self.op}")
        if self.norm_type == 0 or not math.isfinite(self.norm_type):
            raise ShapeError(f"norm_type: got {self.norm_type}, want a finite number but 0")
        if abs(self.divisor_override) > MOST:
            raise ShapeError(f"divisor_override: got {self.divisor_override}, want at most 2**47")

    def _sizes(self, ceil_mode: bool) -> tuple[int, ...]:
        along = zip(
            self.in_size, self.kernel_size, self.stride, self.padding, self.dilation, strict=True
        )
        return tuple(pooled_size(*axis, ceil_mode) for axis in along)

    @property
    def ceil_mode(self) -> bool:
        """Whether outputs are rounded up."""
        return self.out_size != self._sizes(ceil_mode=False)

    def _check_outputs(self) -> None:
        for axis, (pad, kernel, dilation) in enumerate(
            zip(self.padding, self.kernel_size, self.dilation, strict=True)
        ):
            reach = dilation * (kernel - 1) + 1
            if pad > reach // 2:
                raise ShapeError(
                    f"padding: got {pad} along spatial axis {axis}, want at most half of the "
                    f"window, which reaches over {reach} samples"
                )
        if min(self._sizes(ceil_mode=False)) < 1:
            raise ShapeError(
                f"kernel_size: got {self.kernel_size} with dilation={self.dilation}, want a window "
                f"within the padded input's {self._padded}"
            )
        allowed = {self._sizes(ceil_mode) for ceil_mode in (False, True)}
        if self.out_size not in allowed:
            raise ShapeError(f"out_size: got {self.out_size}, want one of {sorted(allowed)}")

    @property
    def _padded(self) -> tuple[int, ...]:
        return tuple(size + 2 * pad for size, pad in zip(self.in_size, self.padding, strict=True))

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The input, or the gradient for the output."""
        if self.op == "avg_pool_grad":
            return (Operand("grad_output", (self.batch, self.channels, *self.out_size)),)
        return (Operand("input", (self.batch, self.channels, *self.in_size)),)

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """The pooled input, and the places of maxima; or the gradient for the input."""
        if self.op == "avg_pool_grad":
            return (Operand("out", (self.batch, self.channels, *self.in_size)),)
        shape = (self.batch, self.channels, *self.out_size)
        places = (Operand("indices", shape, "int64"),) if self.return_indices else ()
        return (Operand("out", shape), *places)

    @property
    def flops(self) -> int:
        """One operation for each tap of each window."""
        return self.batch * self.channels * math.prod(self.out_size) * math.prod(self.kernel_size)

    def reach(self) -> tuple[Reach, ...]:
        """Return what an output position sees of the input along each spatial axis."""
        pads = tuple((pad, pad) for pad in self.padding)
        return window_reach(self.kernel_size, self.stride, pads, self.dilation)

    @classmethod
    def _sample_fields(cls, op: str, shape: tuple[int, ...], sizes: dict[str, Any]) -> Any:
        own = {"channels": shape[0], "in_size": shape[1:] or (1,)}
        return own | {"stride": sizes.get("kernel_size", ())} | sizes

    def call(self) -> Call:
        """Return the public function that computes it, and its keyword arguments."""
        ndim, names = len(self.in_size), ["kernel_size", "stride", "ceil_mode"]
        if self.op == "lp_pool":
            given = self._named(["norm_type", *names])
            if ndim == 1:  # PyTorch multiplies by this one and takes no tuple
                given |= {"kernel_size": self.kernel_size[0], "stride": self.stride[0]}
            return Call(f"lp_pool{ndim}d", given)
        names.append("padding")
        if self.op == "max_pool":
            names += ["dilation"] + ["return_indices"] * self.return_indices
            return Call(f"max_pool{ndim}d", self._named(names))
        keywords = self._named([*names, "count_include_pad"])
        if ndim > 1:
            keywords["divisor_override"] = self.divisor_override or None
        if self.op == "avg_pool":
            return Call(f"avg_pool{ndim}d", keywords)
        size = {"input_size": self.out_shape}
        return Call(f"grad.avg_pool{ndim}d_input", size | keywords)

    def _named(self, names: list[str]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}
