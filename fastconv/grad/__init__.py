"""Gradients of operators: ``OPERATOR_OPERAND`` is that of one operand, from the output's.

Those of convolutions have the signatures of ``torch.nn.grad``. All are the same bits for any number
of threads and in every run.
"""

from __future__ import annotations

from .conv import (
    conv1d_input,
    conv1d_weight,
    conv2d_input,
    conv2d_weight,
    conv3d_input,
    conv3d_weight,
)
from .linear import (
    linear_bias,
    linear_input,
    linear_weight,
)
from .pool import (
    adaptive_avg_pool1d_input,
    adaptive_avg_pool2d_input,
    adaptive_avg_pool3d_input,
    adaptive_max_pool1d_input,
    adaptive_max_pool2d_input,
    adaptive_max_pool3d_input,
    avg_pool1d_input,
    avg_pool2d_input,
    avg_pool3d_input,
    lp_pool1d_input,
    lp_pool2d_input,
    lp_pool3d_input,
    max_pool1d_input,
    max_pool2d_input,
    max_pool3d_input,
    max_unpool1d_input,
    max_unpool2d_input,
    max_unpool3d_input,
)
from .rearrange import (
    channel_shuffle_input,
    fold_input,
    pixel_shuffle_input,
    pixel_unshuffle_input,
    unfold_input,
)

__all__ = [
    "adaptive_avg_pool1d_input",
    "adaptive_avg_pool2d_input",
    "adaptive_avg_pool3d_input",
    "adaptive_max_pool1d_input",
    "adaptive_max_pool2d_input",
    "adaptive_max_pool3d_input",
    "avg_pool1d_input",
    "avg_pool2d_input",
    "avg_pool3d_input",
    "channel_shuffle_input",
    "conv1d_input",
    "conv1d_weight",
    "conv2d_input",
    "conv2d_weight",
    "conv3d_input",
    "conv3d_weight",
    "fold_input",
    "linear_bias",
    "linear_input",
    "linear_weight",
    "lp_pool1d_input",
    "lp_pool2d_input",
    "lp_pool3d_input",
    "max_pool1d_input",
    "max_pool2d_input",
    "max_pool3d_input",
    "max_unpool1d_input",
    "max_unpool2d_input",
    "max_unpool3d_input",
    "pixel_shuffle_input",
    "pixel_unshuffle_input",
    "unfold_input",
]
