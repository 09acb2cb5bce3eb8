"""One small class a library: how it is called at its best on a problem.

A peer is made inside a worker process. `prepare` does what a user does once (tensors, packed
weights, compiled models) and returns the call that is timed; `to_numpy` turns what the call
returned into an array, to be checked. A problem that a library cannot do, or only in another
arithmetic, is a `Refusal` with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, ClassVar

import numpy as np

from fastconv.contract.problem import INTEGERS, ConvProblem

from .ncnn_peer import Ncnn
from .own import Fastconv, FastconvBest, FastconvFunctional
from .peer import Call, Peer, Refusal
from .truth import numpy_dtype

__all__ = [
    "CPU_PEERS",
    "OnnxPeer",
    "OnnxRuntime",
    "OpenVino",
    "Torch",
    "TorchChannelsLast",
    "is_same",
    "onnx_model",
    "refuse_all_but_filters",
    "symmetric_padding",
    "torch_tensor",
]


def symmetric_padding(problem: ConvProblem) -> tuple[int, ...] | None:
    """Return one pad an axis where equal pads at both sides give the same output, else None.

    A stride may leave the last padded positions unread; then the high pad does not matter.
    """
    lows = tuple(low for low, _ in problem.padding)
    equal = problem.with_(padding=tuple((low, low) for low in lows))
    return lows if equal.out_size == problem.out_size else None


class Torch(Peer):
    """``torch.nn.functional.conv*`` on tensors in the problem's own memory order."""

    name = "torch"
    modules = ("torch",)
    distribution = "torch"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import torch

        torch.set_num_threads(threads)
        torch.inference_mode().__enter__()  # for the rest of this process

    def _tensors(self, problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> tuple[Any, Any]:
        return torch_tensor(x), torch_tensor(w)

    def prepare(self, problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> Call:
        """Return the functional call; unequal pads go through ``F.pad`` inside it."""
        from torch.nn import functional

        conv = getattr(functional, f"conv{problem.ndim}d")
        xt, wt = self._tensors(problem, x, w)
        stride, dilation, groups = problem.stride, problem.dilation, problem.groups
        pads = symmetric_padding(problem)
        if pads is not None:
            return lambda: conv(xt, wt, None, stride, pads, dilation, groups)
        sides = [side for pair in reversed(problem.padding) for side in pair]
        return lambda: conv(functional.pad(xt, sides), wt, None, stride, 0, dilation, groups)

    def to_numpy(self, problem: ConvProblem, result: Any) -> np.ndarray:
        """Return the tensor's values; bfloat16 as float32, which NumPy knows."""
        array: np.ndarray = (result.float() if problem.dtype == "bfloat16" else result).numpy()
        return array


def torch_tensor(array: np.ndarray) -> Any:
    """Return a tensor on an array's memory."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


class TorchChannelsLast(Torch):
    """The same with input and weight in PyTorch's channels-last memory format."""

    name = "torch_channels_last"

    def _tensors(self, problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> tuple[Any, Any]:
        import torch

        if problem.ndim == 1:
            raise Refusal("PyTorch has no channels-last memory format for 1-D")
        last = torch.channels_last if problem.ndim == 2 else torch.channels_last_3d
        xt, wt = super()._tensors(problem, x, w)
        return xt.contiguous(memory_format=last), wt.contiguous(memory_format=last)


def onnx_model(op: str, problem: Any, w: np.ndarray, **attributes: Any) -> bytes:
    """Return an ONNX model of one node whose weight is a constant."""
    from onnx import helper, numpy_helper

    element = helper.np_dtype_to_tensor_dtype(w.dtype)
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", element, list(problem.x_shape))],
        [helper.make_tensor_value_info("y", element, list(problem.out_shape))],
        [numpy_helper.from_array(np.ascontiguousarray(w), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    content: bytes = model.SerializeToString()
    return content


class OnnxPeer(Peer):
    """A library that is given a model of one node."""

    def model(self, problem: Any, w: np.ndarray) -> bytes:
        """Return the model of a problem with its weight."""
        return onnx_model(
            "Conv", problem, w, strides=list(problem.stride),
            pads=[pad for side in zip(*problem.padding, strict=True) for pad in side],
            dilations=list(problem.dilation), group=problem.groups,
        )  # fmt: skip


class OnnxRuntime(OnnxPeer):
    """ONNX Runtime's CPU provider on a model of one node."""

    name = "onnxruntime"
    modules = ("onnxruntime", "onnx")
    distribution = "onnxruntime"

    def prepare(self, problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> Call:
        """Build a session; the call is ``session.run``."""
        import onnxruntime

        if problem.dtype not in ("float32", "float16"):
            raise Refusal(f"ONNX Runtime's CPU provider has no {problem.dtype} Conv")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            self.model(problem, w), options, providers=["CPUExecutionProvider"]
        )
        feed = {"x": np.ascontiguousarray(x)}
        return lambda: session.run(None, feed)[0]


class OpenVino(OnnxPeer):
    """OpenVINO's CPU plugin, told to compute bfloat16 in its own type, all else in float32.

    Tensors of all three types go in and out as they are.
    """

    name = "openvino"
    modules = ("openvino", "onnx")
    distribution = "openvino"

    def prepare(self, problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> Call:
        """Compile the model; the call is one inference on tensors that share x's memory."""
        import openvino

        core = openvino.Core()
        if problem.dtype == "float64":
            raise Refusal("OpenVINO's CPU plugin computes float64 in another type")
        bfloat16 = problem.dtype == "bfloat16"
        if bfloat16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise Refusal("OpenVINO's CPU plugin computes bfloat16 in another type on this CPU")
        compiled = core.compile_model(
            core.read_model(self.model(problem, w), b""),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": self.threads,
                "PERFORMANCE_HINT": "LATENCY",
                # This plugin may choose bfloat16 by itself on a CPU that has it.
                "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            },
        )
        request = compiled.create_infer_request()
        feed = np.ascontiguousarray(x)
        request.set_input_tensor(_openvino_tensor(feed))

        def call(_held: np.ndarray = feed) -> Any:  # the request does not hold x's memory
            request.infer()
            return request.get_output_tensor().data

        return call

    def to_numpy(self, problem: ConvProblem, result: Any) -> np.ndarray:
        """Return the output; what is bfloat16 comes as so many float16."""
        return super().to_numpy(problem, result.view(numpy_dtype(problem.dtype)))


def _openvino_tensor(array: np.ndarray) -> Any:
    """Return a tensor on an array's memory."""
    import openvino

    if array.dtype.name == "bfloat16":
        return openvino.Tensor(array.view(np.int16), list(array.shape), openvino.Type.bf16)
    return openvino.Tensor(array, shared_memory=True)


def refuse_all_but_filters(problem: ConvProblem, library: str) -> None:
    """Raise where a problem is not one kernel a channel, dense, with stride 1."""
    if problem.dtype in ("float16", "bfloat16"):
        raise Refusal(f"{library} is called on float32 and float64 only")
    if not problem.in_channels == problem.out_channels == problem.groups:
        raise Refusal(f"{library} filters each channel by itself, with one kernel a channel")
    if set(problem.stride) != {1}:
        raise Refusal(f"{library} filters with stride 1 only")
    if set(problem.dilation) != {1}:
        raise Refusal(f"{library} filters without dilation only")


def is_same(problem: ConvProblem) -> bool:
    """Tell whether kernels are odd and pads keep the size, the same at both sides."""
    sides = zip(problem.padding, problem.kernel_size, strict=True)
    return all(low == high and 2 * low == k - 1 for (low, high), k in sides)


class SciPy(Peer):
    """The fastest of oaconvolve, fftconvolve and, for small kernels, ndimage.correlate."""

    name = "scipy"
    modules = ("scipy",)
    distribution = "scipy"
    #: ndimage.correlate takes about 1 ns a tap and pixel: above this it cannot win.
    direct_taps: ClassVar[int] = 128

    def prepare(self, problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> Call:
        """Try each function once and return the fastest."""
        refuse_all_but_filters(problem, "SciPy")
        from scipy import fft, signal

        axes = tuple(range(2, 2 + problem.ndim))
        padded = ((0, 0), (0, 0), *problem.padding)
        flipped = np.flip(w[:, 0], axis=tuple(range(1, 1 + problem.ndim)))[None]

        def transform(convolve: Callable[..., Any]) -> Call:
            def call() -> Any:
                with fft.set_workers(self.threads):
                    return convolve(np.pad(x, padded), flipped, mode="valid", axes=axes)

            return call

        calls = [transform(signal.oaconvolve), transform(signal.fftconvolve)]
        if is_same(problem) and prod(problem.kernel_size) <= self.direct_taps:
            calls.append(self._correlate(x, w))
        return self.fastest(calls)

    @staticmethod
    def _correlate(x: np.ndarray, w: np.ndarray) -> Call:
        from scipy import ndimage

        def call() -> Any:
            out = np.empty_like(x)
            for n, c in np.ndindex(x.shape[:2]):
                ndimage.correlate(x[n, c], w[c, 0], output=out[n, c], mode="constant")
            return out

        return call


class OpenCV(Peer):
    """``cv2.filter2D``, zeros outside the image.

    A channel at a time, or all at once where they lie side by side and have one filter.
    """

    name = "opencv"
    modules = ("cv2",)
    distribution = "opencv-python-headless"
    integers = True

    depths: ClassVar[dict[str, str]] = {
        "float32": "CV_32F", "float64": "CV_64F", "uint8": "CV_8U", "uint16": "CV_16U",
        "int16": "CV_16S",
    }  # fmt: skip

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import cv2

        cv2.setNumThreads(threads)

    def version(self) -> str:
        """Return the module's own version, as several distributions carry it."""
        import cv2

        return str(cv2.__version__)

    def border(self, problem: Any) -> int:
        """Return the number of what lies outside the image."""
        import cv2

        number: int = cv2.BORDER_CONSTANT
        return number

    def prepare(self, problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> Call:
        """Return one filter2D a plane into a new output."""
        import cv2

        refuse_all_but_filters(problem, "OpenCV")
        if problem.ndim != 2:
            raise Refusal("OpenCV filters 2-D images only")
        result = problem.result_dtype
        if result in INTEGERS and problem.dtype not in ("uint8", result):
            raise Refusal(f"OpenCV's filter2D makes no {result} of {problem.dtype}")
        if not is_same(problem):
            raise Refusal("OpenCV's filter2D is called on odd kernels with 'same' padding only")
        depth = getattr(cv2, self.depths[result])
        border, pixels = self.border(problem), np.moveaxis(x[0], 0, -1)
        one_filter = problem.batch == 1 and np.all(w == w[:1])
        if problem.layout == "channels_last" and one_filter and pixels.flags.c_contiguous:

            def filter_pixels() -> Any:
                made = cv2.filter2D(pixels, depth, w[0, 0], borderType=border)
                return np.moveaxis(made, -1, 0)[None]

            return filter_pixels
        image = np.ascontiguousarray(x)
        planes = list(np.ndindex(image.shape[:2]))

        def call() -> Any:
            out = np.empty(problem.out_shape, result)
            for n, c in planes:
                plane, kernel = image[n, c], w[c, 0]
                cv2.filter2D(plane, depth, kernel, out[n, c], borderType=border)
            return out

        return call


#: Every column of the table by its name, fastconv's own first.
CPU_PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        Fastconv,
        FastconvFunctional,
        FastconvBest,
        Torch,
        TorchChannelsLast,
        OnnxRuntime,
        OpenVino,
        Ncnn,
        SciPy,
        OpenCV,
    )
}
