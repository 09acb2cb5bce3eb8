"""``bench --device cuda`` without a GPU: its timing on made-up events, peers emulated."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastconv import cli
from fastconv.array_libraries import EmulatedArray
from fastconv.bench import command, cuda_peers, peer, registry, report, runner, truth, worker
from fastconv.bench.cases import parse_case
from fastconv.bench.cuda_timing import CudaTimer
from fastconv.contract import settings
from fastconv.contract.errors import DeviceError
from fastconv.cuda_device import EMULATED, MODELS, use_device

LINE = "ic3ih8oc4kh3ph1"


class Device:
    """A GPU and its host in made-up seconds; flushing takes one second, queuing it none."""

    def __init__(self) -> None:
        self.now = 0.0  # the host's clock
        self.done = 0.0  # when the device has done all that is queued
        self.log: list[str] = []

    def queue(self, seconds: float, name: str) -> None:
        self.done = max(self.done, self.now) + seconds
        self.log.append(name)

    def flush(self) -> None:
        self.queue(1.0, "flush")

    def record(self) -> float:
        return max(self.done, self.now)

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def synchronize(self) -> None:
        self.now = max(self.now, self.done)

    def call(self, host: float, kernels: int, each: float) -> peer.Call:
        """A call that queues kernels after another and takes the host some time for each."""

        def run() -> None:
            for _ in range(kernels):
                self.now += host / kernels
                self.queue(each, "kernel")

        return run


def test_a_call_is_timed_on_the_device_with_a_cold_cache() -> None:
    device = Device()
    timer = CudaTimer(device, lambda: device.now)
    assert timer.seconds(device.call(0.5, 2, 0.25)) == pytest.approx(0.5)
    assert device.log == ["flush", "kernel", "kernel"]
    assert timer.seconds(device.call(0.5, 1, 0.125)) == pytest.approx(0.125)
    assert device.log[3:] == ["flush", "kernel"]


def test_the_device_never_waits_for_the_host_within_the_time() -> None:
    device = Device()
    timer = CudaTimer(device, lambda: device.now)
    slow = device.call(5.0, 3, 0.01)
    assert timer.seconds(slow) == pytest.approx(0.03)
    assert device.log.count("flush") == 1 + 2 + 4 + 8  # until eight of them outlast the host
    before = len(device.log)
    assert timer.seconds(slow) == pytest.approx(0.03)
    assert device.log[before:] == ["flush"] * 8 + ["kernel"] * 3


def test_a_call_that_waits_for_the_device_is_timed_all_the_same() -> None:
    device = Device()

    def waits() -> None:
        device.queue(0.5, "kernel")
        device.synchronize()
        device.now += 0.25

    assert CudaTimer(device, lambda: device.now).seconds(waits) == pytest.approx(0.75)


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Device:
    """Let the columns on CuPy arrays compute in the emulator, timed by a made-up device."""
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    device = Device()
    monkeypatch.setattr(settings, "set_num_threads", lambda count: None)  # of the column's process
    monkeypatch.setattr(cuda_peers._OnCupy, "_events", staticmethod(lambda: device))
    monkeypatch.setattr(cuda_peers, "to_cupy", EmulatedArray)
    monkeypatch.setattr(cuda_peers, "to_host", lambda array: array.memory)
    return device


@pytest.mark.parametrize("name", ["fastconv", "fastconv_functional", "fastconv_best"])
def test_own_columns_run_cuda_kernels(name: str, tmp_path: Path, emulated: Device) -> None:
    path = str(tmp_path / "truth.npy")
    column = registry.PEERS["dense"]["cuda"][name](1)
    forced = getattr(column, "_forced", contextlib.nullcontext())  # a kernel, for its process
    with use_device(EMULATED, MODELS["T4"]), forced:
        process = worker.Worker(column)
        process.truth(LINE, path)
        reply = worker.answer(process, {"do": "prepare", "line": LINE, "path": path})
        assert reply["kernel"].startswith("cuda."), reply
        assert reply["error"] <= truth.TOLERANCE["float32"]
        emulated.log.clear()
        assert len(process.time(1e-3)["times"]) >= 1
        assert emulated.log.count("flush") >= 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ic8ih9oc8kh3", "each channel by itself"),
        ("g2ic2iw90oc2kw3", "2-D images only"),
        ("g2ic2ih9oc2kh3sh2", "stride 1 only"),
        ("--dt=f16 g2ic2ih9oc2kh3", "float32 and float64 only"),
    ],
)
def test_cupy_is_called_on_image_filters_only(line: str, said: str) -> None:
    problem = parse_case(line).problem
    cupy = registry.PEERS["dense"]["cuda"]["cupy"](1)
    with pytest.raises(peer.Refusal, match=f"^CuPy .*{said}"):
        cupy.prepare(problem, *truth.arrays(problem))


class Memory:
    """CuPy's pointer into memory."""

    def __init__(self, memory: np.ndarray, offset: int = 0) -> None:
        self.memory, self.offset = memory, offset

    def __add__(self, offset: int) -> Memory:
        return Memory(self.memory, self.offset + offset)


