"""Norms, softmax, resizing and prelu as operators of PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

import fastconv

from ..contract.resize_problem import scaled_size
from ..ops.resize import resize_settings
from .registry import define, derived, in_order_of, like, on_arrays

__all__ = [
    "BATCH_NORM",
    "GROUP_NORM",
    "INSTANCE_NORM",
    "INTERPOLATE",
    "LAYER_NORM",
    "LOG_SOFTMAX",
    "PRELU",
    "SOFTMAX",
]

Tensor = torch.Tensor
grad = fastconv.grad
INTERPOLATE: Any
_theirs: Any = torch  # whose stubs do not know the arguments of its norms


class _Norm(NamedTuple):
    """What tells one norm from another; `told` is what stands between the input and the weight.

    Parameters
    ----------
    name, told : str
        The operator's name, and the schema of what it is told.
    forward, for_input, for_weight, for_bias : callable
        Compute: of ``(input, told, weight, bias, eps)``, ``(input, told, weight, grad_output,
        eps)``, ``(input, told, grad_output, eps)`` and ``(told, grad_output)``.
    theirs : callable
        PyTorch's, as `forward`, whose gradients have gradients.
    """

    name: str
    told: str
    forward: Callable[..., Tensor]
    for_input: Callable[..., Tensor]
    for_weight: Callable[..., Tensor]
    for_bias: Callable[..., Tensor]
    theirs: Callable[..., Tensor]


def _define(norm: _Norm) -> Any:
    """Register a norm and its gradients, and return the norm."""
    told = f", {norm.told}" if norm.told else ""
    for_input = define(
        f"{norm.name}_input(Tensor input{told}, Tensor? weight, Tensor grad_output, float eps)"
        " -> Tensor",
        lambda input, *more: in_order_of(input, norm.for_input(input, more[:-3], *more[-3:])),
        lambda input, *more: like(input, input.shape),
    )
    # How long a parameter is, the forward call knows: its shape goes along.
    for_weight = define(
        f"{norm.name}_weight(Tensor input{told}, Tensor grad_output, float eps, SymInt[] size)"
        " -> Tensor",
        lambda input, *more: norm.for_weight(input, more[:-3], *more[-3:-1]),
        lambda input, *more: input.new_empty(more[-1]),
    )
    for_bias = define(
        f"{norm.name}_bias(Tensor input{told}, Tensor grad_output, SymInt[] size) -> Tensor",
        lambda input, *more: norm.for_bias(more[:-2], more[-2]),
        lambda input, *more: input.new_empty(more[-1]),
    )

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, *between, weight, bias, eps = inputs
        tensors = [each for each in between if isinstance(each, Tensor)]
        ctx.save_for_backward(input, weight, *tensors)
        ctx.told = [] if tensors else between
        ctx.eps, ctx.count = eps, len(between)
        ctx.sizes = [None if each is None else each.shape for each in (weight, bias)]

    def backward(ctx: Any, grads: Tensor) -> tuple[Any, ...]:
        input, weight, *tensors = ctx.saved_tensors
        between = tensors or ctx.told
        wanted = (ctx.needs_input_grad[0], *ctx.needs_input_grad[ctx.count + 1 : ctx.count + 3])
        (weight_size, bias_size), eps = ctx.sizes, ctx.eps
        if torch.is_grad_enabled():
            # Of a bias the gradients tell nothing but that there is one.
            bias: Any = None if bias_size is None else grads.new_zeros(bias_size)
            if weight is None and bias is not None:
                weight = torch.ones_like(bias)  # without, PyTorch forgets the bias in second ones
            given = (input, weight, bias.requires_grad_() if wanted[2] else bias)
            first, *rest = derived(lambda x, w, b: norm.theirs(x, between, w, b, eps), given, grads)
            return first, *(None for _ in between), *rest, None
        return (
            for_input(input, *between, weight, grads, eps) if wanted[0] else None,
            *(None for _ in between),
            for_weight(input, *between, grads, eps, weight_size) if wanted[1] else None,
            for_bias(input, *between, grads, bias_size) if wanted[2] else None,
            None,
        )

    return define(
        f"{norm.name}(Tensor input{told}, Tensor? weight, Tensor? bias, float eps) -> Tensor",
        lambda input, *more: in_order_of(input, norm.forward(input, more[:-3], *more[-3:])),
        lambda input, *more: like(input, input.shape),
        keep,
        backward,
    )


BATCH_NORM = _define(
    _Norm(
        "batch_norm",
        "Tensor running_mean, Tensor running_var",
        lambda x, told, w, b, eps: on_arrays(fastconv.batch_norm, x, *told, w, b, eps=eps),
        lambda x, told, w, g, eps: on_arrays(grad.batch_norm_input, x, *told, w, g, eps=eps),
        lambda x, told, g, eps: on_arrays(grad.batch_norm_weight, x, *told, g, eps=eps),
        lambda told, g: on_arrays(grad.batch_norm_bias, g),
        lambda x, told, w, b, eps: _theirs.batch_norm(x, w, b, *told, False, 0.0, eps, False),
    )
)
GROUP_NORM = _define(
    _Norm(
        "group_norm",
        "SymInt num_groups",
        lambda x, told, w, b, eps: on_arrays(fastconv.group_norm, x, *told, w, b, eps),
        lambda x, told, w, g, eps: on_arrays(grad.group_norm_input, x, w, g, *told, eps),
        lambda x, told, g, eps: on_arrays(grad.group_norm_weight, x, g, *told, eps),
        lambda told, g: on_arrays(grad.group_norm_bias, g),
        lambda x, told, w, b, eps: _theirs.group_norm(x, *told, w, b, eps),
    )
)
INSTANCE_NORM = _define(
    _Norm(
        "instance_norm",
        "",
        lambda x, told, w, b, eps: on_arrays(fastconv.instance_norm, x, None, None, w, b, eps=eps),
        lambda x, told, w, g, eps: on_arrays(grad.instance_norm_input, x, w, g, eps),
        lambda x, told, g, eps: on_arrays(grad.instance_norm_weight, x, g, eps),
        lambda told, g: on_arrays(grad.instance_norm_bias, g),
        lambda x, told, w, b, eps: _theirs.instance_norm(
            x, w, b, None, None, True, 0.0, eps, False
        ),
    )
)
LAYER_NORM = _define(
    _Norm(
        "layer_norm",
        "SymInt[] normalized_shape",
        lambda x, told, w, b, eps: on_arrays(fastconv.layer_norm, x, *told, w, b, eps),
        lambda x, told, w, g, eps: on_arrays(grad.layer_norm_input, x, w, g, *told, eps),
        lambda x, told, g, eps: on_arrays(grad.layer_norm_weight, x, g, *told, eps),
        lambda told, g: on_arrays(grad.layer_norm_bias, g, *told),
        lambda x, told, w, b, eps: _theirs.layer_norm(x, *told, w, b, eps),
    )
)


def _define_softmax(name: str, theirs: Callable[[Tensor, Tensor, int], Tensor]) -> Any:
    """Register a softmax, whose gradient is told by its output, and by PyTorch's means, too."""
    for_input = define(
        f"{name}_input(Tensor output, Tensor grad_output, int dim) -> Tensor",
        lambda output, grads, dim: in_order_of(
            output, on_arrays(getattr(grad, f"{name}_input"), output, grads, dim)
        ),
        lambda output, grads, dim: like(output, output.shape),
    )

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.dim = inputs[1]

    def backward(ctx: Any, grads: Tensor) -> tuple[Any, ...]:
        input_gradient: Any = theirs if torch.is_grad_enabled() else for_input
        return input_gradient(*ctx.saved_tensors, grads, ctx.dim), None

    return define(
        f"{name}(Tensor input, int dim) -> Tensor",
        lambda input, dim: in_order_of(input, on_arrays(getattr(fastconv, name), input, dim)),
        lambda input, dim: like(input, input.shape),
        keep,
        backward,
    )


