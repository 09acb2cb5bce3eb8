"""The border to PyTorch: tensors as arrays, arrays as tensors, functions that stay uncompiled.

Tensors and arrays share their memory. Rulebooks are built and kernels run outside of PyTorch, from
sizes that the sites decide: there is nothing in them for a compiler. What tells it so is in a
package that takes seconds to import, so it is asked only where that has been loaded, which a
compiler's call does.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from ...arrays import dtype_of
from ...contract.errors import DeviceError, DTypeError

__all__ = ["array_of", "eager", "tensor_of"]

Function = TypeVar("Function", bound=Callable[..., Any])


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


def eager(function: Function) -> Function:
    """Return a function that is run and never traced.

    Parameters
    ----------
    function : callable
        Called as it is where nothing is compiled.
    """
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            compiler: Any = torch.compiler  # whose functions have no types
            disabled.append(compiler.disable(function))
        return disabled[0](*args, **kwargs)

    return call  # type: ignore[return-value]
