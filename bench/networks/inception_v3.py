"""Inception v3 (Szegedy et al., 2015, arXiv:1512.00567): branches of factorised convolutions."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .layers import conv_norm

__all__ = ["build"]

_conv = partial(conv_norm, eps=1e-3)


class _Branches(nn.Module):
    """Branches beside each other, their channels one after the other."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _pooled(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(3, 1, 1), _conv(in_channels, out_channels))


def _block_35(in_channels: int, pooled: int) -> nn.Module:
    """Return a block of 5x5 and doubled 3x3 convolutions, for 35x35 pixels."""
    return _Branches(
        _conv(in_channels, 64),
        nn.Sequential(_conv(in_channels, 48), _conv(48, 64, 5)),
        nn.Sequential(_conv(in_channels, 64), _conv(64, 96, 3), _conv(96, 96, 3)),
        _pooled(in_channels, pooled),
    )


def _to_17() -> nn.Module:
    """Return the block that halves 35x35 pixels."""
    return _Branches(
        _conv(288, 384, 3, 2, 0),
        nn.Sequential(_conv(288, 64), _conv(64, 96, 3), _conv(96, 96, 3, 2, 0)),
        nn.MaxPool2d(3, 2),
    )


def _block_17(channels: int) -> nn.Module:
    """Return a block of 1x7 and 7x1 convolutions, for 17x17 pixels."""
    row, column = (1, 7), (7, 1)
    return _Branches(
        _conv(768, 192),
        nn.Sequential(
            _conv(768, channels), _conv(channels, channels, row), _conv(channels, 192, column)
        ),
        nn.Sequential(
            _conv(768, channels),
            _conv(channels, channels, column),
            _conv(channels, channels, row),
            _conv(channels, channels, column),
            _conv(channels, 192, row),
        ),
        _pooled(768, 192),
    )


def _to_8() -> nn.Module:
    """Return the block that halves 17x17 pixels."""
    return _Branches(
        nn.Sequential(_conv(768, 192), _conv(192, 320, 3, 2, 0)),
        nn.Sequential(
            _conv(768, 192),
            _conv(192, 192, (1, 7)),
            _conv(192, 192, (7, 1)),
            _conv(192, 192, 3, 2, 0),
        ),
        nn.MaxPool2d(3, 2),
    )


def _block_8(in_channels: int) -> nn.Module:
    """Return a block whose 3x3 convolutions are 1x3 and 3x1 beside each other, for 8x8 pixels."""

    def split() -> nn.Module:
        return _Branches(_conv(384, 384, (1, 3)), _conv(384, 384, (3, 1)))

    return _Branches(
        _conv(in_channels, 320),
        nn.Sequential(_conv(in_channels, 384), split()),
        nn.Sequential(_conv(in_channels, 448), _conv(448, 384, 3), split()),
        _pooled(in_channels, 192),
    )


def build() -> nn.Module:
    """Return the network without its auxiliary head: 23,834,568 parameters, 1000 classes."""
    return nn.Sequential(
        _conv(3, 32, 3, 2, 0),
        _conv(32, 32, 3, 1, 0),
        _conv(32, 64, 3),
        nn.MaxPool2d(3, 2),
        _conv(64, 80),
        _conv(80, 192, 3, 1, 0),
        nn.MaxPool2d(3, 2),
        _block_35(192, 32),
        _block_35(256, 64),
        _block_35(288, 64),
        _to_17(),
        *(_block_17(channels) for channels in (128, 160, 160, 192)),
        _to_8(),
        _block_8(1280),
        _block_8(2048),
        nn.AdaptiveAvgPool2d(1),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(2048, 1000),
    )
