"""Layers of a traced model, joined with the norm, the sum and the activation that follow them.

A layer goes where its output has one reader alone, so nothing else misses what is no longer made.
A sum waits for its other operand: the layer is then computed where the sum was, and that is only
done where nothing in between changes memory in place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from . import functional, pooling
from .candidates import (
    has_hooks,
    product_axes,
    why_apart,
    why_not_activated,
    why_not_folded,
    why_not_swapped,
)
from .modules import SWAPPED
from .packing import NORMS, Activation, Pack, activation_of
from .registry import untraced
from .report import Report
from .tracing import trace
from .watching import Watch

__all__ = ["Calls"]

_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_IN_PLACE_SUMS = (operator.iadd, "add_")
_POOLS: dict[Any, Callable[..., Any]] = {
    getattr(place, name): getattr(pooling, name)
    for place in (torch.nn.functional, torch)
    for name in pooling.__all__
    if hasattr(place, name) and not (place is torch and name.startswith("adaptive_max"))
}

_PRODUCTS = frozenset(getattr(torch.nn.functional, name) for name in functional.__all__)


class Calls:
    """The calls of a traced model, fused: what stands in for its `forward`.

    A copy, or a pickle, holds the model alone and traces it again.

    Parameters
    ----------
    model : Module
        In evaluation mode; modules are reached through it, so what is moved or loaded counts.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds."""
        return {"model": self.model}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    def prepare(self, report: Report) -> bool:
        """Trace the model and fuse its layers; return whether it could be traced."""
        own = self.model.__dict__.get("forward")
        if own is not None and not isinstance(own, Calls):
            report.note = "its forward was replaced"
            return False
        graph, report.note = trace(self.model)
        if graph is None:
            return False
        taken = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
        report.traced = True
        packs = _Fusion(self.model, graph, report).packs
        code = graph.python_code("self")
        names = dict(code.globals)
        exec(code.src, names)
        self.__dict__ |= packs | {"run": names["forward"], "taken": taken}
        return True

    def watch(self) -> None:
        """Note what the modules are, now that they have their classes."""
        self.__dict__["watched"] = Watch(self.model, self.model.modules())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the model."""
        return untraced(self._compute, *args, **kwargs)

    def _compute(self, *args: Any, **kwargs: Any) -> Any:
        if "run" not in self.__dict__:
            self.watch()
            if not self.prepare(Report()):
                self.__dict__["run"] = None
        traced = self.run is not None and self._is_as_traced(args, kwargs)
        if not traced or not self.watched.holds():
            return type(self.model).forward(self.model, *args, **kwargs)
        return self.run(self, *args, **kwargs)

    def _is_as_traced(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Tell whether a call gives tensors where tracing had placeholders, and nothing more."""
        given = (*args, *kwargs.values())
        if not all(isinstance(each, torch.Tensor) for each in given):
            return False
        return len(given) == len(self.taken) and kwargs.keys() <= set(self.taken[len(args) :])


class _Fusion:
    """A graph whose layers are being fused."""

    def __init__(self, model: nn.Module, graph: fx.Graph, report: Report) -> None:
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._graph, self._report = graph, report
        self.packs: dict[str, Pack] = {}
        # The last layer first: of two that are summed the second can wait for the other one.
        for node in reversed(list(graph.nodes)):
            if node.op == "call_module":
                self._fuse(node)
            elif node.op == "call_function" and node.target in _POOLS:
                node.target = _POOLS[node.target]
                report.swapped[node.name] = f"fastconv.{node.target.__name__}"
            elif node.op == "call_function" and node.target in _PRODUCTS:
                report.left[node.name] = "a function, whose weight no module keeps packed"
        for node in graph.nodes:
            if node.op == "call_module" and str(node.target) in self._modules:
                self._tell(node)
        graph.lint()

    def _tell(self, node: fx.Node) -> None:
        """Say why a norm or an activation is still called."""
        name = str(node.target)
        module = self._modules[name]
        if type(module) not in NORMS and activation_of(module) is None:
            return
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node):
            return
        before: nn.Module | str = getattr(source.target, "__name__", str(source.target))
        if source.op == "placeholder":
            before = "outside"
        elif source.op == "call_module":
            pack = self.packs.get(str(source.target))
            before = self._modules[str(source.target)] if pack is None else pack.last
        self._report.left[name] = why_apart(module, before, len(source.users))

    def _fuse(self, node: fx.Node) -> None:
        layer = self._modules[str(node.target)]
        alone = len(node.args) == 1 and not node.kwargs
        if product_axes(layer) is None or why_not_swapped(layer) or not alone:
            return
        ends, norm = self._norm(node, layer)
        residual = None
        # A dense layer's object adds nothing to its rows.
        total = None if product_axes(layer) == 0 else self._sum(node, ends[-1])
        if total is not None:
            ends.append(total[0])
            residual = total[1]
        activation = self._activation(ends, layer)
        if len(ends) > 1:
            self._replace(ends, Pack(layer, norm, activation), residual)

    def _norm(self, node: fx.Node, layer: nn.Module) -> tuple[list[fx.Node], nn.Module | None]:
        """Return the nodes of a layer and its norm, and the norm."""
        user = _only_reader(node)
        if user is None or user.op != "call_module" or len(user.args) != 1:
            return [node], None
        norm = self._modules.get(str(user.target))  # None of a call that is fused by now
        if norm is None or type(norm) not in NORMS or why_not_folded(norm, layer):
            return [node], None
        self._report.fused[str(user.target)] = str(node.target)
        return [node, user], norm

    def _sum(self, first: fx.Node, last: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """Return the sum that a layer's output goes into, and its other operand."""
        user = _only_reader(last)
        if user is None or user.target not in _SUMS or len(user.args) != 2 or user.kwargs:
            return None
        if user.op not in ("call_function", "call_method"):
            return None
        one, two = user.args
        other = two if one is last else one
        if not isinstance(other, fx.Node) or other is last:
            return None
        if user.target in _IN_PLACE_SUMS and not self._is_fresh(one):
            return None
        between = first.next
        while between is not user:
            if self._changes(between):
                return None
            between = between.next
        return user, other

    def _is_fresh(self, node: Any) -> bool:
        """Tell whether nobody but the sum reads a node's memory, which a layer has made."""
        if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.users) != 1:
            return False
        kind = type(self._modules.get(str(node.target)))
        return kind is type(None) or kind in SWAPPED or kind in NORMS

    def _changes(self, node: fx.Node) -> bool:
        """Tell whether a node may change memory in place."""
        if node.op == "call_module":
            return bool(getattr(self._modules.get(str(node.target)), "inplace", False))
        name = node.target if isinstance(node.target, str) else node.target.__name__
        if node.op == "call_method":
            return name.endswith("_") and not name.endswith("__")
        if node.op != "call_function":
            return False
        told = "out" in node.kwargs or bool(node.kwargs.get("inplace"))
        in_place = getattr(operator, name, None) is node.target and name.startswith("i")
        return told or in_place or name.endswith("_") or name == "setitem" or True in node.args

    def _activation(self, ends: list[fx.Node], layer: nn.Module) -> Activation | None:
        """Return the activation that follows, its node added to those that are fused."""
        user = _only_reader(ends[-1])
        if user is None or len(user.args) != 1 or set(user.kwargs) - {"inplace"}:
            return None
        what: Any = user.target
        if user.op == "call_module":
            what = self._modules.get(str(user.target))
            if what is None or has_hooks(what) or "forward" in what.__dict__:
                return None
        elif user.op not in ("call_function", "call_method"):
            return None
        found = activation_of(what)
        if found is None or why_not_activated(found, layer):
            return None
        if user.op == "call_module":
            self._report.fused[str(user.target)] = str(ends[0].target)
        ends.append(user)
        return found

    def _replace(self, ends: list[fx.Node], pack: Pack, residual: fx.Node | None) -> None:
        """Put one call in the place of several."""
        name = f"fused_{len(self.packs)}"
        self.packs[name] = pack
        first, last = ends[0], ends[-1]
        place = ends[-1] if residual is not None else first
        arguments = (first.args[0], *([] if residual is None else [residual]))
        with self._graph.inserting_before(place):
            made = self._graph.create_node("call_module", name, arguments)
        last.replace_all_uses_with(made)
        for node in reversed(ends):
            self._graph.erase_node(node)
        parts = [type(pack.layer).__name__.removeprefix("Packed")]
        parts += [] if pack.norm is None else [type(pack.norm).__name__]
        parts += [] if residual is None else ["sum"]
        parts += [] if pack.activation is None else [pack.activation.name]
        self._report.swapped[str(first.target)] = " + ".join(parts)


def _only_reader(node: fx.Node) -> fx.Node | None:
    """Return the one node that reads another's output; None where there are several, or none."""
    return next(iter(node.users)) if len(node.users) == 1 else None
