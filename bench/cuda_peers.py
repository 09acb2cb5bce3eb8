"""The columns of ``bench --device cuda``: fastconv on CuPy arrays, PyTorch with cuDNN, and CuPy.

Each is the library's class for the CPU with its arrays on the GPU and its time taken by events, so
what is called, checked and refused is the same. CuPy has no convolution with channels, so it is
called on image filters only, as SciPy is.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable
from math import prod
from typing import Any, ClassVar

import numpy as np

from fastconv.contract.problem import ConvProblem

from .cuda_timing import CudaTimer, CupyEvents, Events, TorchEvents
from .own import Fastconv, FastconvBest, FastconvFunctional
from .peer import Call, Peer, Refusal
from .peers import Torch, TorchChannelsLast, is_same, refuse_all_but_filters

__all__ = ["CUDA_PEERS", "to_cupy", "to_host"]


def to_cupy(array: np.ndarray) -> Any:
    """Return a CuPy array with the values and the strides of an array of NumPy's."""
    import cupy

    if array.size == 0:
        return cupy.empty(array.shape, array.dtype)
    reaches = [(size - 1) * step for size, step in zip(array.shape, array.strides, strict=True)]
    before = -sum(min(0, reach) for reach in reaches)
    size = sum(map(abs, reaches)) + array.itemsize
    spanned = (ctypes.c_uint8 * size).from_address(array.ctypes.data - before)
    memory = cupy.asarray(np.frombuffer(spanned, np.uint8))
    return cupy.ndarray(array.shape, array.dtype, memory.data + before, array.strides)


def to_host(array: Any) -> np.ndarray:
    """Return the values of a CuPy array."""
    values: np.ndarray = array.get()
    return values


class OnCuda(Peer):
    """Mixed in before a library's class for the CPU: timed by events on the device."""

    _events: ClassVar[Callable[[], Events]]

    @functools.cached_property
    def _timer(self) -> CudaTimer:
        return CudaTimer(type(self)._events())

    def seconds(self, call: Call) -> float:
        """Run the call once with a cold L2 cache and return the device's time."""
        return self._timer.seconds(call)

    def peak(self, dtype: str) -> float:
        """Return the device's nominal multiply-add peak, in FLOP/s."""
        from fastconv.cuda_device import cuda_info

        return cuda_info(0).flops(np.dtype(dtype).itemsize)

    def machine(self) -> dict[str, Any]:
        """Tell what the GPU is, as fastconv sees it."""
        from fastconv.cuda_device import cuda_info

        info = cuda_info(0)
        return {
            "gpu": info.name,
            "compute_capability": list(info.compute_capability),
            "multiprocessors": info.multiprocessors,
            "l2": info.l2,
            "platform": platform.platform(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        }


class _OnCupy(OnCuda):
    """The same on CuPy arrays."""

    _events = CupyEvents

    def prepare(self, problem: ConvProblem, *arrays: Any) -> Call:
        """Return the library's call on arrays of the GPU."""
        return super().prepare(problem.with_(device="cuda"), *map(to_cupy, arrays))

    def kernel(self, problem: ConvProblem) -> str | None:
        """Return the dispatcher's choice for the GPU."""
        return super().kernel(problem.with_(device="cuda"))

    def to_numpy(self, problem: ConvProblem, result: Any) -> np.ndarray:
        """Return the values, on the host."""
        return super().to_numpy(problem, to_host(result))


class CudaFastconv(_OnCupy, Fastconv):
    """The `Conv1d`/`Conv2d`/`Conv3d` objects on CuPy arrays."""

    modules = ("fastconv", "cupy", "numba_cuda")


class CudaFastconvFunctional(_OnCupy, FastconvFunctional):
    """``conv1d``/``conv2d``/``conv3d`` on CuPy arrays."""

    modules = CudaFastconv.modules


class CudaFastconvBest(_OnCupy, FastconvBest):
    """The packed objects on CuPy arrays with the fastest of all kernels."""

    modules = CudaFastconv.modules


class CudaTorch(OnCuda, Torch):
    """``torch.nn.functional.conv*`` through cuDNN, in the problem's own memory order.

    Float32 is computed in float32, not in TF32.
    """

    _events = TorchEvents

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import torch

        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True  # cuDNN measures its algorithms, and takes the best

    def prepare(self, problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> Call:
        """Return the functional call on tensors of the GPU."""
        import torch

        if not torch.cuda.is_available():
            raise Refusal("this PyTorch finds no GPU; want a build for the driver's CUDA version")
        return super().prepare(problem, x, w)

    def _tensors(self, problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> tuple[Any, Any]:
        xt, wt = super()._tensors(problem, x, w)
        return _to_cuda(xt), _to_cuda(wt)

    def to_numpy(self, problem: ConvProblem, result: Any) -> np.ndarray:
        """Return the values, on the host."""
        return super().to_numpy(problem, result.cpu())


def _to_cuda(tensor: Any) -> Any:
    """Return a tensor on the GPU with the values and the strides of one on the CPU."""
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    memory = tensor.as_strided((reach + 1,), (1,)).cuda()
    return memory.as_strided(tensor.shape, tensor.stride())


class CudaTorchChannelsLast(CudaTorch, TorchChannelsLast):
    """The same in PyTorch's channels-last memory format."""


class CudaCupy(_OnCupy):
    """The fastest of CuPy's oaconvolve, fftconvolve and, for small kernels, ndimage.correlate."""

    name = "cupy"
    modules = ("cupy",)
    distribution = "cupy"
    #: ndimage.correlate reads every tap of every pixel: above this a transform is faster.
    direct_taps: ClassVar[int] = 1024

    def version(self) -> str:
        """Return the module's own version, as several distributions carry it."""
        import cupy

        return str(cupy.__version__)

    def prepare(self, problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> Call:
        """Try each function and return the fastest."""
        refuse_all_but_filters(problem, "CuPy")
        if problem.ndim != 2:
            raise Refusal("CuPy is called on filters of 2-D images only")
        import cupy
        from cupyx.scipy import signal

        image, kernel = to_cupy(x), to_cupy(w)
        padded = ((0, 0), (0, 0), *problem.padding)
        flipped = cupy.ascontiguousarray(kernel[:, 0, ::-1, ::-1])[None]

        def transform(convolve: Any) -> Call:
            return lambda: convolve(cupy.pad(image, padded), flipped, mode="valid", axes=(2, 3))

        calls = [transform(signal.oaconvolve), transform(signal.fftconvolve)]
        if is_same(problem) and prod(problem.kernel_size) <= self.direct_taps:
            calls.append(_correlate(image, kernel))
        return self.fastest(calls)


def _correlate(image: Any, kernel: Any) -> Call:
    import cupy
    from cupyx.scipy import ndimage

    def call() -> Any:
        out = cupy.empty_like(image)
        for n, c in np.ndindex(image.shape[:2]):
            ndimage.correlate(image[n, c], kernel[c, 0], output=out[n, c], mode="constant")
        return out

    return call


#: Every column of the table by its name, fastconv's own first.
CUDA_PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        CudaFastconv,
        CudaFastconvFunctional,
        CudaFastconvBest,
        CudaTorch,
        CudaTorchChannelsLast,
        CudaCupy,
    )
}
