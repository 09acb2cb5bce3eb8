"""MobileNet v2 (Sandler et al., 2018, arXiv:1801.04381): inverted residuals, narrow at the ends."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from .layers import conv_norm

__all__ = ["build"]

_relu6 = partial(nn.ReLU6, inplace=True)
#: Expansion, output channels, blocks and the first block's stride of each stage.
_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


class _InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow again without an activation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        layers = [conv_norm(in_channels, wide, act=_relu6)] if expansion > 1 else []
        layers.append(conv_norm(wide, wide, 3, stride, groups=wide, act=_relu6))
        layers.append(conv_norm(wide, out_channels, act=None))
        self.layers = nn.Sequential(*layers)
        self.keeps = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return x + made if self.keeps else made


def build() -> nn.Module:
    """Return the network of width 1: 3,504,872 parameters, 1000 classes."""
    layers: list[nn.Module] = [conv_norm(3, 32, 3, 2, act=_relu6)]
    channels = 32
    for expansion, out_channels, blocks, stride in _STAGES:
        for index in range(blocks):
            step = stride if index == 0 else 1
            layers.append(_InvertedResidual(channels, out_channels, step, expansion))
            channels = out_channels
    layers.append(conv_norm(channels, 1280, act=_relu6))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 1000))
    return nn.Sequential(*layers, *head)
