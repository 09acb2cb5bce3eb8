"""The truth that every kernel is tested against: plain NumPy in float64, slow and obvious.

One module a family of operators, one function an operator. Nothing here is fast on purpose and
nothing here is ever dispatched to. Sparse operators are in ``reference.sparse``.
"""

from __future__ import annotations

from .conv import (
    ACTIVATIONS,
    activate,
    conv,
    conv_transpose,
    conv_weight_grad,
)
from .pool import max_pool

__all__ = ["ACTIVATIONS", "activate", "conv", "conv_transpose", "conv_weight_grad", "max_pool"]
