"""MobileNet v1 (Howard et al., 2017, arXiv:1704.04861): depthwise and 1x1 convolutions in turn."""

from __future__ import annotations

from torch import nn

from .layers import conv_norm

__all__ = ["build"]

#: Output channels and stride of each pair.
_PAIRS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *(((512, 1),) * 5), (1024, 2),
    (1024, 1),
)  # fmt: skip


def build() -> nn.Module:
    """Return the network of width 1: 4,231,976 parameters, 1000 classes."""
    layers, channels = [conv_norm(3, 32, 3, 2)], 32
    for out_channels, stride in _PAIRS:
        layers.append(conv_norm(channels, channels, 3, stride, groups=channels))
        layers.append(conv_norm(channels, out_channels))
        channels = out_channels
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))
    return nn.Sequential(*layers, *head)
