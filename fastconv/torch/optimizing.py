"""``optimize()``: a model for evaluation, its layers on fastconv's kernels, packed once."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ..contract.arguments import flag
from ..contract.errors import ArgumentError, DTypeError
from .candidates import product_axes, why_not_swapped
from .fusing import Calls
from .modules import SWAPPED
from .packing import NORMS, activation_of
from .report import Report
from .sequences import fuse_sequences

__all__ = ["optimize"]


def optimize(model: nn.Module, inplace: bool = False, report: bool = False) -> Any:
    """Return a model in evaluation mode whose layers are fastconv's.

    Convolutions, transposed ones, dense layers and pools are computed by fastconv, their weights
    packed by the first call and kept. Where ``torch.fx`` can trace the model, batch norms are
    folded into the convolutions before them, and sums and activations applied as these write
    their outputs; where it cannot, this is done within each ``torch.nn.Sequential``. The keys of
    the state stay, and what is written into parameters, by whatever way, counts from the next call
    on: each reads all their bits, since PyTorch's counter of changes misses writes through
    ``.data``, a NumPy view or an optimizer with ``fused=True``.

    Modules that are replaced later, hooks that are registered, and numbers that are set, in modules
    and as attributes, are seen: a traced model then runs module by module. So it does in calls
    that give other arguments than a tensor for each that has no default. Whatever else its own
    code decides by, such as a list's entries or a global's value, stays as `optimize` has found it.

    Parameters
    ----------
    model : Module
        In evaluation mode, on the CPU.
    inplace : bool
        Whether the model itself is changed; otherwise a copy of it.
    report : bool
        Whether to tell what was done.

    Returns
    -------
    Module, or (Module, Report)
        The model, whose parameters that were packed want no gradients any more. A report says by
        the names of modules what computes them, what went into others, and what was left to
        PyTorch and why; as a text it is a table.

    Raises
    ------
    DTypeError
        For what is no model.
    ArgumentError
        For a model in training mode, one that was compiled or scripted, and one that cannot be
        copied where a copy is wanted.

    Examples
    --------
    >>> import torch, fastconv.torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout()).eval()
    >>> fast, report = fastconv.torch.optimize(model, report=True)
    >>> x = torch.ones(1, 3, 16, 16)
    >>> with torch.no_grad():
    ...     torch.allclose(fast(x), model(x), atol=1e-5)
    True
    >>> print(report)
    1 on fastconv, 1 left to PyTorch; traced by torch.fx
      0: Conv2d + BatchNorm2d + relu
      1: in 0
      2: in 0
      3: left, Dropout hands its input on, there is nothing to compute
    """
    _check(model)
    made = model if flag("inplace", inplace) else _copied(model)
    told = Report()
    reasons = {name: why_not_swapped(each) for name, each in made.named_modules()}
    calls = Calls(made)
    if not calls.prepare(told):
        fuse_sequences(made, told)
    _swap(made, reasons, told)
    if told.traced:
        calls.watch()
        made.__dict__["forward"] = calls
    _tell_left(made, reasons, told)
    told.sort(list(reasons))
    return (made, told) if flag("report", report) else made


def _check(model: Any) -> None:
    """Raise where a model cannot be optimised."""
    if not isinstance(model, nn.Module):
        raise DTypeError(f"model: got {type(model).__name__}, want a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise ArgumentError(
            f"model: got a {type(model).__name__}, want the model before torch.compile or "
            "torch.jit took it: its layers cannot be seen any more"
        )
    training = [name or "the model" for name, each in model.named_modules() if each.training]
    if training:
        more = f" and {len(training) - 3} more" if len(training) > 3 else ""
        raise ArgumentError(
            f"model: got {', '.join(training[:3])}{more} in training mode, want model.eval(): "
            "batch norms are folded by the statistics that they have"
        )


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:  # tensors made by others, locks, open files
        reason = str(error).splitlines()[0]
        raise ArgumentError(
            f"model: got a {type(model).__name__} that cannot be copied ({reason}), want "
            "inplace=True, or one without torch.nn.utils.weight_norm and the like, which "
            "remove_weight_norm takes away"
        ) from error


def _swap(model: nn.Module, reasons: dict[str, str], report: Report) -> None:
    """Give modules the classes that compute by fastconv."""
    for name, module in model.named_modules():
        kind = type(module)
        if reasons[name] or kind not in SWAPPED:
            continue
        module.__class__ = SWAPPED[kind]
        report.swapped.setdefault(name, kind.__name__)
        if product_axes(module) is not None:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def _tell_left(model: nn.Module, reasons: dict[str, str], report: Report) -> None:
    """Say of each module that computes, and is PyTorch's still, why that is."""
    for name, module in model.named_modules():
        done = name in report.swapped or name in report.fused or name in report.left
        if done or not reasons[name] or next(module.children(), None) is not None:
            continue  # what has parts is told of by them
        joins = type(module) in NORMS or activation_of(module) is not None
        if joins and report.traced:
            report.left[name] = "the model does not call it"
        elif joins:
            report.left[name] = "it is in no Sequential, and the order of other calls is not known"
        else:
            report.left[name] = reasons[name]
