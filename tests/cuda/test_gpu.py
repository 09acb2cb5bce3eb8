"""The matrix of problems on a real GPU: ``pytest -m gpu``; skipped where there is none.

Everywhere else the same kernels run in the emulator (`test_kernels.py`). Here a GPU runs them,
through the public functions, on arrays of CuPy and PyTorch.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import dispatch
from fastconv.bench.cuda_peers import to_cupy, to_host
from fastconv.contract.errors import DeviceError
from fastconv.contract.problem import ConvProblem
from fastconv.cuda_device import cuda_info
from helpers import (
    FUNCTIONS,
    MODULES,
    assert_close,
    assert_exact,
    expected,
    gaussians,
    small_integers,
)
from helpers import geometry as arguments
from problem_matrix import float_matrix, problem

MATRIX = [each.with_(device="cuda") for each in float_matrix()]
KERNELS = dispatch.kernels(op="conv", device="cuda")
LAYER = problem((16, 24), (14, 14), 3, padding=1, batch=2)


@cache
def gpus() -> int:
    """How many GPUs the driver finds, asked without any package; 0 without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if found else 0


# Without a device the cause is the device. With one, a missing package is an error of the tests.
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(gpus() == 0, reason="no CUDA device: the driver is absent or finds none"),
]


@pytest.fixture(scope="module", autouse=True)
def device() -> Any:
    """What the first GPU is; an error says what is missing."""
    return cuda_info(0)


@pytest.fixture
def cupy() -> Any:
    import cupy

    return cupy


@pytest.fixture
def torch() -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device for this build of PyTorch")
    return torch


def call(of: ConvProblem, convert: Any, tensors: Any, activation: str | None = None) -> Any:
    """The function of a problem's rank on converted arrays, with all of its epilogue."""
    x, weight, bias, residual = map(
        convert, (tensors.x, tensors.weight, tensors.bias, tensors.residual)
    )
    return FUNCTIONS[of.ndim](
        x, weight, bias, residual=residual, activation=activation, **arguments(of)
    )


@pytest.mark.parametrize("each", MATRIX, ids=lambda each: each.line())
def test_every_kernel_on_the_matrix(
    each: ConvProblem, device: Any, rng: np.random.Generator
) -> None:
    integers, randoms = small_integers(each, rng), gaussians(each, rng)
    whole = expected(each, integers, epilogue=True, activation="relu")
    sums = expected(each, integers, epilogue=True)
    truth = expected(each, randoms, epilogue=True, activation="silu")
    random_sums = expected(each, randoms, epilogue=True)
    able = [spec for spec in KERNELS if not spec.reasons(each, device)]
    for spec in able if each.batch else able[:1]:
        with fastconv.use_kernel(spec.name):
            exact = to_host(call(each, to_cupy, integers, "relu"))
            close = to_host(call(each, to_cupy, randoms, "silu"))
        tolerance = spec.tolerance[each.dtype]
        if spec.exact:
            assert_exact(exact, whole, spec.name)
        else:
            assert_close(exact, whole, tolerance, spec.name, sums)
        assert_close(close, truth, tolerance, spec.name, random_sums)


def test_an_object_packs_once_and_computes_the_same(rng: np.random.Generator) -> None:
    tensors = small_integers(LAYER, rng)
    layer = MODULES[2](to_cupy(tensors.weight), to_cupy(tensors.bias), **arguments(LAYER))
    truth = expected(LAYER, tensors, epilogue=True)
    with fastconv.precision("exact"):
        for _ in range(2):
            y = layer(to_cupy(tensors.x), residual=to_cupy(tensors.residual))
            assert_exact(to_host(y), truth)


@pytest.fixture
def exact() -> Iterator[None]:
    """Leave out kernels whose sums of small integers are rounded."""
    with fastconv.precision("exact"):
        yield


@pytest.mark.usefixtures("exact")
def test_a_stream_in_force_is_the_stream_of_the_work(cupy: Any, rng: np.random.Generator) -> None:
    tensors = small_integers(LAYER, rng)
    x, w = to_cupy(np.zeros_like(tensors.x)), to_cupy(tensors.weight)
    values = to_cupy(tensors.x)
    layer = fastconv.Conv2d(w, **arguments(LAYER))
    layer(x)  # compiles and packs, on the default stream
    busy = cupy.ones((4096, 4096), cupy.float32)
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        for _ in range(30):
            busy @ busy
        x[...] = values  # behind the products; another stream would read the zeros
        y = layer(x)
        assert not stream.done  # the call has not waited
        stream.synchronize()
    assert_exact(to_host(y), expected(LAYER, tensors))


