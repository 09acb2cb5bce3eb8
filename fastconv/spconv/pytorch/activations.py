"""Activations that a convolution of spconv's may be told to end with."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from torch.nn import functional as F

from ...contract.errors import ArgumentError

__all__ = ["Activation", "activate", "activation_of"]


class Activation(Enum):
    """What spconv has as ``cumm.tensorview.gemm.Activation``, whose members are taken too."""

    None_ = 0
    ReLU = 1
    Sigmoid = 2
    LeakyReLU = 3


def activation_of(value: Any) -> Activation:
    """Return the activation that a value names; None stands for none.

    Raises
    ------
    ArgumentError
        For others.
    """
    if value is None:
        return Activation.None_
    name = getattr(value, "name", None)
    if not isinstance(name, str) or name not in Activation.__members__:
        names = ", ".join(Activation.__members__)
        raise ArgumentError(f"act_type: got {value!r}, want an Activation, one of {names}")
    return Activation[name]


def activate(features: torch.Tensor, act_type: Any, act_alpha: float) -> torch.Tensor:
    """Return features behind an activation; `act_alpha` is the slope of LeakyReLU below 0."""
    kind = activation_of(act_type)
    if kind is Activation.ReLU:
        return F.relu(features)
    if kind is Activation.Sigmoid:
        return torch.sigmoid(features)
    if kind is Activation.LeakyReLU:
        return F.leaky_relu(features, act_alpha)
    return features
