"""ConvNeXt-T (Liu et al., 2022, arXiv:2201.03545): 7x7 depthwise convolutions and layer norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["build"]

#: Channels and blocks of each stage.
_STAGES = ((96, 3), (192, 3), (384, 9), (768, 3))
_EPS = 1e-6


class _ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of each pixel, of an input in PyTorch's order of axes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """A depthwise convolution, and two layers a pixel on axes of which channels are the last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, _EPS)
        self.widen = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.narrow = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        made = self.norm(self.filter(x).permute(0, 2, 3, 1))
        made = self.scale * self.narrow(self.act(self.widen(made)))
        moved: Tensor = made.permute(0, 3, 1, 2)
        return x + moved


def build() -> nn.Module:
    """Return the network: 28,589,128 parameters, 1000 classes."""
    channels = _STAGES[0][0]
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, 4), _ChannelNorm(channels, _EPS)]
    for out_channels, blocks in _STAGES:
        if out_channels != channels:
            layers += [_ChannelNorm(channels, _EPS), nn.Conv2d(channels, out_channels, 2, 2)]
            channels = out_channels
        layers += [_Block(channels) for _ in range(blocks)]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(channels, _EPS))
    return nn.Sequential(*layers, *head, nn.Linear(channels, 1000))
