"""Columns of transposed rows: fastconv's layers and functions, and other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.contract.transposed_problem import TransposedProblem

from .own import Fastconv, FastconvBest
from .peer import Call, Peer, Refusal
from .peers import OnnxPeer, OnnxRuntime, OpenVino, Torch, TorchChannelsLast, onnx_model

__all__ = ["TRANSPOSED_PEERS"]

_ARGUMENTS = ("stride", "padding", "output_padding", "groups", "dilation")


def _arguments(problem: TransposedProblem) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in _ARGUMENTS}


class TransposedFastconv(Fastconv):
    """The `ConvTranspose1d`/`2d`/`3d` objects: weights packed once."""

    def prepare(self, problem: TransposedProblem, *arrays: Any) -> Call:
        """Pack the weight; the call is ``layer(x)``."""
        import fastconv

        x, w = arrays
        layer = getattr(fastconv, f"ConvTranspose{problem.ndim}d")(w, None, **_arguments(problem))
        return lambda: layer(x)

    def able(self, problem: TransposedProblem, *arrays: Any) -> list[str]:
        """Return the names of the kernels that can run every part."""
        from fastconv import explain
        from fastconv.ops.transposed_stack import find_stack

        stack = find_stack(problem)
        if stack is None:
            kinds = {problem.dense(phase) for phase in problem.phases()}
        else:
            kinds = {problem.stacked(stack, rows) for rows in problem.bands()}
        able = [
            {row.kernel for row in explain(dense).rows if row.milliseconds is not None}
            for dense in kinds
        ]
        return sorted(set.intersection(*able))

    def kernel(self, problem: TransposedProblem) -> str | None:
        """Return the dispatcher's choices for the phases."""
        from fastconv import explain

        kernels = {row.kernel for row in explain(problem).rows}
        return ", ".join(sorted(kernels))


class TransposedFastconvFunctional(TransposedFastconv):
    """``conv_transpose1d`` to ``conv_transpose3d``."""

    name = "fastconv_functional"

    def prepare(self, problem: TransposedProblem, *arrays: Any) -> Call:
        """Return ``conv_transpose2d(x, w, ...)`` or its 1-D or 3-D kin."""
        import fastconv

        x, w = arrays
        function = getattr(fastconv, f"conv_transpose{problem.ndim}d")
        arguments = _arguments(problem)
        return lambda: function(x, w, None, **arguments)


class TransposedFastconvBest(FastconvBest, TransposedFastconv):
    """The layers with the fastest of the kernels that can run every part."""


def _pads(problem: TransposedProblem) -> tuple[int, ...]:
    """Return one pad an axis; rows of a suite have the same at both sides."""
    if any(low != high for low, high in problem.padding):
        raise Refusal("crops as much on both sides only")
    return tuple(low for low, _ in problem.padding)


class TransposedTorch(Torch):
    """``torch.nn.functional.conv_transpose*`` on tensors in the problem's own memory order."""

    def prepare(self, problem: Any, x: np.ndarray, w: np.ndarray) -> Call:
        """Return the functional call."""
        from torch.nn import functional

        conv = getattr(functional, f"conv_transpose{problem.ndim}d")
        xt, wt = self._tensors(problem, x, w)
        pads, extra, groups = _pads(problem), problem.output_padding, problem.groups
        stride, dilation = problem.stride, problem.dilation
        return lambda: conv(xt, wt, None, stride, pads, extra, groups, dilation)


class TransposedTorchChannelsLast(TransposedTorch, TorchChannelsLast):
    """The same with input and weight in PyTorch's channels-last memory format."""


class _OneNode(OnnxPeer):
    """A library that is given a model of one ConvTranspose node."""

    def model(self, problem: Any, w: np.ndarray) -> bytes:
        """Return the model of a problem with its weight."""
        pads = _pads(problem)
        return onnx_model(
            "ConvTranspose", problem, w, strides=list(problem.stride), pads=[*pads, *pads],
            dilations=list(problem.dilation), group=problem.groups,
            output_padding=list(problem.output_padding),
        )  # fmt: skip


class TransposedOnnxRuntime(_OneNode, OnnxRuntime):
    """ONNX Runtime's CPU provider on that model."""


class TransposedOpenVino(_OneNode, OpenVino):
    """OpenVINO's CPU plugin on the same."""


TRANSPOSED_PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        TransposedFastconv,
        TransposedFastconvFunctional,
        TransposedFastconvBest,
        TransposedTorch,
        TransposedTorchChannelsLast,
        TransposedOnnxRuntime,
        TransposedOpenVino,
    )
}
