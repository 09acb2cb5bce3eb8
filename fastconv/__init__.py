"""Convolution for NumPy arrays, as fast as the machine allows, with every choice explained.

Names are loaded when they are first used: ``import fastconv`` itself loads neither Numba nor any
other array library.

Examples
--------
>>> import numpy as np, fastconv
>>> x = np.ones((1, 3, 32, 32), np.float32)
>>> fastconv.conv2d(x, np.ones((8, 3, 3, 3), np.float32), padding=1).shape
(1, 8, 32, 32)
"""

from __future__ import annotations

from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# Run from a checkout's root, this folder hides an installed wheel: its kernels are still found.
__path__ = extend_path(__path__, __name__)

from .contract import first_use

if TYPE_CHECKING:
    from . import analysis, grad, sparse
    from .contract.errors import (
        ArgumentError,
        DeviceError,
        DTypeError,
        FastconvError,
        NoKernelError,
        ShapeError,
    )
    from .contract.pair_problem import PairProblem
    from .contract.problem import ConvProblem
    from .contract.settings import get_num_threads, set_num_threads
    from .contract.transposed_problem import TransposedProblem
    from .dispatch import precision, use_kernel
    from .explanation import explain
    from .folding import fold_batch_norm
    from .functional import conv1d, conv2d, conv3d
    from .nn import Conv1d, Conv2d, Conv3d
    from .ops.adaptive_pool import (
        adaptive_avg_pool1d,
        adaptive_avg_pool2d,
        adaptive_avg_pool3d,
        adaptive_max_pool1d,
        adaptive_max_pool2d,
        adaptive_max_pool3d,
    )
    from .ops.deform import deform_conv2d
    from .ops.deform_layers import DeformConv2d
    from .ops.linear import Linear, linear
    from .ops.norm import batch_norm, group_norm, instance_norm, layer_norm
    from .ops.pointwise import local_response_norm, prelu
    from .ops.pool import (
        avg_pool1d,
        avg_pool2d,
        avg_pool3d,
        lp_pool1d,
        lp_pool2d,
        lp_pool3d,
        max_pool1d,
        max_pool2d,
        max_pool3d,
    )
    from .ops.rearrange import channel_shuffle, pixel_shuffle, pixel_unshuffle
    from .ops.resize import interpolate
    from .ops.separable import conv2d_pair, separable_conv2d
    from .ops.separable_layers import Conv2dPair, SeparableConv2d
    from .ops.softmax import log_softmax, softmax
    from .ops.transposed import conv_transpose1d, conv_transpose2d, conv_transpose3d
    from .ops.transposed_layers import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
    from .ops.unfold import fold, unfold
    from .ops.unpool import max_unpool1d, max_unpool2d, max_unpool3d

__version__ = "0.1.0"

_MODULES = {
    "contract.settings": ("get_num_threads", "set_num_threads"),
    "dispatch": ("precision", "use_kernel"),
    "contract.errors": (
        "ArgumentError",
        "DTypeError",
        "DeviceError",
        "FastconvError",
        "NoKernelError",
        "ShapeError",
    ),
    "explanation": ("explain",),
    "functional": ("conv1d", "conv2d", "conv3d"),
    "folding": ("fold_batch_norm",),
    "nn": ("Conv1d", "Conv2d", "Conv3d"),
    "ops.pool": (
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "lp_pool1d",
        "lp_pool2d",
        "lp_pool3d",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
    ),
    "ops.adaptive_pool": (
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
    ),
    "ops.unpool": ("max_unpool1d", "max_unpool2d", "max_unpool3d"),
    "ops.deform": ("deform_conv2d",),
    "ops.deform_layers": ("DeformConv2d",),
    "ops.linear": ("Linear", "linear"),
    "ops.rearrange": ("channel_shuffle", "pixel_shuffle", "pixel_unshuffle"),
    "ops.unfold": ("fold", "unfold"),
    "ops.norm": ("batch_norm", "group_norm", "instance_norm", "layer_norm"),
    "ops.pointwise": ("local_response_norm", "prelu"),
    "ops.softmax": ("log_softmax", "softmax"),
    "ops.resize": ("interpolate",),
    "ops.separable": ("conv2d_pair", "separable_conv2d"),
    "ops.separable_layers": ("Conv2dPair", "SeparableConv2d"),
    "ops.transposed": ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    "ops.transposed_layers": ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"),
    "contract.pair_problem": ("PairProblem",),
    "contract.problem": ("ConvProblem",),
    "contract.transposed_problem": ("TransposedProblem",),
}
_SUBMODULES = ("analysis", "cuda_emulator", "grad", "onnx", "sparse", "spconv", "torch")
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ArgumentError",
    "Conv1d",
    "Conv2d",
    "Conv2dPair",
    "Conv3d",
    "ConvProblem",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DTypeError",
    "DeformConv2d",
    "DeviceError",
    "FastconvError",
    "Linear",
    "NoKernelError",
    "PairProblem",
    "SeparableConv2d",
    "ShapeError",
    "TransposedProblem",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "analysis",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv2d_pair",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "deform_conv2d",
    "explain",
    "fold",
    "fold_batch_norm",
    "get_num_threads",
    "grad",
    "group_norm",
    "instance_norm",
    "interpolate",
    "layer_norm",
    "linear",
    "local_response_norm",
    "log_softmax",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "pixel_shuffle",
    "pixel_unshuffle",
    "precision",
    "prelu",
    "separable_conv2d",
    "set_num_threads",
    "softmax",
    "sparse",
    "unfold",
    "use_kernel",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return first_use.load(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'fastconv' has no attribute {name!r}")
    home = _HOME[name]
    value = getattr(first_use.load(f"{__name__}.{home}"), name)
    if home.startswith(("functional", "ops.", "explanation")) and not isinstance(value, type):
        value = first_use.load(f"{__name__}.tensors").open_to_tensors(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME) | set(_SUBMODULES))
