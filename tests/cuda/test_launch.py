"""What no device takes is an error before a launch: tested with devices that are made up."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import array_libraries, cuda_device
from fastconv.array_libraries import EmulatedArray, view_array
from fastconv.contract.errors import DeviceError
from fastconv.cuda_device import EMULATED, MODELS, check_stream, describe_device, use_device
from fastconv.device_arrays import DeviceArray
from fastconv.kernels.cuda.common import launch as door
from fastconv.kernels.cuda.common.launch import Kernel, flat, launch, upload

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)
#: A device on which a block gets no more shared memory than the 48 KiB that every GPU has.
SMALL = dataclasses.replace(MODELS["T4"], name="small", shared_block=48 << 10)


class Library:
    """An array library on two GPUs that only notes what it is asked for."""

    name = "made up"

    def __init__(self, stream: int = 0) -> None:
        self.asked: list[str] = []
        self._stream = stream

    def array(self, device: int = 0) -> DeviceArray:
        shape, dtype = (2, 3), np.dtype(np.float32)
        return DeviceArray(None, 4096, shape, (12, 4), dtype, device, self)

    def from_host(self, values: np.ndarray, device: int) -> Any:
        self.asked.append(f"from_host {device}")
        return values

    def view(self, argument: str, value: np.ndarray) -> DeviceArray:
        lies = value.shape, value.strides, value.dtype
        return DeviceArray(value, 8192, *lies, 0, self)

    def synchronize(self, device: int) -> None:
        self.asked.append("synchronize")

    def stream(self, device: int) -> int:
        return self._stream


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note launches, on a GPU and in the emulator, and run none."""
    made: list[Any] = []

    class OnGpu:
        def __init__(self, kernel: Kernel) -> None:
            self.kernel = kernel

        def __getitem__(self, key: Any) -> Any:
            return lambda *arguments: made.append((self.kernel.name, *key))

    class Emulated:
        def __init__(self, kernel: Kernel) -> None:
            self.kernel = kernel

        def launch(self, grid: Any, block: Any, arguments: Any) -> None:
            made.append((self.kernel.name, grid, block))

    monkeypatch.setattr(door, "_dispatcher", OnGpu)
    monkeypatch.setattr(door, "emulated", Emulated)
    return made


def kernel(shared: int = 0) -> Kernel:
    return Kernel("made_up", lambda: None, (), 64, 1, shared)


def emulated_view() -> DeviceArray:
    view = view_array("input", EmulatedArray(np.zeros((2, 3), np.float32)))
    assert view is not None
    return view


def test_a_launch_within_the_limits_goes_to_the_stream_in_force(launched: list[Any]) -> None:
    x = Library().array()
    with use_device(0, SMALL):
        launch(kernel(48 << 10), (2**31 - 1, 65535, 65535), x, (flat(x),))
    assert launched == [("made_up", (2**31 - 1, 65535, 65535), (64, 1, 1), 0)]


@pytest.mark.parametrize(
    ("grid", "axis"), [((2**31, 1, 1), "x"), ((1, 65536, 1), "y"), ((1, 1, 65536), "z")]
)
def test_grids_that_no_device_takes(
    grid: tuple[int, int, int], axis: str, launched: list[Any]
) -> None:
    wanted = rf"^made_up: got {max(grid)} blocks along the grid's {axis}, want at most .*split the"
    for x in (Library().array(), emulated_view()):
        with use_device(x.device, SMALL), pytest.raises(DeviceError, match=wanted):
            launch(kernel(), grid, x, (flat(x),))
    assert not launched


def test_more_shared_memory_than_a_block_may_have(launched: list[Any]) -> None:
    x = emulated_view()
    with use_device(EMULATED, SMALL):
        with pytest.raises(DeviceError, match=r"needs 49153 bytes .* small has 49152; want ano"):
            launch(kernel((48 << 10) + 1), (1, 1, 1), x, (flat(x),))
        assert not launched
        launch(kernel(48 << 10), (1, 1, 1), x, (flat(x),))
    launch(kernel((48 << 10) + 1), (1, 1, 1), x, (flat(x),))  # an A100 by default
    assert len(launched) == 2


@needs_compiler
def test_a_call_on_a_device_of_little_shared_memory_writes_nothing() -> None:
    x = EmulatedArray(np.ones((1, 8, 9, 9), np.float32))
    w = EmulatedArray(np.ones((8, 8, 3, 3), np.float32))
    out = EmulatedArray(np.full((1, 8, 7, 7), 3, np.float32))
    tiny = dataclasses.replace(SMALL, shared_block=2 << 10)
    with use_device(EMULATED, tiny), pytest.raises(DeviceError, match=r"small has 2048; want"):
        fastconv.conv2d(x, w, out=out)
    assert (out.memory == 3).all()


