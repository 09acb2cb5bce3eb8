"""Columns of rows without a weight: fastconv's functions, and other libraries' alike."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any, ClassVar

import numpy as np

import fastconv
from fastconv.contract.array_problem import ArrayProblem

from .array_nodes import NODES
from .own import Fastconv, FastconvBest
from .peer import Call, Peer, Refusal
from .peers import OnnxPeer, OnnxRuntime, OpenCV, OpenVino, Torch, torch_tensor

__all__ = ["ARRAY_PEERS"]

#: Functions that PyTorch has for two spatial axes alone.
_PLANAR = ("fold", "unfold")


class ArrayFunctional(Fastconv):
    """fastconv's functions."""

    name = "fastconv_functional"

    def prepare(self, problem: ArrayProblem, *arrays: Any) -> Call:
        """Return the call of the public function."""
        function: Any = resolve_name(f"fastconv.{problem.call().function}")
        args, keywords = problem.arguments(arrays)
        return lambda: _first(function(*args, **keywords))


class ArrayFastconv(ArrayFunctional):
    """Objects of operators that keep a weight; functions of others."""

    name = "fastconv"

    def prepare(self, problem: ArrayProblem, *arrays: Any) -> Call:
        """Make the object if there is such; the call is ``layer(x, ...)``."""
        _, keywords, layer = problem.call()
        if not layer:
            return super().prepare(problem, *arrays)
        names = (operand.name for operand in problem.inputs)
        given = dict(zip(names, arrays, strict=True))
        own = {each: given.pop(each) for each in ("weight", "bias") if each in given}
        made = getattr(fastconv, layer)(**own, **keywords)
        return lambda: made(**given)


class ArrayFastconvBest(FastconvBest, ArrayFastconv):
    """The same with the fastest of all kernels that can run a problem."""


class ArrayTorch(Torch):
    """PyTorch's functional form, on tensors in the problem's own memory order."""

    def prepare(self, problem: Any, *arrays: np.ndarray) -> Call:
        """Return the functional call."""
        name = problem.call().function
        function = _torch_function(name)
        if name in _PLANAR and len(problem.in_size) != 2:
            raise Refusal(f"PyTorch has {name} for images alone")
        tensors = [self._ordered(torch_tensor(array)) for array in arrays]
        args, keywords = problem.arguments(tensors)
        return lambda: _first(function(*args, **keywords))

    def _ordered(self, tensor: Any) -> Any:
        return tensor


class ArrayTorchChannelsLast(ArrayTorch):
    """The same with inputs in PyTorch's channels-last memory format."""

    name = "torch_channels_last"

    def _ordered(self, tensor: Any) -> Any:
        import torch

        if tensor.ndim == 3:
            raise Refusal("PyTorch has no channels-last memory format for 1-D")
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        if tensor.ndim not in formats:
            return tensor
        return tensor.contiguous(memory_format=formats[tensor.ndim])


def _torch_function(name: str) -> Any:
    """Return PyTorch's functional form, or torchvision's operator where that has it."""
    from torch.nn import functional

    function = getattr(functional, name, None)
    if function is None and find_spec("torchvision"):
        function = getattr(import_module("torchvision.ops"), name, None)
    if function is None:
        raise Refusal(f"neither PyTorch nor torchvision has a functional form {name} here")
    return function


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


class _OneNode(OnnxPeer):
    """A library that is given a model of one node."""

    def model(self, problem: Any, w: Any) -> bytes:
        """Return the model of a problem; `w` are the arrays behind the first."""
        from onnx import helper, numpy_helper

        if problem.op not in NODES:
            raise Refusal(f"ONNX has no node for {problem.op}")
        kind, attributes, more, order = NODES[problem.op](problem)
        element = helper.np_dtype_to_tensor_dtype(np.dtype(problem.dtype))
        names = [operand.name for operand in problem.inputs[1:]]
        constants = dict(zip(names, w, strict=True)) | dict(more)
        inputs = [name if name in constants else "" for name in order] or list(constants)
        node = helper.make_node(kind, ["x", *inputs], ["y"], **attributes)
        graph = helper.make_graph(
            [node],
            kind,
            [helper.make_tensor_value_info("x", element, list(problem.x_shape))],
            [helper.make_tensor_value_info("y", element, list(problem.out_shape))],
            [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
        model.ir_version = 9
        content: bytes = model.SerializeToString()
        return content

    def prepare(self, problem: Any, x: np.ndarray, *others: np.ndarray) -> Call:
        """Build the model with the other arrays as its constants."""
        return super().prepare(problem, x, others)


class ArrayOnnxRuntime(_OneNode, OnnxRuntime):
    """ONNX Runtime's CPU provider on that model."""


class ArrayOpenVino(_OneNode, OpenVino):
    """OpenVINO's CPU plugin on the same."""


class ArrayOpenCV(OpenCV):
    """``cv2.resize``: an image whose channels lie side by side at once, another one by planes."""

    modes: ClassVar[dict[str, str]] = {"bilinear": "INTER_LINEAR", "bicubic": "INTER_CUBIC"}

    def prepare(self, problem: Any, x: np.ndarray, *others: np.ndarray) -> Call:
        """Return the call, whose output is an array of the problem's memory order."""
        import cv2

        if problem.op != "interpolate" or problem.mode not in self.modes:
            raise Refusal("OpenCV is called to resize by bilinear or bicubic interpolation only")
        if problem.align_corners or problem.scale:
            raise Refusal("OpenCV aligns the edges, and has no factor beside the sizes")
        if problem.batch != 1 or problem.channels not in (1, 3) or problem.dtype != "float32":
            raise Refusal("OpenCV is called on one image of 1 or 3 channels of float32 only")
        size, how = problem.out_size[::-1], getattr(cv2, self.modes[problem.mode])
        if problem.layout == "channels_last":
            pixels = np.ascontiguousarray(x[0].transpose(1, 2, 0))
            return lambda: cv2.resize(pixels, size, interpolation=how).transpose(2, 0, 1)[None]
        planes = np.ascontiguousarray(x[0])

        def call() -> Any:
            out = np.empty(problem.out_shape, np.float32)
            for plane, target in zip(planes, out[0], strict=True):
                cv2.resize(plane, size, target, interpolation=how)
            return out

        return call


ARRAY_PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        ArrayFastconv,
        ArrayFunctional,
        ArrayFastconvBest,
        ArrayTorch,
        ArrayTorchChannelsLast,
        ArrayOnnxRuntime,
        ArrayOpenVino,
        ArrayOpenCV,
    )
}
