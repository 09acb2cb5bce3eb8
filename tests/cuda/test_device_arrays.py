"""Arrays on a GPU: recognised, refused, and computed on, in the emulator where there is no GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.array_libraries import EmulatedArray, view_array
from fastconv.contract.errors import DeviceError, DTypeError
from fastconv.contract.settings import config
from fastconv.device_arrays import DeviceArray

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)
on_gpu = EmulatedArray


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Compare kernels on small integers whose sums are exact."""
    with fastconv.precision("exact"):
        yield


def integers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng().integers(-4, 5, shape).astype(np.float32)


class FakeDevice:
    def __init__(self, number: int) -> None:
        self.id = number


class FakeMemory:
    def __init__(self, address: int) -> None:
        self.ptr = address


class ndarray:
    """What fastconv asks of a CuPy array."""

    def __init__(self, like: np.ndarray[Any, Any], device: int = 0) -> None:
        self.shape, self.strides, self.dtype = like.shape, like.strides, like.dtype
        self.ndim, self.data, self.device = like.ndim, FakeMemory(4096), FakeDevice(device)


ndarray.__module__ = "cupy"


class Tensor:
    """What fastconv asks of a PyTorch tensor."""

    def __init__(self, shape: tuple[int, ...], is_cuda: bool, requires_grad: bool = False) -> None:
        self.shape, self.dtype, self.ndim = shape, "torch.float32", len(shape)
        self.is_cuda, self.requires_grad, self.device = is_cuda, requires_grad, FakeDevice(0)


Tensor.__module__ = "torch"


