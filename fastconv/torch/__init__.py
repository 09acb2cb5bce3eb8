"""PyTorch's functions and models on fastconv's kernels, on the CPU.

``conv2d``, ``max_pool2d`` and others
    Functions with the names, arguments and gradients of ``torch.nn.functional``'s. They are
    operators of ``torch.library``, so they compile without breaking the graph.
``patch()``
    Lets a block of code find these in ``torch.nn.functional``.
``optimize(model)``
    Returns a model in evaluation mode with its layers fused, their weights packed once.

Names and arguments are translated here, and nothing is computed. The package ``torch`` is
imported with this module alone; ``pip install 'fastconv[torch]'`` brings it.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401 - the modules below need it; here its absence is told of
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "fastconv.torch needs torch, which is not installed: pip install 'fastconv[torch]'",
        name="torch",
    ) from None

from .functional import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    linear,
)
from .layers import (
    batch_norm,
    group_norm,
    instance_norm,
    interpolate,
    layer_norm,
    log_softmax,
    prelu,
    softmax,
)
from .optimizing import optimize
from .patching import patch
from .pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
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

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "group_norm",
    "instance_norm",
    "interpolate",
    "layer_norm",
    "linear",
    "log_softmax",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "optimize",
    "patch",
    "prelu",
    "softmax",
]
