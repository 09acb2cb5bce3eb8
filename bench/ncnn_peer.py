"""ncnn, whose kernels for a CPU are Winograd's too.

It computes one image at a time in a layout of its own, channels packed by 4 to 16: a call turns
the image into that layout and the result back, as one layer between plain arrays needs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.contract.problem import ConvProblem

from .peer import Call, Peer, Refusal

__all__ = ["Ncnn", "set_options"]

_MAGIC = 7767517
#: Of a weight in a model: elements are float32 as they stand.
_RAW = np.uint32(0).tobytes()
#: Keys of a layer's sizes by axis, the last one first: kernel, dilation, stride, low and high pad.
_KEYS = ((1, 2, 3, 4, 15), (11, 12, 13, 14, 16), (21, 22, 23, 24, 17))


class Ncnn(Peer):
    """A net of one layer, in float32 throughout."""

    name = "ncnn"
    modules = ("ncnn",)
    distribution = "ncnn"
    note = "ncnn: each call packs the image's channels and unpacks the result's"

    def prepare(self, problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> Call:
        """Load the net; the call is one extractor's, from the image to the output."""
        import ncnn

        if problem.dtype != "float32":
            raise Refusal("ncnn is called on float32 only")
        if problem.batch != 1:
            raise Refusal("ncnn computes one image at a time")
        net = ncnn.Net()
        set_options(net.opt, self.threads)
        _load(net, problem, w)
        array = np.ascontiguousarray(x[0])
        # A copy, as a Mat on an array's memory neither holds the array nor aligns its channels.
        image = ncnn.Mat(array).clone()

        def call() -> Any:
            extractor = net.create_extractor()
            extractor.input("x", image)
            code, result = extractor.extract("y")
            if code:
                raise RuntimeError(f"ncnn's extract returned {code}")
            return result

        return call


def set_options(options: Any, threads: int) -> None:
    """Have a net compute in float32 throughout, in its own layout, on so many threads."""
    options.num_threads = threads
    options.lightmode = True
    options.use_packing_layout = True
    options.use_winograd_convolution = True
    options.use_sgemm_convolution = True
    options.use_vulkan_compute = False
    options.use_fp16_packed = False
    options.use_fp16_storage = False
    options.use_fp16_arithmetic = False
    options.use_bf16_storage = False


def _load(net: Any, problem: ConvProblem, w: np.ndarray) -> None:
    """Give a net its layer and weight."""
    if code := net.load_param_mem(_description(problem)):
        raise RuntimeError(f"ncnn's load_param_mem returned {code}")
    # load_model_mem would have the layer keep pointing at memory that Python frees.
    with tempfile.TemporaryDirectory(prefix="fastconv-ncnn-") as folder:
        path = Path(folder) / "weight.bin"
        path.write_bytes(_RAW + np.ascontiguousarray(w).tobytes())
        if code := net.load_model(str(path)):
            raise RuntimeError(f"ncnn's load_model returned {code}")


def _description(problem: ConvProblem) -> str:
    """Return the net in ncnn's text form: an input and a convolution without bias."""
    kind = "Convolution" if problem.groups == 1 else "ConvolutionDepthWise"
    dimensions = {1: "1D", 2: "", 3: "3D"}[problem.ndim]
    numbers = {0: problem.out_channels, 5: 0, 6: int(np.prod(problem.weight_shape))}
    if problem.groups > 1:
        numbers[7] = problem.groups
    axes = zip(problem.kernel_size, problem.dilation, problem.stride, problem.padding, strict=True)
    for keys, (kernel, dilation, stride, pads) in zip(_KEYS, reversed(list(axes)), strict=False):
        numbers |= zip(keys, (kernel, dilation, stride, *pads), strict=True)
    arguments = " ".join(f"{key}={number}" for key, number in numbers.items())
    return f"{_MAGIC}\n2 2\nInput x 0 1 x\n{kind}{dimensions} y 1 1 x y {arguments}\n"
