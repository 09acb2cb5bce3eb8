"""The truth that every kernel is tested against: plain NumPy in float64, slow and obvious.

One module a family of operators, one function an operator. Nothing here is fast on purpose and
nothing here is ever dispatched to. Sparse operators are in ``reference.sparse``.
"""

from __future__ import annotations

from .conv import (
    ACTIVATIONS,
    activate,
    as_integers,
    conv,
    conv_transpose,
    conv_weight_grad,
)
from .deform import (
    deform_conv,
    deform_conv_grad_input,
    deform_conv_grad_offset,
    deform_conv_grad_weight,
)
from .linear import (
    linear,
)
from .norm import (
    batch_norm,
    batch_norm_grad,
    group_norm,
    group_norm_grad,
    instance_norm,
    layer_norm,
    layer_norm_grad,
    local_response_norm,
    prelu,
)
from .pair import (
    conv_pair,
)
from .pool import (
    adaptive_avg_pool,
    adaptive_avg_pool_grad,
    adaptive_max_pool,
    avg_pool,
    avg_pool_grad,
    lp_pool,
    max_pool,
    max_pool_grad,
    max_unpool,
    max_unpool_grad,
)
from .rearrange import (
    channel_shuffle,
    fold,
    interleave,
    pad,
    pixel_shuffle,
    pixel_unshuffle,
    unfold,
)
from .resize import (
    interpolate,
    interpolate_grad,
)
from .softmax import (
    log_softmax,
    softmax,
)

__all__ = [
    "ACTIVATIONS",
    "activate",
    "adaptive_avg_pool",
    "adaptive_avg_pool_grad",
    "adaptive_max_pool",
    "as_integers",
    "avg_pool",
    "avg_pool_grad",
    "batch_norm",
    "batch_norm_grad",
    "channel_shuffle",
    "conv",
    "conv_pair",
    "conv_transpose",
    "conv_weight_grad",
    "deform_conv",
    "deform_conv_grad_input",
    "deform_conv_grad_offset",
    "deform_conv_grad_weight",
    "fold",
    "group_norm",
    "group_norm_grad",
    "instance_norm",
    "interleave",
    "interpolate",
    "interpolate_grad",
    "layer_norm",
    "layer_norm_grad",
    "linear",
    "local_response_norm",
    "log_softmax",
    "lp_pool",
    "max_pool",
    "max_pool_grad",
    "max_unpool",
    "max_unpool_grad",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "prelu",
    "softmax",
    "unfold",
]