def test_an_array_on_another_device_is_no_argument(launched: list[Any]) -> None:
    library = Library()
    x, elsewhere = library.array(0), library.array(1)
    wanted = "got an array on cuda:1, want all on cuda:0; copy"
    with use_device(0, SMALL), pytest.raises(DeviceError, match=wanted):
        launch(kernel(), (1, 1, 1), x, (flat(x), flat(elsewhere)))
    assert not launched


class Driver:
    """Two contexts with a stream each, 0x100 and 0x200; the first is current."""

    current = 1

    def cuStreamGetCtx(self, handle: int) -> tuple[Any, int]:
        if handle not in (0x100, 0x200):
            return Status(400), 0
        return Status(0), handle // 0x100

    def cuCtxGetCurrent(self) -> tuple[Any, int]:
        return Status(0), self.current


class Status(int):
    name = "CUDA_ERROR_INVALID_HANDLE"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("numba.cuda")  # looks for the real bindings, once
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=Driver()))


@pytest.mark.usefixtures("driver")
def test_a_thread_without_a_context_takes_any_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "current", 0)
    check_stream(0x200, 0)


@needs_compiler
@pytest.mark.usefixtures("driver")
def test_streams_of_other_contexts_are_refused(
    launched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba import cuda

    monkeypatch.setattr(cuda, "external_stream", lambda handle: f"stream {handle:#x}")
    for handle in (0, 1, 2, 0x100):
        check_stream(handle, 0)
    with pytest.raises(DeviceError, match=r"0x300, which the driver does not know .*INVALID_HAN"):
        check_stream(0x300, 0)
    x = Library(stream=0x200).array()
    wanted = r"^stream: got one of another CUDA context, want one of device 0's primary"
    with use_device(0, SMALL), pytest.raises(DeviceError, match=wanted):
        launch(kernel(), (1, 1, 1), x, (flat(x),))
    assert not launched
    x = Library(stream=0x100).array()
    with use_device(0, SMALL):
        launch(kernel(), (1, 1, 1), x, (flat(x),))
    # Numba takes a stream of its own kind, and no number but zero.
    assert launched == [("made_up", (1, 1, 1), (64, 1, 1), "stream 0x100")]


def test_a_current_stream_of_another_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SimpleNamespace(ptr=0x100, device_id=1)
    cupy = SimpleNamespace(
        cuda=SimpleNamespace(
            Device=lambda number: contextlib.nullcontext(), get_current_stream=lambda: stream
        )
    )
    monkeypatch.setattr(array_libraries._CuPy, "_module", staticmethod(lambda: cupy))
    with pytest.raises(DeviceError, match=r"^stream: got CuPy's current stream of device 1, want"):
        array_libraries._CUPY.stream(0)
    assert array_libraries._CUPY.stream(1) == 0x100


@needs_compiler
def test_a_driver_older_than_the_packages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba.cuda

    def machine(driver: tuple[int, int], packages: tuple[int, int]) -> Any:
        versions = SimpleNamespace(
            driver=SimpleNamespace(driver=SimpleNamespace(get_version=lambda: driver)),
            runtime=SimpleNamespace(get_version=lambda: packages),
        )
        return SimpleNamespace(gpus=["a GPU"], cudadrv=versions)

    monkeypatch.setattr(numba, "cuda", machine((12, 4), (13, 0)))
    with pytest.raises(DeviceError, match=r"driver of CUDA 12\.4, too old .* 13\.0; .*cuda12"):
        cuda_device.require_cuda()
    for driver, packages in (((13, 0), (13, 2)), ((13, 0), (12, 9))):
        fits = machine(driver, packages)
        monkeypatch.setattr(numba, "cuda", fits)
        assert cuda_device.require_cuda() is fits

    def no_library() -> None:
        raise OSError("no libnvrtc.so.13")

    broken = machine((13, 0), (13, 0))
    broken.cudadrv.runtime.get_version = no_library
    monkeypatch.setattr(numba, "cuda", broken)
    with pytest.raises(DeviceError, match=r"no NVRTC \(no libnvrtc\.so\.13\), want .*cuda13"):
        cuda_device.require_cuda()


def test_the_description_in_force_stays_for_the_arrays_of_that_device() -> None:
    with use_device(EMULATED, SMALL), emulated_view().on_device():
        assert emulated_view().info is SMALL
        with use_device(0, MODELS["H100"]):
            assert describe_device(EMULATED) is MODELS["A100"]
    assert emulated_view().info is MODELS["A100"]


def test_tables_are_made_by_the_library_of_the_input_and_waited_for() -> None:
    library, table = Library(), np.arange(12, dtype=np.uint32)
    run = upload(library.array(), table)
    assert library.asked == ["from_host 0", "synchronize"]
    interface = run.__cuda_array_interface__
    assert (interface["data"][0], interface["shape"], interface["typestr"]) == (8192, (12,), "<u4")
    assert np.array_equal(upload(emulated_view(), table), table)
    assert np.array_equal(upload(table, table), table)
