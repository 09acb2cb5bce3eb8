"""Columns of gradients' rows: ``fastconv.grad`` and PyTorch's backward pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.contract.problem import ConvProblem

from .own import Fastconv, FastconvBest
from .peer import Call, Peer, Refusal
from .peers import Torch, TorchChannelsLast, symmetric_padding

__all__ = ["GRADIENT_PEERS"]


def _result_shape(problem: ConvProblem) -> tuple[int, ...]:
    of_input = problem.op == "conv_input_grad"
    return problem.x_shape if of_input else problem.weight_shape


class GradientFastconv(Fastconv):
    """``fastconv.grad.conv2d_input`` and ``conv2d_weight``, and their 1-D and 3-D kin."""

    def prepare(self, problem: ConvProblem, *arrays: Any) -> Call:
        """Return the call, which packs what it packs each time."""
        from fastconv import grad

        first, given = arrays
        names = ("stride", "padding", "dilation", "groups")
        keywords = {name: getattr(problem, name) for name in names}
        size = _result_shape(problem)
        if problem.op == "conv_input_grad":
            function = getattr(grad, f"conv{problem.ndim}d_input")
            return lambda: function(size, first, given, **keywords)
        function = getattr(grad, f"conv{problem.ndim}d_weight")
        return lambda: function(first, size, given, **keywords)

    def to_numpy(self, problem: ConvProblem, result: Any) -> np.ndarray:
        """Return the gradient."""
        return np.asarray(result).reshape(_result_shape(problem))

    def kernel(self, problem: ConvProblem) -> str | None:
        """Return the dispatcher's choices."""
        from fastconv import explain

        return ", ".join(sorted({row.kernel for row in explain(problem).rows if row.chosen}))


class GradientFastconvBest(FastconvBest, GradientFastconv):
    """The same with the fastest of the kernels that can run it."""


class GradientTorch(Torch):
    """PyTorch's ``convolution_backward``, as its autograd calls it, for one operand."""

    def prepare(self, problem: ConvProblem, *arrays: np.ndarray) -> Call:
        """Return the call; it is told to make the one gradient alone."""
        import torch

        pads = symmetric_padding(problem)
        if pads is None:
            raise Refusal("PyTorch's backward pass pads alike on both sides")
        first, given = self._tensors(problem, *arrays)
        of_input = problem.op == "conv_input_grad"
        # Of the operand whose gradient it is only the shape counts.
        shape = np.zeros(_result_shape(problem), arrays[0].dtype)
        other, _ = self._tensors(problem, shape, shape)
        x, weight = (other, first) if of_input else (first, other)
        mask = [of_input, not of_input, False]
        index, backward = int(not of_input), torch.ops.aten.convolution_backward
        stride, dilation = list(problem.stride), list(problem.dilation)
        none = [0] * problem.ndim
        return lambda: backward(
            given, x, weight, None, stride, list(pads), dilation, False, none, problem.groups, mask
        )[index]

    def to_numpy(self, problem: ConvProblem, result: Any) -> np.ndarray:
        """Return the gradient."""
        wide = result.float() if problem.dtype == "bfloat16" else result
        array: np.ndarray = wide.numpy().reshape(_result_shape(problem))
        return array


class GradientTorchChannelsLast(GradientTorch, TorchChannelsLast):
    """The same with all operands in PyTorch's channels-last memory format."""


GRADIENT_PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        GradientFastconv,
        GradientFastconvBest,
        GradientTorch,
        GradientTorchChannelsLast,
    )
}
