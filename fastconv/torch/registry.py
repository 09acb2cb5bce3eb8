"""How functions of arrays become operators of PyTorch's, with fake results and gradients.

An operator is a schema, a function that computes, one that tells the output's shape and memory
order without computing (for `torch.compile`), and one that makes the gradients, of operators
again. Nothing is computed here: what an operator calls is fastconv's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch._compile import _disable_dynamo  # imports the compiler at the first call alone

from ..arrays import memory_layout
from ..tensors import compute_tensors

__all__ = ["by_axes", "define", "derived", "in_order_of", "like", "on_arrays", "pairs", "untraced"]

Tensor = torch.Tensor


def on_arrays(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of arrays within an operator, where PyTorch keeps account of gradients."""
    words = (tuple(each) if isinstance(each, list) else each for each in args)
    return compute_tensors(function, tuple(words), kwargs, recorded=False)


def by_axes(module: Any, name: str) -> dict[int, Callable[..., Any]]:
    """Return an operator's functions by their spatial axes, whose number ``{}`` stands for."""
    return {ndim: getattr(module, name.format(ndim)) for ndim in (1, 2, 3)}


def pairs(padding: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return padding as (low, high) pairs, of the flat list that a schema has."""
    return tuple(zip(padding[::2], padding[1::2], strict=True))


def like(tensor: Tensor, shape: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialised output for an ``(N, C, *spatial)`` input, in its memory order."""
    steps = SimpleNamespace(
        ndim=tensor.dim(), shape=tensor.shape, strides=tensor.stride(), itemsize=1
    )
    if memory_layout(steps) != "channels_last":
        return tensor.new_empty(shape, dtype=dtype or tensor.dtype)
    stored = tensor.new_empty((shape[0], *shape[2:], shape[1]), dtype=dtype or tensor.dtype)
    return stored.permute(0, len(shape) - 1, *range(1, len(shape) - 1))


def in_order_of(tensor: Tensor, made: Tensor) -> Tensor:
    """Return a result of a tensor's shape in the memory order that `like` promised of it."""
    if made.dim() < 3:
        return made.contiguous()
    wanted = like(tensor, tensor.shape)
    return made if made.stride() == wanted.stride() else wanted.copy_(made)


def untraced(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what `torch.compile` cannot see through; it goes on behind the call."""
    if torch.compiler.is_compiling():
        return _apart(function, *args, **kwargs)
    return function(*args, **kwargs)


@_disable_dynamo
def _apart(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def derived(
    function: Callable[..., Tensor], tensors: Sequence[Tensor | None], grads: Tensor
) -> tuple[Tensor | None, ...]:
    """Return PyTorch's gradients, None of what wants none; of them gradients may be taken in turn.

    Parameters
    ----------
    function : callable
        Computes what an operator does, of the tensors, by PyTorch's means.
    tensors : sequence of tensor or None
        What the operator was given.
    grads : tensor
        The gradient for its output.
    """
    wanted = [each for each in tensors if each is not None and each.requires_grad]
    made = iter(torch.autograd.grad(function(*tensors), wanted, grads, create_graph=True))
    asks = (each is not None and each.requires_grad for each in tensors)
    return tuple(next(made) if asked else None for asked in asks)


def define(
    schema: str,
    compute: Callable[..., Any],
    fake: Callable[..., Any],
    keep: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Any:
    """Register an operator of the namespace ``fastconv`` and return it.

    Parameters
    ----------
    schema : str
        Its name, arguments and results, as PyTorch writes them.
    compute : callable
        Computes it, of tensors on the CPU; its results share no memory with its arguments.
    fake : callable
        Returns uninitialised tensors like the results.
    keep : callable, optional
        ``keep(ctx, inputs, output)`` stores what the gradient needs.
    backward : callable, optional
        ``backward(ctx, *grads)`` returns a gradient, or None, for every argument. Gradients are
        recorded in it where gradients of its results will be taken.
    """
    name, bracket, rest = schema.partition("(")
    made = torch.library.custom_op(
        f"fastconv::{name}", compute, mutates_args=(), device_types="cpu", schema=bracket + rest
    )
    made.register_fake(fake)
    if backward is not None:
        made.register_autograd(backward, setup_context=keep)
    return made
