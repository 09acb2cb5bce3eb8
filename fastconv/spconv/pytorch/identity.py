"""The identity by the name and in the module that spconv has it in."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["Identity"]


class Identity(nn.Module):
    """Returns what it is given."""

    def forward(self, input: Any) -> Any:
        """Return the input."""
        return input

    def input_spatial_size(self, out_size: Any) -> Any:
        """Return the spatial size before that leads to a size after: the same."""
        return out_size
