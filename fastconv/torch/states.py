"""What a model holds, to see whether a run has changed it, and to put that back.

Looked at are the modules' attributes, and the globals and closures that their code names: numbers,
tensors, and lists, dictionaries, sets and objects of these.
"""

from __future__ import annotations

import random
from collections import deque
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from ..fingerprint import Fingerprint
from .foresight import captured, named_functions

__all__ = ["State"]

Tensor = torch.Tensor
_OPAQUE = (ModuleType, FunctionType, BuiltinFunctionType, MethodType, type, nn.Module, torch.dtype)
#: How far into objects of objects one looks.
_DEEPEST = 4


class State:
    """What a model held at one time.

    Parameters
    ----------
    model : Module
        With all its parts.
    running : list of Module
        Those whose own code runs.
    """

    def __init__(self, model: nn.Module, running: list[nn.Module]) -> None:
        #: Containers and tensors by their identity, with copies of what they held.
        self._held: dict[int, tuple[Any, Any]] = {}
        self._random = torch.get_rng_state(), random.getstate()
        for module in model.modules():
            self._keep(module.__dict__)
        for function in (each for module in running for each in named_functions(module)):
            for name in function.__code__.co_names:
                self._keep(function.__globals__.get(name))
            for value in captured(function):
                self._keep(value)

    def _keep(self, what: Any, depth: int = 0) -> None:
        """Copy a container or a tensor, and what lies in it."""
        if id(what) in self._held or isinstance(what, _OPAQUE) or depth > _DEEPEST:
            return
        if isinstance(what, Tensor):
            if _is_plain(what):
                self._held[id(what)] = what, (Fingerprint([what]), what.detach().clone())
        elif isinstance(what, (list, deque, set, dict)):
            self._held[id(what)] = what, what.copy()
            for each in what.values() if isinstance(what, dict) else what:
                self._keep(each, depth + 1)
        elif isinstance(what, (tuple, frozenset)):
            for each in what:
                self._keep(each, depth + 1)
        elif isinstance(getattr(what, "__dict__", None), dict):
            self._keep(what.__dict__, depth + 1)

    def restore(self) -> str:
        """Put everything back; return what had changed, "" where nothing had."""
        changed = ""
        if not torch.equal(torch.get_rng_state(), self._random[0]) or (
            random.getstate() != self._random[1]
        ):
            changed = "what random numbers come next"
            torch.set_rng_state(self._random[0])
            random.setstate(self._random[1])
        for what, copy in self._held.values():
            if isinstance(what, Tensor):
                if not copy[0].holds([what]):
                    changed = "the model's tensors in place"
                    what.detach().copy_(copy[1])
            elif not _same_items(what, copy):
                changed = "what the model holds"
                what.clear()
                what.extend(copy) if isinstance(what, (list, deque)) else what.update(copy)
        return changed


def _is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor's bits are read; parameters stand as placeholders, and are not run."""
    if isinstance(tensor, nn.Parameter) or tensor.device.type != "cpu":
        return False
    return tensor.layout == torch.strided and tensor.element_size() <= 8 and tensor.numel() > 0


def _same_items(one: Any, other: Any) -> bool:
    """Tell whether containers hold the same objects in the same order."""
    if len(one) != len(other):
        return False
    if isinstance(one, set):
        return bool(one == other)
    pairs = zip(one, other, strict=True)
    if isinstance(one, dict):
        both = zip(one.items(), other.items(), strict=True)
        return all(a[0] == b[0] and _same_item(a[1], b[1]) for a, b in both)
    return all(_same_item(a, b) for a, b in pairs)


def _same_item(one: Any, other: Any) -> bool:
    """Tell whether two are one object, or equal numbers or words."""
    return one is other or (
        type(one) is type(other) and isinstance(one, (int, str)) and one == other
    )
