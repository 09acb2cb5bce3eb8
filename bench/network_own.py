"""fastconv's own columns of networks: a session of the ONNX model, and an optimized module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .network import NetworkRun
from .network_torch import built, declines_onnx, inferring
from .own import Fastconv
from .peer import Call, Refusal

__all__ = ["NetworkFastconv", "NetworkFastconvTorch", "require_model"]


def require_model(file: Path) -> str:
    """Return the path of a row's ONNX model, or raise with the sentence that says why not."""
    if not file.exists():
        raise Refusal(f"torch.onnx.export: {file.with_suffix('.txt').read_text()}")
    return str(file)


class _Loaded(Fastconv):
    """fastconv with Numba in memory before a row's own is counted."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import fastconv

        fastconv.conv2d(np.zeros((1, 1, 4, 4), np.float32), np.zeros((1, 1, 3, 3), np.float32))

    def kernel(self, run: NetworkRun) -> str | None:
        """Return None: a network has many."""
        return None


class NetworkFastconv(_Loaded):
    """``fastconv.onnx.InferenceSession`` on a network's ONNX model."""

    modules = ("fastconv", "onnx")

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import fastconv.onnx

        self._session = fastconv.onnx.InferenceSession

    def prepare(self, run: NetworkRun, x: np.ndarray, file: Path) -> Call:
        """Build a session; the call is ``session.run``."""
        session = self._session(require_model(file))
        feed = {session.get_inputs()[0].name: x}
        for _ in range(2):  # the second makes the list of jobs that later ones run
            session.run(None, feed)
        return lambda: session.run(None, feed)[0]

    def to_numpy(self, run: NetworkRun, result: Any) -> np.ndarray:
        """Return the output as it is."""
        array: np.ndarray = result
        return array


class NetworkFastconvTorch(_Loaded):
    """``fastconv.torch.optimize`` of a network that is written for PyTorch."""

    name = "fastconv_torch"
    modules = ("fastconv", "torch")

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import torch

        import fastconv.torch

        torch.set_num_threads(threads)
        self._optimize = fastconv.torch.optimize

    @classmethod
    def declines(cls, run: NetworkRun) -> str | None:
        """Return why ONNX's own networks have no figure."""
        return declines_onnx(run)

    def prepare(self, run: NetworkRun, x: np.ndarray, file: Path) -> Call:
        """Optimize the module; the call is ``module(x)``."""
        import torch

        return inferring(self._optimize(built(run)), torch.from_numpy(x))

    def to_numpy(self, run: NetworkRun, result: Any) -> np.ndarray:
        """Return the tensor's values."""
        array: np.ndarray = result.numpy()
        return array
