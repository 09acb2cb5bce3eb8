"""VGG-19 (Simonyan and Zisserman, 2014, arXiv:1409.1556, column E): 3x3 convolutions alone."""

from __future__ import annotations

from torch import nn

__all__ = ["build"]

#: Channels and convolutions between two pools.
_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


def build() -> nn.Module:
    """Return the network: 143,667,240 parameters, 1000 classes, for 224x224 pixels."""
    layers: list[nn.Module] = []
    channels = 3
    for out_channels, convolutions in _STAGES:
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)]
            channels = out_channels
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    features = channels * 7 * 7
    for _ in range(2):
        layers += [nn.Linear(features, 4096), nn.ReLU(inplace=True), nn.Dropout()]
        features = 4096
    return nn.Sequential(*layers, nn.Linear(features, 1000))
