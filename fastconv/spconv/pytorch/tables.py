"""Modules that put several sparse tensors together, by spconv's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ...contract.errors import ShapeError
from .core import SparseConvTensor
from .functional import sparse_add
from .modules import SparseModule

__all__ = ["AddTable", "AddTableMisaligned", "ConcatTable", "JoinTable"]


def _require_same_sites(tensors: Sequence[SparseConvTensor]) -> SparseConvTensor:
    """Return the first of tensors that have the same sites in the same order, else raise."""
    for number, other in enumerate(tensors):
        if not tensors[0]._same_sites(other):
            raise ShapeError(
                f"input[{number}]: got other sites than those of input[0], want the same; "
                "AddTableMisaligned adds tensors with different ones"
            )
    return tensors[0]


class JoinTable(SparseModule):
    """The channels of tensors with the same sites, one behind the other."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        """Concatenate the channels."""
        first = _require_same_sites(input)
        return first.replace_feature(torch.cat([each.features for each in input], 1))


class AddTable(SparseModule):
    """The sum of tensors with the same sites."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        """Add the features."""
        first = _require_same_sites(input)
        total = first.features
        for other in input[1:]:
            total = total + other.features
        return first.replace_feature(total)


class AddTableMisaligned(SparseModule):
    """The sum of tensors with different sites."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        """Add the features at the sites that any tensor has."""
        return sparse_add(*input)


class ConcatTable(SparseModule):
    """What each of several modules makes of one tensor, as a list."""

    def forward(self, input: Any) -> list[Any]:
        """Call every module."""
        return [module(input) for module in self.children()]

    def add(self, module: nn.Module) -> ConcatTable:
        """Put a module behind the others, and return the table."""
        self.add_module(str(len(self._modules)), module)
        return self
