"""Xception (Chollet, 2016, arXiv:1610.02357): depthwise separable convolutions and shortcuts."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from .layers import conv_norm

__all__ = ["build"]


def _separable(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Return a depthwise and a 1x1 convolution, and the batch norm behind them."""
    return [
        nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    ]


class _Block(nn.Module):
    """Separable convolutions beside a shortcut; a pool and a strided shortcut where it halves."""

    def __init__(self, channels: tuple[int, ...], halves: bool, starts_with_relu: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            if layers or starts_with_relu:
                # The shortcut takes the first of these values as they are: not in place.
                layers.append(nn.ReLU())
            layers += _separable(before, after)
        self.shortcut: nn.Module = nn.Identity()
        if halves:
            layers.append(nn.MaxPool2d(3, 2, 1))
            self.shortcut = conv_norm(channels[0], channels[-1], 1, 2, act=None)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x) + self.shortcut(x)
        return made


def build() -> nn.Module:
    """Return the network: 22,855,952 parameters, 1000 classes."""
    return nn.Sequential(
        conv_norm(3, 32, 3, 2, 0),
        conv_norm(32, 64, 3, 1, 0),
        _Block((64, 128, 128), True, False),
        _Block((128, 256, 256), True, True),
        _Block((256, 728, 728), True, True),
        *(_Block((728, 728, 728, 728), False, True) for _ in range(8)),
        _Block((728, 728, 1024), True, True),
        *_separable(1024, 1536),
        nn.ReLU(inplace=True),
        *_separable(1536, 2048),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2048, 1000),
    )
