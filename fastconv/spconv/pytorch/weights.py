"""State dicts of spconv 2 and, on request, of its earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ...contract.errors import ArgumentError, ShapeError
from .convolution import SparseConvolution

__all__ = ["WEIGHT_LAYOUTS", "load_state_dict"]

#: Orders of a weight's axes: K output channels, C input channels, the kernel's R, S, ...
WEIGHT_LAYOUTS = ("KRSC", "RSCK", "RSKC")


def load_state_dict(
    module: nn.Module,
    state_dict: Mapping[str, Any],
    strict: bool = True,
    *,
    weight_layout: str = "KRSC",
) -> Any:
    """Load a state dict whose sparse weights may have another order of axes.

    Parameters
    ----------
    module : nn.Module
        A network of any modules.
    state_dict : mapping of str to torch.Tensor
        It is not changed.
    strict : bool
        As for ``module.load_state_dict``.
    weight_layout : {"KRSC", "RSCK", "RSKC"}
        Order of the weights' axes in the state dict: spconv 2's, spconv 1's, or that of spconv
        2.1's native algorithm.

    Returns
    -------
    What ``module.load_state_dict`` returns.

    Raises
    ------
    ShapeError
        For a weight of another shape than the layer's in that order.

    Examples
    --------
    >>> from fastconv.spconv.pytorch import SubMConv3d
    >>> layer, state = SubMConv3d(4, 16, 3, bias=False), {"weight": torch.ones(3, 3, 3, 4, 16)}
    >>> load_state_dict(layer, state, weight_layout="RSCK")
    <All keys matched successfully>
    """
    if weight_layout not in WEIGHT_LAYOUTS:
        wanted = ", ".join(map(repr, WEIGHT_LAYOUTS))
        raise ArgumentError(f"weight_layout: got {weight_layout!r}, want one of {wanted}")
    state = dict(state_dict)
    if weight_layout != "KRSC":
        for name, layer in module.named_modules():
            key = f"{name}.weight" if name else "weight"
            if isinstance(layer, SparseConvolution) and key in state:
                state[key] = _in_krsc(layer, key, state[key], weight_layout)
    return module.load_state_dict(state, strict)


def _in_krsc(
    layer: SparseConvolution, key: str, weight: torch.Tensor, weight_layout: str
) -> torch.Tensor:
    """Return a weight in the order that a layer keeps it in."""
    filters, *kernel, channels = layer.weight.shape
    last = (channels, filters) if weight_layout == "RSCK" else (filters, channels)
    if tuple(weight.shape) != (*kernel, *last):
        raise ShapeError(
            f"{key}: got shape {tuple(weight.shape)}, want {(*kernel, *last)} in the order "
            f"{weight_layout}"
        )
    axes = range(layer.ndim)
    if weight_layout == "RSCK":
        if layer.conv1x1:  # such a layer reads its weight as (C, K) anyway
            return weight.reshape(layer.weight.shape)
        return weight.permute(layer.ndim + 1, *axes, layer.ndim).contiguous()
    return weight.permute(layer.ndim, *axes, layer.ndim + 1).contiguous()
