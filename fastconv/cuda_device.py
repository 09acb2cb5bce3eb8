"""The GPU that a call runs on: whether there is one, what it is, and which models are known.

Nothing here loads a CUDA package until a GPU is asked for. A device is described by a `CudaInfo`,
so that dispatch, forecasts and tests work for a model that this machine does not have.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from .contract.errors import DeviceError, FastconvError
from .contract.spec import CudaInfo

__all__ = [
    "EMULATED",
    "MODELS",
    "check_stream",
    "cuda_info",
    "current_device",
    "describe_device",
    "device_now",
    "named_model",
    "require_cuda",
    "use_device",
]

#: Least compute capability that the kernels are written and compiled for.
_LEAST_CAPABILITY = (7, 5)
#: Single-precision multiply-adds that a multiprocessor starts in a cycle, by compute capability
#: (CUDA C++ Programming Guide, arithmetic instructions).
_CORES = {(7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}
_LATER_CORES = 128

#: Ordinal of the device that is emulated on the CPU.
EMULATED = -1
#: Handles of the default streams, which belong to whichever context is current.
_DEFAULT_STREAMS = (0, 1, 2)


def _model(
    name: str, capability: tuple[int, int], multiprocessors: int, shared: tuple[int, int],
    l2: float, clock: float, bandwidth: float,
) -> CudaInfo:  # fmt: skip
    """Return a model: shared memory in KiB, L2 in MiB, clock in GHz, bandwidth in GB/s."""
    return CudaInfo(
        kind="cuda",
        name=name,
        compute_capability=capability,
        multiprocessors=multiprocessors,
        shared_block=shared[0] << 10,
        shared_multiprocessor=shared[1] << 10,
        l2=int(l2 * (1 << 20)),
        clock=clock * 1e9,
        bandwidth=bandwidth * 1e9,
        cores=_CORES.get(capability, _LATER_CORES),
    )


#: Models by name, from NVIDIA's data sheets and architecture white papers (boost clocks).
MODELS = {
    info.name: info
    for info in (
        _model("T4", (7, 5), 40, (64, 64), 4, 1.59, 320),
        _model("A100", (8, 0), 108, (163, 164), 40, 1.41, 1555),
        _model("RTX 3090", (8, 6), 82, (99, 100), 6, 1.695, 936),
        _model("L4", (8, 9), 58, (99, 100), 48, 2.04, 300),
        _model("RTX 4090", (8, 9), 128, (99, 100), 72, 2.52, 1008),
        _model("H100", (9, 0), 132, (227, 228), 50, 1.98, 3350),
        _model("H200", (9, 0), 132, (227, 228), 50, 1.98, 4800),
        _model("B200", (10, 0), 148, (227, 228), 126, 1.965, 8000),
        _model("RTX 5090", (12, 0), 170, (99, 100), 96, 2.407, 1792),
    )
}


def named_model(name: str) -> CudaInfo:
    """Return one of `MODELS`, or say which there are.

    Capitals, blanks, hyphens and the maker's words before a name do not matter. A suffix does: an
    H100 PCIe is another GPU than an H100.

    Examples
    --------
    >>> named_model("rtx4090").name, named_model("NVIDIA GeForce RTX-4090").name
    ('RTX 4090', 'RTX 4090')
    """
    wanted = _plain(name)
    for known, info in MODELS.items():
        if _plain(known) == wanted:
            return info
    raise FastconvError(f"gpu: got {name!r}, want one of {', '.join(MODELS)}")


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|tesla|[\s_-]", "", name.lower())


_device: ContextVar[tuple[int, CudaInfo] | None] = ContextVar("fastconv_cuda", default=None)


def require_cuda() -> Any:
    """Return the module ``numba.cuda`` where it can drive a GPU, else say what is missing.

    Raises
    ------
    DeviceError
        Where a package, the driver or a device is missing, or the driver is too old.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        raise DeviceError(
            "cuda: got no package numba-cuda, want it installed: pip install 'fastconv[cuda13]' "
            "(or 'fastconv[cuda12]' for a driver of CUDA 12)"
        )
    from numba import cuda

    try:
        count = len(cuda.gpus)
    except Exception as error:  # Numba's and the bindings' own types, which differ by version
        raise DeviceError(
            f"cuda: got no working NVIDIA driver ({_one_line(error)}), want one that supports "
            "the CUDA version of the installed packages; nvidia-smi shows which it supports"
        ) from error
    if count == 0:
        raise DeviceError("cuda: got a driver but no GPU, want one; nvidia-smi lists them")
    _check_driver(cuda)
    return cuda


