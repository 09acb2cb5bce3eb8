"""Whole networks for ``python -m fastconv bench networks``, with random weights from a seed.

Nine are models that the ``onnx`` package ships, and nine are written here for PyTorch, each in a
module of its own with a function ``build``. PyTorch and ``onnx`` are imported when a network is
made, not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["INPUTS", "ONNX_PREFIX", "build"]

#: What the names of ONNX's own models begin with, and the names of their files.
ONNX_PREFIX = "light_"

#: By name, the channels, height and width of a network's input: PyTorch's by module, then ONNX's.
INPUTS: dict[str, tuple[int, int, int]] = {
    "convnext_tiny": (3, 224, 224),
    "inception_v3": (3, 299, 299),
    "mobilenet_v1": (3, 224, 224),
    "mobilenet_v2": (3, 224, 224),
    "resnet50": (3, 224, 224),
    "unet": (3, 256, 256),
    "vgg19": (3, 224, 224),
    "xception": (3, 299, 299),
    "yolov5s": (3, 640, 640),
    "light_bvlc_alexnet": (3, 224, 224),
    "light_densenet121": (3, 224, 224),
    "light_inception_v1": (3, 224, 224),
    "light_inception_v2": (3, 224, 224),
    "light_resnet50": (3, 224, 224),
    "light_shufflenet": (3, 224, 224),
    "light_squeezenet": (3, 224, 224),
    "light_vgg19": (3, 224, 224),
    "light_zfnet512": (3, 224, 224),
}


def build(name: str, seed: int = 0) -> nn.Module:
    """Return a network of PyTorch in eval mode, its weights drawn from a seed.

    Parameters
    ----------
    name : str
        A key of `INPUTS` without the prefix of ONNX's own models.
    seed : int
        Seed of the weights.

    Returns
    -------
    torch.nn.Module
        It takes a float32 tensor of shape ``(N, *INPUTS[name])`` and returns one tensor.
    """
    fill = import_module(f"{__name__}.filling").fill
    network: nn.Module = fill(import_module(f"{__name__}.{name}").build(), seed)
    return network.eval()
