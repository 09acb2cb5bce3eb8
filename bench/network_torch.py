"""PyTorch's columns of networks: eager and compiled, in both memory formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .network import NetworkRun
from .networks import build
from .peer import Call, Peer

__all__ = [
    "NetworkTorch",
    "NetworkTorchChannelsLast",
    "NetworkTorchCompile",
    "NetworkTorchCompileChannelsLast",
    "built",
    "declines_onnx",
    "inferring",
]


def declines_onnx(run: NetworkRun) -> str | None:
    """Return the sentence that says why PyTorch has no figure on a model of ONNX."""
    return "PyTorch does not read ONNX models" if run.is_onnx else None


def built(run: NetworkRun) -> Any:
    """Return the row's module; its weights are the same in every process."""
    return build(run.name)


def inferring(network: Any, given: Any) -> Call:
    """Return the call of a module as those do who only want its output."""
    import torch

    def call() -> Any:
        with torch.inference_mode():
            return network(given)

    return call


class NetworkTorch(Peer):
    """The module as it is."""

    name = "torch"
    modules: ClassVar[tuple[str, ...]] = ("torch",)
    distribution = "torch"
    #: A whole network is made and packed.
    setup_seconds = 120.0
    channels_last: ClassVar[bool] = False

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import torch

        torch.set_num_threads(threads)

    @classmethod
    def declines(cls, run: NetworkRun) -> str | None:
        """Return why ONNX's own networks have no figure."""
        return declines_onnx(run)

    def prepare(self, run: NetworkRun, x: np.ndarray, file: Path) -> Call:
        """Return the module's call on a tensor in its memory format."""
        import torch

        network, given = built(run), torch.from_numpy(x)
        if self.channels_last:
            network = network.to(memory_format=torch.channels_last)
            given = given.contiguous(memory_format=torch.channels_last)
        return inferring(self.made_ready(network), given)

    def made_ready(self, network: Any) -> Any:
        """Return what is called."""
        return network

    def to_numpy(self, run: NetworkRun, result: Any) -> np.ndarray:
        """Return the tensor's values."""
        array: np.ndarray = result.numpy()
        return array


class NetworkTorchChannelsLast(NetworkTorch):
    """The module and its input in PyTorch's channels-last memory format."""

    name = "torch_channels_last"
    channels_last = True


class NetworkTorchCompile(NetworkTorch):
    """``torch.compile`` of the module, its weights frozen to constants that may be packed."""

    name = "torch_compile"
    #: C++ that it writes is compiled.
    setup_seconds = 600.0

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import torch._dynamo
        import torch._inductor.compile_fx
        import torch._inductor.config

        torch._inductor.config.freezing = True

    def made_ready(self, network: Any) -> Any:
        """Return the compiled module; its first call compiles."""
        import torch

        return torch.compile(network)


class NetworkTorchCompileChannelsLast(NetworkTorchCompile):
    """The same in the channels-last memory format."""

    name = "torch_compile_channels_last"
    channels_last = True