def _check_driver(cuda: Any) -> None:
    """Raise where the driver cannot load what the installed packages compile."""
    driver = cuda.cudadrv.driver.driver.get_version()
    try:
        packages = cuda.cudadrv.runtime.get_version()
    except Exception as error:  # of the bindings, which differ by version
        raise DeviceError(
            f"cuda: got no NVRTC ({_one_line(error)}), want NVIDIA's packages for this driver: "
            f"pip install 'fastconv[cuda{driver[0]}]'"
        ) from error
    # Machine code runs on every driver of its own major version and on later ones.
    if driver[0] < packages[0]:
        raise DeviceError(
            f"cuda: got a driver of CUDA {driver[0]}.{driver[1]}, too old for the installed "
            f"packages of CUDA {packages[0]}.{packages[1]}; want a newer driver, or the packages "
            "of CUDA 12 for a driver of CUDA 12: pip install 'fastconv[cuda12]'"
        )


def check_stream(handle: int, device: int) -> None:
    """Raise where a stream does not belong to the context that is current.

    Parameters
    ----------
    handle : int
        The driver's handle; the default streams pass.
    device : int
        The device whose context is current, for the error.

    Raises
    ------
    DeviceError
        Where the stream is of another context, or no stream at all.
    """
    if handle in _DEFAULT_STREAMS:
        return
    from cuda.bindings import driver

    status, context = driver.cuStreamGetCtx(handle)
    if int(status):
        raise DeviceError(
            f"stream: got the handle {handle:#x}, which the driver does not know ({status.name}); "
            "want a stream that is still alive"
        )
    current = int(driver.cuCtxGetCurrent()[1])
    # A thread that has not used the device has no context yet: the launch binds the primary one.
    if current and int(context) != current:
        raise DeviceError(
            f"stream: got one of another CUDA context, want one of device {device}'s primary "
            "context, where the arrays are: make it by cupy.cuda.Stream() or torch.cuda.Stream() "
            "while that device is the current one"
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(" :.") or type(error).__name__


@functools.cache
def cuda_info(ordinal: int = 0) -> CudaInfo:
    """Return what a GPU of this machine is.

    Parameters
    ----------
    ordinal : int
        Number of the device as the driver counts.

    Raises
    ------
    DeviceError
        Where there is no such device, or it is older than the kernels.
    """
    cuda = require_cuda()
    if not 0 <= ordinal < len(cuda.gpus):
        raise DeviceError(f"cuda: got device {ordinal}, want one of 0 to {len(cuda.gpus) - 1}")
    gpu = cuda.gpus[ordinal]._device
    capability = (int(gpu.compute_capability[0]), int(gpu.compute_capability[1]))
    name = gpu.name.decode() if isinstance(gpu.name, bytes) else str(gpu.name)
    if capability < _LEAST_CAPABILITY:
        raise DeviceError(
            f"cuda: got {name} of compute capability {capability[0]}.{capability[1]}, want at "
            f"least {_LEAST_CAPABILITY[0]}.{_LEAST_CAPABILITY[1]}"
        )
    return CudaInfo(
        kind="cuda",
        name=name,
        compute_capability=capability,
        multiprocessors=gpu.MULTIPROCESSOR_COUNT,
        shared_block=gpu.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        shared_multiprocessor=gpu.MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
        l2=gpu.L2_CACHE_SIZE,
        clock=1e3 * gpu.CLOCK_RATE,
        # Two transfers a clock of the memory.
        bandwidth=2e3 * gpu.MEMORY_CLOCK_RATE * gpu.GLOBAL_MEMORY_BUS_WIDTH / 8,
        cores=_CORES.get(capability, _LATER_CORES),
    )


@contextlib.contextmanager
def use_device(ordinal: int, info: CudaInfo | None = None) -> Iterator[CudaInfo]:
    """Choose and explain kernels for one GPU inside the ``with`` block.

    Parameters
    ----------
    ordinal : int
        Number of the device, or `EMULATED`.
    info : CudaInfo, optional
        Its description, say one of `MODELS`; by default that in force for this device, else the
        device itself is asked.
    """
    described, before = info or describe_device(ordinal), _device.get()
    try:
        _device.set((ordinal, described))
        yield described
    finally:
        _device.set(before)


def describe_device(ordinal: int) -> CudaInfo:
    """Return what a device is: as `use_device` says for it, an A100 if emulated, else as it says.

    Examples
    --------
    >>> with use_device(EMULATED, MODELS["T4"]):
    ...     describe_device(EMULATED).name
    'T4'
    """
    chosen = _device.get()
    if chosen is not None and chosen[0] == ordinal:
        return chosen[1]
    return MODELS["A100"] if ordinal == EMULATED else cuda_info(ordinal)


def device_now() -> tuple[int, str] | None:
    """Return number and name of the GPU that `use_device` chose, None outside."""
    chosen = _device.get()
    return chosen and (chosen[0], chosen[1].name)


def current_device() -> tuple[int, CudaInfo]:
    """Return number and description of the GPU in force, the first one outside `use_device`."""
    return _device.get() or (0, cuda_info(0))
