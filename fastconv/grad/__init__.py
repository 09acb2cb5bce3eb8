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

__all__ = [
    "conv1d_input",
    "conv1d_weight",
    "conv2d_input",
    "conv2d_weight",
    "conv3d_input",
    "conv3d_weight",
]
