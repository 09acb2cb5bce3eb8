"""Columns of networks: fastconv's own, PyTorch's, and libraries that are given an ONNX model.

Each is timed on the batch that a row tells, and gets the model of a network that is written for
PyTorch from ``torch.onnx.export``.
"""

from __future__ import annotations

import os
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .ncnn_peer import set_options
from .network import NetworkRun
from .network_own import NetworkFastconv, NetworkFastconvTorch, require_model
from .network_torch import (
    NetworkTorch,
    NetworkTorchChannelsLast,
    NetworkTorchCompile,
    NetworkTorchCompileChannelsLast,
)
from .peer import Call, Peer, Refusal

__all__ = ["NETWORK_PEERS", "NETWORK_RIVALS"]


class NetworkOnnxRuntime(Peer):
    """A session of ONNX Runtime on its CPU provider."""

    name = "onnxruntime"
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")
    distribution = "onnxruntime"
    setup_seconds = 120.0

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)

    def prepare(self, run: NetworkRun, x: np.ndarray, file: Path) -> Call:
        """Build a session; the call is ``session.run``."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            require_model(file), options, providers=["CPUExecutionProvider"]
        )
        feed = {session.get_inputs()[0].name: x}
        return lambda: session.run(None, feed)[0]

    def to_numpy(self, run: NetworkRun, result: Any) -> np.ndarray:
        """Return the output as it is."""
        array: np.ndarray = result
        return array


class NetworkOpenVino(Peer):
    """OpenVINO's CPU plugin, told to compute in float32."""

    name = "openvino"
    modules: ClassVar[tuple[str, ...]] = ("openvino", "onnx")
    distribution = "openvino"
    setup_seconds = 120.0

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import openvino

        self._core = openvino.Core()

    def prepare(self, run: NetworkRun, x: np.ndarray, file: Path) -> Call:
        """Compile the model; the call is one inference on a tensor that shares x's memory."""
        import openvino

        compiled = self._core.compile_model(
            self._core.read_model(require_model(file)),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": self.threads,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

        def call(_held: np.ndarray = x) -> Any:  # the request does not hold x's memory
            request.infer()
            return request.get_output_tensor().data

        return call

    def to_numpy(self, run: NetworkRun, result: Any) -> np.ndarray:
        """Return the output, copied: the next call writes over it."""
        return np.array(result)


class NetworkNcnn(Peer):
    """A net of ncnn, which pnnx makes of the ONNX model."""

    name = "ncnn"
    modules: ClassVar[tuple[str, ...]] = ("ncnn", "pnnx", "onnx")
    distribution = "ncnn"
    setup_seconds = 120.0
    note = "ncnn: pnnx turns the ONNX model into ncnn's own; one image at a time"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import ncnn

        self._program: str = import_module("pnnx").EXEC_PATH
        self._net = ncnn.Net()
        set_options(self._net.opt, threads)

    @classmethod
    def declines(cls, run: NetworkRun) -> str | None:
        """Return why a batch has no figure."""
        return "ncnn computes one image at a time" if run.batch > 1 else None

    def prepare(self, run: NetworkRun, x: np.ndarray, file: Path) -> Call:
        """Convert and load the model; the call is one extractor's, from the image to the output."""
        import ncnn

        _convert(self._program, require_model(file), run)
        made = [file.with_suffix(f".ncnn.{part}") for part in ("param", "bin")]
        net = self._net
        if net.load_param(str(made[0])) or net.load_model(str(made[1])):
            raise Refusal("ncnn does not load what pnnx made of the model")
        (given,), (wanted,) = net.input_names(), net.output_names()
        # A copy, as a Mat on an array's memory neither holds the array nor aligns its channels.
        image = ncnn.Mat(x[0]).clone()

        def call() -> Any:
            extractor = net.create_extractor()
            extractor.input(given, image)
            code, result = extractor.extract(wanted)
            if code:
                raise RuntimeError(f"ncnn's extract returned {code}")
            return result

        return call

    def to_numpy(self, run: NetworkRun, result: Any) -> np.ndarray:
        """Return the output with the axis of the batch, which ncnn has not."""
        return np.array(result)[None]


def _convert(program: str, file: str, run: NetworkRun) -> None:
    """Have pnnx write ncnn's form of a model beside it, with weights in float32."""
    shape = ",".join(map(str, run.x_shape))
    words = [program, file, f"inputshape=[{shape}]", "fp16=0"]
    done = subprocess.run(
        words, cwd=os.path.dirname(file), capture_output=True, text=True, check=False
    )
    if done.returncode or not Path(file).with_suffix(".ncnn.param").exists():
        said = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
        raise Refusal(f"pnnx does not convert the model: {said[:200]}")


_TORCH: tuple[type[Peer], ...] = (
    NetworkTorch,
    NetworkTorchChannelsLast,
    NetworkTorchCompile,
    NetworkTorchCompileChannelsLast,
)
_ONNX: tuple[type[Peer], ...] = (NetworkOnnxRuntime, NetworkOpenVino, NetworkNcnn)

_OWN: tuple[type[Peer], ...] = (NetworkFastconv, NetworkFastconvTorch)

NETWORK_PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (*_OWN, *_TORCH, *_ONNX)}
#: What each of fastconv's columns is held against: what is given the same form of a network.
NETWORK_RIVALS: dict[str, tuple[str, ...]] = {
    NetworkFastconv.name: tuple(peer.name for peer in _ONNX),
    NetworkFastconvTorch.name: tuple(peer.name for peer in _TORCH),
}
