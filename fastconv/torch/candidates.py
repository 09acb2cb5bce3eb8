"""Which modules may be swapped or fused, and the reason where one may not."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .modules import SWAPPED
from .packing import NORMS, PRODUCTS, Activation, activation_of

__all__ = [
    "has_hooks",
    "product_axes",
    "why_apart",
    "why_not_activated",
    "why_not_folded",
    "why_not_swapped",
]

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
#: What hands its input on in evaluation, and leaves nothing to compute.
_IDLE = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)  # fmt: skip
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def has_hooks(module: nn.Module) -> bool:
    """Tell whether something else is called whenever the module is."""
    return any(getattr(module, name, None) for name in _HOOKS)


def why_not_swapped(module: nn.Module) -> str:
    """Return why a module stays PyTorch's; "" where fastconv may compute it."""
    kind = type(module)
    ours = kind in SWAPPED.values()
    if not ours and kind not in SWAPPED:
        like = next((each.__name__ for each in SWAPPED if isinstance(module, each)), "")
        if like:
            return f"{kind.__name__} is no plain {like}, and may compute something else"
        if kind in _IDLE:
            return f"{kind.__name__} hands its input on, there is nothing to compute"
        return f"fastconv has no layer for {kind.__name__}"
    if has_hooks(module):
        return "hooks are called with it"
    if "forward" in module.__dict__:
        return "its forward was replaced"
    return "" if ours else _why_not_computed(module)


def _why_not_computed(module: nn.Module) -> str:
    """Return why fastconv cannot compute with a module's tensors, or as it says."""
    for name, tensor in module.named_parameters(recurse=False):
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            return f"its {name} is a {tensor.layout} tensor on {tensor.device}"
        if tensor.dtype not in _DTYPES:
            return f"its {name} is of {tensor.dtype}"
        if tensor.numel() == 0:
            return f"its {name} is empty"
    return ""


def product_axes(module: nn.Module) -> int | None:
    """Return the spatial axes of a convolution, 0 of a dense layer; None of other modules."""
    for kind in PRODUCTS:
        if isinstance(module, kind):
            return 0 if kind is nn.Linear else int(kind.__name__[-2])
    return None


def why_not_folded(norm: nn.Module, layer: nn.Module | None) -> str:
    """Return why a norm is not folded into the layer before it; "" where it may be."""
    given: Any = norm
    if type(norm) not in NORMS:
        return f"a {type(norm).__name__} does not fold into weights"
    if has_hooks(norm) or "forward" in norm.__dict__:
        return "hooks are called with it"
    if given.running_mean is None or given.running_var is None:
        return "it takes its statistics from the input"
    axes = None if layer is None else product_axes(layer)
    if layer is None or axes is None:
        return "no convolution is right before it"
    if axes == 0:
        return "after a dense layer it may normalise along another axis than that of the outputs"
    if axes != NORMS[type(norm)]:
        return f"the layer before it has {axes} spatial axes"
    of: Any = layer
    channels = of.out_channels
    if given.num_features != channels:
        return f"it has {given.num_features} channels, the layer before it {channels}"
    return _why_not_computed(norm)


def why_apart(module: nn.Module, before: nn.Module | str, readers: int) -> str:
    """Return why a norm or an activation is not joined with what was computed before it.

    Parameters
    ----------
    module : Module
        The norm, or the activation.
    before : Module or str
        What made its input; a word for it where that was no module.
    readers : int
        How many read that input.
    """
    if isinstance(before, str) or product_axes(before) is None:
        found = before if isinstance(before, str) else _name(before)
        return f"its input comes from {found}, which takes in nothing"
    if reason := why_not_swapped(before):
        return f"the {_name(before)} before it is left: {reason}"
    if readers > 1:
        return f"{readers} read the output of the {_name(before)} before it"
    if type(module) in NORMS:
        return why_not_folded(module, before)
    if has_hooks(module) or "forward" in module.__dict__:
        return "hooks are called with it, or its forward was replaced"
    return why_not_activated(activation_of(module), before)


def _name(module: nn.Module) -> str:
    return type(module).__name__.removeprefix("Packed")


def why_not_activated(activation: Activation | None, layer: nn.Module) -> str:
    """Return why an activation is not applied by the layer before it; "" where it may be."""
    if activation is None:
        return "no kernel applies it"
    if activation.slopes is None:
        return ""
    slopes = activation.slopes.weight.numel()
    if slopes == 1:
        return ""
    of: Any = layer
    if product_axes(layer) == 0:
        return "after a dense layer its slopes may lie along another axis than the outputs"
    if slopes != of.out_channels:
        return f"it has {slopes} slopes, the layer before it {of.out_channels} channels"
    return ""
