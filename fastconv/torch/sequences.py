"""Layers of a ``torch.nn.Sequential``, joined with the norm and the activation that follow them.

This is what is fused where a model cannot be traced: in a sequence the order of calls is known.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .candidates import (
    has_hooks,
    product_axes,
    why_apart,
    why_not_activated,
    why_not_folded,
    why_not_swapped,
)
from .packing import NORMS, Pack, activation_of
from .report import Report
from .watching import Watch, has_global_hooks

__all__ = ["FusedSequential", "fuse_sequences"]


class FusedSequential(nn.Sequential):
    """A `torch.nn.Sequential` whose modules are the same, but called fused."""

    def forward(self, input: Any) -> Any:
        """Call the modules, as many of them as may be in one."""
        known = self.__dict__.get("_fastconv_steps")
        if known is None or not known[0].holds():
            if has_global_hooks():
                plain: Any = super()
                return plain.forward(input)
            modules = tuple(self)
            known = self.__dict__["_fastconv_steps"] = (Watch(self, modules), _steps(modules))
        for step, _ in known[1]:
            input = step(input)
        return input


def _steps(modules: tuple[nn.Module, ...]) -> list[tuple[Any, int]]:
    """Return what a sequence calls, each with the number of modules that it stands for."""
    steps: list[tuple[Any, int]] = []
    place = 0
    while place < len(modules):
        layer, rest = modules[place], modules[place + 1 :]
        taken = 1
        if product_axes(layer) is not None and not why_not_swapped(layer):
            norm, activation = None, None
            if rest and type(rest[0]) in NORMS and not why_not_folded(rest[0], layer):
                norm, taken = rest[0], 2
            if len(rest) >= taken and _is_plain(rest[taken - 1]):
                found = activation_of(rest[taken - 1])
                if not why_not_activated(found, layer):
                    activation, taken = found, taken + 1
            if taken > 1:
                steps.append((Pack(layer, norm, activation), taken))
        if taken == 1:
            steps.append((layer, 1))
        place += taken
    return steps


def _is_plain(module: nn.Module) -> bool:
    return not has_hooks(module) and "forward" not in module.__dict__


def fuse_sequences(model: nn.Module, report: Report) -> None:
    """Let every sequence of a model call its modules fused, and tell of it."""
    for name, module in model.named_modules():
        if type(module) is not nn.Sequential or not _is_plain(module):
            continue
        names = [f"{name}.{each}".removeprefix(".") for each, _ in module.named_children()]
        if len(names) != len(module):
            continue  # one module in two places
        modules, place = tuple(module), 0
        for _, taken in _steps(modules):
            if taken > 1:
                what = [type(each).__name__ for each in modules[place : place + taken]]
                report.swapped[names[place]] = " + ".join(what)
                report.fused |= dict.fromkeys(names[place + 1 : place + taken], names[place])
            elif type(modules[place]) in NORMS or activation_of(modules[place]) is not None:
                before = modules[place - 1] if place else "outside"
                report.left[names[place]] = why_apart(modules[place], before, 1)
            place += taken
        module.__class__ = FusedSequential
