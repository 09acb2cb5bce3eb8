"""Operators that multiply an input by a weight: convolutions, transposed ones, dense layers.

Each is a family of three, linear in two operands each: the operator itself and its gradients for
the input and for the weight. A gradient's own gradients are members of the family again, so that
second derivatives are there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

import fastconv

from ..contract.padding import output_size
from .registry import by_axes, define, like, on_arrays, pairs

__all__ = ["CONV", "CONV_TRANSPOSE", "LINEAR"]

Tensor = torch.Tensor


class _Family(NamedTuple):
    """What tells one family from another.

    Parameters
    ----------
    name : str
        The operator's.
    arguments : str
        Schema of what stands behind the operands.
    forward, for_input, for_weight, for_bias : callable
        Compute: of ``(input, weight, bias, *arguments)``, ``(input_size, weight, grad_output,
        *arguments)``, ``(input, weight_size, grad_output, *arguments)`` and of ``grad_output``.
    output : callable
        ``output(input, weight, *arguments)`` is an uninitialised output.
    gradient : callable
        ``gradient(grad_output, input_size)`` is an uninitialised gradient for the input.
    channels : int
        The axis of an output that a bias lies along.
    """

    name: str
    arguments: str
    forward: Callable[..., Tensor]
    for_input: Callable[..., Tensor]
    for_weight: Callable[..., Tensor]
    for_bias: Callable[..., Tensor]
    output: Callable[..., Tensor]
    gradient: Callable[..., Tensor]
    channels: int


def _define_bias(family: _Family) -> Any:
    """Register what sums gradients over all but the channels; its own gradient repeats them."""
    axis = family.channels

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.size = inputs[0].shape

    def backward(ctx: Any, grad: Tensor) -> Tensor:
        sizes = [1] * len(ctx.size)
        sizes[axis] = ctx.size[axis]
        return grad.reshape(sizes).expand(ctx.size)

    return define(
        f"{family.name}_bias(Tensor grad_output) -> Tensor",
        family.for_bias,
        lambda grad: grad.new_empty((grad.shape[axis],)),
        keep,
        backward,
    )


def _define(family: _Family) -> Any:
    """Register a family's operators and return the first."""
    name, arguments = family.name, family.arguments
    for_bias = _define_bias(family)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, weight, bias, *told = inputs
        ctx.save_for_backward(input, weight)
        ctx.told, ctx.has_bias = told, bias is not None

    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (input, weight), told = ctx.saved_tensors, ctx.told
        wanted = ctx.needs_input_grad
        return (
            for_input(input.shape, weight, grad, *told) if wanted[0] else None,
            for_weight(input, weight.shape, grad, *told) if wanted[1] else None,
            for_bias(grad) if ctx.has_bias and wanted[2] else None,
            *(None for _ in told),
        )

    forward = define(
        f"{name}(Tensor input, Tensor weight, Tensor? bias{arguments}) -> Tensor",
        family.forward,
        lambda input, weight, bias, *told: family.output(input, weight, *told),
        keep,
        backward,
    )

    def keep_sized(at: int) -> Callable[..., None]:
        """Return what stores two operands, beside which argument `at` is the third one's shape."""

        def store(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            ctx.save_for_backward(*(inputs[place] for place in range(3) if place != at))
            ctx.size, ctx.told = inputs[at], inputs[3:]

        return store

    def input_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weight, grad_output = ctx.saved_tensors
        _, for_the_weight, for_the_grad, *_ = ctx.needs_input_grad
        return (
            None,
            for_weight(grad, weight.shape, grad_output, *ctx.told) if for_the_weight else None,
            forward(grad, weight, None, *ctx.told) if for_the_grad else None,
            *(None for _ in ctx.told),
        )

    def weight_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        input, grad_output = ctx.saved_tensors
        for_the_input, _, for_the_grad, *_ = ctx.needs_input_grad
        return (
            for_input(input.shape, grad, grad_output, *ctx.told) if for_the_input else None,
            None,
            forward(input, grad, None, *ctx.told) if for_the_grad else None,
            *(None for _ in ctx.told),
        )

    for_input = define(
        f"{name}_input(SymInt[] input_size, Tensor weight, Tensor grad_output{arguments})"
        " -> Tensor",
        family.for_input,
        lambda size, weight, grad, *told: family.gradient(grad, size),
        keep_sized(0),
        input_backward,
    )
    for_weight = define(
        f"{name}_weight(Tensor input, SymInt[] weight_size, Tensor grad_output{arguments})"
        " -> Tensor",
        family.for_weight,
        lambda input, size, grad, *told: grad.new_empty(size),
        keep_sized(1),
        weight_backward,
    )
    return forward


_CONV = ", SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups"
_TRANSPOSED = (
    ", SymInt[] stride, SymInt[] padding, SymInt[] output_padding, SymInt groups, SymInt[] dilation"
)


def _conv_told(told: tuple[Any, ...]) -> tuple[Any, ...]:
    stride, padding, dilation, groups = told
    return tuple(stride), pairs(padding), tuple(dilation), groups


def _by_rank(name: str, module: Any, rank: int, translate: Callable[..., Any] = tuple) -> Any:
    """Return what calls an operator's function, by the axes of operand number `rank`."""
    functions = by_axes(module, name)

    def call(*given: Any) -> Any:
        function = functions[given[rank].dim() - 2]
        return on_arrays(function, *given[:3], *translate(given[3:]))

    return call


def _conv_output(
    input: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int,
) -> Tensor:  # fmt: skip
    axes = zip(input.shape[2:], weight.shape[2:], stride, pairs(padding), dilation, strict=True)
    return like(input, (input.shape[0], weight.shape[0], *(output_size(*axis) for axis in axes)))


def _transposed_output(
    input: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int],
    output_padding: Sequence[int], groups: int, dilation: Sequence[int],
) -> Tensor:  # fmt: skip
    axes = zip(
        input.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation, strict=True
    )
    sizes = (
        (size - 1) * step - 2 * pad + hole * (taps - 1) + extra + 1
        for size, taps, step, pad, extra, hole in axes
    )
    return like(input, (input.shape[0], weight.shape[1] * groups, *sizes))


def _linear_output(input: Tensor, weight: Tensor) -> Tensor:
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


CONV = _define(
    _Family(
        "conv",
        _CONV,
        _by_rank("conv{}d", fastconv, 0, _conv_told),
        _by_rank("conv{}d_input", fastconv.grad, 1, _conv_told),
        _by_rank("conv{}d_weight", fastconv.grad, 0, _conv_told),
        _by_rank("conv{}d_bias", fastconv.grad, 0),
        _conv_output,
        like,
        1,
    )
)
CONV_TRANSPOSE = _define(
    _Family(
        "conv_transpose",
        _TRANSPOSED,
        _by_rank("conv_transpose{}d", fastconv, 0),
        _by_rank("conv_transpose{}d_input", fastconv.grad, 1),
        _by_rank("conv_transpose{}d_weight", fastconv.grad, 0),
        _by_rank("conv_transpose{}d_bias", fastconv.grad, 0),
        _transposed_output,
        like,
        1,
    )
)
LINEAR = _define(
    _Family(
        "linear",
        "",
        lambda input, weight, bias: on_arrays(fastconv.linear, input, weight, bias),
        lambda size, weight, grad: on_arrays(fastconv.grad.linear_input, weight, grad),
        lambda input, size, grad: on_arrays(fastconv.grad.linear_weight, input, grad),
        lambda grad: on_arrays(fastconv.grad.linear_bias, grad),
        _linear_output,
        lambda grad, size: grad.new_empty(size),
        -1,
    )
)
