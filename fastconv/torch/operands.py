"""Tensors as they are given: which are taken, and what autocast makes of them.

Under autocast PyTorch computes convolutions and dense layers in its lower type, and a few others
in float32; so do the functions here that bear their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from ..contract.arguments import per_axis
from ..contract.errors import DeviceError, DTypeError, ShapeError

__all__ = ["batched", "check_tensors", "in_float32", "in_lower_type", "steps_of"]

Tensor = torch.Tensor
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_tensors(**tensors: Any) -> None:
    """Raise where an operand is no tensor that operators take, or not of the first one's type.

    Parameters
    ----------
    **tensors : tensor or None
        Operands by their names; what may be missing is None.

    Raises
    ------
    DeviceError, DTypeError
        For those elsewhere, without memory in rows, or of other element types; and for those whose
        derivatives are taken forward or by ``torch.func``, which operators do not know.
    """
    first, kind = "", None
    derived = _forward_or_func()
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise DTypeError(f"{name}: got {type(tensor).__name__}, want a PyTorch tensor")
        if derived == "func" or (derived and _has_tangent(tensor)):
            raise DTypeError(
                f"{name}: got a tensor within torch.func or with a tangent of forward-mode AD, "
                "want one whose gradients, if any, are taken backward: others are PyTorch's, to "
                "which fastconv.torch.patch() leaves them"
            )
        if tensor.device.type not in ("cpu", "meta") or tensor.layout != torch.strided:
            raise DeviceError(
                f"{name}: got a {tensor.layout} tensor on {tensor.device}, want a strided one on "
                "the CPU"
            )
        if tensor.dtype not in _DTYPES:
            raise DTypeError(
                f"{name}: got {tensor.dtype}, want one of {', '.join(map(str, _DTYPES))}"
            )
        if kind is None:
            first, kind = name, tensor.dtype
        elif tensor.dtype != kind:
            raise DTypeError(f"{name}: got {tensor.dtype}, want {kind} as the {first} has")


def _forward_or_func() -> str:
    """Return "func" within transforms of ``torch.func``, "forward" where tangents may be; or ""."""
    if torch.compiler.is_compiling():
        return ""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "func"
    return "forward" if forward_ad._current_level >= 0 else ""


def _has_tangent(tensor: Tensor) -> bool:
    parts: Any = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    return parts.tangent is not None


def _cast(dtype: torch.dtype, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return tensors in a type, but those that autocast leaves alone."""
    return tuple(
        tensor.to(dtype)
        if isinstance(tensor, Tensor)
        and tensor.device.type == "cpu"
        and tensor.is_floating_point()
        and tensor.dtype != torch.float64
        else tensor
        for tensor in tensors
    )


def in_lower_type(*tensors: Any) -> tuple[Any, ...]:
    """Return operands as autocast, where it is on, has them for convolutions and dense layers."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    return _cast(torch.get_autocast_dtype("cpu"), tensors)


def in_float32(*tensors: Any) -> tuple[Any, ...]:
    """Return operands as autocast, where it is on, has them for pools of three axes."""
    return _cast(torch.float32, tensors) if torch.is_autocast_enabled("cpu") else tensors


def batched(name: str, tensor: Tensor, ndim: int) -> Tensor:
    """Return a tensor with a batch axis, else raise where it has neither so many axes nor one less.

    Raises
    ------
    ShapeError
        For other numbers of axes.
    """
    if tensor.dim() == ndim + 1:
        return tensor.unsqueeze(0)
    if tensor.dim() != ndim + 2:
        raise ShapeError(
            f"{name}: got {tensor.dim()} axes {tuple(tensor.shape)}, want {ndim + 2} (batch, "
            f"channels and {ndim} spatial) or {ndim + 1} without the batch"
        )
    return tensor


def steps_of(name: str, value: Any, ndim: int, otherwise: Sequence[int]) -> tuple[int, ...]:
    """Return a stride for each axis; `otherwise` where there is none, which ``()`` says, too.

    Raises
    ------
    ShapeError
        For a stride below 1: a zero is none that is missing.
    """
    if value is None or (isinstance(value, (tuple, list)) and not value):
        return tuple(otherwise)
    steps = per_axis(name, value, ndim)
    if min(steps) < 1:
        raise ShapeError(f"{name}: got {value!r}, want whole numbers of at least 1")
    return steps
