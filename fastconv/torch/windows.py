"""Pools over windows as operators of PyTorch's: maxima by their places, means and norms.

The gradient of a maximum goes to its place; so it is found by the places, which are only made
where a gradient may be wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

import fastconv

from ..contract.pool_problem import pooled_size
from .registry import by_axes, define, derived, like, on_arrays

__all__ = [
    "ADAPTIVE_AVG_POOL",
    "ADAPTIVE_MAX_POOL",
    "AVG_POOL",
    "LP_POOL",
    "MAX_POOL",
    "MAX_POOL_PLACES",
]

Tensor = torch.Tensor
_WINDOW = "SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, SymInt[] dilation"


def _pooled(
    input: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], ceil_mode: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """Return the shape of a pool's output."""
    axes = zip(input.shape[2:], kernel_size, stride, padding, dilation, strict=True)
    return (*input.shape[:2], *(pooled_size(*axis, ceil_mode) for axis in axes))


def _calling(module: Any, name: str, rank: int = 0, **words: Any) -> Callable[..., Any]:
    """Return what calls an operator's function, by the axes of operand number `rank`."""
    functions = by_axes(module, name)

    def call(*given: Any) -> Any:
        return on_arrays(functions[given[rank].dim() - 2], *given, **words)

    return call


def _define_places(name: str, arguments: str, shape: Callable[..., Any]) -> Any:
    """Register a pool of maxima and their places."""
    # The gradient of what puts values at their places takes them from there, and the other way.
    taken = define(
        f"{name}_taken(Tensor indices, Tensor values) -> Tensor",
        _calling(fastconv.grad, "max_unpool{}d_input"),
        lambda indices, values: like(values, indices.shape),
    )
    placed = define(
        f"{name}_input(SymInt[] input_size, Tensor indices, Tensor grad_output) -> Tensor",
        _calling(fastconv.grad, name.replace("pool", "pool{}d") + "_input", 1),
        lambda size, indices, grad: like(grad, size),
        lambda ctx, inputs, output: ctx.save_for_backward(inputs[1]),
        lambda ctx, grad: (None, None, taken(*ctx.saved_tensors, grad)),
    )

    def fake(input: Tensor, *told: Any) -> tuple[Tensor, Tensor]:
        size = shape(input, *told)
        return like(input, size), like(input, size, torch.int64)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.size, ctx.rest = inputs[0].shape, len(inputs) - 1

    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
        (indices,) = ctx.saved_tensors
        return placed(ctx.size, indices, grad), *(None,) * ctx.rest

    return define(
        f"{name}_places(Tensor input, {arguments}) -> (Tensor, Tensor)",
        _calling(fastconv, name.replace("pool", "pool{}d"), return_indices=True),
        fake,
        keep,
        backward,
    )


def _define_means(
    name: str, arguments: str, shape: Callable[..., Any], forward: Any, gradient: Any
) -> Any:
    """Register a pool of means, whose gradient needs no more of the input than its shape."""
    for_input = define(
        f"{name}_input(SymInt[] input_size, Tensor grad_output, {arguments}) -> Tensor",
        gradient,
        lambda size, grad, *told: like(grad, size),
        lambda ctx, inputs, output: setattr(ctx, "told", inputs[2:]),
        lambda ctx, grad: (None, means(grad, *ctx.told), *(None for _ in ctx.told)),
    )

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.size, ctx.told = inputs[0].shape, inputs[1:]

    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return for_input(ctx.size, grad, *ctx.told), *(None for _ in ctx.told)

    means = define(
        f"{name}(Tensor input, {arguments}) -> Tensor",
        forward,
        lambda input, *told: like(input, shape(input, *told)),
        keep,
        backward,
    )
    return means


def _mean_told(call: Callable[..., Any], rank: int) -> Callable[..., Any]:
    """Return a call of a mean's function, which knows a divisor with two axes or more alone."""

    def told(*given: Any) -> Any:
        short = given[rank].dim() == 3 and given[-1] is None
        return call(*(given[:-1] if short else given))

    return told


