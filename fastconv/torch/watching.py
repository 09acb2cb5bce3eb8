"""Whether modules are still what they were when they were fused.

What is called fused is not called itself: a hook that is registered later, a module that is put in
another's place or a number that is set would go unseen. They are looked at before each call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from .candidates import has_hooks
from .modules import SWAPPED

__all__ = ["Watch"]

#: What of a module's attributes is compared: lists and the like may be changed by every call.
_NUMBERS = (bool, int, float, complex, str, tuple, type(None))
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
        self._root = _state(root)
        self._seen = [(each, _state(each), _calls(each)) for each in modules if each is not root]
        self._of = root

    def holds(self) -> bool:
        """Tell whether modules have the parts, numbers and hooks that they had."""
        if _has_any_global_hook() or _state(self._of) != self._root:
            return False
        return all(
            _state(each) == state and _calls(each) == calls for each, state, calls in self._seen
        )


def _calls(module: nn.Module) -> tuple[bool, Any]:
    """Return whether something is called with a module, or in its place."""
    return has_hooks(module), module.__dict__.get("forward")


def _state(module: nn.Module) -> tuple[Any, ...]:
    """Return a module's class and parts, and its numbers where no call reads them anew."""
    kind = type(module)
    parts = tuple(module._modules.values())
    if kind in _READ_ANEW:
        return kind, parts
    held = module.__dict__.items()
    return kind, parts, [(name, value) for name, value in held if type(value) in _NUMBERS]
