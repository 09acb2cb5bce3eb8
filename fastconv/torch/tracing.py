"""The order of a model's calls by ``torch.fx``, and where that can be trusted.

Tracing runs a model once with placeholders. What it decides then it decides for good: a branch on
a type, a counter, a tensor that is drawn. A model that shows signs of these is not traced.
"""

from __future__ import annotations

import dis
from typing import Any

from torch import fx, nn

from .candidates import has_hooks
from .modules import SWAPPED

__all__ = ["trace"]


class _Tracer(fx.Tracer):
    """Sees calls of layers, PyTorch's and those that took their place, and nothing within them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in SWAPPED.values() or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> tuple[fx.Graph | None, str]:
    """Return the graph of a model's calls, or None and why there is none."""
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
        if reason := _why_not_traced(module):
            return None, f"forward of {where} {reason}"
    try:
        graph = tracer.trace(model)
    except Exception as error:  # noqa: BLE001 - a model's own code runs here, and raises anything
        reason = (str(error).strip().splitlines() or [""])[0]
        return None, f"torch.fx cannot trace its control flow ({type(error).__name__}: {reason})"
    if any(
        node.op == "get_attr" and str(node.target).startswith("_tensor_constant")
        for node in graph.nodes
    ):
        return None, "its forward makes tensors, which tracing would keep as they were then"
    return graph, ""


def _why_not_traced(module: nn.Module) -> str:
    """Return what a module's `forward` does that tracing would decide once for all calls."""
    code: Any = getattr(type(module).forward, "__code__", None)
    if code is None or type(module).__module__.startswith("torch."):
        return ""
    if {"isinstance", "is_tensor", "type"} & set(code.co_names):
        return "asks for the types of what it is given"
    if {"random", "rand", "randn", "randint", "bernoulli"} & set(code.co_names):
        return "draws random numbers"
    stores = {"STORE_ATTR", "STORE_GLOBAL", "DELETE_ATTR"}
    if any(each.opname in stores for each in dis.get_instructions(code)):
        return "changes the model's attributes"
    return ""
