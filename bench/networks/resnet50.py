"""ResNet-50 (He et al., 2015, arXiv:1512.03385), strides in the 3x3 convolutions as mostly run."""

from __future__ import annotations

from torch import Tensor, nn

from .layers import conv_norm

__all__ = ["build"]

#: Channels of the 3x3 convolutions and blocks of each stage.
_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
_WIDENING = 4


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, and one activation behind their sum."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * _WIDENING
        self.layers = nn.Sequential(
            conv_norm(in_channels, channels),
            conv_norm(channels, channels, 3, stride),
            conv_norm(channels, out_channels, act=None),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = conv_norm(in_channels, out_channels, 1, stride, act=None)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.act(self.layers(x) + self.shortcut(x))
        return made


def build() -> nn.Module:
    """Return the network: 25,557,032 parameters, 1000 classes."""
    layers: list[nn.Module] = [conv_norm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    in_channels = 64
    for channels, blocks in _STAGES:
        for index in range(blocks):
            stride = 2 if index == 0 and channels > 64 else 1
            layers.append(_Bottleneck(in_channels, channels, stride))
            in_channels = channels * _WIDENING
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, 1000))
    return nn.Sequential(*layers, *head)