SOFTMAX = _define_softmax(
    "softmax", lambda made, grads, dim: made * (grads - (grads * made).sum(dim, keepdim=True))
)
LOG_SOFTMAX = _define_softmax(
    "log_softmax", lambda made, grads, dim: grads - made.exp() * grads.sum(dim, keepdim=True)
)

_RESIZED = (
    "SymInt[]? size, float[]? scale_factor, str mode, bool? align_corners, "
    "bool? recompute_scale_factor"
)


def _resized(input: Tensor, size: Any, scale_factor: Any, *told: Any) -> Tensor:
    """Return an uninitialised output of a resize."""
    if size is None:
        settings = resize_settings(tuple(input.shape[2:]), None, tuple(scale_factor), *told)
        size = settings.get("out_size") or tuple(
            scaled_size(n, factor) for n, factor in zip(input.shape[2:], scale_factor, strict=True)
        )
    return like(input, (*input.shape[:2], *size))


def _keep_size(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.size, ctx.told = inputs[0].shape, inputs[1:]


_interpolate_input = define(
    f"interpolate_input(SymInt[] input_size, Tensor grad_output, {_RESIZED}) -> Tensor",
    lambda *given: on_arrays(grad.interpolate_input, *given),
    lambda size, grads, *told: like(grads, size),
    lambda ctx, inputs, output: setattr(ctx, "told", inputs[2:]),
    lambda ctx, grads: (None, INTERPOLATE(grads, *ctx.told), *(None for _ in ctx.told)),
)
INTERPOLATE = define(
    f"interpolate(Tensor input, {_RESIZED}) -> Tensor",
    lambda *given: on_arrays(fastconv.interpolate, *given),
    _resized,
    _keep_size,
    lambda ctx, grads: (
        _interpolate_input(ctx.size, grads, *ctx.told),
        *(None for _ in ctx.told),
    ),
)

_prelu_input = define(
    "prelu_input(Tensor input, Tensor weight, Tensor grad_output) -> Tensor",
    lambda *given: in_order_of(given[0], on_arrays(grad.prelu_input, *given)),
    lambda input, weight, grads: like(input, input.shape),
)
_prelu_weight = define(
    "prelu_weight(Tensor input, Tensor weight, Tensor grad_output) -> Tensor",
    lambda *given: on_arrays(grad.prelu_weight, *given),
    lambda input, weight, grads: weight.new_empty(weight.shape),
)


def _prelu_backward(ctx: Any, grads: Tensor) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        return derived(torch.prelu, ctx.saved_tensors, grads)
    return tuple(
        operator(*ctx.saved_tensors, grads) if wanted else None
        for operator, wanted in zip(
            (_prelu_input, _prelu_weight), ctx.needs_input_grad, strict=True
        )
    )


PRELU = define(
    "prelu(Tensor input, Tensor weight) -> Tensor",
    lambda *given: in_order_of(given[0], on_arrays(fastconv.prelu, *given)),
    lambda input, weight: like(input, input.shape),
    lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    _prelu_backward,
)
