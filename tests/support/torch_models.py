"""Small networks of PyTorch, shaped as well-known ones, for tests of what optimises them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A residual block, as in ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        down = nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        self.down = nn.Sequential(*down) if stride > 1 else nn.Identity()

    def forward(self, x: Any) -> Any:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.down(x)
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 5, 2, 2, bias=False), nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Block(8, 8), Block(8, 16, 2))
        self.drop, self.last = nn.Dropout(), nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = self.blocks(self.pool(F.relu(self.norm(self.stem(x)))))
        return self.last(self.drop(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)))


class Branching(Residual):
    """Cannot be traced: what is computed depends on the input's values."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.PReLU(8), nn.Tanh())

    def forward(self, x: Any) -> Any:
        x = self.norm(self.stem(x))
        return self.tail(x) if x.sum() > 0 else self.tail(-x)


class Bottlenecks(Residual):
    """Ends blocks without an activation, as MobileNet v2 does: a layer reads a layer's norm."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16),
            nn.ReLU6(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 16, 1), nn.ReLU6(),
        )  # fmt: skip


class Hourglass(nn.Module):
    """Goes down and up again, beside what it was, as a U-Net does."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2))
        self.deep = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, padding_mode="reflect"), nn.BatchNorm2d(8),
            nn.Hardswish(), nn.Conv2d(8, 16, 1), nn.ELU(0.5),
        )  # fmt: skip
        self.up, self.norm = nn.ConvTranspose2d(16, 8, 4, 2, 1, groups=4), nn.BatchNorm2d(8)
        self.act, self.last = nn.PReLU(8), nn.Conv2d(11, 2, 1)

    def forward(self, x: Any) -> Any:
        up = self.act(self.norm(self.up(self.deep(self.down(x)))))
        return self.last(torch.cat([up, x], 1)).sigmoid()


def model_of(kind: Any, *args: Any) -> Any:
    torch.manual_seed(0)
    model = kind(*args).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model


def same(made: Any, wanted: Any) -> None:
    torch.testing.assert_close(made, wanted, rtol=2e-4, atol=2e-4)
