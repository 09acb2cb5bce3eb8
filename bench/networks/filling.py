"""Random weights for networks of PyTorch, drawn in place.

PyTorch's own first weights let the values of a deep network fade until its output is little more
than the last bias, which proves nothing about the layers before. These keep their size, and give
batch norms statistics of their own, so that an output tells of every layer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["fill"]


def fill(network: nn.Module, seed: int) -> nn.Module:
    """Draw every parameter and every running statistic of a network, and return it.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place.
    seed : int
        Of the generator.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            transposed = isinstance(module, nn.ConvTranspose2d)
            statistics = (
                (name, each)
                for name, each in module.named_buffers(recurse=False)
                if name.startswith("running_")
            )
            for name, values in (*module.named_parameters(recurse=False), *statistics):
                _draw(name, values, transposed, generator)
    return network


def _draw(name: str, values: Tensor, transposed: bool, generator: torch.Generator) -> None:
    if values.ndim > 1:
        # A transposed convolution whose kernel is its stride sums over its input's channels alone.
        terms = values.shape[0] if transposed else math.prod(values.shape[1:])
        values.normal_(0, math.sqrt(2 / terms), generator=generator)
    elif name in ("bias", "running_mean"):
        values.normal_(0, 0.1, generator=generator)
    else:  # of norms, layer scales and running variances
        values.uniform_(0.5, 1.5, generator=generator)
