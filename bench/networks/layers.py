"""The layer that most networks are made of: a convolution, its batch norm and an activation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

__all__ = ["conv_norm"]

_Size = int | tuple[int, int]
_relu = partial(nn.ReLU, inplace=True)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: _Size = 1,
    stride: int = 1,
    padding: _Size | None = None,
    groups: int = 1,
    act: Callable[[], nn.Module] | None = _relu,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Return a convolution without bias, a batch norm and an activation.

    Parameters
    ----------
    in_channels, out_channels, kernel, stride, groups
        Of the convolution.
    padding : int or pair, optional
        Half the kernel where it is not given, which keeps the size at stride 1.
    act : callable or None
        Makes the activation.
    eps : float
        Of the batch norm.
    """
    if padding is None:
        padding = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(out_channels, eps)]
    return nn.Sequential(*layers, *([act()] if act else []))
