"""A sparse convolution and what stands behind it, computed in one pass.

Where no gradient is wanted, a batch normalisation in evaluation mode is a factor and a shift of
each output channel, which weight and bias take up, and a rectifier is computed where the sums are
stored. What is folded is kept with the convolution, packed, together with a fingerprint of all that
it was made of: a parameter that changes, by whatever way, is seen by its content.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ...fingerprint import Fingerprint
from ...folding import fold_batch_norm
from ...sparse.calls import Filters, conv_call
from .activations import Activation
from .arrays import array_of, tensor_of
from .autograd import rows_before
from .convolution import SparseConvolution, record_voxels
from .core import SparseConvTensor
from .modules import SparseBatchNorm, SparseReLU

__all__ = ["Run", "compute", "find_run"]


class Run(NamedTuple):
    """A convolution, and a batch normalisation and a rectifier, one of which may be missing."""

    conv: SparseConvolution
    norm: nn.BatchNorm1d | None
    rectifies: bool

    @property
    def length(self) -> int:
        """Number of modules."""
        return 1 + (self.norm is not None) + self.rectifies


class _Folded(NamedTuple):
    """A convolution's filters, and what they were made of."""

    seen: Fingerprint
    filters: Filters


_FOLDED: WeakKeyDictionary[SparseConvolution, _Folded] = WeakKeyDictionary()


def find_run(modules: Sequence[Any]) -> Run | None:
    """Return what of a sequence's beginning is computed in one pass; None where that is no run."""
    conv = modules[0]
    if not isinstance(conv, SparseConvolution) or conv.conv1x1:
        return None
    if conv.act_type is not Activation.None_:  # between the convolution and what is behind it
        return None
    if not _is_plain(conv, SparseConvolution.forward):
        return None
    behind = list(modules[1:3])
    norm = behind.pop(0) if behind and _folds(behind[0], conv) else None
    rectifies = bool(behind) and _rectifies(behind[0])
    return Run(conv, norm, rectifies) if norm is not None or rectifies else None


def _is_plain(module: nn.Module, *forwards: Any) -> bool:
    """Whether a module computes what its class says, and nobody looks at what goes in or out."""
    return (
        type(module).forward in forwards
        and "forward" not in module.__dict__
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


def _folds(module: Any, conv: SparseConvolution) -> bool:
    """Whether a module is a batch normalisation that is the same for every batch."""
    return (
        isinstance(module, nn.BatchNorm1d)
        and _is_plain(module, nn.BatchNorm1d.forward, SparseBatchNorm.forward)
        and not module.training
        and module.running_mean is not None
        and module.running_mean.dtype == conv.weight.dtype
        and module.num_features == conv.out_channels
    )


def _rectifies(module: Any) -> bool:
    return isinstance(module, nn.ReLU) and _is_plain(module, nn.ReLU.forward, SparseReLU.forward)


def compute(run: Run, x: SparseConvTensor) -> SparseConvTensor:
    """Return what the modules of a run make of a tensor."""
    run.conv.check_input(x)
    step = run.conv.step(x)
    record_voxels(run.conv, step.rulebook.out_rows)
    call = conv_call(rows_before(x.features, step.rulebook), step.rulebook, _filters(run))
    return step.lead(tensor_of(call.features()))


def _filters(run: Run) -> Filters:
    """Return a run's weight and bias, folded and packed once for as long as nothing changes."""
    kind = (None if run.norm is None else run.norm.eps, run.rectifies)
    sources = _sources(run)
    known = _FOLDED.get(run.conv)
    if known is not None and known.seen.holds(sources, kind):
        return known.filters
    seen = Fingerprint(sources, kind)  # before: what changes meanwhile is seen by the next call
    made = _Folded(seen, _fold(run, [None if each is None else each.copy() for each in sources]))
    _FOLDED[run.conv] = made
    return made.filters


def _sources(run: Run) -> list[Any]:
    """Return the arrays that a run's filters are made of, None for what there is not."""
    norm = run.norm
    tensors: list[torch.Tensor | None] = [run.conv.weight, run.conv.bias]
    if norm is not None:
        tensors += [norm.running_mean, norm.running_var, norm.weight, norm.bias]
    return [None if each is None else array_of("weight", each) for each in tensors]


def _fold(run: Run, sources: list[Any]) -> Filters:
    weight, bias, *statistics = sources
    if run.norm is not None:
        mean, var, gamma, beta = statistics
        weight, bias = fold_batch_norm(weight, bias, mean, var, gamma, beta, run.norm.eps)
    packed: dict[Hashable, Any] = {}
    activation = "relu" if run.rectifies else None
    conv = run.conv
    return Filters.of(weight, bias, conv.ndim, conv.groups, "KRSC", activation, packed=packed)