class OnGpu:
    """An array of a library that fastconv does not know, with an exchange protocol."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


@needs_compiler
def test_a_call_computes_on_the_device_of_its_arrays() -> None:
    x, w, b, r = integers(2, 8, 9, 7), integers(6, 4, 3, 2), integers(6), integers(2, 6, 7, 6)
    y = fastconv.conv2d(on_gpu(x), on_gpu(w), on_gpu(b), groups=2, residual=on_gpu(r))
    expected = fastconv.conv2d(x, w, b, groups=2, residual=r)
    assert isinstance(y, EmulatedArray)
    assert np.array_equal(y.copy_to_host(), expected)


@needs_compiler
def test_an_output_keeps_the_memory_order_of_the_input() -> None:
    x, w = integers(1, 5, 6, 4).transpose(0, 3, 1, 2), integers(8, 4, 3, 3)
    y = fastconv.conv2d(on_gpu(x), on_gpu(w), padding=1)
    assert y.memory.transpose(0, 2, 3, 1).flags.c_contiguous
    assert np.array_equal(y.memory, fastconv.conv2d(x, w, padding=1))


@needs_compiler
def test_an_object_keeps_its_own_weight_on_the_device() -> None:
    x, w = integers(3, 10, 10), integers(5, 3, 3, 3)
    kept = w.copy()
    layer = fastconv.Conv2d(on_gpu(w), padding="same", activation="relu")
    w[...] = np.nan
    y = layer(on_gpu(x))
    assert layer.prepare(on_gpu(x)).startswith("cuda.")
    assert np.array_equal(layer.weight.memory, kept)
    assert np.array_equal(y.memory, np.maximum(fastconv.conv2d(x, kept, padding=1), 0))


@needs_compiler
def test_out_may_be_the_input() -> None:
    x, w = integers(2, 4, 8, 8), integers(4, 4, 3, 3)
    expected = fastconv.conv2d(x, w, padding=1)
    result = fastconv.conv2d(on_gpu(x), on_gpu(w), padding=1, out=on_gpu(x))
    assert result.memory is x and np.array_equal(x, expected)


@needs_compiler
def test_explain_names_the_kernels_of_the_device() -> None:
    x, w = on_gpu(integers(1, 4, 8, 8)), on_gpu(integers(4, 4, 3, 3))
    rows = fastconv.explain(fastconv.conv2d, x, w).rows
    assert {row.kernel.partition(".")[0] for row in rows} == {"cuda"}
    with fastconv.use_kernel("cpu.direct"), pytest.raises(fastconv.NoKernelError) as caught:
        fastconv.conv2d(x, w)
    assert "runs on cpu, and the arrays are on cuda" in str(caught.value)


@pytest.mark.parametrize("name", ["weight", "bias", "residual", "out"])
def test_arrays_on_different_devices_are_refused(name: str) -> None:
    arrays = {
        "weight": integers(2, 3, 1, 1),
        "bias": integers(2),
        "residual": integers(1, 2, 4, 4),
        "out": integers(1, 2, 4, 4),
    }
    for elsewhere, told in ((lambda array: array, "on the CPU"), (ndarray, "CuPy array on cuda:0")):
        given: dict[str, Any] = {key: on_gpu(value) for key, value in arrays.items()}
        given[name] = elsewhere(arrays[name])
        with pytest.raises(DeviceError, match=f"^{name}: got .*{told}, want an emulated array"):
            fastconv.conv2d(on_gpu(integers(1, 3, 4, 4)), **given)


def test_a_weight_on_a_device_wants_its_input_there() -> None:
    with pytest.raises(DeviceError, match=r"^weight: got .*want a NumPy array"):
        fastconv.conv2d(integers(1, 3, 4, 4), on_gpu(integers(2, 3, 1, 1)))
    layer = fastconv.Conv2d(on_gpu(integers(2, 3, 1, 1)))
    with pytest.raises(DeviceError, match=r"^input: got a NumPy array, want one on a GPU"):
        layer(integers(1, 3, 4, 4))


def test_two_gpus_are_two_devices() -> None:
    x, w = ndarray(integers(1, 3, 4, 4), 0), ndarray(integers(2, 3, 1, 1), 1)
    with pytest.raises(DeviceError, match=r"^weight: got a CuPy .*cuda:1, want .*cuda:0"):
        fastconv.conv2d(x, w)


def test_a_view_says_where_and_how_an_array_lies() -> None:
    memory = integers(2, 6, 5, 3).transpose(0, 3, 1, 2)[:, :, ::-1]
    view = view_array("input", ndarray(memory, 3))
    assert view is not None
    assert (view.pointer, view.device, view.shape) == (4096, 3, (2, 3, 6, 5))
    assert view.strides == memory.strides and view.size == memory.size
    low, high = view.extent
    assert 4096 - low == 5 * 5 * 3 * 4 and high - low == memory.nbytes


@pytest.mark.parametrize("poison", [False, True])
def test_workspaces_start_as_nan_where_poisoned(
    poison: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "poison_workspace", poison)
    view = view_array("input", on_gpu(integers(1, 2, 3, 3)))
    assert isinstance(view, DeviceArray)
    assert not poison or np.isnan(view.new((40,), np.dtype(np.float64)).owner.memory).all()
    assert view.new((40,), np.dtype(np.uint32)).shape == (40,)


def test_tensors_on_the_cpu_and_with_gradients_are_refused() -> None:
    assert view_array("input", Tensor((1, 3, 4, 4), is_cuda=False)) is None
    with pytest.raises(DeviceError, match=r"^input: got a PyTorch array, want a NumPy array"):
        fastconv.conv2d(Tensor((1, 3, 4, 4), is_cuda=False), integers(2, 3, 1, 1))
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    assert torch.is_grad_enabled()
    with pytest.raises(DTypeError, match=r"^input: got a tensor that requires gradients"):
        view_array("input", Tensor((1, 3, 4, 4), is_cuda=True, requires_grad=True))


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_other_libraries_want_cupy() -> None:
    with pytest.raises(DeviceError, match=r"^cupy: not installed.*fastconv\[cuda13\]"):
        fastconv.conv2d(OnGpu(), integers(2, 3, 1, 1))
