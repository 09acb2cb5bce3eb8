"""Arrays of GPU libraries: CuPy, PyTorch, the emulator, others through CuPy.

A library is recognised by the module of an array's type and never imported for that.

=====================================  ========================  ===========================
an array of                            is seen through           its outputs are
=====================================  ========================  ===========================
CuPy                                   its attributes            CuPy arrays
PyTorch (a CUDA tensor)                its methods               PyTorch tensors
another library with DLPack or with    CuPy, without a copy      CuPy arrays
``__cuda_array_interface__``
the emulator (`EmulatedArray`)         its NumPy memory          of the same kind
=====================================  ========================  ===========================
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contract import first_use
from .contract.errors import DeviceError, DTypeError
from .cuda_device import EMULATED
from .device_arrays import DeviceArray

__all__ = ["EmulatedArray", "view_array", "view_beside", "view_operands"]

#: Device types of DLPack (dlpack.h): CUDA memory, and CUDA memory that the host sees too.
_DLPACK_CUDA = (2, 13)


class _CuPy:
    """CuPy's arrays, and through them those of any library with an exchange protocol."""

    name = "CuPy"

    @staticmethod
    def _module() -> Any:
        try:
            return first_use.load("cupy")
        except ImportError as error:
            raise DeviceError(
                "cupy: not installed, want it for arrays on a GPU: pip install 'fastconv[cuda13]' "
                "(or 'fastconv[cuda12]')"
            ) from error

    def view(self, argument: str, value: Any) -> DeviceArray:
        return DeviceArray(
            value, value.data.ptr, value.shape, value.strides, value.dtype, value.device.id, self
        )

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> Any:
        with self.on_device(device):
            return self._module().empty(shape, dtype)

    def from_host(self, values: NDArray[Any], device: int) -> Any:
        with self.on_device(device):
            return self._module().asarray(values)

    def to_host(self, owner: Any) -> NDArray[Any]:
        with self.on_device(owner.device.id):
            return owner.get()

    def copy(self, owner: Any) -> Any:
        with self.on_device(owner.device.id):
            return owner.copy(order="C")

    def permute(self, owner: Any, axes: tuple[int, ...]) -> Any:
        return owner.transpose(axes)

    def restride(self, memory: Any, offset: int, like: DeviceArray) -> Any:
        return self._module().ndarray(like.shape, like.dtype, memory.data + offset, like.strides)

    def fill(self, owner: Any, value: float) -> None:
        owner.fill(value)

    def assign(self, target: Any, source: Any) -> None:
        target[...] = source

    def stream(self, device: int) -> int:
        stream = self._current_stream(device)
        if getattr(stream, "device_id", -1) not in (-1, device):
            raise DeviceError(
                f"stream: got CuPy's current stream of device {stream.device_id}, want one of "
                f"device {device}, where the arrays are"
            )
        return int(stream.ptr)

    def _current_stream(self, device: int) -> Any:
        with self.on_device(device):
            return self._module().cuda.get_current_stream()

    def synchronize(self, device: int) -> None:
        self._current_stream(device).synchronize()

    def on_device(self, device: int) -> contextlib.AbstractContextManager[Any]:
        return self._module().cuda.Device(device)


