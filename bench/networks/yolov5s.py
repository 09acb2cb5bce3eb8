"""A YOLO-style detector of the size of YOLOv5s (Jocher, 2020, doi:10.5281/zenodo.3908559).

After YOLOv3 (Redmon and Farhadi, 2018, arXiv:1804.02767) with stages of partial connections (Wang
et al., 2019, arXiv:1911.11929), a pyramid up and down again (Liu et al., 2018, arXiv:1803.01534)
and SiLU throughout.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .layers import conv_norm

__all__ = ["build"]

_conv = partial(conv_norm, act=partial(nn.SiLU, inplace=True), eps=1e-3)
_CLASSES, _ANCHORS = 80, 3


class _Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, added to their input if so told."""

    def __init__(self, channels: int, adds: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(_conv(channels, channels), _conv(channels, channels, 3))
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return x + made if self.adds else made


class _Partial(nn.Module):
    """Bottlenecks on half of the channels, the other half past them."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, adds: bool = True) -> None:
        super().__init__()
        half = out_channels // 2
        made = (_Bottleneck(half, adds) for _ in range(blocks))
        self.through = nn.Sequential(_conv(in_channels, half), *made)
        self.past = _conv(in_channels, half)
        self.join = _conv(2 * half, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.join(torch.cat([self.through(x), self.past(x)], 1))
        return made


class _PoolPyramid(nn.Module):
    """Three 5x5 pools in a row, each of whose outputs is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = _conv(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.join = _conv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.narrow(x)]
        for _ in range(3):
            levels.append(self.pool(levels[-1]))
        made: Tensor = self.join(torch.cat(levels, 1))
        return made


class _Detector(nn.Module):
    """The backbone, the pyramid and three heads, at a stride of 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.to_8 = nn.Sequential(
            _conv(3, 32, 6, 2, 2),
            _conv(32, 64, 3, 2),
            _Partial(64, 64, 1),
            _conv(64, 128, 3, 2),
            _Partial(128, 128, 2),
        )
        self.to_16 = nn.Sequential(_conv(128, 256, 3, 2), _Partial(256, 256, 3))
        self.to_32 = nn.Sequential(
            _conv(256, 512, 3, 2), _Partial(512, 512, 1), _PoolPyramid(512), _conv(512, 256)
        )
        self.up = nn.Upsample(scale_factor=2)
        self.up_16 = nn.Sequential(_Partial(512, 256, 1, False), _conv(256, 128))
        self.out_8 = _Partial(256, 128, 1, False)
        self.down_16, self.out_16 = _conv(128, 128, 3, 2), _Partial(256, 256, 1, False)
        self.down_32, self.out_32 = _conv(256, 256, 3, 2), _Partial(512, 512, 1, False)
        values = _ANCHORS * (5 + _CLASSES)
        self.heads = nn.ModuleList(nn.Conv2d(channels, values, 1) for channels in (128, 256, 512))

    def forward(self, x: Tensor) -> Tensor:
        at_8 = self.to_8(x)
        at_16 = self.to_16(at_8)
        at_32 = self.to_32(at_16)
        up_16 = self.up_16(torch.cat([self.up(at_32), at_16], 1))
        out_8 = self.out_8(torch.cat([self.up(up_16), at_8], 1))
        out_16 = self.out_16(torch.cat([self.down_16(out_8), up_16], 1))
        out_32 = self.out_32(torch.cat([self.down_32(out_16), at_32], 1))
        found = [head(out) for head, out in zip(self.heads, (out_8, out_16, out_32), strict=True)]
        return torch.cat([_boxes(each) for each in found], 1)


def _boxes(found: Tensor) -> Tensor:
    """Return a head's logits box by box: ``(N, anchors * height * width, 5 + classes)``."""
    split = torch.unflatten(found, 1, (_ANCHORS, 5 + _CLASSES))
    return split.permute(0, 1, 3, 4, 2).flatten(1, 3)


def build() -> nn.Module:
    """Return the network: 7,235,389 parameters, 80 classes, three boxes a place."""
    return _Detector()