@pytest.mark.usefixtures("exact")
def test_the_weight_of_one_stream_is_read_on_another(cupy: Any, rng: np.random.Generator) -> None:
    tensors = small_integers(LAYER, rng)
    x = to_cupy(tensors.x)
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True):
        layer = fastconv.Conv2d(to_cupy(tensors.weight), **arguments(LAYER))
        layer.prepare(x)
    with cupy.cuda.Stream(non_blocking=True) as other:
        y = layer(x)
        other.synchronize()
    assert_exact(to_host(y), expected(LAYER, tensors))


@pytest.mark.usefixtures("exact")
def test_memory_comes_from_the_pool(cupy: Any, rng: np.random.Generator) -> None:
    tensors = small_integers(LAYER, rng)
    x, w = to_cupy(tensors.x), to_cupy(tensors.weight)
    fastconv.conv2d(x, w, **arguments(LAYER))
    before = cupy.get_default_memory_pool().total_bytes()
    for _ in range(5):
        fastconv.conv2d(x, w, **arguments(LAYER))
    assert cupy.get_default_memory_pool().total_bytes() == before


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    "each",
    [
        LAYER,
        problem((16, 24), (14, 14), 3, padding=1, layout="channels_last"),
        problem((6, 6), (30,), 5, groups=6),
        problem((3, 5), (5, 6, 7), 3, padding=1, dtype="float64"),
        problem((8, 8), (9, 9), 1, dtype="float16"),
        problem((8, 8), (9, 9), 3, dtype="bfloat16"),
    ],
    ids=lambda each: each.line(),
)
def test_tensors_of_pytorch(each: ConvProblem, torch: Any, rng: np.random.Generator) -> None:
    tensors = small_integers(each, rng)

    def to_torch(array: np.ndarray) -> Any:
        half = array.dtype.name == "bfloat16"
        made = torch.from_numpy(array.view(np.int16) if half else array)
        return (made.view(torch.bfloat16) if half else made).cuda()

    y = call(each, to_torch, tensors)
    assert y.is_cuda and str(y.dtype) == f"torch.{each.dtype}"
    values = y.cpu().double().numpy()
    truth = expected(each, tensors, epilogue=True).astype(tensors.x.dtype).astype(np.float64)
    np.testing.assert_array_equal(values, truth)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        again = call(each, to_torch, tensors)
    side.synchronize()
    assert torch.equal(again, y)


class Foreign:
    """An array of an unknown library that speaks DLPack only."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._array.__dlpack_device__()
        return device

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)


class Interface:
    """An array of an unknown library with ``__cuda_array_interface__``."""

    def __init__(self, array: Any) -> None:
        self.kept, self.__cuda_array_interface__ = array, array.__cuda_array_interface__


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("wrap", [Foreign, Interface])
def test_arrays_of_other_libraries(wrap: Any, cupy: Any, rng: np.random.Generator) -> None:
    tensors = small_integers(LAYER, rng)
    y = call(LAYER, lambda array: wrap(to_cupy(array)), tensors)
    assert isinstance(y, cupy.ndarray)
    assert_exact(to_host(y), expected(LAYER, tensors, epilogue=True))


@pytest.mark.skipif(gpus() < 2, reason="no second CUDA device")
@pytest.mark.usefixtures("exact")
def test_two_devices(cupy: Any, rng: np.random.Generator) -> None:
    tensors = small_integers(LAYER, rng)
    x, w = to_cupy(tensors.x), to_cupy(tensors.weight)
    with cupy.cuda.Device(1):
        x1, w1 = to_cupy(tensors.x), to_cupy(tensors.weight)
    truth = expected(LAYER, tensors)
    for each in ((x, w), (x1, w1), (x, w)):  # the current device stays the first one
        y = fastconv.conv2d(*each, **arguments(LAYER))
        assert y.device == each[0].device and cupy.cuda.Device().id == 0
        assert_exact(to_host(y), truth)
    with pytest.raises(DeviceError, match=r"^weight: got a CuPy array on cuda:1"):
        fastconv.conv2d(x, w1, **arguments(LAYER))