def test_arrays_keep_their_strides_on_the_way_to_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {
        "asarray": lambda array: SimpleNamespace(data=Memory(array.copy())),
        "ndarray": lambda shape, dtype, at, strides: np.ndarray(
            shape, dtype, at.memory.data, at.offset, strides
        ),
        "empty": np.empty,
    }
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(**made))
    x = np.random.default_rng().standard_normal((2, 3, 4, 5))
    for array in (x, x.transpose(0, 2, 3, 1), x[:, ::-1, 1:, ::2], x[:, :, ::-1, ::-2], x[:0]):
        copy = cuda_peers.to_cupy(array)
        assert copy.strides == array.strides or not array.size
        assert not np.shares_memory(copy, array)
        np.testing.assert_array_equal(copy, array)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """PyTorch, without what a column sets for the rest of its process."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.setattr(torch, "inference_mode", contextlib.nullcontext)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    # PyTorch's own samples, once another test has imported them, forbid the process these flags.
    flags = torch.backends.flags_frozen.__globals__
    monkeypatch.setitem(flags, "__allow_nonbracketed_mutation_flag", True)
    return torch


def test_tensors_keep_their_strides_on_the_way_to_the_gpu(
    torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor.clone())
    for line in (f"--tag={tag} {LINE}" for tag in ("abx", "axb", "any")):
        problem = parse_case(line).problem
        x, w = truth.arrays(problem)
        xt, wt = registry.PEERS["dense"]["cuda"]["torch"](1)._tensors(problem, x, w)
        np.testing.assert_array_equal(xt.numpy(), x)
        assert xt.numpy().strides == x.strides and wt.shape == w.shape
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_pytorch_without_cuda_is_a_reason(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    problem = parse_case(LINE).problem
    for name in ("torch", "torch_channels_last"):
        with pytest.raises(peer.Refusal, match="finds no GPU; want"):
            registry.PEERS["dense"]["cuda"][name](1).prepare(problem, *truth.arrays(problem))


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(runner.WorkerProcess, "__init__", start)


@pytest.mark.usefixtures("no_process")
def test_without_a_gpu_nothing_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none_here() -> None:
        raise DeviceError("cuda: got no working NVIDIA driver")

    monkeypatch.setattr(command, "cuda_info", none_here)
    words = ["bench", "core", "--device", "cuda", "--peers", "cupy,torch"]
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert shown.err == "fastconv: cuda: got no working NVIDIA driver\n"
    assert not shown.out


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("missing", "words", "said"),
    [
        ({"cupy"}, [], "--device: cuda needs the module cupy, which is not installed: pip"),
        (set(), ["--peers", "openvino"], "want some of torch, torch_channels_last, cupy on"),
        ({"torch"}, ["--peers", "torch"], "torch needs the module torch"),
    ],
)
def test_with_a_gpu_bad_arguments_are_named(
    missing: set[str],
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "cuda_info", lambda: MODELS["T4"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name not in missing or None)
    assert cli.main(["bench", "core", "--device", "cuda", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_report_names_the_gpu() -> None:
    machine = {
        "gpu": "T4", "compute_capability": [7, 5], "multiprocessors": 40, "threads": 2,
        "peak_gflops": {"float32": 8100.0},
    }  # fmt: skip
    line = report._machine_line(machine)
    assert line.startswith("T4, sm_75, 40 multiprocessors; ")
    assert "L2 flushed" in line and "nominal multiply-add peak: float32 8100 GFLOP/s" in line
