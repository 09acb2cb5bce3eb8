"""Classes that modules of a model get in the place of PyTorch's: the same, but for `forward`.

Nothing else of a module changes, so a model's structure, its parameters and the keys of its state
stay what they were.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..contract.errors import FastconvError
from . import pooling
from .packing import Pack

__all__ = ["SWAPPED"]

Tensor = torch.Tensor


class _Packed(nn.Module):
    """A layer whose weight is packed once."""

    def forward(self, input: Tensor, *sizes: Any, **more: Any) -> Any:
        """Compute the layer; PyTorch does where the output's size is told."""
        if sizes or more:
            return super().forward(input, *sizes, **more)
        pack = self.__dict__.get("_fastconv_pack")
        if pack is None or pack.layer is not self:
            pack = self.__dict__["_fastconv_pack"] = Pack(self)
        return pack(input)


class PackedConv1d(_Packed, nn.Conv1d):
    """A `torch.nn.Conv1d` whose weight is packed once."""


class PackedConv2d(_Packed, nn.Conv2d):
    """A `torch.nn.Conv2d` whose weight is packed once."""


class PackedConv3d(_Packed, nn.Conv3d):
    """A `torch.nn.Conv3d` whose weight is packed once."""


class PackedConvTranspose1d(_Packed, nn.ConvTranspose1d):
    """A `torch.nn.ConvTranspose1d` whose weight is packed once."""


class PackedConvTranspose2d(_Packed, nn.ConvTranspose2d):
    """A `torch.nn.ConvTranspose2d` whose weight is packed once."""


class PackedConvTranspose3d(_Packed, nn.ConvTranspose3d):
    """A `torch.nn.ConvTranspose3d` whose weight is packed once."""


class PackedLinear(_Packed, nn.Linear):
    """A `torch.nn.Linear` whose weight is packed once."""


class _Pool(nn.Module):
    """A pool that is fastconv's, but for what it does not support."""

    _function: Any
    _names: tuple[str, ...]

    def forward(self, input: Tensor) -> Any:
        """Compute the pool."""
        told = {name: getattr(self, name) for name in self._names}
        try:
            return self._function(input, **told)
        except FastconvError:  # raised before anything is computed
            return super().forward(input)


def _pool(kind: type[nn.Module], function: str, *names: str) -> type[nn.Module]:
    """Return the class of pools of a kind, with the arguments of the function by their names."""
    members = {
        "_function": staticmethod(getattr(pooling, function)),
        "_names": names,
        "__module__": __name__,
        "__doc__": f"A `torch.nn.{kind.__name__}` on fastconv's kernels.",
    }
    return type(f"Fast{kind.__name__}", (_Pool, kind), members)


_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_MEAN = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_NORM = ("norm_type", "kernel_size", "stride", "ceil_mode")
_KINDS: dict[str, tuple[str, ...]] = {
    **{f"MaxPool{n}d": ("max_pool{}d", *_MAX) for n in (1, 2, 3)},
    "AvgPool1d": ("avg_pool{}d", *_MEAN),
    **{f"AvgPool{n}d": ("avg_pool{}d", *_MEAN, "divisor_override") for n in (2, 3)},
    **{f"LPPool{n}d": ("lp_pool{}d", *_NORM) for n in (1, 2, 3)},
    **{f"AdaptiveAvgPool{n}d": ("adaptive_avg_pool{}d", "output_size") for n in (1, 2, 3)},
    **{
        f"AdaptiveMaxPool{n}d": ("adaptive_max_pool{}d", "output_size", "return_indices")
        for n in (1, 2, 3)
    },
}
_POOLS: dict[type[nn.Module], type[nn.Module]] = {
    getattr(nn, name): _pool(getattr(nn, name), function.format(name[-2]), *names)
    for name, (function, *names) in _KINDS.items()
}
# Where a pickle finds them.
globals().update({kind.__name__: kind for kind in _POOLS.values()})

#: The class that a module of PyTorch's class gets.
SWAPPED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: PackedConv1d,
    nn.Conv2d: PackedConv2d,
    nn.Conv3d: PackedConv3d,
    nn.ConvTranspose1d: PackedConvTranspose1d,
    nn.ConvTranspose2d: PackedConvTranspose2d,
    nn.ConvTranspose3d: PackedConvTranspose3d,
    nn.Linear: PackedLinear,
    **_POOLS,
}
