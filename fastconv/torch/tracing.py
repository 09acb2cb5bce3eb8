"""The order of a model's calls by ``torch.fx``, and where that can be trusted.

Tracing runs a model once with placeholders. What it decides then it decides for good: a branch on
a type, a counter, a tensor that is drawn. A model that shows signs of these is not traced, and what
the run has changed in it is put back.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from .candidates import has_hooks
from .foresight import why_not_foreseen
from .modules import SWAPPED
from .states import State

__all__ = ["trace"]


class _Placeholder(fx.Proxy):
    """Stands for a value, and is neither looked up nor written out in its place."""

    def __hash__(self) -> int:
        raise fx.proxy.TraceError("values are looked up")

    def __format__(self, spec: str) -> str:
        raise fx.proxy.TraceError("values are written out")


class _Tracer(fx.Tracer):
    """Sees calls of layers, PyTorch's and those that took their place, and nothing within them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in SWAPPED.values() or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return what stands for a node's value."""
        return _Placeholder(node, self)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """Return placeholders for what every call gives; other arguments have their defaults."""
        _, *taken = inspect.signature(root_fn).parameters.values()
        names = [
            each.name
            for place, each in enumerate(taken)
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
            and (each.default is each.empty or place == 0)
        ]
        made = [self.create_proxy("placeholder", name, (), {}) for name in names]
        return root_fn, [self.root, *made]


def trace(model: nn.Module) -> tuple[fx.Graph | None, str]:
    """Return the graph of a model's calls, or None and why there is none.

    It is that of calls which give a tensor for each of its placeholders, and nothing else.
    """
    tracer = _Tracer()
    if tracer.is_leaf_module(model, ""):
        return None, f"the model is one {type(model).__name__}"
    inlined = {
        name: module
        for name, module in model.named_modules()
        if not tracer.is_leaf_module(module, name)
    }
    for name, module in inlined.items():
        where = f"{name or 'the model'} ({type(module).__name__})"
        if name and has_hooks(module):
            return None, f"hooks are called with {where}"
        if reason := why_not_foreseen(module):
            return None, f"forward of {where} {reason}"
    state = State(model, list(inlined.values()))
    try:
        graph = tracer.trace(model)
    except Exception as error:  # noqa: BLE001 - a model's own code runs here, and raises anything
        reason = (str(error).strip().splitlines() or [""])[0]
        return None, f"torch.fx cannot trace its control flow ({type(error).__name__}: {reason})"
    finally:
        changed = state.restore()
    if any(
        node.op == "get_attr" and str(node.target).startswith("_tensor_constant")
        for node in graph.nodes
    ):
        return None, "its forward makes tensors, which tracing would keep as they were then"
    if changed:
        return None, f"its forward changes {changed}"
    return graph, ""
