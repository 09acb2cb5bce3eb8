"""Whether modules are still what they were when they were fused.

What is called fused is not called itself: a hook that is registered later, a module that is put in
another's place or a number that is set would go unseen. They are looked at before each call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules import module as hooking

from .candidates import has_hooks
from .modules import SWAPPED

__all__ = ["Watch", "has_global_hooks"]

#: What of a module's attributes is compared: lists and the like may be changed by every call.
_NUMBERS = (bool, int, float, complex, str, type(None))
_READ_ANEW = frozenset(SWAPPED.values())


class Watch:
    """Modules as they were at one time.

    Parameters
    ----------
    root : Module
        What is called, whose own hooks and forward do not matter.
    modules : iterable of Module
        What is watched beside it.
    """

    def __init__(self, root: nn.Module, modules: Iterable[nn.Module]) -> None:
        self._root = root, _parts(root), _numbers(root)
        self._seen = [
            (each, _parts(each), _numbers(each), _calls(each))
            for each in modules
            if each is not root
        ]

    def holds(self) -> bool:
        """Tell whether modules have the parts, numbers and hooks that they had."""
        root, parts, numbers = self._root
        if has_global_hooks() or _parts(root) != parts or not _has(root, numbers):
            return False
        return all(
            _parts(each) == parts and _calls(each) == calls and _has(each, numbers)
            for each, parts, numbers, calls in self._seen
        )


def has_global_hooks() -> bool:
    """Tell whether something is called with every module."""
    found: Any = hooking._has_any_global_hook
    return bool(found())


def _calls(module: nn.Module) -> tuple[bool, Any]:
    """Return whether something is called with a module, or in its place."""
    return has_hooks(module), module.__dict__.get("forward")


def _parts(module: nn.Module) -> tuple[Any, ...]:
    return type(module), *module._modules.values()


def _numbers(module: nn.Module) -> list[tuple[str, Any]]:
    """Return a module's numbers by their names, but those that each call reads anew."""
    if type(module) in _READ_ANEW:
        return []
    return [(name, value) for name, value in module.__dict__.items() if _is_number(value)]


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_number, value))
    return type(value) in _NUMBERS


def _has(module: nn.Module, numbers: list[tuple[str, Any]]) -> bool:
    """Tell whether a module has the same numbers; others may have come, as compilers add some."""
    held = module.__dict__
    return all(
        held.get(name) is value or (_is_number(held.get(name)) and held.get(name) == value)
        for name, value in numbers
    )
