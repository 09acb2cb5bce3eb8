"""Columns of pairs of convolutions: fastconv's one call, and two operators of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.contract.pair_problem import PairProblem
from fastconv.contract.problem import ConvProblem

from .own import Fastconv, FastconvBest
from .peer import Call, Peer, Refusal
from .peers import OnnxPeer, OnnxRuntime, OpenVino, Torch, TorchChannelsLast, symmetric_padding

__all__ = ["PAIR_PEERS"]

_NAMES = ("stride", "padding", "dilation")


def _call_of(problem: PairProblem, separable: str, pair: str) -> tuple[Any, dict[str, Any]]:
    """Return fastconv's function or class for a problem, and what is given beside the arrays."""
    import fastconv

    if problem.ndim != 2:
        raise Refusal("pairs are of two spatial axes")
    if problem.is_separable:
        told = {name: getattr(problem.first, name) for name in _NAMES}
        return getattr(fastconv, separable), told
    parts = {"first": problem.first, "second": problem.second}
    names = (*_NAMES, "groups")
    told = {f"{part}_{name}": getattr(of, name) for part, of in parts.items() for name in names}
    return getattr(fastconv, pair), told


class PairFastconv(Fastconv):
    """The `SeparableConv2d` and `Conv2dPair` objects: weights packed once."""

    def prepare(self, problem: PairProblem, *arrays: Any) -> Call:
        """Pack the weights; the call is ``layer(x)``."""
        x, first, second = arrays
        make, told = _call_of(problem, "SeparableConv2d", "Conv2dPair")
        layer = make(first, second, **told)
        return lambda: layer(x)

    def able(self, problem: PairProblem, *arrays: Any) -> list[str]:
        """Return no kernel: the two convolutions want one each."""
        return []

    def kernel(self, problem: PairProblem) -> str | None:
        """Return the dispatcher's choices."""
        from fastconv import explain

        return ", ".join(dict.fromkeys(row.kernel for row in explain(problem).rows))


class PairFastconvFunctional(PairFastconv):
    """``separable_conv2d`` and ``conv2d_pair``."""

    name = "fastconv_functional"

    def prepare(self, problem: PairProblem, *arrays: Any) -> Call:
        """Return the functional call."""
        x, first, second = arrays
        function, told = _call_of(problem, "separable_conv2d", "conv2d_pair")
        return lambda: function(x, first, second, **told)


class PairFastconvBest(FastconvBest, PairFastconv):
    """The objects with the dispatcher's kernels: there is no one kernel to force."""

    def kernel(self, problem: PairProblem) -> str | None:
        """Return the dispatcher's choices."""
        return PairFastconv.kernel(self, problem)


class PairTorch(Torch):
    """Two calls of ``torch.nn.functional.conv*`` on tensors in the problem's memory order."""

    def prepare(self, problem: Any, *arrays: np.ndarray) -> Call:
        """Return the two calls as one."""
        from torch.nn import functional

        convolve = getattr(functional, f"conv{problem.ndim}d")
        x, first, second = arrays
        xt, first_weight = self._tensors(problem.first, x, first)
        _, second_weight = self._tensors(problem.second, x, second)

        def bind(of: ConvProblem, weight: Any) -> Callable[[Any], Any]:
            stride, dilation, groups = of.stride, of.dilation, of.groups
            pads = symmetric_padding(of)
            if pads is None:
                raise Refusal("PyTorch pads alike on both sides")
            return lambda image: convolve(image, weight, None, stride, pads, dilation, groups)

        before, after = bind(problem.first, first_weight), bind(problem.second, second_weight)
        return lambda: after(before(xt))


class PairTorchChannelsLast(PairTorch, TorchChannelsLast):
    """The same with input and weights in PyTorch's channels-last memory format."""


class _TwoNodes(OnnxPeer):
    """A library that is given a model of two Conv nodes."""

    def prepare(self, problem: Any, x: np.ndarray, *weights: np.ndarray) -> Call:
        """Make the model and return its call."""
        return super().prepare(problem, x, weights)

    def model(self, problem: Any, w: Any) -> bytes:
        """Return the model of a problem with its weights."""
        from onnx import helper, numpy_helper

        element = helper.np_dtype_to_tensor_dtype(w[0].dtype)
        names = [("x", "first", "middle"), ("middle", "second", "y")]
        nodes = [
            helper.make_node(
                "Conv", [source, weight], [made], strides=list(of.stride), group=of.groups,
                pads=[pad for side in zip(*of.padding, strict=True) for pad in side],
                dilations=list(of.dilation),
            )
            for of, (source, weight, made) in zip(
                (problem.first, problem.second), names, strict=True
            )
        ]  # fmt: skip
        graph = helper.make_graph(
            nodes,
            "pair",
            [helper.make_tensor_value_info("x", element, list(problem.x_shape))],
            [helper.make_tensor_value_info("y", element, list(problem.out_shape))],
            [
                numpy_helper.from_array(np.ascontiguousarray(weight), name)
                for weight, (_, name, _) in zip(w, names, strict=True)
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        content: bytes = model.SerializeToString()
        return content


class PairOnnxRuntime(_TwoNodes, OnnxRuntime):
    """ONNX Runtime's CPU provider on that model."""


class PairOpenVino(_TwoNodes, OpenVino):
    """OpenVINO's CPU plugin on the same."""


PAIR_PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        PairFastconv,
        PairFastconvFunctional,
        PairFastconvBest,
        PairTorch,
        PairTorchChannelsLast,
        PairOnnxRuntime,
        PairOpenVino,
    )
}