class _PyTorch:
    """PyTorch's CUDA tensors."""

    name = "PyTorch"

    @staticmethod
    def _module() -> Any:
        return sys.modules["torch"]

    def _dtype(self, argument: str, dtype: Any) -> np.dtype[Any]:
        name = str(dtype).removeprefix("torch.")
        if name == "bfloat16":
            from .arrays import dtype_of

            return dtype_of(name)
        try:
            return np.dtype(name)
        except TypeError:
            raise DTypeError(f"{argument}: got {dtype}, want a type that NumPy has too") from None

    def view(self, argument: str, value: Any) -> DeviceArray:
        if value.requires_grad and self._module().is_grad_enabled():
            raise DTypeError(
                f"{argument}: got a tensor that requires gradients, want one without: "
                "use tensor.detach(), or torch.no_grad() around the call"
            )
        dtype = self._dtype(argument, value.dtype)
        strides = tuple(dtype.itemsize * step for step in value.stride())
        return DeviceArray(
            value, value.data_ptr(), tuple(value.shape), strides, dtype, value.device.index, self
        )

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> Any:
        torch = self._module()
        return torch.empty(shape, dtype=getattr(torch, dtype.name), device=f"cuda:{device}")

    def from_host(self, values: NDArray[Any], device: int) -> Any:
        return self._module().from_numpy(values).to(f"cuda:{device}")

    def to_host(self, owner: Any) -> NDArray[Any]:
        return owner.detach().cpu().numpy()

    def copy(self, owner: Any) -> Any:
        return owner.detach().clone(memory_format=self._module().contiguous_format)

    def permute(self, owner: Any, axes: tuple[int, ...]) -> Any:
        return owner.permute(axes)

    def restride(self, memory: Any, offset: int, like: DeviceArray) -> Any:
        elements = memory.view(getattr(self._module(), like.dtype.name))
        strides = tuple(step // like.itemsize for step in like.strides)
        return elements.as_strided(like.shape, strides, offset // like.itemsize)

    def fill(self, owner: Any, value: float) -> None:
        owner.fill_(value)

    def assign(self, target: Any, source: Any) -> None:
        target.copy_(source)

    def stream(self, device: int) -> int:
        return int(self._module().cuda.current_stream(device).cuda_stream)

    def synchronize(self, device: int) -> None:
        self._module().cuda.current_stream(device).synchronize()

    def on_device(self, device: int) -> contextlib.AbstractContextManager[Any]:
        return self._module().cuda.device(device)


@dataclass(frozen=True, slots=True, eq=False)
class EmulatedArray:
    """An array that is computed on by CUDA kernels in the emulator.

    Parameters
    ----------
    memory : ndarray
        Its elements, in the host's memory.

    Raises
    ------
    DTypeError
        Where `memory` is no NumPy array.
    """

    memory: NDArray[Any]

    def __post_init__(self) -> None:
        if not isinstance(self.memory, np.ndarray):
            raise DTypeError(f"memory: got {type(self.memory).__name__}, want a NumPy array")

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.memory.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.memory.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.memory.dtype

    def __getitem__(self, key: Any) -> EmulatedArray:
        return EmulatedArray(self.memory[key])

    def copy_to_host(self) -> NDArray[Any]:
        """Return a copy as a NumPy array."""
        return self.memory.copy()


class _Emulated:
    """Arrays in the host's memory that stand for a GPU's."""

    name = "emulated"

    def view(self, argument: str, value: Any) -> DeviceArray:
        memory = value.memory
        return DeviceArray(
            value, memory.__array_interface__["data"][0], memory.shape, memory.strides,
            memory.dtype, EMULATED, self, memory.flags.writeable,
        )  # fmt: skip

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> Any:
        return EmulatedArray(np.empty(shape, dtype))

    def from_host(self, values: NDArray[Any], device: int) -> Any:
        return EmulatedArray(values)

    def to_host(self, owner: Any) -> NDArray[Any]:
        return owner.memory

    def copy(self, owner: Any) -> Any:
        return EmulatedArray(np.array(owner.memory, order="C"))

    def permute(self, owner: Any, axes: tuple[int, ...]) -> Any:
        return EmulatedArray(owner.memory.transpose(axes))

    def restride(self, memory: Any, offset: int, like: DeviceArray) -> Any:
        made = np.ndarray(like.shape, like.dtype, memory.memory.data, offset, like.strides)
        return EmulatedArray(made)

    def fill(self, owner: Any, value: float) -> None:
        owner.memory.fill(value)

    def assign(self, target: Any, source: Any) -> None:
        np.copyto(target.memory, source.memory)

    def stream(self, device: int) -> int:
        return 0

    def synchronize(self, device: int) -> None:
        """Nothing runs on when a call is over."""

    def on_device(self, device: int) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()


_CUPY, _TORCH, _EMULATED = _CuPy(), _PyTorch(), _Emulated()


def view_array(argument: str, value: Any) -> DeviceArray | None:
    """Return what kernels see of an array on a GPU, None for anything else.

    Parameters
    ----------
    argument : str
        Its name, for errors.
    value : object
        What was given.

    Raises
    ------
    DeviceError
        For an array that only another library can read, which is not installed.
    DTypeError
        For a tensor that requires gradients, or an element type that NumPy does not have.
    """
    if isinstance(value, DeviceArray):
        return value
    if isinstance(value, EmulatedArray):
        return _EMULATED.view(argument, value)
    library = type(value).__module__.partition(".")[0]
    if library == "torch" and hasattr(value, "is_cuda"):  # a module has none
        return _TORCH.view(argument, value) if value.is_cuda else None
    if library == "cupy" and hasattr(value, "strides"):
        return _CUPY.view(argument, value)
    if convert := _exchange(value):
        return _CUPY.view(argument, convert(_CuPy._module()))
    return None


def _exchange(value: Any) -> Callable[[Any], Any] | None:
    """Return how CuPy takes an array of another library, None where it is not on a GPU."""
    if isinstance(value, type):
        return None
    if hasattr(value, "__cuda_array_interface__"):
        return lambda cupy: cupy.asarray(value)
    where = getattr(value, "__dlpack_device__", None)
    if where is not None and where()[0] in _DLPACK_CUDA:
        return lambda cupy: cupy.from_dlpack(value)
    return None


def view_operands(
    x: Any, weight: Any, bias: Any, residual: Any, out: Any
) -> tuple[Any, Any, Any, Any, Any] | None:
    """Return what kernels see of a call's arrays, None where the input is not on a GPU.

    Parameters
    ----------
    x, weight, bias, residual, out : array or None
        As for `conv2d`.

    Raises
    ------
    DeviceError
        Where they live on different devices, or are of different libraries.
    """
    first = view_array("input", x)
    if first is None:
        return None

    def companion(argument: str, value: Any) -> DeviceArray | None:
        return None if value is None else view_beside(argument, value, "input", first)

    return (
        first,
        companion("weight", weight),
        companion("bias", bias),
        companion("residual", residual),
        companion("out", out),
    )


def view_beside(argument: str, value: Any, name: str, first: DeviceArray) -> DeviceArray:
    """Return what kernels see of an array that must lie beside another one.

    Parameters
    ----------
    argument, name : str
        Names of the array and of the other one, for errors.
    value : object
        What was given.
    first : DeviceArray
        The other one.

    Raises
    ------
    DeviceError
        Where they live on different devices, or are of different libraries.
    """
    view = view_array(argument, value)
    wanted = f"{_described(first)} as the {name} is"
    if view is None:
        raise DeviceError(f"{argument}: got {type(value).__name__} on the CPU, want {wanted}")
    if (view.library, view.device) != (first.library, first.device):
        raise DeviceError(f"{argument}: got {_described(view)}, want {wanted}")
    return view


def _described(array: DeviceArray) -> str:
    if array.device == EMULATED:
        return "an emulated array"
    return f"a {array.library.name} array on cuda:{array.device}"
