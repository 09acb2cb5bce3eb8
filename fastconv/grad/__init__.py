"""Gradients of operators: ``OPERATOR_OPERAND`` is that of one operand, from the output's.

Those of convolutions have the signatures of ``torch.nn.grad``. All are the same bits for any number
of threads and in every run.
"""

from __future__ import annotations

from ..tensors import open_to_tensors
from .conv import (
    conv1d_bias,
    conv1d_input,
    conv1d_weight,
    conv2d_bias,
    conv2d_input,
    conv2d_weight,
    conv3d_bias,
    conv3d_input,
    conv3d_weight,
)
from .deform import (
    deform_conv2d_bias,
    deform_conv2d_input,
    deform_conv2d_mask,
    deform_conv2d_offset,
    deform_conv2d_weight,
)
from .linear import (
    linear_bias,
    linear_input,
    linear_weight,
)
from .max_pool import (
    adaptive_max_pool1d_input,
    adaptive_max_pool2d_input,
    adaptive_max_pool3d_input,
    max_pool1d_input,
    max_pool2d_input,
    max_pool3d_input,
    max_unpool1d_input,
    max_unpool2d_input,
    max_unpool3d_input,
)
from .norm import (
    batch_norm_bias,
    batch_norm_input,
    batch_norm_weight,
    group_norm_bias,
    group_norm_input,
    group_norm_weight,
    instance_norm_bias,
    instance_norm_input,
    instance_norm_weight,
    layer_norm_bias,
    layer_norm_input,
    layer_norm_weight,
)
from .pool import (
    adaptive_avg_pool1d_input,
    adaptive_avg_pool2d_input,
    adaptive_avg_pool3d_input,
    avg_pool1d_input,
    avg_pool2d_input,
    avg_pool3d_input,
    lp_pool1d_input,
    lp_pool2d_input,
    lp_pool3d_input,
)
from .rearrange import (
    channel_shuffle_input,
    fold_input,
    pixel_shuffle_input,
    pixel_unshuffle_input,
    unfold_input,
)
from .resize import (
    interpolate_input,
)
from .softmax import (
    local_response_norm_input,
    log_softmax_input,
    prelu_input,
    prelu_weight,
    softmax_input,
)
from .transposed import (
    conv_transpose1d_bias,
    conv_transpose1d_input,
    conv_transpose1d_weight,
    conv_transpose2d_bias,
    conv_transpose2d_input,
    conv_transpose2d_weight,
    conv_transpose3d_bias,
    conv_transpose3d_input,
    conv_transpose3d_weight,
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
    "batch_norm_bias",
    "batch_norm_input",
    "batch_norm_weight",
    "channel_shuffle_input",
    "conv1d_bias",
    "conv1d_input",
    "conv1d_weight",
    "conv2d_bias",
    "conv2d_input",
    "conv2d_weight",
    "conv3d_bias",
    "conv3d_input",
    "conv3d_weight",
    "conv_transpose1d_bias",
    "conv_transpose1d_input",
    "conv_transpose1d_weight",
    "conv_transpose2d_bias",
    "conv_transpose2d_input",
    "conv_transpose2d_weight",
    "conv_transpose3d_bias",
    "conv_transpose3d_input",
    "conv_transpose3d_weight",
    "deform_conv2d_bias",
    "deform_conv2d_input",
    "deform_conv2d_mask",
    "deform_conv2d_offset",
    "deform_conv2d_weight",
    "fold_input",
    "group_norm_bias",
    "group_norm_input",
    "group_norm_weight",
    "instance_norm_bias",
    "instance_norm_input",
    "instance_norm_weight",
    "interpolate_input",
    "layer_norm_bias",
    "layer_norm_input",
    "layer_norm_weight",
    "linear_bias",
    "linear_input",
    "linear_weight",
    "local_response_norm_input",
    "log_softmax_input",
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
    "prelu_input",
    "prelu_weight",
    "softmax_input",
    "unfold_input",
]

# As handed out they take CPU tensors, too; modules that build on one another see arrays alone.
globals().update({name: open_to_tensors(globals()[name]) for name in __all__})
