"""U-Net (Ronneberger et al., 2015, arXiv:1505.04597), half as wide, padded, with batch norms.

In this form, one class of pixels in colour images, it segments brain scans (Buda et al., 2019,
arXiv:1906.03720).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import conv_norm

__all__ = ["build"]

#: Channels of each level, the widest at the bottom.
_LEVELS = (32, 64, 128, 256, 512)


def _double(in_channels: int, channels: int) -> nn.Module:
    return nn.Sequential(conv_norm(in_channels, channels, 3), conv_norm(channels, channels, 3))


class _UNet(nn.Module):
    """Down by pools and up by transposed convolutions, each level handed across."""

    def __init__(self) -> None:
        super().__init__()
        before = (3, *_LEVELS)
        self.down = nn.ModuleList(
            _double(above, here) for above, here in zip(before, _LEVELS, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.rise, self.up = nn.ModuleList(), nn.ModuleList()
        for below, here in zip(_LEVELS[:0:-1], _LEVELS[-2::-1], strict=True):
            self.rise.append(nn.ConvTranspose2d(below, here, 2, 2))
            self.up.append(_double(2 * here, here))
        self.head = nn.Conv2d(_LEVELS[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        across = []
        for level in self.down[:-1]:
            across.append(level(x))
            x = self.pool(across[-1])
        x = self.down[-1](x)
        for rise, level in zip(self.rise, self.up, strict=True):
            x = level(torch.cat([rise(x), across.pop()], 1))
        made: Tensor = self.head(x)
        return made


def build() -> nn.Module:
    """Return the network: 7,763,041 parameters, one map of logits of the input's size."""
    return _UNet()
