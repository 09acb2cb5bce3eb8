"""Tensors of PyTorch as arrays over the same memory, and arrays as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...arrays import dtype_of
from ...contract.errors import DeviceError, DTypeError

__all__ = ["array_of", "tensor_of"]


def array_of(name: str, tensor: Any) -> Any:
    """Return an array over a tensor's memory, whether it requires gradients or not.

    Raises
    ------
    DTypeError
        For what is no dense tensor.
    DeviceError
        For a tensor that is not on the CPU.
    """
    if not isinstance(tensor, torch.Tensor):
        raise DTypeError(f"{name}: got {type(tensor).__name__}, want a torch.Tensor")
    if tensor.device.type != "cpu":
        raise DeviceError(
            f"{name}: got a tensor on {tensor.device}, want one on the CPU, where fastconv.spconv "
            "computes"
        )
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise DTypeError(f"{name}: got a tensor of {tensor.dtype} and {tensor.layout}, want floats")
    plain = tensor.detach()
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.int16).numpy().view(dtype_of("bfloat16"))
    return plain.numpy()


def tensor_of(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return a tensor over an array's memory."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