def _adaptive(input: Tensor, output_size: Sequence[int]) -> tuple[Any, ...]:
    return (*input.shape[:2], *output_size)


def _mean_shape(
    input: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    ceil_mode: bool, *told: Any,
) -> tuple[Any, ...]:  # fmt: skip
    return _pooled(input, kernel_size, stride, padding, (1,) * len(kernel_size), ceil_mode)


def _norm_shape(
    input: Tensor, norm_type: float, kernel_size: Sequence[int], stride: Sequence[int],
    ceil_mode: bool,
) -> tuple[Any, ...]:  # fmt: skip
    return _mean_shape(input, kernel_size, stride, (0,) * len(kernel_size), ceil_mode)


MAX_POOL_PLACES = _define_places("max_pool", f"{_WINDOW}, bool ceil_mode", _pooled)
ADAPTIVE_MAX_POOL = _define_places("adaptive_max_pool", "SymInt[] output_size", _adaptive)


def _keep_all(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.told = inputs[1:]


def _adaptive_gradient(size: Sequence[int], grad: Tensor, output_size: Sequence[int]) -> Any:
    call = _calling(fastconv.grad, "adaptive_avg_pool{}d_input", 1)
    return call(size, grad)


#: Without places, for whoever wants no gradient.
MAX_POOL = define(
    f"max_pool(Tensor input, {_WINDOW}, bool ceil_mode) -> Tensor",
    _calling(fastconv, "max_pool{}d"),
    lambda input, *told: like(input, _pooled(input, *told)),
)
_MEAN = (
    "SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, bool ceil_mode, "
    "bool count_include_pad, SymInt? divisor_override"
)
AVG_POOL = _define_means(
    "avg_pool",
    _MEAN,
    _mean_shape,
    _mean_told(_calling(fastconv, "avg_pool{}d"), 0),
    _mean_told(_calling(fastconv.grad, "avg_pool{}d_input", 1), 1),
)
ADAPTIVE_AVG_POOL = _define_means(
    "adaptive_avg_pool",
    "SymInt[] output_size",
    _adaptive,
    _calling(fastconv, "adaptive_avg_pool{}d"),
    _adaptive_gradient,
)
_NORM = "float norm_type, SymInt[] kernel_size, SymInt[] stride, bool ceil_mode"
_norm_input = define(
    f"lp_pool_input(Tensor input, Tensor grad_output, {_NORM}) -> Tensor",
    _calling(fastconv.grad, "lp_pool{}d_input"),
    lambda input, grad, *told: like(grad, input.shape),
)


def _norm(
    input: Tensor, norm_type: float, kernel_size: Sequence[int], stride: Sequence[int],
    ceil_mode: bool,
) -> Tensor:  # fmt: skip
    """Return a pool of norms by means of powers, whose gradients have gradients."""
    padding = (0,) * len(kernel_size)
    means = AVG_POOL(input**norm_type, kernel_size, stride, padding, ceil_mode, True, None)
    # As PyTorch has it, where the powers add up to nothing no gradient passes.
    sums = torch.sign(means) * torch.relu(means.abs()) * math.prod(kernel_size)
    return sums ** (1 / norm_type)


def _norm_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    rest = (None for _ in ctx.told)
    if torch.is_grad_enabled():
        return *derived(lambda x: _norm(x, *ctx.told), ctx.saved_tensors, grad), *rest
    return _norm_input(*ctx.saved_tensors, grad, *ctx.told), *rest


LP_POOL = define(
    f"lp_pool(Tensor input, {_NORM}) -> Tensor",
    _calling(fastconv, "lp_pool{}d"),
    lambda input, *told: like(input, _norm_shape(input, *told)),
    _keep_all,
    _norm_backward,
)
