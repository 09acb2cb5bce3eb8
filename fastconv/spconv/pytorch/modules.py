"""Modules that take sparse tensors, and containers of them with spconv's names."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from .arrays import eager
from .core import SparseConvTensor

__all__ = [
    "Identity",
    "RemoveGrid",
    "SparseBatchNorm",
    "SparseIdentity",
    "SparseModule",
    "SparseReLU",
    "SparseSequential",
    "ToDense",
    "assign_name_for_sparse_modules",
    "is_sparse_conv",
    "is_spconv_module",
]


class SparseModule(nn.Module):
    """A module that `SparseSequential` gives the sparse tensor, and not its features."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name
        self._sparse_unique_name = ""


class _OnFeatures:
    """What a module of PyTorch's does, to the features of a sparse tensor."""

    def forward(self, input: Any) -> Any:
        """Compute on a sparse tensor's features, or on a tensor."""
        if isinstance(input, SparseConvTensor):
            return input.replace_feature(super().forward(input.features))  # type: ignore[misc]
        return super().forward(input)  # type: ignore[misc]


class SparseBatchNorm(_OnFeatures, nn.BatchNorm1d):
    """Batch normalisation of a sparse tensor's features."""


class SparseReLU(_OnFeatures, nn.ReLU):
    """The rectifier of a sparse tensor's features."""


class SparseIdentity(_OnFeatures, nn.Identity):
    """Nothing, of a sparse tensor or of another."""


def is_spconv_module(module: nn.Module) -> bool:
    """Whether a module is given the sparse tensor."""
    return isinstance(module, (SparseModule, SparseBatchNorm, SparseReLU))


def is_sparse_conv(module: nn.Module) -> bool:
    """Whether a module is a sparse convolution."""
    from .convolution import SparseConvolution

    return isinstance(module, SparseConvolution)


class SparseSequential(SparseModule):
    """Modules one after another.

    Parameters
    ----------
    *args : nn.Module or OrderedDict of them
        In their order. Modules that are no `SparseModule` are given the features; those of a tensor
        without a site are left as they are.
    **kwargs : nn.Module
        Further modules by name.

    Notes
    -----
    Where gradients are off (``torch.no_grad``, ``torch.inference_mode``), a convolution, a batch
    normalisation in evaluation mode and a rectifier that follow each other are computed in one
    pass; results differ by rounding. Modules with hooks, or of other classes, are called.

    Examples
    --------
    >>> from fastconv.spconv.pytorch import SubMConv2d
    >>> net = SparseSequential(SubMConv2d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU())
    >>> sites = torch.tensor([[0, 1, 1], [0, 4, 7]], dtype=torch.int32)
    >>> net(SparseConvTensor(torch.ones(2, 3), sites, [8, 8], 1)).features.shape
    torch.Size([2, 8])
    """

    def __init__(self, *args: Any, **kwargs: nn.Module) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            named = list(args[0].items())
        else:
            named = [(str(number), module) for number, module in enumerate(args)]
        for name, module in [*named, *kwargs.items()]:
            self.add(module, name)

    def add(self, module: nn.Module, name: str | None = None) -> None:
        """Put a module behind the others, by default under their number."""
        name = str(len(self)) if name is None else name
        if name in self._modules:
            raise KeyError(f"name: got {name!r}, want one that no other module has")
        self.add_module(name, module)

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index: int) -> nn.Module:
        module = list(self._modules.values())[index]
        assert module is not None
        return module

    @eager
    def forward(self, input: Any) -> Any:
        """Compute module after module."""
        from .fusing import compute, find_run

        modules = list(self._modules.values())
        number = 0
        while number < len(modules):
            module = modules[number]
            assert module is not None
            run = None
            if isinstance(input, SparseConvTensor) and not torch.is_grad_enabled():
                run = find_run(modules[number : number + 3])
            if run is not None:
                input = compute(run, input)
                number += run.length
                continue
            if is_spconv_module(module) or not isinstance(input, SparseConvTensor):
                input = module(input)
            elif input.features.shape[0]:
                input = input.replace_feature(module(input.features))
            number += 1
        return input


class Identity(nn.Module):
    """Returns what it is given."""

    def forward(self, input: Any) -> Any:
        """Return the input."""
        return input


class ToDense(SparseModule):
    """A sparse tensor as an (N, C, *spatial) tensor."""

    def forward(self, x: SparseConvTensor) -> torch.Tensor:
        """Return the dense tensor."""
        return x.dense()


class RemoveGrid(SparseModule):
    """Takes the `grid` of a sparse tensor away."""

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        """Return the same tensor without it."""
        x.grid = None
        return x


def assign_name_for_sparse_modules(module: nn.Module) -> None:
    """Tell every sparse module its name in a network."""
    for name, part in module.named_modules():
        if isinstance(part, SparseModule):
            part._sparse_unique_name = name
